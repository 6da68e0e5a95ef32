//! Slot requests and PUTs that wait until the store has counted an owner's files or freed space for the owner.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::reactor::table::Key;
use crate::xmpp::upload::SlotIq;

/// Maximum number of waiting requests; further ones are refused.
const MAX_WAITING: usize = 1024;

/// Maximum number for one owner, so that one owner cannot use all places. Clients send a few dozen files at once.
const MAX_WAITING_PER_OWNER: usize = 64;

/// The progress of the search for space for one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    /// How many times the store was searched.
    pub tries: u8,
    /// The owner's files could not be counted.
    pub failed: bool,
    /// The newest of the files that must expire before there is space, if only expiry can free it.
    pub newest: Option<SystemTime>,
}

/// The result of an operation on the store that requests waited for.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The owner's files were counted.
    Counted,
    /// The owner's files could not be counted.
    Failed,
    /// The store was searched for files to delete; the time is as in [`crate::store::trim::Trimmed`].
    Searched(Option<SystemTime>),
}

impl Attempt {
    /// The progress after one more operation.
    pub fn after(self, lookup: Lookup) -> Attempt {
        match lookup {
            Lookup::Counted => self,
            Lookup::Failed => Attempt {
                failed: true,
                ..self
            },
            Lookup::Searched(newest) => Attempt {
                tries: self.tries.saturating_add(1),
                newest: newest.or(self.newest),
                ..self
            },
        }
    }
}

/// A waiting request.
#[derive(Debug)]
pub enum Waiter {
    /// A slot request from the component link.
    Slot(Box<SlotIq>, Attempt),
    /// A connection with a PUT or a request to the slot API.
    Connection(Key),
}

/// All waiting requests, by owner folder.
#[derive(Debug, Default)]
pub struct Waiting {
    owners: HashMap<Vec<u8>, Vec<Waiter>>,
    count: usize,
}

impl Waiting {
    /// Adds a request. Returns it if too many are waiting.
    pub fn push(&mut self, owner: &[u8], waiter: Waiter) -> Result<(), Waiter> {
        let of_owner = self.owners.get(owner).map_or(0, Vec::len);
        if self.count >= MAX_WAITING || of_owner >= MAX_WAITING_PER_OWNER {
            return Err(waiter);
        }
        self.count += 1;
        self.owners.entry(owner.to_vec()).or_default().push(waiter);
        Ok(())
    }

    /// Removes and returns all requests that wait for this owner.
    pub fn take(&mut self, owner: &[u8]) -> Vec<Waiter> {
        let waiters = self.owners.remove(owner).unwrap_or_default();
        self.count -= waiters.len();
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_cannot_use_all_places() {
        let waiter = || Waiter::Connection(Key::from_token(Key::FIRST as usize).unwrap());
        let mut waiting = Waiting::default();
        let fill = |waiting: &mut Waiting, owner: &str| {
            let pushed = (0..2 * MAX_WAITING).map(|_| waiting.push(owner.as_bytes(), waiter()));
            pushed.filter(Result::is_ok).count()
        };
        assert_eq!(fill(&mut waiting, "flood"), MAX_WAITING_PER_OWNER);
        assert_eq!(fill(&mut waiting, "other"), MAX_WAITING_PER_OWNER);
        assert_eq!(waiting.take(b"flood").len(), MAX_WAITING_PER_OWNER);
        assert_eq!(fill(&mut waiting, "flood"), MAX_WAITING_PER_OWNER);
        let all: usize = (0..100).map(|n| fill(&mut waiting, &n.to_string())).sum();
        assert_eq!(all + 2 * MAX_WAITING_PER_OWNER, MAX_WAITING);
    }
}
