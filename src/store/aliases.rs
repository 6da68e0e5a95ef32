//! Slots that another server named: from a slot's name to the path of its file.
//!
//! Prosody's external file share gives a GET URL that holds only the slot and a cosmetic file name; the file itself
//! is in its uploader's folder, so that it is counted and expires like any other. The alias is a symbolic link in the
//! internal folder whose target is the path; it is only read, never followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;

use crate::layout::{StorePath, slot_digest};
use crate::store::{Store, UNFINISHED};
use crate::sys;

/// How long an alias is kept after its slot was used; a token is valid for some minutes.
const KEPT: Duration = Duration::from_secs(86_400);

/// The folder in the internal folder.
const FOLDER: &[u8] = b"share";

impl Store {
    /// The path of the file that was stored for a slot.
    pub fn alias(&self, slot: &[u8]) -> Option<StorePath> {
        let folder = sys::open_folder_below(self.internal.as_fd(), FOLDER).ok()?;
        let target = sys::read_symlink(&folder, name(slot).as_bytes()).ok()?;
        StorePath::from_segments(target.split(|b| *b == b'/'))
    }

    /// Records where the file of a slot is, and replaces an earlier record. Returns the folders whose entries have
    /// changed, from the outside in.
    pub fn set_alias(&self, slot: &[u8], path: &StorePath) -> io::Result<Vec<OwnedFd>> {
        let mut changed = Vec::new();
        if sys::create_folder(&self.internal, FOLDER, self.mode(0o700))? {
            changed.push(self.internal.try_clone()?);
        }
        let folder = sys::open_folder_below(self.internal.as_fd(), FOLDER)?;
        let name = name(slot);
        if let Err(error) = sys::create_symlink(&folder, name.as_bytes(), path.as_bytes()) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            sys::remove_file(&folder, name.as_bytes())?;
            sys::create_symlink(&folder, name.as_bytes(), path.as_bytes())?;
        }
        changed.push(folder);
        Ok(changed)
    }

    /// Erases the path from the alias of a removed file, which would reveal owner and name; the slot still counts as
    /// used.
    pub fn blank_alias(&self, path: &StorePath) {
        let Some(digest) = path
            .segments()
            .nth(1)
            .and_then(|s| s.split(|b| *b == b'~').next())
        else {
            return;
        };
        let Ok(folder) = sys::open_folder_below(self.internal.as_fd(), FOLDER) else {
            return;
        };
        if sys::read_symlink(&folder, digest).is_ok_and(|target| target == path.as_bytes()) {
            let temporary = [digest, UNFINISHED.as_bytes()].concat();
            let _ = sys::remove_file(&folder, &temporary);
            if sys::create_symlink(&folder, &temporary, b"removed/removed").is_ok() {
                let _ = sys::rename(&folder, &temporary, digest);
            }
        }
    }

    /// The entries for [`Store::drop_dead_alias`].
    pub(super) fn aliases(&self) -> Option<rustix::fs::Dir> {
        let folder = sys::open_folder_below(self.internal.as_fd(), FOLDER).ok()?;
        rustix::fs::Dir::new(folder).ok()
    }

    /// Removes the alias of a slot whose file could not be stored.
    pub fn drop_alias(&self, slot: &[u8]) {
        if let Ok(folder) = sys::open_folder_below(self.internal.as_fd(), FOLDER) {
            let _ = sys::remove_file(&folder, name(slot).as_bytes());
        }
    }

    /// Removes an alias whose file is deleted, once it is so old that no token for its slot can be valid.
    pub(super) fn drop_dead_alias(&self, name: &[u8], now: SystemTime) {
        let Ok(folder) = sys::open_folder_below(self.internal.as_fd(), FOLDER) else {
            return;
        };
        let old = sys::stat_at(&folder, name).is_ok_and(|stat| {
            stat.modified
                .checked_add(KEPT)
                .is_some_and(|until| until < now)
        });
        let Ok(target) = sys::read_symlink(&folder, name) else {
            return;
        };
        if old && sys::exists_below(self.root(), &target).is_ok_and(|exists| !exists) {
            let _ = sys::remove_file(&folder, name);
        }
    }
}

fn name(slot: &[u8]) -> String {
    BASE64URL_NOPAD.encode(&slot_digest(slot))
}
