//! What a connection with an event, or with a new request, does next.

use mio::{Registry, Token};

use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::random;
use crate::reactor::upstream::buffers::IoBuffers;
use crate::reactor::upstream::call::{Call, CallId, CallState, Caller};
use crate::reactor::upstream::connection::Stage;
use crate::reactor::upstream::pool::IDLE_TIME;
use crate::reactor::upstream::{Timed, Upstream};
use crate::s3::error::StoreFailure;
use crate::transport::Moved;

/// The longest body of a response to a small request, which fits a page of the longest keys; bytes.
pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;

/// Most reads of the body of a small response per turn.
const BODY_READS: usize = 8;

impl Upstream {
    /// Drives a connection that was idle, has an event, or has a new request.
    pub(super) fn work(&mut self, token: usize, registry: &Registry, now: Now) {
        let Some(connection) = self.pool.get(token) else {
            return;
        };
        connection.is_queued = false;
        if !connection.is_open() {
            let tls = &self.target.tls;
            let opened =
                connection.proceed(registry, Token(token), tls, &mut self.buffers, now.mono);
            if let Err(why) = opened {
                return self.cannot_open(token, &why, now);
            }
            if !connection.is_open() {
                return self.arm_connection(token);
            }
            let server = connection.server;
            self.addresses.connected(server);
            self.end_outage();
        }
        match self.pool.get(token).and_then(|connection| connection.call) {
            Some(id) => self.work_on_call(id, token, now),
            None => self.rest(token, now),
        }
    }

    /// A connection without a request is idle, unless the store has closed it or sent something.
    fn rest(&mut self, token: usize, now: Now) {
        let generation = self.pool.generation;
        let Some(connection) = self.pool.get(token) else {
            return;
        };
        if connection.generation != generation || !connection.is_silent(&mut self.buffers) {
            return self.close(token);
        }
        if matches!(connection.stage, Stage::Idle { .. }) {
            return;
        }
        connection.stage = Stage::Idle {
            until: now.mono + IDLE_TIME,
        };
        self.arm_connection(token);
        if let Some(surplus) = self.pool.put_idle(token) {
            self.close(surplus);
        }
    }

    fn work_on_call(&mut self, id: CallId, token: usize, now: Now) {
        let (Some(connection), Some(call)) = (self.pool.get(token), self.calls.get(id)) else {
            return;
        };
        let limit = self.target.body_timeout;
        let transport = &mut connection.transport;
        let report = (&mut self.report, now);
        let advanced = call
            .exchange
            .advance(transport, &mut self.buffers, limit, report);
        let again = match advanced {
            Ok(again) => again,
            Err(failure) => return self.call_failed(id, failure, now),
        };
        let has_head = call.exchange.response().head().is_some();
        match &mut call.caller {
            // There is nothing to do for the client before there is a response, or a body to be sent.
            Caller::Stream { is_awakened, .. } => {
                let may_go_on = has_head || call.exchange.request.body_length > 0;
                if may_go_on && !std::mem::replace(is_awakened, true) {
                    self.awakened.push_back(id);
                }
            }
            Caller::Small { .. } if has_head => self.collect(id, token, now),
            Caller::Small { .. } => {}
        }
        if has_head && self.outage.is_none() {
            self.report.became_reachable();
        }
        self.arm_call(id, now.mono);
        if again {
            self.pool.enqueue(token);
        }
    }

    /// Collects the body of the response to a small request.
    fn collect(&mut self, id: CallId, token: usize, now: Now) {
        for _ in 0..BODY_READS {
            let (Some(connection), Some(call)) = (self.pool.get(token), self.calls.get(id)) else {
                return;
            };
            let Caller::Small { body, .. } = &mut call.caller else {
                return;
            };
            let IoBuffers { wire, scratch, .. } = &mut self.buffers;
            let transport = &mut connection.transport;
            let limit = self.target.body_timeout;
            match call.exchange.read_body(scratch, transport, wire, limit) {
                Ok(Moved::Bytes(n)) if body.len() + n > MAX_BODY => {
                    let why = "the response is much longer than expected";
                    return self.call_failed(id, StoreFailure::malformed(0, why), now);
                }
                Ok(Moved::Bytes(n)) => {
                    self.report.counts.bytes_received += n as u64;
                    body.extend_from_slice(&scratch[..n]);
                }
                Ok(Moved::End) => return self.answered(id, token, now),
                Ok(Moved::Blocked) => return,
                Ok(Moved::NoBytes) => break,
                Err(failure) => return self.call_failed(id, failure, now),
            }
        }
        self.pool.enqueue(token);
    }

