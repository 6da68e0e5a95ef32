//! What an answer that is no success means, and what the operator can change.
//!
//! Stores agree on the codes of AWS, more or less: Garage says `AccessDenied` where others say `InvalidAccessKeyId` or
//! `SignatureDoesNotMatch`, and what it is only in its message; Ceph has no messages. An answer to HEAD has neither.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::http::client::Response;
use crate::s3::bucket::REQUEST_LIFETIME;
use crate::s3::xml::visit_elements;

/// Longest code and message that are kept, in bytes.
const MAX_CODE: usize = 64;
const MAX_MESSAGE: usize = 300;

/// A request to the store that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    pub kind: FailureKind,
    /// 0 if there is no answer.
    pub status: u16,
    /// As sent by the store; may be empty.
    pub code: String,
    /// As sent by the store, or why there is no answer; may be empty.
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no such object.
    NotFound,
    /// The object exists, so that it is not stored.
    Exists,
    /// The access key may not do this.
    Denied,
    /// The secret key, or what was signed, is another one than the store expects.
    BadSignature,
    UnknownAccessKey,
    NoBucket,
    /// The clocks differ too much.
    Skewed,
    /// The region that the store names, if it does.
    WrongRegion(String),
    /// Too many requests.
    SlowDown,
    /// There is no room in the store, or not for an object of this size.
    Full,
    /// The store, or something before it, does not work at the moment.
    Unavailable,
    /// The store does not understand the request, or upslot does not understand the answer.
    Malformed,
    /// There is no connection, or it broke.
    Unreachable,
}

impl StoreFailure {
    /// The request got no answer.
    pub fn unreachable(why: impl Into<String>) -> StoreFailure {
        StoreFailure {
            kind: FailureKind::Unreachable,
            status: 0,
            code: String::new(),
            message: why.into(),
        }
    }

    /// The answer has an unexpected form.
    pub fn malformed(status: u16, why: impl Into<String>) -> StoreFailure {
        StoreFailure {
            kind: FailureKind::Malformed,
            status,
            code: String::new(),
            message: why.into(),
        }
    }

    /// Whether an answer is a success; its failure otherwise.
    pub fn check(response: &Response, now: SystemTime) -> Result<(), StoreFailure> {
        match response.status {
            200..=299 => Ok(()),
            status => Err(StoreFailure::of(
                status,
                &response.fields,
                &response.body,
                now,
            )),
        }
    }

    /// Whether the clock of the store is about the same, so that ages of objects are known.
    pub fn check_clock(response: &Response, now: SystemTime) -> Result<(), StoreFailure> {
        let skew = response.field("date").and_then(|date| skew(date, now));
        match skew {
            Some((differ, direction)) if differ.as_secs() >= REQUEST_LIFETIME => {
                Err(StoreFailure {
                    kind: FailureKind::Skewed,
                    status: response.status,
                    code: String::new(),
                    message: skew_text(differ, direction),
                })
            }
            _ => Ok(()),
        }
    }

    /// By how much the clock of the store is behind, as far as it says so.
    pub fn clock_lag(response: &Response, now: SystemTime) -> Duration {
        let date = response.field("date");
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let lag = date.and_then(|date| now.duration_since(date).ok());
        lag.unwrap_or_default()
    }

