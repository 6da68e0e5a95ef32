//! Which text is labelled as UTF-8: browsers read text without a charset as Latin-1.
//!
//! Only the types `text/*` without a charset of their own are labelled, and only when their bytes are UTF-8: an upload's
//! are checked piece by piece while they are received, and of a file that nobody checked a few bounded pieces are read.
//! A NUL is no text, so that UTF-16 is not taken for UTF-8. An empty text is UTF-8, and so is one with a byte order
//! mark.
//!
//! Sources: RFC 9110 §8.3.2, RFC 6657 §4, RFC 3629 §3.

use std::str;

use crate::http::mime;

/// Most bytes of a character that a piece can leave unfinished.
const UNFINISHED: usize = 3;

/// Bytes of each piece that is read of a file that was not checked when it was stored.
pub const PIECE: usize = 4096;

/// Where those pieces begin in a file of so many bytes: its beginning, its middle and its end. Together they are the
/// whole file, if it is small.
pub fn pieces(size: u64) -> impl Iterator<Item = u64> {
    let piece = PIECE as u64;
    let last = size.saturating_sub(piece);
    let middle = last / 2;
    let starts = match size {
        _ if size <= piece => [Some(0), None, None],
        _ if size <= 2 * piece => [Some(0), Some(last), None],
        _ => [Some(0), Some(middle), Some(last)],
    };
    starts.into_iter().flatten()
}

/// Whether a piece out of the middle of a text may be UTF-8: characters that its edges cut are passed over.
pub fn may_be_utf8(piece: &[u8], is_first: bool, is_last: bool) -> bool {
    let start = match is_first {
        true => 0,
        false => {
            let cut = piece.iter().take(UNFINISHED);
            cut.take_while(|byte| matches!(byte, 0x80..=0xbf)).count()
        }
    };
    let mut check = Utf8Check::default();
    check.update(&piece[start..]);
    match is_last {
        true => check.is_utf8(),
        false => !check.failed,
    }
}

/// Whether answers with this type are to be labelled, if their bytes are UTF-8.
pub fn is_open(content_type: &str) -> bool {
    mime::essence(content_type).starts_with("text/")
        && mime::is_valid(content_type)
        && !mime::has_parameter(content_type, "charset")
}

/// The type with its label.
pub fn labelled(content_type: &str) -> String {
    let bare = content_type.trim_end_matches([';', ' ', '\t']);
    format!("{bare}; charset=utf-8")
}

/// Checks a text piece by piece, wherever the pieces cut its characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Check {
    failed: bool,
    /// A character that the last piece left unfinished.
    rest: [u8; UNFINISHED],
    length: usize,
}

impl Utf8Check {
    /// Looks at the next piece, unless the text failed already.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.length > 0 && !self.failed {
            let Some((next, others)) = bytes.split_first() else {
                return;
            };
            bytes = others;
            let mut character = [0; UNFINISHED + 1];
            character[..self.length].copy_from_slice(&self.rest[..self.length]);
            character[self.length] = *next;
            let length = self.length + 1;
            self.length = 0;
            self.look(&character[..length]);
        }
        if !self.failed {
            self.look(bytes);
        }
    }

    /// Whether all of it was UTF-8, if nothing more comes.
    pub fn is_utf8(&self) -> bool {
        !self.failed && self.length == 0
    }

    fn look(&mut self, bytes: &[u8]) {
        if bytes.contains(&0) {
            self.failed = true;
            return;
        }
        let Err(error) = str::from_utf8(bytes) else {
            return;
        };
        let rest = &bytes[error.valid_up_to()..];
        match (error.error_len(), self.rest.get_mut(..rest.len())) {
            (None, Some(kept)) => {
                kept.copy_from_slice(rest);
                self.length = rest.len();
            }
            _ => self.failed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut a text in up to three pieces tells the same.
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
    fn what_is_utf8() {
        check(b"", true);
        check(b"plain\r\n", true);
        check("Grüße ☕ 😀".as_bytes(), true);
        check("\u{feff}with a mark".as_bytes(), true);
        check("\u{10ffff}\u{0080}\u{0800}\u{ffff}".as_bytes(), true);
        check(b"Gr\xfc\xdfe", false);
        check(b"caf\xe9", false);
        check("☕".as_bytes().split_last().unwrap().1, false);
        check("😀".as_bytes().split_last().unwrap().1, false);
        // Overlong, surrogate, beyond the last character, a byte that is none.
        check(b"a\xc0\x80", false);
        check(b"\xe0\x80\xaf", false);
        check(b"\xed\xa0\x80", false);
        check(b"\xf4\x90\x80\x80", false);
        check(b"\xff", false);
        check(b"\x80", false);
        // UTF-16, with and without a mark.
        check(b"\xff\xfeh\0i\0", false);
        check(b"\xfe\xff\0h\0i", false);
        check(b"h\0i\0", false);
    }

    #[test]
    fn pieces_are_few_and_small_files_are_seen_whole() {
        let piece = PIECE as u64;
        for (size, expected) in [
            (0, vec![0]),
            (1, vec![0]),
            (piece, vec![0]),
            (piece + 1, vec![0, 1]),
            (2 * piece, vec![0, piece]),
            (2 * piece + 1, vec![0, piece.div_ceil(2), piece + 1]),
            (100 * piece, vec![0, 99 * piece / 2, 99 * piece]),
        ] {
            assert_eq!(Vec::from_iter(pieces(size)), expected, "{size}");
        }
        assert_eq!(pieces(u64::MAX).count(), 3);
    }

    #[test]
    fn a_piece_may_cut_characters() {
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
            "no character is so long"
        );
        assert!(!may_be_utf8(b"caf\xe9 au lait", false, false));
        assert!(!may_be_utf8(b"h\0i", false, false));
        assert!(may_be_utf8(b"", true, true));
    }

    #[test]
    fn what_is_labelled() {
        for (content_type, open) in [
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
            assert_eq!(is_open(content_type), open, "{content_type}");
            if open {
                let labelled = labelled(content_type);
                assert!(
                    mime::is_valid(&labelled) && !is_open(&labelled),
                    "{labelled}"
                );
                assert_eq!(mime::essence(&labelled), mime::essence(content_type));
            }
        }
        assert_eq!(labelled("text/plain;"), "text/plain; charset=utf-8");
        assert_eq!(labelled("text/plain"), "text/plain; charset=utf-8");
        assert_eq!(
            labelled("text/plain; format=flowed"),
            "text/plain; format=flowed; charset=utf-8"
        );
    }
}
