//! Uploads to an object store: a large body passes through, and is kept nowhere; a small one is collected first.
//!
//! ```text
//!   Checking ──▶ WaitingForUsage ──▶ Opening ◀──▶ Resting           HEAD and GET requests; quotas; PUT, 100 Continue
//!      │                  │             │
//!      ▼                  │ small       ▼ accept, 100 to the client
//!   RestoringAlias        ▼          Relaying ── early answer ──▶ ReadingFailure ──▶ refused
//!      └──▶ 409       Collecting        │                              ▲
//!                         │             ▼ whole body, path claimed     │ error
//!                         ▼         Finishing ─────────────────────────┘
//!                      Storing ────────▶│  └─ connection lost, or 5xx ──▶ Confirming ──▶ refused
//!                 PUT with the body     ▼ 200                                 │ same size
//!                                   Rechecking (slow uploads) ◀───────────────┘
//!                                       ▼              └─ revoked, removed ──▶ Withdrawing ──▶ refused
//!                                   CreatingAlias (slots of mod_http_file_share) ──▶ 201
//! ```
//!
//! - [`checks`] whether the slot may be used, and the quotas; [`relay`] the request to the store, and the body;
//!   [`outcome`] the end of the body, and what follows from the store's answer;
//! - this file: the states, and which of these is next.
//!
//! A store that honours `If-None-Match` is not asked whether a small object exists, unless there is no room for it
//! (`Looking`).
//!
//! A client is only answered when no small request of its upload is on its way, so that an answer never belongs to an
//! earlier upload on the same connection. The request to the store has the exact length of the slot, and its last bytes are
//! only sent when the client's body is whole: an upload that ends in any other way leaves no object.

mod checks;
mod outcome;
mod relay;

use std::io;
use std::time::Instant;

use crate::http::client::Response;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::put::WaitingForUsage;
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::shared::Shared;
use crate::reactor::table::Key;
use crate::reactor::upstream::{RequestClass, StreamId, UpstreamToken};
use crate::reactor::waiting::Lookup;
use crate::s3::bucket::{Bucket, ObjectKey, StoreRequest};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::service::PutRefusal;

use checks::Checks;
use relay::Relay;

/// Largest body that is collected, and then sent along with its request; bytes. A larger one needs as much while it
/// passes through.
const MAX_COLLECTED: u64 = 64 * 1024;

/// An upload in progress.
#[derive(Debug)]
pub(super) struct ObjectPut {
    /// The grant, and how far the search for space is.
    request: WaitingForUsage,
    key: ObjectKey,
    stage: ObjectPutStage,
    begun: Instant,
    /// Whether its size is reserved in the owner's usage.
    reserved: bool,
    /// Whether it is the one that may end at its path.
    claimed: bool,
    /// Whether the store was sent the whole body, and so may have stored it.
    is_sent: bool,
    /// Whether the client's body was accepted.
    is_accepted: bool,
    /// Whether the store was not asked for the object, because it does not store it twice.
    is_unseen: bool,
    /// How many times the store has refused to begin.
    repetitions: usize,
}

#[derive(Debug)]
enum ObjectPutStage {
    Checking(Checks),
    /// An alias that is missing is created, so that the file that is there can be downloaded.
    RestoringAlias,
    WaitingForUsage,
    /// There is no room; the object may exist.
    Looking(PutRefusal),
    /// The request to the store is on its way; the store has not asked for the body.
    Opening(StreamId),
    /// The store was busy; the request is repeated at this time.
    Resting(Instant),
    Relaying(Relay),
    /// A small body is kept until it is whole.
    Collecting(Vec<u8>),
    /// It is sent along with its request.
    Storing(Option<StreamId>),
    /// The whole body was sent.
    Finishing(StreamId),
    /// The store has refused, and says why.
    ReadingFailure {
        stream: StreamId,
        body: Vec<u8>,
    },
    /// The store has the whole body, and may have stored it.
    Confirming(StoreFailure),
    /// Whether the slot was revoked, or the file removed, during the upload.
    Rechecking,
    CreatingAlias,
    /// The object is deleted, for this reason.
    Withdrawing(PutRefusal),
    /// Nothing is under way; the client is answered next.
    Ended,
}

