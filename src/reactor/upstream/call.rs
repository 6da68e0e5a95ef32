//! Requests of all kinds, in the order in which they get a connection.
//!
//! ```text
//!             ┌──────────── may be repeated ────────────┐
//!             v                                         │
//!   Waiting ─ a connection ─▶ Placed ── failed, or 5xx ─┴─▶ Failed (streams), or finished
//!      ▲                        │            │
//!      └── Resting (back-off) ◀─┼────────────┘
//!                               └── whole response ──▶ finished
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::reactor::table::Key;
use crate::reactor::upstream::exchange::StoreExchange;
use crate::s3::bucket::StoreRequest;
use crate::s3::error::StoreFailure;

/// Delays before the first and the second repetition.
const DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// How long requests take altogether, with their repetitions.
const USER_TIME: Duration = Duration::from_secs(10);
const BACKGROUND_TIME: Duration = Duration::from_secs(60);
/// A store may take its time to confirm an object.
const UPLOAD_TIME: Duration = Duration::from_secs(40);

/// A user's request that has taken this long is slow. So many of those do not count as requests in progress, so that some
/// objects that the store cannot find do not delay all others.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const MAX_SLOW: usize = 64;

/// Most requests in progress, and most that wait.
const MAX_USER: usize = 16;
const MAX_BACKGROUND: usize = 4;
const MAX_QUEUED: usize = 1024;

/// The lanes of streams and small uploads, of which there are no more than client connections, and of users' other small
/// requests. They come before that of background work.
const TRANSFERS: usize = 0;
const USERS: usize = 1;

/// Identifies a request. Streams are told theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u32);

/// Who waits for a small request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestClass {
    User,
    /// A file of a user, sent along with its head.
    Upload,
    /// Sweeps and other work for which no client waits.
    Background,
}

/// Who a finished request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamToken {
    /// A client connection, and which of its requests.
    Client(Key, u8),
    Task(u32),
    /// A revocation of slots, by its number.
    Revocation(u32),
    /// A list for uploads that wait.
    Notes,
    /// Whether the store honours a condition.
    Condition,
    Probe,
}

/// A request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) exchange: StoreExchange,
    pub(super) state: CallState,
    /// Repetitions after a delay.
    repetitions: usize,
    /// Whether a kept connection turned out to be closed, so that a new one is needed.
    pub(super) needs_new_connection: bool,
    /// When it becomes slow, if it can.
    slow_at: Option<Instant>,
    is_slow: bool,
    /// When its deadline is checked.
    pub(super) armed: Option<Instant>,
}

/// What is done with the response.
#[derive(Debug)]
pub(super) enum Caller {
    /// It is collected.
    Small {
        token: UpstreamToken,
        class: RequestClass,
        /// The end of all attempts.
        until: Instant,
        body: Vec<u8>,
    },
    /// A client connection reads it, and may send a body.
    Stream {
        key: Key,
        /// When it must have a connection.
        placed_until: Instant,
        /// Whether the client is on the list of those to be driven.
        is_awakened: bool,
    },
}

#[derive(Debug)]
pub(super) enum CallState {
    Waiting,
    Resting {
        until: Instant,
    },
    /// On a connection, identified by its token.
    Placed(usize),
    /// For streams, until their end.
    Failed(StoreFailure),
}

impl Call {
    pub(super) fn small(
        request: StoreRequest,
        class: RequestClass,
        token: UpstreamToken,
        now: Instant,
    ) -> Call {
        let time = match class {
            RequestClass::User => USER_TIME,
            RequestClass::Upload => UPLOAD_TIME,
            RequestClass::Background => BACKGROUND_TIME,
        };
        Call::new(
            request,
            Caller::Small {
                token,
                class,
                until: now + time,
                body: Vec::new(),
            },
        )
    }

    pub(super) fn stream(request: StoreRequest, key: Key, now: Instant) -> Call {
        Call::new(
            request,
            Caller::Stream {
                key,
                placed_until: now + USER_TIME,
                is_awakened: false,
            },
        )
    }

