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

use super::syntax::{
    Reference, Utf8, XmlError, begins_name, continues_name, is_space, malformed, plain_length,
    restricted,
};

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
#[derive(Clone, Debug, Default)]
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
    /// The current reference so far.
    reference: Reference,
    utf8: Utf8,
}

/// Copied for every byte of a tag, so it is small.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before the first byte; an XML declaration may only begin here.
    #[default]
    Start,
    /// After a `<` that was the first byte.
    FirstAngle,
    /// After `<?`. Whether the last byte was `?`.
    Declaration {
        question: bool,
    },
    /// Outside stanzas, before a `<`.
    Between,
    /// In a stanza, outside tags, after this many `]` (at most 2).
    Text {
        brackets: u8,
    },
    /// After `<`.
    Angle,
    /// After `<!` and this many bytes of [`CDATA`].
    Bang {
        matched: u8,
    },
    /// In a CDATA section, after this many `]` (at most 2).
    Cdata {
        brackets: u8,
    },
    StartTag(StartTag),
    EndTag(EndTag),
    /// After `&`, in text (`quote` is `None`) or in a value.
    Reference {
        quote: Option<u8>,
    },
}

#[derive(Clone, Copy, Debug)]
enum StartTag {
    /// In the name of the tag.
    Name,
    /// After white space.
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
}

#[derive(Clone, Copy, Debug)]
enum EndTag {
    /// After `</`.
    Slash,
    /// In the name.
    Name,
    /// After the name and white space.
    Blank,
}

/// The rest of `<![CDATA[`; nothing else may begin with `<!` in a stream.
const CDATA: &[u8] = b"[CDATA[";

/// The error when an end tag does not repeat the name of its start tag.
const UNMATCHED: &str = "an end tag without a matching start tag";

