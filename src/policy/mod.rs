//! Upload policy: which users may upload, and within which limits.
//!
//! - [`pool`]: classes of files with separate quotas;
//! - [`rules`]: the operator's access rules, first match wins;
//! - [`rates`]: bytes and uploads per time window;
//! - this file: all limits combined.
//!
//! Pure arithmetic over values that the caller passes in. Limits are inclusive: exactly the limit is allowed.

pub mod pool;
pub mod rates;
pub mod rules;

use crate::jid::BareJid;
use crate::policy::pool::{Bytes, Pool, QUOTA_CLASSES};
use crate::policy::rules::{Limits, RuleDecision, Rules};
use crate::refusal::Refusal;

/// The limits in force; 0 turns a quota off.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Domains and bare JIDs; `None` admits every JID.
    pub whitelist: Option<Vec<BareJid>>,
    pub rules: Rules,
    /// Maximum size of one file in bytes, by quota class.
    pub max_file_size: [u64; QUOTA_CLASSES],
    /// Quota of one owner in bytes, shared by all classes without a quota of their own.
    pub owner_quota: u64,
    /// Quota of one owner in bytes, for classes with a quota of their own.
    pub class_quotas: [Option<u64>; QUOTA_CLASSES],
    /// Whether the owner's oldest files are evicted to make room for new ones.
    pub evict: bool,
    /// Quota of all files in bytes.
    pub global_quota: u64,
    /// Bytes that must stay free on the disk.
    pub min_free_space: u64,
}

/// Current usage in bytes, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The owner's files and uploads in progress, by quota class; `None` if no limit needs them.
    pub owner: Option<Bytes>,
    /// All files and uploads in progress; `None` until the first count has finished.
    pub total: Option<u64>,
    /// Free space on the disk, less the bytes that uploads in progress have yet to write; `None` if it is unknown.
    pub free: Option<u64>,
}

/// Whether there is space for an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpaceCheck {
    Enough,
    /// An owner's quota would be exceeded by `need` bytes. If `evict`, the oldest files in `pool` may be removed to
    /// make room; otherwise the request is refused.
    OverQuota {
        refusal: Refusal,
        need: u64,
        pool: Pool,
        evict: bool,
    },
    Refused(Refusal),
}

impl Policy {
    /// The limits that the access rules add for this JID; `None` if there are no rules.
    pub fn admit(&self, jid: &BareJid) -> Result<Option<&Limits>, Refusal> {
        let refused = || Refusal::NotAllowed { owner: jid.clone() };
        if self.whitelist.is_some() && self.whitelist_entry(jid).is_none() {
            return Err(refused());
        }
        match self.rules.decide(jid) {
            RuleDecision::NoRules => Ok(None),
            RuleDecision::Denied { .. } => Err(refused()),
            RuleDecision::Allowed { limits, .. } => Ok(Some(limits)),
        }
    }

    /// The entry of the whitelist that admits this JID.
    pub fn whitelist_entry(&self, jid: &BareJid) -> Option<&BareJid> {
        let mut list = self.whitelist.iter().flatten();
        list.find(|entry| *entry == jid || entry.as_str() == jid.domain())
    }

    /// Maximum size of a file of this class in bytes.
    pub fn max_file_size(&self, kind: usize, limits: Option<&Limits>) -> u64 {
        let global = self.max_file_size[kind];
        limits
            .and_then(|limits| limits.max_file_size)
            .map_or(global, |own| own.min(global))
    }

    /// Whether [`Policy::room`] needs to know the owner's usage; `total` as there.
    pub fn needs_owner_usage(&self, total: u64) -> bool {
        total > 0 || self.owner_quota > 0 || self.class_quotas.iter().any(Option::is_some)
    }

    /// The classes that share a quota with this one, and the quota in bytes; 0 means no quota.
    pub fn quota(&self, kind: usize) -> (Pool, u64) {
        match self.class_quotas[kind] {
            Some(quota) => (Pool::only(kind), quota),
            None => (self.general_pool(), self.owner_quota),
        }
    }

    /// The classes without a quota of their own.
    pub fn general_pool(&self) -> Pool {
        Pool(self.class_quotas.map(|own| own.is_none()))
    }

