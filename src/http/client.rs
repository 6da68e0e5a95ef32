//! HTTP responses as a strict client reads them (RFC 9112).
//!
//! [`ResponseStream`] takes bytes in pieces of any size, and tells which of them are the body; it keeps the head, whose
//! size is bounded. [`ResponseReader`] collects a body of bounded size as well. Neither uses a socket.

use std::fmt;
use std::mem::MaybeUninit;

use crate::decimal;
use crate::http::body::{Body, BodyStep};
use crate::http::head::Framing;
use crate::http::syntax::list_elements;

/// The longest head, and the longest body that is collected, which fits a page of the longest keys; bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 2 * 1024 * 1024;

const MAX_FIELDS: usize = 100;

/// Most interim responses (RFC 9110 §15.2) before the final one.
const MAX_INTERIM: usize = 8;

/// A complete response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The minor version: 0 or 1.
    pub minor: u8,
    pub status: u16,
    /// Names in lower case, values without surrounding white space.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// All values of a field; `name` is in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.fields.iter().filter(move |(field, _)| field == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The first value of a field; `name` is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Parses a head that upslot itself would send.
    pub fn of_head(head: &[u8]) -> Option<Response> {
        let mut reader = ResponseReader::new(true);
        let whole = [head, b"\r\n"].concat();
        reader.received(&whole).ok()?;
        reader.take()
    }
}

/// Why a response cannot be read; a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseError(pub &'static str);

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads the responses to one request, interim ones and the final one, without keeping the body.
///
/// ```text
///   Head ── final head ──▶ Body, or UntilClose ── its end ──▶ complete
///    └▲ interim head (RFC 9110 §15.2)
/// ```
#[derive(Debug)]
pub struct ResponseStream {
    /// Whether the request was HEAD, so that no body follows.
    head_only: bool,
    /// A head that is not complete, and where its last line begins.
    buffer: Vec<u8>,
    line: usize,
    /// The final response, without its body.
    head: Option<Response>,
    end: BodyEnd,
    interim: usize,
    may_continue: bool,
    /// Whether bytes followed the response.
    has_excess: bool,
}

/// How the body ends (RFC 9112 §6.3).
#[derive(Debug)]
enum BodyEnd {
    Framed(Body),
    /// With the connection; whether it was closed.
    Close(bool),
}

impl ResponseStream {
    pub fn new(head_only: bool) -> ResponseStream {
        ResponseStream {
            head_only,
            buffer: Vec::new(),
            line: 0,
            head: None,
            end: BodyEnd::Close(false),
            interim: 0,
            may_continue: false,
            has_excess: false,
        }
    }

    /// The final response, without its body.
    pub fn head(&self) -> Option<&Response> {
        self.head.as_ref()
    }

    /// The final response without its body, once it is complete.
    pub fn take(&mut self) -> Option<Response> {
        match self.is_complete() {
            true => self.head.take(),
            false => None,
        }
    }

    /// Whether `100 Continue` was received.
    pub fn may_continue(&self) -> bool {
        self.may_continue
    }

    /// Whether any byte was received.
    pub fn has_begun(&self) -> bool {
        !self.buffer.is_empty() || self.interim > 0 || self.head.is_some()
    }

    /// Whether the final response is complete.
    pub fn is_complete(&self) -> bool {
        let is_ended = match &self.end {
            BodyEnd::Framed(body) => body.remaining() == Some(0),
            BodyEnd::Close(closed) => *closed,
        };
        self.head.is_some() && is_ended
    }

    /// Whether only the end of the connection ends the body, so that its loss cannot be told from its end.
    pub fn ends_with_connection(&self) -> bool {
        self.head.is_some() && matches!(self.end, BodyEnd::Close(_))
    }