    /// The response to a small request is complete.
    fn answered(&mut self, id: CallId, token: usize, now: Now) {
        self.must_assign = true;
        self.calls.displace(id);
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let is_usable = call.exchange.leaves_connection_usable();
        let response = call.exchange.take_response();
        let status = response.as_ref().map_or(0, |response| response.status);
        let is_ambiguous = call.is_ambiguous(status);
        if call.may_pass(status) && call.rests(now.mono, jitter()) {
            self.report.counts.retries += 1;
            self.arm_call(id, now.mono);
        } else if let Some(Caller::Small {
            token: request,
            body,
            ..
        }) = self.remove_call(id).map(|call| call.caller)
        {
            let response = match response {
                Some(_) if is_ambiguous => Err("the connection broke after the object was sent"),
                Some(response) => Ok(Response { body, ..response }),
                None => Err("there is no response"),
            };
            self.finished
                .push_back((request, response.map_err(StoreFailure::unreachable)));
        }
        self.release(token, is_usable, now);
    }

    /// A request gave up its connection.
    fn release(&mut self, token: usize, is_usable: bool, now: Now) {
        if let Some(connection) = self.pool.get(token) {
            connection.call = None;
        }
        match is_usable {
            true => self.rest(token, now),
            false => self.close(token),
        }
    }

    /// A connection could not be opened.
    fn cannot_open(&mut self, token: usize, why: &str, now: Now) {
        let id = self.pool.get(token).and_then(|connection| connection.call);
        let generation = self.pool.get(token).map(|connection| connection.generation);
        self.close(token);
        if let Some(id) = id {
            self.calls.displace(id);
            let call = self.calls.get(id);
            let may_wait = call.is_some_and(|call| !call.needs_new_connection);
            match may_wait && self.pool.has_idle() {
                // Another one became idle meanwhile.
                true => self.calls.wait(id),
                false => self.finish_with(id, StoreFailure::unreachable(why)),
            }
        }
        if generation == Some(self.pool.generation) {
            self.begin_outage(why, now);
        }
    }

    /// A request failed on its connection, which is closed.
    pub(super) fn call_failed(&mut self, id: CallId, failure: StoreFailure, now: Now) {
        let mut was_reused = false;
        let mut is_current = true;
        if let Some(token) = self.calls.displace(id) {
            if let Some(connection) = self.pool.get(token) {
                was_reused = connection.is_reused;
                is_current = connection.generation == self.pool.generation;
            }
            self.close(token);
        }
        self.must_assign = true;
        let Some(call) = self.calls.get(id) else {
            return;
        };
        if is_current && was_reused && call.moves_to_new_connection() {
            self.report.counts.retries += 1;
            self.calls.wait(id);
        } else if is_current && call.rests_after_loss(now.mono, jitter()) {
            self.report.counts.retries += 1;
            self.arm_call(id, now.mono);
        } else {
            if matches!(call.caller, Caller::Small { .. }) {
                self.report.became_unreachable(&failure.message);
            }
            self.finish_with(id, failure);
        }
    }

    /// Ends a request that has no connection with a failure.
    pub(super) fn finish_with(&mut self, id: CallId, failure: StoreFailure) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        self.report.failed(call.exchange.request.method);
        match &mut call.caller {
            Caller::Small { token, .. } => {
                let token = *token;
                self.remove_call(id);
                self.finished.push_back((token, Err(failure)));
            }
            Caller::Stream { is_awakened, .. } => {
                if !std::mem::replace(is_awakened, true) {
                    self.awakened.push_back(id);
                }
                call.state = CallState::Failed(failure);
            }
        }
    }

    pub(super) fn fail_waiting(&mut self, failure: &StoreFailure) {
        for id in self.calls.take_waiting() {
            self.finish_with(id, failure.clone());
        }
    }

    pub(super) fn remove_call(&mut self, id: CallId) -> Option<Call> {
        let mut call = self.calls.remove(id)?;
        self.buffers.give_back(call.exchange.take_early_buffer());
        if let Some(armed) = call.armed {
            self.deadlines.remove(&(armed, Timed::Call(id)));
        }
        Some(call)
    }

    /// Closes a connection; a request on it is the caller's.
    pub(super) fn close(&mut self, token: usize) {
        if let Some(mut connection) = self.pool.remove(token) {
            if let Some(armed) = connection.armed {
                self.deadlines.remove(&(armed, Timed::Connection(token)));
            }
            // `close_notify` is sent if there is room for it.
            let _ = connection.transport.shut_write();
            self.must_assign = true;
        }
    }
}

pub(super) fn jitter() -> u32 {
    random::bytes().map_or(0, u32::from_le_bytes)
}
