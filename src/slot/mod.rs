//! Slots: what is asked for, what is handed out, and why it may be refused.
//!
//! - `mod.rs` a slot request, its purpose, the slot, and every refusal;
//! - [`name`] the rules for file names;
//! - [`grant`] what one PUT may do, whichever scheme allowed it;
//! - [`own`] the scheme of upslot itself: slots that are signed, not stored;
//! - [`external`] PUTs signed by Prosody's mod_http_upload_external, by Metronome, or by ejabberd;
//! - [`jwt`] PUTs with the token of Prosody's mod_http_file_share;
//! - [`revoked`] slots of owners whose files were removed since;
//! - [`used`] slots that made their file.
//!
//! Source: XEP-0363 §4 to §6.

pub mod external;
pub mod grant;
pub mod jwt;
pub mod name;
pub mod own;
pub mod revoked;
pub mod used;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::jid::BareJid;

/// What the uploader says the file is for (XEP-0363 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A message to someone; the purpose when none is named.
    Message,
    /// A profile picture or the like.
    Profile,
    /// Must not be reachable from this second on (Unix time).
    Ephemeral { expire_before: u64 },
    /// To be kept.
    Permanent,
}

impl Purpose {
    /// The element's name in `urn:xmpp:http:upload:purpose:0`, and the key in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Purpose::Message => "message",
            Purpose::Profile => "profile",
            Purpose::Ephemeral { .. } => "ephemeral",
            Purpose::Permanent => "permanent",
        }
    }
}

/// A request for a slot, from whichever front end, checked for its form only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// Who asks; the file will be counted as theirs.
    pub owner: BareJid,
    /// The file name as it was sent; not empty.
    pub name: String,
    /// Bytes; at least 1.
    pub size: u64,
    /// The MIME type as it was sent; absent when none or only white space was sent.
    pub content_type: Option<String>,
    pub purpose: Purpose,
}

/// Somebody else's word as it may stand in a message: escaped, and at most 100 characters of it. Escapes are longer
/// than what they stand for, and servers end the stream of a component whose stanzas are too large.
pub fn shown(text: &str) -> String {
    const MOST: usize = 100;
    let mut shown: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A number of bytes with its unit.
fn bytes_of(bytes: u64) -> String {
    let s = if bytes == 1 { "" } else { "s" };
    format!("{bytes} byte{s}")
}

/// A pair of URLs (XEP-0363 §4). Both are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where to PUT, with the signed query.
    pub put: String,
    /// Where to GET afterwards.
    pub get: String,
}

/// An expected no to a slot request or a PUT. Its `Display` is one sentence that a person understands; front ends
/// map it to an XMPP error (`xmpp::upload`) and to an HTTP status (`http::response`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request itself is wrong; says how.
    Malformed(String),
    /// This address may not upload.
    NotAllowed { owner: BareJid },
    /// Larger than the limit that holds for this address; bytes.
    TooLarge { size: u64, limit: u64 },
    /// This MIME type may not be uploaded.
    TypeNotAllowed { content_type: String },
    /// The owner's stored files leave no room; bytes. `retry` when an expiry will free enough.
    OwnerQuota {
        size: u64,
        stored: u64,
        limit: u64,
        retry: Option<SystemTime>,
    },
    /// The slots issued to the owner lately leave no room: bytes, or with `bytes` false slots, within `delta`. `retry`
    /// when the same slot will be issued; `None` is never.
    Rate {
        bytes: bool,
        size: u64,
        used: u64,
        limit: u64,
        delta: Duration,
        retry: Option<SystemTime>,
    },
    /// All stored files together leave no room; bytes.
    GlobalQuota { size: u64, stored: u64, limit: u64 },
    /// The disk would keep less than `min_free_space`; bytes.
    FreeSpace { size: u64, free: u64, reserve: u64 },
    /// The service cannot take the request at this moment; trying again soon may help.
    Busy,
}

impl Refusal {
    /// One word for counting.
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
            Refusal::Malformed(how) => f.write_str(how),
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
                    shown(content_type)
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
