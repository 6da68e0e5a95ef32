//! HTTP responses as a strict client reads them (RFC 9112), and the origin of a URL.
//!
//! [`ResponseReader`] takes bytes in pieces of any size. What it keeps is bounded: the head, and a body that is no longer
//! than the files that the doctor itself stores or than a page with an error. It uses no socket.

use std::fmt;

use crate::config::url;
use crate::decimal;
use crate::http::body::{Body, BodyStep};
use crate::http::head::Framing;

/// The longest head, and the longest body; bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 256 * 1024;

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

/// Reads the responses to one request: interim ones and the final one.
#[derive(Debug)]
pub struct ResponseReader {
    /// Whether the request was HEAD, so that no body follows.
    head_only: bool,
    /// Bytes of a head that is not complete, how many of them were searched for line ends, and where the last line begins.
    head: Vec<u8>,
    searched: usize,
    line: usize,
    response: Option<(Response, Option<Body>)>,
    interim: Vec<u16>,
    complete: bool,
}

impl ResponseReader {
    pub fn new(head_only: bool) -> ResponseReader {
        ResponseReader {
            head_only,
            head: Vec::new(),
            searched: 0,
            line: 0,
            response: None,
            interim: Vec::new(),
            complete: false,
        }
    }

    /// Whether `100 Continue` was received.
    pub fn may_continue(&self) -> bool {
        self.interim.contains(&100)
    }

    /// Whether the final response is complete.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether any byte was received.
    pub fn has_begun(&self) -> bool {
        !self.head.is_empty() || !self.interim.is_empty() || self.response.is_some()
    }

    /// Bytes were received.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), ResponseError> {
        if self.response.is_some() {
            return self.take_body(bytes);
        }
        self.head.extend_from_slice(bytes);
        while self.response.is_none() {
            let Some(response) = self.next_head()? else {
                return Ok(());
            };
            if (100..200).contains(&response.status) {
                self.interim.push(response.status);
                if self.interim.len() > MAX_INTERIM || response.status == 101 {
                    return Err(ResponseError("there are too many interim responses"));
                }
                continue;
            }
            let framing = self.framing(&response)?;
            self.response = Some((response, framing.map(Body::new)));
        }
        let rest = std::mem::take(&mut self.head);
        self.take_body(&rest)
    }

    /// The next complete head, which is taken out of the buffer. Each byte is searched once, and a head is parsed once.
    fn next_head(&mut self) -> Result<Option<Response>, ResponseError> {
        let too_long = Err(ResponseError("the head of the response is too long"));
        while let Some(at) = self.head[self.searched..].iter().position(|b| *b == b'\n') {
            let (begin, end) = (self.line, self.searched + at + 1);
            (self.line, self.searched) = (end, end);
            if end > MAX_HEAD {
                return too_long;
            }
            let is_blank = matches!(&self.head[begin..end], b"\r\n" | b"\n");
            if begin == 0 {
                // Something else than HTTP is noticed at once.
                match parse_head(&self.head[..end])? {
                    None if !is_blank => {}
                    _ => return Err(ResponseError("the head of the response is malformed")),
                }
            } else if is_blank {
                let rest = self.head.split_off(end);
                let head = std::mem::replace(&mut self.head, rest);
                (self.line, self.searched) = (0, 0);
                let response = parse_head(&head)?;
                let malformed = ResponseError("the head of the response is malformed");
                return response.map(Some).ok_or(malformed);
            }
        }
        self.searched = self.head.len();
        match self.head.len() > MAX_HEAD {
            true => too_long,
            false => Ok(None),
        }
    }

    /// The connection was closed.
    pub fn peer_closed(&mut self) -> Result<(), ResponseError> {
        match &self.response {
            _ if self.complete => Ok(()),
            // The body ends with the connection.
            Some((_, None)) => {
                self.complete = true;
                Ok(())
            }
            Some(_) => Err(ResponseError(
                "the connection was closed in the middle of the response",
            )),
            None if self.has_begun() => Err(ResponseError(
                "the connection was closed before the final response",
            )),
            None => Err(ResponseError(
                "the connection was closed without a response",
            )),
        }
    }

    /// The final response, once it is complete.
    pub fn take(&mut self) -> Option<Response> {
        match self.complete {
            true => self.response.take().map(|(response, _)| response),
            false => None,
        }
    }

    /// How the body ends; `None` if with the connection (RFC 9112 §6.3).
    fn framing(&self, response: &Response) -> Result<Option<Framing>, ResponseError> {
        if self.head_only || matches!(response.status, 204 | 304) {
            return Ok(Some(Framing::None));
        }
        let mut codings = response.values("transfer-encoding");
        if let Some(coding) = codings.next() {
            let chunked = coding.eq_ignore_ascii_case("chunked") && codings.next().is_none();
            return match chunked && response.field("content-length").is_none() {
                true => Ok(Some(Framing::Chunked)),
                false => Err(ResponseError("the length of the response is ambiguous")),
            };
        }
        let mut lengths = response.values("content-length");
        let Some(length) = lengths.next() else {
            return Ok(None);
        };
        match decimal::parse(length.as_bytes()) {
            Some(length) if lengths.next().is_none() => Ok(Some(Framing::Length(length))),
            _ => Err(ResponseError("the length of the response is ambiguous")),
        }
    }

    fn take_body(&mut self, mut bytes: &[u8]) -> Result<(), ResponseError> {
        let Some((response, body)) = &mut self.response else {
            return Ok(());
        };
        let Some(body) = body else {
            response.body.extend_from_slice(bytes);
            return check_length(&response.body);
        };
        loop {
            match body.step(bytes) {
                Ok(BodyStep::Data(n)) => {
                    response.body.extend_from_slice(&bytes[..n]);
                    check_length(&response.body)?;
                    bytes = &bytes[n..];
                }
                Ok(BodyStep::Skip(n)) => bytes = &bytes[n..],
                Ok(BodyStep::More) => return Ok(()),
                Ok(BodyStep::Done) => {
                    self.complete = true;
                    return Ok(());
                }
                Err(_) => return Err(ResponseError("the chunks of the response are malformed")),
            }
        }
    }
}

