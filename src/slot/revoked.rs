//! Revoked slots: those issued before all files of their owner were removed.
//!
//! Slots are signed and not stored, so a single slot cannot be revoked. Instead, the time of the removal is recorded per
//! owner: slots issued up to that time are refused, later ones are accepted. upslot's own slots carry their expiry time,
//! which is a fixed period after the time of issue. A slot issued after the removal but within the same second gets an
//! expiry time one second later, so that it can be distinguished from earlier ones.
//!
//! This module accesses neither files nor clocks; removals are read from the store's journal. Memory is bounded: beyond
//! [`MAX_OWNERS`], the oldest removals apply to all owners, whose slots from that time have expired by then.

use std::collections::HashMap;

use crate::slot::grant::{Grant, Issued};

/// How long a removal is remembered, in seconds. By then, all slots and tokens issued before it have expired.
pub const REMEMBERED: u64 = 86_400;

/// Maximum number of owners remembered.
pub const MAX_OWNERS: usize = 8192;

/// The removals of the last day.
#[derive(Debug, Default)]
pub struct Revoked {
    owners: HashMap<Vec<u8>, Limit>,
    /// The limit that applies to all owners.
    all: Limit,
}

/// A slot is valid only if its time is later than this; Unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limit {
    /// The time of the removal.
    issued: u64,
    /// The latest expiry time of upslot's own slots that were issued before the removal.
    expires: u64,
}

impl Limit {
    fn later(self, other: Limit) -> Limit {
        Limit {
            issued: self.issued.max(other.issued),
            expires: self.expires.max(other.expires),
        }
    }
}

impl Revoked {
    /// All files in the owner folder were removed at second `at`; upslot's own slots issued before then expire at
    /// `expires` at the latest.
    pub fn revoke(&mut self, owner: &[u8], at: u64, expires: u64) {
        if self.owners.len() >= MAX_OWNERS && !self.owners.contains_key(owner) {
            self.forget_half();
        }
        let limit = self.owners.entry(owner.to_vec()).or_default();
        // Slots issued since the last removal expire later than its limit, even within the same second.
        let next = match limit.expires {
            0 => 0,
            before if at >= limit.issued => before.saturating_add(1),
            before => before,
        };
        *limit = limit.later(Limit {
            issued: at,
            expires: expires.max(next),
        });
    }

    /// Whether the slot of this grant has been revoked.
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        if self.owners.is_empty() && self.all == Limit::default() {
            return false;
        }
        let limit = self.limit(grant.path.owner_folder());
        match grant.issued {
            Issued::ExpiresAt(at) => at <= limit.expires,
            // A token issued in the same second may be older or newer, so it is refused.
            Issued::At(at) => limit.issued > 0 && at <= limit.issued,
            Issued::Unknown => false,
        }
    }

    /// A new slot of this owner must expire after this Unix second.
    pub fn until(&self, owner: &[u8]) -> u64 {
        self.limit(owner).expires
    }

    fn limit(&self, owner: &[u8]) -> Limit {
        let own = self.owners.get(owner).copied().unwrap_or_default();
        own.later(self.all)
    }

    /// Drops the older half of the owners; their limits apply to all owners from now on.
    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.owners.values().map(|limit| limit.issued).collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        let all = &mut self.all;
        self.owners.retain(|_, limit| {
            let stays = limit.issued > middle;
            if !stays {
                *all = all.later(*limit);
            }
            stays
        });
    }
}

