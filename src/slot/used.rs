//! Slots of our own that were used lately: each makes one file, also when somebody removed that file by hand, of which
//! nothing else is left.
//!
//! A slot is known by the random part of its path. Memory is bounded; the oldest are forgotten first, at the latest
//! when they have expired. After a restart nothing is known: whoever removes content for good uses `upslot remove`.

use std::collections::{HashSet, VecDeque};

use crate::layout::StorePath;
use crate::slot::grant::{Grant, Issued};

/// Slots that are remembered.
const MOST: usize = 4096;

/// Characters of a path that no two slots share: 120 bits in base64.
const LENGTH: usize = 20;

type Id = [u8; LENGTH];

/// The used slots.
#[derive(Debug, Default)]
pub struct UsedSlots {
    ids: HashSet<Id>,
    /// In the order of their use, with the second after which they are no good anyway.
    queue: VecDeque<(Id, u64)>,
}

impl UsedSlots {
    /// The slot of this grant has its file.
    pub fn add(&mut self, grant: &Grant, now: u64) {
        let (Some(id), Issued::ExpiresAt(expires)) = (id(&grant.path), grant.issued) else {
            return;
        };
        if !self.ids.insert(id) {
            return;
        }
        let over = |queue: &VecDeque<(Id, u64)>| {
            queue.len() >= MOST || queue.front().is_some_and(|(_, expires)| *expires < now)
        };
        while over(&self.queue) {
            if let Some((id, _)) = self.queue.pop_front() {
                self.ids.remove(&id);
            }
        }
        self.queue.push_back((id, expires));
    }

    /// The file could not be kept.
    pub fn take_back(&mut self, grant: &Grant) {
        if let Some(id) = id(&grant.path) {
            self.ids.remove(&id);
            self.queue.retain(|(other, _)| *other != id);
        }
    }

    /// Whether the slot of this grant was used.
    pub fn contains(&self, grant: &Grant) -> bool {
        id(&grant.path).is_some_and(|id| self.ids.contains(&id))
    }

    /// Forgets all, because another tree is in place.
    pub fn forget(&mut self) {
        *self = UsedSlots::default();
    }
}

/// What tells a slot of our own from all others.
fn id(path: &StorePath) -> Option<Id> {
    let folder = path.segments().nth(1)?;
    path.mark()?;
    folder.get(..LENGTH)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::slot::Purpose;
    use crate::slot::grant::Source;

    fn grant(number: u64, expires: u64) -> Grant {
        let owner = BareJid::parse("romeo@montague.tld").unwrap();
        let mut random = [0; 15];
        random[..8].copy_from_slice(&number.to_be_bytes());
        Grant {
            path: StorePath::of_slot(&owner, Purpose::Message.into(), &random, "a").unwrap(),
            size: 1,
            content_type: None,
            total: 0,
            issued: Issued::ExpiresAt(expires),
            source: Source::Own,
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
        used.take_back(&grant(2, 200));
        assert!(!used.contains(&grant(2, 200)));
        used.forget();
        assert!(!used.contains(&grant(3, 200)));
    }

    #[test]
    fn few_are_remembered() {
        let mut used = UsedSlots::default();
        let most = MOST as u64;
        for number in 0..3 * most {
            used.add(&grant(number, 100), 50);
            used.add(&grant(number, 100), 50);
        }
        assert_eq!((used.ids.len(), used.queue.len()), (MOST, MOST));
        assert!(used.contains(&grant(3 * most - 1, 100)));
        assert!(used.contains(&grant(2 * most, 100)) && !used.contains(&grant(2 * most - 1, 100)));
    }
}
