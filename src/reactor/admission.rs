//! Whether an owner may store more bytes: quotas, rates, and the requests that wait for the store.

use std::collections::HashMap;
use std::time::Duration;

use crate::now::Now;
use crate::policy::pool::QuotaClass;
use crate::policy::rates::{RateCheck, Rates};
use crate::policy::rules::Limits;
use crate::policy::{SpaceCheck, Usage};
use crate::reactor::waiting::{Attempt, Waiting};
use crate::refusal::Refusal;
use crate::service::Service;
use crate::store::Store;
use crate::store::trim::{Order, Trims};
use crate::store::usage::UsageTracker;
use crate::store::walk::WalkMode;

/// How many times space is freed for one request before it is refused: other requests may use the space first.
const MAX_TRIES: u8 = 4;

/// The stored bytes and rates of owners, and the requests that wait for them.
#[derive(Debug, Default)]
pub struct Admission {
    /// Stored and reserved bytes.
    pub usage: UsageTracker,
    pub rates: Rates,
    /// Owners whose files are searched for some to delete.
    pub trims: Trims,
    pub waiting: Waiting,
    /// The limits of owners whose files are being counted for their rates.
    loading: HashMap<Vec<u8>, Limits>,
}

/// A file to store.
#[derive(Clone, Copy, Debug)]
pub struct SpaceRequest<'a> {
    /// The owner folder; `None` if the file is attributed to no owner.
    pub owner: Option<&'a [u8]>,
    pub class: QuotaClass,
    /// Bytes.
    pub size: u64,
    /// Limit on the owner's stored bytes from an access rule.
    pub total: Option<u64>,
}

/// Whether a file may be stored.
#[derive(Debug)]
pub enum SpaceDecision {
    Granted,
    /// The store is being searched; decide again when the owner's requests are woken.
    Wait,
    Refused(Refusal),
}

impl Admission {
    /// Whether the quotas and the free space allow a file. Starts to count the owner's files or to free space if
    /// necessary.
    pub fn decide(
        &mut self,
        request: &SpaceRequest<'_>,
        attempt: Attempt,
        service: &Service,
        store: &mut Store,
        sweep_interval: Duration,
        now: Now,
    ) -> SpaceDecision {
        let SpaceRequest {
            owner,
            class,
            size,
            total,
        } = *request;
        let mut stored = Usage {
            owner: None,
            total: self.usage.total(),
            free: store.free_space(now.mono),
        };
        if let Some(owner) = owner.filter(|_| service.needs_owner_usage(total)) {
            match self.usage.of_owner(owner, now.mono) {
                Some(bytes) => stored.owner = Some(bytes),
                None if attempt.failed => return SpaceDecision::Refused(Refusal::Busy),
                None => {
                    self.usage.ask(owner, WalkMode::Names);
                    return SpaceDecision::Wait;
                }
            }
        }
        let (mut refusal, need, pool, evict) = match service.room(size, class, total, &stored) {
            SpaceCheck::Enough => return SpaceDecision::Granted,
            SpaceCheck::Refused(refusal) => return SpaceDecision::Refused(refusal),
            SpaceCheck::OverQuota {
                refusal,
                need,
                pool,
                evict,
            } => (refusal, need, pool, evict),
        };
        if let Some(owner) = owner.filter(|owner| !self.usage.is_measured(owner)) {
            if attempt.failed {
                return SpaceDecision::Refused(Refusal::Busy);
            }
            self.usage.ask(owner, WalkMode::Files);
            return SpaceDecision::Wait;
        }
        // Search only if eviction or expiry could free space.
        let files_expire = !service.lifetime().message.is_zero();
        let tries = match evict {
            true => MAX_TRIES,
            false => u8::from(files_expire),
        };
        let Some(owner) = owner.filter(|_| attempt.tries < tries) else {
            if let Refusal::OwnerQuota { retry, .. } = &mut refusal {
                let newest = attempt.newest.filter(|_| !evict);
                *retry = newest.and_then(|newest| service.expires_at(newest, sweep_interval));
            }
            return SpaceDecision::Refused(refusal);
        };
        self.trims.push(Order {
            owner: owner.to_vec(),
            need,
            pool,
            remove: evict,
        });
        SpaceDecision::Wait
    }

    /// Whether an owner's rates allow a slot. Starts to count the owner's recent files if necessary.
    pub fn check_rates(
        &mut self,
        owner: &[u8],
        limits: &Limits,
        size: u64,
        attempt: Attempt,
        now: Now,
    ) -> SpaceDecision {
        match self.rates.check(owner, limits, size, now.unix()) {
            RateCheck::Allowed => SpaceDecision::Granted,
            RateCheck::Unknown if attempt.failed => SpaceDecision::Refused(Refusal::Busy),
            RateCheck::Unknown => {
                self.usage.ask(owner, WalkMode::Files);
                self.loading.insert(owner.to_vec(), limits.clone());
                SpaceDecision::Wait
            }
            RateCheck::Refused { over, retry } => SpaceDecision::Refused(over.refusal(size, retry)),
        }
    }

    /// Takes the limits of an owner whose rates wait for the count of the owner's files.
    pub fn take_loading(&mut self, owner: &[u8]) -> Option<Limits> {
        self.loading.remove(owner)
    }
}
