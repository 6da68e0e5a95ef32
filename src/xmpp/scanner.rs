//! Finds where stanzas of an XMPP stream end, and checks that the stream remains well-formed (RFC 6120 §4, §11).
//!
//! ```text
//!   <?xml …?> ─► Declaration    <stream:stream …> ─► Header    <iq …>…</iq> ─► Stanza    </stream:stream> ─► Closed
//! ```
//!
//! The scanner buffers nothing and uses constant memory for a stanza of any size, depth, or number of attributes or
//! namespaces, so any stanza can be skipped. It rejects errors after which the start of the next stanza would be
//! unknown: malformed tags, references and UTF-8, characters that XML forbids, text outside stanzas, and XML that XMPP
//! forbids (RFC 6120 §11.1). It does not interpret names and namespaces; [`super::xml`] does, in stanzas that are small
//! enough.

use std::fmt;

use super::element::is_xml_char;

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

/// The part of the stream that ends with the last byte scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The XML declaration.
    Declaration,
    /// The stream's opening tag.
    Header,
    /// A complete child of the stream.
    Stanza,
    /// The stream's closing tag.
    Closed,
}

/// The scanner's state.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    /// Number of open elements, including the stream.
    depth: u64,
    /// Depth of the current stanza, or of the last one: 1 is a stanza without children.
    levels: u64,
    /// A hash of the names of all open elements; see [`Scanner::opened`].
    open_names: u64,
    /// The value of `open_names` when only the stream is open.
    outside_names: u64,
    /// The hash of the current tag's name so far.
    name: u64,
    utf8: Utf8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first byte; an XML declaration may only begin here.
    Start,
    /// After a `<` that was the first byte.
    FirstAngle,
    /// After `<?`. Whether the last byte was `?`.
    Declaration { question: bool },
    /// Outside stanzas, before a `<`.
    Between,
    /// In a stanza, outside tags, after this many `]` (at most 2).
    Text { brackets: u8 },
    /// After `<`.
    Angle,
    /// After `<!` and this many bytes of [`CDATA`].
    Bang { matched: usize },
    /// In a CDATA section, after this many `]` (at most 2).
    Cdata { brackets: u8 },
    /// In the name of a start tag.
    Name,
    /// After white space in a start tag.
    Blank,
    /// In the name of an attribute.
    Attribute,
    /// After the name of an attribute and white space.
    AfterAttribute,
    /// After the `=`.
    BeforeValue,
    /// In a value that ends with this quote.
    Value { quote: u8 },
    /// After the closing quote of a value.
    AfterValue,
    /// After the `/` of an empty tag.
    Slash,
    /// After `</`.
    EndSlash,
    /// In the name of an end tag.
    EndName,
    /// After the name of an end tag and white space.
    EndBlank,
    /// After `&`, in text (`quote` 0) or in a value.
    Reference { quote: u8, reference: Reference },
}

/// An incomplete reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    /// The name so far.
    Named {
        name: [u8; 4],
        length: u8,
    },
    /// After `&#`.
    Hash,
    Decimal {
        value: u32,
        empty: bool,
    },
    Hexadecimal {
        value: u32,
        empty: bool,
    },
}

/// The rest of `<![CDATA[`; nothing else may begin with `<!` in a stream.
const CDATA: &[u8] = b"[CDATA[";

impl Scanner {
    pub fn new() -> Scanner {
        Scanner {
            state: State::Start,
            depth: 0,
            levels: 0,
            open_names: 0,
            outside_names: 0,
            name: 0,
            utf8: Utf8::default(),
        }
    }

    /// Whether the stream's opening tag is complete.
    pub fn has_header(&self) -> bool {
        self.depth > 0
    }

    /// Depth of the current stanza, or of the one that just ended; 1 is a stanza without children.
    pub fn levels(&self) -> u64 {
        self.levels
    }

    /// Consumes white space between stanzas, which serves as keepalive (RFC 6120 §4.6.1), and returns its length.
    pub fn skip_white_space(&mut self, input: &[u8]) -> usize {
        if !matches!(self.state, State::Start | State::Between) {
            return 0;
        }
        let length = input.iter().take_while(|byte| is_space(**byte)).count();
        if length > 0 {
            self.state = State::Between;
        }
        length
    }

