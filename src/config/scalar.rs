//! Parsers of booleans, numbers, sizes, durations, modes, paths and other single values.
//!
//! Plain numbers are bytes and seconds, as in HttpUploadComponent; units are an addition. A leading zero is refused
//! outside modes, because YAML 1.1 reads it as octal and people read it as decimal.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::config::error::InvalidValue;
use crate::config::secret;
use crate::decimal;

/// Largest size, in bytes: what a file offset holds.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Longest duration, in seconds: a thousand years, which every clock can add to the present time.
pub const MAX_SECONDS: u64 = 365_000 * 86_400;

/// Any text.
pub fn text(text: &str) -> Result<String, InvalidValue> {
    Ok(text.to_owned())
}

/// The booleans of YAML 1.1 in any case, and 0 and 1.
pub fn boolean(text: &str) -> Result<bool, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "1" => Ok(true),
        "no" | "off" | "false" | "0" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// A whole number in `range`, which `T` can hold.
pub fn number<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, InvalidValue> {
    let number = digits(text).filter(|number| range.contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            format!("a whole number from {from} to {to}").into()
        })
}

const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Bytes, at least `least`: a plain number, or one with a unit of 1000 (`kB`, `MB`, `GB`, `TB`) or of 1024 (`KiB`,
/// `MiB`, `GiB`, `TiB`), in any case.
pub fn size(text: &str, least: u64) -> Result<u64, InvalidValue> {
    let size = split_unit(text, &SIZE_UNITS)
        .and_then(|(number, unit)| digits(number)?.checked_mul(unit))
        .filter(|size| (least..=MAX_SIZE).contains(size));
    size.ok_or_else(|| {
        let least = if least == 0 { "" } else { " above 0" };
        format!("a number of bytes{least}, such as 20971520 or 20 MiB").into()
    })
}

/// A duration of whole seconds up to a thousand years, at least `least` seconds.
pub fn span(text: &str, least: u64) -> Result<Duration, InvalidValue> {
    match milliseconds(text) {
        Some(ms) if ms % 1000 == 0 && (least..=MAX_SECONDS).contains(&(ms / 1000)) => {
            Ok(Duration::from_millis(ms))
        }
        _ => {
            let least = if least == 0 { "" } else { " above 0" };
            Err(format!("a number of whole seconds{least}, such as 2592000 or 30 d").into())
        }
    }
}

/// A timeout of 1 second to a day; fractions of a second are allowed.
pub fn timeout(text: &str) -> Result<Duration, InvalidValue> {
    match milliseconds(text) {
        Some(ms) if (1_000..=86_400_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("a number of seconds from 1 to 86400, such as 10 or 1.5 or 2 m".into()),
    }
}

/// File system permissions, always octal. `needed` are the bits that upslot itself needs.
pub fn mode(text: &str, needed: u32) -> Result<u32, InvalidValue> {
    let octal = text
        .strip_prefix("0o")
        .or_else(|| text.strip_prefix("0O"))
        .unwrap_or(text);
    let valid = (1..=4).contains(&octal.len()) && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(octal, 8) {
        Ok(mode) if valid && mode <= 0o777 && mode & needed == needed => Ok(mode),
        _ => Err(format!(
            "octal permissions that include 0{needed:o}, such as 0{:o}",
            needed | 0o040
        )
        .into()),
    }
}

/// The path of a file or folder.
pub fn path(text: &str) -> Result<PathBuf, InvalidValue> {
    if text.contains(char::is_control) {
        return Err("a path without control characters".into());
    }
    secret::refuse_template(text, "the path")?;
    if text == "~" || text.starts_with("~/") {
        return Err("a path without ~, which is not expanded".into());
    }
    if text.starts_with("file:") {
        return Err("a path without the prefix file:".into());
    }
    if text.ends_with([',', ';']) || text.trim() != text {
        return Err("a path that does not end with a comma, a semicolon or a space".into());
    }
    Ok(PathBuf::from(text))
}

/// Directories of the system, which hold other programs' files.
const SYSTEM: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/sys", "/usr", "/var",
];

/// The storage folder. Files below it are served and deleted, so the root of the file system and the directories of the
/// system are refused.
pub fn storage_path(text: &str) -> Result<PathBuf, InvalidValue> {
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    let folder = path(text)?;
    if folder.has_root() && !folder.components().any(is_name) {
        return Err("a folder of its own, not the root of the file system".into());
    }
    if SYSTEM.iter().any(|system| folder == Path::new(system)) {
        let expected =
            "a folder of its own, not a system directory, whose files would be served and deleted";
        return Err(expected.into());
    }
    Ok(folder)
}

/// How much is logged.
pub fn log_level(text: &str) -> Result<LevelFilter, InvalidValue> {
    if text.eq_ignore_ascii_case("warning") {
        return Ok(LevelFilter::Warn);
    }
    let level = text.parse().ok().filter(|level| *level != LevelFilter::Off);
    level.ok_or_else(|| "error, warn, info, debug or trace".into())
}

/// Whether the sandbox is on.
pub fn sandbox(text: &str) -> Result<bool, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(true),
        // How YAML 1.1 spells off.
        "off" | "false" | "no" => Ok(false),
        _ => Err("auto or off".into()),
    }
}

