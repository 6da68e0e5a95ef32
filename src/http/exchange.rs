//! The machine of one HTTP connection (RFC 9112).
//!
//! It is told what happened in the past tense and says the one thing that it wants next; it never sees a socket, a
//! file or a clock. It counts body bytes that it never sees, so the driver may move them as it likes. While an
//! answer is pending nothing is read: that is all the flow control there is.
//!
//! ```text
//!           first byte          blank line              accept, Expect (RFC 9110 §10.1.1)
//!   Idle ──────────────▶ Head ─────────────▶ Deciding ─────────────▶ Continuing
//!    ▲                    │  fault, too slow  │  │  ▲                     │ 100 written
//!    │                    └──────────────────▶│  │  │ fault, too slow     ▼
//!    │                                 answer │  └──┼─ accept ───────▶ Receiving
//!    │                                        ▼     └───────────────────┘ │ last byte
//!    │◀──────────── done, keep ────────── Answering ◀───── answer ─── Publishing
//!    │                                     │  │ done, small rest unread
//!    │◀─ rest read ── Discarding ◀─────────┼──┘
//!                                          ├─ done, rest unread ─▶ Lingering ─▶ Closed (RFC 9112 §9.6)
//!                                          └─ done, nothing unread ───────────▶ Closed
//! ```
//!
//! [`want`] has what it says, [`state`] what it remembers.

mod answering;
mod receiving;
pub mod state;
pub mod want;

use std::time::{Duration, Instant};

use crate::http::body::Body;
use crate::http::head::{MAX_HEAD, RequestHead, Scan};
use crate::http::response::{Content, Part};

pub use want::{Ended, Fault, Timeouts, Want};

use state::{Asked, Input, Progress, State};

/// Bounds of lingering: silence, all in all, and bytes. A client that is refused early must be able to finish
/// writing and read why.
const LINGER_SILENCE: Duration = Duration::from_secs(6);
const LINGER_TIME: Duration = Duration::from_secs(20);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

/// The machine. See the module's graph.
#[derive(Debug)]
pub struct Exchange {
    timeouts: Timeouts,
    input: Input,
    /// The search for the end of a head that came in pieces.
    scan: Option<Box<Scan>>,
    state: State,
    /// Set when the process ends: no request is taken after the present one.
    last: bool,
}

impl Exchange {
    pub fn new(timeouts: Timeouts, now: Instant) -> Exchange {
        Exchange {
            timeouts,
            input: Input::default(),
            scan: None,
            state: State::Idle {
                until: now + timeouts.idle(),
            },
            last: false,
        }
    }

    /// What the machine needs next; stays the same until it is told that something happened.
    pub fn want(&self) -> Want {
        match &self.state {
            State::Idle { .. } | State::Head { .. } => Want::Head(
                (MAX_HEAD + 4)
                    .saturating_sub(self.input.rest().len())
                    .max(1),
            ),
            State::Deciding { .. } => Want::Decide,
            State::Continuing { .. } => Want::Write,
            State::Receiving { asked, .. } => Want::Body(asked.body.as_ref().map_or(1, most)),
            State::Publishing { .. } => Want::Publish,
            State::Answering {
                head,
                sent,
                content,
                ..
            } => {
                if *sent < head.len() {
                    return Want::Write;
                }
                match content {
                    Content::File(span) => Want::File {
                        start: span.start,
                        end: span.end,
                    },
                    Content::Parts(parts) => match parts.front() {
                        Some(Part::File(span)) => Want::File {
                            start: span.start,
                            end: span.end,
                        },
                        _ => Want::Write,
                    },
                    Content::Empty | Content::Text(_) => Want::Write,
                }
            }
            State::Discarding { body, .. } => Want::Discard(most(body)),
            State::Lingering { .. } => Want::Linger,
            State::Closed(_) => Want::Close,
        }
    }