    /// Scans up to the next boundary or the end of the input. Returns the number of bytes consumed, and the boundary that
    /// ends with the last of them. The scanner must not be used after an error.
    pub fn scan(&mut self, input: &[u8]) -> Result<(usize, Option<Boundary>), XmlError> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let plain = self.plain(rest);
            at += plain;
            let Some(&byte) = rest.get(plain) else {
                break;
            };
            at += 1;
            self.utf8.next(byte)?;
            if let Some(boundary) = self.step(byte)? {
                return Ok((at, Some(boundary)));
            }
        }
        Ok((at, None))
    }

    /// Length of the prefix that does not change the state: most of any text or value.
    fn plain(&self, rest: &[u8]) -> usize {
        let special = match self.state {
            State::Text { brackets: 0 } | State::Cdata { brackets: 0 } => IN_TEXT,
            State::Value { quote: b'\'' } => IN_SINGLE_QUOTES,
            State::Value { .. } => IN_DOUBLE_QUOTES,
            _ => return 0,
        };
        if self.utf8.is_within_character() {
            return 0;
        }
        rest.iter()
            .position(|byte| SPECIAL[usize::from(*byte)] & special != 0)
            .unwrap_or(rest.len())
    }

    fn step(&mut self, byte: u8) -> Result<Option<Boundary>, XmlError> {
        self.state = match self.state {
            State::Start | State::Between => match byte {
                b'<' if self.state == State::Start => State::FirstAngle,
                b'<' => State::Angle,
                byte if is_space(byte) => State::Between,
                _ => return Err(XmlError::Malformed("text outside a stanza")),
            },
            State::FirstAngle if byte == b'?' => State::Declaration { question: false },
            State::FirstAngle | State::Angle => match byte {
                b'/' if self.depth > 0 => State::EndSlash,
                b'/' => {
                    return Err(XmlError::Malformed(
                        "an end tag without a matching start tag",
                    ));
                }
                b'!' => State::Bang { matched: 0 },
                b'?' => return Err(XmlError::Restricted("a processing instruction")),
                byte if begins_name(byte) => {
                    if self.depth == 1 {
                        self.levels = 0;
                    }
                    self.name = hash(HASH_START, byte);
                    State::Name
                }
                _ => return Err(XmlError::Malformed("a tag without a name")),
            },
            State::Declaration { question: true } if byte == b'>' => {
                self.state = State::Between;
                return Ok(Some(Boundary::Declaration));
            }
            State::Declaration { .. } => State::Declaration {
                question: byte == b'?',
            },

            State::Text { brackets } => match byte {
                b'<' => State::Angle,
                b'&' => State::reference(0),
                b'>' if brackets == 2 => return Err(XmlError::Malformed("]]> in text")),
                b']' => State::Text {
                    brackets: (brackets + 1).min(2),
                },
                _ => State::Text { brackets: 0 },
            },
            State::Bang { matched } => match CDATA.get(matched) {
                Some(&expected) if expected == byte && matched + 1 == CDATA.len() => {
                    if self.depth < 2 {
                        return Err(XmlError::Malformed("text outside a stanza"));
                    }
                    State::Cdata { brackets: 0 }
                }
                Some(&expected) if expected == byte => State::Bang {
                    matched: matched + 1,
                },
                _ if matched == 0 && byte == b'-' => return Err(XmlError::Restricted("a comment")),
                _ => return Err(XmlError::Restricted("a document type declaration")),
            },
            State::Cdata { brackets: 2 } if byte == b'>' => State::Text { brackets: 0 },
            State::Cdata { brackets } if byte == b']' => State::Cdata {
                brackets: (brackets + 1).min(2),
            },
            State::Cdata { .. } => State::Cdata { brackets: 0 },

            State::Name if continues_name(byte) => {
                self.name = hash(self.name, byte);
                State::Name
            }
            State::Name | State::Blank | State::AfterValue => match byte {
                b'>' => return self.opened(),
                b'/' => State::Slash,
                byte if is_space(byte) => State::Blank,
                byte if begins_name(byte) && self.state == State::Blank => State::Attribute,
                _ if self.state == State::AfterValue => {
                    return Err(XmlError::Malformed("no white space between two attributes"));
                }
                _ => return Err(XmlError::Malformed("a malformed name")),
            },
            State::Attribute if continues_name(byte) => State::Attribute,
            State::Attribute | State::AfterAttribute => match byte {
                b'=' => State::BeforeValue,
                byte if is_space(byte) => State::AfterAttribute,
                _ => return Err(XmlError::Malformed("a malformed attribute")),
            },
            State::BeforeValue => match byte {
                b'\'' | b'"' => State::Value { quote: byte },
                byte if is_space(byte) => State::BeforeValue,
                _ => return Err(XmlError::Malformed("an attribute without quotes")),
            },
            State::Value { quote } => match byte {
                b'<' => return Err(XmlError::Malformed("a < inside a tag")),
                b'&' => State::reference(quote),
                byte if byte == quote => State::AfterValue,
                _ => State::Value { quote },
            },
            State::Slash if byte == b'>' => return self.empty(),
            State::Slash => return Err(XmlError::Malformed("a / inside a tag")),

            State::EndSlash if begins_name(byte) => {
                self.name = hash(HASH_START, byte);
                State::EndName
            }
            State::EndSlash => return Err(XmlError::Malformed("a tag without a name")),
            State::EndName if continues_name(byte) => {
                self.name = hash(self.name, byte);
                State::EndName
            }
            State::EndName | State::EndBlank => match byte {
                b'>' => return self.closed(),
                byte if is_space(byte) => State::EndBlank,
                _ => return Err(XmlError::Malformed("an end tag with more than a name")),
            },

            State::Reference { quote, reference } => match reference.next(byte)? {
                Some(reference) => State::Reference { quote, reference },
                None if quote == 0 => State::Text { brackets: 0 },
                None => State::Value { quote },
            },
        };
        Ok(None)
    }

    /// A start tag is complete.
    ///
    /// End tags must repeat the names of their start tags, but storing the names of all open elements would need
    /// unbounded memory. Instead, `open_names` is an order-dependent hash to which a start tag adds its name and from
    /// which [`Scanner::closed`] removes it; if the value differs when the stanza ends, the names did not match. A
    /// deliberate collision passes and does no harm.
    fn opened(&mut self) -> Result<Option<Boundary>, XmlError> {
        self.open_names = self.open_names.wrapping_add(self.name).wrapping_mul(MIX);
        self.depth += 1;
        self.levels = self.levels.max(self.depth - 1);
        if self.depth == 1 {
            self.outside_names = self.open_names;
            self.state = State::Between;
            return Ok(Some(Boundary::Header));
        }
        self.state = State::Text { brackets: 0 };
        Ok(None)
    }

    /// An empty tag is complete.
    fn empty(&mut self) -> Result<Option<Boundary>, XmlError> {
        self.levels = self.levels.max(self.depth);
        match self.depth {
            0 => Err(XmlError::Malformed("a stream that is an empty element")),
            1 => {
                self.state = State::Between;
                Ok(Some(Boundary::Stanza))
            }
            _ => {
                self.state = State::Text { brackets: 0 };
                Ok(None)
            }
        }
    }

    /// An end tag is complete.
    fn closed(&mut self) -> Result<Option<Boundary>, XmlError> {
        self.open_names = self.open_names.wrapping_mul(UNMIX).wrapping_sub(self.name);
        self.depth -= 1;
        let (names, boundary) = match self.depth {
            0 => (0, Boundary::Closed),
            1 => (self.outside_names, Boundary::Stanza),
            _ => {
                self.state = State::Text { brackets: 0 };
                return Ok(None);
            }
        };
        self.state = State::Between;
        match self.open_names == names {
            true => Ok(Some(boundary)),
            false => Err(XmlError::Malformed(
                "an end tag without a matching start tag",
            )),
        }
    }
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}

