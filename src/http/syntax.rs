//! Grammar rules that several header fields share (RFC 9110 §5.5 and §5.6).

/// Whether a byte may occur in a token (RFC 9110 §5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
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

/// The number that one or more digits spell. `None` for anything else, and for a number that does not fit 64 bits.
pub fn parse_decimal(digits: &[u8]) -> Option<u64> {
    fold_digits(digits, |value, digit| {
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// [`parse_decimal`], except that a number that does not fit 64 bits becomes the largest one that does.
pub fn parse_decimal_saturating(digits: &[u8]) -> Option<u64> {
    fold_digits(digits, |value, digit| {
        Some(value.saturating_mul(10).saturating_add(digit))
    })
}

fn fold_digits(digits: &[u8], append: impl Fn(u64, u64) -> Option<u64>) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        append(value, digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for (text, number) in [
            ("0", 0),
            ("007", 7),
            ("18446744073709551615", u64::MAX),
            ("0000000000000000000000001", 1),
        ] {
            assert_eq!(parse_decimal(text.as_bytes()), Some(number), "{text}");
            assert_eq!(parse_decimal_saturating(text.as_bytes()), Some(number));
        }
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "1_0", "1.0", "\u{661}"] {
            assert_eq!(parse_decimal(text.as_bytes()), None, "{text:?}");
            assert_eq!(parse_decimal_saturating(text.as_bytes()), None, "{text:?}");
        }
        for text in ["18446744073709551616", "99999999999999999999999999"] {
            assert_eq!(parse_decimal(text.as_bytes()), None, "{text}");
            assert_eq!(parse_decimal_saturating(text.as_bytes()), Some(u64::MAX));
        }
        assert_eq!(parse_decimal_saturating(b"99999999999999999999x"), None);
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