impl ObjectPut {
    /// Whether the client's body was accepted. Before that the request waits for the store.
    pub(super) fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    pub(super) fn path(&self) -> &StorePath {
        &self.request.grant.path
    }

    /// When it goes on without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            ObjectPutStage::Resting(until) => Some(until),
            _ => None,
        }
    }

    /// The request to the store under way that stores the object.
    fn stream(&self) -> Option<StreamId> {
        match &self.stage {
            ObjectPutStage::Opening(stream)
            | ObjectPutStage::Finishing(stream)
            | ObjectPutStage::ReadingFailure { stream, .. } => Some(*stream),
            ObjectPutStage::Relaying(relay) => Some(relay.stream),
            ObjectPutStage::Storing(request) => *request,
            _ => None,
        }
    }

    /// Ends the request to the store. An incomplete body leaves no object.
    fn end_stream(&mut self, shared: &mut Shared) {
        if let (Some(stream), Some(bucket)) = (self.stream(), shared.storage.bucket_mut()) {
            bucket.upstream.end_stream(stream);
            self.stage = ObjectPutStage::Ended;
        }
    }

    /// Releases its reservation and its claim.
    pub(super) fn end(mut self, shared: &mut Shared) {
        self.end_stream(shared);
        let grant = &self.request.grant;
        if self.reserved {
            let usage = &mut shared.admission.usage;
            usage.release(grant.path.owner_folder(), grant.quota_class(), grant.size);
        }
        if let Some(bucket) = shared.storage.bucket_mut() {
            if self.claimed {
                bucket.claims.release(&grant.path);
            }
            bucket.claims.end(&grant.path);
        }
    }
}

impl Client {
    /// Begins to check whether a PUT with a verified grant may be stored.
    pub(super) fn begin_object(
        &mut self,
        request: WaitingForUsage,
        shared: &mut Shared,
        now: Now,
    ) -> StepResult {
        let path = &request.grant.path;
        let key = shared.service.bucket().and_then(|bucket| bucket.key(path));
        let Some(key) = key else {
            self.refuse(&PutRefusal::Name, shared, now);
            return StepResult::Moved;
        };
        if let Some(bucket) = shared.storage.bucket_mut() {
            bucket.claims.begin(path);
        }
        let put = ObjectPut {
            request,
            key,
            stage: ObjectPutStage::Checking(Checks::default()),
            begun: now.mono,
            reserved: false,
            claimed: false,
            is_sent: false,
            is_accepted: false,
            is_unseen: false,
            repetitions: 0,
        };
        self.check_object(Box::new(put), shared, now);
        StepResult::Moved
    }

    /// The owner's usage is known, or space was freed.
    pub(super) fn object_put_admissible(
        &mut self,
        mut put: Box<ObjectPut>,
        lookup: Lookup,
        shared: &mut Shared,
        now: Now,
    ) {
        match put.stage {
            ObjectPutStage::WaitingForUsage => {
                put.request.attempt = put.request.attempt.after(lookup);
                self.admit_object(put, shared, now);
            }
            _ => self.activity = Activity::ObjectPut(put),
        }
    }

    /// The store has answered a small request of an upload.
    pub(super) fn object_put_answered(
        &mut self,
        put: Box<ObjectPut>,
        part: u8,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        match put.stage {
            ObjectPutStage::Checking(_) => self.object_checked(put, part, result, shared, now),
            ObjectPutStage::RestoringAlias => {
                self.refuse_object(put, &PutRefusal::Used, shared, now);
            }
            ObjectPutStage::Looking(_) => self.object_looked_for(put, result, shared, now),
            ObjectPutStage::Storing(_) => self.object_sent(put, result, shared, now),
            ObjectPutStage::Confirming(_) => self.object_confirmed(put, result, shared, now),
            ObjectPutStage::Rechecking => self.object_rechecked(put, part, result, shared, now),
            ObjectPutStage::CreatingAlias => self.alias_created(put, result, shared, now),
            ObjectPutStage::Withdrawing(_) => self.object_withdrawn(put, result, shared, now),
            ObjectPutStage::WaitingForUsage
            | ObjectPutStage::Opening(_)
            | ObjectPutStage::Resting(_)
            | ObjectPutStage::Relaying(_)
            | ObjectPutStage::Collecting(_)
            | ObjectPutStage::Finishing(_)
            | ObjectPutStage::ReadingFailure { .. }
            | ObjectPutStage::Ended => self.activity = Activity::ObjectPut(put),
        }
    }

