//! Answers: response heads, and those that every route shares (RFC 9110 §15, RFC 9112 §4).
//!
//! A head is written straight into one buffer. The exchange adds the `Connection` field, because it alone knows
//! whether the connection goes on, and drops the body where the request was a HEAD.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::ops::Range as Span;
use std::time::{Duration, SystemTime};

use crate::decimal;
use crate::http::condition::{self, ConditionResult, Validators};
use crate::http::head::{Method, RequestHead};
use crate::http::range::{self, Ranges};
use crate::http::{cors, disposition};
use crate::now::{Now, unix};

/// The policy under which no upload can run script, load anything, or be framed (XEP-0363 §9, §10); pictures, sound
/// and video may still show themselves.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// How long a file without an end may be cached, in seconds: a year, because a URL's content never changes.
const MAX_AGE: u64 = 31_536_000;

/// The last second of the year 9999, in Unix seconds.
const LAST_SECOND: u64 = 253_402_300_799;

/// One answer, but for its `Connection` field.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, without the blank line.
    pub(super) head: Vec<u8>,
    pub(super) content: Content,
    /// Whether the connection must end after it.
    pub(super) close: bool,
}

/// What follows a head.
#[derive(Debug)]
pub(super) enum Content {
    Empty,
    Text(Vec<u8>),
    /// A span of the open file.
    File(Span<u64>),
    /// `multipart/byteranges`.
    Parts(VecDeque<Part>),
}

/// One piece of a `multipart/byteranges` body.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    File(Span<u64>),
}

impl Answer {
    /// Status line and fields so far.
    #[cfg(test)]
    pub fn head_for_test(&self) -> &[u8] {
        &self.head
    }

    /// The same answer once more, for a file's whole span only; with room for what the exchange adds.
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

    /// Ends the connection after this answer.
    pub fn closing(mut self) -> Answer {
        self.close = true;
        self
    }
}

/// What every answer has in common; built from the configuration, dated once a second.
#[derive(Debug)]
pub struct Common {
    date: String,
    date_unix: u64,
    cors: bool,
    /// The operator's fields; they replace upslot's own of the same name.
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

    /// Brings the `Date` up to the second.
    pub fn set_date(&mut self, now: Now) {
        let unix = now.unix();
        if unix != self.date_unix {
            self.date_unix = unix;
            self.date = http_date(now.wall);
        }
    }

    /// Begins an answer.
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

    /// A refusal: one readable line.
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

    /// The answer to OPTIONS.
    pub fn options(&self) -> Answer {
        let mut builder = self.answer(204).field("Allow", cors::METHODS);
        if self.cors {
            for (name, value) in cors::PREFLIGHT {
                builder = builder.field(name, value);
            }
        }
        builder.empty()
    }

    /// The one and the same answer for everything that names no file.
    pub fn not_found(&self) -> Answer {
        self.refusal(404, &"There is no such file.")
    }

    /// The answer to GET and HEAD of a file: 200, 206, 304, 412 or 416.
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
                &"The file is not in the state that the request asks for.",
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
                .text(&"The file does not have the bytes asked for.");
        }
        let builder = self
            .answer(status)
            .field("ETag", &etag)
            .field("Last-Modified", http_date(file.modified.min(now.wall)))
            .field("Accept-Ranges", "bytes")
            .caching(file.end, now)
            .field(
                "Content-Disposition",
                disposition::value(file.inline, file.name),
            )
            .field("X-Content-Type-Options", "nosniff")
            .own_field("Content-Security-Policy", CONTENT_SECURITY_POLICY);
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

/// What an answer must know of an open file.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    pub name: &'a [u8],
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    pub content_type: &'a str,
    /// Whether a browser may show it in place.
    pub inline: bool,
    /// The moment from which it must be gone.
    pub end: Option<SystemTime>,
}

/// A head being written.
#[derive(Debug)]
pub struct Builder<'a> {
    common: &'a Common,
    status: u16,
    head: Vec<u8>,
}

impl Builder<'_> {
    /// Adds a field. The value has been checked to be one line of ASCII where it was made.
    pub fn field(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.push(name, value.as_ref());
        self
    }

    /// Adds a field that the operator may have replaced.
    fn own_field(self, name: &str, value: &str) -> Self {
        if self.is_replaced(name) {
            self
        } else {
            self.field(name, value)
        }
    }

    /// A file is cacheable as long as it lives (RFC 9111 §5.2.2, RFC 8246).
    fn caching(mut self, end: Option<SystemTime>, now: Now) -> Self {
        const NAME: &str = "Cache-Control";
        if self.is_replaced(NAME) {
            return self;
        }
        let rest = end.map_or(MAX_AGE, |end| {
            end.duration_since(now.wall).map_or(0, |d| d.as_secs())
        });
        self.head.extend_from_slice(NAME.as_bytes());
        self.head.extend_from_slice(b": max-age=");
        push_number(&mut self.head, rest.min(MAX_AGE));
        self.head
            .extend_from_slice(b", immutable, no-transform\r\n");
        self
    }

    /// Whether the operator has a field of this name.
    fn is_replaced(&self, name: &str) -> bool {
        let mut custom = self.common.custom.iter();
        custom.any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// Ends the head; there is no body, nor can there be one.
    pub fn empty(self) -> Answer {
        self.finish(Content::Empty)
    }

    /// Ends the head; there could be a body, and it has no bytes.
    pub fn bodiless(mut self) -> Answer {
        self.push_length(0);
        self.finish(Content::Empty)
    }

    /// Ends the head; the body is one line of text.
    pub fn text(self, line: &dyn fmt::Display) -> Answer {
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(body, "{line}");
        self.body("text/plain; charset=utf-8", body)
    }

    /// Ends the head; the body is sent as it is, with its own type.
    pub fn body(mut self, content_type: &str, body: String) -> Answer {
        self.push("Content-Type", content_type);
        self.push("X-Content-Type-Options", "nosniff");
        self.push_length(body.len() as u64);
        self.finish(Content::Text(body.into_bytes()))
    }

    /// Ends the head; the body is a span of the open file.
    fn span(mut self, span: Span<u64>) -> Answer {
        self.push_length(span.end - span.start);
        self.finish(Content::File(span))
    }

    /// Ends the head; the body is `multipart/byteranges` (RFC 9110 §14.6).
    fn parts(mut self, spans: Vec<Span<u64>>, file: &FileFacts<'_>) -> Answer {
        // The time of publication, to the nanosecond, is not known to whoever wrote the content before it.
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

/// RFC 9110 §5.6.7. A date that it cannot say, before 1970 or after 9999, becomes the nearest that it can.
fn http_date(time: SystemTime) -> String {
    let seconds = unix(time).min(LAST_SECOND);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A strong validator: a published file never changes, and another one at its place would differ in one of these.
fn etag(size: u64, modified: SystemTime) -> String {
    let nanos = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    // Sixteen digits of nanoseconds reach to the year 2554.
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

/// Lower-case hexadecimal digits, none of them superfluous.
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
