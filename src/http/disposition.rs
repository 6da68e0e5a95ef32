//! The `Content-Disposition` field: whether a file is displayed or saved, and its name.
//!
//! The name is sent twice: as ASCII for clients that do not support `filename*`, and in full as percent-encoded UTF-8.
//! The ASCII form has no quotation marks, backslashes or percent signs, because clients interpret these differently
//! (RFC 6266, appendix D), and no slashes.
//!
//! Sources: RFC 6266 §4, RFC 8187 §3.2.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest name in bytes that is sent; file systems allow no longer ones.
pub const MAX_NAME: usize = 255;

/// Everything but attr-char (RFC 8187 §3.2.1).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The value of the field for a file of this name. It is always ASCII. Invalid UTF-8 becomes U+FFFD. Of a name longer than
/// [`MAX_NAME`], the end is sent, which includes the extension. Without a name, the value has no parameters.
pub fn value(inline: bool, name: impl AsRef<[u8]>) -> String {
    let name = String::from_utf8_lossy(end_of(name.as_ref()));
    let mut value = String::with_capacity(48 + 2 * name.len());
    value.push_str(if inline { "inline" } else { "attachment" });
    if name.is_empty() {
        return value;
    }
    value.push_str("; filename=\"");
    value.extend(name.chars().map(fallback));
    value.push_str("\"; filename*=UTF-8''");
    value.extend(utf8_percent_encode(&name, ENCODED));
    value
}

/// The replacement of a character in the ASCII form.
fn fallback(c: char) -> char {
    match c {
        '"' | '\\' | '%' | '/' => '_',
        ' '..='~' => c,
        _ => '_',
    }
}

/// The last [`MAX_NAME`] bytes of a name, from the beginning of a character.
fn end_of(name: &[u8]) -> &[u8] {
    let mut end = &name[name.len().saturating_sub(MAX_NAME)..];
    if end.len() < name.len() {
        while let [0x80..=0xbf, rest @ ..] = end {
            end = rest;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, plain: &str, exact: &str) {
        let expected = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}");
        assert_eq!(value(false, name), expected);
        assert_eq!(
            value(true, name),
            expected.replacen("attachment", "inline", 1)
        );
    }

    #[test]
    fn names() {
        check("photo.jpg", "photo.jpg", "photo.jpg");
        check("two words.txt", "two words.txt", "two%20words.txt");
        check("très cool.jpg", "tr_s cool.jpg", "tr%C3%A8s%20cool.jpg");
        check("😀.png", "_.png", "%F0%9F%98%80.png");
        check("a\"b\\c%41/d", "a_b_c_41_d", "a%22b%5Cc%2541%2Fd");
        check("#?%;=,'()*", "#?_;=,'()*", "#%3F%25%3B%3D%2C%27%28%29%2A");
        check(
            "a\r\nSet-Cookie: b=c\0\u{7f}",
            "a__Set-Cookie: b=c__",
            "a%0D%0ASet-Cookie%3A%20b%3Dc%00%7F",
        );
        check("!#$&+-.^_`|~", "!#$&+-.^_`|~", "!#$&+-.^_`|~");
    }

    #[test]
    fn no_name() {
        assert_eq!(value(true, ""), "inline");
        assert_eq!(value(false, ""), "attachment");
    }

    #[test]
    fn invalid_utf8() {
        assert_eq!(
            value(true, b"a\xff.b"),
            "inline; filename=\"a_.b\"; filename*=UTF-8''a%EF%BF%BD.b"
        );
    }

    #[test]
    fn long_names_keep_their_end() {
        let longest = format!("{}.jpg", "é".repeat(125)) + "x";
        assert_eq!(longest.len(), MAX_NAME);
        check(
            &longest,
            &format!("{}.jpgx", "_".repeat(125)),
            &format!("{}.jpgx", "%C3%A9".repeat(125)),
        );
        let longer = format!("{}.jpg", "é".repeat(1000));
        check(
            &longer,
            &format!("{}.jpg", "_".repeat(125)),
            &format!("{}.jpg", "%C3%A9".repeat(125)),
        );
        assert_eq!(end_of(&[0x80; 1000]), b"");
    }

    /// No name can end the field or start another one.
    #[test]
    fn any_bytes_give_a_valid_value() {
        let mut seed = 1u32;
        for _ in 0..2000 {
            let name: Vec<u8> = (0..seed % 300)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            seed = seed.wrapping_add(1);
            let value = value(false, &name);
            assert!(
                value.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{value}"
            );
            assert!(value.len() <= 60 + MAX_NAME * 10, "{}", value.len());
            assert!(matches!(value.matches('"').count(), 0 | 2), "{value}");
        }
    }
}
