//! The request's body: received, or skipped.

use std::io;
use std::time::Instant;

use crate::http::body::{Body, BodyFault, Step};
use crate::http::exchange::Exchange;
use crate::http::exchange::state::{Asked, Progress, State};
use crate::http::exchange::want::Fault;

/// An unread body up to this size is read and dropped to keep the connection; bytes.
const SMALL_REST: u64 = 64 * 1024;

impl Exchange {
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

    pub(super) fn receive_from(&mut self, asked: Asked, size: u64, progress: Progress) {
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
    pub(super) fn can_skip(&mut self, asked: &mut Asked) -> bool {
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
}

/// Steps a body over input; tells how much of it was used, and whether the body is complete.
pub(super) fn skip(body: &mut Body, bytes: &[u8]) -> Result<(usize, bool), BodyFault> {
    let mut at = 0;
    loop {
        match body.step(&bytes[at..])? {
            Step::Skip(n) | Step::Data(n) => at += n,
            Step::More => return Ok((bytes.len(), false)),
            Step::Done => return Ok((at, true)),
        }
    }
}
