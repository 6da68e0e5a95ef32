//! The state machine of one HTTP connection (RFC 9112).
//!
//! The driver reports events to it in the past tense, and [`Exchange::want`] returns the one thing that it needs next.
//! It sees no socket, no file and no clock. Body bytes may bypass it, because it only counts them. Nothing is read
//! while a response is pending; there is no other flow control.
//!
//! ```text
//!           first byte          empty line              accept, Expect (RFC 9110 §10.1.1)
//!   Idle ──────────────▶ Head ─────────────▶ Deciding ─────────────▶ Continuing
//!    ▲                    │  error, too slow  │  │  ▲                     │ 100 written
//!    │                    └──────────────────▶│  │  │ error, too slow     ▼
//!    │                                 answer │  └──┼─ accept ───────▶ Receiving
//!    │                                        ▼     └───────────────────┘ │ last byte
//!    │◀──────── sent, keep-alive ───────── Answering ◀───── answer ─── Publishing
//!    │                                     │  │ sent, little unread
//!    │◀─ rest read ── Discarding ◀─────────┼──┘
//!                                          ├─ sent, more unread ─▶ Lingering ─▶ Closed (RFC 9112 §9.6)
//!                                          └─ sent, nothing unread ───────────▶ Closed
//! ```
//!
//! Reading order: `want` defines its outputs, `state` its states. This file handles request heads, deadlines and the
//! end of the connection, `receiving` request bodies, `answering` responses.

mod answering;
mod receiving;
mod state;
mod want;

use std::time::{Duration, Instant};

use crate::http::head::{HeadScan, MAX_HEAD, RequestHead};

pub use want::{Ended, RequestError, Timeouts, Want};

use state::{ExchangeState, Input, Progress, RequestSummary};

/// The limits of lingering: time without input, total time, and bytes. A client whose request is rejected early must be
/// able to finish writing and then read the response.
const LINGER_IDLE_TIME: Duration = Duration::from_secs(6);
const LINGER_TIME: Duration = Duration::from_secs(20);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

/// The state machine of one connection; the module documentation has its graph.
#[derive(Debug)]
pub struct Exchange {
    timeouts: Timeouts,
    input: Input,
    /// The search for the end of a head that has arrived in part.
    scan: Option<Box<HeadScan>>,
    state: ExchangeState,
    /// The connection ends after the current request, because the process shuts down.
    is_last: bool,
}

impl Exchange {
    pub fn new(timeouts: Timeouts, now: Instant) -> Exchange {
        Exchange {
            timeouts,
            input: Input::default(),
            scan: None,
            state: ExchangeState::Idle {
                deadline: now + timeouts.idle(),
            },
            is_last: false,
        }
    }

    /// What the exchange needs next. It does not change until an event is reported.
    pub fn want(&self) -> Want {
        match &self.state {
            ExchangeState::Idle { .. } | ExchangeState::Head { .. } => {
                let buffered = self.input.rest().len();
                Want::Head((MAX_HEAD + 4).saturating_sub(buffered).max(1))
            }
            ExchangeState::Deciding { .. } => Want::Decide,
            ExchangeState::Continuing { .. } => Want::Write,
            ExchangeState::Receiving { summary, .. } => {
                Want::Body(summary.body.as_ref().map_or(1, receiving::input_limit))
            }
            ExchangeState::Publishing { .. } => Want::Publish,
            ExchangeState::Answering { response, .. } => match response.file_span() {
                Some(span) => Want::File {
                    start: span.start,
                    end: span.end,
                },
                None => Want::Write,
            },
            ExchangeState::Discarding { body, .. } => Want::Discard(receiving::input_limit(body)),
            ExchangeState::Lingering { .. } => Want::Linger,
            ExchangeState::Closed(_) => Want::Close,
        }
    }