    /// Whether the connection can carry another request (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        let Some(head) = self.head.as_ref().filter(|_| self.is_complete()) else {
            return false;
        };
        let has_option = |name: &str| {
            let mut options = head
                .values("connection")
                .flat_map(|value| list_elements(value.as_bytes()));
            options.any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
        };
        !self.ends_with_connection()
            && !self.has_excess
            && !has_option("close")
            && (head.minor > 0 || has_option("keep-alive"))
    }

    /// Classifies the first bytes of the input, which are thereby received: the caller moves past them and calls again
    /// with the rest. `Skip` is for heads and framing. What follows the response does not belong to it.
    pub fn step(&mut self, input: &[u8]) -> Result<BodyStep, ResponseError> {
        if self.head.is_none() && !input.is_empty() {
            return self.take_head(input).map(BodyStep::Skip);
        }
        let step = match &mut self.end {
            BodyEnd::Framed(body) => body
                .step(input)
                .map_err(|_| ResponseError("the chunks of the response are malformed"))?,
            BodyEnd::Close(false) if !input.is_empty() => BodyStep::Data(input.len()),
            BodyEnd::Close(false) => BodyStep::More,
            BodyEnd::Close(true) => BodyStep::Done,
        };
        self.has_excess |= step == BodyStep::Done && !input.is_empty();
        Ok(step)
    }

    /// Takes the input up to the end of the final head; returns the number of bytes that were used. A head that arrives
    /// whole, as most do, is parsed where it is; others are buffered, and each byte is searched once.
    fn take_head(&mut self, input: &[u8]) -> Result<usize, ResponseError> {
        if self.buffer.is_empty() && input.starts_with(b"HTTP/") {
            let head = &input[..input.len().min(MAX_HEAD)];
            // What is wrong with it does not depend on how much of it is there, so it is found below.
            if let Ok(Some((response, used))) = parse_head(head) {
                self.end_head(response)?;
                return Ok(used);
            }
        }
        let mut used = 0;
        while self.head.is_none() && used < input.len() {
            let rest = &input[used..];
            let end = rest.iter().position(|b| *b == b'\n');
            let length = end.map_or(rest.len(), |at| at + 1);
            if self.buffer.len() + length > MAX_HEAD {
                return Err(ResponseError("the head of the response is too long"));
            }
            self.buffer.extend_from_slice(&rest[..length]);
            used += length;
            if end.is_some() {
                self.end_line()?;
            }
        }
        Ok(used)
    }

    /// A line of the head is complete.
    fn end_line(&mut self) -> Result<(), ResponseError> {
        let is_first = self.line == 0;
        let is_blank = matches!(&self.buffer[self.line..], b"\r\n" | b"\n");
        self.line = self.buffer.len();
        if !is_first && !is_blank {
            return Ok(());
        }
        let response = match parse_head(&self.buffer)? {
            Some((response, _)) if !is_first => response,
            // Something else than HTTP is noticed at the first line.
            None if is_first && !is_blank => return Ok(()),
            _ => return Err(ResponseError("the head of the response is malformed")),
        };
        self.buffer = Vec::new();
        self.line = 0;
        self.end_head(response)
    }

    /// A head is complete.
    fn end_head(&mut self, response: Response) -> Result<(), ResponseError> {
        if response.status < 200 {
            self.interim += 1;
            self.may_continue |= response.status == 100;
            return match self.interim > MAX_INTERIM || response.status == 101 {
                true => Err(ResponseError("there are too many interim responses")),
                false => Ok(()),
            };
        }
        self.end = self.body_end(&response)?;
        self.head = Some(response);
        Ok(())
    }

    /// RFC 9112 §6.3. Whatever is ambiguous is an error.
    fn body_end(&self, response: &Response) -> Result<BodyEnd, ResponseError> {
        const AMBIGUOUS: ResponseError = ResponseError("the length of the response is ambiguous");
        if self.head_only || matches!(response.status, 204 | 304) {
            return Ok(BodyEnd::Framed(Body::new(Framing::None)));
        }
        let mut codings = response.values("transfer-encoding");
        let mut lengths = response.values("content-length");
        let framing = match (codings.next(), lengths.next()) {
            (None, None) => return Ok(BodyEnd::Close(false)),
            (Some(coding), None) => {
                // RFC 9112 §6.1: HTTP/1.0 has no transfer codings.
                let is_chunked = coding.eq_ignore_ascii_case("chunked") && response.minor > 0;
                is_chunked.then_some(Framing::Chunked)
            }
            (None, Some(length)) => decimal::parse(length.as_bytes()).map(Framing::Length),
            (Some(_), Some(_)) => None,
        };
        match framing {
            Some(framing) if codings.next().is_none() && lengths.next().is_none() => {
                Ok(BodyEnd::Framed(Body::new(framing)))
            }
            _ => Err(AMBIGUOUS),
        }
    }

    /// The connection was closed.
    pub fn peer_closed(&mut self) -> Result<(), ResponseError> {
        if self.ends_with_connection() {
            self.end = BodyEnd::Close(true);
        }
        Err(ResponseError(match &self.head {
            _ if self.is_complete() => return Ok(()),
            Some(_) => "the connection was closed in the middle of the response",
            None if self.has_begun() => "the connection was closed before the final response",
            None => "the connection was closed without a response",
        }))
    }
}

