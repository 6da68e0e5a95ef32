//! The run queue: the connections that have work, in the order of their turns.
//!
//! Short work comes first: whatever is left of a request is done in one go. A body whose rest exceeds the budget is bulk
//! work, of which a turn does no more than one budget, however many connections have some; then the loop collects new
//! events. So a small request waits for about one piece of a large transfer and never for one of each.

use std::collections::VecDeque;

use crate::reactor::table::Key;

/// How long the work of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Short,
    Bulk,
}

/// The run queue.
#[derive(Debug, Default)]
pub struct RunQueue {
    short: VecDeque<Key>,
    bulk: VecDeque<Key>,
}

/// The part of the run queue that is worked in one turn. Connections that are put on the queue meanwhile have their turn
/// in the next one, except that short work may go on as bulk work.
#[derive(Debug)]
pub struct Turn {
    work: Work,
    /// How many connections are left with this kind of work.
    left: usize,
    /// Bytes that bulk work may still transfer.
    budget: usize,
}

impl RunQueue {
    pub fn is_empty(&self) -> bool {
        self.short.is_empty() && self.bulk.is_empty()
    }

    pub fn push(&mut self, key: Key, work: Work) {
        self.queue(work).push_back(key);
    }

    /// Starts a turn in which bulk work may transfer `budget` bytes.
    pub fn start_turn(&self, budget: usize) -> Turn {
        Turn {
            work: Work::Short,
            left: self.short.len(),
            budget,
        }
    }

    /// Takes the next connection of a turn. `moved`: how many bytes the previous one transferred.
    pub fn next(&mut self, turn: &mut Turn, moved: usize) -> Option<Key> {
        if turn.work == Work::Bulk {
            turn.budget = turn.budget.saturating_sub(moved);
        } else if turn.left == 0 {
            turn.work = Work::Bulk;
            turn.left = self.bulk.len();
        }
        if turn.left == 0 || turn.budget == 0 {
            return None;
        }
        turn.left -= 1;
        self.queue(turn.work).pop_front()
    }

    fn queue(&mut self, work: Work) -> &mut VecDeque<Key> {
        match work {
            Work::Short => &mut self.short,
            Work::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 100;

    fn key(number: usize) -> Key {
        Key::from_token(Key::FIRST as usize + number).unwrap()
    }

    /// A queue with these connections.
    fn queue(short: &[usize], bulk: &[usize]) -> RunQueue {
        let mut queue = RunQueue::default();
        short.iter().for_each(|n| queue.push(key(*n), Work::Short));
        bulk.iter().for_each(|n| queue.push(key(*n), Work::Bulk));
        queue
    }

    /// Works one turn in which each connection transfers `moved` bytes and then has the work of `then`; returns their
    /// order.
    fn turn(queue: &mut RunQueue, moved: usize, then: impl Fn(Key) -> Option<Work>) -> Vec<Key> {
        let mut turn = queue.start_turn(BUDGET);
        let mut order = Vec::new();
        let mut last = 0;
        while let Some(key) = queue.next(&mut turn, last) {
            order.push(key);
            if let Some(work) = then(key) {
                queue.push(key, work);
            }
            last = moved;
        }
        order
    }

    #[test]
    fn short_work_is_first_and_bulk_work_within_a_shared_budget() {
        let mut queue = queue(&[10, 11], &(0..10).collect::<Vec<_>>());
        let bulk = |key: Key| (key < self::key(10)).then_some(Work::Bulk);
        let keys = |numbers: &[usize]| numbers.iter().map(|n| key(*n)).collect::<Vec<_>>();
        assert_eq!(turn(&mut queue, 100, bulk), keys(&[10, 11, 0]));
        queue.push(key(12), Work::Short);
        assert_eq!(turn(&mut queue, 40, bulk), keys(&[12, 1, 2, 3]));
        assert_eq!(turn(&mut queue, 500, bulk), keys(&[4]));
        // Connections that transfer nothing are no burden; none has two turns in one.
        let all = keys(&[5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
        assert_eq!(turn(&mut queue, 0, bulk), all);
        assert_eq!(turn(&mut queue, 0, |_| None), all);
        assert!(queue.is_empty());
    }

    #[test]
    fn short_work_leaves_the_whole_budget_to_bulk_work() {
        let mut queue = queue(&[1, 2, 3], &[4, 5]);
        let order = turn(&mut queue, 50, |_| None);
        assert_eq!(order, [1, 2, 3, 4, 5].map(key));
    }

    #[test]
    fn short_work_that_becomes_bulk_work_goes_on_in_the_same_turn() {
        let mut queue = queue(&[1, 2], &[3]);
        let then = |k: Key| (k <= key(2)).then_some(Work::Bulk);
        let order = turn(&mut queue, 50, then);
        assert_eq!(order, [1, 2, 3, 1].map(key));
        assert_eq!(turn(&mut queue, 50, |_| None), [2, 1].map(key));
    }

    #[test]
    fn short_work_that_is_not_done_has_its_next_turn_after_new_events() {
        let mut queue = queue(&[1], &[]);
        let then = |_| Some(Work::Short);
        assert_eq!(turn(&mut queue, 500, then), [key(1)]);
        assert_eq!(turn(&mut queue, 500, then), [key(1)]);
    }
}
