//! Deadlines and reproducible pseudo-random bytes.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Upper bound, on a busy machine, for operations that normally finish at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls for a condition without an event: a file is deleted, a descriptor is closed.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// `length` bytes of xorshift64*.
pub fn pseudo_random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Raises this process's limit of open files to its maximum, for many clients.
pub fn raise_descriptors(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(
        limit.maximum.is_none_or(|most| most >= needed),
        "this test needs {needed} descriptors"
    );
}

/// Whether tests that have a long form take it.
pub fn long() -> bool {
    std::env::var_os("UPSLOT_TESTS").is_some_and(|form| form == "long")
}
