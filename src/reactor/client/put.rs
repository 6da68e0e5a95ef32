//! Uploads: waiting for the owner's usage, receiving the body, syncing and publishing the file.
//!
//! ```text
//!   WaitingForUsage ◀──▶ begin ──▶ Receiving ── complete ──▶ SyncingFile ──▶ publish ──▶ SyncingFolders ──▶ 201
//!                                                                                              │            ▲
//!                                                                                              └▶ SyncingAlias
//! ```
//!
//! A wait keeps the verified grant. An alias marks its slot as used, so it is created when the file is on stable storage.
//! Without `fsync` the syncing states are skipped. After a failure in any state nothing of the upload is left.

use std::io;
use std::time::Instant;

use crate::layout::{StorePath, slot_digest};
use crate::now::Now;
use crate::reactor::admission::{SpaceDecision, SpaceRequest};
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::shared::{Buffers, Shared};
use crate::reactor::sync_token::SyncToken;
use crate::reactor::waiting::{Attempt, Waiter};
use crate::refusal::Refusal;
use crate::service::PutRefusal;
use crate::slot::grant::{Denial, Grant, Scheme};
use crate::store::Store;
use crate::store::upload::{PublishError, Upload};
use crate::syncer::Work;
use crate::sys;
use crate::transport::Moved;

/// A PUT whose grant is verified, before its body is accepted.
#[derive(Debug)]
pub(super) struct WaitingForUsage {
    pub(super) grant: Grant,
    /// The media type to store.
    pub(super) content_type: Option<String>,
    pub(super) attempt: Attempt,
}

/// An upload whose body was accepted.
#[derive(Debug)]
pub(super) struct ActiveUpload {
    upload: Upload,
    pub(super) grant: Grant,
    content_type: Option<String>,
    begun: Instant,
    stage: UploadStage,
    /// Whether its size is reserved in the owner's usage.
    reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadStage {
    Receiving,
    SyncingFile,
    SyncingFolders,
    SyncingAlias,
}

impl ActiveUpload {
    /// Discards the data and releases the reservation, unless the file is published.
    pub(super) fn end(self, shared: &mut Shared) {
        if self.reserved {
            let grant = &self.grant;
            let usage = &mut shared.admission.usage;
            usage.release(grant.path.owner_folder(), grant.quota_class(), grant.size);
        }
        if let Some(store) = shared.storage.folder_mut() {
            store.end(self.upload);
        }
    }
}

impl Client {
    /// The result of a sync job.
    pub(super) fn upload_synced(&mut self, result: io::Result<()>, shared: &mut Shared, now: Now) {
        let Activity::Put(active) = &self.activity else {
            return;
        };
        match (active.stage, result) {
            (UploadStage::SyncingFile, Ok(())) => self.publish(shared, now),
            (UploadStage::SyncingFolders, Ok(())) => self.create_alias(shared, now),
            (UploadStage::SyncingAlias, Ok(())) => self.complete_upload(shared, now),
            (UploadStage::SyncingFolders | UploadStage::SyncingAlias, Err(error)) => {
                // The file is published, but its name may be lost: the client must get no 201.
                unpublish(&active.grant, shared, now);
                self.storage_failed("sync", &error, shared, now);
            }
            (_, Err(error)) => self.storage_failed("sync", &error, shared, now),
            (UploadStage::Receiving, Ok(())) => {}
        }
    }

    /// Receives a part of the body.
    pub(super) fn receive_body(
        &mut self,
        most: usize,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let Activity::Put(active) = &mut self.activity else {
            return Err(io::Error::other("a body without an upload"));
        };
        let Shared {
            storage, buffers, ..
        } = shared;
        let store = storage.require_folder_mut()?;
        let Buffers { body, wire, .. } = buffers;
        let upload = &mut active.upload;
        let buffered = self
            .exchange
            .receive_buffered(now.mono, |data| store.append(upload, data));
        let received = if let Some((n, received)) = buffered {
            *budget = budget.saturating_sub(n);
            received
        } else {
            let most = most.min(body.len()).min(*budget);
            match self.transport.read(&mut body[..most], wire)? {
                Moved::Bytes(n) => {
                    *budget = budget.saturating_sub(n);
                    self.exchange
                        .receive(&body[..n], now.mono, |data| store.append(upload, data))
                }
                Moved::End => {
                    self.why = Some("the client closed the connection within a body".into());
                    self.exchange.peer_closed();
                    Ok(())
                }
                Moved::NoBytes => Ok(()),
                Moved::Blocked => return Ok(StepResult::Blocked),
            }
        };
        if let Err(error) = received {
            self.storage_failed("write", &error, shared, now);
        }
        Ok(StepResult::Moved)
    }

