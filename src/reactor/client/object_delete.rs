//! Deletions in an object store, for the server that signed the request.
//!
//! ```text
//!   Looking ── size ──▶ RecordingTombstone ──▶ Deleting ──▶ 204
//!      └── no object ──▶ 404
//! ```
//!
//! The tombstone is first, so that the path cannot be stored again once its object is gone. The client is only answered
//! when no request is on its way.

use crate::decimal;
use crate::http::client::Response;
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool::QuotaClass;
use crate::reactor::client::object_put::{ask_store, found};
use crate::reactor::client::{Activity, Client};
use crate::reactor::shared::Shared;
use crate::s3::bucket::{ObjectKey, StoreRequest};
use crate::s3::error::StoreFailure;
use crate::service::PutRefusal;

/// A deletion in progress.
#[derive(Debug)]
pub(super) struct ObjectDelete {
    path: StorePath,
    key: ObjectKey,
    tombstone: ObjectKey,
    stage: ObjectDeleteStage,
    /// Bytes.
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectDeleteStage {
    Looking,
    RecordingTombstone,
    Deleting,
}

impl Client {
    pub(super) fn delete_object(&mut self, path: StorePath, shared: &mut Shared, now: Now) {
        let bucket = shared.service.bucket();
        let keys =
            bucket.and_then(|bucket| Some((bucket.key(&path)?, bucket.tombstone_key(&path)?)));
        let Some((key, tombstone)) = keys else {
            return self.exchange.answer(shared.service.not_found(), now.mono);
        };
        let delete = ObjectDelete {
            path,
            key,
            tombstone,
            stage: ObjectDeleteStage::Looking,
            size: 0,
        };
        self.begin_deletion_stage(delete, shared, now);
    }

    /// Sends the request of a stage.
    fn begin_deletion_stage(&mut self, delete: ObjectDelete, shared: &mut Shared, now: Now) {
        let ObjectDelete {
            key,
            tombstone,
            stage,
            ..
        } = &delete;
        let stage = *stage;
        ask_store(
            self.key,
            stage as u8,
            shared,
            now,
            |bucket| -> StoreRequest {
                match stage {
                    ObjectDeleteStage::Looking => bucket.head(key, now),
                    ObjectDeleteStage::RecordingTombstone => bucket.put_small(tombstone, b"", now),
                    ObjectDeleteStage::Deleting => bucket.delete(key, now),
                }
            },
        );
        self.activity = Activity::ObjectDelete(Box::new(delete));
    }

    /// The store has answered a request of a deletion.
    pub(super) fn object_delete_answered(
        &mut self,
        mut delete: ObjectDelete,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let object = match found(result, now) {
            Ok(object) => object,
            Err(failure) => return self.deletion_failed(&failure, shared, now),
        };
        match (delete.stage, object) {
            (ObjectDeleteStage::Looking, None) => {
                self.exchange.answer(shared.service.not_found(), now.mono);
            }
            (ObjectDeleteStage::Looking, Some(object)) => {
                let length = object.field("content-length");
                delete.size = length
                    .and_then(|length| decimal::parse(length.as_bytes()))
                    .unwrap_or(0);
                delete.stage = ObjectDeleteStage::RecordingTombstone;
                self.begin_deletion_stage(delete, shared, now);
            }
            (ObjectDeleteStage::RecordingTombstone, None) => {
                let failure = StoreFailure::malformed(404, "the tombstone cannot be stored");
                self.deletion_failed(&failure, shared, now);
            }
            (ObjectDeleteStage::RecordingTombstone, Some(_)) => {
                delete.stage = ObjectDeleteStage::Deleting;
                self.begin_deletion_stage(delete, shared, now);
            }
            (ObjectDeleteStage::Deleting, _) => {
                let ObjectDelete { path, size, .. } = &delete;
                log::info!(
                    "file deleted path={path:?} bytes={size} from={}",
                    self.address
                );
                let class = QuotaClass::of(path.tag());
                let usage = &mut shared.admission.usage;
                usage.removed(path.owner_folder(), class, *size);
                if let Some(bucket) = shared.storage.bucket_mut() {
                    bucket.facts.forget(path);
                }
                self.exchange.answer(shared.service.deleted(), now.mono);
            }
        }
    }

    fn deletion_failed(&mut self, failure: &StoreFailure, shared: &mut Shared, now: Now) {
        shared.object_store_failed(failure, now);
        self.refuse(&PutRefusal::ObjectStore, shared, now);
    }
}