impl State {
    fn reference(quote: u8) -> State {
        State::Reference {
            quote,
            reference: Reference::Named {
                name: [0; 4],
                length: 0,
            },
        }
    }
}

impl Reference {
    /// Advances by one byte; `None` when the reference is complete.
    fn next(self, byte: u8) -> Result<Option<Reference>, XmlError> {
        const MALFORMED: XmlError = XmlError::Malformed("a malformed reference");
        Ok(Some(match self {
            Reference::Named { length: 0, .. } if byte == b'#' => Reference::Hash,
            Reference::Named { length: 0, .. } if byte == b';' => return Err(MALFORMED),
            Reference::Named { mut name, length } => {
                let at = usize::from(length);
                match byte {
                    b';' => match &name[..at] {
                        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => return Ok(None),
                        _ => {
                            return Err(XmlError::Restricted(
                                "an entity other than the five predefined ones",
                            ));
                        }
                    },
                    byte if !continues_name(byte) => return Err(MALFORMED),
                    byte => match name.get_mut(at) {
                        Some(place) => *place = byte,
                        None => {
                            return Err(XmlError::Restricted(
                                "an entity other than the five predefined ones",
                            ));
                        }
                    },
                }
                Reference::Named {
                    name,
                    length: length + 1,
                }
            }
            Reference::Hash if byte == b'x' => Reference::Hexadecimal {
                value: 0,
                empty: true,
            },
            Reference::Hash | Reference::Decimal { empty: false, .. } if byte.is_ascii_digit() => {
                let value = match self {
                    Reference::Decimal { value, .. } => value,
                    _ => 0,
                };
                Reference::Decimal {
                    value: value
                        .saturating_mul(10)
                        .saturating_add(u32::from(byte - b'0')),
                    empty: false,
                }
            }
            Reference::Hexadecimal { value, .. } if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Reference::Hexadecimal {
                    value: value.saturating_mul(16).saturating_add(digit),
                    empty: false,
                }
            }
            Reference::Decimal {
                value,
                empty: false,
            }
            | Reference::Hexadecimal {
                value,
                empty: false,
            } if byte == b';' => match char::from_u32(value).is_some_and(is_xml_char) {
                true => return Ok(None),
                false => return Err(NO_CHARACTER),
            },
            _ => return Err(MALFORMED),
        }))
    }
}

