//! A server that runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::limit::FILE_NAME;
use crate::link::{Link, OWNERS, Target};
use crate::process::Process;
use crate::servers::launch::{await_listening, create_folder};
use crate::servers::setup::ServerSetup;
use crate::stop::StopSignal;
use crate::stream::Endpoint;

/// How long a server that failed may take to say why.
const EXIT_DELAY: Duration = Duration::from_millis(100);
/// The count of slots bounds how long getting them takes.
const NO_LIMIT: Duration = Duration::from_secs(3600);
/// The path that all servers have below their file_root.
pub const PREFIX: &str = "/upload/";

#[derive(Debug)]
pub struct Server {
    pub kind: ServerKind,
    pub endpoint: Endpoint,
    pub process: Process,
    /// Where files lie, by the path after the prefix.
    file_root: PathBuf,
    /// Gives slots; the peers need none.
    pub link: Option<Link>,
    /// Files named so far.
    files_named: u64,
    /// What it was started for.
    for_put: bool,
    /// It has helper threads, which need every core.
    pub durable: bool,
}

impl Server {
    /// Starts a program and waits until it accepts connections.
    pub fn start(
        kind: ServerKind,
        command: &mut Command,
        address: SocketAddr,
        file_root: PathBuf,
        setup: &ServerSetup<'_>,
    ) -> Outcome<Server> {
        let mut process = Process::start(kind.name(), command, &setup.folder)?;
        await_listening(address, &mut process, setup.stop)?;
        Ok(Server::new(kind, process, address, file_root, setup))
    }

    pub fn new(
        kind: ServerKind,
        process: Process,
        address: SocketAddr,
        file_root: PathBuf,
        setup: &ServerSetup<'_>,
    ) -> Server {
        Server {
            kind,
            endpoint: setup.endpoint(address),
            process,
            file_root,
            link: None,
            files_named: 0,
            for_put: setup.for_put,
            durable: setup.durable,
        }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Names for new files: from upslot by slots, for its peers in a tree of the same shape.
    pub fn new_targets(
        &mut self,
        count: usize,
        size: u64,
        stop: &StopSignal,
    ) -> Outcome<Vec<Target>> {
        if let Some(link) = &mut self.link {
            return Ok(link.request_slots(count, size, NO_LIMIT, stop)?.0);
        }
        let mut targets = Vec::with_capacity(count);
        for _ in 0..count {
            let serial = self.files_named;
            let owner = serial % OWNERS as u64;
            // A limit line names files itself, by their number; which of equal files has which does not matter.
            let path = match self.kind {
                ServerKind::Limit | ServerKind::LimitSplice => {
                    format!("{PREFIX}{serial}/{FILE_NAME}")
                }
                _ => format!("{PREFIX}owner{owner:022}/{serial:020}~m/{FILE_NAME}"),
            };
            self.files_named += 1;
            // WebDAV makes no folder that was not asked for (RFC 4918 §9.7.1).
            if self.kind == ServerKind::Lighttpd {
                if let Some((folder, _)) = path[1..].rsplit_once('/') {
                    create_folder(&self.file_root, folder)?;
                }
            }
            targets.push(Target {
                put: path.clone(),
                get: path,
            });
        }
        Ok(targets)
    }

    /// The link that upslot has.
    pub fn link(&mut self) -> Outcome<&mut Link> {
        let link = self.link.as_mut();
        link.ok_or_else(|| "There is no link to ask for slots.".to_owned())
    }

    /// Whether it answers a GET; a limit line that stores does not.
    pub fn answers_get(&self) -> bool {
        !self.limit_of(true)
    }

    /// Whether it takes a PUT; a limit line that serves does not, and has its one file from the start.
    pub fn accepts_put(&self) -> bool {
        !self.limit_of(false)
    }

    fn limit_of(&self, for_put: bool) -> bool {
        matches!(self.kind, ServerKind::Limit | ServerKind::LimitSplice) && self.for_put == for_put
    }

    /// The file behind a GET URL.
    pub fn file_path(&self, target: &Target) -> Outcome<PathBuf> {
        let path = percent_decode_str(&target.get).decode_utf8_lossy();
        // The peers keep the prefix in their trees, upslot does not.
        let path = match self.kind {
            ServerKind::Nginx | ServerKind::Lighttpd => path.strip_prefix('/'),
            ServerKind::Upslot | ServerKind::Limit | ServerKind::LimitSplice => {
                path.strip_prefix(PREFIX)
            }
        };
        path.map(|path| self.file_root.join(path))
            .ok_or_else(|| format!("A GET URL outside the prefix: {}", target.get))
    }

    /// An error of the client's, with what became of the server.
    pub fn explain_failure(&mut self, why: &str) -> String {
        // A connection breaks a moment before its process has ended.
        thread::sleep(EXIT_DELAY);
        match self.process.check_running() {
            Ok(()) => format!(
                "{}: {why} It logged: {}",
                self.name(),
                self.process.log_tail()
            ),
            Err(ended) => format!("{why} {ended}"),
        }
    }
}
