//! Slots: requests, issued slots, and the schemes that authorise a PUT.
//!
//! - `mod.rs`: slot requests and slots;
//! - [`name`]: rules for file names;
//! - [`grant`]: the verified permission for one PUT, whichever scheme authorised it;
//! - [`own`]: upslot's own scheme, slots that are signed and not stored;
//! - [`external`]: PUTs signed by Prosody's mod_http_upload_external, Metronome, or ejabberd;
//! - [`jwt`]: PUTs that carry a token of Prosody's mod_http_file_share;
//! - [`presign`]: URLs that an object store accepts itself (AWS Signature Version 4);
//! - [`revoked`]: slots revoked by the removal of all files of their owner;
//! - [`used`]: slots that have been used.
//!
//! Source: XEP-0363 §4 and §5.

pub mod external;
pub mod grant;
pub mod jwt;
pub mod name;
pub mod own;
#[cfg(feature = "s3")]
pub mod presign;
pub mod revoked;
pub mod used;

use crate::jid::BareJid;
use crate::purpose::Purpose;

/// A slot request from the XMPP component or the slot API. Its syntax has been checked, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// The requesting user, to whom the file will be attributed.
    pub owner: BareJid,
    /// The file name as sent; not empty.
    pub name: String,
    /// Bytes; at least 1.
    pub size: u64,
    /// The MIME type as sent; `None` if it was absent or blank.
    pub content_type: Option<String>,
    pub purpose: Purpose,
}

/// An issued slot: a pair of URLs (XEP-0363 §4). Both are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The PUT URL, including the signed query.
    pub put: String,
    /// The GET URL.
    pub get: String,
}
