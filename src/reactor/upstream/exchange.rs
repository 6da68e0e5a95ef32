//! One request and its response on an open connection.
//!
//! ```text
//!   Sending ── head sent ──▶ Continuing ── 100, or 1 s ──▶ Body ── all of it sent ──▶ Answer
//!      └────────────────────── no streamed body ──────────────────────────────────────▲
//! ```
//!
//! In every phase the response may begin; a body is not sent any further then. Nothing is buffered apart from the head of
//! the response and the part of the body that came along with it: the caller's bytes go to the socket, and those of the
//! response to the caller's buffer.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::http::body::BodyStep;
use crate::http::client::{Response, ResponseError, ResponseStream};
use crate::now::Now;
use crate::reactor::upstream::buffers::{IoBuffers, MAX_READS};
use crate::reactor::upstream::report::Report;
use crate::s3::bucket::StoreRequest;
use crate::s3::error::StoreFailure;
use crate::transport::{Moved, Transport};

/// How long to wait for `100 Continue` before the body is sent anyway (RFC 9110 §10.1.1).
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// How long to wait for the first byte of the response after the whole request was sent.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Bytes that count as progress, so that a drip does not.
const PROGRESS: usize = 4096;

/// A request and its response.
#[derive(Debug)]
pub(super) struct StoreExchange {
    pub(super) request: StoreRequest,
    phase: ExchangePhase,
    /// Bytes of the head, and of a small body after it, that were sent.
    sent: usize,
    /// Bytes of the streamed body that were not sent yet.
    body_left: u64,
    /// Why the request could not be sent to its end; the response may say more.
    write_error: Option<io::Error>,
    response: ResponseStream,
    /// The buffer with bytes that were received with the head of the response, as they came, and their place in it.
    early: Vec<u8>,
    early_span: Range<usize>,
    progress: StoreProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExchangePhase {
    Sending,
    Continuing,
    Body,
    Answer,
}

/// The time limit of waits for the store. It counts only from an attempt that blocked to the event that ends the wait, so
/// that a slow client is not charged to the store, and it is renewed only by [`PROGRESS`], so that a drip is.
#[derive(Debug, Default)]
struct StoreProgress {
    until: Option<Instant>,
    /// The limit of a wait that began where the time is not known.
    pending: Option<Duration>,
    /// What earlier waits left of the limit.
    left: Option<Duration>,
    /// Bytes since the limit was renewed.
    bytes: usize,
}

impl StoreProgress {
    /// The store makes us wait.
    fn wait(&mut self, limit: Duration) {
        if self.until.is_none() && self.pending.is_none() {
            self.pending = Some(self.left.take().unwrap_or(limit));
        }
    }

    /// There is an event.
    fn pause(&mut self, now: Instant) {
        let until = self.until.take();
        let left = until.map(|until| until.saturating_duration_since(now));
        self.left = left.or(self.pending.take()).or(self.left);
    }

    fn moved(&mut self, n: usize) {
        self.bytes += n;
        if self.bytes >= PROGRESS {
            *self = StoreProgress::default();
        }
    }

    fn restart(&mut self, limit: Duration) {
        *self = StoreProgress {
            pending: Some(limit),
            ..StoreProgress::default()
        };
    }
}

impl StoreExchange {
    pub(super) fn new(request: StoreRequest) -> StoreExchange {
        StoreExchange {
            phase: ExchangePhase::Sending,
            sent: 0,
            body_left: request.body_length,
            write_error: None,
            response: ResponseStream::new(request.method == "HEAD"),
            early: Vec::new(),
            early_span: 0..0,
            progress: StoreProgress::default(),
            request,
        }
    }

    /// Begins again, on another connection.
    pub(super) fn restart(&mut self) {
        let request = StoreRequest {
            bytes: std::mem::take(&mut self.request.bytes),
            ..self.request
        };
        *self = StoreExchange::new(request);
    }

    pub(super) fn response(&self) -> &ResponseStream {
        &self.response
    }

    /// Whether the store can have acted only on what came without a body, and has not answered.
    pub(super) fn is_untouched(&self) -> bool {
        self.body_left == self.request.body_length && !self.response.has_begun()
    }

    /// Whether the whole request was sent, and the whole response received.
    pub(super) fn leaves_connection_usable(&self) -> bool {
        self.phase == ExchangePhase::Answer
            && self.write_error.is_none()
            && self.response.keeps_alive()
            && self.early_span.is_empty()
    }

