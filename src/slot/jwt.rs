//! Bearer tokens of Prosody's mod_http_file_share, which issues slots and leaves HTTP to an external service.
//!
//! A PUT carries `Authorization: Bearer` (RFC 6750) with a JSON Web Token (RFC 7519) in compact serialisation
//! (RFC 7515 §3.1), whose claims name the slot, the owner, the size, the type and the expiry time of the file. A PUT
//! may start between `iat` and `exp`; one in progress may finish later.
//!
//! The only algorithm is HS256, HMAC-SHA-256 (RFC 7518 §3.2), regardless of the token's header: the signature is
//! verified first, and nothing is parsed that the server did not sign. This module knows neither URLs nor the header
//! fields of the PUT.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hifijson::SliceLexer;
use hifijson::token::Lex;
use hifijson::value::{Value, parse_bounded};
use ring::hmac;

use crate::jid::BareJid;

/// Maximum length of a token in bytes; a long file name in escapes takes about 3 KiB.
const MAX_TOKEN: usize = 8192;

/// Maximum nesting depth of the JSON; the claims that are read do not nest at all.
const MAX_DEPTH: usize = 4;

/// How far the server's clock may be ahead of the local one, in seconds (RFC 7519 §4.1.5 allows a few minutes).
const CLOCK_SKEW: u64 = 300;

/// Maximum length of a type that is used, in bytes.
const MAX_TYPE: usize = 255;

/// Verifies tokens.
pub struct FileShare {
    key: hmac::Key,
}

impl FileShare {
    /// The secret is used as configured, without decoding.
    pub fn new(secret: &[u8]) -> FileShare {
        FileShare {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Verifies a token at time `now` (Unix seconds). Signatures are compared in constant time.
    pub fn verify(&self, token: &[u8], now: u64) -> Result<Claims, JwtDenial> {
        if token.len() > MAX_TOKEN {
            return Err(JwtDenial::Malformed);
        }
        let mut parts = token.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtDenial::Malformed);
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        hmac::verify(&self.key, signed, &signature).map_err(|_| JwtDenial::Forged)?;
        check_header(&header)?;
        Claims::parse(&payload, now)
    }
}

impl fmt::Debug for FileShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileShare(..)")
    }
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The first segment of the URL's path below the base URL; not empty.
    pub slot: String,
    /// The owner.
    pub sub: Option<BareJid>,
    /// The file name of the slot request; the name in the URL takes precedence.
    pub filename: Option<String>,
    /// Exact length of the body in bytes; may be 0.
    pub filesize: u64,
    /// The type to store and serve: visible ASCII and spaces, at most 255 bytes. `None` means the type of the PUT.
    pub filetype: Option<String>,
    /// Expiry time of the file in Unix seconds, always in the future; `None` if it does not expire.
    pub expires: Option<u64>,
    /// When the token was issued, in Unix seconds; 0 if there is no `iat`.
    pub issued: u64,
    /// Until when a PUT may start, in Unix seconds.
    pub exp: u64,
}

impl Claims {
    /// Whether the token is for this slot, the decoded first segment below the base URL. If not, the answer is 403.
    pub fn is_for(&self, slot_segment: &[u8]) -> bool {
        self.slot.as_bytes() == slot_segment
    }

