//! The head of an HTTP/1 request: its end, its meaning, and every way in which it can be malformed.
//!
//! [`HeadScan`] finds the end of the head in a growing buffer; [`RequestHead::from_scan`] then parses it once. httparse
//! splits the fields, and what it accepts is checked again here, because request smuggling needs two parsers that
//! disagree about one head. Where the specification leaves a choice, the stricter reading is taken. This module does
//! not interpret paths or fields, except those that decide about the connection: framing, `Expect`, `Connection` and
//! `Host`.
//!
//! Sources: RFC 9112 §2 to §7 and §9.3, RFC 9110 §5 to §10.

mod error;
mod line;
mod scan;
mod span;

use std::fmt;
use std::str;

use crate::decimal;
use crate::http::head::line::{RequestLine, RequestTarget, is_authority};
use crate::http::head::span::Span;
use crate::http::syntax::{is_token, list_elements, trim};

pub use crate::http::head::error::{HeadError, MAX_FIELDS, MAX_HEAD, MAX_TARGET};
pub use crate::http::head::line::{Method, Version};
pub use crate::http::head::scan::HeadScan;

/// Most heads have no more fields than this.
const FEW_FIELDS: usize = 16;

/// How the end of the request's body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, and no length was given.
    None,
    /// `Content-Length` in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the client expects before it sends its body (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    None,
    /// `100-continue`, in HTTP/1.1 only: HTTP/1.0 has no interim responses.
    Continue,
    /// An expectation that no server knows: 417.
    Other,
}

/// A request head that has been checked, with its own copy of the bytes.
#[derive(Clone)]
pub struct RequestHead {
    /// From the first byte of the method to the empty line.
    bytes: Box<[u8]>,
    line: RequestLine,
    method: Method,
    fields: Vec<Field>,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
}

impl RequestHead {
    /// Parses a whole head, with or without the empty lines before it.
    pub fn parse(head: &[u8]) -> Result<RequestHead, HeadError> {
        let mut scan = HeadScan::default();
        match scan.scan(head)? {
            Some(end) if end == head.len() => RequestHead::from_scan(&scan, head),
            _ => Err(HeadError::NO_END),
        }
    }

    /// Parses a whole head, whose end `scan` has just found.
    pub fn from_scan(scan: &HeadScan, head: &[u8]) -> Result<RequestHead, HeadError> {
        let Some(line) = scan.request_line else {
            return Err(HeadError::NO_END);
        };
        let bytes = head.get(scan.empty_line_bytes()..).unwrap_or_default();
        let fields = parse_fields(bytes, line.len(), scan.field_count)?;
        let mut head = RequestHead {
            bytes: bytes.into(),
            line,
            method: Method::of(line.method.of(bytes)),
            fields,
            framing: Framing::None,
            expect: Expect::None,
            keep_alive: false,
        };
        head.check_host()?;
        head.framing = head.find_framing()?;
        head.expect = head.find_expect();
        head.keep_alive = head.find_keep_alive();
        Ok(head)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent; ASCII.
    pub fn method_str(&self) -> &str {
        str::from_utf8(self.line.method.of(&self.bytes)).unwrap_or_default()
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The path as it was sent: UTF-8, not decoded, starting with `/`. The scheme and host of an absolute target are
    /// left out. `*` with OPTIONS only; empty with CONNECT, whose target has no path.
    pub fn path(&self) -> &[u8] {
        match self.line.target {
            RequestTarget::Path { path, .. } if path.is_empty() => b"/",
            RequestTarget::Path { path, .. } => path.of(&self.bytes),
            RequestTarget::Asterisk => b"*",
            RequestTarget::Authority => b"",
        }
    }

    /// Everything after the first `?` of the target, as it was sent.
    pub fn query(&self) -> Option<&[u8]> {
        match self.line.target {
            RequestTarget::Path { query, .. } => query.map(|query| query.of(&self.bytes)),
            RequestTarget::Asterisk | RequestTarget::Authority => None,
        }
    }

    /// How the end of the body is found.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// What the client expects.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Whether the client allows the connection to persist (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The trimmed value of the first field with this name; names are compared without regard to case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields(name).next()
    }

    /// The trimmed values of all fields with this name, in order; names are compared without regard to case.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> {
        let has_name = move |field: &&Field| {
            let found = field.name.of(&self.bytes);
            found.eq_ignore_ascii_case(name.as_bytes())
        };
        let value = |field: &'a Field| field.value.of(&self.bytes);
        self.fields.iter().filter(has_name).map(value)
    }

    /// Whether this is a GET or HEAD that names its file by the path alone, without a query.
    pub fn names_file_by_path(&self) -> bool {
        matches!(self.method(), Method::Get | Method::Head)
            && self.query().is_none()
            && self.expect == Expect::None
            && self.framing != Framing::Chunked
    }

