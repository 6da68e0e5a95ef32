//! The states of an exchange, and the parts that they are made of.

use std::ops::Range as Span;
use std::time::Instant;

use crate::http::body::Body;
use crate::http::exchange::want::{Ended, Fault};
use crate::http::head::{Expect, Method, RequestHead, Version};
use crate::http::response::{Content, Part};

/// Bytes of a body that count as progress, in either direction. With less, a client could hold a connection open by
/// sending single bytes.
const PROGRESS: u64 = 4096;

#[derive(Debug)]
pub(super) enum ExchangeState {
    /// No byte of a request has arrived.
    Idle {
        deadline: Instant,
    },
    /// The head of a request is incomplete.
    Head {
        deadline: Instant,
    },
    /// The caller decides on a request, or on the error found in it.
    Deciding {
        summary: RequestSummary,
        request: Result<RequestHead, Fault>,
    },
    /// The interim response 100 is written; `sent` bytes of it are.
    Continuing {
        summary: RequestSummary,
        size: u64,
        sent: usize,
        progress: Progress,
    },
    /// A body of exactly `size` bytes of data is received.
    Receiving {
        summary: RequestSummary,
        size: u64,
        progress: Progress,
    },
    /// The body is complete; the caller stores it.
    Publishing {
        summary: RequestSummary,
    },
    /// The response is sent.
    Answering {
        summary: RequestSummary,
        close: bool,
        response: PendingResponse,
        progress: Progress,
    },
    /// The rest of an unwanted body is read and dropped, to keep the connection.
    Discarding {
        body: Body,
        deadline: Instant,
    },
    /// The write side is shut, and input is dropped until the client closes (RFC 9112 §9.6).
    Lingering {
        since: Instant,
        last_input: Instant,
        dropped: u64,
    },
    Closed(Ended),
}

/// The properties of a request that matter until its response has been sent.
#[derive(Debug)]
pub(super) struct RequestSummary {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// The body, as far as it has been read; `None` when its end can no longer be found.
    pub(super) body: Option<Body>,
}

impl RequestSummary {
    pub(super) fn of(request: &RequestHead) -> RequestSummary {
        RequestSummary {
            is_head: request.method() == Method::Head,
            version: request.version(),
            keep_alive: request.keep_alive(),
            expects_continue: request.expect() == Expect::Continue
                && request.version() == Version::V11,
            body: Some(Body::new(request.framing())),
        }
    }

    /// For a request that is malformed: one response, and the connection ends.
    pub(super) fn malformed(is_head: bool) -> RequestSummary {
        RequestSummary {
            is_head,
            version: Version::V11,
            keep_alive: false,
            expects_continue: false,
            body: None,
        }
    }
}

/// A response that is being sent.
#[derive(Debug)]
pub(super) struct PendingResponse {
    /// Status line, fields, empty line, and a text body if there is one.
    head: Vec<u8>,
    /// Bytes of `head` that have been written.
    written: usize,
    /// The rest of the content; sent parts are removed.
    content: Content,
}

impl PendingResponse {
    /// `head` includes the empty line.
    pub(super) fn new(mut head: Vec<u8>, content: Content) -> PendingResponse {
        let content = match content {
            Content::Text(text) => {
                head.extend_from_slice(&text);
                Content::Empty
            }
            other => other,
        };
        PendingResponse {
            head,
            written: 0,
            content,
        }
    }

    /// The bytes to write next; empty when a span of the file is next.
    pub(super) fn output(&self) -> &[u8] {
        if self.written < self.head.len() {
            return &self.head[self.written..];
        }
        match &self.content {
            Content::Parts(parts) => match parts.front() {
                Some(Part::Bytes(bytes)) => bytes,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The span of the file to send next; `None` while there are bytes to write.
    pub(super) fn file_span(&self) -> Option<&Span<u64>> {
        if self.written < self.head.len() {
            return None;
        }
        match &self.content {
            Content::File(span) => Some(span),
            Content::Parts(parts) => match parts.front() {
                Some(Part::File(span)) => Some(span),
                _ => None,
            },
            Content::Empty | Content::Text(_) => None,
        }
    }

    /// The span of the file that follows the head and ends the response.
    pub(super) fn last_file_span(&self) -> Option<&Span<u64>> {
        match &self.content {
            Content::File(span) if !span.is_empty() => Some(span),
            _ => None,
        }
    }

    /// Whether file data follows directly after the bytes to write next.
    pub(super) fn file_follows(&self) -> bool {
        match &self.content {
            Content::File(span) => !span.is_empty(),
            Content::Parts(parts) => parts.len() > 1,
            Content::Empty | Content::Text(_) => false,
        }
    }

    /// Bytes of the output were written.
    pub(super) fn wrote(&mut self, n: usize) {
        if self.written < self.head.len() {
            self.written += n;
        } else if let Content::Parts(parts) = &mut self.content {
            if let Some(Part::Bytes(bytes)) = parts.front_mut() {
                bytes.drain(..n.min(bytes.len()));
                if bytes.is_empty() {
                    parts.pop_front();
                }
            }
        }
    }

    /// Bytes of the next span of the file were sent.
    pub(super) fn sent_file(&mut self, n: u64) {
        let advance = |span: &mut Span<u64>| {
            span.start = (span.start + n).min(span.end);
            span.is_empty()
        };
        match &mut self.content {
            Content::File(span) => {
                advance(span);
            }
            Content::Parts(parts) => {
                if let Some(Part::File(span)) = parts.front_mut() {
                    if advance(span) {
                        parts.pop_front();
                    }
                }
            }
            Content::Empty | Content::Text(_) => {}
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.written >= self.head.len()
            && match &self.content {
                Content::File(span) => span.is_empty(),
                Content::Parts(parts) => parts.is_empty(),
                Content::Empty | Content::Text(_) => true,
            }
    }
}

/// The time of the last progress of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// When [`PROGRESS`] bytes had last been moved.
    pub(super) counted_at: Instant,
    /// Bytes moved since then.
    moved: u64,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Progress {
        Progress {
            counted_at: now,
            moved: 0,
        }
    }

    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= PROGRESS {
            *self = Progress::new(now);
        }
    }
}

/// Input that has been received but not consumed.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// Bytes before this offset have been consumed.
    start: usize,
}

impl Input {
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops consumed bytes; an empty buffer releases its memory.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.bytes.len() {
            self.clear();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Input::default();
    }
}
