//! Decimal numbers in protocol text.
//!
//! Parsing is strict, unlike that of `str::parse`, which accepts a sign. Formatting avoids `std::fmt`, because response
//! heads and slot queries hold several numbers each.

/// A buffer that fits the digits of any `u64`.
pub type DigitBuffer = [u8; u64::MAX.ilog10() as usize + 1];

/// The decimal digits of `number`, without leading zeros.
pub fn digits(number: u64, buffer: &mut DigitBuffer) -> &[u8] {
    let mut start = buffer.len();
    let mut left = number;
    loop {
        start -= 1;
        buffer[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return &buffer[start..];
        }
    }
}

/// Appends the decimal digits of `number`.
pub fn push(number: u64, text: &mut String) {
    let mut buffer = DigitBuffer::default();
    text.push_str(std::str::from_utf8(digits(number, &mut buffer)).unwrap_or_default());
}

/// Parses one or more digits. `None` for anything else, and for a number that does not fit 64 bits.
pub fn parse(digits: &[u8]) -> Option<u64> {
    fold(digits, |value, digit| {
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Like [`parse`], except that a number that does not fit 64 bits becomes `u64::MAX`.
pub fn parse_saturating(digits: &[u8]) -> Option<u64> {
    fold(digits, |value, digit| {
        Some(value.saturating_mul(10).saturating_add(digit))
    })
}

fn fold(digits: &[u8], append: impl Fn(u64, u64) -> Option<u64>) -> Option<u64> {
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
    fn parses_only_digits() {
        for (text, number) in [
            ("0", 0),
            ("007", 7),
            ("18446744073709551615", u64::MAX),
            ("0000000000000000000000001", 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
            assert_eq!(parse_saturating(text.as_bytes()), Some(number));
        }
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "1_0", "1.0", "\u{661}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
            assert_eq!(parse_saturating(text.as_bytes()), None, "{text:?}");
        }
        for text in ["18446744073709551616", "99999999999999999999999999"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
            assert_eq!(parse_saturating(text.as_bytes()), Some(u64::MAX));
        }
        assert_eq!(parse_saturating(b"99999999999999999999x"), None);
    }

    #[test]
    fn digits_match_std_formatting() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let edges = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in edges.chain([u64::MAX - 1, u64::MAX]) {
            let mut buffer = DigitBuffer::default();
            assert_eq!(digits(number, &mut buffer), number.to_string().as_bytes());
            let mut text = String::new();
            push(number, &mut text);
            assert_eq!(text, number.to_string());
        }
    }
}
