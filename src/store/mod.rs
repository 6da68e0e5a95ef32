//! The store: files below `storage_path`, in reading order:
//!
//! - `mod.rs` opens the root, finds files beneath it;
//! - [`upload`] a body on its way into an unnamed file, and the moment that it gets its name;
//! - [`walk`] files of one owner, one entry at a time;
//! - [`usage`] bytes per owner and in all;
//! - [`tombstones`] paths that must not come back; [`journal`] what other processes removed; [`aliases`] slots that another
//!   server named;
//! - [`records`] what is to be known of the clock after a restart;
//! - [`removal`] how files are deleted, whatever the cause;
//! - [`trim`] removes an owner's oldest files;
//! - [`sweep`] removes what has expired.
//!
//! Only the tree itself is kept on disk: no index, no database. Everything that walks does so in slices.

pub mod aliases;
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
use crate::repeat_limiter::RepeatLimiter;
use crate::store::removal::TombstonePolicy;
use crate::sys::{self, FileKind, Space};

/// How often free space and the root's identity are looked at anew.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How names of internal files end until the files are whole.
const UNFINISHED: &str = ".new";

/// How an upload gets its name; found out once, at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// An unnamed file, linked by its descriptor.
    Descriptor,
    /// An unnamed file, linked through `/proc`.
    Proc,
    /// A file with a temporary name in the internal folder, for file systems without unnamed files.
    Temporary,
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    root: OwnedFd,
    internal: OwnedFd,
    naming: Naming,
    file_mode: u32,
    dir_mode: u32,
    /// Whether a process under another number must be able to go on here; see [`sys::is_shared_by_group`].
    shared: bool,
    /// Number of the next temporary name.
    serial: u64,
    /// Bytes that uploads under way will still write.
    unwritten: u64,
    tombstone_policy: TombstonePolicy,
    /// The time until which one of upslot's own slots may be valid whose path has a tombstone.
    own_tombstones_until: Option<Instant>,
    /// See [`Store::removals`].
    removals: u64,
    journal: journal::Reader,
    times: FileTimes,
    /// How often the times of files that were stored before have become wrong.
    jumps: u32,
    free: Option<(Instant, Space)>,
    root_seen: Option<Instant>,
    repeat_limiter: RepeatLimiter,
}

/// A file that is being served.
#[derive(Debug)]
pub struct Download {
    pub file: OwnedFd,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// What the extended attribute tells.
    pub content_type: Option<String>,
}