    /// The moment at which [`Exchange::deadline_passed`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { until } | State::Head { until } | State::Discarding { until, .. } => {
                Some(*until)
            }
            State::Continuing { progress, .. }
            | State::Receiving { progress, .. }
            | State::Answering { progress, .. } => Some(progress.mark + self.timeouts.body()),
            State::Lingering { since, last, .. } => {
                Some((*since + LINGER_TIME).min(*last + LINGER_SILENCE))
            }
            State::Deciding { .. } | State::Publishing { .. } | State::Closed(_) => None,
        }
    }

    /// Whether nothing of a request has come, so that the connection may be closed without harm.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Since when a whole request head has been awaited.
    pub fn awaits_request_since(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { until } => until.checked_sub(self.timeouts.idle()),
            State::Head { until } => until.checked_sub(self.timeouts.header()),
            _ => None,
        }
    }

    /// Whether no whole request head has come.
    pub fn is_before_request(&self) -> bool {
        matches!(self.state, State::Idle { .. } | State::Head { .. })
    }

    /// Whether the wait is for the client to take bytes.
    pub fn is_answering(&self) -> bool {
        matches!(self.state, State::Answering { .. })
    }

    /// Takes limits that changed; they hold from the next state on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// Takes no request after the present one.
    pub fn make_last(&mut self) {
        self.last = true;
    }

    /// Why it is over, once [`Want::Close`] is wanted.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Closed(ended) => Some(ended),
            _ => None,
        }
    }

    /// Input came while a head is wanted.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        debug_assert!(self.is_before_request());
        if self.input.is_empty() {
            // Most heads come whole, and need no copy.
            let used = self.look_for_head(bytes, now);
            self.input.push(&bytes[used..]);
        } else {
            self.input.push(bytes);
            self.look_into_input(now);
        }
    }

    /// What came while a head is wanted was not encrypted where it has to be.
    pub fn not_encrypted(&mut self) {
        self.refuse(Fault::NotEncrypted, false);
    }

    /// The request to decide on, or why there is none.
    pub fn request(&self) -> Option<Result<&RequestHead, &Fault>> {
        match &self.state {
            State::Deciding { request, .. } => Some(request.as_ref()),
            _ => None,
        }
    }

    /// The decision: take the body, which must have exactly `size` bytes.
    pub fn accept(&mut self, size: u64, now: Instant) {
        let State::Deciding { asked, .. } = self.take_state() else {
            return self.close(Ended::Broken);
        };
        let progress = Progress::begin(now);
        // RFC 9110 §10.1.1: no 100 is needed once the body is coming in.
        if asked.expects && self.input.is_empty() {
            self.state = State::Continuing {
                asked,
                size,
                sent: 0,
                progress,
            };
        } else {
            self.receive_from(asked, size, progress);
        }
    }

    /// So many bytes were dropped after the write side was shut.
    pub fn lingered(&mut self, n: u64, now: Instant) {
        if let State::Lingering { last, dropped, .. } = &mut self.state {
            *last = now;
            *dropped = dropped.saturating_add(n);
            if *dropped > LINGER_BYTES {
                self.close(Ended::Done);
            }
        }
    }

    /// The client will send nothing more.
    pub fn peer_closed(&mut self) {
        match &self.state {
            State::Idle { .. } => self.close(Ended::Left),
            State::Lingering { .. } => self.close(Ended::Done),
            State::Head { .. }
            | State::Continuing { .. }
            | State::Receiving { .. }
            | State::Discarding { .. } => {
                self.close(Ended::Broken);
            }
            // Nothing is read in these states; the end is met again when reading goes on.
            State::Deciding { .. }
            | State::Publishing { .. }
            | State::Answering { .. }
            | State::Closed(_) => {}
        }
    }

    /// Acts if the deadline has come.
    pub fn deadline_passed(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.state {
            State::Idle { .. } => self.close(Ended::Idle),
            State::Head { .. } => {
                let scan = self.scan.take();
                let skipped = scan.map_or(0, |scan| scan.skipped());
                let head_only = is_head(self.input.rest(), skipped);
                self.refuse(Fault::SlowHead, head_only)
            }
            State::Continuing { .. } | State::Receiving { .. } => {
                self.refuse(Fault::SlowBody, false)
            }
            State::Answering { .. } => self.close(Ended::Stalled),
            State::Discarding { .. } => self.linger(now),
            State::Lingering { .. } => self.close(Ended::Done),
            State::Deciding { .. } | State::Publishing { .. } | State::Closed(_) => {}
        }
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed(Ended::Broken))
    }

    fn close(&mut self, ended: Ended) {
        self.input.clear();
        self.state = State::Closed(ended);
    }

    /// Gives the caller a fault to answer; nothing after it will be understood.
    fn refuse(&mut self, fault: Fault, head_only: bool) {
        self.input.clear();
        self.state = State::Deciding {
            asked: Asked::broken(head_only),
            request: Err(fault),
        };
    }

    fn look_into_input(&mut self, now: Instant) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.look_for_head(input.rest(), now);
        input.consume(used);
        self.input = input;
    }

    /// Looks for a whole head at the beginning of all input; tells how much of the input is done with. After a fault
    /// nothing of it will be understood.
    fn look_for_head(&mut self, input: &[u8], now: Instant) -> usize {
        let mut scan = match self.scan.take() {
            Some(begun) => *begun,
            None => Scan::default(),
        };
        match scan.scan(input) {
            Ok(None) => {
                if self.is_idle() && scan.started() {
                    self.state = State::Head {
                        until: now + self.timeouts.header(),
                    };
                }
                self.scan = Some(Box::new(scan));
            }
            Ok(Some(end)) => {
                match RequestHead::scanned(&scan, &input[..end]) {
                    Ok(request) => {
                        self.state = State::Deciding {
                            asked: Asked::of(&request),
                            request: Ok(request),
                        };
                        return end;
                    }
                    Err(fault) => {
                        self.refuse(Fault::Head(fault), is_head(input, scan.skipped()));
                    }
                }
                return input.len();
            }
            Err(fault) => {
                self.refuse(Fault::Head(fault), is_head(input, scan.skipped()));
                return input.len();
            }
        }
        0
    }

    fn next_request(&mut self, now: Instant) {
        if self.last {
            return self.close(Ended::Done);
        }
        self.state = State::Idle {
            until: now + self.timeouts.idle(),
        };
        if !self.input.is_empty() {
            self.look_into_input(now);
        }
    }

    fn linger(&mut self, now: Instant) {
        self.input.clear();
        self.state = State::Lingering {
            since: now,
            last: now,
            dropped: 0,
        };
    }
}

/// Whether a request that nobody may understand is a HEAD all the same, whose answer has no body
/// (RFC 9110 §9.3.2): a proxy that has passed it on does not wait for one.
fn is_head(input: &[u8], skipped: usize) -> bool {
    input
        .get(skipped..)
        .is_some_and(|line| line.starts_with(b"HEAD "))
}

/// How much input a body can take at once, in bytes: never past its end where that is known.
fn most(body: &Body) -> usize {
    let known = body.known_rest().unwrap_or(u64::MAX);
    usize::try_from(known).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests;
