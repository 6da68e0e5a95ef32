//! Presigned URLs of an S3-compatible object store: AWS Signature Version 4 in the query.
//!
//! A signature covers the method, the path, the query, `host` and the fields that the caller names, but not the body
//! (`UNSIGNED-PAYLOAD`). The store verifies it when the request begins. Signing takes two SHA-256 HMACs and two digests,
//! because the key, which is derived from the secret key by four HMACs, is the same for a whole day.
//!
//! Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use percent_encoding::utf8_percent_encode;
use ring::{digest, hmac};

use crate::decimal::{self, DigitBuffer};
use crate::layout::SEGMENT;
use crate::now::date_time;

/// The longest lifetime of a signature in seconds: a week.
pub const MAX_LIFETIME: u64 = 604_800;

const DAY: u64 = 86_400;

/// Signs requests to one region with one access key.
pub struct Presigner {
    access_key: String,
    region: String,
    /// From the secret key.
    root: hmac::Key,
    /// The day of `key`, in days since 1970.
    day: u64,
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
    /// Decoded names and values, in any order.
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
            key: day_key(&root, &compact_time(0)[..8], region),
            day: 0,
            root,
            access_key: access_key.to_owned(),
            region: region.to_owned(),
        }
    }

    /// Prepares for signatures of this day (Unix seconds); those of other days take longer.
    pub fn set_date(&mut self, unix: u64) {
        if unix / DAY != self.day {
            self.key = day_key(&self.root, &compact_time(unix)[..8], &self.region);
            self.day = unix / DAY;
        }
    }

    /// Appends the query, including its `?`, that authorises this request.
    pub fn sign(&self, request: &Unsigned<'_>, url: &mut String) {
        let time = compact_time(request.time);
        let scope = [&time[..8], "/", &self.region, "/s3/aws4_request"].concat();
        let mut fields = Vec::with_capacity(1 + request.fields.len());
        fields.push(("host", request.host));
        fields.extend_from_slice(request.fields);
        fields.sort_unstable();
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");

        url.push('?');
        let query_start = url.len();
        self.push_query(request, &time, &scope, &names, url);

        let mut canonical = String::with_capacity(url.len() + request.path.len() + 256);
        for line in [request.method, request.path, &url[query_start..]] {
            canonical.push_str(line);
            canonical.push('\n');
        }
        for (name, value) in &fields {
            canonical.push_str(name);
            canonical.push(':');
            push_folded(value, &mut canonical);
            canonical.push('\n');
        }
        canonical.push('\n');
        canonical.push_str(&names);
        canonical.push_str("\nUNSIGNED-PAYLOAD");

        let mut message = String::with_capacity(160);
        for line in ["AWS4-HMAC-SHA256", &time, &scope] {
            message.push_str(line);
            message.push('\n');
        }
        let hashed = digest::digest(&digest::SHA256, canonical.as_bytes());
        HEXLOWER.encode_append(hashed.as_ref(), &mut message);

        url.push_str("&X-Amz-Signature=");
        let signed = if request.time / DAY == self.day {
            hmac::sign(&self.key, message.as_bytes())
        } else {
            let key = day_key(&self.root, &time[..8], &self.region);
            hmac::sign(&key, message.as_bytes())
        };
        HEXLOWER.encode_append(signed.as_ref(), url);
    }

    /// Appends the parameters that are signed, in canonical form: encoded, and sorted by name.
    fn push_query(
        &self,
        request: &Unsigned<'_>,
        time: &str,
        scope: &str,
        names: &str,
        url: &mut String,
    ) {
        let credential = [&self.access_key, "/", scope].concat();
        let mut buffer = DigitBuffer::default();
        let lifetime = decimal::digits(request.lifetime, &mut buffer);
        let own = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", time),
            (
                "X-Amz-Expires",
                std::str::from_utf8(lifetime).unwrap_or("0"),
            ),
            ("X-Amz-SignedHeaders", names),
        ];
        let mut parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = own
            .iter()
            .chain(request.query)
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        parameters.sort_unstable();
        for (at, (name, value)) in parameters.iter().enumerate() {
            if at > 0 {
                url.push('&');
            }
            url.push_str(name);
            url.push('=');
            url.push_str(value);
        }
    }
}

impl std::fmt::Debug for Presigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Presigner(..)")
    }
}

/// The key for a day and a region.
fn day_key(root: &hmac::Key, date: &str, region: &str) -> hmac::Key {
    let mut key = hmac_key(hmac::sign(root, date.as_bytes()).as_ref());
    for part in [region, "s3", "aws4_request"] {
        key = hmac_key(hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

fn hmac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// A time as in `20130524T000000Z`.
fn compact_time(unix: u64) -> String {
    // Later than the year 9999 is the same as the last second of it.
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    let mut text = date_time(time.unwrap_or(UNIX_EPOCH));
    text.retain(|c| c != '-' && c != ':');
    text
}

fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, SEGMENT).into()
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

#[cfg(test)]
mod tests;
