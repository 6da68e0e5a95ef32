//! The head of an HTTP/1 request: where it ends, what it says, and every way in which it can be wrong.
//!
//! [`Scan`] finds the end of the head in a buffer that grows, [`RequestHead::parse`] judges it once.
//! httparse splits the fields; what it lets through is judged again here, because two parsers that
//! disagree about one head are how requests are smuggled. Where the specification leaves a choice the
//! stricter reading is taken. Nothing here knows what a path or a field is good for, beyond what
//! decides about the connection: framing, `Expect`, `Connection`, `Host`.
//!
//! Sources: RFC 9112 §2 to §7 and §9.3, RFC 9110 §5 to §10.

mod error;
mod line;
mod scan;
mod span;

use std::fmt;
use std::str;

use crate::http::head::line::{RequestLine, Target, is_authority};
use crate::http::head::span::Span;
use crate::http::syntax::decimal;

pub use crate::http::head::error::{HeadFault, MAX_FIELDS, MAX_HEAD, MAX_TARGET};
pub use crate::http::head::line::{Method, Version};
pub use crate::http::head::scan::Scan;
pub use crate::http::syntax::{is_control, is_token, is_token_byte, trim};

/// Fields of most heads.
const FEW_FIELDS: usize = 16;

/// How the end of the request's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, and no length was given.
    None,
    /// `Content-Length`, bytes; possibly 0.
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
    /// An expectation that nobody can meet: 417.
    Other,
}

/// A request's head, checked, with its own copy of the bytes.
#[derive(Clone)]
pub struct RequestHead {
    /// From the first byte of the method to the blank line.
    bytes: Box<[u8]>,
    line: RequestLine,
    method: Method,
    fields: Vec<Field>,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
}

impl RequestHead {
    /// Judges a whole head, as measured by [`Scan::scan`]; leading empty lines may be there or not.
    pub fn parse(head: &[u8]) -> Result<RequestHead, HeadFault> {
        let mut scan = Scan::default();
        match scan.scan(head)? {
            Some(end) if end == head.len() => RequestHead::scanned(&scan, head),
            _ => Err(HeadFault::NO_END),
        }
    }

    /// Judges a whole head whose end `scan` has just found.
    pub fn scanned(scan: &Scan, head: &[u8]) -> Result<RequestHead, HeadFault> {
        let Some(line) = scan.request else {
            return Err(HeadFault::NO_END);
        };
        let bytes = head.get(scan.skipped()..).unwrap_or_default();
        let section = bytes.get(line.len()..).unwrap_or_default();

        // Few heads have many fields, and room costs time.
        let (mut some, mut most);
        let room: &mut [httparse::Header<'_>] = if scan.fields <= FEW_FIELDS {
            some = [httparse::EMPTY_HEADER; FEW_FIELDS];
            &mut some
        } else {
            most = [httparse::EMPTY_HEADER; MAX_FIELDS];
            &mut most
        };
        let split = match httparse::parse_headers(section, room) {
            Ok(httparse::Status::Complete((n, split))) if n == section.len() => split,
            Ok(_) => return Err(HeadFault::NO_END),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::TooManyFields),
            Err(httparse::Error::HeaderName) if has_fold(section) => return Err(HeadFault::FOLD),
            Err(httparse::Error::HeaderValue) => return Err(HeadFault::CONTROL),
            Err(_) => return Err(HeadFault::FIELD_NAME),
        };
        let mut fields = Vec::with_capacity(split.len());
        for field in split {
            if !is_token(field.name.as_bytes()) {
                return Err(HeadFault::FIELD_NAME);
            }
            // The scan has seen to it that no value holds a control character.
            fields.push(Field {
                name: Span::within(bytes, field.name.as_bytes()),
                value: Span::within(bytes, trim(field.value)),
            });
        }

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

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The target's path as it was sent: not decoded, in UTF-8, beginning with `/`. An absolute target
    /// is reduced to its path. `*` with OPTIONS only; empty with CONNECT, whose target has no path.
    pub fn path(&self) -> &[u8] {
        match self.line.target {
            Target::Path { path, .. } if path.is_empty() => b"/",
            Target::Path { path, .. } => path.of(&self.bytes),
            Target::Asterisk => b"*",
            Target::Authority(_) => b"",
        }
    }

    /// What follows the first `?` of the target, as it was sent.
    pub fn query(&self) -> Option<&[u8]> {
        match self.line.target {
            Target::Path { query, .. } => query.map(|query| query.of(&self.bytes)),
            Target::Asterisk | Target::Authority(_) => None,
        }
    }

