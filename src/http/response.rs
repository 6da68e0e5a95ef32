//! HTTP responses, including those for files (RFC 9110 §15, RFC 9112 §4).
//!
//! A head is written into one buffer. The exchange adds the `Connection` field, because only it knows whether the
//! connection stays open, and omits the body of a response to HEAD.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::ops::Range as Span;
use std::time::{Duration, SystemTime};

use crate::decimal;
use crate::http::condition::{self, ConditionResult, Validators};
use crate::http::head::{Method, RequestHead};
use crate::http::range::{self, Ranges};
use crate::http::{cors, disposition};
use crate::now::{LAST_SECOND, Now, unix};

/// Prevents uploads from running scripts, loading resources or being framed (XEP-0363 §9, §10), but lets images, audio
/// and video be displayed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// `max-age` in seconds of a file without expiry: a year, because the content of a URL never changes.
const MAX_AGE: u64 = 31_536_000;

/// A response without its `Connection` field.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, without the empty line.
    pub(super) head: Vec<u8>,
    pub(super) content: Content,
    /// Whether the connection must be closed after the response.
    pub(super) close: bool,
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Content {
    Empty,
    Text(Vec<u8>),
    /// A range of the open file.
    File(Span<u64>),
    /// `multipart/byteranges`.
    Parts(VecDeque<Part>),
}

/// A piece of a `multipart/byteranges` body.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    File(Span<u64>),
}

impl Answer {
    /// Status line and fields.
    #[cfg(test)]
    pub fn head_for_test(&self) -> &[u8] {
        &self.head
    }

    /// A copy of the response, with spare capacity for the field that the exchange adds. Only for responses whose body is
    /// a range of a file.
    pub fn repeated(&self) -> Answer {
        let mut head = Vec::with_capacity(self.head.len() + 32);
        head.extend_from_slice(&self.head);
        let content = match &self.content {
            Content::File(span) => Content::File(span.clone()),
            Content::Empty | Content::Text(_) | Content::Parts(_) => Content::Empty,
        };
        Answer {
            status: self.status,
            head,
            content,
            close: self.close,
        }
    }

    /// Closes the connection after this response.
    pub fn closing(mut self) -> Answer {
        self.close = true;
        self
    }
}

/// The common fields of all responses, from the configuration; the date is updated once per second.
#[derive(Debug)]
pub struct Common {
    date: String,
    date_unix: u64,
    cors: bool,
    /// Configured fields, which replace upslot's fields of the same name.
    custom: Vec<(String, String)>,
}

impl Common {
    pub fn new(cors: bool, custom: Vec<(String, String)>) -> Common {
        Common {
            date: String::new(),
            date_unix: u64::MAX,
            cors,
            custom,
        }
    }

    /// Updates the `Date` field.
    pub fn set_date(&mut self, now: Now) {
        let unix = now.unix();
        if unix != self.date_unix {
            self.date_unix = unix;
            self.date = http_date(now.wall);
        }
    }

