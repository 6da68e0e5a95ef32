//! Whether a slot may be used, as the store knows it, and whether the quotas allow the file.

use crate::decimal;
use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::client::object_put::{
    MAX_COLLECTED, ObjectPut, ObjectPutStage, ask_store, found,
};
use crate::reactor::client::{Activity, Client};
use crate::reactor::shared::Shared;
use crate::s3::bucket::{Bucket, ObjectKey, StoreRequest};
use crate::s3::error::StoreFailure;
use crate::s3::listing::ObjectPage;
use crate::service::PutRefusal;
use crate::slot::grant::{Denial, Grant, Issued, Scheme};
use crate::slot::revoked;

// The small requests of an upload.
pub(super) const OBJECT: u8 = 0;
pub(super) const TOMBSTONE: u8 = 1;
pub(super) const REVOCATION: u8 = 2;
pub(super) const ALIAS: u8 = 3;
/// Those that a list of notes answers.
const NOTES: [u8; 2] = [TOMBSTONE, REVOCATION];

/// What is known of a slot.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Answers that are awaited.
    pending: usize,
    exists: bool,
    has_tombstone: bool,
    has_alias: bool,
    is_revoked: bool,
    failure: Option<StoreFailure>,
}

impl Client {
    /// Sends all requests at once.
    pub(super) fn check_object(&mut self, mut put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        let grant = &put.request.grant;
        let slots = &shared.slots;
        if slots.revoked.is_revoked(grant) {
            let refusal = PutRefusal::Denied(Denial::Expired);
            return self.refuse_object(put, &refusal, shared, now);
        }
        if slots.used.contains(grant) {
            return self.refuse_object(put, &PutRefusal::Used, shared, now);
        }
        // Nothing but a body that is sent in vain depends on whether a small object exists, unless files are evicted for it.
        let is_cheap = grant.size <= MAX_COLLECTED && !shared.service.policy().evict;
        put.is_unseen = shared.honours_conditions(now) && is_cheap;
        let Some(bucket) = shared.service.bucket() else {
            return self.refuse_object(put, &PutRefusal::ObjectStore, shared, now);
        };
        let grant = &put.request.grant;
        let mut requests = Vec::new();
        if !put.is_unseen {
            requests.push((OBJECT, put.key.clone()));
        }
        requests.extend(check_key(ALIAS, grant, bucket).map(|key| (ALIAS, key)));
        let mut pending = 0;
        if NOTES.into_iter().any(|part| needs_check(part, grant)) {
            let storage = shared.storage.bucket_mut();
            match storage.is_some_and(|storage| storage.notes.join(self.key, now.mono)) {
                true => pending = 1,
                false => requests.extend(notes(grant, bucket)),
            }
        }
        pending += requests.len();
        if pending == 0 {
            return self.admit_object(put, shared, now);
        }
        put.stage = ObjectPutStage::Checking(Checks {
            pending,
            ..Checks::default()
        });
        self.activity = Activity::ObjectPut(put);
        self.ask_for_checks(requests, shared, now);
    }

    fn ask_for_checks(&self, requests: Vec<(u8, ObjectKey)>, shared: &mut Shared, now: Now) {
        for (part, key) in requests {
            ask_store(self.key, part, shared, now, |bucket| match part {
                REVOCATION => bucket.get(&key, None, now),
                _ => bucket.head(&key, now),
            });
        }
    }

