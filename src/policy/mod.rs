//! Who may upload how much: allow, make room first, or refuse, with the numbers.
//!
//! - [`pool`] kinds of files that are counted apart;
//! - [`rules`] the operator's rules, first match wins;
//! - [`rates`] bytes and uploads per time;
//! - this file: all limits together.
//!
//! Pure arithmetic over what the caller knows; it looks nothing up. Limits are inclusive: exactly the limit is
//! allowed.

pub mod pool;
pub mod rates;
pub mod rules;

use crate::jid::BareJid;
use crate::policy::pool::{Bytes, KINDS, Pool};
use crate::policy::rules::{Decision, Limits, Rules};
use crate::slot::Refusal;

/// The limits in force; 0 is off for every quota.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Domains and bare JIDs; `None` lets everyone in.
    pub whitelist: Option<Vec<BareJid>>,
    pub rules: Rules,
    /// Bytes of one file, by kind.
    pub max_file_size: [u64; KINDS],
    /// Bytes of one owner's files, of all kinds without a quota of their own.
    pub owner_quota: u64,
    /// Bytes of one owner's files of kinds that have a quota of their own.
    pub own_quotas: [Option<u64>; KINDS],
    /// Whether the owner's oldest files make room for new ones.
    pub evict: bool,
    /// Bytes of all files.
    pub global_quota: u64,
    /// Bytes of the disk that must stay free.
    pub min_free_space: u64,
}

/// What is stored now, as far as it is known; bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// The owner's files and uploads under way, by kind; `None` when nobody counts them.
    pub owner: Option<Bytes>,
    /// All files and uploads under way; `None` while the first count is under way.
    pub total: Option<u64>,
    /// Free on the disk, less what uploads under way will still write; `None` when the disk cannot tell.
    pub free: Option<u64>,
}

/// Whether bytes may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// Not enough: this stands in the way. So many bytes of files of this pool are too many; if `evict`, the oldest of
    /// them may go.
    Over {
        refusal: Refusal,
        need: u64,
        pool: Pool,
        evict: bool,
    },
    Refused(Refusal),
}

impl Policy {
    /// What the rules allow this address beyond the general limits; `None` when there are no rules.
    pub fn admit(&self, jid: &BareJid) -> Result<Option<&Limits>, Refusal> {
        let refused = || Refusal::NotAllowed { owner: jid.clone() };
        if !self.is_listed(jid) {
            return Err(refused());
        }
        match self.rules.decide(jid) {
            Decision::NoRules => Ok(None),
            Decision::Denied { .. } => Err(refused()),
            Decision::Allowed { limits, .. } => Ok(Some(limits)),
        }
    }

    /// Whether the whitelist has this address.
    pub fn is_listed(&self, jid: &BareJid) -> bool {
        self.whitelist
            .as_ref()
            .is_none_or(|list| list.iter().any(|e| e == jid || e.as_str() == jid.domain()))
    }

    /// Bytes of the largest file of this kind.
    pub fn max_file_size(&self, kind: usize, limits: Option<&Limits>) -> u64 {
        let general = self.max_file_size[kind];
        limits
            .and_then(|limits| limits.max_file_size)
            .map_or(general, |own| own.min(general))
    }

    /// Whether owners' stored bytes must be known before [`Policy::room`] can be asked; `total` as there.
    pub fn counts_owners(&self, total: u64) -> bool {
        total > 0 || self.owner_quota > 0 || self.own_quotas.iter().any(Option::is_some)
    }

    /// The files that share a quota with those of this kind, and the quota; 0 is off.
    pub fn quota(&self, kind: usize) -> (Pool, u64) {
        match self.own_quotas[kind] {
            Some(quota) => (Pool::only(kind), quota),
            None => (
                Pool(self.own_quotas.map(|own| own.is_none())),
                self.owner_quota,
            ),
        }
    }