    /// Accepts the body of a PUT with a verified grant, refuses it, or lets it wait for the owner's usage.
    pub(super) fn begin_upload(
        &mut self,
        request: WaitingForUsage,
        shared: &mut Shared,
        now: Now,
    ) -> StepResult {
        #[cfg(feature = "s3")]
        if shared.storage.is_bucket() {
            return self.begin_object(request, shared, now);
        }
        let grant = &request.grant;
        shared.check_root(now);
        if shared.slots.revoked.is_revoked(grant) {
            self.refuse(&PutRefusal::Denied(Denial::Expired), shared, now);
            return StepResult::Moved;
        }
        match self.is_used(grant, shared, now) {
            Ok(false) => {}
            Ok(true) => {
                self.refuse_used(&grant.path, shared, now);
                return StepResult::Moved;
            }
            Err(error) => {
                self.storage_failed("look", &error, shared, now);
                return StepResult::Moved;
            }
        }
        match self.admit_upload(&request, shared, now) {
            Ok(true) => self.accept_body(request.grant, request.content_type, shared, now),
            Ok(false) => {
                self.activity = Activity::WaitingForUsage(Box::new(request));
                return StepResult::Blocked;
            }
            Err(refusal) => self.refuse(&refusal, shared, now),
        }
        StepResult::Moved
    }

    /// Whether the quotas allow an upload; false if it must wait for the owner's usage.
    pub(super) fn admit_upload(
        &self,
        request: &WaitingForUsage,
        shared: &mut Shared,
        now: Now,
    ) -> Result<bool, PutRefusal> {
        let grant = &request.grant;
        let owner = grant.path.owner_folder();
        let space_request = SpaceRequest {
            owner: grant.has_owner().then_some(owner),
            class: grant.quota_class(),
            size: grant.size,
            total: grant.total,
        };
        let refusal = match shared.admit(&space_request, request.attempt, now) {
            SpaceDecision::Granted => return Ok(true),
            SpaceDecision::Wait => {
                let waiter = Waiter::Connection(self.key);
                match shared.admission.waiting.push(owner, waiter) {
                    Ok(()) => return Ok(false),
                    Err(_) => Refusal::Busy,
                }
            }
            SpaceDecision::Refused(refusal) => refusal,
        };
        Err(PutRefusal::NoRoom(refusal))
    }

    /// Creates the file and reserves its size.
    fn accept_body(
        &mut self,
        grant: Grant,
        content_type: Option<String>,
        shared: &mut Shared,
        now: Now,
    ) {
        let store = shared.storage.require_folder_mut();
        let mut upload = match store.and_then(|store| store.begin(grant.size)) {
            Ok(upload) => upload,
            Err(error) => return self.storage_failed("open", &error, shared, now),
        };
        let service = &shared.service;
        if service.needs_charset(&grant.path, content_type.as_deref()) {
            upload.check_charset();
        }
        let (owner, class, size) = (grant.path.owner_folder(), grant.quota_class(), grant.size);
        let reserved = shared.counts() && grant.has_owner();
        if reserved {
            let usage = &mut shared.admission.usage;
            usage.reserve(owner, class, size, now.mono);
        }
        self.activity = Activity::Put(Box::new(ActiveUpload {
            upload,
            grant,
            content_type,
            begun: now.mono,
            stage: UploadStage::Receiving,
            reserved,
        }));
        self.exchange.accept(size, now.mono);
    }

    /// Whether a slot is used, as far as that must be known before the body is accepted.
    fn is_used(&self, grant: &Grant, shared: &Shared, now: Now) -> io::Result<bool> {
        if self.checks_when_publishing(grant, shared) {
            return Ok(false);
        }
        let store = shared.storage.require_folder()?;
        if store.exists(&grant.path)? {
            restore_alias(grant, store);
            return Ok(true);
        }
        was_used(grant, shared, now)
    }

