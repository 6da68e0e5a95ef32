//! The store: files below `storage_path`, in reading order:
//!
//! - `mod.rs` opens the root, finds files beneath it;
//! - [`upload`] a body on its way into an unnamed file, and the moment that it gets its name;
//! - [`walk`] files of one owner, one entry at a time;
//! - [`usage`] bytes per owner and in all;
//! - [`tombstones`] paths that must not come back; [`journal`] what other processes removed; [`aliases`] slots that another
//!   server named;
//! - [`records`] what is to be known of the clock after a restart;
//! - [`trim`] removes an owner's oldest files;
//! - [`sweep`] removes what has expired.
//!
//! Only the tree itself is kept on disk: no index, no database. Everything that walks does so in slices.

pub mod aliases;
pub mod journal;
pub mod records;
pub mod sweep;
pub mod tombstones;
pub mod trim;
pub mod upload;
pub mod usage;
pub mod walk;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use crate::clock::FileTimes;
use crate::expiry;
use crate::http::charset;
use crate::layout::{INTERNAL, StorePath};
use crate::repeat_limiter::RepeatLimiter;
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
    /// Whether removed paths of other making are remembered.
    records_foreign: bool,
    /// How long a slot of our own is good: the path of a file that is removed younger than that is remembered, too.
    slot_life: Duration,
    /// Until when a slot of our own may be good whose path is remembered.
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

