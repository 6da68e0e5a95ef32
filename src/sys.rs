//! Every system call that std and mio do not offer, as small functions with one meaning.
//!
//! Paths are resolved below an open folder and never through a symbolic link: with `openat2` where the kernel has
//! it (5.6), else component by component.

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

/// The attribute that keeps a file's MIME type (freedesktop.org "Shared MIME-info", extended attributes).
const MIME_TYPE: &str = "user.mime_type";

/// The attribute that keeps a text's charset (the same source), and its two values: UTF-8, and bytes that are not
/// (RFC 1428 §3).
const CHARSET: &str = "user.charset";
const UTF_8: &[u8] = b"utf-8";
const UNKNOWN_8BIT: &[u8] = b"unknown-8bit";

/// Longest MIME type that is kept; bytes.
const MAX_MIME_TYPE: usize = 255;

/// What a look at a directory entry or an open file tells.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// When anything of it was last changed; nobody can set that.
    pub changed: SystemTime,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Names that it has.
    pub links: u64,
}

/// What a name stands for, as far as it matters here.
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

/// A moment before 1970 becomes its first. The numbers' types differ between hosts.
fn moment(seconds: impl TryInto<u64>, nanos: impl TryInto<u64>) -> SystemTime {
    let seconds = Duration::from_secs(seconds.try_into().unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(nanos.try_into().unwrap_or(0))
}

/// The real path of a file that every user of the machine can read: its own mode says so, and every folder above it
/// lets them through. `None` where that is not so, or cannot be told.
pub fn is_readable_by_all(path: &Path) -> Option<std::path::PathBuf> {
    let real = path.canonicalize().ok()?;
    let allows = |path: &Path, bit: u32| {
        rustix::fs::stat(path).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).bits() & bit != 0)
    };
    let open = allows(&real, 0o004) && real.ancestors().skip(1).all(|folder| allows(folder, 0o001));
    open.then_some(real)
}

/// Why this process cannot make files in a folder, as its permissions say without an attempt; `None` when it can.
pub fn not_writable(folder: &Path) -> Option<io::Error> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let result = rustix::fs::accessat(rustix::fs::CWD, folder, access, AtFlags::EACCESS);
    // Where the kernel cannot tell, nothing is said.
    let denied = |error: &Errno| matches!(*error, Errno::ACCESS | Errno::PERM | Errno::ROFS);
    result.err().filter(denied).map(io::Error::from)
}

/// Opens a folder by its path, links followed: it is the operator's.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes a folder for nobody else; fails where there is something.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))?)
}

/// Looks at a path, links followed.
pub fn look(path: &Path) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::stat(path)?))
}

/// Looks at what is open.
pub fn look_open(fd: impl AsFd) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::fstat(fd)?))
}

/// Looks at one entry of a folder; a link is not followed.
pub fn look_at(folder: impl AsFd, name: &[u8]) -> io::Result<Facts> {
    let stat = rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(facts(&stat))
}

/// Opens a file below a folder for reading. A FIFO or a device does not block, nor does it become a terminal.
pub fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    resolve_below(root, path, flags)
}

/// Opens a folder below a folder for reading its entries.
pub fn open_folder_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    resolve_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Whether anything has this name below the folder.
pub fn exists_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    match resolve_below(root, path, OFlags::PATH) {
        Ok(_) => Ok(true),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Ok(false),
            // Something is there, if not a file.
            Some(Errno::LOOP | Errno::NOTDIR) => Ok(true),
            _ => Err(error),
        },
    }
}

fn resolve_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    // Whether the kernel refused the call itself; asked once.
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
            // Older container engines answer EPERM to calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    step_below(root, path, flags)
}

fn step_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder: Option<OwnedFd> = None;
    let mut rest = path;
    while let Some(at) = rest.iter().position(|b| *b == b'/') {
        let at_fd = folder.as_ref().map_or(root, |fd| fd.as_fd());
        let next = rustix::fs::openat(
            at_fd,
            OsStr::from_bytes(&rest[..at]),
            through,
            Mode::empty(),
        )?;
        folder = Some(next);
        rest = &rest[at + 1..];
    }
    let at_fd = folder.as_ref().map_or(root, |fd| fd.as_fd());
    Ok(rustix::fs::openat(
        at_fd,
        OsStr::from_bytes(rest),
        flags,
        Mode::empty(),
    )?)
}

/// [`open_below`] as it is on kernels without `openat2`.
#[cfg(test)]
pub fn step_below_for_test(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    step_below(
        root,
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )
}

