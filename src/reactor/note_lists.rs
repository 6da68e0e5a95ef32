//! Lists of the notes about slots in an object store: tombstones, and revocations by other nodes.
//!
//! ```text
//!   uploads ──▶ waiting ── no list is under way ──▶ asked ── answer ──▶ all of them
//! ```
//!
//! Ordinarily there are no notes, or few, so that one list tells what two requests of each upload would. A list answers
//! only uploads that came before it was asked for; those that come meanwhile wait for the next one.

use std::time::{Duration, Instant};

use crate::reactor::table::Key;

/// Most uploads that wait for a list; others ask for their notes themselves.
const MAX_WAITING: usize = 1024;

/// How long uploads ask for their notes themselves after there were more than a list holds.
const PAUSE: Duration = Duration::from_secs(60);

/// The uploads that wait for a list.
#[derive(Debug, Default)]
pub struct NoteLists {
    /// Clients that came since the list under way was asked for. Some may have gone away.
    waiting: Vec<Key>,
    /// Those whom it answers; empty if there is none.
    asked: Vec<Key>,
    paused_until: Option<Instant>,
}

impl NoteLists {
    /// Lets an upload wait for a list; false if it has to ask for its notes itself.
    pub fn join(&mut self, key: Key, now: Instant) -> bool {
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        if is_paused || self.waiting.len() == MAX_WAITING {
            return false;
        }
        self.waiting.push(key);
        true
    }

    /// Whether a list must be asked for.
    pub fn is_due(&self) -> bool {
        self.asked.is_empty() && !self.waiting.is_empty()
    }

    /// A list is asked for, which answers all that wait; true if it is due.
    pub fn begin(&mut self) -> bool {
        let is_due = self.is_due();
        if is_due {
            self.asked = std::mem::take(&mut self.waiting);
        }
        is_due
    }

    /// The list under way is answered, or has failed. Returns whom it answers.
    pub fn answered(&mut self, is_whole: bool, now: Instant) -> Vec<Key> {
        if !is_whole {
            self.paused_until = Some(now + PAUSE);
        }
        std::mem::take(&mut self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::from_token(Key::FIRST as usize + number).unwrap()
    }

    #[test]
    fn a_list_answers_those_who_came_before_it() {
        let mut lists = NoteLists::default();
        let now = Instant::now();
        assert!(!lists.begin());
        assert!(lists.join(key(1), now) && lists.join(key(2), now));
        assert!(lists.begin());
        assert!(lists.join(key(3), now) && !lists.begin());
        assert_eq!(lists.answered(true, now), [key(1), key(2)]);
        assert!(lists.begin() && !lists.begin());
        assert_eq!(lists.answered(true, now), [key(3)]);
        assert!(!lists.begin());
    }

    #[test]
    fn some_ask_themselves() {
        let mut lists = NoteLists::default();
        let now = Instant::now();
        for number in 0..MAX_WAITING {
            assert!(lists.join(key(number), now));
        }
        assert!(!lists.join(key(0), now));
        assert!(lists.begin() && lists.join(key(0), now));
        assert_eq!(lists.answered(false, now).len(), MAX_WAITING);
        assert!(!lists.join(key(1), now + PAUSE - Duration::from_secs(1)));
        assert!(lists.join(key(1), now + PAUSE));
        // Those who wait already are answered all the same.
        assert!(lists.begin());
        assert_eq!(lists.answered(true, now), [key(0), key(1)]);
    }
}
