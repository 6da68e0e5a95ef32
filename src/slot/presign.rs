//! Presigned URLs of an S3-compatible object store: AWS Signature Version 4 in the query.
//!
//! A signature covers the method, the path, the query, `host` and the fields that the caller names, but not the body
//! (`UNSIGNED-PAYLOAD`). The store verifies it when the request begins. Signing takes one SHA-256 digest and one HMAC,
//! because whatever depends on nothing but the day is prepared: the beginning of the query, and the key, which is derived
//! from the secret key by four HMACs.
//!
//! Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".

use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use percent_encoding::utf8_percent_encode;
use ring::{digest, hmac};

use crate::decimal;
use crate::layout::SEGMENT;
use crate::now::{LAST_SECOND, date_time};

/// The longest lifetime of a signature in seconds: a week.
pub const MAX_LIFETIME: u64 = 604_800;

const DAY: u64 = 86_400;

/// Length of a time as in `20130524T000000Z`.
const TIME: usize = 16;

/// Usual length of a canonical request without its path and the values of its query.
const USUAL_CANONICAL: usize = 640;

/// Length of the signed message without the name of the region, at most.
const MAX_MESSAGE: usize = 160;

/// Signs requests to one region with one access key.
pub struct Presigner {
    access_key: String,
    region: String,
    /// From the secret key.
    root: hmac::Key,
    today: Day,
}

/// What all signatures of a day have in common.
struct Day {
    /// In days since 1970.
    number: u64,
    /// As in `20130524/us-east-1/s3/aws4_request`.
    scope: String,
    /// The beginning of the canonical query, up to the `T` in the time.
    query: String,
    key: hmac::Key,
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    /// As the client will send it in `Host`.
    pub host: &'a str,
    /// Absolute and percent-encoded.
    pub path: &'a str,
    /// Decoded names and values, in any order. The names need no encoding, and follow `X-Amz` in the order of bytes.
    pub query: &'a [(&'a str, &'a str)],
    /// The fields that the request must have with these values. Names are in lower case, in any order; `host` is added.
    pub fields: &'a [(&'a str, &'a str)],
    /// The time of signing in Unix seconds.
    pub time: u64,
    /// How long the request may begin, in seconds; the store accepts 1 to [`MAX_LIFETIME`].
    pub lifetime: u64,
}

impl Presigner {
    pub fn new(access_key: &str, secret_key: &[u8], region: &str) -> Presigner {
        let root = hmac_key(&[b"AWS4", secret_key].concat());
        Presigner {
            today: Day::new(0, access_key, &root, region),
            root,
            access_key: access_key.to_owned(),
            region: region.to_owned(),
        }
    }

    /// Prepares for signatures of this day (Unix seconds); those of other days take longer.
    pub fn set_date(&mut self, unix: u64) {
        if day_number(unix) != self.today.number {
            self.today = self.day(unix);
        }
    }

    /// Appends the query, including its `?`, that authorises this request.
    pub fn sign(&self, request: &Unsigned<'_>, url: &mut String) {
        let other_day;
        let day = match day_number(request.time) == self.today.number {
            true => &self.today,
            false => {
                other_day = self.day(request.time);
                &other_day
            }
        };
        let mut fields = Vec::with_capacity(1 + request.fields.len());
        fields.extend_from_slice(request.fields);
        fields.push(("host", request.host));
        fields.sort_unstable();

        let mut canonical = String::with_capacity(request.path.len() + USUAL_CANONICAL);
        for line in [request.method, request.path] {
            canonical.push_str(line);
            canonical.push('\n');
        }
        let query = canonical.len();
        canonical.push_str(&day.query);
        push_time_of_day(request.time, &mut canonical);
        let time = canonical.len() - TIME..canonical.len();
        push_rest_of_query(request, &fields, &mut canonical);
        url.push('?');
        url.push_str(&canonical[query..]);
        canonical.push('\n');
        for (name, value) in &fields {
            canonical.push_str(name);
            canonical.push(':');
            push_folded(value, &mut canonical);
            canonical.push('\n');
        }
        canonical.push('\n');
        push_names(&fields, ";", &mut canonical);
        canonical.push_str("\nUNSIGNED-PAYLOAD");

        let mut message = String::with_capacity(MAX_MESSAGE + self.region.len());
        for line in ["AWS4-HMAC-SHA256", &canonical[time], &day.scope] {
            message.push_str(line);
            message.push('\n');
        }
        let hashed = digest::digest(&digest::SHA256, canonical.as_bytes());
        HEXLOWER.encode_append(hashed.as_ref(), &mut message);
        url.push_str("&X-Amz-Signature=");
        HEXLOWER.encode_append(hmac::sign(&day.key, message.as_bytes()).as_ref(), url);
    }

    fn day(&self, unix: u64) -> Day {
        Day::new(day_number(unix), &self.access_key, &self.root, &self.region)
    }
}

impl Day {
    fn new(number: u64, access_key: &str, root: &hmac::Key, region: &str) -> Day {
        let date = date_time(UNIX_EPOCH + Duration::from_secs(number * DAY));
        let date = date[..10].replace('-', "");
        let parts = [&date, region, "s3", "aws4_request"];
        let mut key = root.clone();
        for part in parts {
            key = hmac_key(hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let scope = parts.join("/");
        let mut query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=".to_owned();
        push_encoded(&[access_key, "/", &scope].concat(), &mut query);
        query.extend(["&X-Amz-Date=", &date, "T"]);
        Day {
            number,
            scope,
            query,
            key,
        }
    }
}

/// The day of a time, in days since 1970.
fn day_number(unix: u64) -> u64 {
    unix.min(LAST_SECOND) / DAY
}

/// Appends the time of day as in `000000Z`.
fn push_time_of_day(unix: u64, canonical: &mut String) {
    let second = unix.min(LAST_SECOND) % DAY;
    for part in [second / 3600, second / 60 % 60, second % 60] {
        for digit in [part / 10, part % 10] {
            canonical.push(char::from(b'0' + digit as u8));
        }
    }
    canonical.push('Z');
}

/// Appends the parameters that follow the time, in canonical form: encoded, and sorted by name. `fields` are sorted.
fn push_rest_of_query(request: &Unsigned<'_>, fields: &[(&str, &str)], canonical: &mut String) {
    canonical.push_str("&X-Amz-Expires=");
    decimal::push(request.lifetime, canonical);
    canonical.push_str("&X-Amz-SignedHeaders=");
    push_names(fields, "%3B", canonical);
    let mut query = request.query.to_vec();
    query.sort_unstable();
    debug_assert!(query.iter().all(|(name, _)| *name > "X-Amz"));
    for (name, value) in query {
        canonical.extend(["&", name, "="]);
        push_encoded(value, canonical);
    }
}

/// Appends the names of fields.
fn push_names(fields: &[(&str, &str)], separator: &str, canonical: &mut String) {
    for (at, (name, _)) in fields.iter().enumerate() {
        if at > 0 {
            canonical.push_str(separator);
        }
        canonical.push_str(name);
    }
}

fn push_encoded(text: &str, canonical: &mut String) {
    canonical.extend(utf8_percent_encode(text, SEGMENT));
}

/// Appends the value of a field without white space around it, and with single spaces inside.
fn push_folded(value: &str, canonical: &mut String) {
    for (at, word) in value.split_ascii_whitespace().enumerate() {
        if at > 0 {
            canonical.push(' ');
        }
        canonical.push_str(word);
    }
}

fn hmac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

impl std::fmt::Debug for Presigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Presigner(..)")
    }
}

#[cfg(test)]
mod tests;