/// Makes a folder; true when it was not there before.
pub fn make_folder(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<bool> {
    match rustix::fs::mkdirat(folder, OsStr::from_bytes(name), Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a new file to write, in the place of what had its name.
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

/// Sets the modification time of one entry of a folder; a link is not followed. A file of another user that may be
/// written gets the present time, if that is all that is allowed.
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

/// Removes a file's name.
pub fn remove_file(folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(
        folder,
        OsStr::from_bytes(name),
        AtFlags::empty(),
    )?)
}

/// Removes a folder; false when it is not empty.
pub fn remove_folder(folder: impl AsFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file without a name in a folder's file system.
pub fn open_unnamed(folder: impl AsFd, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        folder,
        ".",
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Opens a new file; fails where the name is taken.
pub fn open_new(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        folder,
        OsStr::from_bytes(name),
        flags,
        Mode::from_raw_mode(mode),
    )?)
}

/// Opens a file to append to it, making it where there is none.
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

/// Opens a file that is there to append to it.
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

/// The user and the group to which something open belongs.
pub fn owner_of(fd: impl AsFd) -> io::Result<(u32, u32)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_uid, stat.st_gid))
}

/// Gives something open to a user and a group.
pub fn set_owner(fd: impl AsFd, (user, group): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::fchown(fd, Some(user), Some(group))
}

/// Gives an entry of a folder another name in it; what had that name is replaced.
pub fn rename(folder: impl AsFd, old: &[u8], new: &[u8]) -> io::Result<()> {
    let (old, new) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    Ok(rustix::fs::renameat(&folder, old, &folder, new)?)
}

/// The same, but fails where the name is taken, as far as the file system can; else where it is taken by what is no
/// empty folder.
pub fn rename_folder(folder: impl AsFd, old: &[u8], new: &[u8]) -> io::Result<()> {
    let (from, to) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    match rustix::fs::renameat_with(&folder, from, &folder, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rename(folder, old, new),
        other => Ok(other?),
    }
}

/// Makes a symbolic link that holds a text; fails where the name is taken.
pub fn make_link(folder: impl AsFd, name: &[u8], text: &[u8]) -> io::Result<()> {
    let (text, name) = (OsStr::from_bytes(text), OsStr::from_bytes(name));
    Ok(rustix::fs::symlinkat(text, folder, name)?)
}

/// The text of a symbolic link.
pub fn read_link(folder: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let text = rustix::fs::readlinkat(folder, OsStr::from_bytes(name), Vec::new())?;
    Ok(text.into_bytes())
}

/// Gives an unnamed file a name, by its descriptor alone; fails where the name is taken. Allowed to the one who
/// opened it since Linux 6.10, before that to holders of CAP_DAC_READ_SEARCH.
pub fn link_descriptor(file: impl AsFd, folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::linkat(
        file,
        "",
        folder,
        OsStr::from_bytes(name),
        AtFlags::EMPTY_PATH,
    )?)
}

/// Gives an unnamed file a name, through `/proc`; fails where the name is taken.
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

/// Gives a named file a second name; fails where that is taken.
pub fn link_name(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> io::Result<()> {
    let (old, new) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    Ok(rustix::fs::linkat(from, old, to, new, AtFlags::empty())?)
}

/// Writes as much as the file takes at once.
pub fn write(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| rustix::io::write(&file, bytes))
}

/// Reads from a place in a file; 0 at its end.
pub fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    retry(|| rustix::io::pread(&file, &mut *buffer, offset))
}

/// Sends from a file's place to a socket; 0 at the file's end.
pub fn send_file(
    socket: impl AsFd,
    file: impl AsFd,
    offset: u64,
    most: usize,
) -> io::Result<usize> {
    let mut offset = offset;
    retry(|| rustix::fs::sendfile(&socket, &file, Some(&mut offset), most))
}

/// Sends bytes; `more` says that file data follows at once and should share the packet.
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

/// Keeps a file's MIME type as its extended attribute; false where the file system has none. Fails when the disk is
/// full or does not work.
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

/// The MIME type that a file's extended attribute tells.
pub fn mime_type(file: impl AsFd) -> Option<String> {
    let mut buffer = [0; MAX_MIME_TYPE];
    let length = rustix::fs::fgetxattr(file, MIME_TYPE, &mut buffer).ok()?;
    std::str::from_utf8(buffer.get(..length)?)
        .ok()
        .map(str::to_owned)
}

