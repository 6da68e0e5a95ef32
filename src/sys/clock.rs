//! The clocks; no other file of the program reads them.

use std::time::{Duration, SystemTime};

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
#[allow(clippy::disallowed_methods, reason = "the clocks are read here alone")]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// The monotonic clock in microseconds, as service managers expect it.
pub fn monotonic_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "the field is signed on some 32-bit targets, but never negative"
    )]
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000) + nanos / 1000
}

/// Both clocks, read once per turn.
#[allow(clippy::disallowed_methods, reason = "the clocks are read here alone")]
pub fn now() -> crate::now::Now {
    crate::now::Now {
        mono: monotonic(),
        wall: SystemTime::now(),
    }
}
