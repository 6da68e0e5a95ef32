//! The end of a body, and what follows from the answer of the store.

use std::time::Duration;

use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::client::object_put::checks::{
    ALIAS, OBJECT, REVOCATION, TOMBSTONE, check_key, create_alias, is_revoked,
};
use crate::reactor::client::object_put::{ObjectPut, ObjectPutStage, ask_store, found};
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::shared::Shared;
use crate::reactor::upstream;
use crate::s3::bucket::REMOVED_ALIAS;
use crate::s3::error::{FailureKind, StoreFailure};
use crate::service::PutRefusal;
use crate::slot::grant::Denial;

/// After an upload of this time its slot is checked again, because another node may have revoked it meanwhile, or have stored
/// the file and removed it.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

impl Client {
    /// Claims the path of an upload whose body is whole; false if it is refused.
    pub(super) fn claim_path(&mut self, shared: &mut Shared, now: Now) -> bool {
        let Activity::ObjectPut(put) = &mut self.activity else {
            return false;
        };
        if put.claimed {
            return true;
        }
        let grant = &put.request.grant;
        let slots = &shared.slots;
        let claims = shared.storage.bucket_mut().map(|bucket| &mut bucket.claims);
        let refusal = if slots.revoked.is_revoked(grant) {
            PutRefusal::Denied(Denial::Expired)
        } else if slots.used.contains(grant)
            || !claims.is_some_and(|claims| claims.claim(&grant.path))
        {
            PutRefusal::Used
        } else {
            put.claimed = true;
            return true;
        };
        self.refuse(&refusal, shared, now);
        false
    }

    /// The client's body is whole: sends what is left of it, unless another upload is doing that.
    pub(super) fn send_rest(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        if !self.claim_path(shared, now) {
            return StepResult::Moved;
        }
        if let Some(step) = self.flush_relay(true, shared, now) {
            return step;
        }
        if let Activity::ObjectPut(put) = &mut self.activity {
            if let ObjectPutStage::Relaying(relay) = &put.stage {
                put.stage = ObjectPutStage::Finishing(relay.stream);
                put.is_sent = true;
            }
        }
        StepResult::Moved
    }

    /// Waits for the store's answer to the whole body.
    pub(super) fn object_finishing(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let Activity::ObjectPut(put) = &mut self.activity else {
            return StepResult::Blocked;
        };
        let ObjectPutStage::Finishing(stream) = put.stage else {
            return StepResult::Blocked;
        };
        let Some(bucket) = shared.storage.bucket_mut() else {
            return StepResult::Blocked;
        };
        let failure = match bucket.upstream.head(stream) {
            None => return StepResult::Blocked,
            Some(Ok(response)) if response.status == 200 => None,
            Some(Ok(_)) => {
                let body = Vec::new();
                put.stage = ObjectPutStage::ReadingFailure { stream, body };
                return self.read_failure(shared, now);
            }
            Some(Err(failure)) => Some(failure),
        };
        if failure.is_none() {
            // The end of a body without content frees the connection for other requests.
            let _ = bucket
                .upstream
                .read_body(stream, &mut shared.buffers.scratch);
        }
        if let Activity::ObjectPut(mut put) = std::mem::take(&mut self.activity) {
            put.end_stream(shared);
            match failure {
                None => self.object_stored(put, shared, now),
                Some(failure) => self.object_refused(put, failure, shared, now),
            }
        }
        StepResult::Moved
    }

    /// The store has answered a request with a whole body, or has not.
    pub(super) fn object_sent(
        &mut self,
        mut put: Box<ObjectPut>,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        put.stage = ObjectPutStage::Ended;
        let failure = match result {
            Ok(Response { status: 200, .. }) => return self.object_stored(put, shared, now),
            Ok(response) => {
                let Response { fields, body, .. } = &response;
                StoreFailure::of(response.status, fields, body, now.wall)
            }
            Err(failure) => failure,
        };
        self.object_refused(put, failure, shared, now);
    }

    /// The store did not take the object, or did not say that it did. The request has ended.
    pub(super) fn object_refused(
        &mut self,
        mut put: Box<ObjectPut>,
        failure: StoreFailure,
        shared: &mut Shared,
        now: Now,
    ) {
        let is_busy = matches!(
            failure.kind,
            FailureKind::SlowDown | FailureKind::Unavailable
        );
        // Without a body the request can be repeated.
        let may_repeat = is_busy && !put.is_accepted;
        let delay = upstream::repetition_delay(put.repetitions).filter(|_| may_repeat);
        if let Some(delay) = delay {
            put.repetitions += 1;
            put.stage = ObjectPutStage::Resting(now.mono + delay);
            self.activity = Activity::ObjectPut(put);
        } else if put.is_sent && (failure.is_retryable() || failure.kind == FailureKind::Malformed)
        {
            let key = put.key.clone();
            put.stage = ObjectPutStage::Confirming(failure);
            self.activity = Activity::ObjectPut(put);
            ask_store(self.key, OBJECT, shared, now, |bucket| {
                bucket.head(&key, now)
            });
        } else if failure.kind == FailureKind::Exists {
            self.refuse_used_object(put, false, shared, now);
        } else {
            self.fail_object(put, &failure, shared, now);
        }
    }