    /// The meaning of an answer that is no success. Names of fields are in lower case.
    pub fn of(
        status: u16,
        fields: &[(String, String)],
        body: &[u8],
        now: SystemTime,
    ) -> StoreFailure {
        let field = |name: &str| {
            let mut fields = fields.iter();
            let found = fields.find(|(field, _)| field == name);
            found.map(|(_, value)| value.as_str())
        };
        let ErrorBody {
            code,
            mut message,
            region,
        } = ErrorBody::parse(body);
        let region = match region.is_empty() {
            true => bounded(field("x-amz-bucket-region").unwrap_or_default(), MAX_CODE),
            false => region,
        };
        let mut kind = kind_of(status, &code, &message, &region);
        // An expired signature is just denied.
        let is_refused = matches!(
            kind,
            FailureKind::Denied
                | FailureKind::BadSignature
                | FailureKind::Malformed
                | FailureKind::Skewed
        );
        let skew = field("date").and_then(|date| skew(date, now));
        if let Some((differ, direction)) = skew.filter(|_| is_refused) {
            if differ.as_secs() >= REQUEST_LIFETIME {
                kind = FailureKind::Skewed;
            }
            if kind == FailureKind::Skewed {
                message = skew_text(differ, direction);
            }
        } else if message.is_empty() && (300..400).contains(&status) {
            let location = field("location").unwrap_or("nowhere");
            message = format!("redirected to {}", bounded(unsigned(location), MAX_MESSAGE));
        }
        StoreFailure {
            kind,
            status,
            code,
            message,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::SlowDown | FailureKind::Unavailable | FailureKind::Unreachable
        )
    }

    /// What the operator can do about it; a sentence.
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            FailureKind::NotFound => {
                "The object was deleted meanwhile, or `prefix` or `bucket` is another one than before."
            }
            FailureKind::Exists => {
                "The object exists already, and a slot is for one upload only; nothing is to be done."
            }
            FailureKind::Denied => {
                "Let the access key read, write, delete and list objects in the bucket."
            }
            FailureKind::BadSignature => {
                "Check `secret_key`, and let a proxy before the store pass `Host`, path and query unchanged; \
                 `endpoint` must name the host that the store sees."
            }
            FailureKind::UnknownAccessKey => {
                "The store does not know `access_key`: check it, and that `endpoint` is the right store."
            }
            FailureKind::NoBucket => {
                "Create the bucket, or correct `bucket`; `path_style` decides whether its name is part of the \
                 path or of the host."
            }
            FailureKind::Skewed => {
                "Set the clocks of this host and of the store: signatures are valid for some minutes only."
            }
            FailureKind::WrongRegion(_) => {
                "Set `region` to that of the bucket, and `endpoint` to the one of this region."
            }
            FailureKind::SlowDown => {
                "The store limits the rate of requests; upslot tries again. If that lasts, give the store more \
                 nodes or a higher limit."
            }
            FailureKind::Full => {
                "Raise the quota of the bucket or of its user, give the store more space, or lower upslot's \
                 quotas and `expire_maxage`."
            }
            FailureKind::Unavailable => {
                "The store works only in part, or not at all: see its own log and health."
            }
            FailureKind::Malformed => {
                "Check that `endpoint` is that of the S3 interface, and its scheme and port: this was no answer \
                 of a store to a request that it supports."
            }
            FailureKind::Unreachable => {
                "Check that the store runs and can be reached from this host: name, port, firewall, certificate."
            }
        }
    }
}

impl std::error::Error for StoreFailure {}

impl fmt::Display for StoreFailure {
    /// For the log: what the store sent is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FailureKind::NotFound => f.write_str("no such object")?,
            FailureKind::Exists => f.write_str("the object exists")?,
            FailureKind::Denied => f.write_str("access denied")?,
            FailureKind::BadSignature => f.write_str("wrong signature")?,
            FailureKind::UnknownAccessKey => f.write_str("unknown access key")?,
            FailureKind::NoBucket => f.write_str("no such bucket")?,
            FailureKind::Skewed => f.write_str("the clocks differ")?,
            FailureKind::WrongRegion(region) if region.is_empty() => f.write_str("wrong region")?,
            FailureKind::WrongRegion(region) => {
                write!(f, "wrong region, not {}", region.escape_debug())?;
            }
            FailureKind::SlowDown => f.write_str("too many requests")?,
            FailureKind::Full => f.write_str("no room in the store")?,
            FailureKind::Unavailable => f.write_str("the store is not available")?,
            FailureKind::Malformed => f.write_str("unexpected answer")?,
            FailureKind::Unreachable => f.write_str("the store cannot be reached")?,
        }
        if self.status != 0 {
            write!(f, ", status {}", self.status)?;
        }
        for text in [&self.code, &self.message] {
            if !text.is_empty() {
                // An apostrophe is harmless.
                let text = text.escape_debug().to_string().replace("\\'", "'");
                write!(f, ", {text}")?;
            }
        }
        Ok(())
    }
}

