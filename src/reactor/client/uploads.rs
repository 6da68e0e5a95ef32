//! The part of a connection's driver that stores a body: begin, move in, sync, publish, answer.
//!
//! ```text
//!   begin ──▶ Receiving ── whole ──▶ SyncingFile ──▶ publish ──▶ SyncingFolders ──▶ 201
//!                                                                      │            ▲
//!                                                                      └▶ SyncingAlias
//! ```
//!
//! An alias says that its slot is used, so that it comes when the file is there to stay. Without `fsync` the syncing is
//! left out. Whatever fails on the way, the upload leaves nothing.

use std::io;
use std::time::Instant;

use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::{Client, StepResult};
use crate::reactor::shared::{Admission, Attempt, Shared, SpaceRequest, Waiter};
use crate::refusal::Refusal;
use crate::service::PutRefusal;
use crate::slot::grant::{Denial, Grant, Scheme};
use crate::store::upload::{PublishError, Upload};
use crate::syncer::Work;
use crate::sys;
use crate::transport::Moved;

/// An upload under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) upload: Upload,
    pub(super) grant: Grant,
    pub(super) content_type: Option<String>,
    begun: Instant,
    pub(super) stage: UploadStage,
    reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadStage {
    Receiving,
    SyncingFile,
    SyncingFolders,
    SyncingAlias,
}

impl Client {
    /// What was handed to the syncing thread has its result.
    pub fn synced(&mut self, result: io::Result<()>, shared: &mut Shared, now: Now) {
        if let Some(removal) = self.removal.take() {
            return self.removal_synced(*removal, result, shared, now);
        }
        let Some(pending) = &self.upload else {
            return;
        };
        match (pending.stage, result) {
            (UploadStage::SyncingFile, Ok(())) => self.publish(shared, now),
            (UploadStage::SyncingFolders, Ok(())) => self.named(shared, now),
            (UploadStage::SyncingAlias, Ok(())) => self.stored(shared, now),
            (UploadStage::SyncingFolders | UploadStage::SyncingAlias, Err(error)) => {
                // It has its name, but the name may not last: the client must not believe in it.
                unpublish(&pending.grant, shared);
                self.storage_failed("sync", &error, shared, now);
            }
            (_, Err(error)) => self.storage_failed("sync", &error, shared, now),
            (UploadStage::Receiving, Ok(())) => {}
        }
    }

