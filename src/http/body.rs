//! Where the body of a request ends, and which of its bytes are data.
//!
//! [`Body`] is told the framing that the head announced, looks at input in pieces of any size, and
//! says of each next stretch whether it is data or framing. It holds no bytes: every byte that it was
//! shown and named is done with, so nothing must be kept for a second look. Whoever moves data past
//! it, from socket to file, asks for [`Body::direct`] and reports with [`Body::moved`].
//! What the data is for, and how much of it is welcome, is decided elsewhere.
//!
//! Chunked bodies are read strictly and with bounds, also when they are only skipped: a lenient reader
//! behind a strict one (or the reverse) is how requests are smuggled. Trailer fields are checked for
//! form and dropped unread, so that none of them, whatever its name, can change what the head said
//! (RFC 9110 §6.5.1).
//!
//! ```text
//!            ┌────────────────────────────────────────────────┐
//!            v                                                │
//!   Size ─ size, extensions, CRLF ─> Data ─ that many bytes ─ CRLF
//!     └─── size 0, CRLF ─> Trailers ─ empty line ─> Done
//! ```
//!
//! Sources: RFC 9112 §6 and §7.1.

use std::fmt;

use crate::http::head::Framing;
use crate::http::syntax::{is_control, is_token_byte};

/// Most digits of a chunk's size; sixteen hold any size of 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;
/// Most bytes of extensions on one chunk. Nobody is known to send any.
const MAX_CHUNK_EXTENSIONS: u32 = 1024;
/// Most bytes of extensions in a whole body, so that they are no way to send without end.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Most bytes of trailer fields.
const MAX_TRAILERS: u32 = 8 * 1024;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: u8 = 32;

/// What is wrong with a body. Its `Display` is one sentence. The connection ends after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFault(&'static str);

impl BodyFault {
    /// The HTTP status that answers it.
    pub fn status(&self) -> u16 {
        400
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BodyFault {}

/// What the next bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next so many bytes are data; at least 1, and all at hand.
    Data(usize),
    /// The next so many bytes are framing, to be passed over; at least 1, and all at hand.
    Skip(usize),
    /// All input is used up and the body goes on.
    More,
    /// The body has ended; what follows is the next request's.
    Done,
}

/// The body of one request, as far as it has come.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// Bytes of data so far.
    received: u64,
    /// Bytes of extensions so far, of this chunk and of all.
    extensions: (u32, u32),
    /// Bytes and fields of trailers so far.
    trailers: (u32, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Within a body of known length; this many bytes are left, at least 1.
    Fixed(u64),
    /// Within the framing of a chunked body.
    Chunked(Chunked),
    /// Within a chunk's data; this many bytes are left, at least 1.
    Data(u64),
    Done,
    Broken(BodyFault),
}

/// Where in the framing of a chunked body the next byte stands. States that carry a number have read a
/// chunk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunked {
    /// In the digits of a size; so far this many, with this value.
    Size(u8, u64),
    /// After blanks behind a size or an extension; only `;` may come.
    Blanks(u64),
    /// After `;`, before the extension's name.
    BeforeName(u64),
    /// In the extension's name.
    Name(u64),
    /// After blanks behind the name; only `=` or `;` may come.
    AfterName(u64),
    /// After `=`, before the value.
    BeforeValue(u64),
    /// In a value that is a token.
    Token(u64),
    /// In a quoted value.
    Quoted(u64),
    /// After a backslash in a quoted value.
    Escaped(u64),
    /// After the closing quotation mark.
    AfterQuoted(u64),
    /// After the CR of the size's line.
    SizeEnd(u64),
    /// After a chunk's data, before its CR.
    DataEnd,
    /// After that CR.
    DataEndLf,
    /// At the beginning of a trailer's line, or of the empty line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// After the CR of a trailer's line.
    TrailerEnd,
    /// After the CR of the empty line.
    LastLf,
}

