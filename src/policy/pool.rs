//! Quota classes: groups of files that are counted separately.
//!
//! A purpose may have its own quota; its files then form a pool of their own, while the files of all other purposes
//! share the general quota.

use std::ops::{Index, IndexMut};

use crate::layout::Tag;
use crate::purpose::Purpose;

/// The class of a file, from its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaClass {
    /// Also legacy and foreign files.
    Message,
    Profile,
    Ephemeral,
    Permanent,
}

impl QuotaClass {
    pub const ALL: [QuotaClass; 4] = [
        QuotaClass::Message,
        QuotaClass::Profile,
        QuotaClass::Ephemeral,
        QuotaClass::Permanent,
    ];

    /// The class of a file with this tag; legacy and foreign files have none.
    pub fn of(tag: Option<Tag>) -> QuotaClass {
        tag.map_or(QuotaClass::Message, |tag| tag.purpose.into())
    }
}

impl From<Purpose> for QuotaClass {
    fn from(purpose: Purpose) -> QuotaClass {
        match purpose {
            Purpose::Message => QuotaClass::Message,
            Purpose::Profile => QuotaClass::Profile,
            Purpose::Ephemeral { .. } => QuotaClass::Ephemeral,
            Purpose::Permanent => QuotaClass::Permanent,
        }
    }
}

/// A value for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass<T>(pub [T; 4]);

/// Bytes of one owner's files.
pub type Bytes = PerClass<u64>;

impl<T> Index<QuotaClass> for PerClass<T> {
    type Output = T;

    fn index(&self, class: QuotaClass) -> &T {
        &self.0[class as usize]
    }
}

impl<T> IndexMut<QuotaClass> for PerClass<T> {
    fn index_mut(&mut self, class: QuotaClass) -> &mut T {
        &mut self.0[class as usize]
    }
}

/// A set of classes that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool(pub PerClass<bool>);

impl Pool {
    /// All files of an owner.
    pub const ALL: Pool = Pool(PerClass([true; 4]));

    /// Files that may be evicted; profile and permanent files are never evicted.
    pub const EVICTABLE: Pool = Pool(PerClass([true, false, true, false]));

    /// The pool of a single class.
    pub fn only(class: QuotaClass) -> Pool {
        Pool(PerClass(QuotaClass::ALL.map(|other| other == class)))
    }

    /// The intersection of two pools.
    pub fn and(self, other: Pool) -> Pool {
        let both = |class| self.has(class) && other.has(class);
        Pool(PerClass(QuotaClass::ALL.map(both)))
    }

    pub fn has(self, class: QuotaClass) -> bool {
        self.0[class]
    }

    /// The sum over the classes in the pool.
    pub fn sum(self, bytes: &Bytes) -> u64 {
        let pooled = QuotaClass::ALL.into_iter().filter(|class| self.has(*class));
        pooled.fold(0, |sum, class| sum.saturating_add(bytes[class]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_sum_their_own_classes() {
        let bytes = PerClass([1, 20, 300, 4000]);
        for (pool, sum) in [
            (Pool::ALL, 4321),
            (Pool::EVICTABLE, 301),
            (Pool::only(QuotaClass::Permanent), 4000),
            (Pool::only(QuotaClass::Profile).and(Pool::EVICTABLE), 0),
        ] {
            assert_eq!(pool.sum(&bytes), sum, "{pool:?}");
        }
        assert_eq!(Pool::ALL.sum(&PerClass([u64::MAX; 4])), u64::MAX);
        assert_eq!(QuotaClass::of(None), QuotaClass::Message);
        let permanent = Some(Purpose::Permanent.into());
        assert_eq!(QuotaClass::of(permanent), QuotaClass::Permanent);
    }
}
