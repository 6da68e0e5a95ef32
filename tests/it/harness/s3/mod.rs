//! An object store, played by threads of the test process: it checks signatures, keeps objects in memory, and misbehaves as
//! a test tells it to.
//!
//! - [`S3`] the store, as a test sees it;
//! - [`fault`] the ways in which it fails a request;
//! - [`signature`] how requests are signed;
//! - [`answer`] what it answers;
//! - [`connection`] one connection of a client.

pub mod answer;
mod connection;
pub mod fault;
pub mod signature;

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_reuseaddr};
use rustix::net::{self, AddressFamily, SocketType};
use rustls::ServerConfig;

use super::{PATIENCE, Plan, unix_now};
use answer::{KeyEncoding, Object};
use fault::{Fault, Rule};
use signature::{Access, Head};

pub const BUCKET: &str = "uploads";

/// What a test can choose before the start.
#[derive(Debug)]
pub struct Options {
    /// Port 0 takes a free port.
    pub address: SocketAddr,
    pub tls: Option<Arc<ServerConfig>>,
    /// The buffers of the kernel are small, so that a client notices soon when the store reads nothing.
    pub small_buffers: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            small_buffers: false,
        }
    }
}

/// How the store differs from others; a test may change it at any time.
#[derive(Debug)]
pub struct Engine {
    /// Whether it honours `If-None-Match: *`; Garage does not.
    pub conditional: bool,
    /// Whether it answers `Expect: 100-continue` before it reads the body.
    pub sends_continue: bool,
    /// Whether XML is sent in chunks, as by SeaweedFS.
    pub chunked: bool,
    /// Whether it answers a range with that range.
    pub ranges: bool,
    /// The most keys on a page.
    pub page: usize,
    pub encoding: KeyEncoding,
    /// The total size of the objects that it takes.
    pub capacity: u64,
    /// How far its clock is ahead of the right time, in seconds.
    pub clock: i64,
    /// Whether it closes each connection after its first response, and says so.
    pub closes: bool,
    /// Whether everyone can read objects without a signature.
    pub public: bool,
    /// Whether it takes every upload, whatever was signed.
    pub lax: bool,
}

/// A request, as it is logged when its head has been read.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of its connection, from 1.
    pub connection: usize,
    /// The method, or `LIST`.
    pub operation: String,
    pub head: Head,
    /// The object's key, or the prefix that is listed, and after which key.
    pub key: String,
    /// Bytes of its body so far.
    pub received: u64,
    /// The status of the answer, once that has been sent whole.
    pub status: Option<u16>,
    /// Whether its connection is done with it, with or without an answer.
    pub ended: bool,
}

/// How many connections there were and are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    pub accepted: usize,
    pub open: usize,
    /// The most that were open at a time.
    pub most: usize,
}

#[derive(Debug)]
struct Open {
    socket: TcpStream,
    /// Whether a response has been sent and no further request has begun.
    idle: bool,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    objects: BTreeMap<String, Object>,
    requests: Vec<Request>,
    rules: Vec<Rule>,
    open: BTreeMap<usize, Open>,
    accepted: usize,
    most: usize,
    stopped: bool,
}