impl Body {
    /// A body that begins with the next byte of input.
    pub fn new(framing: Framing) -> Body {
        Body {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Fixed(length),
                Framing::Chunked => State::Chunked(Chunked::Size(0, 0)),
            },
            received: 0,
            extensions: (0, 0),
            trailers: (0, 0),
        }
    }

    /// Says what the first bytes of `input` are, and takes them as seen: the caller passes over them
    /// and asks again with the rest. A fault is final.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyFault> {
        match self.state {
            State::Broken(fault) => Err(fault),
            State::Done => Ok(Step::Done),
            _ if input.is_empty() => Ok(Step::More),
            State::Fixed(left) | State::Data(left) => {
                // A slice's length fits 64 bits wherever Rust runs.
                let n = left.min(input.len() as u64);
                self.moved(n);
                Ok(Step::Data(n as usize))
            }
            State::Chunked(_) => {
                let mut used = 0;
                for &byte in input {
                    let State::Chunked(at) = self.state else {
                        break;
                    };
                    self.state = self.framing_byte(at, byte).unwrap_or_else(State::Broken);
                    used += 1;
                }
                match self.state {
                    State::Broken(fault) => Err(fault),
                    _ => Ok(Step::Skip(used)),
                }
            }
        }
    }

    /// How many bytes of data come next for certain, so that they may be moved without being seen.
    pub fn direct(&self) -> u64 {
        match self.state {
            State::Fixed(left) | State::Data(left) => left,
            State::Chunked(_) | State::Done | State::Broken(_) => 0,
        }
    }

    /// Takes note that `n` bytes of data were moved, at most [`Body::direct`].
    pub fn moved(&mut self, n: u64) {
        debug_assert!(n <= self.direct(), "more was moved than is there");
        let n = n.min(self.direct());
        self.received += n;
        self.state = match self.state {
            State::Fixed(left) if left == n => State::Done,
            State::Fixed(left) => State::Fixed(left - n),
            State::Data(left) if left == n => State::Chunked(Chunked::DataEnd),
            State::Data(left) => State::Data(left - n),
            other => other,
        };
    }

    /// Bytes of data so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of data that are still to come, where that is known.
    pub fn known_rest(&self) -> Option<u64> {
        match self.state {
            State::Fixed(left) => Some(left),
            State::Done => Some(0),
            State::Chunked(_) | State::Data(_) | State::Broken(_) => None,
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes one byte of framing. RFC 9112 §7.1 to §7.1.2, byte for byte.
    fn framing_byte(&mut self, at: Chunked, byte: u8) -> Result<State, BodyFault> {
        use Chunked::*;

        const SIZE: BodyFault = BodyFault("The size of a chunk is malformed.");
        const EXTENSION: BodyFault = BodyFault("The extension of a chunk is malformed.");
        const LINE: BodyFault =
            BodyFault("A line of the chunked body does not end with CR and LF.");
        const DATA: BodyFault = BodyFault("A chunk is longer than its size.");
        const TRAILER: BodyFault = BodyFault("A trailer of the chunked body is malformed.");

        match at {
            BeforeName(_) | Name(_) | AfterName(_) | BeforeValue(_) | Token(_) | Quoted(_)
            | Escaped(_) | AfterQuoted(_) | Blanks(_) => self.count_extension()?,
            TrailerStart | TrailerName | TrailerValue | TrailerEnd => self.count_trailer()?,
            Size(..) | SizeEnd(_) | DataEnd | DataEndLf | LastLf => {}
        }
        let next = match (at, byte) {
            (Size(digits, size), _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(SIZE);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                Size(digits + 1, size << 4 | u64::from(digit))
            }
            (Size(1.., size) | Name(size) | Token(size) | AfterQuoted(size), b'\r') => {
                SizeEnd(size)
            }
            (Size(1.., size) | Blanks(size), b';')
            | (Name(size) | AfterName(size) | Token(size) | AfterQuoted(size), b';') => {
                BeforeName(size)
            }
            (Size(1.., size) | Blanks(size) | Token(size) | AfterQuoted(size), b' ' | b'\t') => {
                Blanks(size)
            }
            (Size(..), _) => return Err(SIZE),

            (BeforeName(_) | AfterName(_) | BeforeValue(_), b' ' | b'\t') => at,
            (BeforeName(size) | Name(size), _) if is_token_byte(byte) => Name(size),
            (Name(size), b' ' | b'\t') => AfterName(size),
            (Name(size) | AfterName(size), b'=') => BeforeValue(size),
            (BeforeValue(size), b'"') => Quoted(size),
            (BeforeValue(size) | Token(size), _) if is_token_byte(byte) => Token(size),
            (Quoted(size), b'"') => AfterQuoted(size),
            (Quoted(size), b'\\') => Escaped(size),
            (Quoted(size) | Escaped(size), _) if !is_control(byte) => Quoted(size),
            (
                BeforeName(_) | Name(_) | AfterName(_) | BeforeValue(_) | Token(_) | Quoted(_)
                | Escaped(_) | AfterQuoted(_) | Blanks(_),
                _,
            ) => return Err(EXTENSION),

            (SizeEnd(0), b'\n') => TrailerStart,
            (SizeEnd(size), b'\n') => {
                if self.received.checked_add(size).is_none() {
                    return Err(SIZE);
                }
                self.extensions.0 = 0;
                return Ok(State::Data(size));
            }
            (DataEnd, b'\r') => DataEndLf,
            (DataEnd, _) => return Err(DATA),
            (DataEndLf, b'\n') => Size(0, 0),

            (TrailerStart, b'\r') => LastLf,
            (TrailerStart, _) if is_token_byte(byte) => {
                if self.trailers.1 == MAX_TRAILER_FIELDS {
                    return Err(BodyFault("The chunked body has too many trailers."));
                }
                self.trailers.1 += 1;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerValue, b'\r') => TrailerEnd,
            (TrailerValue, _) if !is_control(byte) => TrailerValue,
            (TrailerStart | TrailerName | TrailerValue, _) => return Err(TRAILER),
            (TrailerEnd, b'\n') => TrailerStart,
            (LastLf, b'\n') => return Ok(State::Done),

            (SizeEnd(_) | DataEndLf | TrailerEnd | LastLf, _) => return Err(LINE),
        };
        Ok(State::Chunked(next))
    }

    fn count_extension(&mut self) -> Result<(), BodyFault> {
        self.extensions.0 += 1;
        self.extensions.1 += 1;
        if self.extensions.0 > MAX_CHUNK_EXTENSIONS || self.extensions.1 > MAX_EXTENSIONS {
            return Err(BodyFault("The extensions of a chunk are too long."));
        }
        Ok(())
    }

    fn count_trailer(&mut self) -> Result<(), BodyFault> {
        self.trailers.0 += 1;
        if self.trailers.0 > MAX_TRAILERS {
            return Err(BodyFault("The trailers of the chunked body are too long."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
