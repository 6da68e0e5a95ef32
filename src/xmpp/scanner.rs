//! Where the stanzas of an XMPP stream end, and whether its bytes may go on being read as one (RFC 6120 §4, §11).
//!
//! ```text
//!   <?xml …?> ─► Declaration    <stream:stream …> ─► Header    <iq …>…</iq> ─► Stanza    </stream:stream> ─► Closed
//! ```
//!
//! The scanner keeps no byte that it has seen and takes the same memory for a stanza of any size, depth, number of
//! attributes or namespaces, so whatever a user sends can be skipped. It refuses what no server may send, because the
//! start of the next stanza is unknown after it: broken tags, references and UTF-8, characters that XML does not have,
//! text outside of stanzas, and what XMPP forbids (RFC 6120 §11.1). It does not interpret names and namespaces;
//! [`super::xml`] does, in stanzas that are small enough.

use std::fmt;

use super::element::is_xml_char;

/// Why a stream cannot be read further; each says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not well-formed XML, or none of the stream's business.
    Malformed(&'static str),
    /// XML that XMPP forbids (RFC 6120 §11.1).
    Restricted(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(what) | Fault::Restricted(what) => f.write_str(what),
        }
    }
}

/// What ends with the last byte that was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The XML declaration.
    Declaration,
    /// The stream's opening tag.
    Header,
    /// A child of the stream, complete.
    Stanza,
    /// The stream's closing tag.
    Closed,
}

/// The state of the search.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    /// Elements that are open, the stream included.
    depth: u64,
    /// Levels of the stanza under way, or of the last one: 1 is a stanza without children.
    levels: u64,
    /// Identifies the names of all open elements, see [`Scanner::opened`].
    open_names: u64,
    /// What `open_names` is when only the stream is open.
    outside_names: u64,
    /// The hash of the tag's name so far.
    name: u64,
    utf8: Utf8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came yet: only here may an XML declaration begin.
    Start,
    /// After a `<` that was the very first byte.
    FirstAngle,
    /// After `<?`. Whether the last byte was `?`.
    Declaration { question: bool },
    /// Outside of stanzas, before a `<`.
    Between,
    /// Inside a stanza, outside of tags, after so many `]`, of which two are counted.
    Text { brackets: u8 },
    /// After `<`.
    Angle,
    /// After `<!` and so many bytes of [`CDATA`].
    Bang { matched: usize },
    /// In a CDATA section, after so many `]`, of which two are counted.
    Cdata { brackets: u8 },
    /// In the name of a start tag.
    Name,
    /// After a blank in a start tag.
    Blank,
    /// In the name of an attribute.
    Attribute,
    /// After the name of an attribute and a blank.
    AfterAttribute,
    /// After the `=`.
    BeforeValue,
    /// In a value that ends with this quote.
    Value { quote: u8 },
    /// After a value's quote.
    AfterValue,
    /// After the `/` of an empty tag.
    Slash,
    /// After `</`.
    EndSlash,
    /// In the name of an end tag.
    EndName,
    /// After the name of an end tag and a blank.
    EndBlank,
    /// After `&`, in text (`quote` 0) or in a value.
    Reference { quote: u8, reference: Reference },
}

/// A reference under way.
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