    /// Whether `size` more bytes of this kind fit in. `total` is what a rule allows the owner in all; 0 is off.
    pub fn room(&self, size: u64, kind: usize, total: u64, stored: &Stored) -> Room {
        let over = |limit: u64, stored: u64| limit > 0 && stored.saturating_add(size) > limit;
        if let Some(all) = stored.total.filter(|all| over(self.global_quota, *all)) {
            return Room::Refused(Refusal::GlobalQuota {
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
            return Room::Refused(Refusal::FreeSpace {
                size,
                free,
                reserve: self.min_free_space,
            });
        }
        let Some(owner) = stored.owner else {
            return Room::Enough;
        };
        for (pool, limit) in [self.quota(kind), (Pool::ALL, total)] {
            let stored = pool.sum(&owner);
            if over(limit, stored) {
                return Room::Over {
                    refusal: Refusal::OwnerQuota {
                        size,
                        stored,
                        limit,
                        retry: None,
                    },
                    need: stored.saturating_add(size).saturating_sub(limit),
                    pool: pool.and(Pool::EXPENDABLE),
                    evict: self.evict && size <= limit,
                };
            }
        }
        Room::Enough
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
            own_quotas: [None, None, None, Some(200)],
            owner_quota: 1000,
            evict: false,
            global_quota: 5000,
            min_free_space: 50,
        }
    }

    fn stored(owner: u64, total: u64, free: u64) -> Stored {
        Stored {
            owner: Some([owner, 0, 0, 100]),
            total: Some(total),
            free: Some(free),
        }
    }

    #[test]
    fn the_whitelist_names_domains_and_addresses() {
        let policy = Policy {
            whitelist: Some(vec![jid("montague.tld"), jid("juliet@capulet.tld")]),
            ..policy()
        };
        for (asker, admitted) in [
            ("romeo@montague.tld", true),
            ("ROMEO@montague.tld/orchard", true),
            ("montague.tld", true),
            ("juliet@capulet.tld", true),
            ("tybalt@capulet.tld", false),
            ("romeo@sub.montague.tld", false),
            ("montague.tld@evil.tld", false),
            ("capulet.tld", false),
        ] {
            assert_eq!(policy.admit(&jid(asker)).is_ok(), admitted, "{asker}");
        }
        let nobody = Policy {
            whitelist: Some(vec![]),
            ..policy
        };
        assert!(nobody.admit(&jid("romeo@montague.tld")).is_err());
    }

    #[test]
    fn a_rule_can_only_narrow_the_general_limit() {
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
        let room = |kind, size| matches!(plain.room(size, kind, 0, &full), Room::Enough);
        assert!(
            !room(0, 1) && !room(1, 1) && !room(2, 1),
            "the general quota is used up"
        );
        assert!(
            room(3, 100) && !room(3, 101),
            "permanent files have 100 bytes left"
        );
        let limited = |size, total| matches!(plain.room(size, 3, total, &full), Room::Enough);
        assert!(
            limited(100, 1200) && !limited(100, 1199),
            "a rule's total is over all kinds"
        );
    }

    #[track_caller]
    fn check(policy: &Policy, size: u64, stored: Stored, room: &str) {
        let found = match policy.room(size, 0, 0, &stored) {
            Room::Enough => "enough".to_owned(),
            Room::Over {
                need, evict: true, ..
            } => format!("evict {need}"),
            Room::Over { evict: false, .. } => "owner".to_owned(),
            Room::Refused(Refusal::GlobalQuota { .. }) => "global".to_owned(),
            Room::Refused(Refusal::FreeSpace { .. }) => "free".to_owned(),
            Room::Refused(other) => panic!("{other:?}"),
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
            Stored {
                owner: Some([1000, 0, 0, 0]),
                total: None,
                free: None,
            },
            "owner",
        );
        let off = Policy {
            owner_quota: 0,
            own_quotas: [None; KINDS],
            global_quota: 0,
            min_free_space: 0,
            ..policy()
        };
        check(&off, u64::MAX, stored(u64::MAX, u64::MAX, 0), "enough");
        assert!(plain.counts_owners(0) && !off.counts_owners(0) && off.counts_owners(1));
    }

    #[test]
    fn eviction_makes_room_unless_the_file_alone_is_too_large() {
        let evicting = Policy {
            evict: true,
            ..policy()
        };
        check(&evicting, 100, stored(950, 950, 1000), "evict 50");
        check(&evicting, 1000, stored(950, 950, 5000), "evict 950");
        check(&evicting, 1001, stored(0, 0, 5000), "owner");
    }
}
