//! The request to the store, and the body that passes through it.

use std::io;

use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::client::object_put::checks::OBJECT;
use crate::reactor::client::object_put::{ObjectPut, ObjectPutStage};
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::shared::{Buffers, Shared};
use crate::reactor::upstream::{RequestClass, StreamId, Upstream, UpstreamToken};
use crate::s3::bucket::{Shown, StoreRequest};
use crate::s3::error::StoreFailure;
use crate::service::PutRefusal;
use crate::transport::Moved;

/// Most bytes read from the client at once, and so the most that an upload keeps while the store takes nothing.
const PIECE: usize = 64 * 1024;

/// Pieces that are smaller are collected first.
const SMALL_PIECE: usize = 4096;

/// Bytes of a refusal that are read.
const MAX_FAILURE: usize = 8 * 1024;

/// A body that passes through.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) stream: StreamId,
    /// Bytes that the store has not taken yet.
    pub(super) buffer: Vec<u8>,
    /// The first of them.
    pub(super) start: usize,
    /// Bytes that the client still has to send.
    missing: u64,
}

impl Relay {
    fn new(stream: StreamId, size: u64) -> Relay {
        Relay {
            stream,
            buffer: Vec::new(),
            start: 0,
            missing: size,
        }
    }

    /// The client has sent bytes. The last ones are kept until it is clear that no more follow.
    fn receive(&mut self, mut data: &[u8], upstream: &mut Upstream) {
        self.missing = self.missing.saturating_sub(data.len() as u64);
        if self.buffer.is_empty() && self.missing > 0 && data.len() >= SMALL_PIECE {
            // A failure shows again when the rest is sent.
            if let Ok(Moved::Bytes(n)) = upstream.send_body(self.stream, data) {
                data = &data[n..];
            }
        }
        self.buffer.extend_from_slice(data);
    }

    /// Sends what is buffered; `Bytes` when there is nothing left. The last bytes wait until the body `is_whole`: a last
    /// chunk can still be missing, or another one make it too long.
    fn flush(&mut self, is_whole: bool, upstream: &mut Upstream) -> Result<Moved, StoreFailure> {
        if self.missing == 0 && !is_whole {
            return Ok(Moved::Bytes(0));
        }
        while self.start < self.buffer.len() {
            match upstream.send_body(self.stream, &self.buffer[self.start..])? {
                Moved::Bytes(n) => self.start += n,
                other => return Ok(other),
            }
        }
        // A client that pauses holds no memory.
        self.buffer = Vec::new();
        self.start = 0;
        Ok(Moved::Bytes(0))
    }
}

/// The request that stores the object; with its body, if that is known.
fn put_request(
    put: &ObjectPut,
    body: Option<&[u8]>,
    shared: &mut Shared,
    now: Now,
) -> Option<StoreRequest> {
    let conditional = shared.storage.bucket_mut()?.conditional;
    let is_conditional = put.is_unseen || conditional.are_possible();
    let content_type = put.request.content_type.as_deref();
    let (content_type, disposition) = shared.service.kept_with(put.path(), content_type);
    let shown = Shown {
        content_type: &content_type,
        disposition: &disposition,
        cache_control: "",
    };
    let bucket = shared.service.bucket()?;
    Some(match body {
        Some(body) => bucket.put_whole(&put.key, body, &shown, is_conditional, now),
        None => {
            let size = put.request.grant.size;
            bucket.put(&put.key, size, &shown, is_conditional, now)
        }
    })
}

impl Client {
    /// Accepts a body that is collected.
    pub(super) fn collect_upload(&mut self, mut put: Box<ObjectPut>, now: Now) {
        let size = put.request.grant.size;
        put.stage = ObjectPutStage::Collecting(Vec::new());
        put.is_accepted = true;
        self.activity = Activity::ObjectPut(put);
        self.exchange.accept(size, now.mono);
    }

    /// A collected body is whole: sends it, unless another upload to the path is doing that.
    pub(super) fn send_whole(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        if !self.claim_path(shared, now) {
            return StepResult::Moved;
        }
        let Activity::ObjectPut(put) = &mut self.activity else {
            return StepResult::Blocked;
        };
        let ObjectPutStage::Collecting(body) = &put.stage else {
            return StepResult::Blocked;
        };
        let request = put_request(put, Some(body), shared, now);
        let (Some(request), Some(bucket)) = (request, shared.storage.bucket_mut()) else {
            self.refuse(&PutRefusal::ObjectStore, shared, now);
            return StepResult::Moved;
        };
        let token = UpstreamToken::Client(self.key, OBJECT);
        let upstream = &mut bucket.upstream;
        let id = upstream.submit(request, RequestClass::Upload, token, now);
        put.stage = ObjectPutStage::Storing(id);
        put.is_sent = true;
        StepResult::Blocked
    }

    /// Sends the head of the request to the store.
    pub(super) fn open_upload(&mut self, mut put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        let request = put_request(&put, None, shared, now);
        let (Some(request), Some(bucket)) = (request, shared.storage.bucket_mut()) else {
            return self.refuse_object(put, &PutRefusal::ObjectStore, shared, now);
        };
        let stream = bucket.upstream.begin_stream(request, self.key, now);
        put.stage = ObjectPutStage::Opening(stream);
        self.activity = Activity::ObjectPut(put);
    }