#[derive(Debug)]
struct Shared {
    access: Access,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A failed assertion in one thread must not hide behind failures of all others.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the state, and lets everyone who waits look at it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until the state is as a test wants it.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut found: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(found) = found(&mut state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let requests = state.requests.clone();
                drop(state);
                panic!("timed out waiting for: {what}; requests: {requests:#?}");
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

impl State {
    fn now(&self) -> u64 {
        unix_now().saturating_add_signed(self.engine.clock)
    }
}

/// A running store. It ends when dropped.
#[derive(Debug)]
pub struct S3 {
    shared: Arc<Shared>,
    address: SocketAddr,
    small_buffers: bool,
    /// Keeps the port while the store is stopped: bound, and not listening.
    _port: OwnedFd,
    listening: Option<(TcpListener, JoinHandle<Vec<JoinHandle<()>>>)>,
}

impl S3 {
    pub fn new() -> S3 {
        S3::with(Options::default())
    }

    pub fn with(options: Options) -> S3 {
        let family = if options.address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let port = net::socket(family, SocketType::STREAM, None).unwrap();
        set_socket_reuseaddr(&port, true).unwrap();
        net::bind(&port, &options.address).unwrap();
        let address = SocketAddr::try_from(net::getsockname(&port).unwrap()).unwrap();
        let state = State {
            engine: Engine {
                conditional: true,
                sends_continue: true,
                chunked: false,
                ranges: true,
                page: 1000,
                encoding: KeyEncoding::Form,
                capacity: u64::MAX,
                clock: 0,
                closes: false,
                public: false,
                lax: false,
            },
            objects: BTreeMap::new(),
            requests: Vec::new(),
            rules: Vec::new(),
            open: BTreeMap::new(),
            accepted: 0,
            most: 0,
            stopped: false,
        };
        let access = Access {
            access_key: "GK31c2f218a2e44f485b94239e".to_owned(),
            secret_key: "b892c0665f0ada8a4755dae98baa3b13/3e11+dbc=".to_owned(),
            region: "eu-central-1".to_owned(),
        };
        let mut store = S3 {
            shared: Arc::new(Shared {
                access,
                tls: options.tls,
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            address,
            small_buffers: options.small_buffers,
            _port: port,
            listening: None,
        };
        store.start();
        store
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key pair that it accepts.
    pub fn access(&self) -> &Access {
        &self.shared.access
    }

    /// Listens again after [`S3::stop`].
    pub fn start(&mut self) {
        self.shared.change(|state| state.stopped = false);
        let listener = TcpListener::bind(self.address).unwrap();
        if self.small_buffers {
            // Accepted sockets inherit it.
            set_socket_recv_buffer_size(&listener, 4096).unwrap();
        }
        let (incoming, shared) = (listener.try_clone().unwrap(), Arc::clone(&self.shared));
        let accepting = thread::spawn(move || {
            let mut serving = Vec::new();
            // Fails when the socket is shut down.
            while let Ok((socket, _)) = incoming.accept() {
                let (shared, number) =
                    (Arc::clone(&shared), connection::register(&shared, &socket));
                serving.push(thread::spawn(move || {
                    connection::serve(&shared, socket, number)
                }));
            }
            serving
        });
        self.listening = Some((listener, accepting));
    }

    /// Closes all connections and refuses new ones; the objects stay.
    pub fn stop(&mut self) {
        let Some((listener, accepting)) = self.listening.take() else {
            return;
        };
        net::shutdown(&listener, net::Shutdown::Both).unwrap();
        let serving = accepting.join().unwrap();
        drop(listener);
        self.shared.change(|state| {
            state.stopped = true;
            state.rules.iter().for_each(Rule::release);
            for open in state.open.values() {
                // It may be closed already.
                let _ = open.socket.shutdown(Shutdown::Both);
            }
        });
        for connection in serving {
            let result = connection.join();
            assert!(
                result.is_ok() || thread::panicking(),
                "a connection panicked"
            );
        }
    }

    /// Changes how the store behaves.
    pub fn change(&self, change: impl FnOnce(&mut Engine)) {
        self.shared.change(|state| change(&mut state.engine));
    }

    /// Fails the next requests of this operation (a method or `LIST`) with a key that contains this; `*` is any operation.
    pub fn fail(&self, operation: &'static str, key: &str, times: u32, fault: Fault) {
        let rule = Rule::new(operation, key, times, fault);
        self.shared.change(|state| state.rules.push(rule));
    }

    /// Takes all faults away and opens their gates.
    pub fn heal(&self) {
        self.shared.change(|state| {
            state.rules.iter().for_each(Rule::release);
            state.rules.clear();
        });
    }

    /// Puts an object of this age into the store, in seconds.
    pub fn seed(&self, key: &str, bytes: &[u8], age: u64) {
        self.seed_sized(key, bytes, bytes.len() as u64, age);
    }

    /// Puts an object of this type into the store, stored at this Unix second.
    pub fn seed_typed(&self, key: &str, bytes: &[u8], content_type: &str, modified: u64) {
        let object = Object {
            bytes: bytes.into(),
            size: bytes.len() as u64,
            modified,
            content_type: content_type.to_owned(),
        };
        self.shared
            .change(|state| state.objects.insert(key.to_owned(), object));
    }

    /// A plan whose files are in this store; `more` are further entries of the section.
    pub fn plan(&self, more: &str) -> Plan {
        self.keep(Plan::alone(), more)
    }

    /// The plan with its files in this store.
    pub fn keep(&self, plan: Plan, more: &str) -> Plan {
        let Access {
            access_key,
            secret_key,
            region,
        } = self.access();
        let section = format!(
            "{{endpoint: '{}://{}', bucket: {BUCKET}, region: {region}, access_key: {access_key}, \
             secret_key: '{secret_key}'{}{more}}}",
            if self.shared.tls.is_some() {
                "https"
            } else {
                "http"
            },
            self.address,
            if more.is_empty() { "" } else { ", " }
        );
        plan.without("storage_path")
            .set("slot_secret", "00112233445566778899aabbccddeeff")
            .set("s3", section)
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        self.shared.change(|state| state.objects.remove(key));
    }

    /// Puts a large object into the store: `bytes`, repeated up to the size.
    pub fn seed_sized(&self, key: &str, bytes: &[u8], size: u64, age: u64) {
        let object = Object {
            bytes: bytes.into(),
            size,
            modified: unix_now() - age,
            content_type: "application/octet-stream".to_owned(),
        };
        self.shared
            .change(|state| state.objects.insert(key.to_owned(), object));
    }

    pub fn object(&self, key: &str) -> Option<Object> {
        self.shared.lock().objects.get(key).cloned()
    }

    /// The keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.shared.lock().objects.keys().cloned().collect()
    }

    /// The keys of all objects that are not upslot's own, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut keys = self.keys();
        keys.retain(|key| !key.starts_with(".upslot/"));
        keys
    }

    /// The requests of this operation so far, in the order in which they came.
    pub fn requests(&self, operation: &str) -> Vec<Request> {
        let mut requests = self.shared.lock().requests.clone();
        requests.retain(|request| operation == "*" || request.operation == operation);
        requests
    }

    /// Waits until so many requests of this operation have ended; returns all of them.
    #[track_caller]
    pub fn wait_requests(&self, operation: &str, count: usize) -> Vec<Request> {
        self.shared.wait("requests that have ended", |state| {
            let ended = state.requests.iter();
            let ended = ended.filter(|request| request.ended && request.operation == operation);
            let ended: Vec<Request> = ended.cloned().collect();
            (ended.len() >= count).then_some(ended)
        })
    }

    /// Waits until so many connections are idle, and closes them without a word.
    #[track_caller]
    pub fn close_idle(&self, count: usize) {
        self.shared.wait("idle connections", |state| {
            let idle: Vec<&Open> = state.open.values().filter(|open| open.idle).collect();
            (idle.len() == count).then(|| {
                for open in idle {
                    open.socket.shutdown(Shutdown::Both).unwrap();
                }
            })
        });
    }

    pub fn connections(&self) -> Connections {
        let state = self.shared.lock();
        Connections {
            accepted: state.accepted,
            open: state.open.len(),
            most: state.most,
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}
