//! Which header fields an operator may add to every response (RFC 9110 §5).
//!
//! A field that frames the message, belongs to one connection, or describes one file would make responses invalid, so it
//! is refused. Every other field is accepted; `Cache-Control`, `Content-Security-Policy` and other fields that upslot sets
//! for all responses replace upslot's own.

use crate::config::error::InvalidValue;
use crate::http::syntax::is_token;

/// Most fields that may be added.
pub const MAX_HEADERS: usize = 64;

/// Longest value, in bytes.
const MAX_VALUE: usize = 4096;

/// Fields that only upslot can set correctly: framing and connection (RFC 9110 §7.6.1, RFC 9112 §6), then those that
/// describe one response or file.
const OWN: [&str; 24] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-ranges",
    "age",
    "allow",
    "content-disposition",
    "content-encoding",
    "content-range",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "vary",
    "www-authenticate",
];

/// Checks the name of a field; `cors` tells whether upslot sends the CORS fields itself.
pub fn name(text: &str, cors: bool) -> Result<(), InvalidValue> {
    if text.len() > 64 || !is_token(text.as_bytes()) {
        return Err("the name of a header field, of letters, digits and hyphens".into());
    }
    let lower = text.to_ascii_lowercase();
    if OWN.contains(&lower.as_str()) {
        return Err("a header field that does not describe a single response or file".into());
    }
    if cors && lower.starts_with("access-control-") {
        return Err("no CORS fields, because allow_web_clients sets them".into());
    }
    Ok(())
}

/// Checks the value of a field: visible ASCII, with spaces and tabs inside.
pub fn value(text: &str) -> Result<(), InvalidValue> {
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ' || b == b'\t';
    let edged = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    if !(1..=MAX_VALUE).contains(&text.len()) || edged || !text.bytes().all(visible) {
        return Err(format!("visible ASCII in one line, at most {MAX_VALUE} bytes").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, cors: bool, good: bool) {
        assert_eq!(name(text, cors).is_ok(), good, "{text:?}");
    }

    #[test]
    fn checks_names() {
        for text in [
            "Content-Security-Policy",
            "Cache-Control",
            "Strict-Transport-Security",
            "X-A",
            "Server",
            "alt-svc",
        ] {
            check(text, true, true);
        }
        for text in ["", "X A", "X:A", "X-Ä", "X\r\nA", "(x)", &"x".repeat(65)] {
            check(text, true, false);
        }
        for text in OWN {
            check(text, false, false);
            check(&text.to_uppercase(), true, false);
        }
        check("Access-Control-Allow-Origin", true, false);
        check("Access-Control-Allow-Origin", false, true);
    }

    #[test]
    fn checks_values() {
        for text in [
            "x",
            "default-src 'none'; sandbox",
            "a\tb",
            &"x".repeat(4096),
        ] {
            assert_eq!(value(text), Ok(()), "{text:?}");
        }
        for text in [
            "",
            " x",
            "x\t",
            "a\r\nb",
            "a\nb",
            "a\u{0}b",
            "é",
            "\u{7f}",
            &"x".repeat(4097),
        ] {
            assert!(value(text).is_err(), "{text:?}");
        }
    }
}
