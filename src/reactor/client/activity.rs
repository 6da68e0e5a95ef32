//! The state of the present request of a connection, and what continues it: results of the store.

use std::io;
use std::time::Instant;

#[cfg(feature = "s3")]
use crate::http::client::Response;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::Client;
use crate::reactor::client::api::WaitingSlot;
use crate::reactor::client::delete::Removal;
use crate::reactor::client::get::Get;
#[cfg(feature = "s3")]
use crate::reactor::client::object_delete::ObjectDelete;
#[cfg(feature = "s3")]
use crate::reactor::client::object_get::ObjectGet;
#[cfg(feature = "s3")]
use crate::reactor::client::object_put::ObjectPut;
use crate::reactor::client::put::{ActiveUpload, WaitingForUsage};
use crate::reactor::shared::Shared;
use crate::reactor::waiting::Lookup;
#[cfg(feature = "s3")]
use crate::s3::error::StoreFailure;

/// The state of the present request, beyond that of the exchange.
#[derive(Debug, Default)]
pub(super) enum Activity {
    /// No request, or one that needs no further state.
    #[default]
    None,
    /// A file is being sent.
    Get(Get),
    /// A PUT with a verified grant waits for the owner's usage.
    WaitingForUsage(Box<WaitingForUsage>),
    /// A body is being received, synced or published.
    Put(Box<ActiveUpload>),
    /// A file is being deleted.
    Delete(Box<Removal>),
    /// A request to the slot API waits for the owner's usage.
    WaitingForSlot(Box<WaitingSlot>),
    /// A file is looked up in an object store, or being sent from there.
    #[cfg(feature = "s3")]
    ObjectGet(Box<ObjectGet>),
    /// An upload to an object store.
    #[cfg(feature = "s3")]
    ObjectPut(Box<ObjectPut>),
    /// A file is being deleted in an object store.
    #[cfg(feature = "s3")]
    ObjectDelete(Box<ObjectDelete>),
}

impl Activity {
    /// Whether a request was decided on, and waits for the store before it is answered or its body is received.
    pub(super) fn awaits_store(&self) -> bool {
        match self {
            Activity::WaitingForUsage(_) | Activity::Delete(_) | Activity::WaitingForSlot(_) => {
                true
            }
            #[cfg(feature = "s3")]
            Activity::ObjectPut(put) => !put.is_accepted(),
            #[cfg(feature = "s3")]
            Activity::ObjectGet(get) => get.is_looking_up(),
            #[cfg(feature = "s3")]
            Activity::ObjectDelete(_) => true,
            Activity::None | Activity::Get(_) | Activity::Put(_) => false,
        }
    }

    /// The path of an upload whose body was accepted.
    pub(super) fn upload_path(&self) -> Option<&StorePath> {
        match self {
            Activity::Put(upload) => Some(&upload.grant.path),
            #[cfg(feature = "s3")]
            Activity::ObjectPut(put) if put.is_accepted() => Some(put.path()),
            _ => None,
        }
    }

    /// When the request goes on without an event or a result.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            #[cfg(feature = "s3")]
            Activity::ObjectPut(put) => put.deadline(),
            _ => None,
        }
    }
}

impl Client {
    /// The operation on the store that a request waited for is done.
    pub fn wake(&mut self, lookup: Lookup, shared: &mut Shared, now: Now) {
        match std::mem::take(&mut self.activity) {
            Activity::WaitingForUsage(mut waiting) => {
                waiting.attempt = waiting.attempt.after(lookup);
                self.begin_upload(*waiting, shared, now);
            }
            Activity::WaitingForSlot(mut waiting) => {
                waiting.attempt = waiting.attempt.after(lookup);
                self.answer_slot_request(*waiting, shared, now);
            }
            #[cfg(feature = "s3")]
            Activity::ObjectPut(put) => self.object_put_admissible(put, lookup, shared, now),
            other => self.activity = other,
        }
    }

    /// The object store has answered a request of this connection; `part` is the number that it was given.
    #[cfg(feature = "s3")]
    pub fn store_answered(
        &mut self,
        part: u8,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        match std::mem::take(&mut self.activity) {
            Activity::ObjectGet(get) => self.object_get_answered(*get, part, result, shared, now),
            Activity::ObjectPut(put) => self.object_put_answered(put, part, result, shared, now),
            Activity::ObjectDelete(delete) => {
                self.object_delete_answered(*delete, result, shared, now);
            }
            // The answer to an earlier request.
            other => self.activity = other,
        }
    }

    /// The result of a sync job that an upload or a deletion waits for.
    pub fn synced(&mut self, result: io::Result<()>, shared: &mut Shared, now: Now) {
        match std::mem::take(&mut self.activity) {
            Activity::Delete(removal) => self.removal_synced(*removal, result, shared, now),
            Activity::Put(upload) => {
                self.activity = Activity::Put(upload);
                self.upload_synced(result, shared, now);
            }
            other => self.activity = other,
        }
    }

    /// Ends the request under way: closes the file of a download, discards an upload.
    pub(super) fn end_activity(&mut self, shared: &mut Shared) {
        match std::mem::take(&mut self.activity) {
            Activity::Get(get) => get.end(shared),
            Activity::Put(upload) => upload.end(shared),
            #[cfg(feature = "s3")]
            Activity::ObjectGet(get) => get.end(shared),
            #[cfg(feature = "s3")]
            Activity::ObjectPut(put) => put.end(shared),
            #[cfg(feature = "s3")]
            Activity::ObjectDelete(_) => {}
            Activity::None
            | Activity::WaitingForUsage(_)
            | Activity::Delete(_)
            | Activity::WaitingForSlot(_) => {}
        }
    }
}
