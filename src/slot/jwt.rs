//! Bearer tokens of Prosody's mod_http_file_share, which hands out slots and leaves HTTP to us.
//!
//! A PUT comes with `Authorization: Bearer` (RFC 6750) and a JSON Web Token (RFC 7519) in compact form (RFC 7515
//! §3.1) that tells slot, owner, size, type and the moment when the file goes. It is good from its issue to its `exp`
//! for the start of a PUT; one under way may end later.
//!
//! The only algorithm is HS256, HMAC-SHA-256 (RFC 7518 §3.2), whatever the token says of itself: the signature is
//! checked first, and nothing is parsed that the server did not sign. This module knows nothing of URLs and of the
//! PUT's own fields; it compares what it is given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hifijson::SliceLexer;
use hifijson::token::Lex;
use hifijson::value::{Value, parse_bounded};
use ring::hmac;

use crate::jid::BareJid;

/// Longest token in bytes; a long file name in escapes makes 3 KiB.
const MAX_TOKEN: usize = 8192;

/// How deep JSON may nest; what we read does not nest at all.
const MAX_DEPTH: usize = 4;

/// How far the server's clock may be ahead of ours, in seconds (RFC 7519 §4.1.5 allows a few minutes).
const CLOCK_SKEW: u64 = 300;

/// Longest type that is taken over, in bytes.
const MAX_TYPE: usize = 255;

/// Checks tokens.
pub struct FileShare {
    key: hmac::Key,
}

impl FileShare {
    /// The secret is taken as it is configured, without decoding.
    pub fn new(secret: &[u8]) -> FileShare {
        FileShare {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Verifies a token at the moment `now` (Unix seconds). The comparison takes the same time wherever two
    /// signatures differ.
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

/// What the server says of the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The first segment of the URL's path below the base; not empty.
    pub slot: String,
    /// Who uploads.
    pub sub: Option<BareJid>,
    /// The file name as it was asked for; the URL's is the one that counts.
    pub filename: Option<String>,
    /// Exact length of the body in bytes; may be 0.
    pub filesize: u64,
    /// The type to store and serve: visible ASCII and spaces, 255 bytes at most. `None` leaves it to the PUT.
    pub filetype: Option<String>,
    /// When the file goes, in Unix seconds; always in the future. `None` if never.
    pub expires: Option<u64>,
    /// When the token was issued, in Unix seconds; 0 when it does not say.
    pub issued: u64,
    /// Until when a PUT may start, in Unix seconds.
    pub exp: u64,
}

impl Claims {
    /// Whether the token is for this slot: the first segment below the base, decoded. Another one means 403.
    pub fn is_for(&self, slot_segment: &[u8]) -> bool {
        self.slot.as_bytes() == slot_segment
    }

    /// Whether the token is for exactly `size` bytes in this slot. A size that alone differs means 413.
    pub fn matches(&self, slot_segment: &[u8], size: u64) -> bool {
        self.is_for(slot_segment) && self.filesize == size
    }

    fn parse(payload: &[u8], now: u64) -> Result<Claims, JwtDenial> {
        let mut claims = Members::parse(payload)?;
        // RFC 7519 §4.1.3: a token for somebody named who is not us must be rejected.
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
        // An owner that cannot be read must not escape a quota.
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

/// Why a token gives no right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtDenial {
    /// It is no token of this kind: 401, as if there were none.
    Malformed,
    /// The server that has our secret did not sign it with HS256 for us: 403.
    Forged,
    /// It was issued in the future; one of two clocks is wrong: 403.
    NotYet,
    /// Its time to start a PUT is over: 403.
    Expired,
    /// The file would be gone at once: 403.
    FileExpired,
}

impl fmt::Display for JwtDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JwtDenial::Malformed => {
                "The request carries no readable bearer token; ask the XMPP server for an upload slot."
            }
            JwtDenial::Forged => "The bearer token's signature is not valid.",
            JwtDenial::NotYet => {
                "The bearer token is from the future; the clocks of the servers differ."
            }
            JwtDenial::Expired => "The bearer token has expired; ask for a new upload slot.",
            JwtDenial::FileExpired => "The file's time has passed; ask for a new upload slot.",
        })
    }
}

/// The token in the value of an `Authorization` field: `Bearer`, in any case, spaces, and a token of RFC 6750 §2.1.
/// `None` for another scheme or a malformed value.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(b"Bearer".len())?;
    let start = rest.iter().position(|b| *b != b' ')?;
    let token = &rest[start..];
    let sound = token
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b));
    (scheme.eq_ignore_ascii_case(b"Bearer") && start > 0 && sound).then_some(token)
}

/// base64url without padding (RFC 7515 §2); bits left over must be zero, so that one token has one spelling.
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
    // RFC 7515 §4.1.11: an extension that must be understood is not.
    if header.0.contains_key("crit") {
        return Err(JwtDenial::Malformed);
    }
    match header.text("alg")?.as_deref() {
        Some("HS256") => Ok(()),
        Some(_) => Err(JwtDenial::Forged),
        None => Err(JwtDenial::Malformed),
    }
}

/// What may be written into a header field without a second thought.
fn is_plain(content_type: &str) -> bool {
    !content_type.is_empty()
        && content_type.len() <= MAX_TYPE
        && content_type.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// The members of one JSON object (RFC 8259); a name that stands twice spoils it (RFC 7519 §4).
struct Members<'a>(BTreeMap<Cow<'a, str>, Value<&'a str, Cow<'a, str>>>);

impl<'a> Members<'a> {
    fn parse(json: &'a [u8]) -> Result<Members<'a>, JwtDenial> {
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

    /// A string; absent and `null` are the same.
    fn text(&mut self, name: &str) -> Result<Option<String>, JwtDenial> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(Some(text.into_owned())),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(JwtDenial::Malformed),
        }
    }

    /// A whole number from 0, exact; absent and `null` are the same. Lua 5.4 writes `.0` behind one that it
    /// calculated from a fraction, as in half a day from now; that changes no number.
    fn integer(&mut self, name: &str) -> Result<Option<u64>, JwtDenial> {
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
