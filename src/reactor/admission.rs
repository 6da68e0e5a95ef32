//! The state that decides whether an owner may store more bytes: quotas, rates, and the requests that wait for the store.

use std::collections::HashMap;

use crate::policy::pool::QuotaClass;
use crate::policy::rates::Rates;
use crate::policy::rules::Limits;
use crate::reactor::waiting::Waiting;
use crate::refusal::Refusal;
use crate::store::trim::Trims;
use crate::store::usage::UsageTracker;

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
    pub loading: HashMap<Vec<u8>, Limits>,
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
