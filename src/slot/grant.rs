//! The verified permission for one PUT, whichever scheme authorised it.

use std::fmt;

use crate::layout::{self, StorePath};
use crate::policy::pool::QuotaClass;

/// A verified permission to store exactly `size` bytes at `path`, once. A PUT handler acts on a grant and nothing
/// else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub path: StorePath,
    /// Exact length of the body in bytes.
    pub size: u64,
    /// The type to store and serve; `None` means the type that the PUT declares.
    pub content_type: Option<String>,
    /// Limit on the total size of the owner's files in bytes, from an access rule.
    pub total: Option<u64>,
    pub issued: Issued,
    pub scheme: Scheme,
}

/// When the slot of a grant was issued, as far as it is known; Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// A slot signed by upslot: the last second in which its PUT may start, a fixed time after it was issued.
    ExpiresAt(u64),
    At(u64),
    /// The signature carries no time.
    Unknown,
}

/// The scheme that issued the grant, with the data needed later in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A slot signed by upslot.
    Own,
    /// A signature by the XMPP server, which never expires and names no owner.
    External,
    /// A token of Prosody's mod_http_file_share; slot and file name from the URL, decoded.
    FileShare { slot: Vec<u8>, name: Vec<u8> },
}

impl Grant {
    /// The path of the file's GET URL, relative to `get_url`; percent-encoded.
    pub fn location(&self) -> String {
        match &self.scheme {
            Scheme::FileShare { slot, name } => {
                format!(
                    "{}/{}",
                    layout::encode_segment(slot),
                    layout::encode_segment(name)
                )
            }
            Scheme::Own | Scheme::External => self.path.encoded(),
        }
    }

    pub fn quota_class(&self) -> QuotaClass {
        QuotaClass::of(self.path.tag())
    }

    /// Whether the file is attributed to an owner.
    pub fn has_owner(&self) -> bool {
        self.scheme != Scheme::External
    }
}

/// Why the signature of a PUT was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no signature.
    Unsigned,
    /// The signature does not match this path, size, type and expiry time.
    Forged,
    /// The slot has expired.
    Expired,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::Unsigned => "The URL has no signature; ask the XMPP server for an upload slot.",
            Denial::Forged => "The URL's signature is not valid for this path.",
            Denial::Expired => "The upload slot has expired; ask for a new one.",
        })
    }
}

/// Sets a parameter of a signed query. One that is malformed (`None`) or repeated makes the whole query invalid.
pub(super) fn set_once<T>(parameter: &mut Option<T>, value: Option<T>) -> Result<(), Denial> {
    let value = value.ok_or(Denial::Forged)?;
    match parameter.replace(value) {
        None => Ok(()),
        Some(_) => Err(Denial::Forged),
    }
}
