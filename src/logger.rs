//! Logging: one line per event, to standard error or to a file that is reopened on SIGHUP.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::LevelFilter;

/// Path and handle of the log file, if one is configured.
static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);

/// Maximum length of the text of a line in bytes; the rest is cut off. Only text from outside comes close to it.
const MAX_TEXT: usize = 4096;

/// Replaces the rest of a text that was cut.
const CUT: &str = " (cut)";

/// The environment variable that takes precedence over the configuration.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging. `RUST_LOG` takes precedence over `level`.
pub fn start(level: LevelFilter, path: Option<PathBuf>) -> Result<(), String> {
    let mut builder = Builder::new();
    if is_set_by_environment() {
        builder.parse_env(VARIABLE);
    } else {
        // This filter passes everything from upslot; `set_level` limits the level, so that a reload can change it.
        builder
            .filter_level(LevelFilter::Warn)
            .filter_module("upslot", LevelFilter::Trace);
    }
    builder.format(|line, record| {
        let (time, level) = (Timestamp(upslot::sys::now().wall), record.level());
        write!(line, "{time} {level:<5} ")?;
        // Text beyond the limit is cut off.
        let _ = OneLine::new(line).write_fmt(*record.args());
        writeln!(line)
    });
    if let Some(path) = path {
        let file = open(&path)
            .map_err(|error| format!("cannot open the log {}: {error}.", path.display()))?;
        if let Ok(mut guard) = FILE.lock() {
            *guard = Some((path, file));
        }
        builder.target(Target::Pipe(Box::new(ToFile)));
    }
    builder.init();
    set_level(level);
    Ok(())
}

/// Changes the log level, unless the environment sets it.
pub fn set_level(level: LevelFilter) {
    if !is_set_by_environment() {
        log::set_max_level(level);
    }
}

fn is_set_by_environment() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Reopens the log file after it was rotated.
pub fn reopen() {
    let Ok(mut guard) = FILE.lock() else {
        return;
    };
    let Some((path, file)) = guard.as_mut() else {
        return;
    };
    // If the file cannot be opened, the old one stays in use.
    if let Ok(opened) = open(path) {
        *file = opened;
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// Writes to the file that is currently open.
struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match FILE.lock() {
            Ok(mut guard) => match guard.as_mut() {
                Some((_, file)) => file.write(bytes),
                None => Ok(bytes.len()),
            },
            Err(_) => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the text of one event as a single line, even if parts of it come from outside. Line breaks, terminal control
/// sequences, invisible characters and changes of the writing direction are escaped. Code that logs outside text in
/// quotes escapes it itself; this is the safety net for values that are logged unquoted, such as addresses.
struct OneLine<'a, W> {
    out: &'a mut W,
    /// Bytes that may still be written.
    left: usize,
}

impl<'a, W: Write> OneLine<'a, W> {
    fn new(out: &'a mut W) -> OneLine<'a, W> {
        OneLine {
            out,
            left: MAX_TEXT,
        }
    }

    fn put(&mut self, text: &str) -> fmt::Result {
        let Some(left) = self.left.checked_sub(text.len()) else {
            self.left = 0;
            // The error below stops the formatting.
            let _ = self.out.write_all(CUT.as_bytes());
            return Err(fmt::Error);
        };
        self.left = left;
        self.out.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl<W: Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |byte: &u8| (b' '..=b'~').contains(byte);
        if text.len() <= self.left && text.as_bytes().iter().all(plain) {
            return self.put(text);
        }
        let mut buffer = [0; 4];
        for c in text.chars() {
            // `escape_debug` leaves visible characters unchanged, apart from quotes and backslashes.
            let escaped = c.escape_debug();
            if matches!(c, ' '..='~') || escaped.len() == 1 {
                self.put(c.encode_utf8(&mut buffer))?;
            } else {
                self.put(&escaped.to_string())?;
            }
        }
        Ok(())
    }
}

/// A time in RFC 3339 format, in UTC, with milliseconds.
struct Timestamp(SystemTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = upslot::now::date_time(self.0);
        write!(
            f,
            "{}.{:03}Z",
            stamp.trim_end_matches('Z'),
            since.subsec_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, line: &str) {
        let mut out = Vec::new();
        let _ = write!(OneLine::new(&mut out), "{text}");
        assert_eq!(String::from_utf8(out).unwrap(), line, "{text:?}");
    }

    #[test]
    fn an_event_is_one_line() {
        check("", "");
        check("a \"b\" 'c' \\ ~", "a \"b\" 'c' \\ ~");
        check("jürgen 日本 😀", "jürgen 日本 😀");
        check("a\r\nb\0\t\u{1b}[m\u{7f}", "a\\r\\nb\\0\\t\\u{1b}[m\\u{7f}");
        check("a\u{85}b\u{2028}c\u{2029}", "a\\u{85}b\\u{2028}c\\u{2029}");
        check(
            "a\u{202e}b\u{200b}\u{feff}",
            "a\\u{202e}b\\u{200b}\\u{feff}",
        );
    }

    #[test]
    fn long_text_is_cut() {
        check(&"x".repeat(MAX_TEXT), &"x".repeat(MAX_TEXT));
        check(
            &"x".repeat(MAX_TEXT + 1),
            &format!("{}{CUT}", "x".repeat(MAX_TEXT)),
        );
        let mut out = Vec::new();
        let long = "\u{202e}".repeat(MAX_TEXT);
        let _ = write!(OneLine::new(&mut out), "a={long} b={long}");
        assert!(out.len() <= MAX_TEXT + CUT.len(), "{}", out.len());
        assert!(out.ends_with(CUT.as_bytes()));
    }
}
