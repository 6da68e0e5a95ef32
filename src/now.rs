//! The two clocks of a turn.
//!
//! Time is read once per turn and passed down as a value, so that everything below the loop can be tested on a
//! virtual clock. Deadlines use `mono`; only what outlives the process (file age, slot validity, dates on the
//! wire) uses `wall`, because boards without a battery-backed clock jump at boot.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic; for every deadline.
    pub mono: Instant,
    /// Wall clock; for what outlives the process.
    pub wall: SystemTime,
}

impl Now {
    /// Whole seconds since 1970-01-01T00:00:00Z; 0 before it.
    pub fn unix(&self) -> u64 {
        unix(self.wall)
    }

    /// The same moment, `by` later on both clocks.
    pub fn later(&self, by: Duration) -> Now {
        Now {
            mono: self.mono + by,
            wall: self.wall + by,
        }
    }
}

/// Whole seconds since 1970-01-01T00:00:00Z; 0 before it.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A moment as XEP-0082 and RFC 3339 write it, in UTC, to the second: `2026-11-21T22:49:55Z`. A moment before 1970
/// becomes its first second.
pub fn date_time(time: SystemTime) -> String {
    let seconds = unix(time);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil date of a day number, in years that begin in March so that the leap day comes last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: u64, written: &str) {
        assert_eq!(
            date_time(UNIX_EPOCH + Duration::from_secs(seconds)),
            written
        );
    }

    #[test]
    fn dates_are_civil() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_767_225_599, "2025-12-31T23:59:59Z");
        check(1_767_225_600, "2026-01-01T00:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        assert_eq!(
            date_time(UNIX_EPOCH - Duration::from_secs(9)),
            "1970-01-01T00:00:00Z"
        );
    }
}
