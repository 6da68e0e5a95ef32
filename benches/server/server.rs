//! The servers under test, each with a configuration and folders of its own. Beyond their start they differ in one
//! thing only: where the paths for new files come from.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;

use crate::Outcome;
use crate::link::{COMPONENT, DOMAIN, Link, SECRET, Target, Waiting};
use crate::process::Process;
use crate::scratch::Stop;

/// How long a server may take until it accepts connections.
const START: Duration = Duration::from_secs(10);
/// How long a server that failed may take to say why.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The count of slots bounds how long getting them takes.
const NO_LIMIT: Duration = Duration::from_secs(3600);
/// The path that both servers have below their root.
const PREFIX: &str = "/upload/";
/// So many owners' folders, as upslot makes for the bench's uploaders.
const OWNERS: u64 = 64;

#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Process,
    /// Where files lie, by the path after the prefix.
    root: PathBuf,
    /// Gives slots; nginx needs none.
    pub link: Option<Link>,
    /// Files named so far.
    serial: u64,
}

impl Server {
    /// Starts upslot, and waits until its link is up and its port is open.
    pub fn upslot(program: &Path, folder: &Path, durable: bool, stop: &Stop) -> Outcome<Server> {
        let root = folder.join("store");
        make(&root)?;
        let address = free_address()?;
        let waiting = Waiting::new()?;
        let config = format!(
            "component_jid: {COMPONENT}\n\
             component_secret: \"{SECRET}\"\n\
             component_host: 127.0.0.1\n\
             component_port: {}\n\
             storage_path: {}\n\
             whitelist: [{DOMAIN}]\n\
             max_file_size: 1073741824\n\
             max_connections: 2048\n\
             http_address: 127.0.0.1\n\
             http_port: {}\n\
             get_url: http://localhost{PREFIX}\n\
             put_url: http://localhost{PREFIX}\n\
             fsync: {durable}\n\
             log_level: warn\n",
            waiting.address.port(),
            quoted(&root)?,
            address.port(),
        );
        let file = folder.join("config.yml");
        save(&file, &config)?;
        let mut process =
            Process::start("upslot", Command::new(program).arg("-c").arg(&file), folder)?;
        let link = waiting.open(&mut process, stop)?;
        await_port(address, &mut process, stop)?;
        Ok(Server {
            name: "upslot",
            address,
            process,
            root,
            link: Some(link),
            serial: 0,
        })
    }

    /// Starts nginx as one process in the foreground: the same event loop as a single worker's, without a master
    /// that would only wait.
    pub fn nginx(program: &Path, folder: &Path, stop: &Stop) -> Outcome<Server> {
        let root = folder.join("www");
        make(&root)?;
        let address = free_address()?;
        let temporary = folder.join("tmp");
        make(&temporary)?;
        // What nginx would otherwise make below its system folders. A path of a module that was left out at
        // build time is an unknown directive.
        let built = Command::new(program)
            .arg("-V")
            .output()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let built = String::from_utf8_lossy(&built.stderr).into_owned();
        let mut paths = String::new();
        for module in ["proxy", "fastcgi", "uwsgi", "scgi"] {
            if !built.contains(&format!("--without-http_{module}_module")) {
                let path = quoted(&temporary.join(module))?;
                paths.push_str(&format!("    {module}_temp_path {path};\n"));
            }
        }
        // `user` means nothing to a process that is not root, and only warns; as root, nginx would otherwise work
        // as `nobody` below folders that only root may enter. keepalive_requests: the default ends a connection
        // after 1,000 requests, which upslot never does.
        let config = format!(
            "daemon off;\n\
             master_process off;\n\
             worker_processes 1;\n\
             pid {pid};\n\
             error_log stderr error;\n\
             events {{\n\
             \x20   worker_connections 2048;\n\
             }}\n\
             http {{\n\
             {paths}\
             \x20   client_body_temp_path {body};\n\
             \x20   access_log off;\n\
             \x20   sendfile on;\n\
             \x20   tcp_nopush on;\n\
             \x20   types {{ image/jpeg jpg; }}\n\
             \x20   keepalive_timeout 60s;\n\
             \x20   keepalive_requests 1000000000;\n\
             \x20   client_max_body_size 0;\n\
             \x20   server {{\n\
             \x20       listen {address};\n\
             \x20       root {root};\n\
             \x20       location / {{\n\
             \x20           dav_methods PUT;\n\
             \x20           create_full_put_path on;\n\
             \x20       }}\n\
             \x20   }}\n\
             }}\n",
            pid = quoted(&folder.join("pid"))?,
            body = quoted(&temporary.join("body"))?,
            root = quoted(&root)?,
        );
        let file = folder.join("nginx.conf");
        save(&file, &config)?;
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg("stderr");
        let mut process = Process::start("nginx", &mut command, folder)?;
        await_port(address, &mut process, stop)?;
        Ok(Server {
            name: "nginx",
            address,
            process,
            root,
            link: None,
            serial: 0,
        })
    }

    /// Names for new files: from upslot by slots, for nginx in a tree of the same shape.
    pub fn targets(&mut self, count: usize, size: u64, stop: &Stop) -> Outcome<Vec<Target>> {
        if let Some(link) = &mut self.link {
            return Ok(link.slots(count, size, NO_LIMIT, stop)?.0);
        }
        let mut targets = Vec::with_capacity(count);
        for _ in 0..count {
            let (owner, serial) = (self.serial % OWNERS, self.serial);
            let path = format!("{PREFIX}owner{owner:022}/{serial:020}~m/photo.jpg");
            self.serial += 1;
            targets.push(Target {
                put: path.clone(),
                get: path,
            });
        }
        Ok(targets)
    }

    /// The file behind a GET URL.
    pub fn file(&self, target: &Target) -> Outcome<PathBuf> {
        let path = percent_decode_str(&target.get).decode_utf8_lossy();
        // nginx keeps the prefix in its tree, upslot does not.
        let path = match &self.link {
            Some(_) => path.strip_prefix(PREFIX),
            None => path.strip_prefix('/'),
        };
        path.map(|path| self.root.join(path))
            .ok_or_else(|| format!("A GET URL outside the prefix: {}", target.get))
    }

    /// An error of the client's, with what became of the server.
    pub fn blame(&mut self, why: &str) -> String {
        // A connection breaks a moment before its process has ended.
        thread::sleep(LAST_WORDS);
        match self.process.check() {
            Ok(()) => format!("{}: {why} It logged: {}", self.name, self.process.said()),
            Err(ended) => format!("{why} {ended}"),
        }
    }
}

/// nginx from PATH, or from where Debian keeps it, which an ordinary user's PATH lacks.
pub fn find_nginx() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("nginx"))
        .find(|file| file.is_file())
}

/// A port that was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
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

/// A path between double quotes, for YAML and for nginx.
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