    /// Whether this is a GET without a query, conditions or ranges, so that its response depends on its path alone.
    pub fn is_plain_get(&self) -> bool {
        let matters = |field: &Field| {
            let name = field.name.of(&self.bytes);
            let has_prefix = |prefix: &[u8]| {
                name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix)
            };
            has_prefix(b"if-") || has_prefix(b"range")
        };
        self.names_file_by_path()
            && self.method() == Method::Get
            && !self.fields.iter().any(matters)
    }

    /// Exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0, and always a valid one (RFC 9112 §3.2).
    fn check_host(&self) -> Result<(), HeadError> {
        let mut hosts = self.fields("host");
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => Err(HeadError::HOSTS),
            (Some(host), None) if !is_authority(host) => Err(HeadError::HOST),
            (None, _) if self.version() == Version::V11 => Err(HeadError::NO_HOST),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.1 to §6.3. A request with both framings is rejected, although the specification would let
    /// `Transfer-Encoding` win.
    fn find_framing(&self) -> Result<Framing, HeadError> {
        let mut lengths = self.fields("content-length");
        let (length, second) = (lengths.next(), lengths.next());
        let has_coding = self.field("transfer-encoding").is_some();
        if has_coding && length.is_some() {
            return Err(HeadError::TWO_FRAMINGS);
        }
        if has_coding {
            if self.version() == Version::V10 {
                return Err(HeadError::CODING_IN_1_0);
            }
            return self.check_codings().map(|()| Framing::Chunked);
        }
        match (length, second) {
            (None, _) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(HeadError::LENGTHS),
            (Some(length), None) => decimal::parse(length)
                .map(Framing::Length)
                .ok_or(HeadError::LENGTH),
        }
    }

    /// `chunked` must be the only coding. Other codings are not supported; a list is malformed when it is no list of
    /// codings, or when `chunked` is repeated, has parameters, or is not the last one.
    fn check_codings(&self) -> Result<(), HeadError> {
        let mut has_chunked = false;
        let mut has_other = false;
        for coding in self.fields("transfer-encoding").flat_map(list_elements) {
            let mut parts = coding.splitn(2, |&byte| byte == b';');
            let name = parts.next().map(trim).unwrap_or_default();
            let is_chunked = name.eq_ignore_ascii_case(b"chunked");
            if !is_token(name) || has_chunked || (is_chunked && parts.next().is_some()) {
                return Err(HeadError::CODINGS);
            }
            has_chunked |= is_chunked;
            has_other |= !is_chunked;
        }
        if has_other {
            return Err(HeadError::TransferCoding);
        }
        Ok(())
    }

    fn find_expect(&self) -> Expect {
        let mut expect = Expect::None;
        for expectation in self.fields("expect").flat_map(list_elements) {
            if expectation.eq_ignore_ascii_case(b"100-continue") {
                expect = Expect::Continue;
            } else if !expectation.is_empty() {
                return Expect::Other;
            }
        }
        if self.version() == Version::V10 {
            return Expect::None;
        }
        expect
    }

    fn find_keep_alive(&self) -> bool {
        let mut keep_alive = self.version() == Version::V11;
        for option in self.fields("connection").flat_map(list_elements) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        keep_alive
    }
}

/// Omits the path, the query and the values of fields, which may be secret.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method_str())
            .field("version", &self.version())
            .field("fields", &self.fields.len())
            .field("framing", &self.framing)
            .field("expect", &self.expect)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    /// Without the whitespace around it.
    value: Span,
}

/// Parses the `count` fields of a head. They start at this offset and go to the end.
fn parse_fields(head: &[u8], start: usize, count: usize) -> Result<Vec<Field>, HeadError> {
    let section = head.get(start..).unwrap_or_default();
    // Preparing room for all fields costs time, and few heads need it.
    let (mut few, mut most);
    let room: &mut [httparse::Header<'_>] = if count <= FEW_FIELDS {
        few = [httparse::EMPTY_HEADER; FEW_FIELDS];
        &mut few
    } else {
        most = [httparse::EMPTY_HEADER; MAX_FIELDS];
        &mut most
    };
    let headers = match httparse::parse_headers(section, room) {
        Ok(httparse::Status::Complete((n, headers))) if n == section.len() => headers,
        Ok(_) => return Err(HeadError::NO_END),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::HeaderName) if has_fold(section) => return Err(HeadError::FOLD),
        Err(httparse::Error::HeaderValue) => return Err(HeadError::CONTROL),
        Err(_) => return Err(HeadError::FIELD_NAME),
    };
    let mut fields = Vec::with_capacity(headers.len());
    for header in headers {
        if !is_token(header.name.as_bytes()) {
            return Err(HeadError::FIELD_NAME);
        }
        // The scan has already rejected control characters in values.
        fields.push(Field {
            name: Span::within(head, header.name.as_bytes()),
            value: Span::within(head, trim(header.value)),
        });
    }
    Ok(fields)
}

/// Whether a line of the field section starts with whitespace: an obsolete line folding (RFC 9112 §5.2), or garbage
/// before the first field.
fn has_fold(section: &[u8]) -> bool {
    matches!(section.first(), Some(b' ' | b'\t'))
        || section
            .windows(2)
            .any(|pair| matches!(pair, [b'\n', b' ' | b'\t']))
}

#[cfg(test)]
mod tests;