    /// When the present wait ends; sets it if it was not set where it began.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if let Some(limit) = self.progress.pending.take() {
            self.progress.until = Some(now + limit);
        }
        self.progress.until
    }

    /// Whether [`StoreExchange::deadline`] must be asked for.
    pub(super) fn has_begun_waiting(&self) -> bool {
        self.progress.pending.is_some()
    }

    /// Sends the head and a small body, and receives the head of the response. Returns whether there is more to do without
    /// an event.
    pub(super) fn advance(
        &mut self,
        transport: &mut Transport,
        buffers: &mut IoBuffers,
        limit: Duration,
        (report, now): (&mut Report, Now),
    ) -> Result<bool, StoreFailure> {
        let is_receiving = self.response.head().is_some();
        if is_receiving || matches!(self.phase, ExchangePhase::Sending | ExchangePhase::Body) {
            self.progress.pause(now.mono);
        }
        if let Err(error) = self.send_head(transport, buffers, limit, report) {
            self.cannot_write(error);
        }
        if is_receiving {
            return Ok(false);
        }
        let has_more = self.receive_head(transport, buffers, report)?;
        if let Some(head) = self.response.head() {
            report.answered(self.request.method, head, now);
            self.progress = StoreProgress::default();
        } else if self.write_error.is_some() && !has_more {
            return Err(self.unreachable("the connection broke"));
        } else if self.phase == ExchangePhase::Continuing && self.response.may_continue() {
            self.send_body_now();
        }
        Ok(has_more)
    }

    fn send_head(
        &mut self,
        transport: &mut Transport,
        buffers: &mut IoBuffers,
        limit: Duration,
        report: &mut Report,
    ) -> io::Result<()> {
        transport.flush()?;
        while self.phase == ExchangePhase::Sending {
            let rest = &self.request.bytes[self.sent..];
            if rest.is_empty() {
                let (phase, limit) = match self.body_left {
                    0 => (ExchangePhase::Answer, ANSWER_TIME),
                    _ => (ExchangePhase::Continuing, CONTINUE_TIME),
                };
                self.phase = phase;
                self.progress.restart(limit);
                return Ok(());
            }
            match transport.write(rest, false, &mut buffers.wire)? {
                Moved::Bytes(n) => {
                    self.sent += n;
                    self.progress.moved(n);
                    report.counts.bytes_sent += n as u64;
                }
                _ => {
                    self.progress.wait(limit);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads until the head of the final response is complete.
    fn receive_head(
        &mut self,
        transport: &mut Transport,
        buffers: &mut IoBuffers,
        report: &mut Report,
    ) -> Result<bool, StoreFailure> {
        for _ in 0..MAX_READS {
            let IoBuffers { wire, scratch, .. } = buffers;
            match transport.read(scratch, wire) {
                Ok(Moved::Bytes(n)) => {
                    let mut bytes = &scratch[..n];
                    while self.response.head().is_none() && !bytes.is_empty() {
                        match self.response.step(bytes).map_err(malformed)? {
                            BodyStep::Skip(used) | BodyStep::Data(used) => bytes = &bytes[used..],
                            BodyStep::More | BodyStep::Done => break,
                        }
                    }
                    report.counts.bytes_received += (n - bytes.len()) as u64;
                    if self.response.head().is_some() {
                        if !bytes.is_empty() {
                            self.early_span = n - bytes.len()..n;
                            self.early = buffers.take_scratch();
                        }
                        return Ok(false);
                    }
                }
                Ok(Moved::NoBytes) => {}
                Ok(Moved::Blocked) => return Ok(false),
                Ok(Moved::End) => {
                    let why = self.response.peer_closed().err();
                    return Err(self.unreachable(why.map_or("", |ResponseError(why)| why)));
                }
                Err(error) => return Err(StoreFailure::unreachable(error.to_string())),
            }
        }
        Ok(true)
    }

    /// The request cannot be sent any further, but the store may have told why.
    fn cannot_write(&mut self, error: io::Error) {
        self.write_error.get_or_insert(error);
        self.phase = ExchangePhase::Answer;
    }

    fn unreachable(&self, why: &str) -> StoreFailure {
        StoreFailure::unreachable(match &self.write_error {
            Some(error) => format!("{why} ({error} while sending)"),
            None => why.to_owned(),
        })
    }

    fn send_body_now(&mut self) {
        self.phase = ExchangePhase::Body;
        self.progress = StoreProgress::default();
    }

    /// Whether the time has come to send the streamed body.
    pub(super) fn takes_body(&self) -> bool {
        matches!(self.phase, ExchangePhase::Body | ExchangePhase::Answer)
    }

    /// Sends bytes of the streamed body. `End`: no more are wanted, because all were sent, or the store has answered.
    /// `NoBytes`: the connection broke, and [`StoreExchange::advance`] finds out whether there is a response.
    pub(super) fn send_body(
        &mut self,
        bytes: &[u8],
        transport: &mut Transport,
        buffers: &mut IoBuffers,
        limit: Duration,
    ) -> Moved {
        if self.response.head().is_some() {
            return Moved::End;
        }
        match self.phase {
            ExchangePhase::Sending | ExchangePhase::Continuing => return Moved::Blocked,
            ExchangePhase::Body => {}
            ExchangePhase::Answer => return Moved::End,
        }
        // The length of a slice fits 64 bits on all platforms.
        let most = self.body_left.min(bytes.len() as u64) as usize;
        match transport.write(&bytes[..most], false, &mut buffers.wire) {
            Ok(Moved::Bytes(n)) => {
                self.request.bytes = Vec::new();
                self.body_left -= n as u64;
                self.progress.moved(n);
                if self.body_left == 0 {
                    self.phase = ExchangePhase::Answer;
                    self.progress.restart(ANSWER_TIME);
                }
                Moved::Bytes(n)
            }
            Ok(_) => {
                self.progress.wait(limit);
                Moved::Blocked
            }
            Err(error) => {
                self.cannot_write(error);
                Moved::NoBytes
            }
        }
    }

    /// Reads bytes of the body of the response. `NoBytes`: there is more to do without an event.
    pub(super) fn read_body(
        &mut self,
        buffer: &mut [u8],
        transport: &mut Transport,
        wire: &mut [u8],
        limit: Duration,
    ) -> Result<Moved, StoreFailure> {
        if self.response.head().is_none() {
            return Ok(Moved::Blocked);
        }
        for _ in 0..MAX_READS {
            if self.response.is_complete() {
                return Ok(Moved::End);
            }
            let n = match self.read_raw(buffer, transport, wire)? {
                Moved::Bytes(n) => n,
                Moved::Blocked => {
                    self.progress.wait(limit);
                    return Ok(Moved::Blocked);
                }
                Moved::NoBytes | Moved::End => continue,
            };
            let n = self.decode(buffer, n).map_err(malformed)?;
            self.progress.moved(n);
            if n > 0 {
                return Ok(Moved::Bytes(n));
            }
        }
        Ok(Moved::NoBytes)
    }

    /// The buffer of the bytes that came with the head of the response, once they were read.
    pub(super) fn take_early_buffer(&mut self) -> Option<Vec<u8>> {
        let is_spent = self.early_span.is_empty() && !self.early.is_empty();
        is_spent.then(|| std::mem::take(&mut self.early))
    }

    /// Reads bytes as they came.
    fn read_raw(
        &mut self,
        buffer: &mut [u8],
        transport: &mut Transport,
        wire: &mut [u8],
    ) -> Result<Moved, StoreFailure> {
        if !self.early_span.is_empty() {
            let early = &self.early[self.early_span.clone()];
            let n = early.len().min(buffer.len());
            buffer[..n].copy_from_slice(&early[..n]);
            self.early_span.start += n;
            return Ok(Moved::Bytes(n));
        }
        let read = transport.read(buffer, wire);
        let moved = read.map_err(|error| StoreFailure::unreachable(error.to_string()))?;
        if moved == Moved::End {
            // Anybody on the way can close TCP, but not TLS.
            if self.response.ends_with_connection()
                && transport.is_tls()
                && !transport.is_tls_closed()
            {
                return Err(StoreFailure::unreachable("the response was cut off"));
            }
            self.response
                .peer_closed()
                .map_err(|ResponseError(why)| StoreFailure::unreachable(why))?;
        }
        Ok(moved)
    }

    /// Moves the bytes of the body to the beginning of the buffer; returns their number.
    fn decode(&mut self, buffer: &mut [u8], filled: usize) -> Result<usize, ResponseError> {
        let (mut at, mut kept) = (0, 0);
        while at < filled {
            match self.response.step(&buffer[at..filled])? {
                BodyStep::Data(n) => {
                    if kept < at {
                        buffer.copy_within(at..at + n, kept);
                    }
                    (at, kept) = (at + n, kept + n);
                }
                BodyStep::Skip(n) => at += n,
                BodyStep::More | BodyStep::Done => break,
            }
        }
        Ok(kept)
    }

    /// Handles a deadline that has passed: the wait for `100 Continue` is over, or the request has failed.
    pub(super) fn deadline_passed(&mut self) -> Result<(), StoreFailure> {
        self.progress = StoreProgress::default();
        let why = match self.phase {
            _ if self.response.head().is_some() => {
                "the store stopped in the middle of its response"
            }
            ExchangePhase::Continuing => {
                self.send_body_now();
                return Ok(());
            }
            ExchangePhase::Sending | ExchangePhase::Body => "the store stopped receiving",
            ExchangePhase::Answer => "the store did not answer",
        };
        Err(StoreFailure::unreachable(why))
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.request.bytes.capacity() + self.early.capacity()
    }

    /// The final response without its body, once all of that was read.
    pub(super) fn take_response(&mut self) -> Option<Response> {
        self.response.take()
    }
}

fn malformed(ResponseError(why): ResponseError) -> StoreFailure {
    StoreFailure::malformed(0, why)
}
