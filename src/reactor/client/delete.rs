//! The part of a connection's driver that deletes a file for the server that signed the request.
//!
//! ```text
//!   record tombstone ──▶ RecordingTombstone ── synced ──▶ unlink ──▶ Unlinking ── synced ──▶ 204
//! ```
//!
//! This is the pipeline of [`crate::store::removal`] with a batch of one file. The 204 is sent once the removal is on
//! stable storage. Without `fsync` nothing is synced.

use std::io;
use std::os::fd::OwnedFd;

use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::{Activity, Client};
use crate::reactor::shared::Shared;
use crate::store::removal::{Batch, Stage, log_sync_failure};
use crate::syncer::Work;

/// A removal that waits for a sync.
#[derive(Debug)]
pub(super) enum Removal {
    RecordingTombstone(Batch),
    Unlinking,
}

impl Client {
    pub(super) fn delete(&mut self, path: StorePath, shared: &mut Shared, now: Now) {
        let store = match shared.storage.require_folder_mut() {
            Ok(store) => store,
            Err(error) => return self.storage_failed("delete", &error, shared, now),
        };
        let victim = match store.find(&path) {
            Ok(Some(victim)) => victim,
            Ok(None) => return self.exchange.answer(shared.service.not_found(), now.mono),
            Err(error) => return self.storage_failed("delete", &error, shared, now),
        };
        let mut batch = Batch::default();
        batch.add_or_warn(victim, store, now);
        batch.close(shared.config.fsync);
        if batch.stage() == Stage::Unlinking {
            return self.unlink(batch, shared, now);
        }
        let folders = store.tombstone_folders(&batch.begin_sync());
        let removal = Removal::RecordingTombstone(batch);
        match folders {
            Ok(folders) => self.wait_for(removal, folders, shared),
            Err(error) => self.removal_synced(removal, Err(error), shared, now),
        }
    }

    /// The sync that the removal waits for is done.
    pub(super) fn removal_synced(
        &mut self,
        removal: Removal,
        result: io::Result<()>,
        shared: &mut Shared,
        now: Now,
    ) {
        match (removal, result) {
            (Removal::RecordingTombstone(mut batch), result) => {
                log_sync_failure(&result);
                batch.synced();
                self.unlink(batch, shared, now);
            }
            (Removal::Unlinking, Ok(())) => {
                self.exchange.answer(shared.service.deleted(), now.mono);
            }
            (Removal::Unlinking, Err(error)) => self.storage_failed("delete", &error, shared, now),
        }
    }

    fn unlink(&mut self, mut batch: Batch, shared: &mut Shared, now: Now) {
        let Some(victim) = batch.next_victim() else {
            return;
        };
        let path = &victim.path;
        let Some(store) = shared.storage.folder_mut() else {
            return;
        };
        let folder = store.folder_of(path);
        match shared.admission.usage.unlink(&victim, store) {
            Ok(true) => {}
            Ok(false) => return self.exchange.answer(shared.service.not_found(), now.mono),
            Err(error) => return self.storage_failed("delete", &error, shared, now),
        }
        log::info!(
            "file deleted path={path:?} bytes={} from={}",
            victim.size,
            self.address
        );
        match folder {
            Ok(folder) if shared.config.fsync => {
                self.wait_for(Removal::Unlinking, vec![folder], shared);
            }
            _ => self.exchange.answer(shared.service.deleted(), now.mono),
        }
    }

    fn wait_for(&mut self, removal: Removal, folders: Vec<OwnedFd>, shared: &mut Shared) {
        self.activity = Activity::Delete(Box::new(removal));
        self.submit(Work::Folders(folders), shared);
    }
}
