//! Space of file systems.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Maximum number of inodes per upload: the file, the slot's folder, and the owner's folder.
const INODES: u64 = 3;

/// Bounds of the number of inodes that are kept free, because concurrent uploads each need some.
const FEWEST_INODES: u64 = 2 * INODES;
const MOST_INODES: u64 = 1024;

/// Free space of a file system for an unprivileged process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free bytes; 0 if it is out of inodes.
    pub bytes: u64,
    /// Free inodes. `None` on file systems that allocate inodes dynamically and report no number (btrfs, some network
    /// file systems).
    pub inodes: Option<u64>,
    /// With fewer free inodes than this, the file system counts as full: 1/64 of all inodes, within bounds.
    pub least_inodes: u64,
}

/// The free space of the file system of a folder.
pub fn space(folder: impl AsFd) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(folder)?;
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    let bytes = match inodes {
        Some(inodes) if inodes < INODES => 0,
        // Some file systems, in memory or in user space, report no size and have no limit of their own.
        _ if stat.f_blocks == 0 => u64::MAX,
        _ => stat.f_bavail.saturating_mul(stat.f_frsize),
    };
    Ok(Space {
        bytes,
        inodes,
        least_inodes: (stat.f_files / 64).clamp(FEWEST_INODES, MOST_INODES),
    })
}

/// Bytes of the file system that are available to an unprivileged process; 0 if it is out of inodes.
pub fn free_space(folder: impl AsFd) -> io::Result<u64> {
    space(folder).map(|space| space.bytes)
}

/// Preallocates space for a file; returns false if the file system does not support it.
pub fn set_aside(file: impl AsFd, bytes: u64) -> io::Result<bool> {
    loop {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Syncs a whole file system to stable storage.
pub fn sync_file_system(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}
