//! The two clocks of a turn, and the calendar.
//!
//! Time is read once per turn and passed down as a value, so that everything below the loop can be tested with a virtual
//! clock. Deadlines use `mono`. Times that outlive the process (file age, slot validity, dates on the wire) use `wall`,
//! which may jump, for example at boot on boards without a battery-backed clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The current time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic; for every deadline.
    pub mono: Instant,
    /// Wall clock; for times that outlive the process.
    pub wall: SystemTime,
}

impl Now {
    /// Whole seconds since 1970-01-01T00:00:00Z; 0 before it.
    pub fn unix(&self) -> u64 {
        unix(self.wall)
    }

    /// A time that is later on both clocks.
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

/// The last second of the year 9999 in Unix time; dates with four-digit years end there.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// Unix time of a date and time in UTC, given as year, month, day, hour, minute and second; negative before 1970.
/// `None` if it does not exist in the Gregorian calendar, or for years outside 1 to 9999. There are no leap seconds.
pub fn unix_from_civil([year, month, day, hour, minute, second]: [u64; 6]) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let exists = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !exists {
        return None;
    }
    // Days since 0000-03-01, in years that start in March, so that the leap day is the last day of the year.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(i64::try_from(seconds).ok()? - 719_468 * 86_400)
}

/// Formats a time as in XEP-0082 and RFC 3339, in UTC, without fractions: `2026-11-21T22:49:55Z`. A time before 1970 or
/// after 9999 becomes the nearest valid one.
pub fn date_time(time: SystemTime) -> String {
    let seconds = unix(time).min(LAST_SECOND);
    // As in "Sun, 06 Nov 1994 08:49:37 GMT".
    let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let (day, month, year, time) = (&http[5..7], &http[8..11], &http[12..16], &http[17..25]);
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(month).map_or(0, |at| at / 3 + 1);
    format!("{year}-{month:02}-{day}T{time}Z")
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
    fn civil_times_are_those_that_exist() {
        for (civil, seconds) in [
            ([1970, 1, 1, 0, 0, 0], 0),
            ([1969, 12, 31, 23, 59, 59], -1),
            ([2000, 2, 29, 0, 0, 0], 951_782_400),
            ([2026, 1, 1, 0, 0, 0], 1_767_225_600),
            ([2100, 3, 1, 0, 0, 0], 4_107_542_400),
            ([1, 1, 1, 0, 0, 0], -62_135_596_800),
            ([9999, 12, 31, 23, 59, 59], 253_402_300_799),
        ] {
            assert_eq!(unix_from_civil(civil), Some(seconds), "{civil:?}");
        }
        for civil in [
            [0, 1, 1, 0, 0, 0],
            [10_000, 1, 1, 0, 0, 0],
            [2026, 0, 1, 0, 0, 0],
            [2026, 13, 1, 0, 0, 0],
            [2026, 1, 0, 0, 0, 0],
            [2026, 4, 31, 0, 0, 0],
            [2026, 2, 29, 0, 0, 0],
            [2100, 2, 29, 0, 0, 0],
            [2026, 1, 1, 24, 0, 0],
            [2026, 1, 1, 0, 60, 0],
            [2026, 12, 31, 23, 59, 60],
            [u64::MAX; 6],
        ] {
            assert_eq!(unix_from_civil(civil), None, "{civil:?}");
        }
    }

    #[test]
    fn formatting_reverses_unix_from_civil() {
        // The step covers every hour, day and month.
        for seconds in (0..LAST_SECOND).step_by(7_654_321) {
            let text = date_time(UNIX_EPOCH + Duration::from_secs(seconds));
            let mut fields = text.trim_end_matches('Z').split(['-', 'T', ':']);
            let civil = std::array::from_fn(|_| fields.next().unwrap().parse().unwrap());
            assert_eq!(unix_from_civil(civil), Some(seconds as i64), "{text}");
        }
        check(LAST_SECOND, "9999-12-31T23:59:59Z");
        check(LAST_SECOND + 1, "9999-12-31T23:59:59Z");
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
