//! Issuing slots: the check of a slot request with the quotas, the rates and the state of the store, and the counts and
//! log lines.

use crate::jid::BareJid;
use crate::layout;
#[cfg(feature = "s3")]
use crate::layout::{FileId, StorePath};
use crate::now::Now;
use crate::policy::rates::RateCheck;
use crate::policy::rules::{Limits, RuleDecision};
use crate::policy::{SpaceCheck, Usage};
use crate::reactor::admission::{SpaceDecision, SpaceRequest};
use crate::reactor::shared::Shared;
use crate::reactor::waiting::Attempt;
use crate::refusal::Refusal;
use crate::slot::{Slot, SlotRequest};
use crate::store::trim::Order;
use crate::store::usage::Counted;
#[cfg(feature = "s3")]
use crate::store::usage::GrantedSlot;
use crate::store::walk::WalkMode;

/// How many times space is freed for one request before it is refused: other requests may use the space first.
const MAX_TRIES: u8 = 4;

/// A slot request that passed all checks.
#[derive(Debug)]
pub struct ApprovedSlot {
    /// The owner folder.
    owner: String,
    limits: Option<Limits>,
}

impl Shared {
    /// Whether the quotas and the free space allow a file. Starts to count the owner's files or to free space if
    /// necessary.
    pub fn admit(
        &mut self,
        request: &SpaceRequest<'_>,
        attempt: Attempt,
        now: Now,
    ) -> SpaceDecision {
        let SpaceRequest { owner, total, .. } = *request;
        let usage = &mut self.admission.usage;
        let mut stored = Usage {
            owner: None,
            total: usage.total(),
            free: self.storage.free_space(now.mono),
        };
        if let Some(owner) = owner.filter(|_| self.service.policy().needs_owner_usage(total)) {
            match usage.of_owner(owner, now.mono) {
                Some(bytes) => stored.owner = Some(bytes),
                None if attempt.failed => return SpaceDecision::Refused(Refusal::Busy),
                None => {
                    usage.ask(owner, WalkMode::Names);
                    return SpaceDecision::Wait;
                }
            }
        }
        let policy = self.service.policy();
        let (mut refusal, need, pool, evict) =
            match policy.room(request.size, request.class, total, &stored) {
                SpaceCheck::Enough => return SpaceDecision::Granted,
                SpaceCheck::Refused(refusal) => return SpaceDecision::Refused(refusal),
                SpaceCheck::OverQuota {
                    refusal,
                    need,
                    pool,
                    evict,
                } => (refusal, need, pool, evict),
            };
        if let Some(owner) = owner.filter(|owner| !usage.is_measured(owner, now.mono)) {
            if attempt.failed {
                return SpaceDecision::Refused(Refusal::Busy);
            }
            usage.ask(owner, WalkMode::Files);
            return SpaceDecision::Wait;
        }
        let Some(owner) = owner.filter(|_| attempt.tries < self.max_tries(evict)) else {
            if let Refusal::OwnerQuota { retry, .. } = &mut refusal {
                let newest = attempt.newest.filter(|_| !evict);
                let interval = self.config.sweep_interval();
                *retry = newest.and_then(|newest| self.service.expires_at(newest, interval));
            }
            return SpaceDecision::Refused(refusal);
        };
        self.admission.trims.push(Order {
            owner: owner.to_vec(),
            need,
            pool,
            remove: evict,
        });
        SpaceDecision::Wait
    }

    /// How many times space is freed for a request: only if eviction or expiry could free any.
    fn max_tries(&self, evict: bool) -> u8 {
        match evict {
            true => MAX_TRIES,
            false => u8::from(!self.service.lifetime().message.is_zero()),
        }
    }

    /// Whether an owner's rates allow a slot. Starts to count the owner's recent files if necessary.
    fn check_rates(
        &mut self,
        owner: &[u8],
        limits: &Limits,
        size: u64,
        attempt: Attempt,
        now: Now,
    ) -> SpaceDecision {
        let admission = &mut self.admission;
        match admission.rates.check(owner, limits, size, now.unix()) {
            RateCheck::Allowed => SpaceDecision::Granted,
            RateCheck::Unknown if attempt.failed => SpaceDecision::Refused(Refusal::Busy),
            RateCheck::Unknown => {
                admission.usage.ask(owner, WalkMode::Files);
                admission.loading.insert(owner.to_vec(), limits.clone());
                SpaceDecision::Wait
            }
            RateCheck::Refused { over, retry } => SpaceDecision::Refused(over.refusal(size, retry)),
        }
    }