/// Checks byte by byte that text is UTF-8 (RFC 3629 §4) of characters that XML allows (XML 1.0 §2.2).
#[derive(Clone, Debug)]
struct Utf8 {
    /// Bytes missing from the current character.
    missing: u8,
    /// Inclusive range of the next byte.
    range: (u8, u8),
    /// The current character begins with `EF`, as U+FFFE and U+FFFF do.
    begins_with_ef: bool,
}

const NO_CHARACTER: XmlError = XmlError::Malformed("a character that XML forbids");
/// Range of continuation bytes.
const CONTINUES: (u8, u8) = (0x80, 0xBF);

impl Utf8 {
    fn is_within_character(&self) -> bool {
        self.missing > 0
    }

    fn next(&mut self, byte: u8) -> Result<(), XmlError> {
        const INVALID: XmlError = XmlError::Malformed("invalid UTF-8");
        if self.missing > 0 {
            let (first, last) = self.range;
            if !(first..=last).contains(&byte) {
                let forbidden = self.begins_with_ef && (0xBE..=0xBF).contains(&byte);
                return Err(if forbidden { NO_CHARACTER } else { INVALID });
            }
            self.missing -= 1;
            self.range = match byte {
                0xBF if self.begins_with_ef && self.missing == 1 => (0x80, 0xBD),
                _ => CONTINUES,
            };
            return Ok(());
        }
        let (missing, range) = match byte {
            b' '..=0x7F | b'\t' | b'\n' | b'\r' => return Ok(()),
            0..=0x1F => return Err(NO_CHARACTER),
            0xC2..=0xDF => (1, CONTINUES),
            0xE0 => (2, (0xA0, 0xBF)),
            0xED => (2, (0x80, 0x9F)),
            0xE1..=0xEF => (2, CONTINUES),
            0xF0 => (3, (0x90, 0xBF)),
            0xF1..=0xF3 => (3, CONTINUES),
            0xF4 => (3, (0x80, 0x8F)),
            _ => return Err(INVALID),
        };
        self.begins_with_ef = byte == 0xEF;
        (self.missing, self.range) = (missing, range);
        Ok(())
    }
}

impl Default for Utf8 {
    fn default() -> Utf8 {
        Utf8 {
            missing: 0,
            range: CONTINUES,
            begins_with_ef: false,
        }
    }
}

/// White space (XML 1.0 §2.3).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a name may begin with this byte. All non-ASCII bytes are accepted: editions of XML differ in which characters
/// they allow, and where a tag ends does not depend on it.
fn begins_name(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'_' | b':' | 0x80..)
}

fn continues_name(byte: u8) -> bool {
    begins_name(byte) || matches!(byte, b'0'..=b'9' | b'-' | b'.')
}

/// FNV-1a with 64 bits.
const HASH_START: u64 = 0xCBF2_9CE4_8422_2325;

fn hash(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
}

/// An arbitrary odd multiplier, and its inverse modulo 2^64.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
const UNMIX: u64 = {
    // Newton's method: each round doubles the number of correct low bits.
    let mut inverse = MIX;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(MIX.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};

const IN_TEXT: u8 = 1;
const IN_SINGLE_QUOTES: u8 = 2;
const IN_DOUBLE_QUOTES: u8 = 4;

/// Where a byte changes the state: markup, bytes that may be forbidden, and the first bytes of multi-byte characters.
const SPECIAL: [u8; 256] = {
    let mut special = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        special[byte] = match byte as u8 {
            b'\t' | b'\n' | b'\r' => 0,
            0..b' ' | 0x80.. | b'<' | b'&' => IN_TEXT | IN_SINGLE_QUOTES | IN_DOUBLE_QUOTES,
            b']' => IN_TEXT,
            b'\'' => IN_SINGLE_QUOTES,
            b'"' => IN_DOUBLE_QUOTES,
            _ => 0,
        };
        byte += 1;
    }
    special
};

#[cfg(test)]
mod tests;
