//! Opening the store: the storage folder, its internal folder, and how uploads get their names there.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;

use crate::layout::INTERNAL;
use crate::log_limiter::RepeatLimiter;
use crate::store::{
    Disk, FileClock, LOOK_INTERVAL, Modes, Naming, Removals, Store, Tombstones, UNFINISHED,
    journal, upload,
};
use crate::sys;

/// Why the store cannot be used; a message for the operator.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StoreError {
    fn new(path: &Path, action: &str, error: &io::Error) -> StoreError {
        StoreError(format!(
            "storage_path {}: cannot {action} as user {}: {error}.",
            path.display(),
            sys::user()
        ))
    }
}

impl Store {
    /// A store with these open folders, of which nothing else is known yet.
    fn new(path: &Path, root: OwnedFd, internal: OwnedFd) -> Store {
        Store {
            path: path.to_owned(),
            modes: Modes {
                file: 0,
                folder: 0,
                shared: sys::is_shared_by_group(&root),
            },
            root,
            internal,
            naming: Naming::Temporary,
            serial: 0,
            disk: Disk::default(),
            tombstones: Tombstones::default(),
            removals: Removals::default(),
            file_clock: FileClock::default(),
            root_seen: None,
            repeat_limiter: RepeatLimiter::default(),
        }
    }

    /// Opens the store, creates missing folders, and checks that files can be created, named and removed.
    pub fn open(path: &Path, file_mode: u32, dir_mode: u32) -> Result<Store, StoreError> {
        let fail = |action: &str, error: io::Error| StoreError::new(path, action, &error);
        if !path.exists() {
            make_root(path).map_err(|e| fail("create the folder", e))?;
        }
        let root = sys::open_root(path).map_err(|e| fail("open the folder", e))?;
        sys::create_folder(&root, INTERNAL.as_bytes(), 0o700)
            .map_err(|e| fail("create .upslot in it", e))?;
        let internal = sys::open_folder_below(root.as_fd(), INTERNAL.as_bytes())
            .map_err(|e| fail("open .upslot in it", e))?;
        if sys::is_shared_by_group(&root) {
            sys::share_with_group(&internal)
                .map_err(|e| fail("give the group access to .upslot in it", e))?;
        }
        let mut store = Store::new(path, root, internal);
        store.set_modes(file_mode, dir_mode);
        store.remove_leftovers();
        store
            .adopt_old_tombstones()
            .map_err(|e| fail("take over .upslot/gone of an earlier version in it", e))?;
        store.naming = store.probe_naming().map_err(|e| fail("write into it", e))?;
        Ok(store)
    }

    /// Opens the store while another upslot may be running: nothing is checked or cleaned up, and missing folders are
    /// only created if the caller `changes` the store. `None` if there is no storage folder.
    pub fn open_beside(path: &Path, changes: bool) -> Result<Option<Store>, StoreError> {
        let fail = |action: &str, error: io::Error| StoreError::new(path, action, &error);
        let root = match sys::open_root(path) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail("open the folder", error)),
        };
        let internal = match changes {
            true => sys::owner_of(&root)
                .and_then(|owner| journal::make_owned(root.as_fd(), INTERNAL.as_bytes(), owner)),
            false => match sys::open_folder_below(root.as_fd(), INTERNAL.as_bytes()) {
                // Lookups in something that is not a folder find nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::File::open("/dev/null").map(OwnedFd::from)
                }
                opened => opened,
            },
        };
        let internal = internal.map_err(|error| fail("open .upslot in it", error))?;
        Ok(Some(Store::new(path, root, internal)))
    }

    /// Prepares a store opened with [`Store::open_beside`] for new files.
    pub fn prepare_uploads(&mut self, file_mode: u32, dir_mode: u32) -> Result<(), StoreError> {
        self.set_modes(file_mode, dir_mode);
        self.naming = self
            .probe_naming()
            .map_err(|error| StoreError::new(&self.path, "write into it", &error))?;
        Ok(())
    }

    /// Checks at most once a second whether the storage folder was removed, renamed or mounted over, and then opens the
    /// one that is now at `storage_path`. True if it was replaced.
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
        match Store::open(&self.path, self.modes.file, self.modes.folder) {
            Ok(opened) => {
                log::warn!("storage folder replaced path={}", self.path.display());
                let before = std::mem::replace(self, opened);
                self.disk.unwritten = before.disk.unwritten;
                self.set_tombstone_policy(before.tombstones.policy, now);
                self.removals.count = before.removals.count + 1;
                self.file_clock = before.file_clock;
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
    pub(super) fn remove_leftovers(&self) {
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

    /// Determines how files can be named on this file system, by creating, naming and removing one.
    pub fn probe_naming(&self) -> io::Result<Naming> {
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

/// Whether files can have extended attributes of users, which keep their types. Leaves nothing behind.
pub fn has_attributes(store: &mut Store) -> io::Result<bool> {
    let upload = store.begin(0)?;
    let set = sys::set_mime_type(upload.file(), "text/plain");
    store.end(upload);
    set
}

/// Creates the storage folder and missing folders above it durably: a folder lost in a power cut would take its files
/// along.
fn make_root(path: &Path) -> io::Result<()> {
    let named = |folder: &&Path| !folder.as_os_str().is_empty();
    let missing = path.ancestors().filter(named);
    let missing: Vec<&Path> = missing.take_while(|folder| !folder.exists()).collect();
    std::fs::create_dir_all(path)?;
    // From the outside in, so that each folder's parent is shared already.
    for folder in missing.iter().rev() {
        let parent = folder.parent().filter(named).unwrap_or(Path::new("."));
        if sys::open_root(parent).is_ok_and(sys::is_shared_by_group) {
            sys::share_with_group(sys::open_root(folder)?)?;
        }
    }
    for folder in missing {
        let parent = folder.parent().filter(named).unwrap_or(Path::new("."));
        // A process that may create a folder there may not be allowed to open the parent.
        if let Ok(opened) = sys::open_root(parent) {
            rustix::fs::fsync(&opened)?;
        }
    }
    Ok(())
}
