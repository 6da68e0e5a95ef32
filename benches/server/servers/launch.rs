//! What every start of a server needs: its program, a port, files, and the wait until it listens.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::outcome::Outcome;
use crate::process::Process;
use crate::stop::StopSignal;

/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A program from PATH, or from where Debian keeps servers, which an ordinary user's PATH lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first line that a program prints, on whichever stream, when asked for its version.
pub fn program_version(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return "unknown".to_owned();
    };
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// A port that was free a moment ago.
pub fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("No free port: {e}"))
}

/// Waits until a server accepts connections.
pub fn await_listening(
    address: SocketAddr,
    process: &mut Process,
    stop: &StopSignal,
) -> Outcome<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        stop.check()?;
        process.check_running()?;
        if Instant::now() > deadline {
            return Err(format!(
                "Nothing listens on {address}. The log: {}",
                process.log_tail()
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A path between double quotes, for YAML and the peers' configurations.
pub fn quoted(path: &Path) -> Outcome<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '$', '\n']) => Ok(format!("\"{text}\"")),
        _ => Err(format!(
            "{} is no path for a configuration.",
            path.display()
        )),
    }
}

/// Makes a folder in another one.
pub fn create_folder(parent: &Path, name: &str) -> Outcome<PathBuf> {
    let folder = parent.join(name);
    match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(e) => Err(format!("{}: {e}", folder.display())),
    }
}

pub fn write_file(file: &Path, text: &str) -> Outcome<()> {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}
