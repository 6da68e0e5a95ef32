//! The reasons for refusing an HTTP request, with the HTTP status, the message and the metrics label of each.

use std::fmt;

use crate::http::exchange::RequestError;
use crate::refusal::{Refusal, sanitized};
use crate::slot::grant::Denial;
use crate::slot::jwt::JwtDenial;

/// Why a request is refused. Most reasons concern a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRefusal {
    Denied(Denial),
    /// The token of Prosody's mod_http_file_share is missing.
    NoToken,
    /// The token is malformed, expired, or has a wrong signature.
    Token(JwtDenial),
    /// The token was issued for another slot.
    OtherSlot,
    /// The slot was already used.
    Used,
    NoLength,
    TooLong {
        size: u64,
    },
    TooShort {
        size: u64,
    },
    TypeDiffers {
        slot: String,
        put: String,
    },
    Expectation,
    Partial,
    Precondition,
    /// A quota or the free space does not allow the file; the reasons are those of a slot request.
    NoRoom(Refusal),
    /// The store failed. `full`: the disk is full.
    Storage {
        full: bool,
    },
    /// The object store does not answer, or not as it should.
    ObjectStore,
    /// The path cannot be the key of an object.
    Name,
    DownloadsElsewhere,
    Method {
        known: bool,
    },
    Busy,
    RequestError(RequestError),
}

impl PutRefusal {
    /// The metrics label.
    pub fn reason(&self) -> &'static str {
        self.reason_and_status().0
    }

    /// The HTTP status (RFC 9110 §15.5, §15.6).
    pub fn status(&self) -> u16 {
        self.reason_and_status().1
    }

    fn reason_and_status(&self) -> (&'static str, u16) {
        match self {
            PutRefusal::Denied(Denial::Unsigned) => ("unsigned", 403),
            PutRefusal::Denied(Denial::Forged) => ("forged", 403),
            PutRefusal::Denied(Denial::Expired) => ("expired", 403),
            PutRefusal::NoToken => ("unsigned", 401),
            PutRefusal::Token(JwtDenial::Malformed) => ("token", 401),
            PutRefusal::Token(_) => ("token", 403),
            PutRefusal::OtherSlot => ("forged", 403),
            PutRefusal::Used => ("used", 409),
            PutRefusal::NoLength => ("no_length", 411),
            PutRefusal::TooLong { .. } => ("too_long", 413),
            PutRefusal::TooShort { .. } => ("too_short", 400),
            PutRefusal::TypeDiffers { .. } => ("type", 415),
            PutRefusal::Expectation => ("expectation", 417),
            PutRefusal::Partial => ("partial", 400),
            PutRefusal::Precondition => ("precondition", 412),
            // RFC 4918 §11.5: 507 means that space is missing and that the client must not retry by itself.
            PutRefusal::NoRoom(Refusal::Busy) => (Refusal::Busy.reason(), 503),
            PutRefusal::NoRoom(refusal) => (refusal.reason(), 507),
            PutRefusal::Storage { full: true } => ("storage", 507),
            PutRefusal::Storage { full: false } => ("storage", 503),
            PutRefusal::ObjectStore => ("storage", 503),
            PutRefusal::Name => ("name", 400),
            PutRefusal::DownloadsElsewhere => ("elsewhere", 403),
            PutRefusal::Method { known: true } => ("method", 405),
            PutRefusal::Method { known: false } => ("method", 501),
            PutRefusal::Busy => ("busy", 503),
            PutRefusal::RequestError(error) => match error {
                RequestError::HeadTimeout | RequestError::BodyTimeout => ("slow", error.status()),
                _ => ("malformed", error.status()),
            },
        }
    }
}

impl fmt::Display for PutRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutRefusal::Denied(denial) => denial.fmt(f),
            PutRefusal::NoToken => f.write_str("The upload needs the token of its slot."),
            PutRefusal::Token(denial) => denial.fmt(f),
            PutRefusal::OtherSlot => f.write_str("The token is for another slot."),
            PutRefusal::Used => f.write_str("The upload slot is already used."),
            PutRefusal::NoLength => {
                f.write_str("A PUT needs a Content-Length or the chunked coding.")
            }
            PutRefusal::TooLong { size } => {
                write!(
                    f,
                    "The request body is longer than the {size} bytes of the slot."
                )
            }
            PutRefusal::TooShort { size } => {
                write!(
                    f,
                    "The request body is shorter than the {size} bytes of the slot."
                )
            }
            PutRefusal::TypeDiffers { slot, put } => write!(
                f,
                "The slot is for the type {}, not {}.",
                sanitized(slot),
                sanitized(put)
            ),
            PutRefusal::Expectation => {
                f.write_str("The only supported expectation is 100-continue.")
            }
            PutRefusal::Partial => f.write_str("A PUT with Content-Range is not supported."),
            PutRefusal::Precondition => f.write_str("A precondition of the request is not met."),
            PutRefusal::NoRoom(refusal) => refusal.fmt(f),
            PutRefusal::Storage { full: true } => f.write_str("The service's disk is full."),
            PutRefusal::Storage { full: false } => {
                f.write_str("The service's storage is failing at the moment.")
            }
            PutRefusal::ObjectStore => {
                f.write_str("The service's object store is failing; please try again in a moment.")
            }
            PutRefusal::Name => f.write_str("The name of the file is not UTF-8, or too long."),
            PutRefusal::DownloadsElsewhere => {
                f.write_str("Downloads are served by another server.")
            }
            PutRefusal::Method { known } => f.write_str(if *known {
                "Only GET, HEAD, OPTIONS and PUT are supported."
            } else {
                "The method is unknown."
            }),
            PutRefusal::Busy => f.write_str("Too many connections; please try again in a moment."),
            PutRefusal::RequestError(error) => error.fmt(f),
        }
    }
}