    /// Goes on with an upload whose body is not accepted yet.
    pub(super) fn open_object(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        match std::mem::take(&mut self.activity) {
            Activity::ObjectPut(put) => match put.stage {
                ObjectPutStage::Opening(stream) => self.object_opening(put, stream, shared, now),
                ObjectPutStage::ReadingFailure { .. } => {
                    self.activity = Activity::ObjectPut(put);
                    self.read_failure(shared, now)
                }
                ObjectPutStage::Resting(until) if until <= now.mono => {
                    self.open_upload(put, shared, now);
                    StepResult::Moved
                }
                _ => {
                    self.activity = Activity::ObjectPut(put);
                    StepResult::Blocked
                }
            },
            other => {
                self.activity = other;
                StepResult::Blocked
            }
        }
    }

    /// Receives a part of the body.
    pub(super) fn relay_body(
        &mut self,
        most: usize,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let stage = match &self.activity {
            Activity::ObjectPut(put) => &put.stage,
            _ => return Err(io::Error::other("a body without an upload")),
        };
        match stage {
            ObjectPutStage::Relaying(_) | ObjectPutStage::Collecting(_) => {
                self.receive_piece(most, shared, now, budget)
            }
            _ => Ok(self.read_failure(shared, now)),
        }
    }

    /// The body is complete: sends the rest of it, and waits for the store.
    pub(super) fn finish_object(
        &mut self,
        shared: &mut Shared,
        now: Now,
    ) -> io::Result<StepResult> {
        let stage = match &self.activity {
            Activity::ObjectPut(put) => &put.stage,
            _ => return Err(io::Error::other("a body without an upload")),
        };
        Ok(match stage {
            ObjectPutStage::Relaying(_) => self.send_rest(shared, now),
            ObjectPutStage::Collecting(_) => self.send_whole(shared, now),
            ObjectPutStage::Finishing(_) => self.object_finishing(shared, now),
            ObjectPutStage::ReadingFailure { .. } => self.read_failure(shared, now),
            // The answer to a small request follows.
            _ => StepResult::Blocked,
        })
    }

    /// Refuses an upload that is not among the activities.
    fn refuse_object(
        &mut self,
        put: Box<ObjectPut>,
        refusal: &PutRefusal,
        shared: &mut Shared,
        now: Now,
    ) {
        // So that the refusal knows that it is one of an upload.
        self.activity = Activity::ObjectPut(put);
        self.refuse(refusal, shared, now);
    }

    /// Refuses an upload because the store failed.
    fn fail_object(
        &mut self,
        put: Box<ObjectPut>,
        failure: &StoreFailure,
        shared: &mut Shared,
        now: Now,
    ) {
        let refusal = shared.upload_failed(failure, put.request.grant.size, now);
        self.refuse_object(put, &refusal, shared, now);
    }
}

/// Sends a small request of a connection, whose answer is passed to [`Client::store_answered`] with this number.
pub(super) fn ask_store(
    client: Key,
    part: u8,
    shared: &mut Shared,
    now: Now,
    request: impl FnOnce(&Bucket) -> StoreRequest,
) {
    let request = shared.service.bucket().map(request);
    if let (Some(request), Some(bucket)) = (request, shared.storage.bucket_mut()) {
        let token = UpstreamToken::Client(client, part);
        let upstream = &mut bucket.upstream;
        upstream.submit(request, RequestClass::User, token, now);
    }
}

/// Whether an answer says that there is an object, or none.
pub(super) fn found(
    result: Result<Response, StoreFailure>,
    now: Now,
) -> Result<Option<Response>, StoreFailure> {
    let response = result?;
    match StoreFailure::check(&response, now.wall) {
        Ok(()) => Ok(Some(response)),
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
