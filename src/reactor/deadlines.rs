//! When to wake whom: one heap for all connections.
//!
//! An entry is a hint to look at a connection, not its deadline: a deadline that moves later leaves its old entry,
//! which comes up early and is put back. So a request on a kept connection costs no heap operation. Entries of
//! connections that are gone are dropped when they come up, or all at once when they outnumber the living.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::reactor::table::Key;

#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Deadlines {
    /// Wakes `key` at the moment.
    pub fn push(&mut self, at: Instant, key: Key) {
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest moment at which there is somebody to look at.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Somebody whose moment has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Key)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether so many entries have piled up that [`Deadlines::retain`] should be called.
    pub fn is_crowded(&self, living: usize) -> bool {
        self.heap.len() > 2 * living + 64
    }

    /// Drops entries that wake nobody.
    pub fn retain(&mut self, mut wakes: impl FnMut(Instant, Key) -> bool) {
        self.heap.retain(|Reverse((at, key))| wakes(*at, *key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn due_entries_come_in_order_and_the_dead_are_dropped() {
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
