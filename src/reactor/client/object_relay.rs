//! Sending an object from the store to the client.
//!
//! Bytes are read from the store no faster than the client takes them: what the client's socket did not take is kept, at
//! most one piece, and nothing is read before it is sent. Each range of the response is a request to the store. If its
//! connection breaks, the rest is requested once more; if the store then sends another object, the client's connection
//! ends.

use std::io;
use std::ops::Range;

use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::object_facts::ObjectHead;
use crate::reactor::shared::Shared;
use crate::reactor::table::Key;
use crate::reactor::upstream::{StreamId, Upstream};
use crate::s3::error::StoreFailure;
use crate::transport::{Moved, Transport};

/// Bytes that are read at a time while the client is the slower one, because that much may have to be kept. Otherwise as
/// many as the buffer holds.
const SMALL_PIECE: usize = 16 * 1024;

/// An object that is being sent.
#[derive(Debug)]
pub(super) struct Relay {
    /// Of the client.
    key: Key,
    path: StorePath,
    /// The object; its span is that of the first range.
    object: ObjectHead,
    source: Option<Source>,
    /// Bytes from the store that the client has not taken, from `taken` on. No memory is used if there are none.
    remainder: Vec<u8>,
    taken: usize,
    /// Whether the client did not take the last piece at once.
    is_slow: bool,
    has_resumed: bool,
    /// Bytes of the object that were sent.
    sent: u64,
}

/// A response of the store that is being read.
#[derive(Debug)]
struct Source {
    stream: StreamId,
    /// The range of the object that was not read yet.
    rest: Range<u64>,
    /// Whether it is known to be the object.
    is_checked: bool,
}

/// Why an object cannot be sent to its end.
#[derive(Debug)]
enum Broken {
    Failed(StoreFailure),
    Changed,
}

/// The result of a step of a relay.
#[derive(Debug)]
enum RelayStep {
    Blocked,
    /// So many bytes were sent to the client; the rest of the piece is kept.
    Sent {
        head: usize,
        body: usize,
    },
    Broken(Broken),
}

impl Relay {
    /// An object whose first range the store has begun to send.
    pub(super) fn new(key: Key, path: StorePath, stream: StreamId, object: ObjectHead) -> Relay {
        Relay {
            key,
            path,
            source: Some(Source {
                stream,
                rest: object.span.clone(),
                is_checked: true,
            }),
            object,
            remainder: Vec::new(),
            taken: 0,
            is_slow: false,
            has_resumed: false,
            sent: 0,
        }
    }

    pub(super) fn end(self, shared: &mut Shared) {
        shared.status.metrics.downloaded(self.sent);
        if let Some(source) = self.source {
            shared.end_stream(source.stream);
        }
    }

    /// Sends the head of the response if it is not sent yet, and a part of this range, at most so many bytes.
    fn step(
        &mut self,
        head: &[u8],
        span: Range<u64>,
        most: usize,
        transport: &mut Transport,
        shared: &mut Shared,
        now: Now,
    ) -> io::Result<RelayStep> {
        let wire = &mut shared.buffers.wire;
        if !self.remainder.is_empty() && head.is_empty() {
            return self.send_remainder(transport, wire);
        }
        if !self.remainder.is_empty() || head.len() >= SMALL_PIECE {
            return send_head(head, transport, wire);
        }
        if !transport.is_writable() {
            return Ok(RelayStep::Blocked);
        }
        if self.source.is_none() {
            let range = Some((&span, self.object.facts.size));
            let stream = shared.begin_get(&self.path, range, self.key, now);
            self.source = stream.map(|stream| Source {
                stream,
                rest: span,
                is_checked: false,
            });
        }
        let Shared {
            storage, buffers, ..
        } = shared;
        let Some(bucket) = storage.bucket_mut() else {
            return Ok(RelayStep::Broken(Broken::Changed));
        };
        let most = match self.is_slow {
            true => SMALL_PIECE.min(most),
            false => most,
        };
        // What has arrived of the object leaves together with the head.
        let end = (head.len() + most).min(buffers.scratch.len());
        let (before, buffer) = buffers.scratch[..end].split_at_mut(head.len());
        before.copy_from_slice(head);
        let n = match self.read(buffer, &mut bucket.upstream) {
            Ok(Some(n)) => n,
            Ok(None) if head.is_empty() => return Ok(RelayStep::Blocked),
            Ok(None) => return send_head(head, transport, &mut buffers.wire),
            Err(broken) => return Ok(RelayStep::Broken(broken)),
        };
        let piece = &buffers.scratch[..head.len() + n];
        let taken = match transport.write(piece, false, &mut buffers.wire)? {
            Moved::Bytes(taken) => taken,
            _ => 0,
        };
        self.is_slow = taken < piece.len();
        self.remainder = piece[taken.max(head.len())..].to_vec();
        Ok(RelayStep::sent(taken, head))
    }