impl Scanner {
    pub fn new() -> Scanner {
        Scanner::default()
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
        while at < input.len() {
            at += self.unchanged(&input[at..]);
            let Some(&byte) = input.get(at) else {
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

    /// Length of a prefix that does not change the state: most of any text or value, and the name of an attribute.
    fn unchanged(&self, rest: &[u8]) -> usize {
        match self.state {
            _ if self.utf8.is_within_character() => 0,
            State::Text { brackets: 0 }
            | State::Cdata { brackets: 0 }
            | State::StartTag(StartTag::Value { .. }) => plain_length(rest),
            State::StartTag(StartTag::Attribute) => {
                let continues = |byte: &&u8| byte.is_ascii() && continues_name(**byte);
                rest.iter().take_while(continues).count()
            }
            _ => 0,
        }
    }

    fn step(&mut self, byte: u8) -> Result<Option<Boundary>, XmlError> {
        self.state = match self.state {
            State::Start if byte == b'<' => State::FirstAngle,
            State::Start | State::Between => match byte {
                b'<' => State::Angle,
                byte if is_space(byte) => State::Between,
                _ => return malformed("text outside a stanza"),
            },
            State::FirstAngle if byte == b'?' => State::Declaration { question: false },
            State::FirstAngle | State::Angle => self.begin_markup(byte)?,
            State::Declaration { question: true } if byte == b'>' => {
                self.state = State::Between;
                return Ok(Some(Boundary::Declaration));
            }
            State::Declaration { .. } => State::Declaration {
                question: byte == b'?',
            },
            State::Text { brackets } => match byte {
                b'<' => State::Angle,
                b'&' => self.begin_reference(None),
                b'>' if brackets == 2 => return malformed("]]> in text"),
                byte => State::Text {
                    brackets: count_brackets(brackets, byte),
                },
            },
            State::Bang { matched } => self.begin_cdata(matched, byte)?,
            State::Cdata { brackets: 2 } if byte == b'>' => State::Text { brackets: 0 },
            State::Cdata { brackets } => State::Cdata {
                brackets: count_brackets(brackets, byte),
            },
            State::StartTag(tag) => return self.start_tag(tag, byte),
            State::EndTag(tag) => return self.end_tag(tag, byte),
            State::Reference { quote } => match (self.reference.next(byte)?, quote) {
                (false, _) => State::Reference { quote },
                (true, None) => State::Text { brackets: 0 },
                (true, Some(quote)) => State::StartTag(StartTag::Value { quote }),
            },
        };
        Ok(None)
    }

    /// The byte after a `<`.
    fn begin_markup(&mut self, byte: u8) -> Result<State, XmlError> {
        match byte {
            b'/' if self.depth > 0 => Ok(State::EndTag(EndTag::Slash)),
            b'/' => malformed(UNMATCHED),
            b'!' => Ok(State::Bang { matched: 0 }),
            b'?' => restricted("a processing instruction"),
            byte if begins_name(byte) => {
                if self.depth == 1 {
                    self.levels = 0;
                }
                self.name = hash(HASH_START, byte);
                Ok(State::StartTag(StartTag::Name))
            }
            _ => malformed("a tag without a name"),
        }
    }

    /// The `&` of a reference, in text or in a value with this quote.
    fn begin_reference(&mut self, quote: Option<u8>) -> State {
        self.reference = Reference::default();
        State::Reference { quote }
    }

    /// A byte after `<!`, of which `matched` belong to [`CDATA`].
    fn begin_cdata(&self, matched: u8, byte: u8) -> Result<State, XmlError> {
        let rest = &CDATA[usize::from(matched)..];
        if rest.first() != Some(&byte) {
            return restricted(match (matched, byte) {
                (0, b'-') => "a comment",
                _ => "a document type declaration",
            });
        }
        match rest.len() == 1 {
            false => Ok(State::Bang {
                matched: matched + 1,
            }),
            true if self.depth < 2 => malformed("text outside a stanza"),
            true => Ok(State::Cdata { brackets: 0 }),
        }
    }

    fn start_tag(&mut self, tag: StartTag, byte: u8) -> Result<Option<Boundary>, XmlError> {
        let tag = match tag {
            StartTag::Name if continues_name(byte) => {
                self.name = hash(self.name, byte);
                StartTag::Name
            }
            StartTag::Blank if begins_name(byte) => StartTag::Attribute,
            StartTag::Name | StartTag::Blank | StartTag::AfterValue => match byte {
                b'>' => return Ok(self.opened()),
                b'/' => StartTag::Slash,
                byte if is_space(byte) => StartTag::Blank,
                _ if matches!(tag, StartTag::AfterValue) => {
                    return malformed("no white space between two attributes");
                }
                _ => return malformed("a malformed name"),
            },
            StartTag::Attribute if continues_name(byte) => StartTag::Attribute,
            StartTag::Attribute | StartTag::AfterAttribute => match byte {
                b'=' => StartTag::BeforeValue,
                byte if is_space(byte) => StartTag::AfterAttribute,
                _ => return malformed("a malformed attribute"),
            },
            StartTag::BeforeValue => match byte {
                b'\'' | b'"' => StartTag::Value { quote: byte },
                byte if is_space(byte) => StartTag::BeforeValue,
                _ => return malformed("an attribute without quotes"),
            },
            StartTag::Value { quote } => match byte {
                b'<' => return malformed("a < inside a tag"),
                b'&' => {
                    self.state = self.begin_reference(Some(quote));
                    return Ok(None);
                }
                byte if byte == quote => StartTag::AfterValue,
                _ => StartTag::Value { quote },
            },
            StartTag::Slash if byte == b'>' => return self.empty(),
            StartTag::Slash => return malformed("a / inside a tag"),
        };
        self.state = State::StartTag(tag);
        Ok(None)
    }

    fn end_tag(&mut self, tag: EndTag, byte: u8) -> Result<Option<Boundary>, XmlError> {
        self.state = State::EndTag(match tag {
            EndTag::Slash if begins_name(byte) => {
                self.name = hash(HASH_START, byte);
                EndTag::Name
            }
            EndTag::Slash => return malformed("a tag without a name"),
            EndTag::Name if continues_name(byte) => {
                self.name = hash(self.name, byte);
                EndTag::Name
            }
            EndTag::Name | EndTag::Blank => match byte {
                b'>' => return self.closed(),
                byte if is_space(byte) => EndTag::Blank,
                _ => return malformed("an end tag with more than a name"),
            },
        });
        Ok(None)
    }

    /// A start tag is complete.
    ///
    /// End tags must repeat the names of their start tags, but storing the names of all open elements would need
    /// unbounded memory. Instead, `open_names` is an order-dependent hash to which a start tag adds its name and from
    /// which [`Scanner::closed`] removes it; if the value differs when the stanza ends, the names did not match. A
    /// deliberate collision passes and does no harm.
    fn opened(&mut self) -> Option<Boundary> {
        self.open_names = self.open_names.wrapping_add(self.name).wrapping_mul(MIX);
        self.depth += 1;
        self.levels = self.levels.max(self.depth - 1);
        if self.depth == 1 {
            self.outside_names = self.open_names;
        }
        self.leave_tag(Boundary::Header)
    }

    /// An empty tag is complete.
    fn empty(&mut self) -> Result<Option<Boundary>, XmlError> {
        if self.depth == 0 {
            return malformed("a stream that is an empty element");
        }
        self.levels = self.levels.max(self.depth);
        Ok(self.leave_tag(Boundary::Stanza))
    }

    /// An end tag is complete.
    fn closed(&mut self) -> Result<Option<Boundary>, XmlError> {
        self.open_names = self.open_names.wrapping_mul(UNMIX).wrapping_sub(self.name);
        self.depth -= 1;
        let (names, boundary) = match self.depth {
            0 => (0, Boundary::Closed),
            1 => (self.outside_names, Boundary::Stanza),
            _ => (self.open_names, Boundary::Stanza),
        };
        match self.open_names == names {
            true => Ok(self.leave_tag(boundary)),
            false => malformed(UNMATCHED),
        }
    }

    /// The state after a tag, and the boundary if the tag ends there.
    fn leave_tag(&mut self, boundary: Boundary) -> Option<Boundary> {
        let between = self.depth <= 1;
        self.state = match between {
            true => State::Between,
            false => State::Text { brackets: 0 },
        };
        between.then_some(boundary)
    }
}

/// The number of `]` after this byte, of which two matter.
fn count_brackets(before: u8, byte: u8) -> u8 {
    match byte {
        b']' => (before + 1).min(2),
        _ => 0,
    }
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

#[cfg(test)]
mod tests;