    /// Whether there is space for `size` more bytes of this class. `total` is the rule's limit on all files of the
    /// owner; 0 means no limit.
    pub fn room(&self, size: u64, kind: usize, total: u64, stored: &Usage) -> SpaceCheck {
        let over = |limit: u64, stored: u64| limit > 0 && stored.saturating_add(size) > limit;
        if let Some(all) = stored.total.filter(|all| over(self.global_quota, *all)) {
            return SpaceCheck::Refused(Refusal::GlobalQuota {
                size,
                stored: all,
                limit: self.global_quota,
            });
        }
        let needed = self.min_free_space.saturating_add(size);
        if let Some(free) = stored
            .free
            .filter(|free| self.min_free_space > 0 && *free < needed)
        {
            return SpaceCheck::Refused(Refusal::FreeSpace {
                size,
                free,
                reserve: self.min_free_space,
            });
        }
        let Some(owner) = stored.owner else {
            return SpaceCheck::Enough;
        };
        for (pool, limit) in [self.quota(kind), (Pool::ALL, total)] {
            let stored = pool.sum(&owner);
            if over(limit, stored) {
                return SpaceCheck::OverQuota {
                    refusal: Refusal::OwnerQuota {
                        size,
                        stored,
                        limit,
                        retry: None,
                    },
                    need: stored.saturating_add(size).saturating_sub(limit),
                    pool: pool.and(Pool::EVICTABLE),
                    evict: self.evict && size <= limit,
                };
            }
        }
        SpaceCheck::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn policy() -> Policy {
        Policy {
            whitelist: None,
            rules: Rules::default(),
            max_file_size: [100, 100, 100, 5000],
            class_quotas: [None, None, None, Some(200)],
            owner_quota: 1000,
            evict: false,
            global_quota: 5000,
            min_free_space: 50,
        }
    }

    fn stored(owner: u64, total: u64, free: u64) -> Usage {
        Usage {
            owner: Some([owner, 0, 0, 100]),
            total: Some(total),
            free: Some(free),
        }
    }

    #[test]
    fn the_whitelist_holds_domains_and_bare_jids() {
        let policy = Policy {
            whitelist: Some(vec![jid("montague.tld"), jid("juliet@capulet.tld")]),
            ..policy()
        };
        for (address, admitted) in [
            ("romeo@montague.tld", true),
            ("ROMEO@montague.tld/orchard", true),
            ("montague.tld", true),
            ("juliet@capulet.tld", true),
            ("tybalt@capulet.tld", false),
            ("romeo@sub.montague.tld", false),
            ("montague.tld@evil.tld", false),
            ("capulet.tld", false),
        ] {
            assert_eq!(policy.admit(&jid(address)).is_ok(), admitted, "{address}");
        }
        let empty = Policy {
            whitelist: Some(vec![]),
            ..policy
        };
        assert!(empty.admit(&jid("romeo@montague.tld")).is_err());
    }

    #[test]
    fn a_rule_can_only_lower_the_global_limit() {
        let narrow = |max_file_size| Limits {
            max_file_size,
            ..Limits::default()
        };
        assert_eq!(policy().max_file_size(0, None), 100);
        assert_eq!(policy().max_file_size(0, Some(&narrow(Some(50)))), 50);
        assert_eq!(policy().max_file_size(0, Some(&narrow(Some(500)))), 100);
        assert_eq!(policy().max_file_size(3, Some(&narrow(None))), 5000);
    }

    #[test]
    fn a_purpose_with_a_quota_of_its_own_has_a_pool_of_its_own() {
        let plain = policy();
        let full = stored(1000, 0, 1000);
        let room = |kind, size| matches!(plain.room(size, kind, 0, &full), SpaceCheck::Enough);
        assert!(
            !room(0, 1) && !room(1, 1) && !room(2, 1),
            "the shared quota is used up"
        );
        assert!(
            room(3, 100) && !room(3, 101),
            "permanent files have 100 bytes left"
        );
        let limited = |size, total| matches!(plain.room(size, 3, total, &full), SpaceCheck::Enough);
        assert!(
            limited(100, 1200) && !limited(100, 1199),
            "a rule's total limit covers all classes"
        );
    }

    #[track_caller]
    fn check(policy: &Policy, size: u64, stored: Usage, room: &str) {
        let found = match policy.room(size, 0, 0, &stored) {
            SpaceCheck::Enough => "enough".to_owned(),
            SpaceCheck::OverQuota {
                need, evict: true, ..
            } => format!("evict {need}"),
            SpaceCheck::OverQuota { evict: false, .. } => "owner".to_owned(),
            SpaceCheck::Refused(Refusal::GlobalQuota { .. }) => "global".to_owned(),
            SpaceCheck::Refused(Refusal::FreeSpace { .. }) => "free".to_owned(),
            SpaceCheck::Refused(other) => panic!("{other:?}"),
        };
        assert_eq!(found, room, "{size} bytes with {stored:?}");
    }

    #[test]
    fn quotas_are_inclusive_and_cannot_overflow() {
        let plain = policy();
        check(&plain, 100, stored(900, 900, 150), "enough");
        check(&plain, 101, stored(900, 900, 1000), "owner");
        check(&plain, 100, stored(0, 4900, 1000), "enough");
        check(&plain, 101, stored(0, 4900, 1000), "global");
        check(&plain, 101, stored(0, 0, 150), "free");
        check(&plain, u64::MAX, stored(u64::MAX, 0, u64::MAX), "global");
        check(
            &plain,
            1,
            Usage {
                owner: Some([1000, 0, 0, 0]),
                total: None,
                free: None,
            },
            "owner",
        );
        let off = Policy {
            owner_quota: 0,
            class_quotas: [None; QUOTA_CLASSES],
            global_quota: 0,
            min_free_space: 0,
            ..policy()
        };
        check(&off, u64::MAX, stored(u64::MAX, u64::MAX, 0), "enough");
        assert!(
            plain.needs_owner_usage(0) && !off.needs_owner_usage(0) && off.needs_owner_usage(1)
        );
    }

    #[test]
    fn eviction_makes_room_unless_the_file_alone_exceeds_the_quota() {
        let evicting = Policy {
            evict: true,
            ..policy()
        };
        check(&evicting, 100, stored(950, 950, 1000), "evict 50");
        check(&evicting, 1000, stored(950, 950, 5000), "evict 950");
        check(&evicting, 1001, stored(0, 0, 5000), "owner");
    }
}
