//! Classes of system errors.

use std::io;

use rustix::io::Errno;

/// Whether the error means that the folder does not exist.
pub fn is_no_folder(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOENT, Errno::NOTDIR, Errno::LOOP])
}

/// Whether the error means that the disk, or a quota of the file system, is full.
pub fn is_full(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG])
}

/// Whether the error means that the disk is failing or that the host is short of resources, as opposed to a missing
/// file: the file in question may well exist.
pub fn is_store_error(error: &io::Error) -> bool {
    let is_transient = is_one_of(error, &[Errno::NOMEM, Errno::TIMEDOUT, Errno::NOTCONN]);
    is_transient || is_disk_error(error) || is_out_of_descriptors(error)
}

/// Whether the error means that the disk is failing; socket operations never return it.
pub fn is_disk_error(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[Errno::IO, Errno::STALE, Errno::UCLEAN, Errno::BADMSG],
    )
}

/// Whether the error means that the new name of a folder is taken.
pub fn is_taken(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::EXIST, Errno::NOTEMPTY])
}

/// Whether the error means that the process or the system is out of file descriptors.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE])
}

/// Whether an error from creating a socket means that the address family is not supported: the kernel was built or
/// started without it, or a system call filter blocks it.
pub fn lacks_address_family(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[
            Errno::AFNOSUPPORT,
            Errno::PROTONOSUPPORT,
            Errno::PFNOSUPPORT,
        ],
    )
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| errors.contains(&errno))
}
