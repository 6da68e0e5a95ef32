//! The connections, those of them that have work, and their deadlines.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::reactor::client::Client;
use crate::reactor::run_queue::RunQueue;
use crate::reactor::table::{Key, Table};

/// The resolution of the times at which deadlines are checked. Every connection has two of them, so they are counted in
/// 32 bits, which last for eight years. A power of two, so that no division is needed.
const TICK: Duration = Duration::from_millis(64);

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    /// The start of the first tick.
    start: Instant,
    pub(super) table: Table<Client>,
    pub(super) run_queue: RunQueue,
    /// When to check the deadline of each connection, in ticks. If a deadline moves later, its entry stays, and is
    /// replaced when it is due. A request on a persistent connection therefore changes nothing here.
    deadlines: BTreeSet<(u32, Key)>,
}

impl Connections {
    pub(super) fn new(start: Instant) -> Connections {
        Connections {
            start,
            table: Table::default(),
            run_queue: RunQueue::default(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Client> {
        let client = self.table.remove(key)?;
        if let Some(armed) = client.armed {
            self.deadlines.remove(&(armed, key));
        }
        Some(client)
    }

    /// The number of whole ticks until this time.
    fn ticks(&self, at: Instant) -> u32 {
        let ticks = at.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// When the first deadline must be checked.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines
            .first()
            .map(|(at, _)| self.start + TICK * *at)
    }

    /// Checks the deadline of a connection at this time at the latest.
    pub(super) fn arm(&mut self, key: Key, at: Instant) {
        let at = self.ticks(at).saturating_add(1);
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if let Some(armed) = client.armed {
            if armed <= at {
                return;
            }
            self.deadlines.remove(&(armed, key));
        }
        client.armed = Some(at);
        self.deadlines.insert((at, key));
    }

    /// Takes the next connection whose deadline must be checked now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Key> {
        let (_, key) = *self
            .deadlines
            .first()
            .filter(|(at, _)| *at <= self.ticks(now))?;
        self.deadlines.pop_first();
        if let Some(client) = self.table.get_mut(key) {
            client.armed = None;
        }
        Some(key)
    }
}
