//! What the machine remembers: its states, and the small parts that they are made of.

use std::time::Instant;

use crate::http::body::Body;
use crate::http::exchange::want::{Ended, Fault};
use crate::http::head::{Expect, Method, RequestHead, Version};
use crate::http::response::Content;

/// Bytes of a body that count as progress, either way. Less, and a client could hold a connection with a drip.
const PROGRESS: u64 = 4096;

#[derive(Debug)]
pub(super) enum State {
    Idle {
        until: Instant,
    },
    Head {
        until: Instant,
    },
    Deciding {
        asked: Asked,
        request: Result<RequestHead, Fault>,
    },
    Continuing {
        asked: Asked,
        size: u64,
        sent: usize,
        progress: Progress,
    },
    Receiving {
        asked: Asked,
        size: u64,
        progress: Progress,
    },
    Publishing {
        asked: Asked,
    },
    Answering {
        asked: Asked,
        close: bool,
        head: Vec<u8>,
        sent: usize,
        content: Content,
        progress: Progress,
    },
    Discarding {
        body: Body,
        until: Instant,
    },
    Lingering {
        since: Instant,
        last: Instant,
        dropped: u64,
    },
    Closed(Ended),
}

/// What must be remembered of a request until its answer is out.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) head_only: bool,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects: bool,
    /// The body, as far as it has been read; `None` when its end cannot be known any more.
    pub(super) body: Option<Body>,
}

impl Asked {
    pub(super) fn of(request: &RequestHead) -> Asked {
        Asked {
            head_only: request.method() == Method::Head,
            version: request.version(),
            keep_alive: request.keep_alive(),
            expects: request.expect() == Expect::Continue && request.version() == Version::V11,
            body: Some(Body::new(request.framing())),
        }
    }

    /// For a request whose head or framing is beyond understanding: one answer and the end.
    pub(super) fn broken(head_only: bool) -> Asked {
        Asked {
            head_only,
            version: Version::V11,
            keep_alive: false,
            expects: false,
            body: None,
        }
    }
}

/// When a body last moved by as much as counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) mark: Instant,
    pub(super) since: u64,
}

impl Progress {
    pub(super) fn begin(now: Instant) -> Progress {
        Progress {
            mark: now,
            since: 0,
        }
    }

    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.since = self.since.saturating_add(bytes);
        if self.since >= PROGRESS {
            *self = Progress::begin(now);
        }
    }
}

/// Bytes that came and were not consumed yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
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

    /// Drops consumed bytes; an empty buffer gives its memory back.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.bytes.len() {
            *self = Input::default();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Input::default();
    }
}
