//! PUT and DELETE requests signed by the XMPP server with a shared secret.
//!
//! The XMPP server issues the slot itself; upslot sees only the PUT. One parameter of the query holds an HMAC-SHA-256
//! (RFC 2104) in hex:
//!
//! | parameter | signed bytes | server |
//! | --- | --- | --- |
//! | `v` | path, space, size | Prosody's mod_http_upload_external; ejabberd's `external_secret` |
//! | `v2` | path, NUL, size, NUL, type | mod_http_upload_external with protocol v2 |
//! | `token` | path, NUL, size, NUL, type | Metronome |
//! | `token` of a DELETE | path, NUL, delete secret | Metronome |
//!
//! The path is relative to the base URL, decoded, and of any depth; the size is decimal. If several parameters are
//! present, only the first of `v2`, `token` and `v` is checked; there is no fallback to the others.
//!
//! Such a signature names neither an owner nor an expiry time. It is valid indefinitely, so the store must remember
//! which paths have been used. This module knows neither URL prefixes nor a table of MIME types.

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::hmac;

use crate::layout::{StorePath, query_parameters};
use crate::slot::grant::{Denial, set_once};

/// The type assumed for a slot request without one; many clients send it for any file.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Length of an HMAC-SHA-256 in bytes.
const TAG: usize = 32;

/// Verifies the signatures of the XMPP server.
pub struct External {
    key: hmac::Key,
}

impl External {
    /// The secret is used as configured, without decoding.
    pub fn new(secret: &[u8]) -> External {
        External {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Whether the query holds a signature of this scheme, valid or not.
    pub fn recognises(query: &[u8]) -> bool {
        query_parameters(query).any(|(key, _)| matches!(key, b"v2" | b"token" | b"v"))
    }

    /// Verifies the query of a PUT of `size` bytes to `path` and returns the type that the server approved, which is the
    /// one to store and serve whatever the PUT declares. `None` means the type of the PUT, because `v` signs no type.
    ///
    /// The size is that of `Content-Length`. Only the signature covers it, so a chunked PUT cannot be verified before
    /// its end; the caller answers one with 411.
    ///
    /// The server signed the type of the slot request. The type of the PUT may differ in harmless ways, so these
    /// candidates are tried: `content_type` as sent, without parameters, and in lower case; `application/octet-stream`;
    /// and `guess`, derived from the file name's extension. A match proves that the server signed that candidate.
    pub fn verify(
        &self,
        path: &StorePath,
        query: &[u8],
        size: u64,
        content_type: Option<&[u8]>,
        guess: &str,
    ) -> Result<Option<String>, Denial> {
        let signatures = Signatures::parse(query)?;
        let Some(tag) = signatures.v2.or(signatures.token) else {
            let tag = signatures.v.ok_or(Denial::Unsigned)?;
            let size = format!(" {size}");
            self.check(&tag, &[path.as_bytes(), size.as_bytes()])?;
            return Ok(None);
        };
        let size = format!("\0{size}\0");
        candidates(content_type.unwrap_or_default(), guess)
            .into_iter()
            .find(|candidate| {
                let message = [path.as_bytes(), size.as_bytes(), candidate.as_bytes()];
                self.check(&tag, &message).is_ok()
            })
            .map(|approved| Some(approved).filter(|approved| !approved.is_empty()))
            .ok_or(Denial::Forged)
    }

    /// Verifies the query of a DELETE of `path` sent by Metronome.
    pub fn verify_delete(
        &self,
        path: &StorePath,
        query: &[u8],
        delete_secret: &[u8],
    ) -> Result<(), Denial> {
        let tag = Signatures::parse(query)?.token.ok_or(Denial::Unsigned)?;
        self.check(&tag, &[path.as_bytes(), b"\0", delete_secret])
    }

    /// Compares in constant time.
    fn check(&self, tag: &[u8], message: &[&[u8]]) -> Result<(), Denial> {
        hmac::verify(&self.key, &message.concat(), tag).map_err(|_| Denial::Forged)
    }
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("External(..)")
    }
}

/// The types that the server may have signed, most likely first. A type that is not UTF-8 cannot have been part of a
/// slot request.
fn candidates(content_type: &[u8], guess: &str) -> Vec<String> {
    let mut candidates = Vec::with_capacity(5);
    if let Ok(sent) = std::str::from_utf8(content_type) {
        let essence = sent.split(';').next().unwrap_or_default().trim_ascii();
        candidates.push(sent.to_owned());
        candidates.push(essence.to_owned());
        candidates.push(essence.to_ascii_lowercase());
    }
    candidates.push(UNKNOWN_TYPE.to_owned());
    candidates.push(guess.to_owned());
    candidates.dedup();
    candidates
}

/// The signatures in a query. A repeated one, or one that is not 64 hex digits, makes the whole query invalid.
#[derive(Default)]
struct Signatures {
    v2: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
    v: Option<Vec<u8>>,
}

impl Signatures {
    /// Unknown parameters are ignored, because clients and proxies add their own.
    fn parse(query: &[u8]) -> Result<Signatures, Denial> {
        let mut signatures = Signatures::default();
        for (key, value) in query_parameters(query) {
            let signature = match key {
                b"v2" => &mut signatures.v2,
                b"token" => &mut signatures.token,
                b"v" => &mut signatures.v,
                _ => continue,
            };
            set_once(signature, decode_tag(value.unwrap_or_default()))?;
        }
        Ok(signatures)
    }
}

/// Accepts both cases: the servers above write lower case, but other programs sign such links, too.
fn decode_tag(hex: &[u8]) -> Option<Vec<u8>> {
    if hex.len() != TAG * 2 {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(hex).ok()
}

#[cfg(test)]
mod tests;