    /// Reads bytes of the present range into the buffer; `None` if the store has not sent any.
    fn read(
        &mut self,
        buffer: &mut [u8],
        upstream: &mut Upstream,
    ) -> Result<Option<usize>, Broken> {
        let source = self.source.as_mut().ok_or(Broken::Changed)?;
        let read = source.read(&self.object, buffer, upstream);
        // The connection can serve others before the client has taken the last piece.
        if read.is_err() || source.rest.is_empty() {
            upstream.end_stream(source.stream);
            self.source = None;
        }
        read
    }

    fn send_remainder(
        &mut self,
        transport: &mut Transport,
        wire: &mut [u8],
    ) -> io::Result<RelayStep> {
        let rest = &self.remainder[self.taken..];
        let Moved::Bytes(n) = transport.write(rest, false, wire)? else {
            return Ok(RelayStep::Blocked);
        };
        self.taken += n;
        if self.taken == self.remainder.len() {
            (self.remainder, self.taken) = (Vec::new(), 0);
        }
        Ok(RelayStep::sent(n, &[]))
    }
}

/// Sends the head alone; the body follows.
fn send_head(head: &[u8], transport: &mut Transport, wire: &mut [u8]) -> io::Result<RelayStep> {
    Ok(match transport.write(head, true, wire)? {
        Moved::Bytes(n) => RelayStep::sent(n, head),
        _ => RelayStep::Blocked,
    })
}

impl RelayStep {
    /// Bytes that begin with the head were sent.
    fn sent(n: usize, head: &[u8]) -> RelayStep {
        let of_head = n.min(head.len());
        RelayStep::Sent {
            head: of_head,
            body: n - of_head,
        }
    }
}

impl Source {
    /// Reads bytes of the range into the buffer; `None` if the store has not sent any.
    fn read(
        &mut self,
        object: &ObjectHead,
        buffer: &mut [u8],
        upstream: &mut Upstream,
    ) -> Result<Option<usize>, Broken> {
        if !self.is_checked {
            let Some(head) = upstream.head(self.stream) else {
                return Ok(None);
            };
            let head = head.map_err(Broken::Failed)?;
            if head.status >= 500 {
                let why = format!("status {} for the rest of an object", head.status);
                return Err(Broken::Failed(StoreFailure::unreachable(why)));
            }
            let head = ObjectHead::of(head).ok_or(Broken::Changed)?;
            if !head.is_part_of(&object.facts, object.etag.as_deref(), &self.rest) {
                return Err(Broken::Changed);
            }
            self.is_checked = true;
        }
        let left = self.rest.end - self.rest.start;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = upstream.read_body(self.stream, &mut buffer[..most]);
        match read.map_err(Broken::Failed)? {
            Moved::Bytes(n) => {
                self.rest.start += n as u64;
                Ok(Some(n))
            }
            Moved::Blocked | Moved::NoBytes => Ok(None),
            // The head has announced more.
            Moved::End => Err(Broken::Changed),
        }
    }
}

impl Client {
    /// The body made no progress for too long; the connection ends. If it was the store's turn, that is its failure.
    pub(super) fn relay_timed_out(&mut self, shared: &mut Shared, now: Now) {
        let Activity::ObjectGet(get) = &mut self.activity else {
            return;
        };
        let awaits_store = |relay: &mut Relay| relay.remainder.is_empty();
        if get.relay().is_some_and(awaits_store) && self.transport.is_writable() {
            let failure = StoreFailure::unreachable("the store stopped sending an object");
            shared.object_store_failed(&failure, now);
            self.why = Some(failure.message.into());
        }
    }

    /// Sends a part of the object, after what is left of the head of the response.
    pub(super) fn relay_object(
        &mut self,
        start: u64,
        end: u64,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let relay = match &mut self.activity {
            Activity::ObjectGet(get) => get.relay(),
            _ => None,
        };
        let relay = relay.ok_or_else(|| io::Error::other("a response without its object"))?;
        let (output, transport) = (self.exchange.output(), &mut self.transport);
        match relay.step(output, start..end, *budget, transport, shared, now)? {
            RelayStep::Blocked => return Ok(StepResult::Blocked),
            RelayStep::Sent { head, body } => {
                relay.sent += body as u64;
                *budget = budget.saturating_sub(head + body);
                if head > 0 {
                    self.exchange.wrote(head, now.mono);
                }
                if body > 0 {
                    self.exchange.sent_file(body as u64, now.mono);
                }
            }
            RelayStep::Broken(Broken::Failed(_)) if !relay.has_resumed => relay.has_resumed = true,
            RelayStep::Broken(broken) => {
                let why = match broken {
                    Broken::Failed(failure) => {
                        shared.object_store_failed(&failure, now);
                        failure.to_string()
                    }
                    Broken::Changed => {
                        shared.forget_object(&relay.path);
                        "it was replaced or deleted meanwhile".to_owned()
                    }
                };
                log::warn!(
                    "object cut short conn={} path={:?} why={why:?}",
                    self.key,
                    relay.path
                );
                self.exchange.file_failed();
            }
        }
        Ok(StepResult::Moved)
    }
}
