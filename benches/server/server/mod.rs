//! The servers under test, each with a configuration and folders of its own. Beyond their start they differ in one
//! thing only: where the paths for new files come from.
//!
//! - [`upslot`] the subject;
//! - [`nginx`] what everybody's ratio is to;
//! - [`lighttpd`] a second peer;
//! - [`limit`] bare loops, for how far it can be brought at all.

mod lighttpd;
mod limit;
mod nginx;
mod upslot;

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;

use crate::Outcome;
use crate::certificate::Certificate;
use crate::limit::FILE_NAME;
use crate::link::{Link, Target};
use crate::process::Process;
use crate::scratch::Stop;
use crate::server::lighttpd::Lighttpd;
use crate::server::nginx::Nginx;
use crate::stream::Door;

/// How long a server may take until it accepts connections.
const START: Duration = Duration::from_secs(10);
/// How long a server that failed may take to say why.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The count of slots bounds how long getting them takes.
const NO_LIMIT: Duration = Duration::from_secs(3600);
/// How many every server is told to serve at a time, but for cases that need more.
pub const CONNECTIONS: usize = 2048;
/// The path that all servers have below their root.
const PREFIX: &str = "/upload/";
/// So many owners' folders, as upslot makes for the bench's uploaders.
const OWNERS: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Upslot,
    Nginx,
    Lighttpd,
    /// A bare loop.
    Limit,
    /// Another one, for PUT.
    LimitSplice,
}

impl Kind {
    /// In the order of their turns.
    pub const ALL: &[Kind] = &[
        Kind::Upslot,
        Kind::Nginx,
        Kind::Lighttpd,
        Kind::Limit,
        Kind::LimitSplice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Upslot => "upslot",
            Kind::Nginx => "nginx",
            Kind::Lighttpd => "lighttpd",
            Kind::Limit => "limit",
            Kind::LimitSplice => "limit-splice",
        }
    }
}

/// What of the servers is there.
#[derive(Debug)]
pub struct Installed {
    pub upslot: PathBuf,
    nginx: Option<Nginx>,
    lighttpd: Option<Lighttpd>,
}

impl Installed {
    pub fn look(upslot: &Path) -> Installed {
        Installed {
            upslot: upslot.to_owned(),
            nginx: Nginx::find(),
            lighttpd: Lighttpd::find(),
        }
    }

    /// Why a server cannot take part in a case, if so.
    pub fn lacks(&self, kind: Kind, put: bool, tls: bool) -> Option<&'static str> {
        match kind {
            Kind::Upslot | Kind::Limit | Kind::LimitSplice => None,
            Kind::Nginx => match &self.nginx {
                Some(nginx) => nginx.lacks(put, tls),
                None => Some("the program"),
            },
            Kind::Lighttpd => match &self.lighttpd {
                Some(lighttpd) => lighttpd.lacks(put, tls),
                None => Some("the program"),
            },
        }
    }

    /// A server's version, and what is set, for the user.
    pub fn shown(&self, kind: Kind) -> String {
        let absent = || "not installed".to_owned();
        match kind {
            Kind::Upslot => format!("{}; log_level warn", version(&self.upslot, "-V")),
            Kind::Nginx => self.nginx.as_ref().map_or_else(absent, |nginx| {
                format!("{}; {}", nginx.version, nginx::SETTINGS)
            }),
            Kind::Lighttpd => self.lighttpd.as_ref().map_or_else(absent, |lighttpd| {
                format!("{}; {}", lighttpd.version, lighttpd::SETTINGS)
            }),
            Kind::Limit => limit::SETTINGS.to_owned(),
            Kind::LimitSplice => format!("{}; its PUT splices", limit::SETTINGS),
        }
    }
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    pub installed: &'a Installed,
    /// Its own, empty.
    pub folder: PathBuf,
    pub tls: Option<&'a Certificate>,
    /// Whether it answers a PUT only when the file is on the disk. upslot alone can.
    pub durable: bool,
    /// What it is for: a limit line can do one thing only.
    pub put: bool,
    /// Bytes of a body; a limit line knows one size only.
    pub size: u64,
    /// A file of that size: what a limit line has to send.
    pub body: PathBuf,
    /// How many it is told to serve at a time.
    pub connections: usize,
    /// More lines for upslot's configuration.
    pub config: String,
    pub stop: &'a Stop,
}

impl Setup<'_> {
    fn door(&self, address: SocketAddr) -> Door {
        Door {
            address,
            tls: self.tls.map(|certificate| Arc::clone(&certificate.client)),
        }
    }
}

