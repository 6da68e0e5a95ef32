//! PUTs that an XMPP server signed with a secret it shares with us, and its signed DELETE.
//!
//! The server hands out the slot by itself; all that reaches us is the PUT. An HMAC-SHA-256 (RFC 2104) in hex stands
//! in one parameter of the query:
//!
//! | parameter | signed bytes | server |
//! | --- | --- | --- |
//! | `v` | path, space, size | Prosody's mod_http_upload_external; ejabberd's `external_secret` |
//! | `v2` | path, NUL, size, NUL, type | mod_http_upload_external with protocol v2 |
//! | `token` | path, NUL, size, NUL, type | Metronome |
//! | `token` of a DELETE | path, NUL, delete secret | Metronome |
//!
//! The path is the decoded one below the base URL, of any depth; the size is decimal. Of several parameters the first
//! of `v2`, `token`, `v` decides alone: if it fails, none of the others is asked.
//!
//! Such a signature names neither an owner nor a time. It never lapses, so whoever stores must remember which paths
//! were used. This module knows nothing of bases and prefixes, and of no table of types.

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::hmac;

use crate::layout::StorePath;
use crate::slot::grant::Denial;

/// What a slot request without a type is taken to mean, and what many clients send for any file.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Bytes of an HMAC-SHA-256.
const TAG: usize = 32;

/// Checks what the XMPP server signed.
pub struct External {
    key: hmac::Key,
}

impl External {
    /// The secret is taken as it is configured, without decoding.
    pub fn new(secret: &[u8]) -> External {
        External {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Whether the query carries a signature of this family, be it valid or not.
    pub fn recognises(query: &[u8]) -> bool {
        parameters(query).any(|(key, _)| matches!(key, b"v2" | b"token" | b"v"))
    }

    /// Verifies the query of a PUT of `size` bytes to `path` and gives the type that the server approved: the one to
    /// store and to serve, whatever the PUT says. `None` leaves it to the PUT, because `v` signs no type.
    ///
    /// The size is that of `Content-Length`. It is among the signed bytes and nowhere else, so that a chunked PUT
    /// cannot be judged before its end: the caller answers such a one with 411.
    ///
    /// The server signed the type of the slot request. The PUT's own may differ in harmless ways, so these are tried:
    /// `content_type` as sent, without parameters, that in lower case, `application/octet-stream`, and `guess`, which
    /// the file name's extension suggests. A match with any of them proves that the server signed that one.
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

    /// Verifies the query of a DELETE of `path`, as Metronome sends it.
    pub fn verify_delete(
        &self,
        path: &StorePath,
        query: &[u8],
        delete_secret: &[u8],
    ) -> Result<(), Denial> {
        let tag = Signatures::parse(query)?.token.ok_or(Denial::Unsigned)?;
        self.check(&tag, &[path.as_bytes(), b"\0", delete_secret])
    }

    /// Takes the same time wherever two signatures differ.
    fn check(&self, tag: &[u8; TAG], message: &[&[u8]]) -> Result<(), Denial> {
        hmac::verify(&self.key, &message.concat(), tag).map_err(|_| Denial::Forged)
    }
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("External(..)")
    }
}

/// The types that the server may have signed, the likeliest first. One that is not UTF-8 cannot have been in a slot
/// request.
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

/// The query's signatures. One that stands twice, or is not 64 hex digits, spoils all of them.
#[derive(Default)]
struct Signatures {
    v2: Option<[u8; TAG]>,
    token: Option<[u8; TAG]>,
    v: Option<[u8; TAG]>,
}

impl Signatures {
    /// Unknown parameters are passed by: clients and proxies add some.
    fn parse(query: &[u8]) -> Result<Signatures, Denial> {
        let mut signatures = Signatures::default();
        for (key, value) in parameters(query) {
            let place = match key {
                b"v2" => &mut signatures.v2,
                b"token" => &mut signatures.token,
                b"v" => &mut signatures.v,
                _ => continue,
            };
            if place.replace(tag(value)?).is_some() {
                return Err(Denial::Forged);
            }
        }
        Ok(signatures)
    }
}

/// Names and values; a name without `=` has an empty value.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|b| *b == b'&')
        .map(|part| match part.iter().position(|b| *b == b'=') {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &[][..]),
        })
}

/// Servers write lower case, but backends of either kind are in use.
fn tag(hex: &[u8]) -> Result<[u8; TAG], Denial> {
    let mut tag = [0; TAG];
    if hex.len() != TAG * 2 {
        return Err(Denial::Forged);
    }
    HEXLOWER_PERMISSIVE
        .decode_mut(hex, &mut tag)
        .map_err(|_| Denial::Forged)?;
    Ok(tag)
}

#[cfg(test)]
mod tests;