    /// Starts a response.
    pub fn answer(&self, status: u16) -> Builder<'_> {
        let mut head = Vec::with_capacity(768);
        head.extend_from_slice(b"HTTP/1.1 ");
        push_number(&mut head, status.into());
        head.push(b' ');
        head.extend_from_slice(reason(status).as_bytes());
        head.extend_from_slice(b"\r\n");
        let mut builder = Builder {
            common: self,
            status,
            head,
        };
        builder.push("Date", &self.date);
        if self.cors {
            for (name, value) in cors::RESPONSE_FIELDS {
                builder = builder.field(name, value);
            }
        }
        for (name, value) in &self.custom {
            builder.push(name, value);
        }
        builder
    }

    /// An error response whose body is one line of text.
    pub fn refusal(&self, status: u16, why: &dyn fmt::Display) -> Answer {
        let mut builder = self.answer(status).field("Cache-Control", "no-store");
        if status == 401 {
            builder = builder.field("WWW-Authenticate", "Bearer realm=\"upslot\"");
        }
        if status == 405 {
            builder = builder.field("Allow", cors::METHODS);
        }
        if status == 503 {
            builder = builder.field("Retry-After", "5");
        }
        builder.text(why)
    }

    /// The response to OPTIONS.
    pub fn options(&self) -> Answer {
        let mut builder = self.answer(204).field("Allow", cors::METHODS);
        if self.cors {
            for (name, value) in cors::PREFLIGHT {
                builder = builder.field(name, value);
            }
        }
        builder.empty()
    }

    /// The same response for every URL without a file.
    pub fn not_found(&self) -> Answer {
        self.refusal(404, &"There is no such file.")
    }

    /// The response to GET and HEAD of a file: 200, 206, 304, 412 or 416.
    pub fn file(&self, request: &RequestHead, file: &FileFacts<'_>, now: Now) -> Answer {
        let etag = etag(file.size, file.modified);
        let validators = Validators {
            etag: &etag,
            modified: file.modified,
        };
        let verdict = condition::evaluate(request, Some(&validators));
        if verdict == ConditionResult::Failed {
            return self.refusal(
                412,
                &"The file does not meet the conditions of the request.",
            );
        }
        let ranged = verdict == ConditionResult::Proceed
            && request.method() == Method::Get
            && condition::range_applies(request, &validators);
        let ranges = if ranged {
            range::from_request(request)
                .map_or(Ranges::Whole, |specs| range::resolve(&specs, file.size))
        } else {
            Ranges::Whole
        };
        let status = match (verdict, &ranges) {
            (ConditionResult::NotModified, _) => 304,
            (_, Ranges::Whole) => 200,
            (_, Ranges::Unsatisfiable) => 416,
            (_, Ranges::One(_) | Ranges::Many(_)) => 206,
        };
        if status == 416 {
            return self
                .answer(416)
                .field("Content-Range", format!("bytes */{}", file.size))
                .field("Accept-Ranges", "bytes")
                .field("Cache-Control", "no-store")
                .text(&"The requested range is outside the file.");
        }
        let builder = self
            .answer(status)
            .field("ETag", &etag)
            .field("Last-Modified", http_date(file.modified.min(now.wall)))
            .field("Accept-Ranges", "bytes")
            .caching(file.expires_at, now)
            .field(
                "Content-Disposition",
                disposition::value(file.inline, file.name),
            )
            .field("X-Content-Type-Options", "nosniff")
            .default_field("Content-Security-Policy", CONTENT_SECURITY_POLICY);
        match ranges {
            _ if status == 304 => builder.empty(),
            Ranges::Many(ranges) => builder.parts(ranges, file),
            Ranges::One(span) => builder
                .field("Content-Type", file.content_type)
                .field("Content-Range", content_range(&span, file.size))
                .span(span),
            Ranges::Whole | Ranges::Unsatisfiable => builder
                .field("Content-Type", file.content_type)
                .span(0..file.size),
        }
    }
}

/// The properties of an open file that a response needs.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    pub name: &'a [u8],
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    pub content_type: &'a str,
    /// Whether browsers may display the file.
    pub inline: bool,
    /// The time at which the file expires.
    pub expires_at: Option<SystemTime>,
}

/// A response head under construction.
#[derive(Debug)]
pub struct Builder<'a> {
    common: &'a Common,
    status: u16,
    head: Vec<u8>,
}

