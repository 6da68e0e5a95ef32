//! The removal pipeline: the only way in which a stored file is deleted.
//!
//! ```text
//!   record tombstones ──▶ sync ──▶ unlink ──▶ sync
//! ```
//!
//! A tombstone is on stable storage before its file is unlinked. Otherwise a power cut could keep the removal and lose
//! the tombstone, and an upload URL that is still valid would store the path again. The second sync is for callers that
//! report a removal as permanent: a signed DELETE and the `remove` command. Expiry, trimming and eviction report
//! nothing; a file that a power cut brings back is removed again.
//!
//! A [`Batch`] takes files through these steps, so that one sync covers many of them. The caller syncs: the loop on its
//! helper thread, the `remove` command in place. Without `fsync` the syncs are left out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

pub use crate::expiry::TombstonePolicy;

use crate::expiry::StoredFile;
use crate::layout::StorePath;
use crate::now::Now;
use crate::store::Store;
use crate::sys::{self, FileKind};

/// Files whose tombstones are synced together.
const MAX_BATCH: usize = 64;

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Files are added, and their tombstones recorded.
    #[default]
    Recording,
    /// The tombstones have to be synced.
    Recorded,
    /// The caller waits for the sync.
    Syncing,
    /// The files are unlinked.
    Unlinking,
}

/// Files that are removed together. An emptied batch can be filled again.
#[derive(Debug, Default)]
pub struct Batch {
    stage: Stage,
    files: VecDeque<StoredFile>,
    /// The paths whose tombstones have to be synced.
    tombstones: Vec<StorePath>,
}

impl Batch {
    /// Adds a file, and records its tombstone if it needs one. If recording fails, the file still is part of the batch:
    /// a full disk must not keep files from being removed.
    pub fn add(&mut self, victim: StoredFile, store: &mut Store, now: Now) -> io::Result<()> {
        debug_assert_eq!(self.stage, Stage::Recording);
        let recorded = store.record_tombstone_if_needed(&victim, now);
        if matches!(recorded, Ok(true)) {
            self.tombstones.push(victim.path.clone());
        }
        self.files.push_back(victim);
        recorded.map(|_| ())
    }

    /// The same; a failure is logged.
    pub fn add_or_warn(&mut self, victim: StoredFile, store: &mut Store, now: Now) {
        let path = victim.path.clone();
        if let Err(error) = self.add(victim, store, now) {
            store.warn_limited("tombstone not recorded", &path, &error, now.mono);
        }
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn is_full(&self) -> bool {
        self.files.len() >= MAX_BATCH
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether [`Batch::close`] makes the caller sync.
    pub fn needs_sync(&self, fsync: bool) -> bool {
        fsync && !self.tombstones.is_empty()
    }

    /// All files are added: with `fsync` their tombstones are synced next, if there are any.
    pub fn close(&mut self, fsync: bool) {
        self.stage = match self.needs_sync(fsync) {
            true => Stage::Recorded,
            false => Stage::Unlinking,
        };
    }

    /// The paths whose tombstones the caller syncs from now on, with [`Store::tombstone_folders`]; then it calls
    /// [`Batch::synced`].
    pub fn begin_sync(&mut self) -> Vec<StorePath> {
        self.stage = Stage::Syncing;
        std::mem::take(&mut self.tombstones)
    }

    /// The sync is done. If it failed, which the caller logs, the files are removed all the same: a failing disk must
    /// not keep files from being removed.
    pub fn synced(&mut self) {
        if self.stage == Stage::Syncing {
            self.stage = Stage::Unlinking;
        }
    }

    /// The next file to unlink, with [`Store::unlink`]. `None` when there is no more: the batch can be filled again.
    pub fn next_victim(&mut self) -> Option<StoredFile> {
        if self.stage != Stage::Unlinking {
            return None;
        }
        let next = self.files.pop_front();
        if next.is_none() {
            self.stage = Stage::Recording;
            self.tombstones.clear();
        }
        next
    }
}

/// Begins to sync the tombstones of all batches that are ready for it, unless an earlier sync is in progress. The caller
/// syncs the returned folders, and passes the result to [`end_sync`].
pub fn begin_sync(mut batches: Vec<&mut Batch>, store: &Store) -> Option<Vec<OwnedFd>> {
    if batches.iter().any(|batch| batch.stage == Stage::Syncing) {
        return None;
    }
    batches.retain(|batch| batch.stage == Stage::Recorded);
    let paths: Vec<StorePath> = batches.iter_mut().flat_map(|b| b.begin_sync()).collect();
    if paths.is_empty() {
        return None;
    }
    store
        .tombstone_folders(&paths)
        .map_err(|error| end_sync(batches, Err(error)))
        .ok()
}

/// The tombstones are on stable storage, or could not be synced, which is logged.
pub fn end_sync(batches: Vec<&mut Batch>, result: io::Result<()>) {
    log_sync_failure(&result);
    for batch in batches {
        batch.synced();
    }
}

/// Logs that tombstones could not be synced.
pub fn log_sync_failure(result: &io::Result<()>) {
    if let Err(error) = result {
        log::error!("tombstone sync failed why={:?}", error.to_string());
    }
}

impl Store {
    /// A stored file; `None` if there is none of that name.
    pub fn find(&self, path: &StorePath) -> io::Result<Option<StoredFile>> {
        let stat = sys::open_folder_below(self.root(), path.folder())
            .and_then(|folder| sys::stat_at(&folder, path.name()));
        match stat {
            Ok(stat) if stat.kind == FileKind::File => Ok(Some(StoredFile {
                path: path.clone(),
                size: stat.size,
                modified: stat.modified,
            })),
            Ok(_) => Ok(None),
            Err(error) if sys::is_store_error(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Records the tombstone of a file that is to be removed, if it needs one; returns whether it does.
    fn record_tombstone_if_needed(&mut self, victim: &StoredFile, now: Now) -> io::Result<bool> {
        let StoredFile { path, modified, .. } = victim;
        let policy = self.tombstones.policy;
        if !policy.needs_tombstone(path, *modified, self.times(), now.wall) {
            return Ok(false);
        }
        if path.tag().is_some() {
            self.tombstones.own_until = Some(now.mono + policy.slot_life);
        }
        self.record_tombstone(path).map(|()| true)
    }

    /// Unlinks a file, and removes the folders that this leaves empty; false if there is none.
    pub fn unlink(&mut self, path: &StorePath) -> io::Result<bool> {
        // Whatever comes of it: what is open may be deleted.
        self.removals.count += 1;
        let unlinked = sys::open_folder_below(self.root(), path.folder()).and_then(|folder| {
            let stat = sys::stat_at(&folder, path.name())?;
            if stat.kind != FileKind::File {
                return Err(io::ErrorKind::NotFound.into());
            }
            sys::remove_file(&folder, path.name())
        });
        match unlinked {
            Ok(()) => {
                self.remove_empty_folders(path);
                Ok(true)
            }
            // The path leads through a link, or through something else that is no folder.
            Err(error) if sys::is_no_folder(&error) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The folder of a file, to be synced once the file is unlinked.
    pub fn folder_of(&self, path: &StorePath) -> io::Result<OwnedFd> {
        sys::open_folder_below(self.root(), path.folder())
    }
}
