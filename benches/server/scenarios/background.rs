//! Large uploads and downloads during another measurement. Their clients have idle priority on the client's core, so that
//! they do not delay the one that measures. What they add to a latency is due to the server, or the same for all servers.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{self, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::common::outcome::Outcome;
use crate::load::Request;
use crate::pattern::Pattern;
use crate::response::ResponseReader;
use crate::scenarios::paced_clients::{BlockingClient, use_idle_priority};

/// Bytes of a body to write or read in one call, after which it is the next connection's turn.
const CHUNK: usize = 64 * 1024;
const MIB: f64 = (1 << 20) as f64;
/// For the first bytes.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between the first bytes and the measurement.
const SETTLE: Duration = Duration::from_millis(200);
/// How often a client without events checks whether to stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How far the transfers are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of bodies sent or received so far by all clients.
    bytes: AtomicU64,
    /// Set to stop the clients.
    done: AtomicBool,
}

impl Progress {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Does some work while `threads` threads transfer; returns how many MiB per second they transferred.
    pub fn during(
        &self,
        threads: usize,
        transfer: impl Fn() -> Outcome<()> + Sync,
        work: impl FnOnce() -> Outcome<()>,
    ) -> Outcome<f64> {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..threads).map(|_| scope.spawn(&transfer)).collect();
            let outcome = self.await_first_bytes().and_then(|()| {
                let (start, before) = (Instant::now(), self.bytes.load(Ordering::Relaxed));
                work()?;
                let moved = self.bytes.load(Ordering::Relaxed) - before;
                Ok(moved as f64 / MIB / start.elapsed().as_secs_f64())
            });
            self.done.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| "a client panicked")??;
            }
            outcome
        })
    }

    /// Waits until the transfers have begun.
    fn await_first_bytes(&self) -> Outcome<()> {
        let start = Instant::now();
        while self.bytes.load(Ordering::Relaxed) == 0 {
            if start.elapsed() > START_TIMEOUT {
                return Err("the transfers did not start in time".to_owned());
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(SETTLE);
        Ok(())
    }
}

/// Uploads. Each client takes the next file when it is free, and removes it afterwards to save space.
#[derive(Debug)]
pub struct BackgroundPuts<'a> {
    pub pattern: &'a Pattern,
    pub address: SocketAddr,
    /// Requests, and the paths of their files.
    pub files: Mutex<Vec<(Request, PathBuf)>>,
    /// Bytes per second and client; none for full speed.
    pub rate: Option<u64>,
    pub progress: &'a Progress,
}

impl BackgroundPuts<'_> {
    /// One client: stores files until told to stop; aborts the last one.
    pub fn run(&self) -> Outcome<()> {
        use_idle_priority();
        let mut client = BlockingClient::connect(self.address)?;
        while !self.progress.is_done() {
            let next = self.files.lock().map_err(|_| "a client panicked")?.pop();
            let (request, path) = next.ok_or("too few files to store")?;
            if !self.put(&mut client, &request)? {
                return Ok(());
            }
            fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }

    /// Stores one file; false if it was aborted.
    fn put(&self, client: &mut BlockingClient, request: &Request) -> Outcome<bool> {
        client.write(&request.head)?;
        let start = Instant::now();
        let mut sent = 0;
        while sent < request.body {
            if self.progress.is_done() {
                return Ok(false);
            }
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            let most = (CHUNK as u64).min(request.body - sent);
            let chunk = self.pattern.bytes_at(sent, most);
            client.write(chunk)?;
            sent += chunk.len() as u64;
            self.progress.add(chunk.len());
        }
        client.receive(request)?;
        Ok(true)
    }
}

/// Downloads of the same file on many connections, by one thread. The kernel drops the bodies, so that the client is
/// faster than any server.
#[derive(Debug)]
pub struct BackgroundGets<'a> {
    pub address: SocketAddr,
    pub request: &'a Request,
    pub connections: usize,
    pub progress: &'a Progress,
}

impl BackgroundGets<'_> {
    /// Downloads the file again and again until told to stop.
    pub fn run(&self) -> Outcome<()> {
        use_idle_priority();
        let mut poll = Poll::new().map_err(|e| format!("poll: {e}"))?;
        let mut clients = Vec::with_capacity(self.connections);
        for index in 0..self.connections {
            let stream = self.connect(poll.registry(), Token(index))?;
            self.send(&stream)?;
            clients.push((stream, ResponseReader::default()));
        }
        let mut events = Events::with_capacity(self.connections);
        let mut buffer = vec![0; CHUNK];
        // Connections whose input is not read to its end, as a bit and in the order of their turns.
        let mut is_ready = vec![false; self.connections];
        let mut ready = VecDeque::with_capacity(self.connections);
        while !self.progress.is_done() {
            let timeout = match ready.is_empty() {
                true => STOP_CHECK_INTERVAL,
                false => Duration::ZERO,
            };
            match poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(format!("poll: {e}")),
                _ => {}
            }
            for event in events.iter().filter(|event| event.is_readable()) {
                let index = event.token().0;
                if !std::mem::replace(&mut is_ready[index], true) {
                    ready.push_back(index);
                }
            }
            for _ in 0..ready.len() {
                let Some(index) = ready.pop_front() else {
                    break;
                };
                let (stream, response) = &mut clients[index];
                match self.receive(stream, response, &mut buffer)? {
                    true => ready.push_back(index),
                    false => is_ready[index] = false,
                }
            }
        }
        Ok(())
    }

    fn connect(&self, registry: &Registry, token: Token) -> Outcome<TcpStream> {
        let connect = || -> io::Result<TcpStream> {
            let stream = net::TcpStream::connect(self.address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            registry.register(&mut stream, token, Interest::READABLE)?;
            Ok(stream)
        };
        connect().map_err(|e| format!("connect to {}: {e}", self.address))
    }

    fn send(&self, mut stream: &TcpStream) -> Outcome<()> {
        match stream.write(&self.request.head) {
            Ok(n) if n == self.request.head.len() => Ok(()),
            Ok(_) => Err("a request was not sent whole".to_owned()),
            Err(e) => Err(format!("write: {e}")),
        }
    }

    /// Reads once, and requests the file again after its end; false if there was nothing to read.
    fn receive(
        &self,
        stream: &TcpStream,
        response: &mut ResponseReader,
        buffer: &mut [u8],
    ) -> Outcome<bool> {
        let flags = match response.has_head() {
            // For TCP, this drops the bytes (tcp(7)).
            true => RecvFlags::TRUNC,
            false => RecvFlags::empty(),
        };
        match recv(stream, &mut *buffer, flags).map(|(_, n)| n) {
            Ok(0) => Err("the server closed a connection".to_owned()),
            Ok(n) => {
                self.progress.add(n);
                if response.receive(&buffer[..n], self.request.expected, None)? {
                    response.reset();
                    self.send(stream)?;
                }
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(e) => Err(format!("read: {e}")),
        }
    }
}
