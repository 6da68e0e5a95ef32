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

use crate::http::head::{Framing, is_control, is_token_byte};

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
mod tests {
    use super::*;

    /// How a body ended: the data, and how many bytes of input it took.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum End {
        Done(Vec<u8>, usize),
        More(Vec<u8>),
        Fault(BodyFault),
    }

    /// Feeds input in pieces of `size`, and moves up to `direct` bytes of each stretch of data unseen.
    fn feed(framing: Framing, input: &[u8], size: usize, direct: u64) -> End {
        let mut body = Body::new(framing);
        let mut data = Vec::new();
        let mut at = 0;
        loop {
            let unseen = body.direct().min(direct).min((input.len() - at) as u64);
            if unseen > 0 {
                data.extend_from_slice(&input[at..at + unseen as usize]);
                body.moved(unseen);
                at += unseen as usize;
            }
            let piece = &input[at..input.len().min(at + size)];
            let direct_before = body.direct();
            match body.step(piece) {
                Ok(Step::Data(n)) => {
                    assert!((1..=piece.len()).contains(&n) && n as u64 <= direct_before);
                    data.extend_from_slice(&piece[..n]);
                    at += n;
                }
                Ok(Step::Skip(n)) => {
                    assert!((1..=piece.len()).contains(&n));
                    at += n;
                }
                Ok(Step::More) => {
                    assert!(piece.is_empty() && !body.is_done());
                    return End::More(data);
                }
                Ok(Step::Done) => {
                    assert!(body.is_done() && body.direct() == 0 && body.known_rest() == Some(0));
                    assert_eq!(body.received(), data.len() as u64);
                    assert_eq!(body.step(b"x"), Ok(Step::Done));
                    return End::Done(data, at);
                }
                Err(fault) => {
                    assert_eq!(body.step(b"0\r\n\r\n"), Err(fault), "a fault is final");
                    assert_eq!(fault.status(), 400);
                    assert!(fault.to_string().ends_with('.'));
                    return End::Fault(fault);
                }
            }
        }
    }

    /// Whole, byte by byte, in pieces, with data moved unseen.
    #[track_caller]
    fn outcome(framing: Framing, input: &[u8]) -> End {
        let whole = feed(framing, input, usize::MAX >> 1, 0);
        for (size, direct) in [
            (1, 0),
            (2, 0),
            (7, 0),
            (1, 1),
            (3, u64::MAX),
            (usize::MAX >> 1, u64::MAX),
        ] {
            let again = feed(framing, input, size, direct);
            assert_eq!(
                again,
                whole,
                "{} in pieces of {size}, {direct} unseen",
                input.escape_ascii()
            );
        }
        whole
    }

    #[track_caller]
    fn good(framing: Framing, input: &[u8], data: &[u8]) {
        for trailing in [
            &b""[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0",
            b"\r\n",
            b"5\r\n",
        ] {
            let all = [input, trailing].concat();
            let expected = End::Done(data.to_vec(), input.len());
            assert_eq!(outcome(framing, &all), expected, "{}", all.escape_ascii());
        }
        // Every shorter beginning waits for more.
        for n in 0..input.len() {
            assert!(
                matches!(outcome(framing, &input[..n]), End::More(_)),
                "{}",
                input[..n].escape_ascii()
            );
        }
    }

    #[track_caller]
    fn chunked(input: impl AsRef<[u8]>, data: &str) {
        good(Framing::Chunked, input.as_ref(), data.as_bytes());
    }

    #[track_caller]
    fn bad(input: impl AsRef<[u8]>) {
        let input = input.as_ref();
        match outcome(Framing::Chunked, input) {
            End::Fault(_) => {}
            other => panic!("{}: {other:?}", input.escape_ascii()),
        }
    }

    #[test]
    fn known_lengths() {
        good(Framing::None, b"", b"");
        good(Framing::Length(0), b"", b"");
        good(Framing::Length(1), b"a", b"a");
        good(Framing::Length(5), b"a\r\n\0b", b"a\r\n\0b");
        let mut body = Body::new(Framing::Length(u64::MAX));
        assert_eq!(body.direct(), u64::MAX);
        body.moved(u64::MAX - 1);
        assert_eq!(
            (body.received(), body.known_rest()),
            (u64::MAX - 1, Some(1))
        );
        assert_eq!(body.step(b"ab"), Ok(Step::Data(1)));
        assert_eq!(body.step(b"b"), Ok(Step::Done));
    }

    #[test]
    fn chunks() {
        chunked("0\r\n\r\n", "");
        chunked("000\r\n\r\n", "");
        chunked("5\r\nhello\r\n0\r\n\r\n", "hello");
        chunked("1\r\na\r\n1\r\nb\r\n01\r\nc\r\n0\r\n\r\n", "abc");
        chunked(
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        );
        chunked("5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n");
        chunked("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello");
        let mut body = Body::new(Framing::Chunked);
        assert_eq!((body.direct(), body.known_rest()), (0, None));
        assert_eq!(body.step(b"5\r\nhello\r\n"), Ok(Step::Skip(3)));
        assert_eq!((body.direct(), body.known_rest()), (5, None));
        body.moved(4);
        assert_eq!(body.step(b"o\r\n"), Ok(Step::Data(1)));
        assert_eq!(body.step(b""), Ok(Step::More));
        assert_eq!(body.step(b"\r\n0\r\n\r\nnext"), Ok(Step::Skip(7)));
        assert_eq!(body.step(b"next"), Ok(Step::Done));
        assert_eq!(body.received(), 5);
    }

    #[test]
    #[rustfmt::skip]
    fn extensions() {
        for extension in [
            ";a", ";a=b", ";a=\"b\"", ";a=\"\"", ";a;b;c=d", ";a=\"b;\\\"c\\\\ \t\u{e9}\"", " ;a",
            "\t; a", " ; a = b", ";a =\"b\"", ";a= b", ";a=b ;c", ";a=\"b\" ; c", ";a ;b",
            ";!#$%&'*+-.^_`|~=x",
        ] {
            chunked(
                format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"),
                "hello",
            );
        }
        for extension in [
            ";", ";;", ";;a", ";a;", ";=b", ";a=", ";a=;b", ";a=b=c", ";a=\"b", ";a=\"b\"c",
            ";a=\"\0\"", ";a=\"\n\"", ";a=\"\\\r\"", ";a=b ", ";a ", " ", "\t", " a", " ;", ";a b",
            ";a=b c", ";a,b", ";a=\u{e9}", ";\u{e9}", ";a\0", ";a\n", ";a=\"b\" ", ";a=\"b\"=c",
            ";a\u{b}", ";(c)", ";a/b", ";[a]", ";a=b\rx", ";a=\"\u{7f}\"",
        ] {
            bad(format!("5{extension}\r\nhello\r\n0\r\n\r\n"));
            bad(format!("0{extension}\r\n\r\n"));
        }
    }

    #[test]
    #[rustfmt::skip]
    fn chunks_that_smuggle() {
        for input in [
            "\r\n", "\n", ";a\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "5\t\r\nhello\r\n",
            "+5\r\nhello\r\n", "-5\r\nhello\r\n", "-1\r\n", "0x5\r\nhello\r\n", "x5\r\n", "5h\r\n",
            "5_0\r\n", "5,5\r\n", "5.0\r\n", "g\r\n", "5\nhello\r\n", "5\rhello\r\n", "5\r\rhello",
            "5\r\nhello\n", "5\r\nhello0\r\n", "5\r\nhello!\r\n", "5\r\nhello\r0\r\n",
            "5\r\nhello\r\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\r\nhello\r\n\r\n",
            "5\r\nhello\r\n 0\r\n\r\n", "5\r\nhello\r\n\n0\r\n", "0\n\n", "0\r\n\n", "0\n\r\n",
            "0\r\n\rx", "0\r\r\n", "0\rx", "00000000000000005\r\n", "10000000000000000\r\n",
            "ffffffffffffffffff\r\n", "fffffffffffffffff\r\n", "5\0\r\n", "\0",
            "GET / HTTP/1.1\r\n", "5;\r\n", "\u{ff15}\r\n",
        ] {
            bad(input);
        }
    }

    #[test]
    fn sizes_near_the_end_of_64_bits() {
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.step(b"fffffffffffffffe\r\n"), Ok(Step::Skip(18)));
        body.moved(u64::MAX - 1);
        assert_eq!(body.step(b"\r\n1\r\n"), Ok(Step::Skip(5)));
        assert_eq!(body.direct(), 1);
        let mut other = body.clone();
        body.moved(1);
        assert_eq!(body.received(), u64::MAX);
        assert!(body.step(b"\r\n1\r\n").is_err());
        other.moved(1);
        assert_eq!(other.step(b"\r\n0\r\n\r\n"), Ok(Step::Skip(7)));
        assert!(other.is_done());
    }

    #[test]
    #[rustfmt::skip]
    fn trailers() {
        for trailer in [
            "A: b\r\n", "A:\r\n", "A:b\r\nC: d e\t\u{e9}\r\n", "a: b\r\na: b\r\n",
            "Expires: 0\r\nETag: \"x\"\r\n",
            // Dropped, not obeyed.
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Host: evil\r\n",
        ] {
            chunked(format!("1\r\na\r\n0\r\n{trailer}\r\n"), "a");
        }
        for trailer in [
            "A\r\n", "A b: c\r\n", "A : b\r\n", " A: b\r\n", "A: b\r\n c\r\n", "A: b\r\n\tc\r\n",
            ": b\r\n", "A: \0\r\n", "A: b\n", "A: b\rC: d\r\n", "A: b\r\r\n", "\u{e9}: b\r\n",
            "A: b\u{7f}\r\n", "A\0: b\r\n", "GET / HTTP/1.1\r\nHost: a\r\n",
        ] {
            bad(format!("0\r\n{trailer}\r\n"));
        }
    }

    #[test]
    fn bounds() {
        // Many small chunks are legal.
        let many = "1\r\na\r\n".repeat(5000) + "0\r\n\r\n";
        assert_eq!(
            outcome(Framing::Chunked, many.as_bytes()),
            End::Done(vec![b'a'; 5000], many.len())
        );
        // Long extensions, and short ones without end, are not.
        let long = |n: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(n));
        chunked(long(1000), "a");
        bad(long(1100));
        bad(format!("1;a=\"{}\"\r\na\r\n", "x".repeat(1100)));
        bad(format!("1;{}a\r\na\r\n", " ".repeat(1100)));
        bad(format!("1{};a\r\na\r\n", " ".repeat(1100)));
        bad(format!("1{}\r\na\r\n", ";a".repeat(600)));
        bad("1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(1100));
        bad(format!("{}1\r\n", "0".repeat(16)));
        // So are trailers.
        chunked(format!("0\r\n{}\r\n", "A: b\r\n".repeat(32)), "");
        bad(format!("0\r\n{}\r\n", "A: b\r\n".repeat(33)));
        assert!(matches!(
            outcome(
                Framing::Chunked,
                format!("0\r\nA: {}\r\n\r\n", "b".repeat(8000)).as_bytes()
            ),
            End::Done(..)
        ));
        bad(format!("0\r\nA: {}\r\n\r\n", "b".repeat(8200)));
        bad(format!("0\r\n{}", "a".repeat(8200)));
    }

    /// Whatever comes, nothing panics, and the pieces it comes in change nothing.
    #[test]
    #[rustfmt::skip]
    fn mutations_are_judged_alike_in_any_pieces() {
        let corpus: [&[u8]; 5] = [
            b"5\r\nhello\r\n0\r\n\r\n", b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nA: b\r\n\r\n",
            b"3 ; n = \"q\\\"\" ;m\r\nabc\r\n00;z\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"a\r\n0123456789\r\nB\r\n0123456789A\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n",
            b"0\r\n\r\n",
        ];
        let alphabet = b"\r\n\r\n 0159aAfFg;=\"\\:\t\0\xff-+x";
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = move |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % n as u64) as usize
        };
        let (mut done, mut faults) = (0, 0);
        for round in 0..20_000 {
            let mut input = corpus[round % corpus.len()].to_vec();
            for _ in 0..=below(3) {
                let at = below(input.len() + 1);
                let byte = alphabet[below(alphabet.len())];
                match below(4) {
                    0 if at < input.len() => input[at] = byte,
                    1 if at < input.len() => drop(input.remove(at)),
                    2 => {
                        let end = input.len().min(at + below(12));
                        let copy = input[at..end].to_vec();
                        input.splice(at..at, copy);
                    }
                    _ => input.insert(at, byte),
                }
            }
            match outcome(Framing::Chunked, &input) {
                End::Done(..) => done += 1,
                End::Fault(_) => faults += 1,
                End::More(_) => {}
            }
        }
        assert!(done > 1000 && faults > 1000, "{done} done, {faults} faults");
    }
}
