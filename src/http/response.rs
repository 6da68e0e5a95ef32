//! HTTP responses, including those for files (RFC 9110 §15, RFC 9112 §4).
//!
//! A head is written into one buffer. The exchange adds the `Connection` field, because only it knows whether the
//! connection stays open, and omits the body of a response to HEAD.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::ops::Range as Span;
use std::time::{Duration, SystemTime};

use crate::http::condition::{self, ConditionResult, Validators};
use crate::http::head::{Method, RequestHead};
use crate::http::landing::LandingPage;
use crate::http::range::{self, Ranges};
use crate::http::{cors, disposition};
use crate::now::{LAST_SECOND, Now, unix};

/// Prevents uploads from running scripts, loading resources or being framed (XEP-0363 §9, §10), but lets images, audio
/// and video be displayed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// `max-age` in seconds of a file without expiry: a year, because the content of a URL never changes.
const MAX_AGE: u64 = 31_536_000;

/// A response without its `Connection` field.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, without the empty line.
    pub head: Vec<u8>,
    /// The body; no part is empty.
    pub(super) body: VecDeque<Part>,
    /// Whether the connection must be closed after the response.
    pub(super) close: bool,
}

/// A piece of a response.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    /// A range of the open file.
    File(Span<u64>),
}

impl Answer {
    /// The first range of the file that the body contains.
    pub fn first_span(&self) -> Option<&Span<u64>> {
        self.body.iter().find_map(|part| match part {
            Part::File(span) => Some(span),
            Part::Bytes(_) => None,
        })
    }

