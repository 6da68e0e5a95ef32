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

pub mod state;
pub mod want;

use std::io;
use std::ops::Range as Span;
use std::time::{Duration, Instant};

use crate::http::body::{Body, BodyFault, Step};
use crate::http::head::{MAX_HEAD, RequestHead, Scan, Version};
use crate::http::response::{Answer, Content, Part};

pub use want::{Ended, Fault, Timeouts, Want};

use state::{Asked, Input, Progress, State};

/// An unread body up to this size is read and dropped to keep the connection; bytes.
const SMALL_REST: u64 = 64 * 1024;

/// How long such a rest may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Bounds of lingering: silence, all in all, and bytes. A client that is refused early must be able to finish
/// writing and read why.
const LINGER_SILENCE: Duration = Duration::from_secs(6);
const LINGER_TIME: Duration = Duration::from_secs(20);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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

    /// The decision: this answer. The body that may still be unread is skipped when it is small, else it ends the
    /// connection.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        let mut asked = match self.take_state() {
            State::Deciding { asked, .. }
            | State::Continuing { asked, .. }
            | State::Receiving { asked, .. }
            | State::Publishing { asked } => asked,
            State::Idle { .. } | State::Head { .. } => Asked::broken(false),
            State::Answering { .. }
            | State::Discarding { .. }
            | State::Lingering { .. }
            | State::Closed(_) => {
                return self.close(Ended::Broken);
            }
        };
        let keeps = asked.keep_alive && !answer.close && !self.last && self.can_skip(&mut asked);
        let Answer {
            mut head,
            mut content,
            ..
        } = answer;
        head.extend_from_slice(match (keeps, asked.version) {
            (false, _) => b"Connection: close\r\n\r\n".as_slice(),
            (true, Version::V10) => b"Connection: keep-alive\r\n\r\n",
            (true, Version::V11) => b"\r\n",
        });
        if asked.head_only {
            content = Content::Empty;
        }
        if let Content::Text(text) = content {
            head.extend_from_slice(&text);
            content = Content::Empty;
        }
        self.state = State::Answering {
            asked,
            close: !keeps,
            head,
            sent: 0,
            content,
            progress: Progress::begin(now),
        };
    }

    /// Whether the whole body of the request to decide on has come with its head.
    pub fn has_whole_body(&self) -> bool {
        let State::Deciding { asked, .. } = &self.state else {
            return false;
        };
        let rest = asked.body.as_ref().and_then(Body::known_rest);
        rest.is_some_and(|rest| rest <= self.input.rest().len() as u64)
    }

    /// [`Exchange::receive`] of what came before a body was wanted, and how many bytes that was; `None` when nothing
    /// did.
    pub fn receive_kept(
        &mut self,
        now: Instant,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Option<(usize, io::Result<()>)> {
        if self.input.is_empty() {
            return None;
        }
        let kept = std::mem::take(&mut self.input);
        let received = self.receive(kept.rest(), now, sink);
        Some((kept.rest().len(), received))
    }

    /// Body input came. Its data goes to `sink`; what lies behind the body is kept as input. An error of the sink
    /// is handed through: the caller answers.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: Instant,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let State::Receiving {
            asked,
            size,
            progress,
        } = &mut self.state
        else {
            return Ok(());
        };
        let size = *size;
        let Some(body) = &mut asked.body else {
            return Ok(());
        };
        let mut at = 0;
        let fault = loop {
            match body.step(&bytes[at..]) {
                Ok(Step::Skip(n)) => {
                    // A chunk's size is known before its data.
                    if body.received().saturating_add(body.direct()) > size {
                        break Some(Fault::TooLong(size));
                    }
                    at += n;
                }
                Ok(Step::Data(n)) => {
                    if body.received() > size {
                        break Some(Fault::TooLong(size));
                    }
                    sink(&bytes[at..at + n])?;
                    progress.moved(n as u64, now);
                    at += n;
                }
                Ok(Step::More) => return Ok(()),
                Ok(Step::Done) if body.received() < size => break Some(Fault::TooShort(size)),
                Ok(Step::Done) => break None,
                Err(fault) => break Some(Fault::Body(fault)),
            }
        };
        self.input.push(&bytes[at..]);
        let State::Receiving { asked, .. } = self.take_state() else {
            return Ok(());
        };
        match fault {
            None => self.state = State::Publishing { asked },
            Some(fault) => self.refuse(fault, false),
        }
        Ok(())
    }

    /// What is to be written now.
    pub fn output(&self) -> &[u8] {
        match &self.state {
            State::Continuing { sent, .. } => &CONTINUE[*sent..],
            State::Answering {
                head,
                sent,
                content,
                ..
            } => {
                if *sent < head.len() {
                    return &head[*sent..];
                }
                match content {
                    Content::Parts(parts) => match parts.front() {
                        Some(Part::Bytes(bytes)) => bytes,
                        _ => &[],
                    },
                    _ => &[],
                }
            }
            _ => &[],
        }
    }

    /// Whether file data follows the present output at once, so that both should share a packet.
    pub fn file_follows(&self) -> bool {
        match &self.state {
            State::Answering { content, .. } => match content {
                Content::File(span) => !span.is_empty(),
                Content::Parts(parts) => parts.len() > 1,
                Content::Empty | Content::Text(_) => false,
            },
            _ => false,
        }
    }

    /// The span of the file that follows the present output, where it ends the answer: both may be written at once.
    pub fn file_behind(&self) -> Option<Span<u64>> {
        match &self.state {
            State::Answering {
                content: Content::File(span),
                ..
            } if !span.is_empty() => Some(span.clone()),
            _ => None,
        }
    }

    /// So many bytes of the output were written.
    pub fn wrote(&mut self, n: usize, now: Instant) {
        match &mut self.state {
            State::Continuing { sent, .. } => {
                *sent += n;
                if *sent < CONTINUE.len() {
                    return;
                }
                if let State::Continuing { asked, size, .. } = self.take_state() {
                    self.receive_from(asked, size, Progress::begin(now));
                }
            }
            State::Answering {
                head,
                sent,
                content,
                progress,
                ..
            } => {
                progress.moved(n as u64, now);
                if *sent < head.len() {
                    *sent += n;
                } else if let Content::Parts(parts) = content {
                    if let Some(Part::Bytes(bytes)) = parts.front_mut() {
                        bytes.drain(..n.min(bytes.len()));
                        if bytes.is_empty() {
                            parts.pop_front();
                        }
                    }
                }
                self.end_answer(now);
            }
            _ => {}
        }
    }

    /// So many bytes of the wanted span of the file were sent.
    pub fn sent_file(&mut self, n: u64, now: Instant) {
        let State::Answering {
            content, progress, ..
        } = &mut self.state
        else {
            return;
        };
        progress.moved(n, now);
        let advance = |span: &mut Span<u64>| {
            span.start = (span.start + n).min(span.end);
            span.is_empty()
        };
        match content {
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
        self.end_answer(now);
    }

    /// Bytes that were taken for written earlier have left now: the client reads.
    pub fn flushed(&mut self, n: u64, now: Instant) {
        if let State::Answering { progress, .. } = &mut self.state {
            progress.moved(n, now);
        }
    }

    /// The file can give no more of what its head promised: the connection must end, so that the client sees that
    /// the body is short.
    pub fn file_failed(&mut self) {
        self.close(Ended::Broken);
    }

    /// Input of a body that nobody wants.
    pub fn discard(&mut self, bytes: &[u8], now: Instant) {
        let State::Discarding { body, .. } = &mut self.state else {
            return;
        };
        match skip(body, bytes) {
            Ok((_, false)) => {}
            Ok((used, true)) => {
                self.input.push(&bytes[used..]);
                self.next_request(now);
            }
            Err(_) => self.linger(now),
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

    fn receive_from(&mut self, asked: Asked, size: u64, progress: Progress) {
        let complete = asked
            .body
            .as_ref()
            .is_some_and(|body| body.known_rest() == Some(0));
        self.state = match (complete, size) {
            (true, 0) => State::Publishing { asked },
            // A body without a byte never comes to be received, where the others are measured.
            (true, size) => return self.refuse(Fault::TooShort(size), false),
            (false, size) => State::Receiving {
                asked,
                size,
                progress,
            },
        };
    }

    /// Whether the connection can go on behind what is left of the request's body. A chunked body is followed as
    /// far as it has come, because its length cannot be known.
    fn can_skip(&mut self, asked: &mut Asked) -> bool {
        let Some(body) = &mut asked.body else {
            return false;
        };
        match body.known_rest() {
            Some(0) => true,
            Some(rest) => !asked.expects && rest <= SMALL_REST,
            None => {
                let Ok((used, done)) = skip(body, self.input.rest()) else {
                    asked.body = None;
                    return false;
                };
                self.input.consume(used);
                done
            }
        }
    }

    fn end_answer(&mut self, now: Instant) {
        let State::Answering {
            head,
            sent,
            content,
            ..
        } = &self.state
        else {
            return;
        };
        let done = *sent >= head.len()
            && match content {
                Content::File(span) => span.is_empty(),
                Content::Parts(parts) => parts.is_empty(),
                Content::Empty | Content::Text(_) => true,
            };
        if !done {
            return;
        }
        let State::Answering { asked, close, .. } = self.take_state() else {
            return;
        };
        if close {
            let all_read = asked
                .body
                .as_ref()
                .is_some_and(|body| body.known_rest() == Some(0));
            if all_read && self.input.is_empty() {
                self.close(Ended::Done);
            } else {
                self.linger(now);
            }
            return;
        }
        let Some(mut body) = asked.body else {
            return self.linger(now);
        };
        match skip(&mut body, self.input.rest()) {
            Ok((used, true)) => {
                self.input.consume(used);
                self.next_request(now);
            }
            Ok((_, false)) => {
                self.input.clear();
                self.state = State::Discarding {
                    body,
                    until: now + DISCARD_TIME,
                };
            }
            Err(_) => self.linger(now),
        }
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

/// Steps a body over input; tells how much of it was used, and whether the body is complete.
fn skip(body: &mut Body, bytes: &[u8]) -> Result<(usize, bool), BodyFault> {
    let mut at = 0;
    loop {
        match body.step(&bytes[at..])? {
            Step::Skip(n) | Step::Data(n) => at += n,
            Step::More => return Ok((bytes.len(), false)),
            Step::Done => return Ok((at, true)),
        }
    }
}

#[cfg(test)]
mod tests;