    /// The moment at which [`Exchange::deadline_passed`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            ExchangeState::Idle { deadline }
            | ExchangeState::Head { deadline }
            | ExchangeState::Discarding { deadline, .. } => Some(*deadline),
            ExchangeState::Continuing { progress, .. }
            | ExchangeState::Receiving { progress, .. }
            | ExchangeState::Answering { progress, .. } => progress.deadline(self.timeouts.body()),
            ExchangeState::Lingering {
                since, last_input, ..
            } => Some((*since + LINGER_TIME).min(*last_input + LINGER_IDLE_TIME)),
            ExchangeState::Deciding { .. }
            | ExchangeState::Publishing { .. }
            | ExchangeState::Closed(_) => None,
        }
    }

    /// Whether no byte of a request has arrived, so that the connection may be closed without harm.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, ExchangeState::Idle { .. })
    }

    /// Since when the exchange has been waiting for a complete request head; `None` if it is not.
    pub fn awaiting_request_since(&self) -> Option<Instant> {
        match &self.state {
            ExchangeState::Idle { deadline } => deadline.checked_sub(self.timeouts.idle()),
            ExchangeState::Head { deadline } => deadline.checked_sub(self.timeouts.header()),
            _ => None,
        }
    }

    /// Whether the exchange waits for a complete request head.
    pub fn is_awaiting_request(&self) -> bool {
        matches!(
            self.state,
            ExchangeState::Idle { .. } | ExchangeState::Head { .. }
        )
    }

    /// Whether a response is being sent.
    pub fn is_answering(&self) -> bool {
        matches!(self.state, ExchangeState::Answering { .. })
    }

    /// Changes the timeouts. The deadline of a request head that is already awaited stays.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// Ends the connection after the current request.
    pub fn disable_keep_alive(&mut self) {
        self.is_last = true;
    }

    /// Why the connection has ended, once [`Want::Close`] is wanted.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            ExchangeState::Closed(ended) => Some(ended),
            _ => None,
        }
    }

    /// Input arrived while [`Want::Head`] was wanted.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        debug_assert!(self.is_awaiting_request());
        if self.input.is_empty() {
            // Most heads arrive whole and need no copy.
            let used = self.scan_for_head(bytes, now);
            self.input.push(&bytes[used..]);
        } else {
            self.input.push(bytes);
            self.scan_input(now);
        }
    }

    /// Plain HTTP arrived on a port that expects TLS, while [`Want::Head`] was wanted.
    pub fn reject_plain_http(&mut self) {
        self.reject(RequestError::PlainHttp, false);
    }

    /// The request to decide on, or the error found in it.
    pub fn request(&self) -> Option<Result<&RequestHead, &RequestError>> {
        match &self.state {
            ExchangeState::Deciding { request, .. } => Some(request.as_ref()),
            _ => None,
        }
    }

    /// The client closed its sending direction.
    pub fn peer_closed(&mut self) {
        match &self.state {
            ExchangeState::Idle { .. } => self.close(Ended::ClientClosed),
            ExchangeState::Lingering { .. } => self.close(Ended::Done),
            ExchangeState::Head { .. }
            | ExchangeState::Continuing { .. }
            | ExchangeState::Receiving { .. }
            | ExchangeState::Discarding { .. } => self.close(Ended::Aborted),
            // Nothing is read in these states; the next read reports the end of input again.
            ExchangeState::Deciding { .. }
            | ExchangeState::Publishing { .. }
            | ExchangeState::Answering { .. }
            | ExchangeState::Closed(_) => {}
        }
    }

    /// Acts on the deadline if it has been reached.
    pub fn deadline_passed(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.state {
            ExchangeState::Idle { .. } => self.close(Ended::Idle),
            ExchangeState::Head { .. } => {
                let scan = self.scan.take();
                let empty_line_bytes = scan.map_or(0, |scan| scan.empty_line_bytes());
                let is_head = is_head_request(self.input.rest(), empty_line_bytes);
                self.reject(RequestError::HeadTimeout, is_head)
            }
            ExchangeState::Continuing { .. } | ExchangeState::Receiving { .. } => {
                self.reject(RequestError::BodyTimeout, false)
            }
            ExchangeState::Answering { .. } => self.close(Ended::Stalled),
            ExchangeState::Discarding { .. } => self.linger(now),
            ExchangeState::Lingering { .. } => self.close(Ended::Done),
            ExchangeState::Deciding { .. }
            | ExchangeState::Publishing { .. }
            | ExchangeState::Closed(_) => {}
        }
    }

    /// Bytes were dropped after the write side was shut.
    pub fn lingered(&mut self, n: u64, now: Instant) {
        if let ExchangeState::Lingering {
            last_input,
            dropped,
            ..
        } = &mut self.state
        {
            *last_input = now;
            *dropped = dropped.saturating_add(n);
            if *dropped > LINGER_BYTES {
                self.close(Ended::Done);
            }
        }
    }

    /// The transfer of a body waits for its other end. Until [`Exchange::resume`] the client has all the time.
    pub fn pause(&mut self, now: Instant) {
        if let Some(progress) = self.body_progress() {
            progress.pause(now);
        }
    }

    /// The transfer waits for the client again.
    pub fn resume(&mut self, now: Instant) {
        if let Some(progress) = self.body_progress() {
            progress.resume(now);
        }
    }

    fn body_progress(&mut self) -> Option<&mut Progress> {
        match &mut self.state {
            ExchangeState::Receiving { progress, .. }
            | ExchangeState::Answering { progress, .. } => Some(progress),
            _ => None,
        }
    }

    fn take_state(&mut self) -> ExchangeState {
        std::mem::replace(&mut self.state, ExchangeState::Closed(Ended::Aborted))
    }

    fn close(&mut self, ended: Ended) {
        self.input.clear();
        self.state = ExchangeState::Closed(ended);
    }

    /// Reports an error for the caller to answer. All further input is dropped, because the start of the next request
    /// is not known.
    fn reject(&mut self, error: RequestError, is_head: bool) {
        self.input.clear();
        self.state = ExchangeState::Deciding {
            summary: RequestSummary::malformed(is_head),
            request: Err(error),
        };
    }

    fn scan_input(&mut self, now: Instant) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.scan_for_head(input.rest(), now);
        input.consume(used);
        self.input = input;
    }

    /// Looks for a complete head at the start of the input and returns how many bytes have been consumed. After an
    /// error these are all.
    fn scan_for_head(&mut self, input: &[u8], now: Instant) -> usize {
        let mut scan = self
            .scan
            .take()
            .map_or_else(HeadScan::default, |scan| *scan);
        let head = match scan.scan(input) {
            Ok(None) => {
                if self.is_idle() && scan.started() {
                    self.state = ExchangeState::Head {
                        deadline: now + self.timeouts.header(),
                    };
                }
                self.scan = Some(Box::new(scan));
                return 0;
            }
            Ok(Some(end)) => RequestHead::from_scan(&scan, &input[..end]).map(|head| (head, end)),
            Err(error) => Err(error),
        };
        match head {
            Ok((request, end)) => {
                self.state = ExchangeState::Deciding {
                    summary: RequestSummary::of(&request),
                    request: Ok(request),
                };
                end
            }
            Err(error) => {
                self.reject(
                    RequestError::Head(error),
                    is_head_request(input, scan.empty_line_bytes()),
                );
                input.len()
            }
        }
    }

    fn next_request(&mut self, now: Instant) {
        if self.is_last {
            return self.close(Ended::Done);
        }
        self.state = ExchangeState::Idle {
            deadline: now + self.timeouts.idle(),
        };
        if !self.input.is_empty() {
            self.scan_input(now);
        }
    }

    fn linger(&mut self, now: Instant) {
        self.input.clear();
        self.state = ExchangeState::Lingering {
            since: now,
            last_input: now,
            dropped: 0,
        };
    }
}

/// Whether a request that is malformed is nevertheless a HEAD, whose response has no body (RFC 9110 §9.3.2): a proxy
/// that has forwarded it does not expect one.
fn is_head_request(input: &[u8], empty_line_bytes: usize) -> bool {
    input
        .get(empty_line_bytes..)
        .is_some_and(|line| line.starts_with(b"HEAD "))
}

#[cfg(test)]
mod tests;