#[derive(Debug)]
pub struct Server {
    pub kind: Kind,
    pub door: Door,
    pub process: Process,
    /// Where files lie, by the path after the prefix.
    root: PathBuf,
    /// Gives slots; the peers need none.
    pub link: Option<Link>,
    /// Files named so far.
    serial: u64,
    /// What it was started for.
    put: bool,
    /// It has helper threads, which need every core.
    pub durable: bool,
}

impl Server {
    pub fn start(kind: Kind, setup: &Setup<'_>) -> Outcome<Server> {
        let absent = || format!("{} is not installed.", kind.name());
        let installed = setup.installed;
        match kind {
            Kind::Upslot => upslot::start(setup),
            Kind::Nginx => installed.nginx.as_ref().ok_or_else(absent)?.start(setup),
            Kind::Lighttpd => installed.lighttpd.as_ref().ok_or_else(absent)?.start(setup),
            Kind::Limit | Kind::LimitSplice => limit::start(kind, setup),
        }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Names for new files: from upslot by slots, for its peers in a tree of the same shape.
    pub fn targets(&mut self, count: usize, size: u64, stop: &Stop) -> Outcome<Vec<Target>> {
        if let Some(link) = &mut self.link {
            return Ok(link.slots(count, size, NO_LIMIT, stop)?.0);
        }
        let mut targets = Vec::with_capacity(count);
        for _ in 0..count {
            let (owner, serial) = (self.serial % OWNERS, self.serial);
            // A limit line names files itself, by their number; which of equal files has which does not matter.
            let path = match self.kind {
                Kind::Limit | Kind::LimitSplice => format!("{PREFIX}{serial}/{FILE_NAME}"),
                _ => format!("{PREFIX}owner{owner:022}/{serial:020}~m/photo.jpg"),
            };
            self.serial += 1;
            // WebDAV makes no folder that was not asked for (RFC 4918 §9.7.1).
            if self.kind == Kind::Lighttpd {
                if let Some(folder) = self.root.join(&path[1..]).parent() {
                    make(folder)?;
                }
            }
            targets.push(Target {
                put: path.clone(),
                get: path,
            });
        }
        Ok(targets)
    }

    /// Whether it answers a GET; a limit line that stores does not.
    pub fn serves(&self) -> bool {
        !self.limit_of(true)
    }

    /// Whether it takes a PUT; a limit line that serves does not, and has its one file from the start.
    pub fn stores(&self) -> bool {
        !self.limit_of(false)
    }

    fn limit_of(&self, put: bool) -> bool {
        matches!(self.kind, Kind::Limit | Kind::LimitSplice) && self.put == put
    }

    /// The file behind a GET URL.
    pub fn file(&self, target: &Target) -> Outcome<PathBuf> {
        let path = percent_decode_str(&target.get).decode_utf8_lossy();
        // The peers keep the prefix in their trees, upslot does not.
        let path = match self.kind {
            Kind::Nginx | Kind::Lighttpd => path.strip_prefix('/'),
            Kind::Upslot | Kind::Limit | Kind::LimitSplice => path.strip_prefix(PREFIX),
        };
        path.map(|path| self.root.join(path))
            .ok_or_else(|| format!("A GET URL outside the prefix: {}", target.get))
    }

    /// An error of the client's, with what became of the server.
    pub fn blame(&mut self, why: &str) -> String {
        // A connection breaks a moment before its process has ended.
        thread::sleep(LAST_WORDS);
        match self.process.check() {
            Ok(()) => format!("{}: {why} It logged: {}", self.name(), self.process.said()),
            Err(ended) => format!("{why} {ended}"),
        }
    }
}

/// A program from PATH, or from where Debian keeps servers, which an ordinary user's PATH lacks.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first line that a program prints, on whichever stream, when asked for its version.
fn version(program: &Path, argument: &str) -> String {
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

fn await_port(address: SocketAddr, process: &mut Process, stop: &Stop) -> Outcome<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        stop.check()?;
        process.check()?;
        if Instant::now() > deadline {
            return Err(format!(
                "Nothing listens on {address}. The log: {}",
                process.said()
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A path between double quotes, for YAML and the peers' configurations.
fn quoted(path: &Path) -> Outcome<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '$', '\n']) => Ok(format!("\"{text}\"")),
        _ => Err(format!(
            "{} is no path for a configuration.",
            path.display()
        )),
    }
}

fn make(folder: &Path) -> Outcome<()> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn save(file: &Path, text: &str) -> Outcome<()> {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}
