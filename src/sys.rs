//! Wrappers for all system calls that std and mio do not provide, as small functions with a single purpose.
//!
//! Paths are resolved below an open folder and never through a symbolic link: with `openat2` where the kernel supports
//! it (5.6), otherwise component by component.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timespec,
    Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The extended attribute that stores a file's MIME type (freedesktop.org, "Shared MIME-info Database").
const MIME_TYPE: &str = "user.mime_type";

/// The extended attribute that stores the charset of a text (same source), and its two values: UTF-8, and any other
/// 8-bit text (RFC 1428 §3).
const CHARSET: &str = "user.charset";
const UTF_8: &[u8] = b"utf-8";
const UNKNOWN_8BIT: &[u8] = b"unknown-8bit";

/// Longest MIME type that is kept; bytes.
const MAX_MIME_TYPE: usize = 255;

/// The metadata of a file that upslot uses.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// Time of the last change of data or metadata (ctime), which cannot be set by programs.
    pub changed: SystemTime,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Number of hard links.
    pub links: u64,
}

/// The type of a file, as far as upslot distinguishes types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Other,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        }
    }
}

fn facts(stat: &rustix::fs::Stat) -> Facts {
    Facts {
        kind: FileType::from_raw_mode(stat.st_mode).into(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: moment(stat.st_mtime, stat.st_mtime_nsec),
        changed: moment(stat.st_ctime, stat.st_ctime_nsec),
        identity: (stat.st_dev, stat.st_ino),
        // Narrower on some hosts.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        links: stat.st_nlink as u64,
    }
}

/// Converts a timestamp; times before 1970 become 1970. The types of the fields differ between targets.
fn moment(seconds: impl TryInto<u64>, nanos: impl TryInto<u64>) -> SystemTime {
    let seconds = Duration::from_secs(seconds.try_into().unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(nanos.try_into().unwrap_or(0))
}

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
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))?)
}

/// Reads the metadata of a path, following links.
pub fn look(path: &Path) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::stat(path)?))
}

/// Reads the metadata of an open file.
pub fn look_open(fd: impl AsFd) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::fstat(fd)?))
}

/// Reads the metadata of one entry of a folder without following links.
pub fn look_at(folder: impl AsFd, name: &[u8]) -> io::Result<Facts> {
    let stat = rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(facts(&stat))
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
pub fn make_folder(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<bool> {
    match rustix::fs::mkdirat(folder, OsStr::from_bytes(name), Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates a file for writing; an existing file of this name is removed first.
pub fn open_replacing(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    match remove_file(&folder, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => open_new(&folder, name, mode),
    }
}

/// Sets the modification time of an open file.
pub fn set_modified(file: impl AsFd, modified: SystemTime) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &only_modified(modified))?)
}

/// Sets the modification time of one entry of a folder without following links. For a writable file of another user,
/// only the current time can be set, which is used instead.
pub fn set_modified_at(folder: impl AsFd, name: &[u8], modified: SystemTime) -> io::Result<()> {
    let set = |times: &Timestamps| {
        let name = OsStr::from_bytes(name);
        rustix::fs::utimensat(&folder, name, times, AtFlags::SYMLINK_NOFOLLOW)
    };
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    match set(&only_modified(modified)) {
        Err(Errno::PERM) => Ok(set(&Timestamps {
            last_access: now,
            last_modification: now,
        })?),
        other => Ok(other?),
    }
}

fn only_modified(modified: SystemTime) -> Timestamps {
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos() as _,
        },
    }
}

/// Unlinks a file.
pub fn remove_file(folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(
        folder,
        OsStr::from_bytes(name),
        AtFlags::empty(),
    )?)
}