    /// Refuses a PUT to a path that exists: as a file, or because another kind of file has the name of the owner folder.
    fn refuse_used(&mut self, path: &StorePath, shared: &mut Shared, now: Now) {
        let store = shared.storage.folder();
        match store.and_then(|store| store.stranger_at(path)) {
            None => self.refuse(&PutRefusal::Used, shared, now),
            Some(kind) => {
                shared.obstructed(path, kind, now);
                self.refuse(&PutRefusal::Storage { full: false }, shared, now);
            }
        }
    }

    /// Whether it is early enough to detect a used slot when the file is published: the whole body has arrived, and
    /// before that nothing is synced and no file is deleted to free space.
    fn checks_when_publishing(&self, grant: &Grant, shared: &Shared) -> bool {
        self.exchange.has_whole_body()
            && grant.scheme == Scheme::Own
            && !shared.config.fsync
            && !shared.counts()
    }

    /// The body is complete: writes the attributes of the file, then syncs or publishes it.
    pub(super) fn finish_upload(
        &mut self,
        shared: &mut Shared,
        now: Now,
    ) -> io::Result<StepResult> {
        let Activity::Put(active) = &mut self.activity else {
            return Err(io::Error::other("a body without an upload"));
        };
        if active.stage != UploadStage::Receiving {
            return Ok(StepResult::Blocked);
        }
        let content_type = active.content_type.as_deref();
        let store = shared.storage.require_folder_mut()?;
        if let Err(error) = store.complete(&mut active.upload, content_type) {
            self.storage_failed("write", &error, shared, now);
        } else if shared.config.fsync {
            active.stage = UploadStage::SyncingFile;
            let work = Work::File(active.upload.file());
            self.submit(work, shared);
        } else {
            self.publish(shared, now);
        }
        Ok(StepResult::Moved)
    }

    /// Publishes a complete upload under its path.
    fn publish(&mut self, shared: &mut Shared, now: Now) {
        let Activity::Put(active) = &mut self.activity else {
            return;
        };
        let Grant { path, size, .. } = &active.grant;
        let class = active.grant.quota_class();
        // Another PUT of the slot may have been published meanwhile, and its file deleted.
        match refusal_of(&active.grant, shared, now) {
            Ok(None) => {}
            Ok(Some(refusal)) => return self.refuse(&refusal, shared, now),
            Err(error) => return self.storage_failed("look", &error, shared, now),
        }
        let sync = shared.config.fsync;
        let Some(store) = shared.storage.folder_mut() else {
            return;
        };
        let published = match store.publish(&active.upload, path, sync, now.wall) {
            Ok(published) => published,
            Err(PublishError::Taken) => return self.refuse(&PutRefusal::Used, shared, now),
            // Another kind of file may have the name of a folder of the path.
            Err(PublishError::Io(_)) if matches!(store.exists(path), Ok(true)) => {
                let path = path.clone();
                return self.refuse_used(&path, shared, now);
            }
            Err(PublishError::Io(error)) => {
                return self.storage_failed("publish", &error, shared, now);
            }
        };
        let usage = &mut shared.admission.usage;
        if std::mem::take(&mut active.reserved) {
            usage.release(path.owner_folder(), class, *size);
        }
        usage.added(path.owner_folder(), class, *size);
        // A command may have deleted an earlier file of the slot, or revoked it, since the check above.
        if shared.look_for_removals(now) {
            if let Ok(Some(refusal)) = refusal_of(&active.grant, shared, now) {
                unpublish(&active.grant, shared, now);
                return self.refuse(&refusal, shared, now);
            }
        }
        shared.slots.used.add(&active.grant, now.unix());
        if shared.config.fsync {
            active.stage = UploadStage::SyncingFolders;
            self.submit(Work::Folders(published.folders), shared);
        } else {
            self.create_alias(shared, now);
        }
    }

