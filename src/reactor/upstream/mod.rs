//! The driver of connections to an object store.
//!
//! - [`report`] what the operator learns; [`addresses`] the addresses of the store;
//! - [`exchange`] sends a request and receives its response; [`call`] all requests, and the order in which they get a
//!   connection;
//! - [`connection`] opens a connection; [`pool`] all connections; [`buffers`] what they share;
//! - [`streams`] requests whose bodies pass to and from client connections;
//! - [`work`] what a connection does next; [`timing`] deadlines;
//! - this file: small requests, and which of all requests get a connection.
//!
//! A request gets an idle connection or a new one, and has it for itself until the response is complete. Small requests
//! are bounded in number and wait for each other; each stream has a connection of its own, so that a slow client delays
//! no one else.
//!
//! ```text
//!   submit, begin_stream ──▶ waiting ──▶ on a connection ──▶ take_finished, or head and read_body
//!                              ▲  │             │
//!                              │  └─ outage ────┼──▶ failed at once
//!                              └── repetition ──┘
//! ```
//!
//! After a connection could not be opened there is an outage: requests for which there is no idle connection fail at once,
//! until a probe, one a second, opens a connection. Whatever the store sends, or does not send, costs its request alone:
//! every wait has a deadline, everything that is kept is bounded, and a connection that shows anything unexpected is closed.
//!
//! Responses with an error status are responses here; [`crate::s3::error`] knows what they mean.

mod addresses;
mod buffers;
mod call;
mod connection;
mod exchange;
mod pool;
mod report;
mod streams;
mod timing;
mod work;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Registry, Token, Waker};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::http::client::Response;
use crate::http::origin::Origin;
use crate::now::Now;
use crate::reactor::upstream::addresses::{Addresses, Candidates};
use crate::reactor::upstream::buffers::IoBuffers;
use crate::reactor::upstream::call::{Call, CallId, Calls};
use crate::reactor::upstream::connection::{ClientTls, Stage, UpstreamConnection};
use crate::reactor::upstream::pool::Pool;
use crate::reactor::upstream::report::Report;
use crate::s3::bucket::StoreRequest;
use crate::s3::error::{FailureKind, StoreFailure};

pub use call::{CallId as StreamId, RequestClass, UpstreamToken};
pub use pool::is_upstream;
pub use report::{StoreChange, UpstreamCounts};

/// How often to try whether an outage is over.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before a request that the store was too busy for is repeated, after so many repetitions; `None` if it
/// is not.
pub fn repetition_delay(repetitions: usize) -> Option<Duration> {
    call::delay(repetitions, work::jitter())
}

/// Where the store is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct UpstreamTarget {
    host: String,
    port: u16,
    tls: ClientTls,
    /// The longest wait without progress within a body.
    body_timeout: Duration,
}

impl UpstreamTarget {
    /// `tls` is for origins of https. Fails if the host is no name that a certificate can be for.
    pub fn new(
        origin: &Origin,
        tls: Option<Arc<ClientConfig>>,
        body_timeout: Duration,
    ) -> Result<UpstreamTarget, String> {
        let tls = match tls.filter(|_| origin.tls) {
            Some(config) => {
                let name = ServerName::try_from(origin.host.clone());
                let name = name.map_err(|error| format!("{}: {error}", origin.host))?;
                Some((config, name))
            }
            None => None,
        };
        Ok(UpstreamTarget {
            host: origin.host.clone(),
            port: origin.port,
            tls,
            body_timeout,
        })
    }
}

