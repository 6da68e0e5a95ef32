//! What all connections have to do with an object store: failed uploads, the facts and bytes of objects, what the store is
//! able to do, and revocations of slots.

use std::ops::Range;
use std::time::Duration;

use crate::http::client::Response;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::shared::Shared;
use crate::reactor::shared::health::reason;
use crate::reactor::table::Key;
use crate::reactor::upstream::{RequestClass, StreamId, UpstreamToken};
use crate::s3::bucket::Shown;
use crate::s3::error::{FailureKind, StoreFailure};
use crate::service::{PutRefusal, StoredFile};

impl Shared {
    /// The object store has not stored an upload of this size, or something that belongs to it. Returns how the client is
    /// refused.
    pub fn upload_failed(&mut self, failure: &StoreFailure, size: u64, now: Now) -> PutRefusal {
        match failure.kind {
            FailureKind::Exists => PutRefusal::Used,
            FailureKind::Full => {
                self.monitor.failed(reason(failure), Some(size), now.mono);
                PutRefusal::Storage { full: true }
            }
            FailureKind::Denied => {
                self.monitor.denied(reason(failure), now.mono);
                PutRefusal::ObjectStore
            }
            _ => {
                self.object_store_failed(failure, now);
                PutRefusal::ObjectStore
            }
        }
    }

    /// What the store is known to say about an object.
    pub fn known_facts(&mut self, path: &StorePath, now: Now) -> Option<StoredFile> {
        let facts = &mut self.storage.bucket_mut()?.facts;
        facts.get(path, now.mono).cloned()
    }

    pub fn record_facts(&mut self, path: &StorePath, facts: &StoredFile, now: Now) {
        if let Some(bucket) = self.storage.bucket_mut() {
            bucket.facts.record(path, facts, now.mono);
        }
    }

    /// An object was deleted, or turned out to be another one.
    pub fn forget_object(&mut self, path: &StorePath) {
        if let Some(bucket) = self.storage.bucket_mut() {
            bucket.facts.forget(path);
        }
    }

    /// Sends a GET for an object, or a range of an object of this size. `None` if the path is no key.
    pub fn begin_get(
        &mut self,
        path: &StorePath,
        range: Option<(&Range<u64>, u64)>,
        key: Key,
        now: Now,
    ) -> Option<StreamId> {
        let bucket = self.service.bucket()?;
        let range = range.filter(|(span, size)| **span != (0..*size));
        let range = range.map(|(span, _)| span.clone());
        let request = bucket.get(&bucket.key(path)?, range, now);
        let upstream = &mut self.storage.bucket_mut()?.upstream;
        Some(upstream.begin_stream(request, key, now))
    }

    pub fn end_stream(&mut self, stream: StreamId) {
        if let Some(bucket) = self.storage.bucket_mut() {
            bucket.upstream.end_stream(stream);
        }
    }

    /// Finds out whether the store honours conditions, unless that is known. Returns whether it does.
    pub fn honours_conditions(&mut self, now: Now) -> bool {
        let Some(store) = self.storage.bucket_mut() else {
            return false;
        };
        if store.conditional.begin(now.mono) {
            self.ask_for_condition(now);
            return false;
        }
        store.conditional.are_honoured()
    }

    fn ask_for_condition(&mut self, now: Now) {
        let bucket = self.service.bucket();
        let request = bucket.and_then(|bucket| {
            let (key, shown) = (bucket.condition_key()?, Shown::default());
            Some(bucket.put_whole(&key, b"", &shown, true, now))
        });
        if let (Some(request), Some(store)) = (request, self.storage.bucket_mut()) {
            let (class, token) = (RequestClass::User, UpstreamToken::Condition);
            store.upstream.submit(request, class, token, now);
        }
    }

    /// The store has answered a request with a condition, or has not.
    pub fn condition_answered(&mut self, result: Result<Response, StoreFailure>, now: Now) {
        let Some(store) = self.storage.bucket_mut() else {
            return;
        };
        let status = result.ok().map(|response| response.status);
        if store.conditional.answered(status, now.mono) {
            return self.ask_for_condition(now);
        }
        log::debug!("conditional requests={:?}", store.conditional);
    }

    /// Lets other nodes know which slots are revoked.
    pub(super) fn add_revocation(&mut self, owner: &[u8], now: Now) {
        let life = self.config.put_timeout.as_secs();
        let expires = self.slots.revoked.until(owner);
        let left = Duration::from_secs(expires.saturating_sub(now.unix()));
        if let Some(bucket) = self.storage.bucket_mut() {
            // The nodes know the time of issue from that of the expiry.
            let until = expires.saturating_sub(life).max(now.unix());
            let revocations = &mut bucket.revocations;
            revocations.add(owner, until, now.mono + left, now.mono);
        }
    }

    /// Sends the revocations that are due.
    pub fn record_revocations(&mut self, now: Now) {
        let (Some(bucket), Some(s3)) = (self.storage.bucket_mut(), self.service.bucket()) else {
            return;
        };
        while let Some((number, owner, until)) = bucket.revocations.take_due(now.mono) {
            let Some(key) = s3.revocation_key(owner) else {
                bucket.revocations.recorded(number, true, now.mono);
                continue;
            };
            let request = s3.put_small(&key, until.to_string().as_bytes(), now);
            let token = UpstreamToken::Revocation(number);
            let upstream = &mut bucket.upstream;
            upstream.submit(request, RequestClass::User, token, now);
        }
    }

    pub fn revocation_recorded(
        &mut self,
        number: u32,
        result: Result<Response, StoreFailure>,
        now: Now,
    ) {
        let checked = result.and_then(|response| StoreFailure::check(&response, now.wall));
        let failure = checked.err();
        if let Some(failure) = &failure {
            self.object_store_failed(failure, now);
        }
        let Some(bucket) = self.storage.bucket_mut() else {
            return;
        };
        let recorded = failure.is_none();
        if let Some(owner) = bucket.revocations.recorded(number, recorded, now.mono) {
            log::error!(
                "revocation not recorded owner={} why=\"its slots have expired meanwhile\"",
                owner.escape_ascii()
            );
        }
    }
}