    /// Creates the alias of a published file, if its scheme has one.
    fn create_alias(&mut self, shared: &mut Shared, now: Now) {
        let Activity::Put(active) = &mut self.activity else {
            return;
        };
        let Scheme::FileShare { slot, .. } = &active.grant.scheme else {
            return self.complete_upload(shared, now);
        };
        let store = shared.storage.require_folder();
        match store.and_then(|store| store.set_alias(slot, &active.grant.path)) {
            Ok(changed) if shared.config.fsync => {
                active.stage = UploadStage::SyncingAlias;
                self.submit(Work::Folders(changed), shared);
            }
            Ok(_) => self.complete_upload(shared, now),
            Err(error) => {
                unpublish(&active.grant, shared, now);
                self.storage_failed("publish", &error, shared, now);
            }
        }
    }

    /// Answers an upload that is published and, with `fsync`, on stable storage.
    fn complete_upload(&mut self, shared: &mut Shared, now: Now) {
        let Activity::Put(active) = &self.activity else {
            return;
        };
        let Grant { path, size, .. } = &active.grant;
        log::info!(
            "upload published owner={} path={:?} bytes={size} ms={} from={}",
            path.owner_folder().escape_ascii(),
            path,
            now.mono.saturating_duration_since(active.begun).as_millis(),
            self.address
        );
        shared.monitor.worked(*size);
        shared.status.metrics.published(*size);
        let answer = shared.service.created(&active.grant);
        self.end_activity(shared);
        self.exchange.answer(answer, now.mono);
    }

    /// Submits a sync job, whose result is passed to [`Client::synced`].
    pub(super) fn submit(&self, work: Work, shared: &mut Shared) {
        shared.syncer.submit(SyncToken::Connection(self.key), work);
    }

    /// Refuses a request because the store failed.
    pub(super) fn storage_failed(
        &mut self,
        operation: &str,
        error: &io::Error,
        shared: &mut Shared,
        now: Now,
    ) {
        // Only while a body is written does it depend on its size whether it fits.
        let size = match &self.activity {
            Activity::Put(active)
                if active.stage == UploadStage::Receiving && operation == "write" =>
            {
                active.grant.size
            }
            _ => 0,
        };
        shared.store_failed(operation, error, size, now);
        let refusal = match sys::is_out_of_descriptors(error) {
            true => PutRefusal::Busy,
            false => PutRefusal::Storage {
                full: sys::is_full(error),
            },
        };
        self.refuse(&refusal, shared, now);
    }
}

/// Why an upload that was accepted must not be published.
fn refusal_of(grant: &Grant, shared: &Shared, now: Now) -> io::Result<Option<PutRefusal>> {
    if shared.slots.revoked.is_revoked(grant) {
        return Ok(Some(PutRefusal::Denied(Denial::Expired)));
    }
    Ok(was_used(grant, shared, now)?.then_some(PutRefusal::Used))
}

/// Whether a slot was used, even if its file is deleted.
fn was_used(grant: &Grant, shared: &Shared, now: Now) -> io::Result<bool> {
    let store = shared.storage.require_folder()?;
    match &grant.scheme {
        Scheme::Own if shared.slots.used.contains(grant) => Ok(true),
        Scheme::Own if store.may_have_own_tombstones(now.mono) => store.has_tombstone(&grant.path),
        Scheme::Own => Ok(false),
        // An imported file may be under another path.
        Scheme::External => Ok(store.old_link_of(grant.path.as_bytes()).is_some()
            || store.has_tombstone(&grant.path)?),
        Scheme::FileShare { slot, .. } => {
            Ok(store.alias(slot).is_some() || store.old_link(&slot_digest(slot)).is_some())
        }
    }
}

/// Creates the alias of a file whose upload was interrupted before its alias was created.
fn restore_alias(grant: &Grant, store: &Store) {
    if let Scheme::FileShare { slot, .. } = &grant.scheme {
        if store.alias(slot).is_none() {
            let _ = store.set_alias(slot, &grant.path);
        }
    }
}

/// Deletes a published file whose upload fails.
fn unpublish(grant: &Grant, shared: &mut Shared, now: Now) {
    let Some(store) = shared.storage.folder_mut() else {
        return;
    };
    if !store.unpublish(&grant.path, now.mono) {
        return;
    }
    if let Scheme::FileShare { slot, .. } = &grant.scheme {
        store.drop_alias(slot);
    }
    shared.slots.used.unpublish(grant);
    let usage = &mut shared.admission.usage;
    usage.removed(grant.path.owner_folder(), grant.quota_class(), grant.size);
}
