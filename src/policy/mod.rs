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
use crate::policy::pool::{Bytes, PerClass, Pool, QuotaClass};
use crate::policy::rules::{Limits, RuleDecision, Rules};
use crate::refusal::Refusal;

/// The limits in force; `None` is no limit.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Domains and bare JIDs; `None` admits every JID.
    pub whitelist: Option<Vec<BareJid>>,
    pub rules: Rules,
    /// Maximum size of one file in bytes, by quota class.
    pub max_file_size: PerClass<u64>,
    /// Quota of one owner in bytes, shared by all classes without a quota of their own.
    pub owner_quota: Option<u64>,
    /// Classes with a quota of their own, which may be none.
    pub class_quotas: PerClass<Option<Option<u64>>>,
    /// Whether the owner's oldest files are evicted to make room for new ones.
    pub evict: bool,
    /// Quota of all files in bytes.
    pub global_quota: Option<u64>,
    /// Bytes that must stay free on the disk.
    pub min_free_space: Option<u64>,
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
    pub fn max_file_size(&self, class: QuotaClass, limits: Option<&Limits>) -> u64 {
        let global = self.max_file_size[class];
        limits
            .and_then(|limits| limits.max_file_size)
            .map_or(global, |own| own.min(global))
    }

    /// Whether [`Policy::room`] needs to know the owner's usage; `total` as there.
    pub fn needs_owner_usage(&self, total: Option<u64>) -> bool {
        total.is_some()
            || self.owner_quota.is_some()
            || self.class_quotas.0.iter().any(Option::is_some)
    }

    /// The classes that share a quota with this one, and the quota in bytes.
    fn quota(&self, class: QuotaClass) -> (Pool, Option<u64>) {
        match self.class_quotas[class] {
            Some(quota) => (Pool::only(class), quota),
            None => (self.general_pool(), self.owner_quota),
        }
    }

    /// The classes without a quota of their own.
    pub fn general_pool(&self) -> Pool {
        Pool(PerClass(self.class_quotas.0.map(|own| own.is_none())))
    }

    /// Whether there is space for `size` more bytes of this class. `total` is the rule's limit on all files of the
    /// owner.
    pub fn room(
        &self,
        size: u64,
        class: QuotaClass,
        total: Option<u64>,
        stored: &Usage,
    ) -> SpaceCheck {
        let exceeds = |stored: u64, limit: u64| stored.saturating_add(size) > limit;
        if let (Some(stored), Some(limit)) = (stored.total, self.global_quota) {
            if exceeds(stored, limit) {
                return SpaceCheck::Refused(Refusal::GlobalQuota {
                    size,
                    stored,
                    limit,
                });
            }
        }
        if let (Some(free), Some(reserve)) = (stored.free, self.min_free_space) {
            if free < reserve.saturating_add(size) {
                return SpaceCheck::Refused(Refusal::FreeSpace {
                    size,
                    free,
                    reserve,
                });
            }
        }
        let Some(owner) = stored.owner else {
            return SpaceCheck::Enough;
        };
        for (pool, limit) in [self.quota(class), (Pool::ALL, total)] {
            let stored = pool.sum(&owner);
            if let Some(limit) = limit.filter(|limit| exceeds(stored, *limit)) {
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
            max_file_size: PerClass([100, 100, 100, 5000]),
            class_quotas: PerClass([None, None, None, Some(Some(200))]),
            owner_quota: Some(1000),
            evict: false,
            global_quota: Some(5000),
            min_free_space: Some(50),
        }
    }

    fn stored(owner: u64, total: u64, free: u64) -> Usage {
        Usage {
            owner: Some(PerClass([owner, 0, 0, 100])),
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
        assert_eq!(policy().max_file_size(QuotaClass::Message, None), 100);
        assert_eq!(
            policy().max_file_size(QuotaClass::Message, Some(&narrow(Some(50)))),
            50
        );
        assert_eq!(
            policy().max_file_size(QuotaClass::Message, Some(&narrow(Some(500)))),
            100
        );
        assert_eq!(
            policy().max_file_size(QuotaClass::Permanent, Some(&narrow(None))),
            5000
        );
    }

    #[test]
    fn a_purpose_with_a_quota_of_its_own_has_a_pool_of_its_own() {
        let plain = policy();
        let full = stored(1000, 0, 1000);
        let room = |class, size| matches!(plain.room(size, class, None, &full), SpaceCheck::Enough);
        assert!(
            !room(QuotaClass::Message, 1)
                && !room(QuotaClass::Profile, 1)
                && !room(QuotaClass::Ephemeral, 1),
            "the shared quota is used up"
        );
        assert!(
            room(QuotaClass::Permanent, 100) && !room(QuotaClass::Permanent, 101),
            "permanent files have 100 bytes left"
        );
        let limited = |size, total| {
            matches!(
                plain.room(size, QuotaClass::Permanent, Some(total), &full),
                SpaceCheck::Enough
            )
        };
        assert!(
            limited(100, 1200) && !limited(100, 1199),
            "a rule's total limit covers all classes"
        );
    }

    #[track_caller]
    fn check(policy: &Policy, size: u64, stored: Usage, room: &str) {
        let found = match policy.room(size, QuotaClass::Message, None, &stored) {
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
                owner: Some(PerClass([1000, 0, 0, 0])),
                total: None,
                free: None,
            },
            "owner",
        );
        let off = Policy {
            owner_quota: None,
            class_quotas: PerClass([None; 4]),
            global_quota: None,
            min_free_space: None,
            ..policy()
        };
        check(&off, u64::MAX, stored(u64::MAX, u64::MAX, 0), "enough");
        assert!(
            plain.needs_owner_usage(None)
                && !off.needs_owner_usage(None)
                && off.needs_owner_usage(Some(1))
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