    pub(super) fn move_in(
        &mut self,
        most: usize,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let Some(pending) = &mut self.upload else {
            return Err(io::Error::other("a body without an upload"));
        };
        let Shared {
            store, body, wire, ..
        } = shared;
        let upload = &mut pending.upload;
        let kept = self
            .exchange
            .receive_buffered(now.mono, |data| store.append(upload, data));
        let received = if let Some((n, received)) = kept {
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
                    self.why = Some("the client broke off within a body".into());
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

    pub(super) fn begin(
        &mut self,
        grant: Grant,
        content_type: Option<String>,
        shared: &mut Shared,
        now: Now,
    ) -> StepResult {
        shared.check_root(now);
        if shared.revoked.is_revoked(&grant) {
            self.refuse(&PutRefusal::Denied(Denial::Expired), shared, now);
            return StepResult::Moved;
        }
        let used = match self.looks_when_publishing(&grant, shared) {
            true => Ok(false),
            false => match shared.store.exists(&grant.path) {
                Ok(false) => was_used(&grant, shared, now),
                Ok(true) => {
                    name_again(&grant, shared);
                    Ok(true)
                }
                Err(error) => Err(error),
            },
        };
        match used {
            Ok(false) => {}
            Ok(true) => {
                self.taken(&grant.path, shared, now);
                return StepResult::Moved;
            }
            Err(error) => {
                self.storage_failed("look", &error, shared, now);
                return StepResult::Moved;
            }
        }
        let owner = grant.path.owner_folder().to_vec();
        let kind = grant.kind();
        let space_request = SpaceRequest {
            owner: grant.has_owner().then_some(&owner[..]),
            kind,
            size: grant.size,
            total: grant.total,
        };
        match shared.admit(&space_request, self.attempt, now) {
            Admission::Granted => {}
            Admission::Wait => {
                if shared.waiting.push(&owner, Waiter::Put(self.key)).is_err() {
                    self.refuse(&PutRefusal::NoRoom(Refusal::Busy), shared, now);
                    return StepResult::Moved;
                }
                self.waits = true;
                return StepResult::Blocked;
            }
            Admission::Refused(refusal) => {
                self.refuse(&PutRefusal::NoRoom(refusal), shared, now);
                return StepResult::Moved;
            }
        }
        self.attempt = Attempt::default();
        match shared.store.begin(grant.size) {
            Ok(mut upload) => {
                if shared
                    .service
                    .needs_charset(&grant.path, content_type.as_deref())
                {
                    upload.check_charset();
                }
                let size = grant.size;
                let reserved = shared.counts() && grant.has_owner();
                if reserved {
                    shared.usage.reserve(&owner, kind, size, now.mono);
                }
                self.upload = Some(Box::new(Pending {
                    upload,
                    grant,
                    content_type,
                    begun: now.mono,
                    stage: UploadStage::Receiving,
                    reserved,
                }));
                self.exchange.accept(size, now.mono);
            }
            Err(error) => self.storage_failed("open", &error, shared, now),
        }
        StepResult::Moved
    }

    /// A path is taken: by its own file, or by what has the place of its owner's folder.
    fn taken(&mut self, path: &StorePath, shared: &mut Shared, now: Now) {
        match shared.store.stranger_at(path) {
            None => self.refuse(&PutRefusal::Used, shared, now),
            Some(kind) => {
                shared.obstructed(path, kind, now);
                self.refuse(&PutRefusal::Storage { full: false }, shared, now);
            }
        }
    }

    /// Whether it is early enough to learn that a slot is used when its file gets its name: the body is here, nothing
    /// is asked of the disk before that, and no file is removed to make room.
    fn looks_when_publishing(&self, grant: &Grant, shared: &Shared) -> bool {
        self.exchange.has_whole_body()
            && grant.scheme == Scheme::Own
            && !shared.config.fsync
            && !shared.counts()
    }

    /// Gives a complete upload its name.
    pub(super) fn publish(&mut self, shared: &mut Shared, now: Now) {
        let Some(pending) = &mut self.upload else {
            return;
        };
        let Grant { path, size, .. } = &pending.grant;
        let kind = pending.grant.kind();
        if shared.revoked.is_revoked(&pending.grant) {
            return self.refuse(&PutRefusal::Denied(Denial::Expired), shared, now);
        }
        // Another PUT of the slot may have been published since this one began, and its file removed.
        match was_used(&pending.grant, shared, now) {
            Ok(false) => {}
            Ok(true) => return self.refuse(&PutRefusal::Used, shared, now),
            Err(error) => return self.storage_failed("look", &error, shared, now),
        }
        match shared.store.publish(&pending.upload, path) {
            Ok(published) => {
                if std::mem::take(&mut pending.reserved) {
                    shared.usage.release(path.owner_folder(), kind, *size);
                }
                shared.usage.added(path.owner_folder(), kind, *size);
                // A command may have removed what was there before, and looked for the last time.
                if shared.look_for_removals(now) {
                    let grant = &pending.grant;
                    let refusal = match was_used(grant, shared, now) {
                        _ if shared.revoked.is_revoked(grant) => {
                            Some(PutRefusal::Denied(Denial::Expired))
                        }
                        Ok(true) => Some(PutRefusal::Used),
                        Ok(false) | Err(_) => None,
                    };
                    if let Some(refusal) = refusal {
                        unpublish(grant, shared);
                        return self.refuse(&refusal, shared, now);
                    }
                }
                shared.used.add(&pending.grant, now.unix());
                if shared.config.fsync {
                    pending.stage = UploadStage::SyncingFolders;
                    self.submit(Work::Folders(published.folders), shared, now);
                } else {
                    self.named(shared, now);
                }
            }
            Err(PublishError::Taken) => self.refuse(&PutRefusal::Used, shared, now),
            // What stands in the way of its folder is as good as a file of its name, early or late.
            Err(PublishError::Io(_)) if matches!(shared.store.exists(path), Ok(true)) => {
                let path = path.clone();
                self.taken(&path, shared, now);
            }
            Err(PublishError::Io(error)) => self.storage_failed("publish", &error, shared, now),
        }
    }

    /// The upload has its name, and surely keeps it.
    fn named(&mut self, shared: &mut Shared, now: Now) {
        let Some(pending) = &mut self.upload else {
            return;
        };
        let Scheme::FileShare { slot, .. } = &pending.grant.scheme else {
            return self.stored(shared, now);
        };
        match shared.store.set_alias(slot, &pending.grant.path) {
            Ok(changed) if shared.config.fsync => {
                pending.stage = UploadStage::SyncingAlias;
                self.submit(Work::Folders(changed), shared, now);
            }
            Ok(_) => self.stored(shared, now),
            Err(error) => {
                unpublish(&pending.grant, shared);
                self.storage_failed("publish", &error, shared, now);
            }
        }
    }

    /// The upload is where it was promised to be.
    pub(super) fn stored(&mut self, shared: &mut Shared, now: Now) {
        let Some(pending) = &self.upload else {
            return;
        };
        let Grant { path, size, .. } = &pending.grant;
        log::info!(
            "upload published owner={} path={:?} bytes={size} ms={} from={}",
            path.owner_folder().escape_ascii(),
            path,
            now.mono
                .saturating_duration_since(pending.begun)
                .as_millis(),
            self.from()
        );
        shared.monitor.worked(*size);
        shared.metrics.published(*size);
        let answer = shared.service.created(&pending.grant);
        self.end_upload(shared);
        self.exchange.answer(answer, now.mono);
    }

    pub(super) fn submit(&mut self, work: Work, shared: &mut Shared, now: Now) {
        if let Err(error) = shared.syncer.submit(self.key.to_token(), work) {
            self.synced(Err(error), shared, now);
        }
    }

    pub(super) fn storage_failed(
        &mut self,
        what: &str,
        error: &io::Error,
        shared: &mut Shared,
        now: Now,
    ) {
        // Whether a body has room depends on its size; what else an upload needs, all of them do.
        let size = match &self.upload {
            Some(pending) if pending.stage == UploadStage::Receiving && what == "write" => {
                pending.grant.size
            }
            _ => 0,
        };
        shared.store_failed(what, error, size, now);
        let refusal = match sys::is_out_of_descriptors(error) {
            true => PutRefusal::Busy,
            false => PutRefusal::Storage {
                full: sys::is_full(error),
            },
        };
        self.refuse(&refusal, shared, now);
    }

    pub(super) fn end_upload(&mut self, shared: &mut Shared) {
        if let Some(pending) = self.upload.take() {
            if pending.reserved {
                let grant = &pending.grant;
                shared
                    .usage
                    .release(grant.path.owner_folder(), grant.kind(), grant.size);
            }
            shared.store.end(pending.upload);
        }
    }
}

/// Whether a slot is used up though its file is not there (any more).
fn was_used(grant: &Grant, shared: &Shared, now: Now) -> io::Result<bool> {
    match &grant.scheme {
        Scheme::Own if shared.used.contains(grant) => Ok(true),
        Scheme::Own if shared.store.may_have_own_tombstones(now.mono) => {
            shared.store.has_tombstone(&grant.path)
        }
        Scheme::Own => Ok(false),
        Scheme::External => shared.store.has_tombstone(&grant.path),
        Scheme::FileShare { slot, .. } => Ok(shared.store.alias(slot).is_some()),
    }
}

/// Gives a file its alias whose upload was cut off between name and alias.
fn name_again(grant: &Grant, shared: &Shared) {
    if let Scheme::FileShare { slot, .. } = &grant.scheme {
        if shared.store.alias(slot).is_none() {
            let _ = shared.store.set_alias(slot, &grant.path);
        }
    }
}

/// Takes a file back that was given its name: its upload is not to be promised.
fn unpublish(grant: &Grant, shared: &mut Shared) {
    if !shared.store.unpublish(&grant.path) {
        return;
    }
    shared.used.unpublish(grant);
    if let Scheme::FileShare { slot, .. } = &grant.scheme {
        shared.store.drop_alias(slot);
    }
    shared
        .usage
        .removed(grant.path.owner_folder(), grant.kind(), grant.size);
}