/// Whether the slot of a grant was issued until this Unix second. upslot's own slots are valid for `life` seconds.
pub fn is_issued_until(grant: &Grant, until: u64, life: u64) -> bool {
    match grant.issued {
        Issued::ExpiresAt(at) => at <= until.saturating_add(life),
        Issued::At(at) => at <= until,
        Issued::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::layout::StorePath;
    use crate::purpose::Purpose;
    use crate::slot::grant::Scheme;

    const AT: u64 = 1_800_000_000;

    fn grant(owner: &str, issued: Issued) -> Grant {
        let owner = BareJid::parse(owner).unwrap();
        Grant {
            path: StorePath::for_slot(&owner, Purpose::Message.into(), &[7; 15], "a").unwrap(),
            size: 1,
            content_type: None,
            total: None,
            issued,
            scheme: Scheme::Own,
        }
    }

    fn folder(owner: &str) -> Vec<u8> {
        grant(owner, Issued::Unknown).path.owner_folder().to_vec()
    }

    #[track_caller]
    fn check(revoked: &Revoked, owner: &str, issued: Issued, void: bool) {
        let found = revoked.is_revoked(&grant(owner, issued));
        assert_eq!(found, void, "{owner} {issued:?}");
    }

    #[test]
    fn what_was_issued_before_the_removal_is_void() {
        let mut revoked = Revoked::default();
        for issued in [Issued::ExpiresAt(0), Issued::At(0), Issued::Unknown] {
            check(&revoked, "romeo@montague.tld", issued, false);
        }
        revoked.revoke(&folder("romeo@montague.tld"), AT, AT + 360);
        for (issued, void) in [
            (Issued::ExpiresAt(AT + 1), true),
            (Issued::ExpiresAt(AT + 360), true),
            (Issued::ExpiresAt(AT + 361), false),
            (Issued::At(0), true),
            (Issued::At(AT), true),
            (Issued::At(AT + 1), false),
            (Issued::Unknown, false),
        ] {
            check(&revoked, "romeo@montague.tld", issued, void);
            check(&revoked, "juliet@capulet.tld", issued, false);
        }
        assert_eq!(revoked.until(&folder("romeo@montague.tld")), AT + 360);
        assert_eq!(revoked.until(&folder("juliet@capulet.tld")), 0);
        // A second removal in the same second, after a slot was issued between the two.
        let until = revoked.until(&folder("romeo@montague.tld"));
        revoked.revoke(&folder("romeo@montague.tld"), AT, AT + 360);
        let between = Issued::ExpiresAt(until + 1);
        check(&revoked, "romeo@montague.tld", between, true);
        let after = Issued::ExpiresAt(revoked.until(&folder("romeo@montague.tld")) + 1);
        check(&revoked, "romeo@montague.tld", after, false);
        // An older removal that is learned later changes nothing.
        revoked.revoke(&folder("romeo@montague.tld"), AT - 10, AT + 350);
        check(
            &revoked,
            "romeo@montague.tld",
            Issued::ExpiresAt(AT + 360),
            true,
        );
    }

    #[test]
    fn slots_of_a_recorded_removal() {
        for (issued, void) in [
            (Issued::ExpiresAt(AT + 360), true),
            (Issued::ExpiresAt(AT + 361), false),
            (Issued::At(AT), true),
            (Issued::At(AT + 1), false),
            (Issued::Unknown, false),
        ] {
            let grant = grant("romeo@montague.tld", issued);
            assert_eq!(is_issued_until(&grant, AT, 360), void, "{issued:?}");
            assert!(
                !is_issued_until(&grant, 0, 0)
                    && is_issued_until(&grant, u64::MAX, 1) != (issued == Issued::Unknown)
            );
        }
    }

    #[test]
    fn few_are_remembered_and_none_is_forgotten() {
        let mut revoked = Revoked::default();
        let owner = |number: u64| format!("{number}@montague.tld");
        let most = MAX_OWNERS as u64;
        for number in 0..3 * most {
            revoked.revoke(&folder(&owner(number)), AT + number, AT + number + 360);
            assert!(revoked.owners.len() <= MAX_OWNERS);
        }
        for number in (0..3 * most).step_by(997) {
            let issued = Issued::ExpiresAt(AT + number + 360);
            check(&revoked, &owner(number), issued, true);
        }
        let last = Issued::ExpiresAt(AT + 3 * most + 360);
        check(&revoked, "juliet@capulet.tld", last, false);
    }
}
