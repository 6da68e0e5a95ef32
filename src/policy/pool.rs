//! Quota classes: groups of files that are counted separately.
//!
//! A purpose may have its own quota; its files then form a pool of their own, while the files of all other purposes
//! share the general quota.

use crate::layout::Mark;
use crate::slot::Purpose;

/// Number of classes: message (also legacy and foreign files), profile, ephemeral, permanent.
pub const KINDS: usize = 4;

/// Bytes of one owner's files by class.
pub type Bytes = [u64; KINDS];

/// A set of classes that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool(pub [bool; KINDS]);

impl Pool {
    /// All files of an owner.
    pub const ALL: Pool = Pool([true; KINDS]);

    /// Files that may be evicted; profile and permanent files are never evicted.
    pub const EXPENDABLE: Pool = Pool([true, false, true, false]);

    /// The pool of a single class.
    pub fn only(kind: usize) -> Pool {
        let mut kinds = [false; KINDS];
        kinds[kind] = true;
        Pool(kinds)
    }

    /// The intersection of two pools.
    pub fn and(self, other: Pool) -> Pool {
        let mut kinds = [false; KINDS];
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
pub fn kind_of(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Message => 0,
        Purpose::Profile => 1,
        Purpose::Ephemeral { .. } => 2,
        Purpose::Permanent => 3,
    }
}

/// The class of a file with this tag; legacy and foreign files, which have none, count as messages.
pub fn kind(mark: Option<Mark>) -> usize {
    mark.map_or(0, |mark| kind_of(mark.purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_sum_their_own_classes() {
        let bytes = [1, 20, 300, 4000];
        for (pool, sum) in [
            (Pool::ALL, 4321),
            (Pool::EXPENDABLE, 301),
            (Pool::only(3), 4000),
            (Pool::only(1).and(Pool::EXPENDABLE), 0),
        ] {
            assert_eq!(pool.sum(&bytes), sum, "{pool:?}");
        }
        assert_eq!(Pool::ALL.sum(&[u64::MAX; KINDS]), u64::MAX);
        assert_eq!(kind(None), 0);
        assert_eq!(kind(Some(Purpose::Permanent.into())), 3);
    }
}