    fn new(request: StoreRequest, caller: Caller) -> Call {
        Call {
            caller,
            exchange: StoreExchange::new(request),
            state: CallState::Waiting,
            repetitions: 0,
            needs_new_connection: false,
            slow_at: None,
            is_slow: false,
            armed: None,
        }
    }

    fn lane(&self) -> usize {
        match self.caller {
            Caller::Stream { .. }
            | Caller::Small {
                class: RequestClass::Upload,
                ..
            } => TRANSFERS,
            Caller::Small {
                class: RequestClass::User,
                ..
            } => USERS,
            Caller::Small { .. } => USERS + 1,
        }
    }

    /// The end of all attempts, or of the wait for a connection.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.caller {
            Caller::Small { until, .. } => Some(until),
            Caller::Stream { placed_until, .. } => {
                matches!(self.state, CallState::Waiting).then_some(placed_until)
            }
        }
    }

    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let next = match self.state {
            CallState::Resting { until } => Some(until),
            CallState::Placed(_) => self.exchange.deadline(now),
            CallState::Waiting => None,
            CallState::Failed(_) => return None,
        };
        let others = [self.until(), self.slow_at];
        next.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Prepares the repetition of a request whose kept connection was closed by the store before it answered. Whatever the
    /// request is, the store has not acted on it if its body was not sent.
    pub(super) fn moves_to_new_connection(&mut self) -> bool {
        let request = &self.exchange.request;
        let may = self.exchange.is_untouched() && (request.idempotent || request.body_length > 0);
        if !may || self.needs_new_connection {
            return false;
        }
        self.needs_new_connection = true;
        self.exchange.restart();
        self.state = CallState::Waiting;
        true
    }

    fn is_upload(&self) -> bool {
        let class = match &self.caller {
            Caller::Small { class, .. } => Some(*class),
            Caller::Stream { .. } => None,
        };
        class == Some(RequestClass::Upload)
    }

    /// Whether the request may be repeated after this status.
    pub(super) fn may_pass(&self, status: u16) -> bool {
        match status {
            408 | 429 | 503 => true,
            // The object may be stored, which the caller finds out.
            500 | 502 | 504 => !self.is_upload(),
            _ => false,
        }
    }

    /// Whether a condition may have failed because an earlier attempt had met it.
    pub(super) fn is_ambiguous(&self, status: u16) -> bool {
        let is_repeated = self.repetitions > 0 || self.needs_new_connection;
        status == 412 && self.is_upload() && is_repeated
    }

    /// Prepares a repetition after the connection broke, as [`Call::rests`].
    pub(super) fn rests_after_loss(&mut self, now: Instant, random: u32) -> bool {
        !self.is_upload() && self.rests(now, random)
    }

    /// Prepares a repetition after a delay, if the request may be repeated and there is time left. `random` is uniformly
    /// distributed.
    pub(super) fn rests(&mut self, now: Instant, random: u32) -> bool {
        let Caller::Small { until, body, .. } = &mut self.caller else {
            return false;
        };
        let Some(delay) = delay(self.repetitions, random) else {
            return false;
        };
        let rest_until = now + delay;
        if !self.exchange.request.idempotent || rest_until >= *until {
            return false;
        }
        *body = Vec::new();
        self.repetitions += 1;
        self.exchange.restart();
        self.state = CallState::Resting { until: rest_until };
        true
    }
}

/// The delay before the next repetition, after so many; `None` if there is none. `random` is uniformly distributed.
pub(super) fn delay(repetitions: usize, random: u32) -> Option<Duration> {
    // From half of it to one and a half.
    let factor = 0.5 + f64::from(random) / f64::from(u32::MAX);
    Some(DELAYS.get(repetitions)?.mul_f64(factor))
}