    /// A copy whose head has room for what the exchange adds.
    pub fn copy(&self) -> Answer {
        let mut head = Vec::with_capacity(self.head.len() + 32);
        head.extend_from_slice(&self.head);
        Answer {
            head,
            body: self.body.clone(),
            ..*self
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
        head.extend_from_slice(status_line_end(status).as_bytes());
        let mut builder = Builder {
            common: self,
            status,
            head,
        }
        .field("Date", &self.date);
        if self.cors {
            for (name, value) in cors::RESPONSE_FIELDS {
                builder = builder.field(name, value);
            }
        }
        for (name, value) in &self.custom {
            builder = builder.field(name, value);
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

    /// The response to GET and HEAD of `/`: the page, or one line of text. `Vary` is there in both cases.
    pub fn root(&self, page: Option<&LandingPage>) -> Answer {
        let builder = self.answer(200).field("Vary", "Accept");
        match page {
            Some(page) => builder
                .default_field("Content-Security-Policy", &page.policy)
                .body("text/html; charset=utf-8", page.html.clone()),
            None => builder
                .text(&"upslot stores and serves files that are shared over XMPP (XEP-0363)."),
        }
    }

    /// A redirection to a URL that stays valid for `max_age` seconds more. `is_public` says that the URL is no secret.
    pub fn redirect(&self, url: &str, max_age: u64, is_public: bool) -> Answer {
        let scope = if is_public { "public" } else { "private" };
        self.answer(307)
            .field("Location", url)
            .default_field("Cache-Control", &format!("{scope}, max-age={max_age}"))
            .length(0)
            .finish([])
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
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value.as_ref().as_bytes());
        self.head.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a field unless a configured field replaces it.
    fn default_field(self, name: &str, value: &str) -> Self {
        let mut custom = self.common.custom.iter();
        if custom.any(|(custom, _)| custom.eq_ignore_ascii_case(name)) {
            self
        } else {
            self.field(name, value)
        }
    }

    /// Makes the file cacheable until it expires (RFC 9111 §5.2.2, RFC 8246).
    fn caching(self, expires_at: Option<SystemTime>, now: Now) -> Self {
        self.default_field("Cache-Control", &cache_control(expires_at, now.wall))
    }

    /// Finishes a response whose status does not allow a body.
    pub fn empty(self) -> Answer {
        self.finish([])
    }

    /// Finishes a response whose body is one line of text.
    pub fn text(self, line: &dyn fmt::Display) -> Answer {
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(body, "{line}");
        self.body("text/plain; charset=utf-8", body)
    }

    /// Finishes a response with this body.
    pub fn body(self, content_type: &str, body: String) -> Answer {
        self.field("Content-Type", content_type)
            .field("X-Content-Type-Options", "nosniff")
            .length(body.len() as u64)
            .finish([Part::Bytes(body.into_bytes())])
    }

    /// Finishes a response whose body is a range of the open file.
    fn span(self, span: Span<u64>) -> Answer {
        self.length(span.end - span.start)
            .finish([Part::File(span)])
    }

    /// Finishes a response whose body is `multipart/byteranges` (RFC 9110 §14.6).
    fn parts(self, spans: Vec<Span<u64>>, file: &FileFacts<'_>) -> Answer {
        // The content cannot contain the boundary by design: it was written before the publication time was known.
        let boundary = format!(
            "upslot-{}",
            etag(file.size, file.modified).trim_matches('"')
        );
        let mut parts = Vec::with_capacity(2 * spans.len() + 1);
        let mut length = 0;
        for span in spans {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                file.content_type,
                content_range(&span, file.size)
            );
            length += head.len() as u64 + (span.end - span.start);
            parts.push(Part::Bytes(head.into_bytes()));
            parts.push(Part::File(span));
        }
        let end = format!("\r\n--{boundary}--\r\n");
        length += end.len() as u64;
        parts.push(Part::Bytes(end.into_bytes()));
        self.field(
            "Content-Type",
            format!("multipart/byteranges; boundary={boundary}"),
        )
        .length(length)
        .finish(parts)
    }

    fn finish(self, body: impl IntoIterator<Item = Part>) -> Answer {
        let is_empty = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.is_empty(),
            Part::File(span) => span.is_empty(),
        };
        Answer {
            status: self.status,
            head: self.head,
            body: body.into_iter().filter(|part| !is_empty(part)).collect(),
            close: false,
        }
    }

    fn length(self, bytes: u64) -> Self {
        self.field("Content-Length", bytes.to_string())
    }
}

/// The value of `Cache-Control` for a file that expires at this time: it never changes until then.
pub fn cache_control(expires_at: Option<SystemTime>, now: SystemTime) -> String {
    let rest = expires_at.map_or(MAX_AGE, |at| {
        at.duration_since(now).map_or(0, |d| d.as_secs())
    });
    let rest = rest.min(MAX_AGE);
    format!("max-age={rest}, immutable, no-transform")
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
    format!("\"{nanos:x}-{size:x}\"")
}

fn content_range(span: &Span<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", span.start, span.end - 1)
}

/// The status code and the reason phrase.
fn status_line_end(status: u16) -> &'static str {
    match status {
        200 => "200 OK\r\n",
        201 => "201 Created\r\n",
        204 => "204 No Content\r\n",
        206 => "206 Partial Content\r\n",
        304 => "304 Not Modified\r\n",
        307 => "307 Temporary Redirect\r\n",
        400 => "400 Bad Request\r\n",
        401 => "401 Unauthorized\r\n",
        402 => "402 Payment Required\r\n",
        403 => "403 Forbidden\r\n",
        404 => "404 Not Found\r\n",
        405 => "405 Method Not Allowed\r\n",
        408 => "408 Request Timeout\r\n",
        409 => "409 Conflict\r\n",
        411 => "411 Length Required\r\n",
        412 => "412 Precondition Failed\r\n",
        413 => "413 Content Too Large\r\n",
        414 => "414 URI Too Long\r\n",
        415 => "415 Unsupported Media Type\r\n",
        416 => "416 Range Not Satisfiable\r\n",
        417 => "417 Expectation Failed\r\n",
        431 => "431 Request Header Fields Too Large\r\n",
        501 => "501 Not Implemented\r\n",
        503 => "503 Service Unavailable\r\n",
        505 => "505 HTTP Version Not Supported\r\n",
        507 => "507 Insufficient Storage\r\n",
        _ => "500 Internal Server Error\r\n",
    }
}
