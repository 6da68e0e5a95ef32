//! Numbers of bytes and files, and durations, written for people.

use std::fmt;
use std::time::Duration;

/// Bytes in units of 1024, with one decimal: `10.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded to the nearest.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    loop {
        let rounded = (tenths + 512) / 1024;
        if rounded < 10_240 || unit + 1 == UNITS.len() {
            return format!("{}.{} {}", rounded / 10, rounded % 10, UNITS[unit]);
        }
        tenths /= 1024;
        unit += 1;
    }
}

/// A number of files in words.
pub fn files(number: u64) -> String {
    counted(number, "file")
}

/// A size in the largest unit that divides it.
pub fn exact_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 8] = [
        (1 << 40, "TiB"),
        (1_000_000_000_000, "TB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(one, _)| bytes % one == 0) {
        Some((one, name)) => format!("{} {name}", bytes / one),
        None => counted(bytes, "byte"),
    }
}

/// A duration in words, in the largest unit that divides it.
pub fn duration_in_words(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(one, _)| seconds % one == 0);
    let (one, name) = unit.unwrap_or(&(1, "second"));
    counted(seconds / one, name)
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Bytes for people, with the exact number if the unit rounds.
#[derive(Clone, Copy, Debug)]
pub struct DisplaySize(pub u64);

impl fmt::Display for DisplaySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let bytes = self.0;
        let powers = bytes.checked_ilog2().unwrap_or(0) / 10;
        let Some(unit) = (powers as usize)
            .checked_sub(1)
            .map(|at| at.min(UNITS.len() - 1))
        else {
            let s = if bytes == 1 { "" } else { "s" };
            return write!(f, "{bytes} byte{s}");
        };
        let (name, one) = (UNITS[unit], 1_u64 << (10 * (unit + 1)));
        if bytes % one == 0 {
            return write!(f, "{} {name}", bytes / one);
        }
        // One decimal, never rounded up to more than there is.
        let tenths = u128::from(bytes) * 10 / u128::from(one);
        write!(f, "{}.{} {name} ({bytes} bytes)", tenths / 10, tenths % 10)
    }
}

/// A duration in the largest unit of the configuration that divides it.
#[derive(Clone, Copy, Debug)]
pub struct DisplayDuration(pub Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
        match units
            .iter()
            .find(|(one, _)| seconds > 0 && seconds % one == 0)
        {
            Some((one, name)) => write!(f, "{} {name}", seconds / one),
            None => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1535, "1.5 KiB"),
            (10_239, "10.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (10 << 20, "10.0 MiB"),
            ((10 << 20) + (52 << 10), "10.1 MiB"),
            (1023 << 20, "1023.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn numbers_have_units() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1025, "1.0 KiB (1025 bytes)"),
            (10 << 20, "10 MiB"),
            ((1 << 20) + (1 << 19), "1.5 MiB (1572864 bytes)"),
            ((1 << 20) - 1, "1023.9 KiB (1048575 bytes)"),
            (3 << 30, "3 GiB"),
            (2048 << 40, "2048 TiB"),
            (u64::MAX, "16777215.9 TiB (18446744073709551615 bytes)"),
        ] {
            assert_eq!(DisplaySize(bytes).to_string(), shown);
        }
        for (seconds, shown) in [
            (0, "0 s"),
            (1, "1 s"),
            (60, "1 m"),
            (90, "90 s"),
            (7200, "2 h"),
            (2_592_000, "30 d"),
        ] {
            assert_eq!(
                DisplayDuration(Duration::from_secs(seconds)).to_string(),
                shown
            );
        }
    }
}