/// Why the store cannot be used; a message for the operator.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Opens the store, makes what is missing, and tries out that files can be made, named and removed.
    pub fn open(path: &Path, file_mode: u32, dir_mode: u32) -> Result<Store, StoreError> {
        let fault = |what: &str, error: io::Error| {
            StoreError(format!(
                "storage_path {}: cannot {what} as user {}: {error}.",
                path.display(),
                sys::user()
            ))
        };
        if !path.exists() {
            make_root(path).map_err(|e| fault("make the folder", e))?;
        }
        let root = sys::open_root(path).map_err(|e| fault("open the folder", e))?;
        let shared = sys::is_shared_by_group(&root);
        sys::create_folder(&root, INTERNAL.as_bytes(), 0o700)
            .map_err(|e| fault("make .upslot in it", e))?;
        let internal = sys::open_folder_below(root.as_fd(), INTERNAL.as_bytes())
            .map_err(|e| fault("open .upslot in it", e))?;
        if shared {
            sys::share_with_group(&internal)
                .map_err(|e| fault("give the group a right to .upslot in it", e))?;
        }
        let mut store = Store {
            path: path.to_owned(),
            root,
            internal,
            naming: Naming::Temporary,
            file_mode,
            dir_mode,
            shared,
            serial: 0,
            unwritten: 0,
            records_foreign: false,
            slot_life: Duration::ZERO,
            own_tombstones_until: None,
            removals: 0,
            journal: journal::Reader::default(),
            times: FileTimes::default(),
            jumps: 0,
            free: None,
            root_seen: None,
            repeat_limiter: RepeatLimiter::default(),
        };
        store.remove_leftovers();
        store
            .adopt_old_tombstones()
            .map_err(|e| fault("take over .upslot/gone of an earlier version in it", e))?;
        store.naming = store
            .probe_naming()
            .map_err(|e| fault("write into it", e))?;
        Ok(store)
    }

    /// Opens the store beside an upslot that may be running: nothing is tried out or tidied up, and unless it `changes`
    /// something nothing is made. `None` when there is no storage folder.
    pub fn open_beside(path: &Path, changes: bool) -> Result<Option<Store>, StoreError> {
        let fault = |what: &str, error: io::Error| {
            StoreError(format!(
                "storage_path {}: cannot {what} as user {}: {error}.",
                path.display(),
                sys::user()
            ))
        };
        let root = match sys::open_root(path) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault("open the folder", error)),
        };
        let internal = match changes {
            true => sys::owner_of(&root)
                .and_then(|owner| journal::make_owned(root.as_fd(), INTERNAL.as_bytes(), owner)),
            false => match sys::open_folder_below(root.as_fd(), INTERNAL.as_bytes()) {
                // Nothing is found in what is no folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::File::open("/dev/null").map(OwnedFd::from)
                }
                opened => opened,
            },
        };
        let internal = internal.map_err(|error| fault("open .upslot in it", error))?;
        Ok(Some(Store {
            shared: sys::is_shared_by_group(&root),
            path: path.to_owned(),
            root,
            internal,
            naming: Naming::Temporary,
            file_mode: 0,
            dir_mode: 0,
            serial: 0,
            unwritten: 0,
            records_foreign: true,
            slot_life: Duration::ZERO,
            own_tombstones_until: None,
            removals: 0,
            journal: journal::Reader::default(),
            times: FileTimes::default(),
            jumps: 0,
            free: None,
            root_seen: None,
            repeat_limiter: RepeatLimiter::default(),
        }))
    }

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

    /// From now on removed paths of other making are remembered if `records_foreign`, because a signature could bring them back;
    /// and those of our own while a slot that is good for `slot_life` could.
    pub fn set_tombstone_policy(&mut self, records_foreign: bool, slot_life: Duration) {
        self.records_foreign = records_foreign;
        self.slot_life = slot_life;
        // A process before this one may have removed some.
        let until = self.has_tombstones().then(|| sys::monotonic() + slot_life);
        // Slots that were given before a reload may be good for longer.
        self.own_tombstones_until = until.max(self.own_tombstones_until);
    }

    /// Whether a slot of our own may be good whose path is remembered: else nobody need look.
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
        self.own_tombstones_until = self.own_tombstones_until.max(Some(now + self.slot_life));
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

    /// A file is about to be removed for good.
    fn before_removal(&mut self, path: &StorePath, modified: SystemTime) {
        self.removals += 1;
        if self.needs_tombstone(path, modified) {
            if let Err(error) = self.record_tombstone(path) {
                self.warn_limited("path not remembered", path, &error);
            }
        }
    }

    /// Whether somebody may hold a right to store a path that does not end with its file, which was stored then.
    pub(super) fn needs_tombstone(&mut self, path: &StorePath, modified: SystemTime) -> bool {
        if path.tag().is_none() {
            return self.records_foreign;
        }
        // The slot was handed out before the file was stored.
        let now = sys::now();
        let stored = self.times.stored(modified);
        let age = now.wall.duration_since(stored).unwrap_or_default();
        // A path that tells its end is refused from then on.
        let over = expiry::hard_end(path.tag()).is_some_and(|end| end <= now.wall);
        let young = age <= self.slot_life && !over;
        if young {
            self.own_tombstones_until = Some(now.mono + self.slot_life);
        }
        young
    }

    /// Remembers the path of a file that is to go, if need be, and returns what has to be synced for that to last. What
    /// cannot be remembered is told when the file goes.
    pub fn record_tombstone_before_removal(
        &mut self,
        path: &StorePath,
        modified: SystemTime,
    ) -> Vec<OwnedFd> {
        if !self.needs_tombstone(path, modified) || self.record_tombstone(path).is_err() {
            return Vec::new();
        }
        self.tombstone_folders([path]).unwrap_or_default()
    }

    /// Removes a file whose path was recorded if need be, and what leads to it under another name; false when there is
    /// none.
    pub fn unlink(&mut self, path: &StorePath) -> io::Result<bool> {
        let removed = self.take_out(path, |_, _| {})?;
        if removed {
            self.blank_alias(path);
        }
        Ok(removed)
    }

    /// The folder of a file.
    pub fn folder_of(&self, path: &StorePath) -> io::Result<OwnedFd> {
        sys::open_folder_below(self.root(), path.folder())
    }

    /// Removes a file and the folders that it leaves empty; false when there is none.
    pub fn remove(&mut self, path: &StorePath) -> io::Result<bool> {
        self.take_out(path, |store, modified| store.before_removal(path, modified))
    }

    /// The same; what has to come before is told when the file was stored.
    fn take_out(
        &mut self,
        path: &StorePath,
        before: impl FnOnce(&mut Store, SystemTime),
    ) -> io::Result<bool> {
        let opened = sys::open_folder_below(self.root(), path.folder());
        let removed = opened.and_then(|folder| {
            let stat = sys::stat_at(&folder, path.name())?;
            if stat.kind != FileKind::File {
                return Err(io::ErrorKind::NotFound.into());
            }
            before(self, stat.modified);
            sys::remove_file(&folder, path.name())
        });
        match removed {
            Ok(()) => {
                self.remove_empty_folders(path);
                Ok(true)
            }
            // Nor is there one behind a link, or behind what is no folder.
            Err(error) if sys::is_no_folder(&error) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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
        let mut buffer = [0; charset::SAMPLE_SIZE];
        charset::sample_offsets(text.size).all(|start| {
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

    /// Notices a root that was removed, renamed or mounted over, at most once a second: what then stands at
    /// `storage_path` is taken. True when it was replaced.
    pub fn check_root(&mut self, now: Instant) -> bool {
        if self
            .root_seen
            .is_some_and(|at| now.saturating_duration_since(at) < LOOK_INTERVAL)
        {
            return false;
        }
        self.root_seen = Some(now);
        let (Ok(held), Ok(found)) = (sys::stat_open(&self.root), sys::stat(&self.path)) else {
            return false;
        };
        if held.identity == found.identity {
            return false;
        }
        match Store::open(&self.path, self.file_mode, self.dir_mode) {
            Ok(opened) => {
                log::warn!("storage folder replaced path={}", self.path.display());
                let before = std::mem::replace(self, opened);
                self.unwritten = before.unwritten;
                self.set_tombstone_policy(before.records_foreign, before.slot_life);
                self.removals = before.removals + 1;
                self.times = before.times;
                self.jumps = before.jumps;
                self.root_seen = Some(now);
                true
            }
            Err(error) => {
                let why = error.to_string();
                if self.repeat_limiter.should_log(&why, now) {
                    log::error!("storage folder replaced by one that cannot be used why={why:?}");
                }
                false
            }
        }
    }

    /// Removes temporary files of a process that died.
    fn remove_leftovers(&self) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.internal) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            let unfinished = name.ends_with(UNFINISHED.as_bytes());
            let temporary = unfinished || name.starts_with(upload::TEMPORARY.as_bytes());
            if temporary && sys::remove_file(&self.internal, name).is_err() {
                let _ = sys::remove_folder(&self.internal, name);
            }
        }
    }

    /// Finds out how files get their names here, by making one, naming it and removing it again.
    fn probe_naming(&self) -> io::Result<Naming> {
        let name = format!("{}try-{}", upload::TEMPORARY, std::process::id());
        let name = name.as_bytes();
        let linked = |file: &OwnedFd, link: fn(&OwnedFd, &OwnedFd, &[u8]) -> io::Result<()>| {
            let linked = link(file, &self.internal, name).is_ok();
            linked && sys::remove_file(&self.internal, name).is_ok()
        };
        match sys::open_unnamed(&self.root, 0o600) {
            Ok(file) if linked(&file, |f, d, n| sys::link_descriptor(f, d, n)) => {
                return Ok(Naming::Descriptor);
            }
            Ok(file) if linked(&file, |f, d, n| sys::link_through_proc(f, d, n)) => {
                return Ok(Naming::Proc);
            }
            Ok(_) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
                _ => return Err(error),
            },
        }
        let file = sys::open_new(&self.internal, name, 0o600)?;
        let second = [name, b"-2"].concat();
        let linked = sys::hard_link(&self.internal, name, &self.internal, &second);
        drop(file);
        sys::remove_file(&self.internal, name)?;
        linked?;
        sys::remove_file(&self.internal, &second)?;
        Ok(Naming::Temporary)
    }
}

/// Makes the root with all that is missing above it, to last: what a power cut takes away takes the files in it along.
fn make_root(path: &Path) -> io::Result<()> {
    let named = |folder: &&Path| !folder.as_os_str().is_empty();
    let missing = path.ancestors().filter(named);
    let missing: Vec<&Path> = missing.take_while(|folder| !folder.exists()).collect();
    std::fs::create_dir_all(path)?;
    // From the outside in, so that each finds its parent shared.
    for folder in missing.iter().rev() {
        let parent = folder.parent().filter(named).unwrap_or(Path::new("."));
        if sys::open_root(parent).is_ok_and(sys::is_shared_by_group) {
            sys::share_with_group(sys::open_root(folder)?)?;
        }
    }
    for folder in missing {
        let parent = folder.parent().filter(named).unwrap_or(Path::new("."));
        // Who may make a folder there need not be allowed to open what is above it.
        if let Ok(opened) = sys::open_root(parent) {
            rustix::fs::fsync(&opened)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
