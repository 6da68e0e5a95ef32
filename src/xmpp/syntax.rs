//! The syntax of XML that the scanner checks byte by byte: characters, references and names (XML 1.0).

use std::fmt;

use quick_xml::escape::resolve_predefined_entity;

/// A fatal error in a stream; the text names the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlError {
    /// XML that is not well-formed, or not valid in a stream.
    Malformed(&'static str),
    /// XML that XMPP forbids (RFC 6120 §11.1).
    Restricted(&'static str),
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XmlError::Malformed(what) | XmlError::Restricted(what) => f.write_str(what),
        }
    }
}

pub fn malformed<T>(what: &'static str) -> Result<T, XmlError> {
    Err(XmlError::Malformed(what))
}

pub fn restricted<T>(what: &'static str) -> Result<T, XmlError> {
    Err(XmlError::Restricted(what))
}

/// Whether XML allows this character (XML 1.0 §2.2).
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// White space (XML 1.0 §2.3).
pub const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Length of the prefix of bytes that are whole characters, and have no meaning of their own in text, in CDATA sections
/// and in values.
pub fn plain_length(bytes: &[u8]) -> usize {
    let is_plain = |byte: &u8| PLAIN[usize::from(*byte)];
    // Eight at once: nearly all bytes of a stream pass here.
    let are_plain = |eight: &&[u8]| match eight {
        [a, b, c, d, e, f, g, h] => {
            let first = is_plain(a) & is_plain(b) & is_plain(c) & is_plain(d);
            first & is_plain(e) & is_plain(f) & is_plain(g) & is_plain(h)
        }
        _ => false,
    };
    let plain = 8 * bytes.chunks_exact(8).take_while(are_plain).count();
    let rest = bytes[plain..].iter();
    plain + rest.take_while(|byte| is_plain(byte)).count()
}

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'<' | b'>' | b'&' | b']' | b'\'' | b'"');
        byte += 1;
    }
    plain
};

/// Whether a name may begin with this byte. All non-ASCII bytes are accepted: editions of XML differ in which characters
/// they allow, and where a tag ends does not depend on it.
pub const fn begins_name(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'_' | b':' | 0x80..)
}

pub fn continues_name(byte: u8) -> bool {
    CONTINUES_NAME[usize::from(byte)]
}

const CONTINUES_NAME: [bool; 256] = {
    let mut continues = [false; 256];
    let mut byte = 0;
    while byte < continues.len() {
        let other = matches!(byte as u8, b'0'..=b'9' | b'-' | b'.');
        continues[byte] = other || begins_name(byte as u8);
        byte += 1;
    }
    continues
};

/// An incomplete reference: the text between `&` and `;`, without redundant zeros.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// Large enough for the longest valid reference, such as `#x10FFFF`.
    text: [u8; 8],
    length: usize,
}

impl Reference {
    /// Advances by one byte; true when the reference is complete.
    pub fn next(&mut self, byte: u8) -> Result<bool, XmlError> {
        if byte == b';' {
            return self.check().map(|()| true);
        }
        if !continues_name(byte) && (byte != b'#' || self.length > 0) {
            return malformed("a malformed reference");
        }
        let redundant = matches!(&self.text[..self.length], b"#0" | b"#x0");
        if redundant && byte.is_ascii_hexdigit() {
            self.length -= 1;
        }
        let Some(place) = self.text.get_mut(self.length) else {
            return match self.text[0] {
                b'#' => malformed(FORBIDDEN_CHARACTER),
                _ => restricted(UNKNOWN_ENTITY),
            };
        };
        *place = byte;
        self.length += 1;
        Ok(false)
    }

    fn check(&self) -> Result<(), XmlError> {
        let text = std::str::from_utf8(&self.text[..self.length]).unwrap_or_default();
        let number = match text.strip_prefix('#') {
            Some(digits) => match digits.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => digits.parse(),
            },
            None if resolve_predefined_entity(text).is_some() => return Ok(()),
            None if text.is_empty() => return malformed("a malformed reference"),
            None => return restricted(UNKNOWN_ENTITY),
        };
        match number.map(char::from_u32) {
            Ok(Some(c)) if is_xml_char(c) => Ok(()),
            Ok(_) => malformed(FORBIDDEN_CHARACTER),
            Err(_) => malformed("a malformed reference"),
        }
    }
}

const UNKNOWN_ENTITY: &str = "an entity other than the five predefined ones";
const FORBIDDEN_CHARACTER: &str = "a character that XML forbids";

/// Checks byte by byte that text is UTF-8 of characters that XML allows (XML 1.0 §2.2).
#[derive(Clone, Debug, Default)]
pub struct Utf8 {
    /// The bytes of an incomplete character.
    bytes: [u8; 4],
    length: usize,
}

impl Utf8 {
    pub fn is_within_character(&self) -> bool {
        self.length > 0
    }

    pub fn next(&mut self, byte: u8) -> Result<(), XmlError> {
        if self.length == 0 && matches!(byte, b' '..=b'~') {
            return Ok(());
        }
        // Of four bytes, `from_utf8` never says that more are missing.
        self.bytes[self.length] = byte;
        self.length += 1;
        match std::str::from_utf8(&self.bytes[..self.length]) {
            Ok(text) if text.chars().all(is_xml_char) => self.length = 0,
            Ok(_) => return malformed(FORBIDDEN_CHARACTER),
            Err(error) if error.error_len().is_none() => {}
            Err(_) => return malformed("invalid UTF-8"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for length in 0..=25 {
            let plain = vec![b'a'; length];
            assert_eq!(plain_length(&plain), length);
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = plain.clone();
                    bytes[at] = byte;
                    let is_special = !matches!(byte, b' '..=b'~') || b"<>&]'\"".contains(&byte);
                    let expected = if is_special { at } else { length };
                    assert_eq!(plain_length(&bytes), expected, "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn names_are_of_letters_digits_and_few_other_characters() {
        for byte in 0..=u8::MAX {
            let begins = byte.is_ascii_alphabetic() || !byte.is_ascii() || b"_:".contains(&byte);
            let continues = begins || byte.is_ascii_digit() || b"-.".contains(&byte);
            assert_eq!(begins_name(byte), begins, "{byte}");
            assert_eq!(continues_name(byte), continues, "{byte}");
        }
    }
}
