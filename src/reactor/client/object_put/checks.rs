//! Whether a slot may be used, as the store knows it, and whether the quotas allow the file.

use crate::decimal;
use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::client::object_put::relay::MAX_COLLECTED;
use crate::reactor::client::object_put::{ObjectPut, ObjectPutStage, ask_store, found};
use crate::reactor::client::{Activity, Client};
use crate::reactor::shared::Shared;
use crate::s3::bucket::{ObjectKey, StoreRequest};
use crate::s3::error::StoreFailure;
use crate::service::PutRefusal;
use crate::slot::grant::{Denial, Grant, Issued, Scheme};
use crate::slot::revoked;

// The small requests of an upload.
pub(super) const OBJECT: u8 = 0;
const TOMBSTONE: u8 = 1;
pub(super) const REVOCATION: u8 = 2;
pub(super) const ALIAS: u8 = 3;

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
        let Some(bucket) = shared.service.bucket() else {
            return self.refuse_object(put, &PutRefusal::ObjectStore, shared, now);
        };
        let mut parts = vec![(OBJECT, Some(put.key.clone()))];
        // Files of mod_http_file_share have an alias instead.
        if !matches!(grant.scheme, Scheme::FileShare { .. }) {
            parts.push((TOMBSTONE, bucket.tombstone_key(&grant.path)));
        }
        if grant.issued != Issued::Unknown {
            parts.push((REVOCATION, bucket.revocation_key(grant.path.owner_folder())));
        }
        parts.push((ALIAS, alias_key(grant, shared)));
        let requests: Vec<(u8, ObjectKey)> = parts
            .into_iter()
            .filter_map(|(part, key)| Some((part, key?)))
            .collect();
        put.stage = ObjectPutStage::Checking(Checks {
            pending: requests.len(),
            ..Checks::default()
        });
        self.activity = Activity::ObjectPut(put);
        for (part, key) in requests {
            ask_store(self.key, part, shared, now, |bucket| match part {
                REVOCATION => bucket.get(&key, None, now),
                _ => bucket.head(&key, now),
            });
        }
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
        checks.pending -= 1;
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
        if checks.pending > 0 {
            self.activity = Activity::ObjectPut(put);
            return;
        }
        let checks = std::mem::take(checks);
        if checks.is_revoked {
            let refusal = PutRefusal::Denied(Denial::Expired);
            self.refuse_object(put, &refusal, shared, now);
        } else if let Some(failure) = checks.failure {
            self.fail_object(put, &failure, shared, now);
        } else if checks.exists || checks.has_tombstone || checks.has_alias {
            self.refuse_used_object(put, &checks, shared, now);
        } else {
            self.admit_object(put, shared, now);
        }
    }

    /// Refuses an upload to a path that exists. Its alias may be missing, because an upload was interrupted before it was
    /// created.
    fn refuse_used_object(
        &mut self,
        mut put: Box<ObjectPut>,
        checks: &Checks,
        shared: &mut Shared,
        now: Now,
    ) {
        if !checks.has_alias && create_alias(self, &put.request.grant, shared, now) {
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
            Err(refusal) => self.refuse_object(put, &refusal, shared, now),
        }
    }
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

fn alias_key(grant: &Grant, shared: &Shared) -> Option<ObjectKey> {
    let Scheme::FileShare { slot, .. } = &grant.scheme else {
        return None;
    };
    shared.service.bucket()?.alias_key(slot)
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
