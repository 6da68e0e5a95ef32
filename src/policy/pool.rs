//! Quota classes: groups of files that are counted separately.
//!
//! A purpose may have its own quota; its files then form a pool of their own, while the files of all other purposes
//! share the general quota.

use crate::layout::Tag;
use crate::purpose::Purpose;

/// Number of classes: message (also legacy and foreign files), profile, ephemeral, permanent.
pub const QUOTA_CLASSES: usize = 4;

/// Bytes of one owner's files by class.
pub type Bytes = [u64; QUOTA_CLASSES];

/// A set of classes that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool(pub [bool; QUOTA_CLASSES]);

impl Pool {
    /// All files of an owner.
    pub const ALL: Pool = Pool([true; QUOTA_CLASSES]);

    /// Files that may be evicted; profile and permanent files are never evicted.
    pub const EVICTABLE: Pool = Pool([true, false, true, false]);

    /// The pool of a single class.
    pub fn only(kind: usize) -> Pool {
        let mut kinds = [false; QUOTA_CLASSES];
        kinds[kind] = true;
        Pool(kinds)
    }

    /// The intersection of two pools.
    pub fn and(self, other: Pool) -> Pool {
        let mut kinds = [false; QUOTA_CLASSES];
        for (at, kind) in kinds.iter_mut().enumerate() {
            *kind = self.0[at] && other.0[at];
        }
        Pool(kinds)
    }

    pub fn has(self, kind: usize) -> bool {
        self.0[kind]
    }

    /// The sum over the classes in the pool.
    pub fn sum(self, bytes: &Bytes) -> u64 {
        let mut sum: u64 = 0;
        for (at, bytes) in bytes.iter().enumerate() {
            if self.0[at] {
                sum = sum.saturating_add(*bytes);
            }
        }
        sum
    }
}

/// The class of a file of this purpose.
pub fn class_of(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Message => 0,
        Purpose::Profile => 1,
        Purpose::Ephemeral { .. } => 2,
        Purpose::Permanent => 3,
    }
}

/// The class of a file with this tag; legacy and foreign files, which have none, count as messages.
pub fn kind(tag: Option<Tag>) -> usize {
    tag.map_or(0, |tag| class_of(tag.purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_sum_their_own_classes() {
        let bytes = [1, 20, 300, 4000];
        for (pool, sum) in [
            (Pool::ALL, 4321),
            (Pool::EVICTABLE, 301),
            (Pool::only(3), 4000),
            (Pool::only(1).and(Pool::EVICTABLE), 0),
        ] {
            assert_eq!(pool.sum(&bytes), sum, "{pool:?}");
        }
        assert_eq!(Pool::ALL.sum(&[u64::MAX; QUOTA_CLASSES]), u64::MAX);
        assert_eq!(kind(None), 0);
        assert_eq!(kind(Some(Purpose::Permanent.into())), 3);
    }
}
