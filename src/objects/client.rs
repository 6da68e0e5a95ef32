//! A blocking client of the object store, for commands. It drives the tasks of [`crate::s3::tasks`] one request at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::client::{self, Connection, Endpoint, Limits, Route, describe};
use crate::config::{Config, ObjectStore};
use crate::expiry::StoredFile;
use crate::http::client::{Response, ResponseReader};
use crate::s3::bucket::{Bucket, StoreRequest};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::s3::tasks::pages::{Pages, file_of};
use crate::s3::tasks::removals::{Removals, Victim};
use crate::s3::tasks::work::{WorkResult, WorkTask};
use crate::s3::tasks::{RequestIds, TaskRequest};
use crate::setup::Setup;
use crate::sys;

/// How long a command may wait for one answer of the store, and how long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);

/// The pauses before a request is repeated.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// The client, with at most one connection.
#[derive(Debug)]
pub struct BucketClient {
    pub bucket: Bucket,
    /// One for each address of the store; the one that works first.
    routes: Vec<Route>,
    connection: Option<Connection>,
    limits: Limits,
}

impl BucketClient {
    /// A client for the object store of a configuration; `None` if it has none.
    pub fn of(setup: &Setup) -> Result<Option<BucketClient>, String> {
        let limits = Limits {
            deadline: sys::monotonic() + LONGEST,
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        BucketClient::limited(setup, &limits)
    }

    /// The same with the limits of a command.
    pub fn limited(setup: &Setup, limits: &Limits) -> Result<Option<BucketClient>, String> {
        let Setup {
            config: Config { s3, .. },
            store_tls,
            ..
        } = setup;
        let Some(store) = s3 else {
            return Ok(None);
        };
        BucketClient::new(store, store_tls.clone(), limits).map(Some)
    }

    fn new(
        store: &ObjectStore,
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: &Limits,
    ) -> Result<BucketClient, String> {
        let mut bucket = Bucket::new(store);
        bucket.set_date(sys::now());
        let origin = store.internal_origin();
        let addresses = client::lookup(&origin.host, origin.port, limits)
            .map_err(|why| format!("s3.internal_endpoint: {}: {why}.", origin.host))?;
        let route = |address| Route {
            endpoint: Endpoint::Tcp(address),
            origin: origin.clone(),
            tls: tls.clone(),
        };
        Ok(BucketClient {
            routes: addresses.into_iter().map(route).collect(),
            bucket,
            connection: None,
            limits: limits.clone(),
        })
    }

    /// Sends a request, several times if it may be repeated, and returns the answer.
    pub fn ask(&mut self, request: &StoreRequest) -> Result<Response, StoreFailure> {
        let mut pauses = PAUSES.iter();
        loop {
            let answer = self.ask_once(request).and_then(|response| {
                StoreFailure::check(&response, sys::now().wall)?;
                Ok(response)
            });
            let failure = match answer {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match pauses.next() {
                Some(pause)
                    if request.idempotent && failure.is_retryable() && !self.limits.is_over() =>
                {
                    thread::sleep(*pause)
                }
                _ => return Err(failure),
            }
        }
    }

    /// The answer, whatever its status. A kept connection that was closed meanwhile is replaced.
    pub fn ask_once(&mut self, request: &StoreRequest) -> Result<Response, StoreFailure> {
        if let Some(connection) = self.connection.take() {
            match self.exchange(connection, request) {
                Err(_) if !self.limits.is_over() => {}
                result => return result,
            }
        }
        let connection = self.connect()?;
        self.exchange(connection, request)
    }

    fn exchange(
        &mut self,
        mut connection: Connection,
        request: &StoreRequest,
    ) -> Result<Response, StoreFailure> {
        connection.send(&request.bytes);
        let mut reader = ResponseReader::new(request.method == "HEAD");
        let is_complete = connection
            .receive(&mut reader, PATIENCE, |_| false)
            .map_err(StoreFailure::unreachable)?;
        if reader.keeps_alive() {
            self.connection = Some(connection);
        }
        let response = reader.take().filter(|_| is_complete);
        response.ok_or_else(|| StoreFailure::unreachable("no answer in time"))
    }

    /// Connects to the first address that answers.
    fn connect(&mut self) -> Result<Connection, StoreFailure> {
        let mut failure = String::new();
        for at in 0..self.routes.len() {
            let route = &self.routes[at];
            match Connection::open(route, &self.limits) {
                Ok(connection) => {
                    self.routes.swap(0, at);
                    return Ok(connection);
                }
                Err(error) => failure = format!("{}: {}", route.endpoint, describe(&error)),
            }
        }
        Err(StoreFailure::unreachable(failure))
    }

    /// Visits all files whose keys go on like this after the configured prefix, in the order of the keys.
    pub fn each_file(
        &mut self,
        mut pages: Pages,
        mut visit: impl FnMut(StoredFile) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut ids = RequestIds::default();
        loop {
            if pages.has_work() {
                let part = pages.go_on();
                let part = part.map_err(|failure| explained("list the bucket", &failure))?;
                let wall = sys::now().wall;
                for object in &part.objects {
                    if let Some(file) = file_of(object, &self.bucket, wall) {
                        visit(file)?;
                    }
                }
                continue;
            }
            let wanted = pages.want(&mut ids, &self.bucket, sys::now());
            let Some(TaskRequest { request, .. }) = wanted else {
                return Ok(());
            };
            let answer = self.ask(&request);
            pages
                .answered(answer, sys::now())
                .map_err(|failure| explained("list the bucket", &failure))?;
        }
    }

    /// Deletes the few files of an owner without tombstones, because their upload URLs were not given out. Returns how many
    /// there were.
    pub fn discard(&mut self, owner: &str) -> Result<u64, String> {
        let mut paths = Vec::new();
        self.each_file(Pages::of_owner(owner.as_bytes()), |file| {
            paths.push(file.path);
            Ok(())
        })?;
        for path in &paths {
            let Some(key) = self.bucket.key(path) else {
                continue;
            };
            let request = self.bucket.delete(&key, sys::now());
            match self.ask(&request) {
                Err(failure) if failure.kind != FailureKind::NotFound => {
                    return Err(explained("delete a file", &failure));
                }
                _ => {}
            }
        }
        Ok(paths.len() as u64)
    }

    /// Does the work of a task to its end.
    pub fn work(&mut self, mut task: WorkTask) -> WorkResult {
        loop {
            if task.has_work() {
                task.go_on(&self.bucket, sys::now());
                continue;
            }
            let wanted = task.want(&self.bucket, sys::now());
            let Some(TaskRequest { id, request }) = wanted else {
                return task.finish();
            };
            let answer = self.ask(&request);
            task.answered(id, answer, sys::now());
        }
    }

    /// Deletes one file.
    pub fn delete(&mut self, file: StoredFile, mut removals: Removals) -> Removals {
        let mut ids = RequestIds::default();
        removals.push(Victim::File(file), sys::now());
        while let Some(TaskRequest { id, request }) =
            removals.want(&mut ids, &self.bucket, sys::now())
        {
            let answer = self.ask(&request);
            removals.answered(id, answer, sys::now());
        }
        removals
    }
}

/// A failure for the operator, with the remedy.
pub fn explained(operation: &str, failure: &StoreFailure) -> String {
    format!("cannot {operation}: {failure}. {}", failure.remedy())
}