/// A MIME type (RFC 6838 §4.2), or a pattern `type/*` or `*/*`, in lower case and without parameters.
pub fn mime_pattern(text: &str) -> Result<String, InvalidValue> {
    let name = |part: &str| {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        (1..=127).contains(&part.len()) && part.bytes().all(token)
    };
    match text.split_once('/') {
        Some(("*", "*")) => {}
        Some((kind, "*")) if name(kind) => {}
        Some((kind, subtype)) if name(kind) && name(subtype) => {}
        _ => return Err("a MIME type such as image/png, or image/*".into()),
    }
    Ok(text.to_ascii_lowercase())
}

/// Decimal digits, which single underscores may group. No sign, no leading zero.
fn digits(text: &str) -> Option<u64> {
    let grouped = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    if !grouped || text.len() > 64 || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    decimal::parse(text.replace('_', "").as_bytes())
}

/// Splits a number from the unit after it, with or without a space between. `None` for an unknown unit.
fn split_unit<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(&'a str, u64)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_' && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some((number, *factor))
}

const TIME_UNITS: [(&str, u64); 5] = [("", 1), ("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// Seconds with up to three decimals, or another unit by its first letter.
fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text, &TIME_UNITS)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=3).contains(&decimals.len()) {
        return None;
    }
    let thousandths = decimal::parse(format!("{decimals:0<3}").as_bytes())?;
    digits(whole)?
        .checked_mul(1000)?
        .checked_add(thousandths)?
        .checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Checks valid texts with their values, and invalid texts.
    #[track_caller]
    fn check<T: Debug + PartialEq>(
        read: impl Fn(&str) -> Result<T, InvalidValue>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, value) in good {
            assert_eq!(read(text).as_ref(), Ok(value), "{text:?}");
        }
        for text in bad {
            let invalid = read(text).expect_err(text);
            assert!(!invalid.expected.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn reads_booleans() {
        let yes = ["yes", "Yes", "YES", "on", "On", "true", "TRUE", "1"].map(|t| (t, true));
        let no = ["no", "No", "NO", "off", "OFF", "false", "False", "0"].map(|t| (t, false));
        check(
            boolean,
            &yes,
            &["", "y", "n", "2", "yess", " yes", "truefalse"],
        );
        check(boolean, &no, &[]);
    }

    #[test]
    fn reads_numbers() {
        let bad = [
            "",
            "-1",
            "+1",
            "1.0",
            "01",
            "0x10",
            "65536",
            "_1",
            "1_",
            "1__0",
            "１",
            "1 ",
            "1e3",
            "99999999999999999999999",
        ];
        check(
            |t| number(t, 0..=65_535),
            &[
                ("0", 0),
                ("8080", 8080),
                ("65535", 65_535),
                ("6_5_535", 65_535),
            ],
            &bad,
        );
        check(|t| number(t, 1..=2), &[("1", 1)], &["0", "3"]);
    }

    #[test]
    fn reads_sizes() {
        check(
            |t| size(t, 0),
            &[
                ("0", 0),
                ("20971520", 20_971_520),
                ("20_971_520", 20_971_520),
                ("20 MiB", 20 << 20),
                ("20MiB", 20 << 20),
                ("20 mib", 20 << 20),
                ("1 KiB", 1024),
                ("1 kB", 1000),
                ("1KB", 1000),
                ("3 MB", 3_000_000),
                ("3 GB", 3_000_000_000),
                ("3 GiB", 3 << 30),
                ("2 TB", 2_000_000_000_000),
                ("2 TiB", 2 << 40),
                ("5 B", 5),
                ("9223372036854775807", i64::MAX as u64),
            ],
            &[
                "",
                "lots",
                "20M",
                "20 M",
                "1.5 GiB",
                "-1",
                "1 PiB",
                "MiB",
                "20 MiB x",
                "9223372036854775808",
                "18446744073709551616",
                "16777216 TiB",
                "010",
                "20\tMiB",
            ],
        );
        check(|t| size(t, 1), &[("1", 1)], &["0", "0 MiB"]);
    }

    #[test]
    fn reads_spans_and_timeouts() {
        let seconds = Duration::from_secs;
        check(
            |t| span(t, 0),
            &[
                ("0", seconds(0)),
                ("82800", seconds(82_800)),
                ("2_592_000", seconds(2_592_000)),
                ("30 d", seconds(2_592_000)),
                ("30D", seconds(2_592_000)),
                ("12h", seconds(43_200)),
                ("5 m", seconds(300)),
                ("7s", seconds(7)),
                ("1.5 m", seconds(90)),
                ("365000 d", seconds(MAX_SECONDS)),
            ],
            &[
                "",
                "-1",
                "1.5",
                "x",
                "1 w",
                "1 month",
                "365001 d",
                "18446744073709551615",
                "18446744073709551615 d",
                "1.",
                ".5 m",
                "1.0000",
            ],
        );
        check(|t| span(t, 1), &[("1", seconds(1))], &["0", "0 d"]);
        check(
            timeout,
            &[
                ("1", seconds(1)),
                ("1.5", Duration::from_millis(1500)),
                ("10.125 s", Duration::from_millis(10_125)),
                ("86400", seconds(86_400)),
                ("1 d", seconds(86_400)),
            ],
            &[
                "0",
                "0.999",
                "86400.001",
                "86401",
                "2 d",
                "-5",
                "1,5",
                "1.5.5",
                "1.2345",
                "ten",
            ],
        );
    }

    #[test]
    fn reads_modes_as_octal_however_written() {
        let read = |t: &str| mode(t, 0o600);
        let good = ["0640", "640", "0o640", "0O640", "0o0640"].map(|t| (t, 0o640));
        let bad = [
            "",
            "0o",
            "0x1a0",
            "0648",
            "00640 ",
            "00000640",
            "1640",
            "0400",
            "-640",
            "rw-r-----",
            "0o+640",
            "+640",
        ];
        check(read, &good, &bad);
        check(read, &[("777", 0o777), ("0600", 0o600)], &["0060"]);
        check(|t| mode(t, 0o700), &[("0750", 0o750)], &["0640"]);
    }

    #[test]
    fn reads_levels() {
        let good = [
            ("error", LevelFilter::Error),
            ("Warn", LevelFilter::Warn),
            ("INFO", LevelFilter::Info),
        ];
        check(log_level, &good, &["", "off", "verbose", "0"]);
        check(
            log_level,
            &[("debug", LevelFilter::Debug), ("trace", LevelFilter::Trace)],
            &[],
        );
    }

    #[test]
    fn reads_mime_patterns() {
        let good = [
            ("image/png", "image/png"),
            ("Image/*", "image/*"),
            ("*/*", "*/*"),
            ("application/vnd.api+json", "application/vnd.api+json"),
        ];
        let good = good.map(|(text, pattern)| (text, pattern.to_owned()));
        let bad = [
            "",
            "image",
            "image/",
            "/png",
            "*/png",
            "image/p*",
            "image/png; q=1",
            "a/b/c",
            "imäge/png",
            "image /png",
        ];
        check(mime_pattern, &good, &bad);
    }
}
