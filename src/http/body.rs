//! Where the body of a request ends, and which of its bytes are data.
//!
//! [`Body`] is created with the framing that the head announced. It takes input in pieces of any size and classifies
//! each run of bytes as data or framing. It keeps no bytes, and no byte has to be passed to it twice. Callers that move
//! data directly from socket to file ask for [`Body::data_ahead`] and report with [`Body::moved`]. The use of the data and
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
pub struct BodyError(&'static str);

impl BodyError {
    const SIZE: BodyError = BodyError("A chunk size is malformed.");
    const EXTENSION: BodyError = BodyError("A chunk extension is malformed.");
    const EXTENSIONS: BodyError = BodyError("The chunk extensions are too long.");
    const LINE: BodyError = BodyError("A line of the chunked body does not end with CRLF.");
    const DATA: BodyError = BodyError("A chunk is longer than its size.");
    const TRAILER: BodyError = BodyError("A trailer field is malformed.");
    const TRAILERS: BodyError = BodyError("The trailer fields are too long.");
    const TRAILER_COUNT: BodyError = BodyError("There are too many trailer fields.");
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BodyError {}

/// What the next bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
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
    /// The size of the next chunk, as far as its digits have been read.
    chunk_size: u64,
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
    Failed(BodyError),
}

/// The position in the framing of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// In the digits of a size: how many so far.
    Size(u8),
    /// After whitespace that follows a size or an extension; only `;` is valid.
    BeforeSemicolon,
    /// After `;`, before the name of the extension.
    BeforeName,
    /// In the name of the extension.
    Name,
    /// After whitespace that follows the name; only `=` or `;` is valid.
    AfterName,
    /// After `=`, before the value.
    BeforeValue,
    /// In a value that is a token.
    Token,
    /// In a quoted value.
    Quoted,
    /// After a backslash in a quoted value.
    Escaped,
    /// After the closing quotation mark.
    AfterQuoted,
    /// After the CR that ends the line with the size.
    SizeLf,
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
                Framing::Chunked => BodyState::Framing(ChunkState::Size(0)),
            },
            received: 0,
            chunk_size: 0,
            chunk_extension_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
        }
    }

    /// Classifies the first bytes of `input` and counts them as received: the caller moves past them and calls again
    /// with the rest. An error is final.
    pub fn step(&mut self, input: &[u8]) -> Result<BodyStep, BodyError> {
        match self.state {
            BodyState::Failed(error) => Err(error),
            BodyState::Done => Ok(BodyStep::Done),
            _ if input.is_empty() => Ok(BodyStep::More),
            BodyState::Fixed(left) | BodyState::Data(left) => {
                // The length of a slice fits 64 bits on all platforms.
                let n = left.min(input.len() as u64);
                self.moved(n);
                Ok(BodyStep::Data(n as usize))
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
                    _ => Ok(BodyStep::Skip(used)),
                }
            }
        }
    }

    /// Moves past the body in `input` without regard to its data: how many bytes belong to it, and whether it is
    /// complete.
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool), BodyError> {
        let mut used = 0;
        loop {
            match self.step(&input[used..])? {
                BodyStep::Skip(n) | BodyStep::Data(n) => used += n,
                BodyStep::More => return Ok((used, false)),
                BodyStep::Done => return Ok((used, true)),
            }
        }
    }

    /// Bytes of data that are known to follow, so that they may be moved without a call of `step`.
    pub fn data_ahead(&self) -> u64 {
        match self.state {
            BodyState::Fixed(left) | BodyState::Data(left) => left,
            BodyState::Framing(_) | BodyState::Done | BodyState::Failed(_) => 0,
        }
    }

    /// Records that `n` bytes of data were moved, at most [`Body::data_ahead`].
    pub fn moved(&mut self, n: u64) {
        debug_assert!(
            n <= self.data_ahead(),
            "more bytes were moved than are known to follow"
        );
        let n = n.min(self.data_ahead());
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
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            BodyState::Fixed(left) => Some(left),
            BodyState::Done => Some(0),
            BodyState::Framing(_) | BodyState::Data(_) | BodyState::Failed(_) => None,
        }
    }

    /// Takes one byte of framing (RFC 9112 §7.1 to §7.1.2).
    fn framing_byte(&mut self, state: ChunkState, byte: u8) -> Result<BodyState, BodyError> {
        use ChunkState::*;

        match state {
            BeforeSemicolon | BeforeName | Name | AfterName | BeforeValue | Token | Quoted
            | Escaped | AfterQuoted => self.count_extension()?,
            TrailerStart | TrailerName | TrailerValue | TrailerLf => self.count_trailer()?,
            Size(_) | SizeLf | DataCr | DataLf | LastLf => {}
        }
        let next = match (state, byte) {
            (Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyError::SIZE);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.chunk_size = self.chunk_size << 4 | u64::from(digit);
                Size(digits + 1)
            }
            (Size(1..) | Name | Token | AfterQuoted, b'\r') => SizeLf,
            (Size(1..) | BeforeSemicolon | Name | AfterName | Token | AfterQuoted, b';') => {
                BeforeName
            }
            (Size(1..) | BeforeSemicolon | Token | AfterQuoted, b' ' | b'\t') => BeforeSemicolon,
            (Size(_), _) => return Err(BodyError::SIZE),

            (BeforeName | AfterName | BeforeValue, b' ' | b'\t') => state,
            (BeforeName | Name, _) if is_token_byte(byte) => Name,
            (Name, b' ' | b'\t') => AfterName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | Token, _) if is_token_byte(byte) => Token,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if !is_control(byte) => Quoted,

            (SizeLf, b'\n') if self.chunk_size == 0 => TrailerStart,
            (SizeLf, b'\n') => return self.start_chunk(),
            (DataCr, b'\r') => DataLf,
            (DataCr, _) => return Err(BodyError::DATA),
            (DataLf, b'\n') => Size(0),

            (TrailerStart, b'\r') => LastLf,
            (TrailerStart, _) if is_token_byte(byte) => {
                self.count_trailer_field()?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if !is_control(byte) => TrailerValue,
            (TrailerStart | TrailerName | TrailerValue, _) => return Err(BodyError::TRAILER),
            (TrailerLf, b'\n') => TrailerStart,
            (LastLf, b'\n') => return Ok(BodyState::Done),

            (SizeLf | DataLf | TrailerLf | LastLf, _) => return Err(BodyError::LINE),
            _ => return Err(BodyError::EXTENSION),
        };
        Ok(BodyState::Framing(next))
    }

    fn start_chunk(&mut self) -> Result<BodyState, BodyError> {
        let size = std::mem::take(&mut self.chunk_size);
        if self.received.checked_add(size).is_none() {
            return Err(BodyError::SIZE);
        }
        self.chunk_extension_bytes = 0;
        Ok(BodyState::Data(size))
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.chunk_extension_bytes += 1;
        self.extension_bytes += 1;
        if self.chunk_extension_bytes > MAX_CHUNK_EXTENSIONS
            || self.extension_bytes > MAX_EXTENSIONS
        {
            return Err(BodyError::EXTENSIONS);
        }
        Ok(())
    }

    fn count_trailer(&mut self) -> Result<(), BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILERS {
            return Err(BodyError::TRAILERS);
        }
        Ok(())
    }

    fn count_trailer_field(&mut self) -> Result<(), BodyError> {
        if self.trailer_fields == MAX_TRAILER_FIELDS {
            return Err(BodyError::TRAILER_COUNT);
        }
        self.trailer_fields += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