    /// Accepts the client's body when the store asks for it.
    pub(super) fn object_opening(
        &mut self,
        mut put: Box<ObjectPut>,
        stream: StreamId,
        shared: &mut Shared,
        now: Now,
    ) -> StepResult {
        let size = put.request.grant.size;
        let Some(bucket) = shared.storage.bucket_mut() else {
            return StepResult::Blocked;
        };
        let upstream = &mut bucket.upstream;
        let head = upstream.head(stream).map(|head| head.map(|_| ()));
        match head {
            None if upstream.takes_body(stream) => {
                put.stage = ObjectPutStage::Relaying(Relay::new(stream, size));
                put.is_accepted = true;
                self.activity = Activity::ObjectPut(put);
                self.exchange.accept(size, now.mono);
                StepResult::Moved
            }
            None => {
                self.activity = Activity::ObjectPut(put);
                StepResult::Blocked
            }
            Some(Ok(())) => {
                let body = Vec::new();
                put.stage = ObjectPutStage::ReadingFailure { stream, body };
                self.activity = Activity::ObjectPut(put);
                self.read_failure(shared, now)
            }
            Some(Err(failure)) => {
                put.end_stream(shared);
                self.object_refused(put, failure, shared, now);
                StepResult::Moved
            }
        }
    }

    /// Receives a part of the body, as fast as the store takes it unless it is collected.
    pub(super) fn receive_piece(
        &mut self,
        most: usize,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let is_relaying =
            matches!(&self.activity, Activity::ObjectPut(put) if put.stream().is_some());
        let flushed = is_relaying.then(|| self.flush_relay(false, shared, now));
        if let Some(step) = flushed.flatten() {
            return Ok(step);
        }
        let Activity::ObjectPut(put) = &mut self.activity else {
            return Ok(StepResult::Blocked);
        };
        let Shared {
            storage, buffers, ..
        } = shared;
        let Some(bucket) = storage.bucket_mut() else {
            return Ok(StepResult::Blocked);
        };
        self.exchange.resume(now.mono);
        let size = usize::try_from(put.request.grant.size).unwrap_or(usize::MAX);
        let mut sink = |data: &[u8]| {
            match &mut put.stage {
                ObjectPutStage::Relaying(relay) => relay.receive(data, &mut bucket.upstream),
                ObjectPutStage::Collecting(body) => {
                    body.reserve_exact(size.saturating_sub(body.len()));
                    body.extend_from_slice(data);
                }
                _ => {}
            }
            Ok(())
        };
        if let Some((n, received)) = self.exchange.receive_buffered(now.mono, &mut sink) {
            *budget = budget.saturating_sub(n);
            received?;
            return Ok(StepResult::Moved);
        }
        let Buffers { body, wire, .. } = buffers;
        let most = most.min(PIECE).min(*budget);
        match self.transport.read(&mut body[..most], wire)? {
            Moved::Bytes(n) => {
                *budget = budget.saturating_sub(n);
                self.exchange.receive(&body[..n], now.mono, sink)?;
            }
            Moved::End => {
                self.why = Some("the client closed the connection within a body".into());
                self.exchange.peer_closed();
            }
            Moved::NoBytes => {}
            Moved::Blocked => return Ok(StepResult::Blocked),
        }
        Ok(StepResult::Moved)
    }

    /// Sends what is buffered. `None` if nothing is left that may be sent, and the store wants more or has everything.
    pub(super) fn flush_relay(
        &mut self,
        is_whole: bool,
        shared: &mut Shared,
        now: Now,
    ) -> Option<StepResult> {
        let Activity::ObjectPut(put) = &mut self.activity else {
            return Some(StepResult::Blocked);
        };
        let ObjectPutStage::Relaying(relay) = &mut put.stage else {
            return Some(StepResult::Blocked);
        };
        let upstream = &mut shared.storage.bucket_mut()?.upstream;
        let stream = relay.stream;
        let moved = match upstream.head(stream) {
            None => relay.flush(is_whole, upstream),
            Some(Ok(_)) => Ok(Moved::End),
            Some(Err(failure)) => Err(failure),
        };
        match moved {
            Ok(Moved::Bytes(_)) => None,
            Ok(Moved::Blocked | Moved::NoBytes) => {
                self.exchange.pause(now.mono);
                Some(StepResult::Blocked)
            }
            // The store has answered before it had the whole body.
            Ok(Moved::End) => {
                let body = Vec::new();
                put.stage = ObjectPutStage::ReadingFailure { stream, body };
                Some(self.read_failure(shared, now))
            }
            Err(failure) => {
                if let Activity::ObjectPut(put) = std::mem::take(&mut self.activity) {
                    self.fail_object(put, &failure, shared, now);
                }
                Some(StepResult::Moved)
            }
        }
    }

    /// Reads why the store refuses an upload.
    pub(super) fn read_failure(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let Activity::ObjectPut(put) = &mut self.activity else {
            return StepResult::Blocked;
        };
        let ObjectPutStage::ReadingFailure { stream, body } = &mut put.stage else {
            return StepResult::Blocked;
        };
        let Shared {
            storage, buffers, ..
        } = shared;
        let Some(bucket) = storage.bucket_mut() else {
            return StepResult::Blocked;
        };
        let upstream = &mut bucket.upstream;
        while body.len() < MAX_FAILURE {
            match upstream.read_body(*stream, &mut buffers.scratch[..SMALL_PIECE]) {
                Ok(Moved::Bytes(n)) => body.extend_from_slice(&buffers.scratch[..n]),
                Ok(Moved::Blocked) => {
                    self.exchange.pause(now.mono);
                    return StepResult::Blocked;
                }
                Ok(Moved::NoBytes | Moved::End) | Err(_) => break,
            }
        }
        let failure = match upstream.head(*stream) {
            Some(Ok(Response { status, fields, .. })) => {
                StoreFailure::of(*status, fields, body, now.wall)
            }
            Some(Err(failure)) => failure,
            None => StoreFailure::unreachable("there is no response"),
        };
        if let Activity::ObjectPut(mut put) = std::mem::take(&mut self.activity) {
            put.end_stream(shared);
            self.object_refused(put, failure, shared, now);
        }
        StepResult::Moved
    }
}
