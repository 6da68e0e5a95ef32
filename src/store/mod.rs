//! The store: files below `storage_path`, in reading order:
//!
//! - `mod.rs` finds files and free space; [`open`] opens the storage folder;
//! - [`upload`] a body being received into an unnamed file, and its publication;
//! - [`walk`] the files of one owner, one entry at a time;
//! - [`usage`] stored bytes, per owner and in total;
//! - [`tombstones`] paths that must not be stored again; [`journal`] removals by other processes; [`aliases`] slots that
//!   another server named;
//! - [`records`] the state of the clock that outlives a restart;
//! - [`removal`] how files are deleted, for any reason;
//! - [`trim`] deletes an owner's oldest files; [`jobs`] searches and deletions that users ask for;
//! - [`sweep`] deletes expired files.
//!
//! The tree is the only state on disk: there is no index and no database. Walks proceed in slices.

pub mod aliases;
pub mod jobs;
pub mod journal;
pub mod open;
pub mod records;
pub mod removal;
pub mod sweep;
pub mod tombstones;
pub mod trim;
pub mod upload;
pub mod usage;
pub mod walk;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::FileTimes;
use crate::http::charset;
use crate::layout::StorePath;
use crate::log_limiter::RepeatLimiter;
use crate::sys::{self, FileKind, Space};

use removal::TombstonePolicy;

/// How often free space and the root's identity are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Length in bytes of the key that signs slots.
pub const SLOT_SECRET_LENGTH: usize = 32;

/// The suffix of internal files that are not complete yet.
const UNFINISHED: &str = ".new";

/// How an upload gets its name; determined once, at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// An unnamed file, linked by its descriptor.
    Descriptor,
    /// An unnamed file, linked through `/proc`.
    Proc,
    /// A file with a temporary name in the internal folder, for file systems without unnamed files.
    Temporary,
}

impl Naming {
    /// For the log.
    pub fn text(self) -> &'static str {
        match self {
            Naming::Descriptor => "unnamed files",
            Naming::Proc => "unnamed files through /proc",
            Naming::Temporary => "temporary names",
        }
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    root: OwnedFd,
    internal: OwnedFd,
    naming: Naming,
    /// Number of the next temporary name.
    serial: u64,
    modes: Modes,
    disk: Disk,
    tombstones: Tombstones,
    removals: Removals,
    file_clock: FileClock,
    root_seen: Option<Instant>,
    repeat_limiter: RepeatLimiter,
}

/// The modes of new files and folders.
#[derive(Debug)]
struct Modes {
    file: u32,
    folder: u32,
    /// Whether processes of other users must be able to use the store; see [`sys::is_shared_by_group`].
    shared: bool,
}

/// The space on the disk.
#[derive(Debug, Default)]
struct Disk {
    /// Bytes that uploads in progress will still write.
    unwritten: u64,
    /// When it was last determined.
    space: Option<(Instant, Space)>,
}

/// Which removed paths get a tombstone.
#[derive(Debug, Default)]
struct Tombstones {
    policy: TombstonePolicy,
    /// The time until which one of upslot's own slots may be valid whose path has a tombstone.
    own_until: Option<Instant>,
}

/// Removals by this process and others.
#[derive(Debug, Default)]
struct Removals {
    /// See [`Store::removals`].
    count: u64,
    journal: journal::Reader,
}

/// How modification times are interpreted.
#[derive(Debug, Default)]
struct FileClock {
    times: FileTimes,
    /// Number of clock jumps, each of which made the times of earlier files wrong.
    jumps: u32,
}

/// An open file to be served.
#[derive(Debug)]
pub struct Download {
    pub file: OwnedFd,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// From the extended attribute.
    pub content_type: Option<String>,
}

impl Store {
    /// The name of the generated key that signs slots, in the internal folder.
    pub const SLOT_SECRET: &str = "slot_secret";