    /// Whether the store has the object, although it did not say so.
    pub(super) fn object_confirmed(
        &mut self,
        mut put: Box<ObjectPut>,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let size = put.request.grant.size.to_string();
        let found = found(result, now).unwrap_or_default();
        match found.as_ref().map(|object| object.field("content-length")) {
            Some(length) if length == Some(size.as_str()) => self.object_stored(put, shared, now),
            Some(_) => self.refuse_object(put, &PutRefusal::Used, shared, now),
            None => {
                let ended = std::mem::replace(&mut put.stage, ObjectPutStage::Ended);
                if let ObjectPutStage::Confirming(failure) = ended {
                    self.fail_object(put, &failure, shared, now);
                }
            }
        }
    }

    /// The object is in the store.
    fn object_stored(&mut self, put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        let grant = &put.request.grant;
        if shared.slots.revoked.is_revoked(grant) {
            let refusal = PutRefusal::Denied(Denial::Expired);
            return self.withdraw_object(put, refusal, shared, now);
        }
        let took = now.mono.saturating_duration_since(put.begun);
        match took < RECHECK_AFTER {
            true => self.conclude_object(put, shared, now),
            false => self.recheck_object(put, TOMBSTONE, shared, now),
        }
    }

    /// Begins this check of the slot, or the next one that it needs.
    fn recheck_object(
        &mut self,
        mut put: Box<ObjectPut>,
        first: u8,
        shared: &mut Shared,
        now: Now,
    ) {
        let grant = &put.request.grant;
        let needed = shared.service.bucket().and_then(|bucket| {
            let mut parts = first..=ALIAS;
            parts.find_map(|part| Some((part, check_key(part, grant, bucket)?)))
        });
        let Some((part, key)) = needed else {
            return self.conclude_object(put, shared, now);
        };
        put.stage = ObjectPutStage::Rechecking;
        self.activity = Activity::ObjectPut(put);
        ask_store(self.key, part, shared, now, |bucket| {
            bucket.get(&key, None, now)
        });
    }

    /// Whether the slot was revoked, or the file removed, during the upload.
    pub(super) fn object_rechecked(
        &mut self,
        put: Box<ObjectPut>,
        part: u8,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let grant = &put.request.grant;
        let refusal = found(result, now).and_then(|found| match (part, found) {
            (REVOCATION, found) => Ok(
                is_revoked(grant, found, shared)?.then_some(PutRefusal::Denied(Denial::Expired))
            ),
            (TOMBSTONE, found) => Ok(found.map(|_| PutRefusal::Used)),
            // Of a file that exists, it is that of another upload with this slot, or of this one.
            (_, found) => Ok(found
                .filter(|alias| alias.body == REMOVED_ALIAS)
                .map(|_| PutRefusal::Used)),
        });
        match refusal {
            Ok(None) => self.recheck_object(put, part + 1, shared, now),
            Ok(Some(refusal)) => self.withdraw_object(put, refusal, shared, now),
            Err(failure) => {
                shared.object_store_failed(&failure, now);
                self.withdraw_object(put, PutRefusal::ObjectStore, shared, now);
            }
        }
    }

    /// Creates the alias, if the scheme of the slot has one.
    fn conclude_object(&mut self, mut put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        if create_alias(self, &put.request.grant, shared, now) {
            put.stage = ObjectPutStage::CreatingAlias;
            self.activity = Activity::ObjectPut(put);
        } else {
            self.complete_object(put, shared, now);
        }
    }

    /// The alias is created, or cannot be. Without it the file could not be downloaded.
    pub(super) fn alias_created(
        &mut self,
        put: Box<ObjectPut>,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let none = || StoreFailure::malformed(404, "the alias cannot be stored");
        match found(result, now).and_then(|found| found.ok_or_else(none)) {
            Ok(_) => self.complete_object(put, shared, now),
            Err(failure) => {
                let refusal = shared.upload_failed(&failure, 0, now);
                self.withdraw_object(put, refusal, shared, now);
            }
        }
    }

    /// Answers an upload that is stored.
    fn complete_object(&mut self, mut put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        let grant = &put.request.grant;
        let (owner, class, size) = (grant.path.owner_folder(), grant.quota_class(), grant.size);
        log::info!(
            "upload published owner={} path={:?} bytes={size} ms={} from={}",
            owner.escape_ascii(),
            grant.path,
            now.mono.saturating_duration_since(put.begun).as_millis(),
            self.address
        );
        shared.monitor.worked(size);
        shared.status.metrics.published(size);
        shared.admission.usage.added(owner, class, size);
        shared.slots.used.add(grant, now.unix());
        let answer = shared.service.created(grant);
        // Other uploads to the path that have begun must not end.
        put.claimed = false;
        put.end(shared);
        self.exchange.answer(answer, now.mono);
    }

    /// Deletes an object that was stored, and refuses its upload.
    fn withdraw_object(
        &mut self,
        mut put: Box<ObjectPut>,
        refusal: PutRefusal,
        shared: &mut Shared,
        now: Now,
    ) {
        let key = put.key.clone();
        put.stage = ObjectPutStage::Withdrawing(refusal);
        self.activity = Activity::ObjectPut(put);
        ask_store(self.key, OBJECT, shared, now, |bucket| {
            bucket.delete(&key, now)
        });
    }

    /// The object of a refused upload is deleted, or cannot be.
    pub(super) fn object_withdrawn(
        &mut self,
        mut put: Box<ObjectPut>,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        if let Err(failure) = found(result, now) {
            log::error!(
                "file of a refused upload not deleted path={:?} why={:?}",
                put.request.grant.path,
                failure.to_string()
            );
        }
        let ended = std::mem::replace(&mut put.stage, ObjectPutStage::Ended);
        if let ObjectPutStage::Withdrawing(refusal) = ended {
            self.refuse_object(put, &refusal, shared, now);
        }
    }
}