    /// The host and port that the request is for: an absolute target's, else the field `Host`
    /// (RFC 9112 §3.2.2).
    pub fn authority(&self) -> Option<&[u8]> {
        match self.line.target {
            Target::Authority(authority)
            | Target::Path {
                authority: Some(authority),
                ..
            } => Some(authority.of(&self.bytes)),
            Target::Path { .. } | Target::Asterisk => self.field("host"),
        }
    }

    /// How the end of the body is known.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// What the client expects.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Whether the client lets the connection live on (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The value of the first field of this name, in any case, without the blanks around it.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields(name).next()
    }

    /// Whether this is a GET without a query, conditions or ranges, so that whoever asks the same is told the same.
    pub fn is_plain_get(&self) -> bool {
        let counts = |field: &Field| {
            let name = field.name.of(&self.bytes);
            let begins = |word: &[u8]| {
                name.len() >= word.len() && name[..word.len()].eq_ignore_ascii_case(word)
            };
            begins(b"if-") || begins(b"range")
        };
        self.method() == Method::Get
            && self.query().is_none()
            && self.expect == Expect::None
            && self.framing != Framing::Chunked
            && !self.fields.iter().any(counts)
    }

    /// The values of all fields of this name, in any case, in order, without the blanks around them.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> {
        let matching = move |field: &&Field| {
            let found = field.name.of(&self.bytes);
            found.eq_ignore_ascii_case(name.as_bytes())
        };
        let value = |field: &'a Field| field.value.of(&self.bytes);
        self.fields.iter().filter(matching).map(value)
    }

    /// RFC 9112 §3.2: one in HTTP/1.1, at most one in HTTP/1.0, and never an impossible one.
    fn check_host(&self) -> Result<(), HeadFault> {
        let mut hosts = self.fields("host");
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => Err(HeadFault::HOSTS),
            (Some(host), None) if !is_authority(host) => Err(HeadFault::HOST),
            (None, _) if self.version() == Version::V11 => Err(HeadFault::NO_HOST),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.1 to §6.3.
    fn find_framing(&self) -> Result<Framing, HeadFault> {
        let mut lengths = self.fields("content-length");
        let (length, second) = (lengths.next(), lengths.next());
        let coded = self.field("transfer-encoding").is_some();
        if coded && length.is_some() {
            return Err(HeadFault::TWO_FRAMINGS);
        }
        if coded {
            if self.version() == Version::V10 {
                return Err(HeadFault::CODING_IN_1_0);
            }
            return self.check_codings().map(|()| Framing::Chunked);
        }
        match (length, second) {
            (None, _) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(HeadFault::LENGTHS),
            (Some(length), None) => decimal(length)
                .map(Framing::Length)
                .ok_or(HeadFault::LENGTH),
        }
    }

    /// `chunked` must be there once and alone. A list that nobody can read, and one in which `chunked`
    /// comes twice, with parameters, or before another coding, is malformed.
    fn check_codings(&self) -> Result<(), HeadFault> {
        let mut chunked = false;
        let mut other = false;
        for line in self.fields("transfer-encoding") {
            for coding in line.split(|&byte| byte == b',').map(trim) {
                let mut parts = coding.splitn(2, |&byte| byte == b';');
                let name = parts.next().map(trim).unwrap_or_default();
                let is_chunked = name.eq_ignore_ascii_case(b"chunked");
                if !is_token(name) || chunked || (is_chunked && parts.next().is_some()) {
                    return Err(HeadFault::CODINGS);
                }
                chunked |= is_chunked;
                other |= !is_chunked;
            }
        }
        if other {
            return Err(HeadFault::TransferCoding);
        }
        Ok(())
    }

    fn find_expect(&self) -> Expect {
        let mut expect = Expect::None;
        for line in self.fields("expect") {
            for expectation in line.split(|&byte| byte == b',').map(trim) {
                if expectation.eq_ignore_ascii_case(b"100-continue") {
                    expect = Expect::Continue;
                } else if !expectation.is_empty() {
                    return Expect::Other;
                }
            }
        }
        if self.version() == Version::V10 {
            return Expect::None;
        }
        expect
    }

    fn find_keep_alive(&self) -> bool {
        let mut keep = self.version() == Version::V11;
        for line in self.fields("connection") {
            for option in line.split(|&byte| byte == b',').map(trim) {
                if option.eq_ignore_ascii_case(b"close") {
                    return false;
                }
                keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        keep
    }
}

/// Without path, query and values: they may hold what no log may show.
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
    /// Without the blanks around it.
    value: Span,
}

/// Whether a line of the field section begins with a blank: an obsolete line folding
/// (RFC 9112 §5.2), or junk before the first field.
fn has_fold(section: &[u8]) -> bool {
    matches!(section.first(), Some(b' ' | b'\t'))
        || section
            .windows(2)
            .any(|pair| matches!(pair, [b'\n', b' ' | b'\t']))
}

#[cfg(test)]
mod tests;