/// All requests to the store, and the connections to it.
#[derive(Debug)]
pub struct Upstream {
    target: UpstreamTarget,
    addresses: Addresses,
    /// When the next probe is due, while connections cannot be opened.
    outage: Option<Instant>,
    pool: Pool,
    calls: Calls,
    /// Whether a request may get a connection.
    must_assign: bool,
    /// When to check the deadlines of requests and connections. If a deadline moves later, its entry stays, and is
    /// replaced when it is due.
    deadlines: BTreeSet<(Instant, Timed)>,
    /// Requests whose waits began outside of [`Upstream::drive`].
    touched: Vec<CallId>,
    finished: VecDeque<(UpstreamToken, Result<Response, StoreFailure>)>,
    awakened: VecDeque<CallId>,
    report: Report,
    buffers: IoBuffers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timed {
    Call(CallId),
    Connection(usize),
}

impl Upstream {
    /// The waker announces that the name of the store was looked up.
    pub fn new(target: UpstreamTarget, waker: Arc<Waker>, now: Now) -> Upstream {
        let mut buffers = IoBuffers::new();
        if target.tls.is_some() {
            buffers.fit_tls();
        }
        Upstream {
            addresses: Addresses::new(&target.host, target.port, waker, now.mono),
            outage: None,
            pool: Pool::new(),
            calls: Calls::default(),
            must_assign: false,
            deadlines: BTreeSet::new(),
            touched: Vec::new(),
            finished: VecDeque::new(),
            awakened: VecDeque::new(),
            report: Report::default(),
            buffers,
            target,
        }
    }

    /// Changes the target. Requests in progress are completed with the earlier one. Those that wait fail if they are signed
    /// for another place.
    pub fn set_target(&mut self, target: UpstreamTarget, now: Now) {
        let place = |target: &UpstreamTarget| (target.host.clone(), target.port);
        let is_same_place = place(&target) == place(&self.target);
        self.outage = None;
        for token in self.pool.begin_generation() {
            let id = self.pool.get(token).and_then(|connection| connection.call);
            self.close(token);
            if let Some(id) = id {
                self.calls.displace(id);
                self.calls.wait(id);
            }
        }
        if !is_same_place {
            let waker = self.addresses.waker();
            self.addresses = Addresses::new(&target.host, target.port, waker, now.mono);
            let why = "the configuration of the store was changed";
            self.fail_waiting(&StoreFailure::unreachable(why));
        }
        self.must_assign = true;
        // Connections to the earlier target may go on, over TLS.
        if target.tls.is_some() {
            self.buffers.fit_tls();
        }
        self.target = target;
    }

    /// Queues a small request; its response is complete in memory. `None` if it has failed at once.
    pub fn submit(
        &mut self,
        request: StoreRequest,
        class: RequestClass,
        token: UpstreamToken,
        now: Now,
    ) -> Option<CallId> {
        let method = request.method;
        let call = Call::small(request, class, token, now.mono);
        let failure = if self.is_cut_off() {
            no_connection()
        } else if self.calls.is_full(&call) {
            StoreFailure {
                kind: FailureKind::SlowDown,
                ..StoreFailure::unreachable("too many requests wait for the store")
            }
        } else {
            let id = self.calls.add(call);
            self.must_assign = true;
            self.arm_call(id, now.mono);
            return Some(id);
        };
        self.report.failed(method);
        self.finished.push_back((token, Err(failure)));
        None
    }

    /// The next small request that is finished.
    pub fn take_finished(&mut self) -> Option<(UpstreamToken, Result<Response, StoreFailure>)> {
        self.finished.pop_front()
    }

    /// The next change of the store's state that was not returned before.
    pub fn take_state_change(&mut self) -> Option<StoreChange> {
        self.report.take_change()
    }

    pub fn counts(&self) -> &UpstreamCounts {
        &self.report.counts
    }

    /// Number of open connections.
    pub fn open_connections(&self) -> usize {
        self.pool.len()
    }

