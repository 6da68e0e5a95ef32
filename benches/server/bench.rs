//! The context of all cases and scenarios: options, and starting, seeding and connecting to servers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::cases::{GetKind, SMALL};
use crate::certificate::Certificate;
use crate::common::options::Options;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::link::Target;
use crate::load::{LoadGenerator, Plan, Request};
use crate::pattern::Pattern;
use crate::placement::Placement;
use crate::response::{ExpectedResponse, field};
use crate::scratch::Scratch;
use crate::servers::{
    CONNECTIONS, InstalledServers, Server, ServerSetup, StoreProcess, StoredObjects,
};
use crate::stop::StopSignal;

/// After this time, no more requests are started in a turn, however slow the machine is.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The context of all cases and scenarios.
#[derive(Debug)]
pub struct Bench<'a> {
    pub options: &'a Options,
    pub stop: &'a StopSignal,
    pub scratch: &'a Scratch,
    pub installed: &'a InstalledServers,
    pub certificate: Certificate,
    pub placement: &'a Placement,
    pub pattern: Pattern,
    /// How many files a process may have open.
    pub open_file_limit: u64,
}

impl Bench<'_> {
    /// The servers that are selected and support a case. Reports those that do not, with the reason.
    pub fn available(
        &self,
        name: &str,
        kinds: &[ServerKind],
        put: bool,
        tls: bool,
        report: &mut Report,
    ) -> Outcome<Vec<ServerKind>> {
        let mut available = Vec::new();
        for kind in kinds {
            if !self.options.only.contains(kind) {
                continue;
            }
            match self.installed.missing(*kind, put, tls) {
                Some(missing) => {
                    report.remark(&format!(
                        "{name}: skipping {}: {missing} is not installed",
                        kind.name()
                    ))?;
                }
                None => available.push(*kind),
            }
        }
        Ok(available)
    }

    /// Starts a server for small files. A limit server supports only GET.
    pub fn start(&self, kind: ServerKind, case: &str, tls: bool, durable: bool) -> Outcome<Server> {
        let setup = self.setup(kind, case, tls, SMALL)?;
        self.start_with(kind, ServerSetup { durable, ..setup })
    }

    /// Starts a server and stores a small file on it.
    pub fn start_seeded(&self, kind: ServerKind, case: &str) -> Outcome<(Server, Target)> {
        let mut server = self.start(kind, case, false, false)?;
        let seed = self.seed(&mut server, SMALL);
        let seed = seed.map_err(|why| self.explain_failure(&mut server, why))?;
        Ok((server, seed))
    }

    /// Starts a server, pinned to its core.
    pub fn start_with(&self, kind: ServerKind, setup: ServerSetup<'_>) -> Outcome<Server> {
        let server = self.installed.start(kind, &setup)?;
        self.placement
            .place_server(server.process.id(), !setup.durable);
        Ok(server)
    }

    /// Starts an object store with that many objects, and a server before it; `config` is the end of upslot's section
    /// `s3`, and what follows.
    pub fn start_before_store(
        &self,
        kind: ServerKind,
        case: &str,
        objects: StoredObjects,
        config: &str,
    ) -> Outcome<(StoreProcess, Server)> {
        let setup = self.setup(kind, case, false, SMALL)?;
        let folder = self
            .scratch
            .folder(&format!("{case}/{}/store", kind.name()))?;
        let store = StoreProcess::start(
            &ServerSetup {
                folder,
                ..setup.clone()
            },
            objects,
        )?;
        let setup = ServerSetup {
            object_store: Some(store.address),
            extra_config: config.to_owned(),
            ..setup
        };
        Ok((store, self.start_with(kind, setup)?))
    }

    /// The setup for GETs of `size` bytes, in the folder `case/kind`.
    pub fn setup(
        &self,
        kind: ServerKind,
        case: &str,
        tls: bool,
        size: u64,
    ) -> Outcome<ServerSetup<'_>> {
        Ok(ServerSetup {
            folder: self.scratch.folder(&format!("{case}/{}", kind.name()))?,
            tls: tls.then_some(&self.certificate),
            durable: false,
            for_put: false,
            size,
            body_file: self.body(size)?,
            connections: CONNECTIONS,
            shared_files: None,
            kind: GetKind::Whole,
            object_store: None,
            extra_config: String::new(),
            stop: self.stop,
        })
    }

    /// The message for an error of the client, with the state and the log of the server, or only that the user stopped
    /// the bench.
    pub fn explain_failure(&self, server: &mut Server, why: String) -> String {
        match self.stop.check() {
            Ok(()) => server.explain_failure(&why),
            Err(stopped) => stopped,
        }
    }

    /// Opens connections to a server.
    pub fn connect<'a>(
        &'a self,
        server: &'a Server,
        connections: usize,
    ) -> Outcome<LoadGenerator<'a>> {
        let spin = self.spin() && !server.durable;
        LoadGenerator::open(
            &server.endpoint,
            connections,
            &self.pattern,
            self.stop,
            spin,
        )
    }

    /// Whether clients spin: if selected, and if the client has a core of its own.
    pub fn spin(&self) -> bool {
        self.placement.has_separate_cores() && self.options.spin
    }

    /// A file of `size` bytes that all servers share. In the page cache, a file consists of pieces whose size depends
    /// on how it was written and on the free memory, and sendfile is faster with larger pieces.
    fn body(&self, size: u64) -> Outcome<PathBuf> {
        let path = self.scratch.path().join(format!("body-{size}"));
        if !path.exists() {
            self.pattern
                .write_file(&path, size)
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(path)
    }

    /// Conditional GETs of files of `size` bytes, with the entity tags from the responses to plain ones.
    pub fn conditional(
        &self,
        server: &Server,
        targets: &[String],
        size: u64,
    ) -> Outcome<Vec<Request>> {
        let not_modified = ExpectedResponse {
            status: 304,
            length: None,
            has_body: false,
        };
        let mut load = self.connect(server, 1)?;
        let mut requests = Vec::with_capacity(targets.len());
        for target in targets {
            let tag = if server.kind == ServerKind::Limit {
                // The bare loop compares nothing, and so sends status 304 to every request.
                "\"0\"".to_owned()
            } else {
                load.run(single(&Request::get(target, size)))?;
                let tag = field(load.last_head(0), "etag").ok_or("a response without ETag")?;
                String::from_utf8_lossy(tag).into_owned()
            };
            let condition = format!("If-None-Match: {tag}");
            requests.push(Request::get_with(target, &condition, not_modified));
        }
        Ok(requests)
    }

    /// Stores a file of `size` bytes, replaces it with [`Bench::body`], and verifies a GET of it byte by byte.
    pub fn seed(&self, server: &mut Server, size: u64) -> Outcome<Target> {
        let target = server.new_targets(1, size, self.stop)?.remove(0);
        if server.accepts_put() {
            let put = Request::put(&target.put, size);
            self.connect(server, 1)?.run(single(&put))?;
        }
        if server.accepts_put() && server.answers_get() {
            let (path, body) = (server.file_path(&target)?, self.body(size)?);
            fs::remove_file(&path)
                .and_then(|()| fs::hard_link(body, &path))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        if server.answers_get() {
            let get = Request::get(&target.get, size);
            self.connect(server, 1)?.run(single(&get))?;
        }
        Ok(target)
    }
}

/// A plan of a single request, whose body is compared.
pub fn single(request: &Request) -> Plan<'_> {
    Plan {
        requests: std::slice::from_ref(request),
        order: &[],
        count: 1,
        first_connection: 0,
        time_limit: TIME_LIMIT,
        reconnect: false,
        compare_bodies: true,
    }
}
