//! The states of an exchange, and the parts that they are made of.

use std::collections::VecDeque;
use std::ops::Range as Span;
use std::time::{Duration, Instant};

use crate::http::body::Body;
use crate::http::exchange::want::{Ended, RequestError};
use crate::http::head::{Expect, Method, RequestHead, Version};
use crate::http::response::Part;

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
        request: Result<RequestHead, RequestError>,
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
            expects_continue: request.expect() == Expect::Continue,
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
    /// The parts that have not been sent, starting with the head.
    parts: VecDeque<Part>,
    /// Bytes of the first part that have been written.
    written: usize,
}

impl PendingResponse {
    /// `head` includes the empty line. Text that follows it is written with it.
    pub(super) fn new(mut head: Vec<u8>, mut body: VecDeque<Part>) -> PendingResponse {
        if let Some(Part::Bytes(text)) = body.front() {
            head.extend_from_slice(text);
            body.pop_front();
        }
        body.push_front(Part::Bytes(head));
        PendingResponse {
            parts: body,
            written: 0,
        }
    }

    /// The bytes to write next; empty when a span of the file is next.
    pub(super) fn output(&self) -> &[u8] {
        match self.parts.front() {
            Some(Part::Bytes(bytes)) => &bytes[self.written..],
            Some(Part::File(_)) | None => &[],
        }
    }

    /// The span of the file to send next; `None` while there are bytes to write.
    pub(super) fn file_span(&self) -> Option<&Span<u64>> {
        match self.parts.front() {
            Some(Part::File(span)) => Some(span),
            Some(Part::Bytes(_)) | None => None,
        }
    }

    /// The span of the file that follows the bytes to write next and ends the response.
    pub(super) fn last_file_span(&self) -> Option<&Span<u64>> {
        match self.parts.get(1) {
            Some(Part::File(span)) if self.parts.len() == 2 => Some(span),
            _ => None,
        }
    }

    /// Whether file data follows directly after the bytes to write next.
    pub(super) fn file_follows(&self) -> bool {
        self.parts.len() > 1
    }

    /// Bytes of the output were written.
    pub(super) fn wrote(&mut self, n: usize) {
        if let Some(Part::Bytes(bytes)) = self.parts.front() {
            self.written += n;
            if self.written >= bytes.len() {
                self.parts.pop_front();
                self.written = 0;
            }
        }
    }

    /// Bytes of the next span of the file were sent.
    pub(super) fn sent_file(&mut self, n: u64) {
        if let Some(Part::File(span)) = self.parts.front_mut() {
            span.start = (span.start + n).min(span.end);
            if span.is_empty() {
                self.parts.pop_front();
            }
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.parts.is_empty()
    }
}

/// The time of the last progress of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// When [`PROGRESS`] bytes had last been moved.
    counted_at: Instant,
    /// Bytes moved since then.
    moved: u64,
    /// Since when the client is not waited for.
    paused_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Progress {
        Progress {
            counted_at: now,
            moved: 0,
            paused_at: None,
        }
    }

    /// When too little has been moved for this time; never during a pause.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Instant> {
        match self.paused_at {
            None => Some(self.counted_at + limit),
            Some(_) => None,
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_at.get_or_insert(now);
    }

    /// Ends a pause, whose time does not count.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(paused_at) = self.paused_at.take() {
            self.counted_at += now.saturating_duration_since(paused_at);
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