    /// Number of requests that are in progress or wait.
    pub fn open_requests(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is something to do without an event or a deadline.
    pub fn has_work(&self) -> bool {
        self.must_assign
            || !self.pool.queue.is_empty()
            || !self.touched.is_empty()
            || !self.finished.is_empty()
            || !self.awakened.is_empty()
    }

    /// When [`Upstream::drive`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        let others = [self.outage, self.addresses.deadline()];
        first.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Sets the readiness bits of an event for one of the connections.
    pub fn set_ready(&mut self, token: Token, event: &Event) {
        if let Some(connection) = self.pool.get(token.0) {
            connection.transport.set_ready(event);
            self.pool.enqueue(token.0);
        }
    }

    /// Does what events and deadlines allow; called once per turn.
    pub fn drive(&mut self, registry: &Registry, now: Now) {
        if let Some(answer) = self.addresses.take_answer(now.mono) {
            match answer {
                Ok(()) => self.must_assign = true,
                Err(why) => self.begin_outage(&why, now),
            }
        }
        self.work_queue(registry, now);
        // After the input that arrived in time.
        self.pass_deadlines(registry, now);
        if self.outage.is_some_and(|at| at <= now.mono) {
            self.probe(registry, now);
        }
        self.assign(registry, now);
    }

    /// Sends the requests that were made since [`Upstream::drive`], and does what else follows from what callers did; called
    /// in the same turn, so that none of this waits for the next one.
    pub fn follow_up(&mut self, registry: &Registry, now: Now) {
        self.work_queue(registry, now);
        self.assign(registry, now);
    }

    /// Drives the connections that have work, each once.
    fn work_queue(&mut self, registry: &Registry, now: Now) {
        while let Some(id) = self.touched.pop() {
            self.arm_call(id, now.mono);
        }
        for _ in 0..self.pool.queue.len() {
            if let Some(token) = self.pool.queue.pop_front() {
                self.work(token, registry, now);
            }
        }
    }

    /// Gives connections to the requests that wait, if there may be any. In an outage, those fail that would need a new one.
    fn assign(&mut self, registry: &Registry, now: Now) {
        if !std::mem::take(&mut self.must_assign) {
            return;
        }
        while let Some(id) = self.calls.next_waiting() {
            let Some(call) = self.calls.get(id) else {
                continue;
            };
            let kept = match call.needs_new_connection {
                true => None,
                false => self.pool.take_idle(),
            };
            let token = match kept {
                Some(token) => token,
                None if self.outage.is_some() => {
                    self.finish_with(id, no_connection());
                    continue;
                }
                None => match self.open(registry, now) {
                    Ok(Some(token)) => token,
                    Ok(None) => return self.calls.wait(id),
                    Err(why) => {
                        self.finish_with(id, StoreFailure::unreachable(&why));
                        self.begin_outage(&why, now);
                        continue;
                    }
                },
            };
            self.calls.place(id, token, now.mono);
            if let Some(connection) = self.pool.get(token) {
                connection.call = Some(id);
                if connection.is_open() {
                    connection.stage = Stage::Open;
                    connection.is_reused = true;
                }
            }
            self.work(token, registry, now);
        }
    }

    /// Begins to open a connection; returns its token, or `None` if that must wait.
    fn open(&mut self, registry: &Registry, now: Now) -> Result<Option<usize>, String> {
        let candidates = match self.addresses.candidates(now.mono) {
            Candidates::Known(candidates) => candidates,
            Candidates::Pending => return Ok(None),
            Candidates::Unknown(why) => return Err(why),
        };
        let Some(token) = self.pool.free_token() else {
            return Ok(None);
        };
        let tls = &self.target.tls;
        let connection =
            UpstreamConnection::open(candidates, registry, Token(token), tls, now.mono)?;
        self.report.counts.connections += 1;
        self.pool.insert(token, connection);
        self.arm_connection(token);
        Ok(Some(token))
    }

    /// Tries whether the outage is over.
    fn probe(&mut self, registry: &Registry, now: Now) {
        self.outage = Some(now.mono + PROBE_INTERVAL);
        if self.pool.is_probing() {
            return;
        }
        if let Err(why) = self.open(registry, now) {
            self.begin_outage(&why, now);
        }
    }

    /// A connection cannot be opened. Requests that wait for one fail, unless connections that are kept can serve them.
    fn begin_outage(&mut self, why: &str, now: Now) {
        self.outage = Some(now.mono + PROBE_INTERVAL);
        self.addresses.failed(now.mono);
        self.report.became_unreachable(why);
        if self.is_cut_off() {
            self.fail_waiting(&StoreFailure::unreachable(why));
        }
        self.must_assign = true;
    }

    /// Whether no request can get a connection now.
    fn is_cut_off(&self) -> bool {
        self.outage.is_some() && !self.pool.has_idle()
    }

    fn end_outage(&mut self) {
        self.outage = None;
        self.report.became_reachable();
    }
}

fn no_connection() -> StoreFailure {
    StoreFailure::unreachable("")
}

#[cfg(test)]
mod tests;
