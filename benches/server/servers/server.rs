//! A running server.

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
use crate::servers::setup::{PREFIX, ServerSetup};
use crate::stop::StopSignal;
use crate::stream::Endpoint;

/// Time for a failing server to log the reason and exit.
const EXIT_DELAY: Duration = Duration::from_millis(100);
/// For requests of slots, which their number bounds.
const NO_LIMIT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Server {
    pub kind: ServerKind,
    pub endpoint: Endpoint,
    pub process: Process,
    /// The folder of the stored files.
    pub file_root: PathBuf,
    /// For requesting slots; upslot only.
    pub link: Option<Link>,
    /// Targets created so far.
    targets_created: u64,
    /// Whether it was started for PUTs; relevant for limit servers.
    for_put: bool,
    /// Whether a PUT is answered once the file is on stable storage, for which upslot has helper threads.
    pub durable: bool,
    /// The start of the path of all URLs.
    prefix: String,
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
            targets_created: 0,
            for_put: setup.for_put,
            durable: setup.durable,
            prefix: setup.prefix(),
        }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Targets for new files: slots of upslot, or paths of the same shape on the other servers.
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
            let serial = self.targets_created;
            let owner = serial % OWNERS as u64;
            // A limit server numbers files itself as they become complete; their order does not matter.
            let path = match self.kind {
                ServerKind::Limit | ServerKind::LimitSplice => {
                    format!("{PREFIX}{serial}/{FILE_NAME}")
                }
                _ => format!("{PREFIX}owner{owner:022}/{serial:020}~m/{FILE_NAME}"),
            };
            self.targets_created += 1;
            // WebDAV does not create folders implicitly (RFC 4918 §9.7.1).
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

    /// Takes back the last `count` targets, which were not used: a limit server numbers only files that it received.
    pub fn return_targets(&mut self, count: usize) {
        if self.link.is_none() {
            self.targets_created -= count as u64;
        }
    }

    /// The link for requesting slots; an error for servers other than upslot.
    pub fn link(&mut self) -> Outcome<&mut Link> {
        let link = self.link.as_mut();
        link.ok_or_else(|| "this server has no link".to_owned())
    }

    /// Whether it supports GET, which a limit server for PUT does not.
    pub fn answers_get(&self) -> bool {
        !self.is_limit_for(true)
    }

    /// Whether it supports PUT, which a limit server for GET does not; it has its file from the start.
    pub fn accepts_put(&self) -> bool {
        !self.is_limit_for(false)
    }

    fn is_limit_for(&self, for_put: bool) -> bool {
        matches!(self.kind, ServerKind::Limit | ServerKind::LimitSplice) && self.for_put == for_put
    }

    /// The path of the stored file of a target.
    pub fn file_path(&self, target: &Target) -> Outcome<PathBuf> {
        let path = percent_decode_str(&target.get).decode_utf8_lossy();
        // nginx and lighttpd have the prefix in their document root.
        let path = match self.kind {
            ServerKind::Nginx | ServerKind::Lighttpd => path.strip_prefix('/'),
            ServerKind::Upslot | ServerKind::Limit | ServerKind::LimitSplice => {
                path.strip_prefix(&self.prefix)
            }
        };
        path.map(|path| self.file_root.join(path))
            .ok_or_else(|| format!("{} does not have the prefix {}", target.get, self.prefix))
    }

    /// The message for an error of the client, with the state and the log of the server.
    pub fn explain_failure(&mut self, why: &str) -> String {
        // The connections of a process that crashes close before it can be waited for.
        thread::sleep(EXIT_DELAY);
        match self.process.check_running() {
            Ok(()) => format!(
                "{}: {why}. Its log ends: {}",
                self.name(),
                self.process.log_tail()
            ),
            Err(exited) => format!("{why}; {exited}"),
        }
    }
}