impl Store {
    /// The root, for walks.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How uploads get their names; for the log.
    pub fn naming(&self) -> &'static str {
        match self.naming {
            Naming::Descriptor => "unnamed files",
            Naming::Proc => "unnamed files through /proc",
            Naming::Temporary => "temporary names",
        }
    }

    /// Takes modes that changed.
    pub fn set_modes(&mut self, file_mode: u32, dir_mode: u32) {
        self.file_mode = file_mode;
        self.dir_mode = dir_mode;
    }

    /// The mode of something new: for the group, too, where the store is shared with it.
    pub(super) fn mode(&self, mode: u32) -> u32 {
        match self.shared {
            true => sys::for_group_too(mode),
            false => mode,
        }
    }

    /// Sets which removed paths get a tombstone.
    pub fn set_tombstone_policy(&mut self, policy: TombstonePolicy, now: Instant) {
        self.tombstone_policy = policy;
        // An earlier process may have recorded some.
        let until = self.has_tombstones().then(|| now + policy.slot_life);
        // Slots that were issued before a reload may be valid for longer.
        self.own_tombstones_until = until.max(self.own_tombstones_until);
    }

    /// Whether one of upslot's own slots may be valid whose path has a tombstone.
    pub fn may_have_own_tombstones(&self, now: Instant) -> bool {
        self.own_tombstones_until.is_some_and(|until| now <= until)
    }

    /// What the modification times of files mean.
    pub fn times(&self) -> &FileTimes {
        &self.times
    }

    /// From now on modification times mean this. `jumped` when the clock has jumped, which uploads under way have not
    /// noticed.
    pub fn set_times(&mut self, times: FileTimes, jumped: bool) {
        self.times = times;
        self.jumps = self.jumps.wrapping_add(u32::from(jumped));
    }

    /// Another number than before when files may be gone that could be opened until then.
    pub fn removals(&self) -> u64 {
        self.removals
    }

    /// Another process removed files: what is open may be gone, and a slot of our own may be used whose file is.
    pub fn removed_elsewhere(&mut self, now: Instant) {
        self.removals += 1;
        self.own_tombstones_until = self
            .own_tombstones_until
            .max(Some(now + self.tombstone_policy.slot_life));
    }

    /// Logs what concerns one file and is likely to concern many: the first of them as a warning.
    fn warn_limited(&mut self, what: &str, path: &StorePath, error: &io::Error) {
        let why = error.to_string();
        let news = format!("{what}: {why}");
        let level = match self.repeat_limiter.should_log(&news, sys::monotonic()) {
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

    /// Writes a small secret file of the internal folder, at once and durably; fails where there is one. It is for this
    /// user alone, unless the store is shared with the group.
    pub fn write_internal(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}{UNFINISHED}");
        let _ = sys::remove_file(&self.internal, temporary.as_bytes());
        let file = sys::open_new(&self.internal, temporary.as_bytes(), self.mode(0o600))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[sys::write(&file, rest)?..];
        }
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

    /// Opens a file to be served; `None` when nothing of that name may be.
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

    /// Whether a text that is open is UTF-8: as was found when it was stored, else as a few pieces of it look.
    pub fn is_utf8(&self, text: &Download) -> bool {
        if let Some(kept) = sys::is_kept_as_utf8(&text.file) {
            return kept;
        }
        let mut buffer = [0; charset::PIECE];
        charset::pieces(text.size).all(|start| {
            let length = usize::try_from(text.size - start)
                .map_or(buffer.len(), |rest| rest.min(buffer.len()));
            let piece = &mut buffer[..length];
            let last = start + length as u64 == text.size;
            // What cannot be read, or is shorter by now, is not labelled.
            sys::read_at(&text.file, piece, start).is_ok_and(|read| read == length)
                && charset::may_be_utf8(piece, start == 0, last)
        })
    }

    /// Whether the slot with this path is used.
    pub fn exists(&self, path: &StorePath) -> io::Result<bool> {
        sys::exists_below(self.root(), path.as_bytes())
    }

    /// Free bytes of the disk, less what uploads under way will still write; at most a second old.
    pub fn free_space(&mut self, now: Instant) -> Option<u64> {
        let free = self.space(now)?.bytes;
        Some(free.saturating_sub(self.unwritten))
    }

    /// What the disk has left; at most a second old.
    pub fn space(&mut self, now: Instant) -> Option<Space> {
        let fresh = self
            .free
            .filter(|(at, _)| now.saturating_duration_since(*at) < LOOK_INTERVAL);
        match fresh {
            Some((_, space)) => Some(space),
            None => {
                let space = sys::space(&self.root).ok()?;
                self.free = Some((now, space));
                Some(space)
            }
        }
    }

    /// Free inodes and how many there must be, when there are too few; at most a second old.
    pub fn lacks_inodes(&mut self, now: Instant) -> Option<(u64, u64)> {
        let Space {
            inodes,
            least_inodes,
            ..
        } = self.space(now)?;
        Some((inodes?, least_inodes)).filter(|(free, least)| free < least)
    }

    /// Whether a file of so many bytes has room, quotas of the file system included. Nothing of it stays.
    pub fn has_room(&mut self, bytes: u64) -> io::Result<bool> {
        let free = sys::space(&self.root)?;
        if free.bytes.saturating_sub(self.unwritten) < bytes {
            return Ok(false);
        }
        let upload = self.begin(0)?;
        let set_aside = sys::set_aside(upload.file(), bytes);
        self.end(upload);
        match set_aside {
            Err(error) if sys::is_full(&error) => Ok(false),
            // What cannot be asked is found out by the next upload.
            other => other.map(|_| true),
        }
    }

    /// What stands in the place of the owner's folder, if it is something else than a folder.
    pub fn stranger_at(&self, path: &StorePath) -> Option<FileKind> {
        let stat = sys::stat_at(&self.root, path.owner_folder()).ok()?;
        (stat.kind != FileKind::Folder).then_some(stat.kind)
    }

    /// Whether the storage folder is not there any more.
    pub fn is_gone(&self) -> bool {
        let gone = |looked: io::Result<sys::FileStat>| {
            looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        gone(sys::stat(&self.path))
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
