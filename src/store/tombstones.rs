//! Tombstones: paths whose files were deleted and must not be stored again while an upload URL for them may still be
//! valid. External signatures never expire; upslot's own slots are valid for minutes, which the file may not live.
//!
//! A tombstone is 16 bytes of the path's SHA-256, in one of 256 shard files in the internal folder. A lookup reads one
//! shard; nothing is kept in memory, and nothing is read at start.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ring::digest::{SHA256, digest};

use crate::layout::StorePath;
use crate::store::Store;
use crate::sys;

/// The folder in the internal folder.
const FOLDER: &[u8] = b"tombstones";

/// The name of that folder in earlier versions.
const OLD_FOLDER: &[u8] = b"gone";

/// Bytes of the digest that are stored.
const LENGTH: usize = 16;

impl Store {
    /// Takes over the tombstones of an earlier version. Both folders exist only if a process of that version has used
    /// the store meanwhile; then its entries are added to ours before its files are removed.
    pub(super) fn adopt_old_tombstones(&self) -> io::Result<()> {
        match sys::rename_folder(&self.internal, OLD_FOLDER, FOLDER) {
            Err(error) if sys::is_taken(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        let old = sys::open_folder_below(self.internal.as_fd(), OLD_FOLDER)?;
        let folder = self.make_own_folder(FOLDER)?;
        let mut shards = Vec::new();
        for entry in rustix::fs::Dir::read_from(&old)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name.starts_with(b".") {
                continue;
            }
            let source = sys::open_below(old.as_fd(), &name)?;
            let target = self.open_own(folder.as_fd(), &name)?;
            let mut buffer = vec![0; 1024 * LENGTH];
            let mut offset = 0;
            loop {
                let read = sys::read_at(&source, &mut buffer, offset)?;
                let whole = read - read % LENGTH;
                if whole == 0 {
                    break;
                }
                if sys::write(&target, &buffer[..whole])? != whole {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                offset += whole as u64;
            }
            rustix::fs::fsync(&target)?;
            shards.push(name);
        }
        rustix::fs::fsync(&folder)?;
        for name in shards {
            sys::remove_file(&old, &name)?;
        }
        sys::remove_folder(&self.internal, OLD_FOLDER).map(|_| ())
    }

    /// Records a tombstone, without a time limit.
    pub fn record_tombstone(&self, path: &StorePath) -> io::Result<()> {
        if self.has_tombstone(path)? {
            return Ok(());
        }
        let (shard, tombstone) = tombstone(path);
        let folder = self.make_own_folder(FOLDER)?;
        let file = self.open_own(folder.as_fd(), shard.as_bytes())?;
        // An entry that a crash cut short would misalign all later ones.
        let size = sys::stat_open(&file)?.size;
        if size % LENGTH as u64 != 0 {
            rustix::fs::ftruncate(&file, size - size % LENGTH as u64)?;
        }
        // Short enough to be written at once or not at all.
        if sys::write(&file, &tombstone)? != LENGTH {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Whether there are or may be tombstones.
    pub fn has_tombstones(&self) -> bool {
        match sys::open_folder_below(self.internal.as_fd(), FOLDER) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// The folders and shards that hold the tombstones of these paths, to be synced from the outside in.
    pub fn tombstone_folders<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> io::Result<Vec<OwnedFd>> {
        let mut shards: Vec<String> = paths.into_iter().map(|path| tombstone(path).0).collect();
        shards.sort_unstable();
        shards.dedup();
        let folder = sys::open_folder_below(self.internal.as_fd(), FOLDER)?;
        let mut opened = Vec::with_capacity(2 + shards.len());
        for shard in shards {
            opened.push(sys::open_below(folder.as_fd(), shard.as_bytes())?);
        }
        opened.splice(..0, [self.internal.try_clone()?, folder]);
        Ok(opened)
    }

    /// Whether a path has a tombstone.
    pub fn has_tombstone(&self, path: &StorePath) -> io::Result<bool> {
        let (shard, tombstone) = tombstone(path);
        let name = [FOLDER, b"/", shard.as_bytes()].concat();
        let file: OwnedFd = match sys::open_below(self.internal.as_fd(), &name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut buffer = vec![0; 1024 * LENGTH];
        let mut offset = 0;
        loop {
            let read = sys::read_at(&file, &mut buffer, offset)?;
            // An entry that a crash cut short is the last one and is ignored.
            let whole = read - read % LENGTH;
            if buffer[..whole]
                .chunks_exact(LENGTH)
                .any(|entry| entry == tombstone)
            {
                return Ok(true);
            }
            if whole == 0 {
                return Ok(false);
            }
            offset += whole as u64;
        }
    }
}

/// The file and the entry of a path.
fn tombstone(path: &StorePath) -> (String, [u8; LENGTH]) {
    let digest = digest(&SHA256, path.as_bytes());
    let mut entry = [0; LENGTH];
    entry.copy_from_slice(&digest.as_ref()[1..=LENGTH]);
    (format!("{:02x}", digest.as_ref()[0]), entry)
}
