//! Walks over the tree one entry at a time, so that the caller can pause after each of them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Dir, FileType, RawDir};
use rustix::io::Errno;

use crate::expiry::StoredFile;
use crate::layout::{MAX_DEPTH, StorePath, Tag, tag_of};
use crate::sys::{self, FileKind, FileStat};

/// Limits of walking per turn. A request waits for so long at most; the turns in between cost little.
const SLICE_ENTRIES: u32 = 1024;
const SLICE_TIME: Duration = Duration::from_millis(1);

/// How much of a folder is listed at a time: some hundred names; bytes.
const LISTING: usize = 32 * 1024;

/// The remaining allowance of a turn for walking: 1,024 entries or 1 ms, whichever is used up first.
#[derive(Debug)]
pub struct Slice {
    entries: u32,
    until: Instant,
    clock: fn() -> Instant,
}

impl Slice {
    /// A slice that begins now, by the monotonic clock.
    pub fn begin(clock: fn() -> Instant) -> Slice {
        Slice {
            entries: SLICE_ENTRIES,
            until: clock() + SLICE_TIME,
            clock,
        }
    }

    /// Takes one entry; false if the slice is used up.
    pub fn take(&mut self) -> bool {
        // On a cold disk an entry may take milliseconds, so the clock is read for each; that costs far less than a stat.
        if self.entries == 0 || (self.clock)() >= self.until {
            self.entries = 0;
            return false;
        }
        self.entries -= 1;
        true
    }
}

/// What a walk looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkMode {
    /// The names in the owner folder, and only files whose size no name tells. A name may be wrong: a crash may have
    /// left its folder without a file, and another program may have changed the file.
    Names,
    /// Every file.
    Files,
    /// Every file; empty folders are removed.
    Tidy,
    /// The same, but the caller decides which folders whose name tells a size to open; see [`Walk::enter`].
    Selective,
}

/// One step of a walk.
#[derive(Debug)]
pub enum WalkStep {
    File(StoredFile),
    /// The name of a folder tells that it holds a file of this size; only with [`WalkMode::Names`] and
    /// [`WalkMode::Selective`].
    Named(Tag, u64),
    /// Another entry, or the end of a folder.
    Other,
    /// The walk is over.
    Done,
}

/// A walk over the files of one owner folder.
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    path: Vec<u8>,
    mode: WalkMode,
    error: Option<io::Error>,
}

#[derive(Debug)]
struct Level {
    entries: Entries,
    /// Length of the folder's path.
    length: usize,
    /// Entries that were not removed.
    kept: usize,
}

impl Walk {
    /// Begins a walk over an owner folder.
    pub fn new(root: BorrowedFd<'_>, owner: &[u8], mode: WalkMode) -> io::Result<Walk> {
        let folder = sys::open_folder_below(root, owner)?;
        Ok(Walk {
            levels: vec![Level {
                entries: Entries::new(folder),
                length: owner.len(),
                kept: 0,
            }],
            path: owner.to_vec(),
            mode,
            error: None,
        })
    }

    /// Why the walk was not complete, if so.
    pub fn error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The next entry.
    pub fn step(&mut self, root: BorrowedFd<'_>) -> WalkStep {
        let Some(level) = self.levels.last_mut() else {
            return WalkStep::Done;
        };
        self.path.truncate(level.length);
        // An entry that cannot be read ends its folder: the next walk tries again.
        let (kind, name) = match level.entries.next() {
            Ok(Some(entry)) => entry,
            end => {
                // A folder that was removed meanwhile is empty.
                if let Some(error) = end.err().filter(|e| e.kind() != io::ErrorKind::NotFound) {
                    // There is at least one entry.
                    level.kept += 1;
                    self.error = Some(error);
                }
                self.leave(root);
                return WalkStep::Other;
            }
        };
        level.kept += 1;
        if name.starts_with(b".") {
            return WalkStep::Other;
        }
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        match kind {
            FileType::Directory => self.folder(),
            FileType::RegularFile | FileType::Unknown => match self.stat() {
                Ok(stat) if stat.kind == FileKind::File => self.file(stat),
                Ok(stat) if stat.kind == FileKind::Folder => self.folder(),
                Ok(_) => WalkStep::Other,
                Err(error) => {
                    if sys::is_store_error(&error) {
                        self.error = Some(error);
                    }
                    WalkStep::Other
                }
            },
            _ => WalkStep::Other,
        }
    }

    /// The metadata of the entry that the last step found.
    pub fn stat(&self) -> io::Result<FileStat> {
        let (folder, name) = self.entry()?;
        sys::stat_at(folder, name)
    }

    /// Sets the modification time of the file that the last step found.
    pub fn set_modified(&self, modified: SystemTime) -> io::Result<()> {
        let (folder, name) = self.entry()?;
        sys::set_modified_at(folder, name, modified)
    }

