//! The process: limits, memory, umask and user.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::files::read_at;

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
