//! Files: creation, metadata, extended attributes, links, reading and writing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;

use super::errors::{is_full, is_store_error};
use super::retry;

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
pub struct FileStat {
    pub kind: FileKind,
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
pub enum FileKind {
    File,
    Folder,
    Other,
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> FileKind {
        match kind {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            _ => FileKind::Other,
        }
    }
}

fn facts(stat: &rustix::fs::Stat) -> FileStat {
    FileStat {
        kind: FileType::from_raw_mode(stat.st_mode).into(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: moment(stat.st_mtime, stat.st_mtime_nsec),
        changed: moment(stat.st_ctime, stat.st_ctime_nsec),
        identity: (stat.st_dev, stat.st_ino),
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_cast,
            reason = "narrower on some hosts"
        )]
        links: stat.st_nlink as u64,
    }
}

/// Converts a timestamp; times before 1970 become 1970. The types of the fields differ between targets.
fn moment(seconds: impl TryInto<u64>, nanos: impl TryInto<u64>) -> SystemTime {
    let seconds = Duration::from_secs(seconds.try_into().unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(nanos.try_into().unwrap_or(0))
}

/// Reads the metadata of a path, following links.
pub fn stat(path: &Path) -> io::Result<FileStat> {
    Ok(facts(&rustix::fs::stat(path)?))
}

/// Reads the metadata of an open file.
pub fn stat_open(fd: impl AsFd) -> io::Result<FileStat> {
    Ok(facts(&rustix::fs::fstat(fd)?))
}

/// Reads the metadata of one entry of a folder without following links.
pub fn stat_at(folder: impl AsFd, name: &[u8]) -> io::Result<FileStat> {
    let stat = rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(facts(&stat))
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

/// Whether an open file belongs to a user who may read and write it, and no other user may write it.
pub fn is_writable_only_by(fd: impl AsFd, user: u32) -> io::Result<bool> {
    const READ_WRITE: u32 = 0o600;
    const WRITE_BY_OTHERS: u32 = 0o022;
    let stat = rustix::fs::fstat(fd)?;
    let mode = Mode::from_raw_mode(stat.st_mode).bits();
    Ok(stat.st_uid == user && mode & READ_WRITE == READ_WRITE && mode & WRITE_BY_OTHERS == 0)
}

/// Sets the owning user and group of an open file.
pub fn set_owner(fd: impl AsFd, (user, group): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::fchown(fd, Some(user), Some(group))
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
pub fn hard_link(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> io::Result<()> {
    let (old, new) = (OsStr::from_bytes(old), OsStr::from_bytes(new));
    Ok(rustix::fs::linkat(from, old, to, new, AtFlags::empty())?)
}

/// Writes once; returns the number of bytes written.
pub fn write(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| rustix::io::write(&file, bytes))
}

/// Writes everything.
pub fn write_all(file: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match write(&file, rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
    }
    Ok(())
}

/// Reads from an offset of a file; 0 at its end.
pub fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    retry(|| rustix::io::pread(&file, &mut *buffer, offset))
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
        Err(error) if is_full(&error) || is_store_error(&error) => Err(error),
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
        Err(error) if is_full(&error) || is_store_error(&error) => Err(error),
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
