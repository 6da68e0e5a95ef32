//! Where the body of a request ends, and which of its bytes are data.
//!
//! [`Body`] is created with the framing that the head announced. It takes input in pieces of any size and classifies
//! each run of bytes as data or framing. It keeps no bytes, and no byte has to be passed to it twice. Callers that move
//! data directly from socket to file ask for [`Body::direct`] and report with [`Body::moved`]. The use of the data and
//! the limit on its size are decided elsewhere.
//!
//! Chunked bodies are parsed strictly and within limits, even when they are only skipped: request smuggling needs one
//! lenient and one strict parser on the same connection. Trailer fields are checked for syntax and discarded, so that
//! none of them can override the head (RFC 9110 §6.5.1).
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

/// Most digits in a chunk size; sixteen hold any size of 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;
/// Most bytes of extensions on one chunk. No client is known to send any.
const MAX_CHUNK_EXTENSIONS: u32 = 1024;
/// Most bytes of extensions in a whole body, so that a client cannot send them endlessly.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Most bytes of trailer fields.
const MAX_TRAILERS: u32 = 8 * 1024;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: u8 = 32;

/// Why a body is malformed; the status is always 400. Its `Display` is one sentence. The connection ends after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFault(&'static str);

impl BodyFault {
    const SIZE: BodyFault = BodyFault("A chunk size is malformed.");
    const EXTENSION: BodyFault = BodyFault("A chunk extension is malformed.");
    const EXTENSIONS: BodyFault = BodyFault("The chunk extensions are too long.");
    const LINE: BodyFault = BodyFault("A line of the chunked body does not end with CRLF.");
    const DATA: BodyFault = BodyFault("A chunk is longer than its size.");
    const TRAILER: BodyFault = BodyFault("A trailer field is malformed.");
    const TRAILERS: BodyFault = BodyFault("The trailer fields are too long.");
    const TRAILER_COUNT: BodyFault = BodyFault("There are too many trailer fields.");
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
    /// The next n bytes are data; at least 1, and no more than the input has.
    Data(usize),
    /// The next n bytes are framing; at least 1, and no more than the input has.
    Skip(usize),
    /// All input is used up and the body continues.
    More,
    /// The body is complete; the rest of the input belongs to the next request.
    Done,
}

/// The body of one request, as far as it has been received.
#[derive(Clone, Debug)]
pub struct Body {
    state: BodyState,
    /// Bytes of data so far.
    received: u64,
    /// Bytes of extensions of the current chunk.
    chunk_extension_bytes: u32,
    /// Bytes of extensions of all chunks.
    extension_bytes: u32,
    trailer_bytes: u32,
    trailer_fields: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// In a body of known length; this many bytes remain, at least 1.
    Fixed(u64),
    /// In the framing of a chunked body.
    Framing(ChunkState),
    /// In the data of a chunk; this many bytes remain, at least 1.
    Data(u64),
    Done,
    Failed(BodyFault),
}

/// The position in the framing of a chunked body. The number of most variants is the size of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// In the digits of a size: how many so far, and their value.
    Size(u8, u64),
    /// After whitespace that follows a size or an extension; only `;` is valid.
    BeforeSemicolon(u64),
    /// After `;`, before the name of the extension.
    BeforeName(u64),
    /// In the name of the extension.
    Name(u64),
    /// After whitespace that follows the name; only `=` or `;` is valid.
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
    /// After the CR that ends the line with the size.
    SizeLf(u64),
    /// After the data of a chunk, before the CR.
    DataCr,
    /// After that CR.
    DataLf,
    /// At the start of a trailer field or of the empty line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// After the CR that ends a trailer field.
    TrailerLf,
    /// After the CR of the empty line.
    LastLf,
}

impl Body {
    /// A body that starts with the next byte of input.
    pub fn new(framing: Framing) -> Body {
        Body {
            state: match framing {
                Framing::None | Framing::Length(0) => BodyState::Done,
                Framing::Length(length) => BodyState::Fixed(length),
                Framing::Chunked => BodyState::Framing(ChunkState::Size(0, 0)),
            },
            received: 0,
            chunk_extension_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
        }
    }

