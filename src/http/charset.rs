//! Labels text files as UTF-8, because browsers assume Latin-1 for text without a charset.
//!
//! Only `text/*` types without a charset parameter are labelled, and only if the content is UTF-8. Uploads are checked
//! while they are received; of a file that was not checked when it was stored, a few samples of limited size are read.
//! Text with a NUL does not count as UTF-8, so that UTF-16 is not mistaken for it. Empty text counts as UTF-8, as does
//! text with a byte order mark.
//!
//! Sources: RFC 9110 §8.3.2, RFC 6657 §4, RFC 3629 §3.

use std::str;

use crate::http::mime;

/// Longest incomplete character at the end of a piece, in bytes.
const MAX_INCOMPLETE: usize = 3;

/// Size in bytes of a sample of a file that was not checked when it was stored.
pub const SAMPLE_SIZE: usize = 4096;

/// Offsets of the samples of a file: its beginning, its middle and its end. They cover a small file completely.
pub fn sample_offsets(size: u64) -> impl Iterator<Item = u64> {
    let sample = SAMPLE_SIZE as u64;
    let last = size.saturating_sub(sample);
    let middle = last / 2;
    let starts = match size {
        _ if size <= sample => [Some(0), None, None],
        _ if size <= 2 * sample => [Some(0), Some(last), None],
        _ => [Some(0), Some(middle), Some(last)],
    };
    starts.into_iter().flatten()
}

/// Whether a sample can be part of UTF-8 text. Characters that are cut by its ends are ignored.
pub fn may_be_utf8(sample: &[u8], is_first: bool, is_last: bool) -> bool {
    let start = match is_first {
        true => 0,
        false => {
            let cut = sample.iter().take(MAX_INCOMPLETE);
            cut.take_while(|byte| matches!(byte, 0x80..=0xbf)).count()
        }
    };
    let mut check = Utf8Check::default();
    check.update(&sample[start..]);
    match is_last {
        true => check.is_utf8(),
        false => !check.failed,
    }
}

/// Whether a file of this type is labelled if its content is UTF-8.
pub fn needs_charset(content_type: &str) -> bool {
    mime::essence(content_type).starts_with("text/")
        && mime::is_valid(content_type)
        && !mime::has_parameter(content_type, "charset")
}

/// The type with the parameter `charset=utf-8`.
pub fn with_utf8(content_type: &str) -> String {
    let bare = content_type.trim_end_matches([';', ' ', '\t']);
    format!("{bare}; charset=utf-8")
}

/// Checks text incrementally; pieces may end within characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Check {
    failed: bool,
    /// The incomplete character at the end of the last piece.
    rest: [u8; MAX_INCOMPLETE],
    length: usize,
}