fn check_length(body: &[u8]) -> Result<(), ResponseError> {
    match body.len() > MAX_BODY {
        true => Err(ResponseError("the response is much longer than expected")),
        false => Ok(()),
    }
}

/// A head; `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<Response>, ResponseError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version | httparse::Error::Token) if !bytes.starts_with(b"HTTP/") => {
            return Err(ResponseError("the answer is not HTTP/1.0 or HTTP/1.1"));
        }
        Err(_) => return Err(ResponseError("the head of the response is malformed")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    let fields = head.headers.iter();
    let fields = fields.map(|field| (field.name.to_ascii_lowercase(), text(field.value)));
    Ok(Some(Response {
        minor: head.version.unwrap_or(0),
        status: head.code.unwrap_or(0),
        fields: fields.collect(),
        ..Response::default()
    }))
}

/// Scheme, host and port of `put_url` or `get_url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is https.
    pub tls: bool,
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// Host and port as in the URL, for `Host`.
    pub authority: String,
}

impl Origin {
    /// The origin of a URL that the configuration accepted, and the rest of the URL.
    pub fn split(url: &str) -> Option<(Origin, &str)> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let tls = scheme.eq_ignore_ascii_case("https");
        let (host, port) = url::split_port(authority);
        let port = match port {
            Some(port) => u16::try_from(decimal::parse(port.as_bytes())?).ok()?,
            None if tls => 443,
            None => 80,
        };
        let origin = Origin {
            tls,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
            authority: authority.to_owned(),
        };
        Some((origin, target))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
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

    #[test]
    fn origins() {
        for (url, expected, target) in [
            (
                "https://up.example/",
                (true, "up.example", 443, "up.example"),
                "/",
            ),
            (
                "http://up.example:8080/a/?b",
                (false, "up.example", 8080, "up.example:8080"),
                "/a/?b",
            ),
            (
                "https://[2001:db8::1]/",
                (true, "2001:db8::1", 443, "[2001:db8::1]"),
                "/",
            ),
            ("https://[::1]:99/x", (true, "::1", 99, "[::1]:99"), "/x"),
        ] {
            let (origin, rest) = Origin::split(url).unwrap();
            let Origin {
                tls,
                host,
                port,
                authority,
            } = &origin;
            assert_eq!((*tls, host.as_str(), *port, authority.as_str()), expected);
            assert_eq!(rest, target);
            assert!(url.starts_with(&origin.to_string()));
        }
        assert_eq!(Origin::split("up.example"), None);
        assert_eq!(Origin::split("http://a:x/"), None);
    }
}