    /// The notes about slots were listed for all uploads that wait.
    pub fn notes_listed(
        &mut self,
        listed: &Result<ObjectPage, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let mut put = match std::mem::take(&mut self.activity) {
            Activity::ObjectPut(put) => put,
            other => {
                self.activity = other;
                return;
            }
        };
        let ObjectPutStage::Checking(checks) = &mut put.stage else {
            self.activity = Activity::ObjectPut(put);
            return;
        };
        let mut requests = Vec::new();
        match (listed, shared.service.bucket()) {
            // As it is in ordinary life.
            (Ok(page), _) if page.is_whole() && page.objects.is_empty() => {}
            (Ok(page), Some(bucket)) => {
                requests = notes(&put.request.grant, bucket);
                if page.is_whole() {
                    requests.retain(|(_, key)| page.contains(key));
                    checks.has_tombstone = requests.iter().any(|(part, _)| *part == TOMBSTONE);
                    // Only the content of a revocation tells what it is about.
                    requests.retain(|(part, _)| *part == REVOCATION);
                }
            }
            (Err(failure), _) => checks.failure = Some(failure.clone()),
            (Ok(_), None) => {}
        }
        checks.pending += requests.len();
        self.activity = Activity::ObjectPut(put);
        self.ask_for_checks(requests, shared, now);
        self.check_passed(shared, now);
    }

    /// The answer to one of the checks.
    pub(super) fn object_checked(
        &mut self,
        mut put: Box<ObjectPut>,
        part: u8,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let ObjectPutStage::Checking(checks) = &mut put.stage else {
            return;
        };
        let grant = &put.request.grant;
        match (part, found(result, now)) {
            (OBJECT, Ok(found)) => checks.exists = found.is_some(),
            (TOMBSTONE, Ok(found)) => checks.has_tombstone = found.is_some(),
            (ALIAS, Ok(found)) => checks.has_alias = found.is_some(),
            (_, Ok(found)) => match is_revoked(grant, found, shared) {
                Ok(is_revoked) => checks.is_revoked = is_revoked,
                Err(failure) => checks.failure = Some(failure),
            },
            (_, Err(failure)) => checks.failure = Some(failure),
        }
        self.activity = Activity::ObjectPut(put);
        self.check_passed(shared, now);
    }

    /// The result of a check is noted. When all are, the upload is admitted or refused.
    fn check_passed(&mut self, shared: &mut Shared, now: Now) {
        let Activity::ObjectPut(put) = &mut self.activity else {
            return;
        };
        let ObjectPutStage::Checking(checks) = &mut put.stage else {
            return;
        };
        checks.pending -= 1;
        if checks.pending > 0 {
            return;
        }
        let checks = std::mem::take(checks);
        let Activity::ObjectPut(put) = std::mem::take(&mut self.activity) else {
            return;
        };
        if checks.is_revoked {
            let refusal = PutRefusal::Denied(Denial::Expired);
            self.refuse_object(put, &refusal, shared, now);
        } else if let Some(failure) = checks.failure {
            shared.object_store_failed(&failure, now);
            self.refuse_object(put, &PutRefusal::ObjectStore, shared, now);
        } else if checks.exists || checks.has_tombstone || checks.has_alias {
            self.refuse_used_object(put, checks.has_alias, shared, now);
        } else {
            self.admit_object(put, shared, now);
        }
    }

    /// Refuses an upload to a path that exists. Its alias may be missing, because an upload was interrupted before it was
    /// created.
    pub(super) fn refuse_used_object(
        &mut self,
        mut put: Box<ObjectPut>,
        has_alias: bool,
        shared: &mut Shared,
        now: Now,
    ) {
        if !has_alias && create_alias(self, &put.request.grant, shared, now) {
            put.stage = ObjectPutStage::RestoringAlias;
            self.activity = Activity::ObjectPut(put);
        } else {
            self.refuse_object(put, &PutRefusal::Used, shared, now);
        }
    }