    /// Checks a slot request; `None` if it must wait for the store.
    pub fn check_slot(
        &mut self,
        request: &SlotRequest,
        attempt: Attempt,
        now: Now,
    ) -> Result<Option<ApprovedSlot>, Refusal> {
        let limits = self.service.check_request(request)?.cloned();
        if self.lacks_room(request.size, now) {
            return Err(Refusal::FreeSpace {
                size: request.size,
                free: self.storage.free_space(now.mono).unwrap_or(0),
                reserve: self.config.min_free_space,
            });
        }
        let owner = layout::owner_folder(&request.owner);
        let space_request = SpaceRequest {
            owner: Some(owner.as_bytes()),
            class: request.purpose.into(),
            size: request.size,
            total: limits.as_ref().and_then(|limits| limits.max_total_size),
        };
        let mut decision = self.admit(&space_request, attempt, now);
        if let (SpaceDecision::Granted, Some(limits)) = (&decision, &limits) {
            decision = self.check_rates(owner.as_bytes(), limits, request.size, attempt, now);
        }
        match decision {
            SpaceDecision::Granted => Ok(Some(ApprovedSlot { owner, limits })),
            SpaceDecision::Wait => Ok(None),
            SpaceDecision::Refused(refusal) => Err(refusal),
        }
    }

    /// Issues a slot for a request that passed [`Shared::check_slot`], and counts and logs it.
    pub fn issue_slot(
        &mut self,
        request: &SlotRequest,
        approved: &ApprovedSlot,
        now: Now,
    ) -> Result<Slot, Refusal> {
        let random = self.slots.random.take().ok_or(Refusal::Busy)?;
        let limits = approved.limits.as_ref();
        let owner = approved.owner.as_bytes();
        let revoked_until = self.slots.revoked.until(owner);
        let (path, slot) = self.service.issue(
            request,
            &approved.owner,
            limits,
            &random,
            revoked_until,
            now,
        )?;
        let expires = now.unix().saturating_add(self.config.put_timeout.as_secs());
        self.slots.last_expiry = self.slots.last_expiry.max(expires);
        if let Some(limits) = limits {
            let rates = &mut self.admission.rates;
            rates.issued(owner, limits, request.size, now.unix());
        }
        #[cfg(feature = "s3")]
        self.reserve_granted(request, approved, &path, now);
        self.status.metrics.slot_granted();
        // "upload published" has the same path, but only the owner folder.
        let owner = request.owner.as_str();
        let limiter = &mut self.log_limits.granted_slots;
        if let Some(suppressed) = limiter.allows(owner, now.mono) {
            log::info!(
                "slot granted owner={owner} path={path:?} bytes={} purpose={}{suppressed}",
                request.size,
                request.purpose.word()
            );
        }
        Ok(slot)
    }

    /// Counts a slot against the quotas, if there are any and its upload will not be seen.
    #[cfg(feature = "s3")]
    fn reserve_granted(
        &mut self,
        request: &SlotRequest,
        approved: &ApprovedSlot,
        path: &StorePath,
        now: Now,
    ) {
        let limits = approved.limits.as_ref();
        let total = limits.and_then(|limits| limits.max_total_size);
        let policy = self.service.policy();
        let counts = policy.needs_owner_usage(total) || policy.global_quota.is_some();
        if !self.service.is_direct() || !counts {
            return;
        }
        let slot = GrantedSlot {
            file: FileId::of(path),
            class: request.purpose.into(),
            size: request.size,
            expires: now.mono + self.config.put_timeout,
        };
        let usage = &mut self.admission.usage;
        usage.grant(approved.owner.as_bytes(), slot, now.mono);
    }

    /// Counts and logs a refused slot request, with the access rule that applied.
    pub fn note_refused_slot(&mut self, owner: &BareJid, refusal: &Refusal, now: Now) {
        self.status.metrics.slot_refused(refusal.reason());
        let limiter = &mut self.log_limits.refused_slots;
        let Some(suppressed) = limiter.allows(owner.as_str(), now.mono) else {
            return;
        };
        let why = refusal.to_string();
        match self.service.policy().rules.decide(owner) {
            RuleDecision::Allowed { rule, .. } | RuleDecision::Denied { rule: Some(rule) } => {
                let rule = rule.to_string();
                log::info!("slot refused owner={owner} rule={rule:?} why={why:?}{suppressed}");
            }
            RuleDecision::Denied { rule: None } => {
                log::info!("slot refused owner={owner} rule=none why={why:?}{suppressed}");
            }
            RuleDecision::NoRules => {
                log::info!("slot refused owner={owner} why={why:?}{suppressed}");
            }
        }
    }

    /// An owner's files were counted, or could not be.
    pub fn counted(&mut self, counted: &Counted, now: Now) {
        let limits = self.admission.loading.remove(&counted.owner);
        if let Some(error) = &counted.error {
            self.store_failed("count", error, 0, now);
        } else if let Some(limits) = limits {
            let rates = &mut self.admission.rates;
            rates.loaded(&counted.owner, &limits, &counted.recent, now.unix());
        }
    }
}
