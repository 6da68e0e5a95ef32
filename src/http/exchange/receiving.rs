//! The body of a request: received, or skipped when it is unwanted.

use std::io;
use std::time::Instant;

use crate::http::body::{Body, Step};
use crate::http::exchange::Exchange;
use crate::http::exchange::state::{ExchangeState, Progress, RequestSummary};
use crate::http::exchange::want::{Ended, Fault};

/// Largest unread body, in bytes, that is read and dropped to keep the connection.
const MAX_DISCARD: u64 = 64 * 1024;

impl Exchange {
    /// The decision: receive the body, which must have exactly `size` bytes.
    pub fn accept(&mut self, size: u64, now: Instant) {
        let ExchangeState::Deciding { summary, .. } = self.take_state() else {
            return self.close(Ended::Broken);
        };
        let progress = Progress::new(now);
        // RFC 9110 §10.1.1: 100 may be omitted once the body has started to arrive.
        if summary.expects_continue && self.input.is_empty() {
            self.state = ExchangeState::Continuing {
                summary,
                size,
                sent: 0,
                progress,
            };
        } else {
            self.start_receiving(summary, size, progress);
        }
    }

    /// Whether the whole body of the request to decide on has arrived with its head.
    pub fn has_whole_body(&self) -> bool {
        let ExchangeState::Deciding { summary, .. } = &self.state else {
            return false;
        };
        let rest = summary.body.as_ref().and_then(Body::known_rest);
        rest.is_some_and(|rest| rest <= self.input.rest().len() as u64)
    }

    /// [`Exchange::receive`] of the body bytes that arrived with the head; also returns their number. `None` if there
    /// are none.
    pub fn receive_kept(
        &mut self,
        now: Instant,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Option<(usize, io::Result<()>)> {
        if self.input.is_empty() {
            return None;
        }
        let buffered = std::mem::take(&mut self.input);
        let received = self.receive(buffered.rest(), now, sink);
        Some((buffered.rest().len(), received))
    }

    /// Input arrived while `Want::Body` was wanted. Its data goes to `sink`; bytes after the body are kept as input. An
    /// error of the sink is returned, and the caller answers the request.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: Instant,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let ExchangeState::Receiving {
            summary,
            size,
            progress,
        } = &mut self.state
        else {
            return Ok(());
        };
        let size = *size;
        let Some(body) = &mut summary.body else {
            return Ok(());
        };
        let mut used = 0;
        let error = loop {
            match body.step(&bytes[used..]) {
                Ok(Step::Skip(n)) => {
                    // The size of a chunk is known before its data arrives.
                    if body.received().saturating_add(body.direct()) > size {
                        break Some(Fault::TooLong(size));
                    }
                    used += n;
                }
                Ok(Step::Data(n)) => {
                    if body.received() > size {
                        break Some(Fault::TooLong(size));
                    }
                    sink(&bytes[used..used + n])?;
                    progress.moved(n as u64, now);
                    used += n;
                }
                Ok(Step::More) => return Ok(()),
                Ok(Step::Done) if body.received() < size => break Some(Fault::TooShort(size)),
                Ok(Step::Done) => break None,
                Err(error) => break Some(Fault::Body(error)),
            }
        };
        self.input.push(&bytes[used..]);
        let ExchangeState::Receiving { summary, .. } = self.take_state() else {
            return Ok(());
        };
        match error {
            None => self.state = ExchangeState::Publishing { summary },
            Some(error) => self.reject(error, false),
        }
        Ok(())
    }

    /// Input of an unwanted body arrived.
    pub fn discard(&mut self, bytes: &[u8], now: Instant) {
        let ExchangeState::Discarding { body, .. } = &mut self.state else {
            return;
        };
        match body.skip(bytes) {
            Ok((_, false)) => {}
            Ok((used, true)) => {
                self.input.push(&bytes[used..]);
                self.next_request(now);
            }
            Err(_) => self.linger(now),
        }
    }

    pub(super) fn start_receiving(
        &mut self,
        summary: RequestSummary,
        size: u64,
        progress: Progress,
    ) {
        let body = summary.body.as_ref();
        let is_complete = body.is_some_and(|body| body.known_rest() == Some(0));
        self.state = match (is_complete, size) {
            (true, 0) => ExchangeState::Publishing { summary },
            // `receive`, which checks the size of other bodies, is never called for an empty one.
            (true, size) => return self.reject(Fault::TooShort(size), false),
            (false, size) => ExchangeState::Receiving {
                summary,
                size,
                progress,
            },
        };
    }

    /// Whether the connection can be used again after the rest of the request's body. A chunked body, whose length is
    /// not known, must have arrived completely.
    pub(super) fn can_skip_body(&mut self, summary: &mut RequestSummary) -> bool {
        let Some(body) = &mut summary.body else {
            return false;
        };
        match body.known_rest() {
            Some(0) => true,
            Some(rest) => !summary.expects_continue && rest <= MAX_DISCARD,
            None => {
                let Ok((used, is_complete)) = body.skip(self.input.rest()) else {
                    summary.body = None;
                    return false;
                };
                self.input.consume(used);
                is_complete
            }
        }
    }
}

/// How much input a body can use at once, in bytes: not more than its rest where that is known.
pub(super) fn input_limit(body: &Body) -> usize {
    let rest = body.known_rest().unwrap_or(u64::MAX);
    usize::try_from(rest).unwrap_or(usize::MAX).max(1)
}