    /// Continues with the entries of the folder that the last step found.
    pub fn enter(&mut self) {
        let entry = self.entry();
        match entry.and_then(|(folder, name)| sys::open_folder_in(folder, name)) {
            Ok(folder) => self.levels.push(Level {
                entries: Entries::new(folder),
                length: self.path.len(),
                kept: 0,
            }),
            Err(error) if sys::is_store_error(&error) => self.error = Some(error),
            // A folder that upslot may not open is skipped.
            Err(_) => {}
        }
    }

    /// The step for a file.
    fn file(&self, stat: FileStat) -> WalkStep {
        // Every path in an owner folder is valid: hidden and deeper entries are skipped.
        let path = StorePath::from_segments(self.path.split(|b| *b == b'/'));
        path.map_or(WalkStep::Other, |path| {
            WalkStep::File(StoredFile {
                modified: stat.modified,
                path,
                size: stat.size,
            })
        })
    }

    /// The step for a folder.
    fn folder(&mut self) -> WalkStep {
        let depth = self.levels.len();
        if depth == 1 && matches!(self.mode, WalkMode::Names | WalkMode::Selective) {
            let tag = self.entry().ok().and_then(|(_, name)| tag_of(name));
            if let Some((tag, size)) = tag.and_then(|tag| Some((tag, tag.size?))) {
                return WalkStep::Named(tag, size);
            }
        }
        if depth + 1 < MAX_DEPTH {
            self.enter();
        }
        WalkStep::Other
    }

    /// The entry that the last step found: its name, and the folder that it is in.
    fn entry(&self) -> io::Result<(BorrowedFd<'_>, &[u8])> {
        let level = self.levels.last().ok_or(io::ErrorKind::NotFound)?;
        let name = self.path.get(level.length + 1..).unwrap_or_default();
        Ok((level.entries.folder.as_fd(), name))
    }

    fn leave(&mut self, root: BorrowedFd<'_>) {
        let Some(left) = self.levels.pop() else {
            return;
        };
        let tidies = matches!(self.mode, WalkMode::Tidy | WalkMode::Selective);
        if !tidies || left.kept > 0 {
            return;
        }
        let start = self.levels.last().map_or(0, |level| level.length + 1);
        let name = &self.path[start..left.length];
        let removed = match self.levels.last() {
            Some(level) => sys::remove_folder(&level.entries.folder, name),
            None => sys::remove_folder(root, name),
        };
        if let (Ok(true), Some(level)) = (removed, self.levels.last_mut()) {
            level.kept -= 1;
        }
    }
}

/// The entries of one folder, except itself and its parent.
#[derive(Debug)]
struct Entries {
    folder: OwnedFd,
    /// The kinds and names that were read last; the first `taken` are used up.
    read: Vec<(FileType, usize)>,
    taken: usize,
    /// The names, one after the other; each ends at its offset in `read`.
    names: Vec<u8>,
}

impl Entries {
    fn new(folder: OwnedFd) -> Entries {
        Entries {
            folder,
            read: Vec::new(),
            taken: 0,
            names: Vec::new(),
        }
    }

    /// Kind and name of the next entry; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(FileType, &[u8])>> {
        if self.taken == self.read.len() {
            self.read_more()?;
        }
        let Some((kind, end)) = self.read.get(self.taken) else {
            return Ok(None);
        };
        let start = match self.taken {
            0 => 0,
            taken => self.read[taken - 1].1,
        };
        self.taken += 1;
        Ok(Some((*kind, &self.names[start..*end])))
    }

    /// Replaces the entries by the next ones; none at the end of the folder.
    fn read_more(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.read.clear();
        self.names.clear();
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut listing = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry?,
            };
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                self.names.extend_from_slice(name);
                self.read.push((entry.file_type(), self.names.len()));
            }
            // The next entry would take another system call.
            if listing.is_buffer_empty() && !self.read.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// The owner folders below the root.
#[derive(Debug)]
pub struct Owners {
    entries: Dir,
    error: Option<io::Error>,
}

impl Owners {
    pub fn new(root: BorrowedFd<'_>) -> io::Result<Owners> {
        Ok(Owners {
            entries: Dir::read_from(root)?,
            error: None,
        })
    }

    /// Why the walk was not complete, if so.
    pub fn error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The next entry: `Some(Some(_))` an owner folder, `Some(None)` another entry, `None` the end.
    pub fn step(&mut self) -> Option<Option<Vec<u8>>> {
        let entry = self
            .entries
            .read()?
            .map_err(|error| self.error = Some(error.into()))
            .ok()?;
        let name = entry.file_name().to_bytes();
        let folder = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => self.entries.fd().is_ok_and(|root| {
                sys::stat_at(root.as_fd(), name).is_ok_and(|f| f.kind == FileKind::Folder)
            }),
            _ => false,
        };
        Some((folder && !name.starts_with(b".")).then(|| name.to_vec()))
    }
}
