//! Deadlines of all connections, in one heap.
//!
//! An entry is a hint to check a connection, not its deadline. If a deadline moves later, the old entry stays; when it
//! is due, it is pushed again with the current deadline. A request on a persistent connection therefore needs no heap
//! operation. Entries of closed connections are dropped when they are due, or all at once when they outnumber those of
//! open connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::reactor::table::Key;

#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Deadlines {
    /// Adds an entry for `key`.
    pub fn push(&mut self, at: Instant, key: Key) {
        self.heap.push(Reverse((at, key)));
    }

    /// The time of the earliest entry.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns the earliest entry, if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Key)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether there are so many stale entries that [`Deadlines::retain`] should be called.
    pub fn is_crowded(&self, open: usize) -> bool {
        self.heap.len() > 2 * open + 64
    }

    /// Keeps only the entries for which `is_current` returns true.
    pub fn retain(&mut self, mut is_current: impl FnMut(Instant, Key) -> bool) {
        self.heap.retain(|Reverse((at, key))| is_current(*at, *key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn due_entries_come_in_order_and_stale_ones_are_dropped() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let key = |token| Key::from_token(token).unwrap();
        let mut deadlines = Deadlines::default();
        for (seconds, token) in [(30, 3), (10, 1), (20, 2)] {
            deadlines.push(at(seconds), key(token));
        }
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(20)), Some((at(10), key(1))));
        assert_eq!(deadlines.pop_due(at(20)), Some((at(20), key(2))));
        assert_eq!(deadlines.pop_due(at(20)), None);
        for _ in 0..100 {
            deadlines.push(at(40), key(4));
        }
        assert!(deadlines.is_crowded(1));
        deadlines.retain(|_, k| k == key(3));
        assert!(!deadlines.is_crowded(1));
        assert_eq!(deadlines.next(), Some(at(30)));
    }
}
