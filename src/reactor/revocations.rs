//! Revocations of slots that are being recorded in an object store, for the other nodes.
//!
//! One is recorded per owner: the latest. Recording it is repeated until it succeeds, or until the slots have expired.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long to wait after a failure.
const INTERVAL: Duration = Duration::from_secs(5);

/// The revocations that are not recorded yet.
#[derive(Debug, Default)]
pub struct Revocations {
    pending: HashMap<u32, Revocation>,
    next: u32,
}

#[derive(Debug)]
struct Revocation {
    /// The owner folder.
    owner: Vec<u8>,
    /// Slots issued until this Unix second are void.
    until: u64,
    /// When they have expired.
    expires: Instant,
    /// When to record it; `None` while that is under way.
    due: Option<Instant>,
    /// Whether it was replaced by a later one while it was under way.
    is_outdated: bool,
}

impl Revocations {
    /// Slots of an owner that were issued until a Unix second are void; the last of them expires at `expires`.
    pub fn add(&mut self, owner: &[u8], until: u64, expires: Instant, now: Instant) {
        let mut pending = self.pending.values_mut();
        if let Some(earlier) = pending.find(|earlier| earlier.owner == owner) {
            earlier.until = earlier.until.max(until);
            earlier.expires = earlier.expires.max(expires);
            earlier.is_outdated = earlier.due.is_none();
            return;
        }
        self.next = self.next.wrapping_add(1);
        let revocation = Revocation {
            owner: owner.to_vec(),
            until,
            expires,
            due: Some(now),
            is_outdated: false,
        };
        self.pending.insert(self.next, revocation);
    }

    /// Whether some are not recorded yet.
    pub fn is_recording(&self) -> bool {
        !self.pending.is_empty()
    }

    /// When [`Revocations::take_due`] returns something.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending
            .values()
            .filter_map(|pending| pending.due)
            .min()
    }

    /// The number, owner and Unix second of one that must be recorded now.
    pub fn take_due(&mut self, now: Instant) -> Option<(u32, &[u8], u64)> {
        let mut pending = self.pending.iter_mut();
        let (number, due) = pending.find(|(_, pending)| pending.due.is_some_and(|at| at <= now))?;
        due.due = None;
        Some((*number, &due.owner, due.until))
    }

    /// One is recorded, or that failed. Returns the owner if it is given up.
    pub fn recorded(&mut self, number: u32, succeeded: bool, now: Instant) -> Option<Vec<u8>> {
        let revocation = self.pending.get_mut(&number)?;
        let is_outdated = std::mem::take(&mut revocation.is_outdated);
        if !succeeded && revocation.expires > now {
            revocation.due = Some(now + INTERVAL);
        } else if succeeded && is_outdated {
            revocation.due = Some(now);
        } else {
            let ended = self.pending.remove(&number);
            return ended.filter(|_| !succeeded).map(|ended| ended.owner);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_recorded_until_that_succeeds() {
        let mut revocations = Revocations::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(revocations.deadline(), None);
        revocations.add(b"a", 100, after(360), start);
        assert_eq!(revocations.deadline(), Some(start));
        let (number, owner, until) = revocations.take_due(start).unwrap();
        assert_eq!((owner, until), (&b"a"[..], 100));
        assert!(revocations.take_due(start).is_none());
        assert_eq!(revocations.deadline(), None);
        // Another one while the first is under way.
        revocations.add(b"a", 101, after(361), after(1));
        assert_eq!(revocations.recorded(number, true, after(2)), None);
        assert_eq!(
            revocations.take_due(after(2)),
            Some((number, &b"a"[..], 101))
        );
        assert_eq!(revocations.recorded(number, false, after(3)), None);
        assert_eq!(revocations.deadline(), Some(after(3) + INTERVAL));
        assert!(revocations.take_due(after(4)).is_none());
        assert!(revocations.take_due(after(8)).is_some());
        assert_eq!(revocations.recorded(number, true, after(9)), None);
        assert!(revocations.pending.is_empty());
        // The slots have expired.
        revocations.add(b"b", 200, after(10), after(10));
        let (number, ..) = revocations.take_due(after(10)).unwrap();
        let given_up = revocations.recorded(number, false, after(10));
        assert_eq!(given_up.as_deref(), Some(&b"b"[..]));
        assert_eq!(revocations.recorded(number, true, after(10)), None);
    }
}
