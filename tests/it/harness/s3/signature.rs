//! Signatures in the query of a request (AWS Signature Version 4), as an object store checks them. Written from the
//! specification, and independent of the program's own.
//!
//! Tests sign with the same code; published examples and those of another library show that it is right.

use data_encoding::HEXLOWER;
use percent_encoding::percent_decode_str;
use ring::{digest, hmac};

use super::answer::Refusal;

const DAY: u64 = 86_400;

/// A store accepts signatures from the future up to this many seconds.
const SKEW: u64 = 900;

/// The longest lifetime, in seconds.
const LONGEST: u64 = 604_800;

/// The parameters that every signed query has.
const PARAMETERS: [&str; 5] = [
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
];

/// A key pair, and the region in which it is valid.
#[derive(Clone, Debug)]
pub struct Access {
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
}

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// Names and values, decoded.
    pub query: Vec<(String, String)>,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn new(method: &str, target: &str) -> Head {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Head {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs.map(pair).collect(),
            fields: Vec::new(),
        }
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs.find_map(|(other, value)| (other == name).then_some(value.as_str()))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(other, value)| (other == name).then_some(value.as_str()))
    }

    /// What is signed: one line each for the method, the path, the query and the signed fields.
    fn canonical(&self, signed: &str) -> String {
        let mut query: Vec<String> = self
            .query
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| format!("{}={}", encoded(name, ""), encoded(value, "")))
            .collect();
        query.sort();
        let fields: String = signed
            .split(';')
            .map(|name| {
                let value = self.field(name).unwrap_or_default();
                let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
                format!("{name}:{}\n", words.join(" "))
            })
            .collect();
        format!(
            "{}\n{}\n{}\n{fields}\n{signed}\nUNSIGNED-PAYLOAD",
            self.method,
            encoded(&decoded(&self.path), "/"),
            query.join("&")
        )
    }
}

/// Every byte but unreserved ones (RFC 3986 §2.3) and those of `kept`.
pub fn encoded(text: &str, kept: &str) -> String {
    let mut result = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            result.push(c);
        } else {
            result += &format!("%{byte:02X}");
        }
    }
    result
}

