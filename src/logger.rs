//! The log: one line per event, to standard error or a file that SIGHUP reopens.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::LevelFilter;

/// The log file's path, once chosen, and the file that is open.
static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);

/// The variable that wins over the configuration.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging. `RUST_LOG` wins over `level`.
pub fn start(level: LevelFilter, path: Option<PathBuf>) -> Result<(), String> {
    let mut builder = Builder::new();
    if chosen_by_environment() {
        builder.parse_env(VARIABLE);
    } else {
        // Of ourselves everything passes here; `set_level` draws the line, so that a reload can move it.
        builder
            .filter_level(LevelFilter::Warn)
            .filter_module("upslot", LevelFilter::Trace);
    }
    builder.format(|line, record| {
        let (time, level) = (Timestamp(upslot::sys::now().wall), record.level());
        writeln!(line, "{time} {level:<5} {}", record.args())
    });
    if let Some(path) = path {
        let file = open(&path)
            .map_err(|error| format!("cannot open the log {}: {error}.", path.display()))?;
        if let Ok(mut held) = FILE.lock() {
            *held = Some((path, file));
        }
        builder.target(Target::Pipe(Box::new(ToFile)));
    }
    builder.init();
    set_level(level);
    Ok(())
}

/// Moves the line between what is logged and what is not, unless the environment drew it.
pub fn set_level(level: LevelFilter) {
    if !chosen_by_environment() {
        log::set_max_level(level);
    }
}

fn chosen_by_environment() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Opens the log file anew, after it was moved away.
pub fn reopen() {
    let Ok(mut held) = FILE.lock() else {
        return;
    };
    let Some((path, file)) = held.as_mut() else {
        return;
    };
    // A file that cannot be opened anew leaves the old one in use.
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

/// Writes to whatever file is open now.
struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match FILE.lock() {
            Ok(mut held) => match held.as_mut() {
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

/// A moment as RFC 3339 has it, in UTC, to the millisecond.
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