/// Keeps whether a text is UTF-8; nothing where the file system has no attributes. Fails when the disk is full or does
/// not work.
pub fn set_charset(file: impl AsFd, is_utf8: bool) -> io::Result<()> {
    let charset = if is_utf8 { UTF_8 } else { UNKNOWN_8BIT };
    let set = rustix::fs::fsetxattr(file, CHARSET, charset, XattrFlags::empty());
    match set.map_err(io::Error::from) {
        Err(error) if is_full(&error) || is_trouble(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the kept charset of a file is UTF-8; `None` when none is kept.
pub fn is_kept_as_utf8(file: impl AsFd) -> Option<bool> {
    let mut buffer = [0; 64];
    match rustix::fs::fgetxattr(file, CHARSET, &mut buffer) {
        Ok(length) => Some(buffer.get(..length)?.eq_ignore_ascii_case(UTF_8)),
        // A longer name is another charset's.
        Err(Errno::RANGE) => Some(false),
        Err(_) => None,
    }
}

/// Inodes that one upload may need: its file, the slot's folder, and the owner's.
const INODES: u64 = 3;

/// Inodes that are left free at least and at most: uploads that begin at the same time each need theirs.
const FEWEST_INODES: u64 = 2 * INODES;
const MOST_INODES: u64 = 1024;

/// What a file system has left for an unprivileged process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes; none when it can have no more files.
    pub bytes: u64,
    /// How many more files and folders it can have. `None` on file systems that make inodes as they need them (btrfs,
    /// some of the network), which tell no number.
    pub inodes: Option<u64>,
    /// With fewer inodes than these it counts as full: a 64th of all, but not many.
    pub least_inodes: u64,
}

/// What is left in the file system of a folder.
pub fn space(folder: impl AsFd) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(folder)?;
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    let bytes = match inodes {
        Some(inodes) if inodes < INODES => 0,
        // One that tells no size, as in memory or behind a daemon, has no bound to keep away from.
        _ if stat.f_blocks == 0 => u64::MAX,
        _ => stat.f_bavail.saturating_mul(stat.f_frsize),
    };
    Ok(Space {
        bytes,
        inodes,
        least_inodes: (stat.f_files / 64).clamp(FEWEST_INODES, MOST_INODES),
    })
}

/// Bytes of the file system that an unprivileged process may still use; none when it can have no more files.
pub fn free_space(folder: impl AsFd) -> io::Result<u64> {
    space(folder).map(|space| space.bytes)
}

/// Has the file system set so many bytes aside for a file; false where it cannot, as some cannot.
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

/// Whether an error says that there is no folder of that name.
pub fn is_no_folder(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}

/// Writes all that a file system holds back to stable storage.
pub fn sync_file_system(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Whether an error says that the disk, or a quota of the file system, has no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

/// Whether an error says that the disk does not work, or that the host is short of something: what was asked for may
/// well be there.
pub fn is_trouble(error: &io::Error) -> bool {
    let short = matches!(
        Errno::from_io_error(error),
        Some(Errno::NOMEM | Errno::TIMEDOUT | Errno::NOTCONN)
    );
    short || is_disk_trouble(error) || is_out_of_descriptors(error)
}

/// Whether an error says that the disk does not work; no socket has it.
pub fn is_disk_trouble(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::STALE | Errno::UCLEAN | Errno::BADMSG)
    )
}

/// Whether an error says that the process or the system is out of descriptors.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Whether an error of a new socket says that there is no such address family: the kernel was built or started without
/// it, or a filter of system calls hides it.
pub fn lacks_address_family(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::PFNOSUPPORT)
    )
}

/// Whether a folder is one that the group 0 may write to, and this process belongs to that group without being root:
/// so container platforms give a volume to a process that runs under any number (OpenShift). What is made in it must
/// then be of use to the next one, whose number is another.
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

/// The mode with the owner's rights for the group, too.
pub fn for_group_too(mode: u32) -> u32 {
    mode | (mode & 0o700) >> 3
}

/// Gives the group the owner's rights to what is open, if it is ours.
pub fn share_with_group(fd: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(&fd)?;
    let mode = stat.st_mode & 0o7777;
    let shared = for_group_too(mode);
    if shared != mode && stat.st_uid == user() {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(shared))?;
    }
    Ok(())
}

/// Raises the number of descriptors that the process may hold to what it may be; returns the number.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // What cannot be raised stays as it is.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps what is in memory, secrets among it, out of core dumps and from other processes of the same user.
pub fn guard_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Neither can fail: the limit is lowered, and the behaviour is one of those that there are.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Where the kernel counts this process's memory. It is kept open: once confined, the process cannot open it any more.
pub fn open_memory_counts() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/statm", flags, Mode::empty()).ok()
}

/// Bytes of the process that are in memory.
pub fn resident_memory(counts: impl AsFd) -> Option<u64> {
    let mut buffer = [0; 128];
    let length = read_at(counts, &mut buffer, 0).ok()?;
    let statm = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Lets modes of new files and folders be exactly those of the configuration.
pub fn clear_umask() {
    rustix::process::umask(Mode::empty());
}

/// Runs `make` with a umask.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(mask));
    let made = make();
    rustix::process::umask(before);
    made
}

/// The user that the process acts as; for messages.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Time since boot, while the machine was suspended included.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
}

/// What tells this boot of the host from others. Where `/proc` does not show it, as under the systemd unit, the
/// environment does.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let id = id.or_else(|| std::env::var("UPSLOT_BOOT_ID").ok())?;
    let id = id.trim().replace('-', "");
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// The monotonic clock. The loop reads it once per turn; slices of long work read it to know when to stop.
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// Microseconds of the monotonic clock, as service managers count them.
pub fn monotonic_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    // Wider than on some 32-bit hosts, never negative.
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