impl Builder<'_> {
    /// Adds a field. The value must be a single line of ASCII.
    pub fn field(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.push(name, value.as_ref());
        self
    }

    /// Adds a field unless a configured field replaces it.
    fn default_field(self, name: &str, value: &str) -> Self {
        if self.is_replaced(name) {
            self
        } else {
            self.field(name, value)
        }
    }

    /// Makes the file cacheable until it expires (RFC 9111 §5.2.2, RFC 8246).
    fn caching(mut self, expires_at: Option<SystemTime>, now: Now) -> Self {
        const NAME: &str = "Cache-Control";
        if self.is_replaced(NAME) {
            return self;
        }
        let rest = expires_at.map_or(MAX_AGE, |at| {
            at.duration_since(now.wall).map_or(0, |d| d.as_secs())
        });
        self.head.extend_from_slice(NAME.as_bytes());
        self.head.extend_from_slice(b": max-age=");
        push_number(&mut self.head, rest.min(MAX_AGE));
        self.head
            .extend_from_slice(b", immutable, no-transform\r\n");
        self
    }

    /// Whether a field of this name is configured.
    fn is_replaced(&self, name: &str) -> bool {
        let mut custom = self.common.custom.iter();
        custom.any(|(custom, _)| custom.eq_ignore_ascii_case(name))
    }

    /// Finishes a response whose status does not allow a body.
    pub fn empty(self) -> Answer {
        self.finish(Content::Empty)
    }

    /// Finishes a response with an empty body.
    pub fn empty_body(mut self) -> Answer {
        self.push_length(0);
        self.finish(Content::Empty)
    }

    /// Finishes a response whose body is one line of text.
    pub fn text(self, line: &dyn fmt::Display) -> Answer {
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(body, "{line}");
        self.body("text/plain; charset=utf-8", body)
    }

    /// Finishes a response with this body.
    pub fn body(mut self, content_type: &str, body: String) -> Answer {
        self.push("Content-Type", content_type);
        self.push("X-Content-Type-Options", "nosniff");
        self.push_length(body.len() as u64);
        self.finish(Content::Text(body.into_bytes()))
    }

    /// Finishes a response whose body is a range of the open file.
    fn span(mut self, span: Span<u64>) -> Answer {
        self.push_length(span.end - span.start);
        self.finish(Content::File(span))
    }

    /// Finishes a response whose body is `multipart/byteranges` (RFC 9110 §14.6).
    fn parts(mut self, spans: Vec<Span<u64>>, file: &FileFacts<'_>) -> Answer {
        // The content cannot contain the boundary by design: it was written before the publication time was known.
        let boundary = format!(
            "upslot-{}",
            etag(file.size, file.modified).trim_matches('"')
        );
        let mut parts = VecDeque::with_capacity(2 * spans.len() + 1);
        let mut length = 0;
        for span in spans {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                file.content_type,
                content_range(&span, file.size)
            );
            length += head.len() as u64 + (span.end - span.start);
            parts.push_back(Part::Bytes(head.into_bytes()));
            parts.push_back(Part::File(span));
        }
        let end = format!("\r\n--{boundary}--\r\n");
        length += end.len() as u64;
        parts.push_back(Part::Bytes(end.into_bytes()));
        self.push(
            "Content-Type",
            &format!("multipart/byteranges; boundary={boundary}"),
        );
        self.push_length(length);
        self.finish(Content::Parts(parts))
    }

    fn finish(self, content: Content) -> Answer {
        Answer {
            status: self.status,
            head: self.head,
            content,
            close: false,
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value.as_bytes());
        self.head.extend_from_slice(b"\r\n");
    }

    fn push_length(&mut self, length: u64) {
        self.head.extend_from_slice(b"Content-Length: ");
        push_number(&mut self.head, length);
        self.head.extend_from_slice(b"\r\n");
    }
}

/// Formats an HTTP date (RFC 9110 §5.6.7). A time before 1970 or after 9999 becomes the nearest valid one.
fn http_date(time: SystemTime) -> String {
    let seconds = unix(time).min(LAST_SECOND);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A strong validator. A published file never changes; a different file at the same path would differ in size or time.
fn etag(size: u64, modified: SystemTime) -> String {
    let nanos = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    // 16 hex digits of nanoseconds last until the year 2554.
    let mut tag = String::with_capacity(40);
    tag.push('"');
    push_hex(&mut tag, nanos);
    tag.push('-');
    push_hex(&mut tag, size.into());
    tag.push('"');
    tag
}

fn content_range(span: &Span<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", span.start, span.end - 1)
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal::digits(
        number,
        &mut decimal::DigitBuffer::default(),
    ));
}

/// Appends lower-case hexadecimal digits without leading zeros.
fn push_hex(out: &mut String, number: u128) {
    let digits = (128 - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place)) as u32 & 0xf;
        out.extend(char::from_digit(digit, 16));
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
