//! Who may upload how much: allow, make room first, or refuse, with the numbers.
//!
//! Pure arithmetic over what the caller knows; it looks nothing up. Limits are inclusive: exactly the limit is
//! allowed.

use crate::jid::BareJid;
use crate::slot::{Refusal, SlotRequest};

/// The limits in force; 0 is off for every quota.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Domains and bare JIDs; `None` lets everyone in.
    pub whitelist: Option<Vec<BareJid>>,
    /// Bytes of one file.
    pub max_file_size: u64,
    /// Bytes of one owner's files.
    pub owner_quota: u64,
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
    /// The owner's files and uploads under way.
    pub owner: u64,
    /// All files and uploads under way; `None` while the first count is under way.
    pub total: Option<u64>,
    /// Free on the disk, less what uploads under way will still write; `None` when the disk cannot tell.
    pub free: Option<u64>,
}

/// Whether bytes may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// Enough once so many bytes of the owner's oldest files are gone.
    Evict(u64),
    Refused(Refusal),
}

impl Policy {
    /// Whether this address may upload at all.
    pub fn admits(&self, jid: &BareJid) -> bool {
        self.whitelist
            .as_ref()
            .is_none_or(|list| list.iter().any(|e| e == jid || e.as_str() == jid.domain()))
    }

    /// Judges what needs no look at the store: who asks, and the size.
    pub fn judge(&self, request: &SlotRequest) -> Result<(), Refusal> {
        if !self.admits(&request.owner) {
            return Err(Refusal::NotAllowed {
                owner: request.owner.clone(),
            });
        }
        if request.size > self.max_file_size {
            return Err(Refusal::TooLarge {
                size: request.size,
                limit: self.max_file_size,
            });
        }
        Ok(())
    }

    /// Whether [`Stored::owner`] must be known before [`Policy::room`] can be asked.
    pub fn counts_owners(&self) -> bool {
        self.owner_quota > 0
    }

    /// Whether `size` more bytes fit in.
    pub fn room(&self, size: u64, stored: &Stored) -> Room {
        let over = |limit: u64, stored: u64| limit > 0 && stored.saturating_add(size) > limit;
        if let Some(total) = stored.total.filter(|total| over(self.global_quota, *total)) {
            return Room::Refused(Refusal::GlobalQuota {
                size,
                stored: total,
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
        if over(self.owner_quota, stored.owner) {
            if self.evict && size <= self.owner_quota {
                return Room::Evict(stored.owner + size - self.owner_quota);
            }
            return Room::Refused(Refusal::OwnerQuota {
                size,
                stored: stored.owner,
                limit: self.owner_quota,
                retry: None,
            });
        }
        Room::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Purpose;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn policy() -> Policy {
        Policy {
            whitelist: None,
            max_file_size: 100,
            owner_quota: 1000,
            evict: false,
            global_quota: 5000,
            min_free_space: 50,
        }
    }

    fn stored(owner: u64, total: u64, free: u64) -> Stored {
        Stored {
            owner,
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
            assert_eq!(policy.admits(&jid(asker)), admitted, "{asker}");
        }
        let nobody = Policy {
            whitelist: Some(vec![]),
            ..policy
        };
        assert!(!nobody.admits(&jid("romeo@montague.tld")));
    }

    #[test]
    fn exactly_the_limit_is_allowed() {
        let request = |size| SlotRequest {
            owner: jid("romeo@montague.tld"),
            name: "a".to_owned(),
            size,
            content_type: None,
            purpose: Purpose::Message,
        };
        assert_eq!(policy().judge(&request(100)), Ok(()));
        assert_eq!(
            policy().judge(&request(101)),
            Err(Refusal::TooLarge {
                size: 101,
                limit: 100
            })
        );
    }

    #[track_caller]
    fn check(policy: &Policy, size: u64, stored: Stored, room: &str) {
        let found = match policy.room(size, &stored) {
            Room::Enough => "enough".to_owned(),
            Room::Evict(bytes) => format!("evict {bytes}"),
            Room::Refused(Refusal::OwnerQuota { .. }) => "owner".to_owned(),
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
                owner: 1000,
                total: None,
                free: None,
            },
            "owner",
        );
        let off = Policy {
            owner_quota: 0,
            global_quota: 0,
            min_free_space: 0,
            ..policy()
        };
        check(&off, u64::MAX, stored(u64::MAX, u64::MAX, 0), "enough");
        assert!(plain.counts_owners() && !off.counts_owners());
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
