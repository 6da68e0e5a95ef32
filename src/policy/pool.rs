//! Kinds of files that are counted apart.
//!
//! A purpose may have a quota of its own; then its files are a pool of their own, and those of all other purposes
//! share the general one.

use crate::layout::Mark;
use crate::slot::Purpose;

/// Number of kinds: message (and files of other making), profile, ephemeral, permanent.
pub const KINDS: usize = 4;

/// Bytes of one owner's files by kind.
pub type Bytes = [u64; KINDS];

/// The kinds whose files share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool(pub [bool; KINDS]);

impl Pool {
    /// All files of an owner.
    pub const ALL: Pool = Pool([true; KINDS]);

    /// What may be removed to make room: profile pictures and permanent files are there to stay.
    pub const EXPENDABLE: Pool = Pool([true, false, true, false]);

    /// The pool of one kind alone.
    pub fn only(kind: usize) -> Pool {
        let mut kinds = [false; KINDS];
        kinds[kind] = true;
        Pool(kinds)
    }

    /// The kinds that are in both.
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

    /// The sum of the kinds in the pool.
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

/// The kind of a file of this purpose.
pub fn kind_of(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Message => 0,
        Purpose::Profile => 1,
        Purpose::Ephemeral { .. } => 2,
        Purpose::Permanent => 3,
    }
}

/// The kind of a file with this mark; files of other making count as messages.
pub fn kind(mark: Option<Mark>) -> usize {
    mark.map_or(0, |mark| kind_of(mark.purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_sum_their_own_kinds() {
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
