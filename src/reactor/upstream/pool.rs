//! The connections to the store, by token, and those among them that are idle.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::reactor::table::Key;
use crate::reactor::upstream::connection::UpstreamConnection;

/// The tokens of connections. Client connections have those that follow.
const TOKENS: std::ops::Range<usize> = 0x800..Key::FIRST as usize;

/// Whether events with this token are for a connection to the store.
pub fn is_upstream(token: mio::Token) -> bool {
    TOKENS.contains(&token.0)
}

/// Most idle connections, and how long they are kept. Stores close theirs after 30 s and more.
const MAX_IDLE: usize = 16;
pub(super) const IDLE_TIME: Duration = Duration::from_secs(20);

/// The connections to the store.
#[derive(Debug)]
pub(super) struct Pool {
    map: BTreeMap<usize, Box<UpstreamConnection>>,
    next: usize,
    /// The one that was used last is at the end.
    idle: VecDeque<usize>,
    /// Those that have work.
    pub(super) queue: VecDeque<usize>,
    /// Counts the targets; connections to an earlier one are not reused.
    pub(super) generation: u32,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool {
            map: BTreeMap::new(),
            next: TOKENS.start,
            idle: VecDeque::new(),
            queue: VecDeque::new(),
            generation: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&mut self, token: usize) -> Option<&mut UpstreamConnection> {
        self.map.get_mut(&token).map(Box::as_mut)
    }

    /// A token that is not in use; `None` if all are.
    pub(super) fn free_token(&mut self) -> Option<usize> {
        if self.map.len() == TOKENS.len() {
            return None;
        }
        while self.map.contains_key(&self.next) {
            self.next = following(self.next);
        }
        let token = self.next;
        // A late event for a connection that was closed then finds none.
        self.next = following(token);
        Some(token)
    }

    pub(super) fn insert(&mut self, token: usize, mut connection: UpstreamConnection) {
        connection.generation = self.generation;
        self.map.insert(token, Box::new(connection));
    }

    pub(super) fn remove(&mut self, token: usize) -> Option<UpstreamConnection> {
        self.idle.retain(|idle| *idle != token);
        self.map.remove(&token).map(|connection| *connection)
    }

    /// Puts a connection on the queue of those that have work.
    pub(super) fn enqueue(&mut self, token: usize) {
        if let Some(connection) = self.map.get_mut(&token) {
            if !std::mem::replace(&mut connection.is_queued, true) {
                self.queue.push_back(token);
            }
        }
    }

    /// Adds an idle connection; returns one that there is no room for.
    pub(super) fn put_idle(&mut self, token: usize) -> Option<usize> {
        self.idle.push_back(token);
        (self.idle.len() > MAX_IDLE)
            .then(|| self.idle.pop_front())
            .flatten()
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Takes the idle connection that was used last.
    pub(super) fn take_idle(&mut self) -> Option<usize> {
        self.idle.pop_back()
    }

    /// Whether more connections have no request than may be idle.
    pub(super) fn has_surplus(&self) -> bool {
        let unused = self.map.values().filter(|c| c.call.is_none());
        unused.count() > MAX_IDLE
    }

    /// Whether a connection is being opened or used, without a request that waits for it.
    pub(super) fn is_probing(&self) -> bool {
        let mut connections = self.map.values();
        connections.any(|connection| connection.call.is_none() && !connection.is_open())
    }

    /// Begins with another target; returns the connections to the earlier one that carry no request yet.
    pub(super) fn begin_generation(&mut self) -> Vec<usize> {
        self.generation = self.generation.wrapping_add(1);
        let connections = self.map.iter();
        let unused = connections.filter(|(_, c)| c.call.is_none() || !c.is_open());
        unused.map(|(token, _)| *token).collect()
    }
}

fn following(token: usize) -> usize {
    let next = token + 1;
    if next < TOKENS.end {
        next
    } else {
        TOKENS.start
    }
}
