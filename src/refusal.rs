//! Expected refusals of slot requests and PUTs, with the texts that users read.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::jid::BareJid;

/// An expected refusal of a slot request or a PUT. Its `Display` is one sentence for the user; it is mapped to an XMPP
/// error in `xmpp::upload` and to an HTTP status in `http::response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is invalid; the text says how.
    Malformed(String),
    /// This JID may not upload.
    NotAllowed { owner: BareJid },
    /// The file exceeds the size limit for this JID; bytes.
    TooLarge { size: u64, limit: u64 },
    /// This MIME type may not be uploaded.
    TypeNotAllowed { content_type: String },
    /// The owner's quota would be exceeded; bytes. `retry` is the time at which expiry will have freed enough space.
    OwnerQuota {
        size: u64,
        stored: u64,
        limit: u64,
        retry: Option<SystemTime>,
    },
    /// The owner's rate limit would be exceeded: bytes or, if `bytes` is false, slots within `delta`. `retry` is the
    /// time at which the same request will succeed; `None` means never.
    Rate {
        bytes: bool,
        size: u64,
        used: u64,
        limit: u64,
        delta: Duration,
        retry: Option<SystemTime>,
    },
    /// The global quota would be exceeded; bytes.
    GlobalQuota { size: u64, stored: u64, limit: u64 },
    /// Less than `min_free_space` would remain free on the disk; bytes.
    FreeSpace { size: u64, free: u64, reserve: u64 },
    /// The service cannot handle the request right now; the client should retry.
    Busy,
}

impl Refusal {
    /// The `reason` label of metrics and log lines.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::NotAllowed { .. } => "not_allowed",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TypeNotAllowed { .. } => "type",
            Refusal::OwnerQuota { .. } => "owner_quota",
            Refusal::Rate { .. } => "rate",
            Refusal::GlobalQuota { .. } => "global_quota",
            Refusal::FreeSpace { .. } => "free_space",
            Refusal::Busy => "busy",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(message) => f.write_str(message),
            Refusal::NotAllowed { owner } => {
                write!(f, "{owner} is not allowed to upload files here.")
            }
            Refusal::TooLarge { size, limit } => {
                write!(
                    f,
                    "The file has {}; at most {} allowed.",
                    bytes_of(*size),
                    match limit {
                        1 => "1 byte is".to_owned(),
                        _ => format!("{limit} bytes are"),
                    }
                )
            }
            Refusal::TypeNotAllowed { content_type } => {
                write!(
                    f,
                    "Files of the type {} may not be uploaded here.",
                    sanitized(content_type)
                )
            }
            Refusal::OwnerQuota {
                size,
                stored,
                limit,
                ..
            } => write!(
                f,
                "Your files use {stored} of {limit} bytes, which leaves no room for {}.",
                bytes_of(*size)
            ),
            Refusal::Rate {
                bytes: true,
                size,
                used,
                limit,
                delta,
                ..
            } => write!(
                f,
                "You asked for {used} of {limit} bytes in {} seconds, which leaves no room for {}.",
                delta.as_secs(),
                bytes_of(*size)
            ),
            Refusal::Rate { limit, delta, .. } => write!(
                f,
                "You asked for {limit} upload{} in {} seconds, and no more are allowed.",
                if *limit == 1 { "" } else { "s" },
                delta.as_secs()
            ),
            Refusal::GlobalQuota {
                size,
                stored,
                limit,
            } => write!(
                f,
                "The service stores {stored} of at most {limit} bytes, which leaves no room for {}.",
                bytes_of(*size)
            ),
            Refusal::FreeSpace { size, .. } => {
                write!(
                    f,
                    "The service's disk is full; there is no room for {}.",
                    bytes_of(*size)
                )
            }
            Refusal::Busy => f.write_str("The service is busy; please try again in a moment."),
        }
    }
}

/// Prepares untrusted text for use in a message: escapes it and cuts it to 100 characters. The limit keeps escapes
/// from inflating a stanza so far that the XMPP server closes the component's stream.
pub fn sanitized(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    let mut sanitized: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        sanitized.push_str("...");
    }
    sanitized
}

/// Formats a number of bytes with its unit.
fn bytes_of(bytes: u64) -> String {
    let s = if bytes == 1 { "" } else { "s" };
    format!("{bytes} byte{s}")
}
