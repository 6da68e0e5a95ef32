//! Paths and entries of folders.
//!
//! Paths are resolved below an open folder and never through a symbolic link: with `openat2` where the kernel supports
//! it (5.6), otherwise component by component.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::process::user;

/// The canonical path of a file that every local user can read, according to its mode and those of all folders above
/// it. `None` if not every user can read it, or if that cannot be determined.
pub fn is_readable_by_all(path: &Path) -> Option<std::path::PathBuf> {
    let real = path.canonicalize().ok()?;
    let allows = |path: &Path, bit: u32| {
        rustix::fs::stat(path).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).bits() & bit != 0)
    };
    let open = allows(&real, 0o004) && real.ancestors().skip(1).all(|folder| allows(folder, 0o001));
    open.then_some(real)
}

/// Why this process has no permission to create files in a folder; `None` if it has.
pub fn not_writable(folder: &Path) -> Option<io::Error> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let result = rustix::fs::accessat(rustix::fs::CWD, folder, access, AtFlags::EACCESS);
    // Other errors say nothing about permissions.
    let denied = |error: &Errno| matches!(*error, Errno::ACCESS | Errno::PERM | Errno::ROFS);
    result.err().filter(denied).map(io::Error::from)
}

/// Opens a folder by its path. Links are followed, because the path comes from the operator.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Creates a folder that only this user can access; fails if the path exists.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))?)
}

/// Opens a file below a folder for reading. Opening a FIFO or a device does not block, and a terminal does not become
/// the controlling one.
pub fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    resolve_below(root, path, flags)
}

/// Opens a folder below a folder for reading its entries.
pub fn open_folder_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    resolve_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a folder by its name in a folder, which costs less than a path.
pub fn open_folder_in(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        folder,
        OsStr::from_bytes(name),
        flags,
        Mode::empty(),
    )?)
}

/// Opens a folder below a folder only as a place for new entries (`O_PATH`), which costs half as much.
pub fn locate_folder_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    resolve_below(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Whether the path exists below the folder, as a file of any type.
pub fn exists_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    match resolve_below(root, path, OFlags::PATH) {
        Ok(_) => Ok(true),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Ok(false),
            // The path runs into something else than a folder.
            Some(Errno::LOOP | Errno::NOTDIR) => Ok(true),
            _ => Err(error),
        },
    }
}

fn resolve_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    // Set once the kernel has rejected the call itself.
    static NO_OPENAT2: AtomicBool = AtomicBool::new(false);
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let name = OsStr::from_bytes(path);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // openat(2): EAGAIN when a rename races with the resolution.
    for _ in 0..4 {
        if NO_OPENAT2.load(Ordering::Relaxed) {
            break;
        }
        match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
            // The seccomp filters of older container engines answer EPERM to system calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    step_below(root, path, flags)
}

/// Resolves a path component by component, for kernels without `openat2`.
fn step_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder: Option<OwnedFd> = None;
    let mut rest = path;
    while let Some(at) = rest.iter().position(|b| *b == b'/') {
        let parent = folder.as_ref().map_or(root, |fd| fd.as_fd());
        let next = rustix::fs::openat(
            parent,
            OsStr::from_bytes(&rest[..at]),
            through,
            Mode::empty(),
        )?;
        folder = Some(next);
        rest = &rest[at + 1..];
    }
    let parent = folder.as_ref().map_or(root, |fd| fd.as_fd());
    Ok(rustix::fs::openat(
        parent,
        OsStr::from_bytes(rest),
        flags,
        Mode::empty(),
    )?)
}

/// Creates a folder; returns false if the name exists.
pub fn create_folder(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<bool> {
    match rustix::fs::mkdirat(folder, OsStr::from_bytes(name), Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a folder; returns false if it is not empty.
pub fn remove_folder(folder: impl AsFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Renames an entry of a folder; an existing entry of the new name is replaced.
pub fn rename(folder: impl AsFd, old: &[u8], new: &[u8]) -> io::Result<()> {
    let (old, new) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    Ok(rustix::fs::renameat(&folder, old, &folder, new)?)
}

/// Like [`rename`], but fails if the new name exists. On file systems without support for this, it fails only if the
/// new name exists and is not an empty folder.
pub fn rename_folder(folder: impl AsFd, old: &[u8], new: &[u8]) -> io::Result<()> {
    let (from, to) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    match rustix::fs::renameat_with(&folder, from, &folder, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rename(folder, old, new),
        other => Ok(other?),
    }
}

/// Creates a symbolic link with this target; fails if the name exists.
pub fn create_symlink(folder: impl AsFd, name: &[u8], text: &[u8]) -> io::Result<()> {
    let (text, name) = (OsStr::from_bytes(text), OsStr::from_bytes(name));
    Ok(rustix::fs::symlinkat(text, folder, name)?)
}

/// Reads the target of a symbolic link.
pub fn read_symlink(folder: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let text = rustix::fs::readlinkat(folder, OsStr::from_bytes(name), Vec::new())?;
    Ok(text.into_bytes())
}

/// Whether a folder is writable by group 0, and this process is a member of that group without being root. Container
/// platforms such as OpenShift provide volumes this way to processes with an arbitrary user ID. Files in the folder must
/// then be accessible to the next process, which may have a different user ID.
pub fn is_shared_by_group(folder: impl AsFd) -> bool {
    use rustix::process::{getegid, geteuid, getgroups};
    const GROUP_WRITE: u32 = 0o020;
    const SET_GROUP: u32 = 0o2000;
    let Ok(stat) = rustix::fs::fstat(folder) else {
        return false;
    };
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
    let belongs = || {
        let beside = || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.is_root()));
        getegid().is_root() || (stat.st_mode & SET_GROUP != 0 && beside())
    };
    stat.st_gid == 0 && mode & GROUP_WRITE != 0 && !geteuid().is_root() && belongs()
}

/// The mode with the owner's permissions extended to the group.
pub fn for_group_too(mode: u32) -> u32 {
    mode | (mode & 0o700) >> 3
}

/// Extends the owner's permissions on an open file to its group, if this process owns the file.
pub fn share_with_group(fd: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(&fd)?;
    let mode = stat.st_mode & 0o7777;
    let shared = for_group_too(mode);
    if shared != mode && stat.st_uid == user() {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(shared))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_resolve_the_same_with_and_without_openat2() {
        let name = format!("upslot-sys-steps-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(folder.join("o/r")).unwrap();
        std::fs::write(folder.join("o/r/n"), "abc").unwrap();
        symlink("n", folder.join("o/r/link")).unwrap();
        symlink("r", folder.join("o/s")).unwrap();
        let root = open_root(&folder).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (path, is_found) in [
            ("o/r/n", true),
            ("o/r/link", false),
            ("o/s/n", false),
            ("o/r/m", false),
        ] {
            let path_bytes = path.as_bytes();
            let stepwise = step_below(root.as_fd(), path_bytes, flags);
            assert_eq!(stepwise.is_ok(), is_found, "{path}");
            let with_openat2 = open_below(root.as_fd(), path_bytes);
            assert_eq!(with_openat2.is_ok(), is_found, "{path}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