pub fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn sign(key: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

/// The signature of a request, and what was signed, for the answer of a store that finds another one.
fn signature(head: &Head, access: &Access, date: &str, signed: &str) -> (String, String) {
    let canonical = head.canonical(signed);
    let scope = format!("{}/{}/s3/aws4_request", &date[..8], access.region);
    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let mut key = format!("AWS4{}", access.secret_key).into_bytes();
    for part in [&date[..8], &access.region, "s3", "aws4_request"] {
        key = sign(&key, part);
    }
    (HEXLOWER.encode(&sign(&key, &text)), canonical)
}

/// A signed request: adds the parameters to its query. All its fields are signed. Returns its target.
pub fn presign(head: &mut Head, access: &Access, time: u64, lifetime: u64) -> String {
    let date = basic_date(time);
    let mut names: Vec<&str> = head.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let names = names.join(";");
    let scope = format!("{}/{}/s3/aws4_request", &date[..8], access.region);
    for (name, value) in [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("X-Amz-Credential", format!("{}/{scope}", access.access_key)),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Expires", lifetime.to_string()),
        ("X-Amz-SignedHeaders", names.clone()),
    ] {
        head.query.push((name.to_owned(), value));
    }
    let (signature, _) = signature(head, access, &date, &names);
    head.query.push(("X-Amz-Signature".to_owned(), signature));
    let pairs = head.query.iter();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{}={}", encoded(name, ""), encoded(value, "")))
        .collect();
    format!("{}?{}", head.path, pairs.join("&"))
}

/// Checks the signature of a request that arrives at this time.
pub fn check(head: &Head, access: &Access, now: u64) -> Result<(), Refusal> {
    let malformed = |why: &str| Refusal::new(400, "AuthorizationQueryParametersError", why);
    let denied = |why: &str| Refusal::new(403, "AccessDenied", why);
    let Some(algorithm) = head.parameter("X-Amz-Algorithm") else {
        return Err(denied("Access Denied"));
    };
    if head.field("authorization").is_some() {
        return Err(Refusal::new(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed",
        ));
    }
    let value = |name: &str| head.parameter(name).unwrap_or_default();
    if algorithm != "AWS4-HMAC-SHA256" || PARAMETERS.iter().any(|name| value(name).is_empty()) {
        return Err(malformed(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, \
             X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
        ));
    }
    let [credential, date, lifetime, signed, given] = PARAMETERS.map(value);
    let Some(signed_at) = time_of(date) else {
        return Err(malformed("X-Amz-Date must be in the ISO8601 Long Format"));
    };
    let [access_key, day, region, service, end] = credential.split('/').collect::<Vec<_>>()[..]
    else {
        return Err(malformed("Error parsing the X-Amz-Credential parameter"));
    };
    if access_key != access.access_key {
        let why = "The AWS Access Key Id you provided does not exist in our records.";
        return Err(Refusal::new(403, "InvalidAccessKeyId", why));
    }
    if region != access.region {
        return Err(malformed(&format!(
            "Error parsing the X-Amz-Credential parameter; the region '{region}' is wrong; expecting '{}'",
            access.region
        )));
    }
    if day != &date[..8] || service != "s3" || end != "aws4_request" {
        return Err(malformed("Error parsing the X-Amz-Credential parameter"));
    }
    let lifetime = match lifetime.parse() {
        Ok(seconds) if (1..=LONGEST).contains(&seconds) => seconds,
        _ => {
            return Err(malformed(
                "X-Amz-Expires must be less than a week (in seconds)",
            ));
        }
    };
    if signed_at > now + SKEW {
        let why = "The difference between the request time and the current time is too large.";
        return Err(Refusal::new(403, "RequestTimeTooSkewed", why));
    }
    if now >= signed_at + lifetime {
        return Err(denied("Request has expired"));
    }
    let names: Vec<&str> = signed.split(';').collect();
    let unsigned = |name: &str| name.starts_with("x-amz-") && !names.contains(&name);
    if head.fields.iter().any(|(name, _)| unsigned(name)) {
        let why = "There were headers present in the request which were not signed";
        return Err(denied(why));
    }
    if !names.contains(&"host") || !names.is_sorted() {
        return Err(malformed("Signed headers must be sorted and have the host"));
    }
    let (expected, canonical) = signature(head, access, date, signed);
    if expected != given {
        let why = "The request signature we calculated does not match the signature you provided. Check your key and \
                   signing method.";
        return Err(Refusal::new(403, "SignatureDoesNotMatch", why)
            .with("AWSAccessKeyId", access_key)
            .with("SignatureProvided", given)
            .with("CanonicalRequest", &canonical));
    }
    Ok(())
}

/// `20150830T123600Z`.
pub fn basic_date(unix: u64) -> String {
    let ([year, month, day], seconds) = (civil(unix / DAY), unix % DAY);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2015-08-30T12:36:00.000Z`.
pub fn extended_date(unix: u64) -> String {
    let date = basic_date(unix);
    let part = |from: usize, to: usize| &date[from..to];
    format!(
        "{}-{}-{}T{}:{}:{}.000Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    )
}

/// The Unix time of a basic date; `None` unless it is one.
fn time_of(date: &str) -> Option<u64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let wanted = [number(0, 4)?, number(4, 6)?, number(6, 8)?];
    // Without leap days, so not later than the day that is looked for.
    let earliest = wanted[0].checked_sub(1970)? * 365;
    let days = (earliest..earliest + 1000).find(|day| civil(*day) == wanted)?;
    let time = days * DAY + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    (basic_date(time) == date).then_some(time)
}

/// Year, month and day of a day since 1970.
fn civil(day: u64) -> [u64; 3] {
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, day);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    [year, month, left + 1]
}
