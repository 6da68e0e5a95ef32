//! Clients that keep to a clock, not to the server: a server that is slow for a moment must not be asked less often in
//! it, or the moment would hardly show among the latencies.

use std::fs;
use std::hint;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::outcome::Outcome;
use crate::load::Request;
use crate::pattern::Pattern;
use crate::placement::Placement;
use crate::response::ResponseReader;
use crate::stop::StopSignal;

/// How much longer than planned GETs may take all in all.
const PATIENCE: u32 = 10;
/// Any single wait for a server.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a body that are written at once.
const PIECE: u64 = 64 * 1024;

/// One connection, which waits.
#[derive(Debug)]
pub struct BlockingClient {
    stream: TcpStream,
    response: ResponseReader,
    buffer: Vec<u8>,
}

impl BlockingClient {
    pub fn connect(address: SocketAddr) -> Outcome<BlockingClient> {
        let stream = TcpStream::connect(address)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Ok(stream)
            })
            .map_err(|e| format!("connect to {address}: {e}"))?;
        Ok(BlockingClient {
            stream,
            response: ResponseReader::default(),
            buffer: vec![0; 64 * 1024],
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        let written = self.stream.write_all(bytes);
        written.map_err(|e| format!("write: {e}"))
    }

    /// Waits for the response to what was written.
    pub fn finish(&mut self, request: &Request) -> Outcome<()> {
        self.response.reset();
        loop {
            let read = self.stream.read(&mut self.buffer);
            match read.map_err(|e| format!("read: {e}"))? {
                0 => {
                    return Err(
                        "The server closed a connection before its response was complete."
                            .to_owned(),
                    );
                }
                n if self
                    .response
                    .receive(&self.buffer[..n], request.expected, None)? =>
                {
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

/// Sends a GET every so often on one kept connection; gives how long each took, in nanoseconds.
///
/// A GET counts from the moment when it was due if the one before was not answered by then, which is the server's
/// doing; else from when it was sent, because waking up late is the client's.
pub fn paced_gets(
    address: SocketAddr,
    request: &Request,
    every: Duration,
    length: Duration,
    stop: &StopSignal,
) -> Outcome<Vec<u64>> {
    let mut client = BlockingClient::connect(address)?;
    let count = (length.as_micros() / every.as_micros()) as u32;
    let mut latencies = Vec::with_capacity(count as usize);
    let began = Instant::now();
    for number in 0..count {
        let mut from = began + every * number;
        let now = Instant::now();
        if now < from {
            thread::sleep(from - now);
            from = Instant::now();
        } else if now - began > length * PATIENCE {
            return Err(format!(
                "Only {number} of {count} GETs were answered in {} seconds.",
                (length * PATIENCE).as_secs()
            ));
        }
        client.write(&request.head)?;
        client.finish(request)?;
        let latency = from.elapsed().as_nanos();
        latencies.push(latency.try_into().unwrap_or(u64::MAX));
    }
    stop.check()?;
    Ok(latencies)
}

/// Files to be stored, one after the other by whichever client is free, and removed again: nobody's disk is endless.
#[derive(Debug)]
pub struct BackgroundPuts<'a> {
    pub pattern: &'a Pattern,
    pub address: SocketAddr,
    /// Requests, and where their files then are.
    pub files: Mutex<Vec<(Request, PathBuf)>>,
    /// Bytes per second and client; none is as fast as it goes.
    pub rate: Option<u64>,
    /// Bytes sent so far, by all clients.
    pub sent: AtomicU64,
    /// Set when it is enough.
    pub done: AtomicBool,
}

impl BackgroundPuts<'_> {
    /// Stores files until it is done; the last one is broken off.
    pub fn run(&self) -> Outcome<()> {
        use_idle_priority();
        let mut client = BlockingClient::connect(self.address)?;
        while !self.done.load(Ordering::Relaxed) {
            let next = self.files.lock().map_err(|_| "A client failed.")?.pop();
            let (request, path) = next.ok_or("There are too few files to store.")?;
            if !self.put(&mut client, &request)? {
                return Ok(());
            }
            fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }

    /// Stores one file; false when it was broken off.
    fn put(&self, client: &mut BlockingClient, request: &Request) -> Outcome<bool> {
        client.write(&request.head)?;
        let began = Instant::now();
        let mut sent = 0;
        while sent < request.body {
            if self.done.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
            let piece = self.pattern.bytes_at(sent, PIECE.min(request.body - sent));
            client.write(piece)?;
            sent += piece.len() as u64;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        client.finish(request)?;
        Ok(true)
    }
}

/// Does something while the server's core does not sleep: how long a core takes to wake up is no server's doing, and
/// that of a quiet server would sleep before every request.
///
/// What keeps it from sleeping runs only when nothing else wants to. Where that cannot be had (util-linux's chrt and
/// taskset), it sleeps.
pub fn keep_core_awake<T>(placement: &Placement, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let (preparing, prepared) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let placed = thread_id().is_some_and(|id| placement.move_thread_to_server_core(&id));
            let wanted = placed && use_idle_priority();
            drop(preparing);
            if wanted {
                while !done.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            }
        });
        // Nothing is ever sent: the other end is gone when all is prepared.
        let _ = prepared.recv();
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Lets this thread run only when no other of its core wants to. False where that cannot be had.
fn use_idle_priority() -> bool {
    let Some(id) = thread_id() else {
        return false;
    };
    let status = Command::new("chrt")
        .args(["--idle", "--pid", "0", &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// This thread's number, as the kernel has it.
fn thread_id() -> Option<String> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}