/// Reads the responses to one request, and collects the body of the final one.
#[derive(Debug)]
pub struct ResponseReader {
    stream: ResponseStream,
    body: Vec<u8>,
}

impl ResponseReader {
    pub fn new(head_only: bool) -> ResponseReader {
        ResponseReader {
            stream: ResponseStream::new(head_only),
            body: Vec::new(),
        }
    }

    /// Whether `100 Continue` was received.
    pub fn may_continue(&self) -> bool {
        self.stream.may_continue()
    }

    /// Whether the final response is complete.
    pub fn is_complete(&self) -> bool {
        self.stream.is_complete()
    }

    /// See [`ResponseStream::keeps_alive`].
    pub fn keeps_alive(&self) -> bool {
        self.stream.keeps_alive()
    }

    /// Whether any byte was received.
    pub fn has_begun(&self) -> bool {
        self.stream.has_begun()
    }

    /// Bytes were received.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<(), ResponseError> {
        loop {
            let used = match self.stream.step(bytes)? {
                BodyStep::Data(n) if n > MAX_BODY - self.body.len() => {
                    let why = "the response is much longer than expected";
                    return Err(ResponseError(why));
                }
                BodyStep::Data(n) => {
                    self.body.extend_from_slice(&bytes[..n]);
                    n
                }
                BodyStep::Skip(n) => n,
                BodyStep::More | BodyStep::Done => return Ok(()),
            };
            bytes = &bytes[used..];
        }
    }

    /// The connection was closed.
    pub fn peer_closed(&mut self) -> Result<(), ResponseError> {
        self.stream.peer_closed()
    }

    /// The final response, once it is complete.
    pub fn take(&mut self) -> Option<Response> {
        let mut response = self.stream.take()?;
        response.body = std::mem::take(&mut self.body);
        Some(response)
    }
}

