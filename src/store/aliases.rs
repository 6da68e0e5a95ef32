//! Aliases: names that other servers gave to files, and the paths of these files.
//!
//! - A *slot* of Prosody's external file share: a GET URL holds only the slot and a cosmetic file name.
//! - An *old link*: the path that an imported file had at the program from which it was imported, see [`crate::import`].
//!
//! The file itself is in its owner's folder, so that it is counted and expires like any other. The alias is a symbolic
//! link in the internal folder whose target is the path; it is only read, never followed. Its name is a digest of the
//! foreign name, which is also the random part of the file's path.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;

use crate::layout::{self, LinkDigest, StorePath, slot_digest};
use crate::store::{Store, UNFINISHED};
use crate::sys;

/// How long the alias of a slot is kept after the slot was used; a token is valid for some minutes.
const KEPT: Duration = Duration::from_secs(86_400);

/// The target of the alias of a removed file.
const REMOVED: &[u8] = b"removed/removed";

/// The kind of a foreign name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slot,
    OldLink,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Slot, Kind::OldLink];

    /// The folder in the internal folder.
    fn folder(self) -> &'static [u8] {
        match self {
            Kind::Slot => b"share",
            Kind::OldLink => b"imported",
        }
    }
}

/// A walk over all aliases, for [`Store::drop_dead_alias`].
#[derive(Debug)]
pub(super) struct AliasWalk(Vec<(Kind, rustix::fs::Dir)>);

impl Store {
    /// The path of the file that was stored for a slot.
    pub fn alias(&self, slot: &[u8]) -> Option<StorePath> {
        let folder = self.alias_folder(Kind::Slot)?;
        target(&folder, &name(&slot_digest(slot)))
    }

    /// Records where the file of a slot is, and replaces an earlier record. Returns the folders whose entries have
    /// changed, from the outside in.
    pub fn set_alias(&self, slot: &[u8], path: &StorePath) -> io::Result<Vec<OwnedFd>> {
        let mut changed = Vec::new();
        if sys::create_folder(&self.internal, Kind::Slot.folder(), self.mode(0o700))? {
            changed.push(self.internal.try_clone()?);
        }
        let folder = sys::open_folder_below(self.internal.as_fd(), Kind::Slot.folder())?;
        let name = name(&slot_digest(slot));
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

    /// The path of the imported file of an old link.
    pub fn old_link(&self, link: &LinkDigest) -> Option<StorePath> {
        target(&self.alias_folder(Kind::OldLink)?, &name(link))
    }

    /// The path of the imported file that a requested path names, whatever its prefix was.
    pub fn old_link_of(&self, requested: &[u8]) -> Option<StorePath> {
        // Without imported files this is all that an unknown path costs.
        let folder = self.alias_folder(Kind::OldLink)?;
        layout::link_digests(requested).find_map(|link| target(&folder, &name(&link)))
    }

    /// Records where the files of old links are; existing records stay.
    pub fn set_old_links<'a>(
        &self,
        links: impl IntoIterator<Item = (&'a LinkDigest, &'a StorePath)>,
    ) -> io::Result<()> {
        let folder = self.make_own_folder(Kind::OldLink.folder())?;
        for (link, path) in links {
            match sys::create_symlink(&folder, name(link).as_bytes(), path.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Erases the path from the alias of a removed file, which would reveal owner and name; the slot still counts as
    /// used, and the old link as imported.
    pub fn blank_alias(&self, path: &StorePath) {
        let Some(digest) = path
            .segments()
            .nth(1)
            .and_then(|s| s.split(|b| *b == b'~').next())
        else {
            return;
        };
        for kind in Kind::ALL {
            let Some(folder) = self.alias_folder(kind) else {
                continue;
            };
            if sys::read_symlink(&folder, digest).is_ok_and(|target| target == path.as_bytes()) {
                blank(&folder, digest);
            }
        }
    }

    /// Removes the alias of a slot whose file could not be stored.
    pub fn drop_alias(&self, slot: &[u8]) {
        if let Some(folder) = self.alias_folder(Kind::Slot) {
            let _ = sys::remove_file(&folder, name(&slot_digest(slot)).as_bytes());
        }
    }

    /// Begins a walk over all aliases.
    pub(super) fn aliases(&self) -> AliasWalk {
        let entries = |kind| Some((kind, rustix::fs::Dir::new(self.alias_folder(kind)?).ok()?));
        AliasWalk(Kind::ALL.into_iter().filter_map(entries).collect())
    }

    /// Looks at the next alias of the walk; false at the end. If its file is deleted, that of an old link is blanked, and
    /// that of a slot removed once it is so old that no token for the slot can be valid.
    pub(super) fn drop_dead_alias(&self, walk: &mut AliasWalk, now: SystemTime) -> bool {
        let Some((kind, entries)) = walk.0.last_mut() else {
            return false;
        };
        match entries.read() {
            Some(Ok(entry)) => self.check_alias(*kind, entry.file_name().to_bytes(), now),
            _ => {
                walk.0.pop();
            }
        }
        true
    }

    fn check_alias(&self, kind: Kind, name: &[u8], now: SystemTime) {
        let Some(folder) = self.alias_folder(kind) else {
            return;
        };
        let Ok(target) = sys::read_symlink(&folder, name) else {
            return;
        };
        if sys::exists_below(self.root(), &target).is_ok_and(|exists| exists) {
            return;
        }
        match kind {
            Kind::Slot => {
                let old = sys::stat_at(&folder, name).is_ok_and(|stat| {
                    stat.modified
                        .checked_add(KEPT)
                        .is_some_and(|until| until < now)
                });
                if old {
                    let _ = sys::remove_file(&folder, name);
                }
            }
            // Neither a repeated import nor a signed PUT URL of the other program, which may never expire, must bring the
            // file back.
            Kind::OldLink if target != REMOVED => blank(&folder, name),
            Kind::OldLink => {}
        }
    }

    fn alias_folder(&self, kind: Kind) -> Option<OwnedFd> {
        sys::open_folder_below(self.internal.as_fd(), kind.folder()).ok()
    }
}

/// Replaces the target of an alias.
fn blank(folder: &OwnedFd, name: &[u8]) {
    let temporary = [name, UNFINISHED.as_bytes()].concat();
    let _ = sys::remove_file(folder, &temporary);
    if sys::create_symlink(folder, &temporary, REMOVED).is_ok() {
        let _ = sys::rename(folder, &temporary, name);
    }
}

/// The path that an alias names.
fn target(folder: &OwnedFd, name: &str) -> Option<StorePath> {
    let target = sys::read_symlink(folder, name.as_bytes()).ok()?;
    StorePath::from_segments(target.split(|b| *b == b'/'))
}

fn name(digest: &LinkDigest) -> String {
    BASE64URL_NOPAD.encode(digest)
}
