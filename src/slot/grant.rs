//! What one PUT may do, whichever scheme allowed it.

use std::fmt;

use crate::layout::{self, StorePath};
use crate::policy::pool;

/// A verified permission: store exactly these bytes there, once. A PUT is handled on the strength of a grant and
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub path: StorePath,
    /// Exact length of the body in bytes.
    pub size: u64,
    /// The type to store and serve; `None` leaves it to the PUT.
    pub content_type: Option<String>,
    /// Bytes that the owner's files may have in all, where a rule says so; 0 is off.
    pub total: u64,
    pub issued: Issued,
    pub source: Source,
}

/// When the slot of a grant was issued, as far as it can be told; Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// Our own slot: the last second in which its PUT may start, some fixed time after its issue.
    ExpiresAt(u64),
    At(u64),
    /// A signature without a time.
    Unknown,
}

/// Which scheme granted it, with what the scheme needs afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A slot of our own.
    Own,
    /// A signature of another server's, which never lapses and names no owner.
    External,
    /// A token of Prosody's file share; the slot and the file name as they stand in the URL, decoded.
    Share { slot: Vec<u8>, name: Vec<u8> },
}

impl Grant {
    /// Where the file is had afterwards, below the prefix of GET URLs; percent-encoded.
    pub fn location(&self) -> String {
        match &self.source {
            Source::Share { slot, name } => {
                format!(
                    "{}/{}",
                    layout::encode_segment(slot),
                    layout::encode_segment(name)
                )
            }
            Source::Own | Source::External => self.path.encoded(),
        }
    }

    /// The kind as which the file is counted.
    pub fn kind(&self) -> usize {
        pool::kind(self.path.mark())
    }

    /// Whether the file counts as an owner's.
    pub fn has_owner(&self) -> bool {
        self.source != Source::External
    }
}

/// Why a PUT shows no right that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It carries no signature.
    Unsigned,
    /// The signature is not ours for this path, size, type and time.
    Forged,
    /// The slot was good until some moment in the past.
    Lapsed,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::Unsigned => {
                "The URL carries no signature; ask the XMPP server for an upload slot."
            }
            Denial::Forged => "The URL's signature is not valid for this path.",
            Denial::Lapsed => "The upload slot has lapsed; ask for a new one.",
        })
    }
}