    /// The root, for walks.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How uploads get their names, for the log.
    pub fn naming(&self) -> &'static str {
        self.naming.text()
    }

    /// Sets the modes of new files and folders.
    pub fn set_modes(&mut self, file_mode: u32, dir_mode: u32) {
        self.modes.file = file_mode;
        self.modes.folder = dir_mode;
    }

    /// The mode of a new file or folder, with access for the group if the store is shared with it.
    pub(super) fn mode(&self, mode: u32) -> u32 {
        match self.modes.shared {
            true => sys::for_group_too(mode),
            false => mode,
        }
    }

    /// Sets which removed paths get a tombstone.
    pub fn set_tombstone_policy(&mut self, policy: TombstonePolicy, now: Instant) {
        self.tombstones.policy = policy;
        // An earlier process may have recorded some.
        let until = self.has_tombstones().then(|| now + policy.slot_life);
        // Slots that were issued before a reload may be valid for longer.
        self.tombstones.own_until = until.max(self.tombstones.own_until);
    }

    /// Whether one of upslot's own slots may be valid whose path has a tombstone.
    pub fn may_have_own_tombstones(&self, now: Instant) -> bool {
        self.tombstones.own_until.is_some_and(|until| now <= until)
    }

    /// How modification times are interpreted.
    pub fn times(&self) -> &FileTimes {
        &self.file_clock.times
    }

    /// Sets how modification times are interpreted. `jumped` says that the clock has jumped, so that uploads in progress
    /// have wrong times.
    pub fn set_times(&mut self, times: FileTimes, jumped: bool) {
        let clock = &mut self.file_clock;
        clock.times = times;
        clock.jumps = clock.jumps.wrapping_add(u32::from(jumped));
    }

    /// A number that changes when files that are open may have been deleted.
    pub fn removals(&self) -> u64 {
        self.removals.count
    }

    /// Another process has removed files: open files may be deleted, and upslot's own slots may have tombstones.
    pub fn removed_elsewhere(&mut self, now: Instant) {
        self.removals.count += 1;
        let Tombstones { policy, own_until } = &mut self.tombstones;
        *own_until = (*own_until).max(Some(now + policy.slot_life));
    }

    /// Logs a problem with one file that is likely to occur with many: the first time as a warning.
    fn warn_limited(&mut self, what: &str, path: &StorePath, error: &io::Error, now: Instant) {
        let why = error.to_string();
        let kind = format!("{what}: {why}");
        let level = match self.repeat_limiter.should_log(&kind, now) {
            true => log::Level::Warn,
            false => log::Level::Debug,
        };
        log::log!(level, "{what} path={path:?} why={why:?}");
    }

    /// Reads a small file of the internal folder; `None` when there is none.
    pub fn read_internal(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match sys::open_below(self.internal.as_fd(), name.as_bytes()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; 4096];
        let length = sys::read_at(&file, &mut bytes, 0)?;
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Writes a small secret file of the internal folder atomically and durably; fails if it exists. Only this user can
    /// read it, unless the store is shared with the group.
    pub fn write_internal(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}{UNFINISHED}");
        let _ = sys::remove_file(&self.internal, temporary.as_bytes());
        let file = sys::open_new(&self.internal, temporary.as_bytes(), self.mode(0o600))?;
        sys::write_all(&file, bytes)?;
        rustix::fs::fsync(&file)?;
        let linked = sys::hard_link(
            &self.internal,
            temporary.as_bytes(),
            &self.internal,
            name.as_bytes(),
        );
        sys::remove_file(&self.internal, temporary.as_bytes())?;
        linked?;
        rustix::fs::fsync(&self.internal)?;
        rustix::fs::fsync(&self.root)?;
        Ok(())
    }

    /// The generated key that signs slots; `None` if there is none, or not all of it.
    pub fn slot_secret(&self) -> io::Result<Option<Vec<u8>>> {
        let secret = self.read_internal(Store::SLOT_SECRET)?;
        Ok(secret.filter(|secret| secret.len() >= SLOT_SECRET_LENGTH))
    }

    /// Opens a file to be served; `None` if there is none of that name.
    pub fn download(&self, path: &StorePath) -> io::Result<Option<Download>> {
        let file = match sys::open_below(self.root(), path.as_bytes()) {
            Ok(file) => file,
            Err(error) if sys::is_store_error(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        let stat = sys::stat_open(&file)?;
        if stat.kind != FileKind::File {
            return Ok(None);
        }
        Ok(Some(Download {
            content_type: sys::mime_type(&file),
            file,
            size: stat.size,
            modified: stat.modified,
        }))
    }

    /// Whether an open text is UTF-8: as determined when it was stored, else judging by samples.
    pub fn is_utf8(&self, text: &Download) -> bool {
        if let Some(kept) = sys::is_kept_as_utf8(&text.file) {
            return kept;
        }
        let mut buffer = [0; charset::SAMPLE_SIZE];
        charset::sample_offsets(text.size).all(|start| {
            let length = usize::try_from(text.size - start)
                .map_or(buffer.len(), |rest| rest.min(buffer.len()));
            let piece = &mut buffer[..length];
            let last = start + length as u64 == text.size;
            // Without a complete sample no charset is claimed.
            sys::read_at(&text.file, piece, start).is_ok_and(|read| read == length)
                && charset::may_be_utf8(piece, start == 0, last)
        })
    }

    /// Whether the slot with this path is used.
    pub fn exists(&self, path: &StorePath) -> io::Result<bool> {
        sys::exists_below(self.root(), path.as_bytes())
    }

    /// Free bytes of the disk, minus what uploads in progress will still write; at most a second old.
    pub fn free_space(&mut self, now: Instant) -> Option<u64> {
        let free = self.space(now)?.bytes;
        Some(free.saturating_sub(self.disk.unwritten))
    }

    /// Free space of the disk; at most a second old.
    pub fn space(&mut self, now: Instant) -> Option<Space> {
        let fresh = self
            .disk
            .space
            .filter(|(at, _)| now.saturating_duration_since(*at) < LOOK_INTERVAL);
        match fresh {
            Some((_, space)) => Some(space),
            None => {
                let space = sys::space(&self.root).ok()?;
                self.disk.space = Some((now, space));
                Some(space)
            }
        }
    }

    /// The number of free inodes and the required minimum, if there are too few; at most a second old.
    pub fn lacks_inodes(&mut self, now: Instant) -> Option<(u64, u64)> {
        let Space {
            inodes,
            least_inodes,
            ..
        } = self.space(now)?;
        Some((inodes?, least_inodes)).filter(|(free, least)| free < least)
    }

    /// Whether the disk has room for a file of this size, including quotas of the file system. Leaves nothing behind.
    pub fn has_room(&mut self, bytes: u64) -> io::Result<bool> {
        let free = sys::space(&self.root)?;
        if free.bytes.saturating_sub(self.disk.unwritten) < bytes {
            return Ok(false);
        }
        let upload = self.begin(0)?;
        let set_aside = sys::set_aside(upload.file(), bytes);
        self.end(upload);
        match set_aside {
            Err(error) if sys::is_full(&error) => Ok(false),
            // If this cannot be determined, the next upload will show it.
            other => other.map(|_| true),
        }
    }

    /// The kind of the file that occupies the owner folder's name, if it is not a folder.
    pub fn stranger_at(&self, path: &StorePath) -> Option<FileKind> {
        let stat = sys::stat_at(&self.root, path.owner_folder()).ok()?;
        (stat.kind != FileKind::Folder).then_some(stat.kind)
    }

    /// Whether there is an owner folder of this name, so that there may be files of the owner.
    pub fn has_owner(&self, folder: &str) -> bool {
        sys::stat_at(&self.root, folder.as_bytes()).is_ok_and(|stat| stat.kind == FileKind::Folder)
    }

    /// Whether the storage folder no longer exists.
    pub fn is_gone(&self) -> bool {
        let gone = |looked: io::Result<sys::FileStat>| {
            looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        gone(sys::stat(&self.path))
    }

    /// The path of the storage folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
