//! The part of a connection's driver that removes a file, as the server that signed for it asks.
//!
//! ```text
//!   bury ──▶ Burying ── synced ──▶ remove ──▶ Removing ── synced ──▶ 204
//! ```
//!
//! The path is surely remembered before its file goes, and the file is surely gone before that is said: else a power cut
//! could bring it back, or let somebody who has its link do so. Without `fsync` the syncing is left out.

use std::io;

use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool;
use crate::reactor::client::{Activity, Client};
use crate::reactor::shared::Shared;
use crate::syncer::Work;

/// A removal that waits for stable storage.
#[derive(Debug)]
pub(super) struct Removal {
    path: StorePath,
    /// Bytes of the file.
    size: u64,
    stage: RemovalStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemovalStage {
    RecordingTombstone,
    Removing,
}

impl Client {
    pub(super) fn delete(&mut self, path: StorePath, shared: &mut Shared, now: Now) {
        let file = match shared.store.download(&path) {
            Ok(Some(file)) => file,
            Ok(None) => return self.exchange.answer(shared.service.not_found(), now.mono),
            Err(error) => return self.storage_failed("delete", &error, shared, now),
        };
        let removal = Removal {
            path,
            size: file.size,
            stage: RemovalStage::RecordingTombstone,
        };
        if !shared.config.fsync {
            return self.remove(removal, shared, now);
        }
        let changed = shared
            .store
            .record_tombstone_before_removal(&removal.path, file.modified);
        self.wait_for(removal, Work::Folders(changed), shared, now);
    }

    /// What was to be synced has its result.
    pub(super) fn removal_synced(
        &mut self,
        removal: Removal,
        result: io::Result<()>,
        shared: &mut Shared,
        now: Now,
    ) {
        match (removal.stage, result) {
            (RemovalStage::RecordingTombstone, result) => {
                // A disk in trouble must not keep what is to go.
                if let Err(error) = result {
                    log::error!("tombstone sync failed why={:?}", error.to_string());
                }
                self.remove(removal, shared, now);
            }
            (RemovalStage::Removing, Ok(())) => {
                self.exchange.answer(shared.service.deleted(), now.mono)
            }
            (RemovalStage::Removing, Err(error)) => {
                self.storage_failed("delete", &error, shared, now)
            }
        }
    }

    fn remove(&mut self, removal: Removal, shared: &mut Shared, now: Now) {
        let path = &removal.path;
        let folder = shared.store.folder_of(path);
        match shared.store.remove(path) {
            Ok(true) => {}
            Ok(false) => return self.exchange.answer(shared.service.not_found(), now.mono),
            Err(error) => return self.storage_failed("delete", &error, shared, now),
        }
        let kind = pool::kind(path.tag());
        shared
            .admission
            .usage
            .removed(path.owner_folder(), kind, removal.size);
        log::info!(
            "file deleted path={path:?} bytes={} from={}",
            removal.size,
            self.address
        );
        match folder {
            Ok(folder) if shared.config.fsync => {
                let stage = RemovalStage::Removing;
                let work = Work::Folders(vec![folder]);
                self.wait_for(Removal { stage, ..removal }, work, shared, now);
            }
            _ => self.exchange.answer(shared.service.deleted(), now.mono),
        }
    }

    fn wait_for(&mut self, removal: Removal, work: Work, shared: &mut Shared, now: Now) {
        self.activity = Activity::Delete(Box::new(removal));
        self.submit(work, shared, now);
    }
}