    /// Classifies the first bytes of `input` and counts them as received: the caller moves past them and calls again
    /// with the rest. An error is final.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyFault> {
        match self.state {
            BodyState::Failed(error) => Err(error),
            BodyState::Done => Ok(Step::Done),
            _ if input.is_empty() => Ok(Step::More),
            BodyState::Fixed(left) | BodyState::Data(left) => {
                // The length of a slice fits 64 bits on all platforms.
                let n = left.min(input.len() as u64);
                self.moved(n);
                Ok(Step::Data(n as usize))
            }
            BodyState::Framing(_) => {
                let mut used = 0;
                for &byte in input {
                    let BodyState::Framing(state) = self.state else {
                        break;
                    };
                    self.state = self
                        .framing_byte(state, byte)
                        .unwrap_or_else(BodyState::Failed);
                    used += 1;
                }
                match self.state {
                    BodyState::Failed(error) => Err(error),
                    _ => Ok(Step::Skip(used)),
                }
            }
        }
    }

    /// Moves past the body in `input` without regard to its data: how many bytes belong to it, and whether it is
    /// complete.
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool), BodyFault> {
        let mut used = 0;
        loop {
            match self.step(&input[used..])? {
                Step::Skip(n) | Step::Data(n) => used += n,
                Step::More => return Ok((used, false)),
                Step::Done => return Ok((used, true)),
            }
        }
    }

    /// Bytes of data that are known to follow, so that they may be moved without a call of `step`.
    pub fn direct(&self) -> u64 {
        match self.state {
            BodyState::Fixed(left) | BodyState::Data(left) => left,
            BodyState::Framing(_) | BodyState::Done | BodyState::Failed(_) => 0,
        }
    }

    /// Records that `n` bytes of data were moved, at most [`Body::direct`].
    pub fn moved(&mut self, n: u64) {
        debug_assert!(
            n <= self.direct(),
            "more bytes were moved than are known to follow"
        );
        let n = n.min(self.direct());
        self.received += n;
        self.state = match self.state {
            BodyState::Fixed(left) if left == n => BodyState::Done,
            BodyState::Fixed(left) => BodyState::Fixed(left - n),
            BodyState::Data(left) if left == n => BodyState::Framing(ChunkState::DataCr),
            BodyState::Data(left) => BodyState::Data(left - n),
            other => other,
        };
    }

    /// Bytes of data so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of data that have not been received yet, where their number is known; 0 once the body is complete.
    pub fn known_rest(&self) -> Option<u64> {
        match self.state {
            BodyState::Fixed(left) => Some(left),
            BodyState::Done => Some(0),
            BodyState::Framing(_) | BodyState::Data(_) | BodyState::Failed(_) => None,
        }
    }

    /// Takes one byte of framing (RFC 9112 §7.1 to §7.1.2).
    fn framing_byte(&mut self, state: ChunkState, byte: u8) -> Result<BodyState, BodyFault> {
        use ChunkState::*;

        match state {
            BeforeName(_) | Name(_) | AfterName(_) | BeforeValue(_) | Token(_) | Quoted(_)
            | Escaped(_) | AfterQuoted(_) | BeforeSemicolon(_) => self.count_extension()?,
            TrailerStart | TrailerName | TrailerValue | TrailerLf => self.count_trailer()?,
            Size(..) | SizeLf(_) | DataCr | DataLf | LastLf => {}
        }
        let next = match (state, byte) {
            (Size(digits, size), _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyFault::SIZE);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                Size(digits + 1, size << 4 | u64::from(digit))
            }
            (Size(1.., size) | Name(size) | Token(size) | AfterQuoted(size), b'\r') => SizeLf(size),
            (Size(1.., size) | BeforeSemicolon(size), b';')
            | (Name(size) | AfterName(size) | Token(size) | AfterQuoted(size), b';') => {
                BeforeName(size)
            }
            (
                Size(1.., size) | BeforeSemicolon(size) | Token(size) | AfterQuoted(size),
                b' ' | b'\t',
            ) => BeforeSemicolon(size),
            (Size(..), _) => return Err(BodyFault::SIZE),

            (BeforeName(_) | AfterName(_) | BeforeValue(_), b' ' | b'\t') => state,
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
                | Escaped(_) | AfterQuoted(_) | BeforeSemicolon(_),
                _,
            ) => return Err(BodyFault::EXTENSION),

            (SizeLf(0), b'\n') => TrailerStart,
            (SizeLf(size), b'\n') => return self.start_chunk(size),
            (DataCr, b'\r') => DataLf,
            (DataCr, _) => return Err(BodyFault::DATA),
            (DataLf, b'\n') => Size(0, 0),

            (TrailerStart, b'\r') => LastLf,
            (TrailerStart, _) if is_token_byte(byte) => {
                self.count_trailer_field()?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if !is_control(byte) => TrailerValue,
            (TrailerStart | TrailerName | TrailerValue, _) => return Err(BodyFault::TRAILER),
            (TrailerLf, b'\n') => TrailerStart,
            (LastLf, b'\n') => return Ok(BodyState::Done),

            (SizeLf(_) | DataLf | TrailerLf | LastLf, _) => return Err(BodyFault::LINE),
        };
        Ok(BodyState::Framing(next))
    }

    fn start_chunk(&mut self, size: u64) -> Result<BodyState, BodyFault> {
        if self.received.checked_add(size).is_none() {
            return Err(BodyFault::SIZE);
        }
        self.chunk_extension_bytes = 0;
        Ok(BodyState::Data(size))
    }

    fn count_extension(&mut self) -> Result<(), BodyFault> {
        self.chunk_extension_bytes += 1;
        self.extension_bytes += 1;
        if self.chunk_extension_bytes > MAX_CHUNK_EXTENSIONS
            || self.extension_bytes > MAX_EXTENSIONS
        {
            return Err(BodyFault::EXTENSIONS);
        }
        Ok(())
    }

    fn count_trailer(&mut self) -> Result<(), BodyFault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILERS {
            return Err(BodyFault::TRAILERS);
        }
        Ok(())
    }

    fn count_trailer_field(&mut self) -> Result<(), BodyFault> {
        if self.trailer_fields == MAX_TRAILER_FIELDS {
            return Err(BodyFault::TRAILER_COUNT);
        }
        self.trailer_fields += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
