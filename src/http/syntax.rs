//! Grammar rules that several header fields share (RFC 9110 §5.5 and §5.6).

/// Whether a byte may occur in a token (RFC 9110 §5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

/// Whether the text is a token: one or more token bytes (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether a byte is a control character other than the tab, which field values may contain (RFC 9110 §5.5).
pub fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Strips the spaces and tabs around a text (OWS, RFC 9110 §5.6.3).
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list, trimmed; empty elements are included (RFC 9110 §5.6.1). Only for lists whose
/// elements contain no quoted strings.
pub fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// The token in the value of an `Authorization` field: after `Bearer`, in any case, and one or more spaces (RFC 6750
/// §2.1). `None` for another scheme or an empty token.
pub fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = trim(value).split_at_checked(b"Bearer".len())?;
    let start = rest.iter().position(|b| *b != b' ')?;
    (scheme.eq_ignore_ascii_case(b"Bearer") && start > 0).then_some(&rest[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        for value in [
            "Bearer a.b-c_d",
            "bearer a.b-c_d",
            "BEARER   a.b-c_d",
            " Bearer a.b-c_d\t",
        ] {
            assert_eq!(
                bearer_token(value.as_bytes()),
                Some(&b"a.b-c_d"[..]),
                "{value:?}"
            );
        }
        assert_eq!(bearer_token(b"Bearer ab+/~=="), Some(&b"ab+/~=="[..]));
        assert_eq!(bearer_token(b"Bearer Bearer"), Some(&b"Bearer"[..]));
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearera.b.c",
            "Bearer\ta.b.c",
            "Bearer=a",
            "Basic a.b.c",
            "Beare a.b.c",
            "\u{e9}\u{e9}\u{e9} a.b.c",
            "a.b.c",
        ] {
            assert_eq!(bearer_token(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn lists() {
        let elements =
            |value: &'static str| -> Vec<&[u8]> { list_elements(value.as_bytes()).collect() };
        assert_eq!(elements("a, b\t,c"), [b"a", b"b", b"c"]);
        assert_eq!(elements(" a ,, "), [&b"a"[..], b"", b""]);
        assert_eq!(elements(""), [b""]);
    }
}