impl Utf8Check {
    /// Checks the next piece.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.length > 0 && !self.failed {
            let Some((next, others)) = bytes.split_first() else {
                return;
            };
            bytes = others;
            let mut character = [0; MAX_INCOMPLETE + 1];
            character[..self.length].copy_from_slice(&self.rest[..self.length]);
            character[self.length] = *next;
            let length = self.length + 1;
            self.length = 0;
            self.check(&character[..length]);
        }
        if !self.failed {
            self.check(bytes);
        }
    }

    /// Whether the text, if it ends here, is UTF-8.
    pub fn is_utf8(&self) -> bool {
        !self.failed && self.length == 0
    }

    fn check(&mut self, bytes: &[u8]) {
        if bytes.contains(&0) {
            self.failed = true;
            return;
        }
        let Err(error) = str::from_utf8(bytes) else {
            return;
        };
        let rest = &bytes[error.valid_up_to()..];
        match (error.error_len(), self.rest.get_mut(..rest.len())) {
            (None, Some(stored)) => {
                stored.copy_from_slice(rest);
                self.length = rest.len();
            }
            _ => self.failed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks every split of the text into up to three pieces.
    #[track_caller]
    fn check(bytes: &[u8], expected: bool) {
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut check = Utf8Check::default();
                check.update(&bytes[..first]);
                check.update(&bytes[first..second]);
                check.update(&bytes[second..]);
                assert_eq!(
                    check.is_utf8(),
                    expected,
                    "{} at {first}, {second}",
                    bytes.escape_ascii()
                );
            }
        }
        let mut check = Utf8Check::default();
        for byte in bytes {
            check.update(&[*byte]);
        }
        assert_eq!(
            check.is_utf8(),
            expected,
            "{} byte by byte",
            bytes.escape_ascii()
        );
    }

    #[test]
    fn distinguishes_utf8() {
        check(b"", true);
        check(b"plain\r\n", true);
        check("Grüße ☕ 😀".as_bytes(), true);
        check("\u{feff}with a mark".as_bytes(), true);
        check("\u{10ffff}\u{0080}\u{0800}\u{ffff}".as_bytes(), true);
        check(b"Gr\xfc\xdfe", false);
        check(b"caf\xe9", false);
        check("☕".as_bytes().split_last().unwrap().1, false);
        check("😀".as_bytes().split_last().unwrap().1, false);
        // Overlong, surrogate, beyond the last character, invalid bytes.
        check(b"a\xc0\x80", false);
        check(b"\xe0\x80\xaf", false);
        check(b"\xed\xa0\x80", false);
        check(b"\xf4\x90\x80\x80", false);
        check(b"\xff", false);
        check(b"\x80", false);
        // UTF-16, with and without a byte order mark.
        check(b"\xff\xfeh\0i\0", false);
        check(b"\xfe\xff\0h\0i", false);
        check(b"h\0i\0", false);
    }

    #[test]
    fn samples_are_few_and_cover_small_files() {
        let sample = SAMPLE_SIZE as u64;
        for (size, expected) in [
            (0, vec![0]),
            (1, vec![0]),
            (sample, vec![0]),
            (sample + 1, vec![0, 1]),
            (2 * sample, vec![0, sample]),
            (2 * sample + 1, vec![0, sample.div_ceil(2), sample + 1]),
            (100 * sample, vec![0, 99 * sample / 2, 99 * sample]),
        ] {
            assert_eq!(Vec::from_iter(sample_offsets(size)), expected, "{size}");
        }
        assert_eq!(sample_offsets(u64::MAX).count(), 3);
    }

    #[test]
    fn a_sample_may_cut_characters() {
        let text = "☕😀é".repeat(20);
        let bytes = text.as_bytes();
        for start in 0..bytes.len() {
            for end in start..=bytes.len() {
                let (first, last) = (start == 0, end == bytes.len());
                assert!(
                    may_be_utf8(&bytes[start..end], first, last),
                    "{start}..{end}"
                );
            }
        }
        assert!(!may_be_utf8("é".as_bytes().split_at(1).1, true, true));
        assert!(!may_be_utf8("é".as_bytes().split_at(1).0, true, true));
        assert!(
            !may_be_utf8(b"\x80\x80\x80\x80", false, false),
            "no character has so many continuation bytes"
        );
        assert!(!may_be_utf8(b"caf\xe9 au lait", false, false));
        assert!(!may_be_utf8(b"h\0i", false, false));
        assert!(may_be_utf8(b"", true, true));
    }

    #[test]
    fn labels_text_without_a_charset() {
        for (content_type, expected) in [
            ("text/plain", true),
            ("Text/Plain", true),
            ("text/plain; format=flowed", true),
            ("text/plain;", true),
            ("text/csv; header=present", true),
            ("text/plain; x=\"a; charset=b\"", true),
            ("text/plain; charset=iso-8859-1", false),
            ("text/plain; format=flowed; Charset=\"utf-8\"", false),
            ("text/plain;CHARSET=us-ascii", false),
            ("application/json", false),
            ("application/octet-stream", false),
            ("image/svg+xml", false),
            ("text", false),
            ("text/", false),
            ("", false),
        ] {
            assert_eq!(needs_charset(content_type), expected, "{content_type}");
            if expected {
                let labelled = with_utf8(content_type);
                assert!(
                    mime::is_valid(&labelled) && !needs_charset(&labelled),
                    "{labelled}"
                );
                assert_eq!(mime::essence(&labelled), mime::essence(content_type));
            }
        }
        assert_eq!(with_utf8("text/plain;"), "text/plain; charset=utf-8");
        assert_eq!(with_utf8("text/plain"), "text/plain; charset=utf-8");
        assert_eq!(
            with_utf8("text/plain; format=flowed"),
            "text/plain; format=flowed; charset=utf-8"
        );
    }
}