/// A head and its length; `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Response, usize)>, ResponseError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut head,
        bytes,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version | httparse::Error::Token) if !bytes.starts_with(b"HTTP/") => {
            return Err(ResponseError("the answer is not HTTP/1.0 or HTTP/1.1"));
        }
        Err(_) => return Err(ResponseError("the head of the response is malformed")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    let fields = head.headers.iter();
    let fields = fields.map(|field| (field.name.to_ascii_lowercase(), text(field.value)));
    let status = head.code.unwrap_or(0);
    if status < 100 {
        return Err(ResponseError("the head of the response is malformed"));
    }
    let response = Response {
        minor: head.version.unwrap_or(0),
        status,
        fields: fields.collect(),
        ..Response::default()
    };
    Ok(Some((response, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response in pieces of each of some sizes, with the end of the connection if `closed`.
    #[track_caller]
    fn read(
        bytes: &[u8],
        head_only: bool,
        closed: bool,
    ) -> Result<Option<Response>, ResponseError> {
        let read_in = |size: usize| {
            let mut reader = ResponseReader::new(head_only);
            for piece in bytes.chunks(size) {
                reader.received(piece)?;
            }
            if closed {
                reader.peer_closed()?;
            }
            Ok((reader.may_continue(), reader.take()))
        };
        let whole = read_in(bytes.len().max(1));
        for size in [1, 2, 7] {
            assert_eq!(read_in(size), whole, "pieces of {size}");
        }
        whole.map(|(_, response)| response)
    }

    #[track_caller]
    fn body(text: &str, closed: bool) -> String {
        let response = read(text.as_bytes(), false, closed).unwrap().unwrap();
        String::from_utf8(response.body).unwrap()
    }

    #[test]
    fn bodies_end_in_three_ways() {
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", false),
            "ab"
        );
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(body(chunked, false), "abc");
        assert_eq!(body("HTTP/1.0 404 No\r\nA: b\r\n\r\nabc", true), "abc");
        let open = read(b"HTTP/1.0 404 No\r\n\r\nabc", false, false);
        assert_eq!(open, Ok(None));
    }

    #[test]
    fn responses_without_a_body() {
        for (text, head_only) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true),
            ("HTTP/1.1 204 OK\r\n\r\n", false),
            ("HTTP/1.1 304 OK\r\nContent-Length: 9\r\n\r\n", false),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 OK\r\n\r\n",
                false,
            ),
        ] {
            let response = read(text.as_bytes(), head_only, false).unwrap().unwrap();
            assert!(response.body.is_empty(), "{text}");
        }
    }

    #[test]
    fn interim_responses_come_first() {
        let mut reader = ResponseReader::new(false);
        assert!(!reader.has_begun());
        reader.received(b"HTTP/1.1 100 Continue\r\n").unwrap();
        assert!(reader.has_begun() && !reader.may_continue());
        reader.received(b"\r\nHTTP/1.1 201 Cre").unwrap();
        assert!(reader.may_continue() && !reader.is_complete());
        reader
            .received(b"ated\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        assert_eq!(reader.take().unwrap().status, 201);
    }

    #[test]
    fn fields_are_kept_as_they_are() {
        let response = read(
            b"HTTP/1.0 200 OK\r\nA:  b c \r\na: \xff\r\n\r\n",
            true,
            false,
        );
        let response = response.unwrap().unwrap();
        assert_eq!(
            response.values("a").collect::<Vec<_>>(),
            ["b c", "\u{fffd}"]
        );
        assert_eq!(response.field("A"), None);
        assert_eq!(response.minor, 0);
    }

    #[test]
    fn malformed_responses_are_refused() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "<html>\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 101 Switch\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\n",
        ] {
            assert!(read(text.as_bytes(), false, false).is_err(), "{text}");
        }
        for text in [
            "",
            "HTTP/1.1 2",
            "HTTP/1.1 100 C\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
        ] {
            assert!(read(text.as_bytes(), false, true).is_err(), "{text}");
        }
        let interim = "HTTP/1.1 102 P\r\n\r\n".repeat(MAX_INTERIM + 1);
        assert!(read(interim.as_bytes(), false, false).is_err());
    }

    #[test]
    fn faulty_framing_is_refused() {
        for text in [
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
        ] {
            assert!(read(text.as_bytes(), false, false).is_err(), "{text}");
        }
    }

    /// The body that a stream finds in pieces of a size, and whether the connection can be used again.
    fn stream(text: &str, head_only: bool, size: usize) -> Result<(Vec<u8>, bool), ResponseError> {
        let mut stream = ResponseStream::new(head_only);
        let mut body = Vec::new();
        for mut piece in text.as_bytes().chunks(size) {
            loop {
                let used = match stream.step(piece)? {
                    BodyStep::Data(n) => {
                        assert!(stream.head().is_some());
                        body.extend_from_slice(&piece[..n]);
                        n
                    }
                    BodyStep::Skip(n) => n,
                    BodyStep::More | BodyStep::Done => break,
                };
                assert!(used > 0);
                piece = &piece[used..];
            }
        }
        Ok((body, stream.keeps_alive()))
    }

    #[test]
    fn connections_are_kept_if_both_sides_agree() {
        for (text, body, kept) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "ab", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", "a", false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
                "ab",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nab",
                "ab",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
                "ab",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nab",
                "ab",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nab", "ab", false),
            ("HTTP/1.1 204 OK\r\n\r\n", "", true),
            ("HTTP/1.1 204 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                "abcd",
                true,
            ),
        ] {
            for size in [1, 2, 3, 1000] {
                let read = stream(text, false, size);
                assert_eq!(read, Ok((body.into(), kept)), "{text} {size}");
            }
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(stream(head, true, 1), Ok((Vec::new(), true)));
        assert!(!stream(&format!("{head}ab"), true, 99).unwrap().1);
    }

    #[test]
    fn only_some_bodies_end_with_the_connection() {
        let mut stream = ResponseStream::new(false);
        stream.step(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(stream.ends_with_connection() && !stream.is_complete());
        stream.peer_closed().unwrap();
        assert!(stream.is_complete() && !stream.keeps_alive());
        assert_eq!(stream.step(b"x"), Ok(BodyStep::Done));
        let mut stream = ResponseStream::new(false);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(stream.step(head), Ok(BodyStep::Skip(head.len())));
        assert!(!stream.ends_with_connection() && stream.peer_closed().is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let mut reader = ResponseReader::new(false);
        let endless = |reader: &mut ResponseReader, piece: &[u8]| {
            (0..10_000)
                .find_map(|_| reader.received(piece).err())
                .is_some()
        };
        reader.received(b"HTTP/1.1 200 OK\r\nA: ").unwrap();
        assert!(endless(&mut reader, &[b'x'; 1000]));
        let mut reader = ResponseReader::new(false);
        reader.received(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(endless(&mut reader, &[b'x'; 1000]));
        let mut reader = ResponseReader::new(false);
        reader
            .received(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
            .unwrap();
        assert!(endless(&mut reader, &[b'x'; 1000]));
    }
}
