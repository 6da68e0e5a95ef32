//! Requests whose bodies pass between the store and a client connection, without being kept.

use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::table::Key;
use crate::reactor::upstream::call::{Call, CallState, Caller};
use crate::reactor::upstream::{StreamId, Upstream, no_connection};
use crate::s3::bucket::StoreRequest;
use crate::s3::error::StoreFailure;
use crate::transport::Moved;

impl Upstream {
    /// Begins a request of a client connection. Its failure is told by [`Upstream::head`].
    pub fn begin_stream(&mut self, request: StoreRequest, key: Key, now: Now) -> StreamId {
        let id = self.calls.add(Call::stream(request, key, now.mono));
        if self.is_cut_off() {
            self.finish_with(id, no_connection());
        }
        self.arm_call(id, now.mono);
        self.must_assign = true;
        id
    }

    /// The next client connection whose stream can go on, or has failed.
    pub fn take_awakened(&mut self) -> Option<Key> {
        loop {
            let id = self.awakened.pop_front()?;
            let caller = self.calls.get(id).map(|call| &mut call.caller);
            if let Some(Caller::Stream {
                key, is_awakened, ..
            }) = caller
            {
                *is_awakened = false;
                return Some(*key);
            }
        }
    }

    /// The head of the response, once it was received, even if the body of the request was not sent to its end.
    pub fn head(&mut self, id: StreamId) -> Option<Result<&Response, StoreFailure>> {
        let call = self.calls.get(id)?;
        match &call.state {
            CallState::Failed(failure) => Some(Err(failure.clone())),
            _ => call.exchange.response().head().map(Ok),
        }
    }

    /// Whether the store has asked for the body, or was given time enough to refuse it. Only then may the body be used up,
    /// because until then the request may be repeated.
    pub fn takes_body(&mut self, id: StreamId) -> bool {
        let call = self.calls.get(id);
        call.is_some_and(|call| call.exchange.takes_body())
    }

    /// Sends bytes of the body of the request. `End`: no more are wanted; the response follows, or is there.
    pub fn send_body(&mut self, id: StreamId, bytes: &[u8]) -> Result<Moved, StoreFailure> {
        let Some(token) = self.place_of(id)? else {
            return Ok(Moved::Blocked);
        };
        let (Some(connection), Some(call)) = (self.pool.get(token), self.calls.get(id)) else {
            return Ok(Moved::Blocked);
        };
        let transport = &mut connection.transport;
        let limit = self.target.body_timeout;
        let was_waiting = call.exchange.has_begun_waiting();
        let moved = call
            .exchange
            .send_body(bytes, transport, &mut self.buffers, limit);
        if call.exchange.has_begun_waiting() && !was_waiting {
            self.touched.push(id);
        }
        match moved {
            Moved::Bytes(n) => self.report.counts.bytes_sent += n as u64,
            Moved::NoBytes => {
                self.pool.enqueue(token);
                return Ok(Moved::Blocked);
            }
            Moved::Blocked | Moved::End => {}
        }
        Ok(moved)
    }

    /// Reads bytes of the body of the response into the buffer. `End`: it is complete.
    pub fn read_body(&mut self, id: StreamId, buffer: &mut [u8]) -> Result<Moved, StoreFailure> {
        let Some(token) = self.place_of(id)? else {
            return Ok(Moved::Blocked);
        };
        let (Some(connection), Some(call)) = (self.pool.get(token), self.calls.get(id)) else {
            return Ok(Moved::Blocked);
        };
        let transport = &mut connection.transport;
        let wire = &mut self.buffers.wire;
        let limit = self.target.body_timeout;
        let was_waiting = call.exchange.has_begun_waiting();
        let moved = call.exchange.read_body(buffer, transport, wire, limit);
        self.buffers.give_back(call.exchange.take_early_buffer());
        if call.exchange.has_begun_waiting() && !was_waiting {
            self.touched.push(id);
        }
        match moved {
            Ok(Moved::Bytes(n)) => self.report.counts.bytes_received += n as u64,
            Ok(Moved::NoBytes) => {
                self.pool.enqueue(token);
                return Ok(Moved::Blocked);
            }
            Ok(Moved::Blocked | Moved::End) => {}
            Err(failure) => {
                self.calls.displace(id);
                self.close(token);
                self.finish_with(id, failure.clone());
                return Err(failure);
            }
        }
        moved
    }

    /// Ends a stream, or a small request that no one waits for any more, in any state. Its connection is kept if the
    /// response is complete and nothing is wrong with it.
    pub fn end_stream(&mut self, id: StreamId) {
        let token = self.calls.displace(id);
        let call = self.remove_call(id);
        let (Some(token), Some(call)) = (token, call) else {
            return;
        };
        let Some(connection) = self.pool.get(token) else {
            return;
        };
        connection.call = None;
        let is_usable = match connection.is_open() {
            true => call.exchange.leaves_connection_usable(),
            // Clients that come and go must not leave behind any number of connections that are being opened.
            false => !self.pool.has_surplus(),
        };
        match is_usable {
            // The next turn puts it into the pool.
            true => self.pool.enqueue(token),
            false => self.close(token),
        }
    }

    /// The connection of a stream, if it has one.
    fn place_of(&mut self, id: StreamId) -> Result<Option<usize>, StoreFailure> {
        match self.calls.get(id).map(|call| &call.state) {
            Some(CallState::Placed(token)) => Ok(Some(*token)),
            Some(CallState::Failed(failure)) => Err(failure.clone()),
            Some(CallState::Waiting | CallState::Resting { .. }) => Ok(None),
            None => Err(StoreFailure::unreachable("there is no such stream")),
        }
    }
}