    /// Begins the request to the store if the quotas allow it, or waits until that is known.
    pub(super) fn admit_object(&mut self, mut put: Box<ObjectPut>, shared: &mut Shared, now: Now) {
        match self.admit_upload(&put.request, shared, now) {
            Ok(true) => {
                let grant = &put.request.grant;
                put.reserved = shared.counts() && grant.has_owner();
                if put.reserved {
                    let (owner, class) = (grant.path.owner_folder(), grant.quota_class());
                    let usage = &mut shared.admission.usage;
                    usage.reserve(owner, class, grant.size, now.mono);
                }
                match put.request.grant.size <= MAX_COLLECTED {
                    true => self.collect_upload(put, now),
                    false => self.open_upload(put, shared, now),
                }
            }
            Ok(false) => {
                put.stage = ObjectPutStage::WaitingForUsage;
                self.activity = Activity::ObjectPut(put);
            }
            Err(refusal) if put.is_unseen => {
                let key = put.key.clone();
                put.stage = ObjectPutStage::Looking(refusal);
                self.activity = Activity::ObjectPut(put);
                ask_store(self.key, OBJECT, shared, now, |bucket| {
                    bucket.head(&key, now)
                });
            }
            Err(refusal) => self.refuse_object(put, &refusal, shared, now),
        }
    }

    /// Whether the object of an upload for which there is no room exists.
    pub(super) fn object_looked_for(
        &mut self,
        mut put: Box<ObjectPut>,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let ended = std::mem::replace(&mut put.stage, ObjectPutStage::Ended);
        match (found(result, now), ended) {
            (Ok(None), ObjectPutStage::Looking(refusal)) => {
                self.refuse_object(put, &refusal, shared, now);
            }
            (Ok(_), _) => self.refuse_used_object(put, false, shared, now),
            (Err(failure), _) => self.fail_object(put, &failure, shared, now),
        }
    }
}

/// The notes about a slot that there may be.
fn notes(grant: &Grant, bucket: &Bucket) -> Vec<(u8, ObjectKey)> {
    let note = |part| Some((part, check_key(part, grant, bucket)?));
    NOTES.into_iter().filter_map(note).collect()
}

/// Whether a slot is void, because of the object that notes when its owner's slots were revoked.
pub(super) fn is_revoked(
    grant: &Grant,
    found: Option<Response>,
    shared: &Shared,
) -> Result<bool, StoreFailure> {
    let Some(response) = found else {
        return Ok(false);
    };
    let Some(until) = decimal::parse(response.body.trim_ascii()) else {
        let why = "the object below .upslot/revoked holds no time";
        return Err(StoreFailure::malformed(response.status, why));
    };
    let life = shared.config.put_timeout.as_secs();
    Ok(revoked::is_issued_until(grant, until, life))
}

/// The key of the object that a check looks for, if the slot needs this check.
pub(super) fn check_key(part: u8, grant: &Grant, bucket: &Bucket) -> Option<ObjectKey> {
    match (part, &grant.scheme) {
        _ if !needs_check(part, grant) => None,
        (ALIAS, Scheme::FileShare { slot, .. }) => bucket.alias_key(slot),
        (TOMBSTONE, _) => bucket.tombstone_key(&grant.path),
        (REVOCATION, _) => bucket.revocation_key(grant.path.owner_folder()),
        _ => None,
    }
}

fn needs_check(part: u8, grant: &Grant) -> bool {
    let is_file_share = matches!(grant.scheme, Scheme::FileShare { .. });
    match part {
        // Files of mod_http_file_share have an alias instead of a tombstone.
        ALIAS => is_file_share,
        TOMBSTONE => !is_file_share,
        REVOCATION => grant.issued != Issued::Unknown,
        _ => false,
    }
}

fn alias_key(grant: &Grant, shared: &Shared) -> Option<ObjectKey> {
    check_key(ALIAS, grant, shared.service.bucket()?)
}

/// Begins to create the alias of a file; false if its scheme has none.
pub(super) fn create_alias(client: &Client, grant: &Grant, shared: &mut Shared, now: Now) -> bool {
    let Some(key) = alias_key(grant, shared) else {
        return false;
    };
    let path = grant.path.as_bytes();
    ask_store(client.key, ALIAS, shared, now, |bucket| -> StoreRequest {
        bucket.put_small(&key, path, now)
    });
    true
}