/// The parts of an error document that matter; empty if there is none.
#[derive(Default)]
struct ErrorBody {
    code: String,
    message: String,
    region: String,
}

impl ErrorBody {
    fn parse(body: &[u8]) -> ErrorBody {
        let mut error = ErrorBody::default();
        let mut is_error = false;
        let read = visit_elements(body, |ended| {
            let (part, most) = match (ended.depth, ended.name) {
                (1, name) => {
                    is_error = name == "Error";
                    return Ok(());
                }
                (2, "Code") => (&mut error.code, MAX_CODE),
                (2, "Message") => (&mut error.message, MAX_MESSAGE),
                (2, "Region") => (&mut error.region, MAX_CODE),
                _ => return Ok(()),
            };
            *part = bounded(ended.text.trim(), most);
            Ok(())
        });
        match read {
            Ok(()) if is_error => error,
            _ => ErrorBody::default(),
        }
    }
}

fn kind_of(status: u16, code: &str, message: &str, region: &str) -> FailureKind {
    let wrong_region = || FailureKind::WrongRegion(region.to_owned());
    match code {
        "NoSuchKey" => return FailureKind::NotFound,
        "NoSuchBucket" => return FailureKind::NoBucket,
        "SignatureDoesNotMatch" => return FailureKind::BadSignature,
        "InvalidAccessKeyId" => return FailureKind::UnknownAccessKey,
        "RequestTimeTooSkewed" => return FailureKind::Skewed,
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" | "Redirect" => {
            return wrong_region();
        }
        // Also for an unsuitable lifetime.
        "AuthorizationQueryParametersError" if message.contains("region") => return wrong_region(),
        "SlowDown" | "RequestLimitExceeded" | "TooManyRequests" => return FailureKind::SlowDown,
        "QuotaExceeded" | "EntityTooLarge" | "InsufficientStorage" | "InsufficientCapacity" => {
            return FailureKind::Full;
        }
        "RequestTimeout" => return FailureKind::Unavailable,
        // Garage.
        "AccessDenied" if message.contains("quota is reached") => return FailureKind::Full,
        "AccessDenied" if message.contains("Invalid signature") => {
            return FailureKind::BadSignature;
        }
        "AccessDenied" if message.contains("No such key") => return FailureKind::UnknownAccessKey,
        _ => {}
    }
    match status {
        401 | 403 => FailureKind::Denied,
        404 => FailureKind::NotFound,
        409 | 412 => FailureKind::Exists,
        413 | 507 => FailureKind::Full,
        429 => FailureKind::SlowDown,
        301 | 307 | 308 | 400 if !region.is_empty() && code.is_empty() => wrong_region(),
        408 | 500 | 502..=504 => FailureKind::Unavailable,
        _ => FailureKind::Malformed,
    }
}

/// How far the clock of this host is from the one in a `Date` field, and in which direction.
fn skew(date: &str, now: SystemTime) -> Option<(Duration, &'static str)> {
    let store = httpdate::parse_http_date(date).ok()?;
    Some(match now.duration_since(store) {
        Ok(by) => (by, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    })
}

fn skew_text(differ: Duration, direction: &str) -> String {
    let seconds = differ.as_secs();
    format!("the clock of this host is {seconds} s {direction} the store's")
}

/// A URL up to the signature of the request that led to it, which is a secret.
fn unsigned(url: &str) -> &str {
    let signed = url.to_ascii_lowercase().find("x-amz-");
    &url[..signed.unwrap_or(url.len())]
}

/// The first `most` bytes of a text, to the end of a character.
fn bounded(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
