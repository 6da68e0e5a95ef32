//! Where files are kept: chosen once, at the start.
//!
//! What both kinds can answer at once is a method here. Operations that take long in one of them, such as an upload, are
//! written for each kind by their callers.

use std::io;
use std::time::Instant;

use crate::clock::FileTimes;
#[cfg(feature = "s3")]
use crate::reactor::bucket_store::BucketStore;
use crate::store::Store;
use crate::store::removal::TombstonePolicy;
use crate::sys::Space;

/// Where files are kept.
#[derive(Debug)]
pub enum Storage {
    /// Below `storage_path`.
    Folder(Box<Store>),
    /// In a bucket of an object store.
    #[cfg(feature = "s3")]
    Bucket(Box<BucketStore>),
}

impl Storage {
    /// The store below `storage_path`, if files are kept there.
    pub fn folder(&self) -> Option<&Store> {
        match self {
            Storage::Folder(store) => Some(store),
            #[cfg(feature = "s3")]
            Storage::Bucket(_) => None,
        }
    }

    /// Like [`Storage::folder`].
    pub fn folder_mut(&mut self) -> Option<&mut Store> {
        match self {
            Storage::Folder(store) => Some(store),
            #[cfg(feature = "s3")]
            Storage::Bucket(_) => None,
        }
    }

    /// The object store, if files are kept in one.
    #[cfg(feature = "s3")]
    pub fn bucket_mut(&mut self) -> Option<&mut BucketStore> {
        match self {
            Storage::Folder(_) => None,
            Storage::Bucket(bucket) => Some(bucket),
        }
    }

    /// Whether files are kept in an object store.
    pub fn is_bucket(&self) -> bool {
        self.folder().is_none()
    }

    /// Like [`Storage::folder`], for operations that are only begun if there is one.
    pub fn require_folder(&self) -> io::Result<&Store> {
        self.folder().ok_or_else(no_folder)
    }

    /// Like [`Storage::require_folder`].
    pub fn require_folder_mut(&mut self) -> io::Result<&mut Store> {
        self.folder_mut().ok_or_else(no_folder)
    }

    /// Free bytes, minus what uploads in progress will still write; `None` if that is not known.
    pub fn free_space(&mut self, now: Instant) -> Option<u64> {
        self.folder_mut()?.free_space(now)
    }

    /// Free space of the disk, if there is one.
    pub fn space(&mut self, now: Instant) -> Option<Space> {
        self.folder_mut()?.space(now)
    }

    /// See [`Store::lacks_inodes`].
    pub fn lacks_inodes(&mut self, now: Instant) -> Option<(u64, u64)> {
        self.folder_mut()?.lacks_inodes(now)
    }

    /// Whether there may be files of an owner.
    pub fn has_owner(&self, owner_folder: &str) -> bool {
        self.folder()
            .is_none_or(|store| store.has_owner(owner_folder))
    }

    /// A number that changes when files that are open may have been deleted.
    pub fn removals(&self) -> u64 {
        self.folder().map_or(0, Store::removals)
    }

    /// Whether the loop must continue with work on an object store at once.
    pub fn has_work(&self) -> bool {
        match self {
            Storage::Folder(_) => false,
            #[cfg(feature = "s3")]
            Storage::Bucket(bucket) => bucket.has_work(),
        }
    }

    /// Whether something would be lost if the process ended now, although no connection waits for it.
    pub fn is_recording(&self) -> bool {
        match self {
            Storage::Folder(_) => false,
            #[cfg(feature = "s3")]
            Storage::Bucket(bucket) => bucket.revocations.is_recording(),
        }
    }

    /// When the loop must continue with work on an object store.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Storage::Folder(_) => None,
            #[cfg(feature = "s3")]
            Storage::Bucket(bucket) => bucket.deadline(),
        }
    }

    /// Sets how modification times are interpreted; see [`Store::set_times`].
    pub fn set_times(&mut self, times: FileTimes, jumped: bool) {
        if let Some(store) = self.folder_mut() {
            store.set_times(times, jumped);
        }
    }

    /// Sets which removed paths get a tombstone.
    pub fn set_tombstone_policy(&mut self, policy: TombstonePolicy, now: Instant) {
        if let Some(store) = self.folder_mut() {
            store.set_tombstone_policy(policy, now);
        }
    }

    /// Sets the modes of new files and folders.
    pub fn set_modes(&mut self, file_mode: u32, dir_mode: u32) {
        if let Some(store) = self.folder_mut() {
            store.set_modes(file_mode, dir_mode);
        }
    }

    /// Checks whether another folder was mounted or moved to `storage_path`. True if so.
    pub fn check_root(&mut self, now: Instant) -> bool {
        self.folder_mut().is_some_and(|store| store.check_root(now))
    }
}

fn no_folder() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "files are not kept in a folder")
}
