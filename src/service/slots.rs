//! Slot requests: the checks that need no look at the store, and the slot itself.

use std::time::{Duration, SystemTime};

use crate::http::mime::{self, Patterns};
use crate::jid::BareJid;
use crate::layout::{Expiry, RANDOM_BYTES, StorePath, Tag};
use crate::now::Now;
use crate::policy::pool::QuotaClass;
use crate::policy::rates;
use crate::policy::rules::{Limits, Rule};
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::service::Service;
use crate::slot::own::Terms;
use crate::slot::{Slot, SlotRequest, name};

/// Maximum length in bytes of the query of nearly any PUT URL.
const USUAL_QUERY: usize = 160;

impl Service {
    /// The maximum file size in bytes that service discovery announces to a JID: the one for messages. A JID that may
    /// not upload gets the general limit; its slot requests are refused with the reason.
    pub fn max_file_size(&self, asker: &BareJid) -> u64 {
        let general = || self.policy.max_file_size(QuotaClass::Message, None);
        self.max_size(asker).unwrap_or_else(|_| general())
    }

    /// The maximum file size in bytes that a JID may upload, or why it may not upload.
    pub fn max_size(&self, asker: &BareJid) -> Result<u64, Refusal> {
        let limits = self.policy.admit(asker)?;
        Ok(self.policy.max_file_size(QuotaClass::Message, limits))
    }

    /// The names of the announced purposes.
    pub fn purposes(&self) -> &[&'static str] {
        &self.announced.purposes
    }

    /// The URIs of the operator's contact addresses.
    pub fn contact(&self) -> &[String] {
        &self.announced.contact
    }

    /// The longest time window of any rate limit.
    pub fn longest_reach(&self) -> Duration {
        let limits = self.policy.rules.iter().filter_map(Rule::limits);
        Duration::from_secs(limits.map(rates::reach).max().unwrap_or(0))
    }

    /// The Unix second since which files count for a rate limit; the end of time if there is none.
    pub fn recent_since(&self, now: Now) -> u64 {
        match self.longest_reach() {
            Duration::ZERO => u64::MAX,
            reach => now.unix().saturating_sub(reach.as_secs()),
        }
    }

    /// Checks a slot request as far as possible without the store; returns the limits of the matching access rule.
    pub fn check_request(&self, request: &SlotRequest) -> Result<Option<&Limits>, Refusal> {
        let limits = self.policy.admit(&request.owner)?;
        if self.purposes.limits(request.purpose).is_none() {
            let word = request.purpose.word();
            return Err(Refusal::Malformed(format!(
                "The purpose {word} is not offered here."
            )));
        }
        let limit = self.policy.max_file_size(request.purpose.into(), limits);
        if request.size > limit {
            return Err(Refusal::TooLarge {
                size: request.size,
                limit,
            });
        }
        let by_rule = limits
            .and_then(|limits| limits.allowed_file_types.as_deref())
            .and_then(|words| Patterns::parse(words).ok());
        let content_type = request.content_type.as_deref().unwrap_or(mime::UNKNOWN);
        let mut lists = [&by_rule, &self.types.allowed].into_iter().flatten();
        if lists.any(|allowed| !allowed.allow(content_type)) {
            return Err(Refusal::TypeNotAllowed {
                content_type: content_type.to_owned(),
            });
        }
        Ok(limits)
    }

    /// The age at which a new file of this purpose expires; zero is never. `limits` are those of the owner's rule.
    pub fn max_age(&self, purpose: Purpose, limits: Option<&Limits>) -> Duration {
        match end(purpose, limits) {
            Expiry::Age(seconds) => Duration::from_secs(seconds),
            Expiry::Never => Duration::ZERO,
            Expiry::Default | Expiry::At(_) => self.lifetime.of(purpose),
        }
    }

    /// When all message files that are as old as `newest` or older will have been deleted for their age.
    pub fn expires_at(&self, newest: SystemTime, interval: Duration) -> Option<SystemTime> {
        if self.lifetime.message.is_zero() {
            return None;
        }
        newest
            .checked_add(self.lifetime.message)?
            .checked_add(interval)
    }

    /// Issues a slot for a request that passed all checks, and returns it with the path of its file. `limits` are those
    /// that [`Service::check_request`] returned. The slot expires later than `revoked_until`, see
    /// [`crate::slot::revoked`].
    pub fn issue(
        &self,
        request: &SlotRequest,
        owner_folder: &str,
        limits: Option<&Limits>,
        random: &[u8; RANDOM_BYTES],
        revoked_until: u64,
        now: Now,
    ) -> Result<(StorePath, Slot), Refusal> {
        let name = name::clean(&request.name);
        let tag = tag(request, limits);
        let path = StorePath::in_owner_folder(owner_folder, tag, random, &name)
            .ok_or_else(|| Refusal::Malformed("The file name cannot be stored.".to_owned()))?;
        // A type that cannot be sent in a header field is ignored.
        let content_type = request
            .content_type
            .as_deref()
            .filter(|t| mime::is_valid(t));
        let terms = Terms {
            size: request.size,
            content_type,
            total: limits.and_then(|limits| limits.max_total_size),
            until: now
                .unix()
                .saturating_add(self.schemes.put_timeout.as_secs())
                .max(revoked_until.saturating_add(1)),
        };
        let slot = self.urls_of_slot(&path, &terms, now);
        Ok((path, slot))
    }

    fn urls_of_slot(&self, path: &StorePath, terms: &Terms<'_>, now: Now) -> Slot {
        let (put_prefix, get_prefix) = (&self.urls.put_prefix, &self.urls.get_prefix);
        let mut get = String::with_capacity(get_prefix.len() + 2 * path.as_bytes().len());
        get.push_str(get_prefix);
        path.encode_into(&mut get);
        let own_put = || {
            let mut put = String::with_capacity(put_prefix.len() + get.len() + USUAL_QUERY);
            put.push_str(put_prefix);
            put.push_str(&get[get_prefix.len()..]);
            self.schemes.own.sign(path, terms, &mut put);
            put
        };
        #[cfg(feature = "s3")]
        let put = self.direct_put(path, terms, now).unwrap_or_else(own_put);
        #[cfg(not(feature = "s3"))]
        let (put, _) = (own_put(), now);
        #[cfg(feature = "s3")]
        let get = self.public_get(path).unwrap_or(get);
        Slot { put, get }
    }
}

/// The tag in the path of a new file.
fn tag(request: &SlotRequest, limits: Option<&Limits>) -> Tag {
    Tag {
        purpose: request.purpose,
        end: end(request.purpose, limits),
        size: Some(request.size),
    }
}

/// When a new file expires, as its tag says it.
fn end(purpose: Purpose, limits: Option<&Limits>) -> Expiry {
    let by_rule = limits.and_then(|limits| limits.expire_maxage);
    match (purpose, by_rule) {
        (_, None) => Expiry::Default,
        (_, Some(age)) if !age.is_zero() => Expiry::Age(age.as_secs()),
        // The expiry time of the purpose still applies.
        (Purpose::Ephemeral { .. }, _) => Expiry::Default,
        _ => Expiry::Never,
    }
}