/// What follows `<!` in the one thing that may begin so.
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

    /// Whether the stream's opening tag was seen.
    pub fn has_header(&self) -> bool {
        self.depth > 0
    }

    /// Levels of the stanza under way, or of the one that just ended; 1 is a stanza without children.
    pub fn levels(&self) -> u64 {
        self.levels
    }

    /// Takes white space outside of stanzas, which keeps a link alive and is part of nothing (RFC 6120 §4.6.1). How many
    /// bytes it is.
    pub fn skip_blank(&mut self, input: &[u8]) -> usize {
        if !matches!(self.state, State::Start | State::Between) {
            return 0;
        }
        let blanks = input.iter().take_while(|byte| is_space(**byte)).count();
        if blanks > 0 {
            self.state = State::Between;
        }
        blanks
    }

    /// Scans up to the next boundary, or to the end of the input when there is none. How many bytes were taken, and what
    /// ended with the last of them. After a fault the scanner is of no use any more.
    pub fn scan(&mut self, input: &[u8]) -> Result<(usize, Option<Boundary>), Fault> {
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

    /// How many bytes at the front change nothing: most of every text and value.
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

    fn step(&mut self, byte: u8) -> Result<Option<Boundary>, Fault> {
        self.state = match self.state {
            State::Start | State::Between => match byte {
                b'<' if self.state == State::Start => State::FirstAngle,
                b'<' => State::Angle,
                byte if is_space(byte) => State::Between,
                _ => return Err(Fault::Malformed("text outside of a stanza")),
            },
            State::FirstAngle if byte == b'?' => State::Declaration { question: false },
            State::FirstAngle | State::Angle => match byte {
                b'/' if self.depth > 0 => State::EndSlash,
                b'/' => return Err(Fault::Malformed("an end tag without its start")),
                b'!' => State::Bang { matched: 0 },
                b'?' => return Err(Fault::Restricted("a processing instruction")),
                byte if begins_name(byte) => {
                    if self.depth == 1 {
                        self.levels = 0;
                    }
                    self.name = hash(HASH_START, byte);
                    State::Name
                }
                _ => return Err(Fault::Malformed("a tag without a name")),
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
                b'>' if brackets == 2 => return Err(Fault::Malformed("]]> in text")),
                b']' => State::Text {
                    brackets: (brackets + 1).min(2),
                },
                _ => State::Text { brackets: 0 },
            },
            State::Bang { matched } => match CDATA.get(matched) {
                Some(&expected) if expected == byte && matched + 1 == CDATA.len() => {
                    if self.depth < 2 {
                        return Err(Fault::Malformed("text outside of a stanza"));
                    }
                    State::Cdata { brackets: 0 }
                }
                Some(&expected) if expected == byte => State::Bang {
                    matched: matched + 1,
                },
                _ if matched == 0 && byte == b'-' => return Err(Fault::Restricted("a comment")),
                _ => return Err(Fault::Restricted("a declaration of a document type")),
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
                    return Err(Fault::Malformed("no blank between two attributes"));
                }
                _ => return Err(Fault::Malformed("a malformed name")),
            },
            State::Attribute if continues_name(byte) => State::Attribute,
            State::Attribute | State::AfterAttribute => match byte {
                b'=' => State::BeforeValue,
                byte if is_space(byte) => State::AfterAttribute,
                _ => return Err(Fault::Malformed("a malformed attribute")),
            },
            State::BeforeValue => match byte {
                b'\'' | b'"' => State::Value { quote: byte },
                byte if is_space(byte) => State::BeforeValue,
                _ => return Err(Fault::Malformed("an attribute without quotes")),
            },
            State::Value { quote } => match byte {
                b'<' => return Err(Fault::Malformed("a < inside a tag")),
                b'&' => State::reference(quote),
                byte if byte == quote => State::AfterValue,
                _ => State::Value { quote },
            },
            State::Slash if byte == b'>' => return self.empty(),
            State::Slash => return Err(Fault::Malformed("a / inside a tag")),

            State::EndSlash if begins_name(byte) => {
                self.name = hash(HASH_START, byte);
                State::EndName
            }
            State::EndSlash => return Err(Fault::Malformed("a tag without a name")),
            State::EndName if continues_name(byte) => {
                self.name = hash(self.name, byte);
                State::EndName
            }
            State::EndName | State::EndBlank => match byte {
                b'>' => return self.closed(),
                byte if is_space(byte) => State::EndBlank,
                _ => return Err(Fault::Malformed("an end tag with more than a name")),
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
    /// End tags must repeat the names of their start tags, and names of any number of open elements cannot be kept. So
    /// `open_names` takes them in, in an order that matters, and [`Scanner::closed`] takes them out again; what is left
    /// when the stanza ends says whether both were the same. A deliberate collision would pass, and do no harm.
    fn opened(&mut self) -> Result<Option<Boundary>, Fault> {
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
    fn empty(&mut self) -> Result<Option<Boundary>, Fault> {
        self.levels = self.levels.max(self.depth);
        match self.depth {
            0 => Err(Fault::Malformed("a stream that is one empty element")),
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
    fn closed(&mut self) -> Result<Option<Boundary>, Fault> {
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
            false => Err(Fault::Malformed("an end tag without its start")),
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
    /// One more byte; `None` when the reference is complete.
    fn next(self, byte: u8) -> Result<Option<Reference>, Fault> {
        const MALFORMED: Fault = Fault::Malformed("a malformed reference");
        Ok(Some(match self {
            Reference::Named { length: 0, .. } if byte == b'#' => Reference::Hash,
            Reference::Named { length: 0, .. } if byte == b';' => return Err(MALFORMED),
            Reference::Named { mut name, length } => {
                let at = usize::from(length);
                match byte {
                    b';' => match &name[..at] {
                        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => return Ok(None),
                        _ => return Err(Fault::Restricted("an entity beyond the five")),
                    },
                    byte if !continues_name(byte) => return Err(MALFORMED),
                    byte => match name.get_mut(at) {
                        Some(place) => *place = byte,
                        None => return Err(Fault::Restricted("an entity beyond the five")),
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

/// Checks UTF-8 byte by byte (RFC 3629 §4), and that XML has the character (XML 1.0 §2.2).
#[derive(Clone, Debug)]
struct Utf8 {
    /// Bytes that the character under way still needs.
    missing: u8,
    /// Between which bytes, both included, the next of them must be.
    range: (u8, u8),
    /// The character under way begins with `EF`: U+FFFE and U+FFFF do.
    begins_with_ef: bool,
}

const NO_CHARACTER: Fault = Fault::Malformed("a character that XML forbids");
/// Bytes that continue a character.
const CONTINUES: (u8, u8) = (0x80, 0xBF);

impl Utf8 {
    fn is_within_character(&self) -> bool {
        self.missing > 0
    }

    fn next(&mut self, byte: u8) -> Result<(), Fault> {
        const INVALID: Fault = Fault::Malformed("invalid UTF-8");
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

/// White space as XML has it (XML 1.0 §2.3).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a name may begin with this byte. All bytes of characters beyond ASCII pass: which of them XML allows has
/// changed between its editions, and ends of tags do not depend on it.
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

/// Any odd number without a pattern, and the number that undoes the multiplication with it.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
const UNMIX: u64 = {
    // Newton's method: each round doubles the number of low bits that are right.
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

/// Where a byte must be looked at by itself: markup, what may be no character, and the first byte of a longer one.
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
