//! Paths that must not be stored again: an external signature never lapses, so that a PUT that is repeated after its
//! file has expired would bring it back; a slot of our own is good for some minutes, which its file may not live.
//!
//! A path is remembered by 16 bytes of its SHA-256, in one of 256 files of the internal folder. To look one up costs
//! the reading of one of them; nothing is held in memory, nothing is read at start.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ring::digest::{SHA256, digest};

use crate::layout::StorePath;
use crate::store::Store;
use crate::sys;

/// The folder in the internal folder.
const FOLDER: &[u8] = b"gone";

/// Bytes that are kept of a path.
const LENGTH: usize = 16;

impl Store {
    /// Remembers a path for ever.
    pub fn bury(&self, path: &StorePath) -> io::Result<()> {
        if self.is_buried(path)? {
            return Ok(());
        }
        let (shard, grave) = grave(path);
        let folder = self.make_own_folder(FOLDER)?;
        let file = self.open_own(folder.as_fd(), shard.as_bytes())?;
        // An entry that a crash cut short would shift all that follow.
        let size = sys::look_open(&file)?.size;
        if size % LENGTH as u64 != 0 {
            rustix::fs::ftruncate(&file, size - size % LENGTH as u64)?;
        }
        // Short enough to be written at once or not at all.
        if sys::write(&file, &grave)? != LENGTH {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Whether any path was ever remembered, or may have been.
    pub fn has_graves(&self) -> bool {
        match sys::open_folder_below(self.internal.as_fd(), FOLDER) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// What holds paths that are remembered, from the outside in, to be synced.
    pub(super) fn graves_of<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> io::Result<Vec<OwnedFd>> {
        let mut shards: Vec<String> = paths.into_iter().map(|path| grave(path).0).collect();
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

    /// Whether a path was remembered.
    pub fn is_buried(&self, path: &StorePath) -> io::Result<bool> {
        let (shard, grave) = grave(path);
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
            // An entry that a crash cut short is the last one, and ignored.
            let whole = read - read % LENGTH;
            if buffer[..whole]
                .chunks_exact(LENGTH)
                .any(|entry| entry == grave)
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
fn grave(path: &StorePath) -> (String, [u8; LENGTH]) {
    let digest = digest(&SHA256, path.as_bytes());
    let mut entry = [0; LENGTH];
    entry.copy_from_slice(&digest.as_ref()[1..=LENGTH]);
    (format!("{:02x}", digest.as_ref()[0]), entry)
}
