//! Recently used slots. A slot creates at most one file, even if that file was deleted by hand, which leaves no other
//! trace.
//!
//! A slot is identified by the random part of its path. Memory is bounded: the oldest slots are dropped first, and all
//! of them once they have expired. The list is lost on restart; to remove content permanently, use `upslot remove`.

use std::collections::{HashSet, VecDeque};

use crate::layout::StorePath;
use crate::slot::grant::{Grant, Issued};

/// Maximum number of slots kept.
const MAX_SLOTS: usize = 4096;

/// Length of the random part of a path, which is unique to a slot: 120 bits in base64.
const LENGTH: usize = 20;

type Id = [u8; LENGTH];

/// The used slots.
#[derive(Debug, Default)]
pub struct UsedSlots {
    ids: HashSet<Id>,
    /// In order of use, with the expiry time.
    queue: VecDeque<(Id, u64)>,
}

impl UsedSlots {
    /// The slot of this grant was used.
    pub fn add(&mut self, grant: &Grant, now: u64) {
        let (Some(id), Issued::ExpiresAt(expires)) = (id(&grant.path), grant.issued) else {
            return;
        };
        if !self.ids.insert(id) {
            return;
        }
        let must_drop = |queue: &VecDeque<(Id, u64)>| {
            queue.len() >= MAX_SLOTS || queue.front().is_some_and(|(_, expires)| *expires < now)
        };
        while must_drop(&self.queue) {
            if let Some((id, _)) = self.queue.pop_front() {
                self.ids.remove(&id);
            }
        }
        self.queue.push_back((id, expires));
    }

    /// The file could not be stored, so the slot may be used again.
    pub fn unpublish(&mut self, grant: &Grant) {
        if let Some(id) = id(&grant.path) {
            self.ids.remove(&id);
            self.queue.retain(|(other, _)| *other != id);
        }
    }

    /// Whether the slot of this grant was used.
    pub fn contains(&self, grant: &Grant) -> bool {
        id(&grant.path).is_some_and(|id| self.ids.contains(&id))
    }

    /// Drops all slots, because the storage folder was replaced.
    pub fn forget(&mut self) {
        *self = UsedSlots::default();
    }
}

/// The identity of one of upslot's own slots.
fn id(path: &StorePath) -> Option<Id> {
    let folder = path.segments().nth(1)?;
    path.tag()?;
    folder.get(..LENGTH)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::purpose::Purpose;
    use crate::slot::grant::Scheme;

    fn grant(number: u64, expires: u64) -> Grant {
        let owner = BareJid::parse("romeo@montague.tld").unwrap();
        let mut random = [0; 15];
        random[..8].copy_from_slice(&number.to_be_bytes());
        Grant {
            path: StorePath::for_slot(&owner, Purpose::Message.into(), &random, "a").unwrap(),
            size: 1,
            content_type: None,
            total: None,
            issued: Issued::ExpiresAt(expires),
            scheme: Scheme::Own,
        }
    }

    #[test]
    fn a_slot_is_used_until_it_expires() {
        let mut used = UsedSlots::default();
        used.add(&grant(1, 100), 50);
        assert!(used.contains(&grant(1, 100)) && !used.contains(&grant(2, 100)));
        used.add(&grant(2, 200), 100);
        assert!(used.contains(&grant(1, 100)));
        used.add(&grant(3, 200), 101);
        assert!(!used.contains(&grant(1, 100)) && used.contains(&grant(2, 200)));
        used.unpublish(&grant(2, 200));
        assert!(!used.contains(&grant(2, 200)));
        used.forget();
        assert!(!used.contains(&grant(3, 200)));
    }

    #[test]
    fn few_are_remembered() {
        let mut used = UsedSlots::default();
        let most = MAX_SLOTS as u64;
        for number in 0..3 * most {
            used.add(&grant(number, 100), 50);
            used.add(&grant(number, 100), 50);
        }
        assert_eq!((used.ids.len(), used.queue.len()), (MAX_SLOTS, MAX_SLOTS));
        assert!(used.contains(&grant(3 * most - 1, 100)));
        assert!(used.contains(&grant(2 * most, 100)) && !used.contains(&grant(2 * most - 1, 100)));
    }
}