    fn parse(payload: &[u8], now: u64) -> Result<Claims, JwtDenial> {
        let mut claims = Members::parse(payload)?;
        // RFC 7519 §4.1.3: a token whose audience does not include the recipient must be rejected.
        if claims.0.contains_key("aud") {
            return Err(JwtDenial::Forged);
        }
        let latest = now.saturating_add(CLOCK_SKEW);
        let (iat, nbf) = (claims.integer("iat")?, claims.integer("nbf")?);
        for begin in [iat, nbf] {
            if begin.is_some_and(|begin| begin > latest) {
                return Err(JwtDenial::NotYet);
            }
        }
        let exp = claims.integer("exp")?.ok_or(JwtDenial::Malformed)?;
        if exp <= now {
            return Err(JwtDenial::Expired);
        }
        let expires = claims.integer("expires")?;
        if expires.is_some_and(|expires| expires <= now) {
            return Err(JwtDenial::FileExpired);
        }
        // A malformed owner must not bypass the quotas.
        let sub = match claims.text("sub")? {
            Some(sub) => Some(BareJid::parse(&sub).ok_or(JwtDenial::Malformed)?),
            None => None,
        };
        Ok(Claims {
            slot: claims
                .text("slot")?
                .filter(|slot| !slot.is_empty())
                .ok_or(JwtDenial::Malformed)?,
            sub,
            filename: claims.text("filename")?,
            filesize: claims.integer("filesize")?.ok_or(JwtDenial::Malformed)?,
            filetype: claims.text("filetype")?.filter(|text| is_plain(text)),
            expires,
            issued: iat.or(nbf).unwrap_or(0),
            exp,
        })
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtDenial {
    /// Not a valid token of this form: 401, as if there were none.
    Malformed,
    /// Not signed for this service with HS256 and the shared secret: 403.
    Forged,
    /// Issued in the future, so one of the two clocks is wrong: 403.
    NotYet,
    /// The token has expired: 403.
    Expired,
    /// The file would already have expired: 403.
    FileExpired,
}

impl fmt::Display for JwtDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JwtDenial::Malformed => {
                "The request has no well-formed bearer token; ask the XMPP server for an upload slot."
            }
            JwtDenial::Forged => "The bearer token's signature is not valid.",
            JwtDenial::NotYet => {
                "The bearer token is not valid yet; the clocks of the servers differ."
            }
            JwtDenial::Expired => "The bearer token has expired; ask for a new upload slot.",
            JwtDenial::FileExpired => {
                "The file would already have expired; ask for a new upload slot."
            }
        })
    }
}

/// Decodes base64url without padding (RFC 7515 §2). Trailing bits must be zero, so that each token has exactly one
/// representation.
fn decode(part: &[u8]) -> Result<Vec<u8>, JwtDenial> {
    BASE64URL_NOPAD
        .decode(part)
        .map_err(|_| JwtDenial::Malformed)
}

fn check_header(header: &[u8]) -> Result<(), JwtDenial> {
    let mut header = Members::parse(header)?;
    let typ = header.text("typ")?;
    if typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(JwtDenial::Malformed);
    }
    // RFC 7515 §4.1.11: extensions that must be understood are not supported.
    if header.0.contains_key("crit") {
        return Err(JwtDenial::Malformed);
    }
    match header.text("alg")?.as_deref() {
        Some("HS256") => Ok(()),
        Some(_) => Err(JwtDenial::Forged),
        None => Err(JwtDenial::Malformed),
    }
}

/// Whether the type can be written to a header field as it is.
fn is_plain(content_type: &str) -> bool {
    !content_type.is_empty()
        && content_type.len() <= MAX_TYPE
        && content_type.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// The members of a JSON object (RFC 8259). A duplicate name makes the object invalid (RFC 7519 §4).
pub(crate) struct Members<'a>(BTreeMap<Cow<'a, str>, Value<&'a str, Cow<'a, str>>>);

impl<'a> Members<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Result<Members<'a>, JwtDenial> {
        let value = SliceLexer::new(json).exactly_one(Lex::ws_peek, |next, lexer| {
            parse_bounded(MAX_DEPTH, next, lexer)
        });
        let Ok(Value::Object(pairs)) = value else {
            return Err(JwtDenial::Malformed);
        };
        let mut members = BTreeMap::new();
        for (name, value) in pairs {
            if members.insert(name, value).is_some() {
                return Err(JwtDenial::Malformed);
            }
        }
        Ok(Members(members))
    }

    /// Removes a string; `null` counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, JwtDenial> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(Some(text.into_owned())),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(JwtDenial::Malformed),
        }
    }

    /// Removes a non-negative integer; `null` counts as absent. A suffix `.0` is accepted, because Lua 5.4 writes it
    /// after an integral number that results from floating-point arithmetic.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<u64>, JwtDenial> {
        match self.0.remove(name) {
            Some(Value::Number((digits, _))) => digits
                .strip_suffix(".0")
                .unwrap_or(digits)
                .parse()
                .map(Some)
                .map_err(|_| JwtDenial::Malformed),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(JwtDenial::Malformed),
        }
    }
}

#[cfg(test)]
mod tests;
