//! What one PUT may do, whichever scheme allowed it.

use std::fmt;

use crate::layout::StorePath;

/// A verified permission: store exactly these bytes there, once. A PUT is handled on the strength of a grant and
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub path: StorePath,
    /// Exact length of the body in bytes.
    pub size: u64,
    /// The type to store and serve; `None` leaves it to the PUT.
    pub content_type: Option<String>,
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
