//! Helpers for starting a server: finding the program and a free port, writing files, waiting until it listens.

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

/// Time for a server to begin accepting connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds a program in PATH, or where Debian installs servers, which is not in the PATH of ordinary users.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first line of what a program prints about its version, on standard output or standard error.
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

/// An address with a port that was free when this was called.
pub fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("no free port: {e}"))
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
                "the server does not listen on {address}. Its log ends: {}",
                process.log_tail()
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A path in double quotes, for the configuration of any of the servers.
pub fn quoted(path: &Path) -> Outcome<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '$', '\n']) => Ok(format!("\"{text}\"")),
        _ => Err(format!(
            "{} cannot be quoted in a configuration",
            path.display()
        )),
    }
}

/// Creates a folder in another.
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