/// All requests, and the order in which they get a connection.
#[derive(Debug, Default)]
pub(super) struct Calls {
    map: BTreeMap<CallId, Box<Call>>,
    next: u32,
    /// Transfers, and the two classes of other small requests: those that wait, and the number of those in progress.
    lanes: [Lane; 3],
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<CallId>,
    /// In progress, and not slow.
    placed: usize,
    slow: usize,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&mut self, id: CallId) -> Option<&mut Call> {
        self.map.get_mut(&id).map(Box::as_mut)
    }

    /// Whether no more requests of this kind may wait.
    pub(super) fn is_full(&self, call: &Call) -> bool {
        let lane = call.lane();
        lane != TRANSFERS && self.lanes[lane].waiting.len() >= MAX_QUEUED
    }

    /// Adds a request to the end of its queue.
    pub(super) fn add(&mut self, call: Call) -> CallId {
        let mut id = CallId(self.next);
        while self.map.contains_key(&id) {
            id = CallId(id.0.wrapping_add(1));
        }
        self.next = id.0.wrapping_add(1);
        self.lanes[call.lane()].waiting.push_back(id);
        self.map.insert(id, Box::new(call));
        id
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Call> {
        self.displace(id);
        self.map.remove(&id).map(|call| *call)
    }

    /// The next request that may have a connection. It is taken off its queue.
    pub(super) fn next_waiting(&mut self) -> Option<CallId> {
        let limits = [usize::MAX, MAX_USER, MAX_BACKGROUND];
        for (lane, limit) in self.lanes.iter_mut().zip(limits) {
            while lane.placed + lane.slow.saturating_sub(MAX_SLOW) < limit {
                let Some(id) = lane.waiting.pop_front() else {
                    break;
                };
                let state = self.map.get(&id).map(|call| &call.state);
                if matches!(state, Some(CallState::Waiting)) {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Puts a request at the front of its queue.
    pub(super) fn wait(&mut self, id: CallId) {
        if let Some(call) = self.map.get_mut(&id) {
            call.state = CallState::Waiting;
            self.lanes[call.lane()].waiting.push_front(id);
        }
    }

    /// All requests that wait for a connection, which are taken off their queues.
    pub(super) fn take_waiting(&mut self) -> Vec<CallId> {
        let lanes = self.lanes.iter_mut();
        let ids: Vec<CallId> = lanes.flat_map(|lane| lane.waiting.drain(..)).collect();
        let is_waiting = |id: &CallId| {
            let call = self.map.get(id);
            call.is_some_and(|call| matches!(call.state, CallState::Waiting))
        };
        ids.into_iter().filter(is_waiting).collect()
    }

    /// A request got a connection.
    pub(super) fn place(&mut self, id: CallId, connection: usize, now: Instant) {
        if let Some(call) = self.map.get_mut(&id) {
            call.state = CallState::Placed(connection);
            let lane = call.lane();
            call.slow_at = (lane == USERS).then_some(now + SLOW_AFTER);
            self.lanes[lane].placed += 1;
        }
    }

    /// Whether a request becomes slow now.
    pub(super) fn becomes_slow(&mut self, id: CallId, now: Instant) -> bool {
        let call = self.map.get_mut(&id);
        let Some(call) = call.filter(|call| call.slow_at.is_some_and(|at| at <= now)) else {
            return false;
        };
        (call.slow_at, call.is_slow) = (None, true);
        let lane = &mut self.lanes[call.lane()];
        lane.placed -= 1;
        lane.slow += 1;
        true
    }

    /// A request gave its connection up, if it had one; its state is to be set.
    pub(super) fn displace(&mut self, id: CallId) -> Option<usize> {
        let call = self.map.get_mut(&id)?;
        let CallState::Placed(connection) = call.state else {
            return None;
        };
        call.state = CallState::Waiting;
        call.slow_at = None;
        let is_slow = std::mem::take(&mut call.is_slow);
        let lane = &mut self.lanes[call.lane()];
        match is_slow {
            true => lane.slow -= 1,
            false => lane.placed -= 1,
        }
        Some(connection)
    }
}