/// Removes a folder; returns false if it is not empty.
pub fn remove_folder(folder: impl AsFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates an unnamed file on the file system of a folder (`O_TMPFILE`).
pub fn open_unnamed(folder: impl AsFd, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        folder,
        ".",
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Creates a file for writing; fails if the name exists.
pub fn open_new(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        folder,
        OsStr::from_bytes(name),
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Opens a file for appending and creates it if it does not exist.
pub fn open_to_append(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(name);
    Ok(rustix::fs::openat(
        folder,
        name,
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Opens an existing file for appending.
pub fn open_to_append_existing(folder: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(name);
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// The owning user and group of an open file.
pub fn owner_of(fd: impl AsFd) -> io::Result<(u32, u32)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_uid, stat.st_gid))
}

/// Sets the owning user and group of an open file.
pub fn set_owner(fd: impl AsFd, (user, group): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::fchown(fd, Some(user), Some(group))
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
pub fn make_link(folder: impl AsFd, name: &[u8], text: &[u8]) -> io::Result<()> {
    let (text, name) = (OsStr::from_bytes(text), OsStr::from_bytes(name));
    Ok(rustix::fs::symlinkat(text, folder, name)?)
}

/// Reads the target of a symbolic link.
pub fn read_link(folder: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let text = rustix::fs::readlinkat(folder, OsStr::from_bytes(name), Vec::new())?;
    Ok(text.into_bytes())
}

/// Links an unnamed file to a name through its descriptor (`AT_EMPTY_PATH`); fails if the name exists. Since Linux
/// 6.10 this is allowed to the process that opened the file, before that only with CAP_DAC_READ_SEARCH.
pub fn link_descriptor(file: impl AsFd, folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::linkat(
        file,
        "",
        folder,
        OsStr::from_bytes(name),
        AtFlags::EMPTY_PATH,
    )?)
}

/// Links an unnamed file to a name through `/proc`; fails if the name exists.
pub fn link_through_proc(file: impl AsFd, folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let name = OsStr::from_bytes(name);
    Ok(rustix::fs::linkat(
        rustix::fs::CWD,
        &*path,
        folder,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// Creates a hard link to a file; fails if the new name exists.
pub fn link_name(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> io::Result<()> {
    let (old, new) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    Ok(rustix::fs::linkat(from, old, to, new, AtFlags::empty())?)
}

/// Writes once; returns the number of bytes written.
pub fn write(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| rustix::io::write(&file, bytes))
}

/// Reads from an offset of a file; 0 at its end.
pub fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    retry(|| rustix::io::pread(&file, &mut *buffer, offset))
}

/// Sends at most `most` bytes from an offset of a file to a socket; 0 at the end of the file.
pub fn send_file(
    socket: impl AsFd,
    file: impl AsFd,
    offset: u64,
    most: usize,
) -> io::Result<usize> {
    let mut offset = offset;
    retry(|| rustix::fs::sendfile(&socket, &file, Some(&mut offset), most))
}

/// Sends bytes; `more` means that file data follows immediately and should share the packet.
pub fn send(socket: impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    flags.set(SendFlags::MORE, more);
    retry(|| rustix::net::send(&socket, bytes, flags))
}

/// Receives bytes; 0 at the end of input.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n))
}

/// Whether there is input that [`receive`] would return. The end of input is none.
pub fn has_unread_input(socket: impl AsFd) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let peek = || rustix::net::recv(&socket, &mut [0; 1][..], flags).map(|(n, _)| n);
    retry(peek).is_ok_and(|length| length > 0)
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Stores a file's MIME type in an extended attribute; returns false if the file system does not support them. Fails
/// if the disk is full or failing.
pub fn set_mime_type(file: impl AsFd, mime_type: &str) -> io::Result<bool> {
    if mime_type.len() > MAX_MIME_TYPE {
        return Ok(false);
    }
    let set = rustix::fs::fsetxattr(file, MIME_TYPE, mime_type.as_bytes(), XattrFlags::empty());
    match set.map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error) || is_trouble(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Reads a file's MIME type from its extended attribute.
pub fn mime_type(file: impl AsFd) -> Option<String> {
    let mut buffer = [0; MAX_MIME_TYPE];
    let length = rustix::fs::fgetxattr(file, MIME_TYPE, &mut buffer).ok()?;
    std::str::from_utf8(buffer.get(..length)?)
        .ok()
        .map(str::to_owned)
}

/// Stores whether a text is UTF-8; does nothing if the file system has no extended attributes. Fails if the disk is full
/// or failing.
pub fn set_charset(file: impl AsFd, is_utf8: bool) -> io::Result<()> {
    let charset = if is_utf8 { UTF_8 } else { UNKNOWN_8BIT };
    let set = rustix::fs::fsetxattr(file, CHARSET, charset, XattrFlags::empty());
    match set.map_err(io::Error::from) {
        Err(error) if is_full(&error) || is_trouble(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the stored charset of a file is UTF-8; `None` if none is stored.
pub fn is_kept_as_utf8(file: impl AsFd) -> Option<bool> {
    let mut buffer = [0; 64];
    match rustix::fs::fgetxattr(file, CHARSET, &mut buffer) {
        Ok(length) => Some(buffer.get(..length)?.eq_ignore_ascii_case(UTF_8)),
        // The value is longer than the buffer, so it is another charset.
        Err(Errno::RANGE) => Some(false),
        Err(_) => None,
    }
}

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

/// Whether the error means that the folder does not exist.
pub fn is_no_folder(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}

/// Syncs a whole file system to stable storage.
pub fn sync_file_system(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Whether the error means that the disk, or a quota of the file system, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

/// Whether the error means that the disk is failing or that the host is short of resources, as opposed to a missing
/// file: the file in question may well exist.
pub fn is_trouble(error: &io::Error) -> bool {
    let is_transient = matches!(
        Errno::from_io_error(error),
        Some(Errno::NOMEM | Errno::TIMEDOUT | Errno::NOTCONN)
    );
    is_transient || is_disk_trouble(error) || is_out_of_descriptors(error)
}

/// Whether the error means that the disk is failing; socket operations never return it.
pub fn is_disk_trouble(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::STALE | Errno::UCLEAN | Errno::BADMSG)
    )
}

/// Whether the error means that the process or the system is out of file descriptors.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Whether an error from creating a socket means that the address family is not supported: the kernel was built or
/// started without it, or a system call filter blocks it.
pub fn lacks_address_family(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::PFNOSUPPORT)
    )
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

/// Raises the soft limit on open file descriptors to the hard limit; returns the resulting limit.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // On failure the limit stays unchanged.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Protects secrets in memory: disables core dumps and access by other processes of the same user.
pub fn guard_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Neither can fail: lowering a limit is always allowed, and the behaviour is a valid one.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Opens the kernel's memory statistics of this process. The file stays open, because the sandbox prevents opening it
/// later.
pub fn open_memory_counts() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/statm", flags, Mode::empty()).ok()
}

/// Resident memory of the process in bytes.
pub fn resident_memory(counts: impl AsFd) -> Option<u64> {
    let mut buffer = [0; 128];
    let length = read_at(counts, &mut buffer, 0).ok()?;
    let statm = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Clears the umask, so that new files and folders get exactly the configured modes.
pub fn clear_umask() {
    rustix::process::umask(Mode::empty());
}

/// Runs `make` under a umask.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(mask));
    let made = make();
    rustix::process::umask(before);
    made
}

/// The effective user ID of the process, for messages.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Time since boot, including time suspended.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
}

/// An identifier of the current boot of the host. Where `/proc` does not show it, as under the systemd unit, the
/// environment does.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let id = id.or_else(|| std::env::var("UPSLOT_BOOT_ID").ok())?;
    let id = id.trim().replace('-', "");
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// The monotonic clock. The loop reads it once per turn; long-running slices read it to stay within their budget.
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// The monotonic clock in microseconds, as service managers expect it.
pub fn monotonic_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    // The field is signed on some 32-bit targets, but never negative.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000) + nanos / 1000
}

/// Both clocks, read once per turn.
#[allow(clippy::disallowed_methods)]
pub fn now() -> crate::now::Now {
    crate::now::Now {
        mono: monotonic(),
        wall: SystemTime::now(),
    }
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
