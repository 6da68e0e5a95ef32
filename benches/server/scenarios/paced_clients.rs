//! Clients that send requests at given times, however fast the server is: if a stalled server received fewer requests,
//! the stall would hardly show among the latencies (coordinated omission).

use std::hint;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::outcome::Outcome;
use crate::load::Request;
use crate::placement::{Placement, thread_id};
use crate::response::ResponseReader;
use crate::stop::StopSignal;

/// By which factor requests may take longer than planned, if that is more than `TIMEOUT`.
const SLOWDOWN_LIMIT: u32 = 10;
/// For a single read or write, and the least for all requests together.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection with blocking reads and writes.
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

    /// Waits for the response to a request that was written.
    pub fn receive(&mut self, request: &Request) -> Outcome<()> {
        self.response.reset();
        loop {
            let read = self.stream.read(&mut self.buffer);
            match read.map_err(|e| format!("read: {e}"))? {
                0 => {
                    return Err(
                        "the server closed a connection before its response was complete"
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

/// Sends GETs at a fixed interval on one persistent connection, the first again after the last; returns their latencies
/// in nanoseconds.
pub fn paced_gets(
    address: SocketAddr,
    requests: &[Request],
    interval: Duration,
    duration: Duration,
    stop: &StopSignal,
) -> Outcome<Vec<u64>> {
    let mut client = BlockingClient::connect(address)?;
    let mut requests = requests.iter().cycle();
    paced(interval, duration, stop, || {
        let request = requests.next().ok_or("no request")?;
        client.write(&request.head)?;
        client.receive(request)
    })
}

/// Does something at a fixed interval; returns the latencies in nanoseconds.
///
/// If the previous response is late, a latency counts from the time when the request was due, because the delay is the
/// server's. Otherwise it counts from when the request was sent, because a late wake-up is the client's.
pub fn paced(
    interval: Duration,
    duration: Duration,
    stop: &StopSignal,
    mut request: impl FnMut() -> Outcome<()>,
) -> Outcome<Vec<u64>> {
    let count = (duration.as_micros() / interval.as_micros()) as u32;
    let mut latencies = Vec::with_capacity(count as usize);
    let limit = TIMEOUT.max(duration * SLOWDOWN_LIMIT);
    let start = Instant::now();
    for number in 0..count {
        let mut counted_from = start + interval * number;
        let now = Instant::now();
        if now < counted_from {
            thread::sleep(counted_from - now);
            counted_from = Instant::now();
        } else if now - start > limit {
            return Err(format!(
                "only {number} of {count} requests were answered in {} seconds",
                limit.as_secs()
            ));
        }
        request()?;
        let latency = counted_from.elapsed().as_nanos();
        latencies.push(latency.try_into().unwrap_or(u64::MAX));
    }
    stop.check()?;
    Ok(latencies)
}

/// Does some work while a thread of idle priority keeps the server's core awake: otherwise the core of a server with
/// little load would sleep before every request, and the time of waking up is not the server's.
///
/// Without util-linux's chrt and taskset, the core sleeps.
pub fn keep_core_awake<T>(placement: &Placement, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let (ready_sender, ready) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let placed = thread_id().is_some_and(|id| placement.move_thread_to_server_core(&id));
            let prepared = placed && use_idle_priority();
            drop(ready_sender);
            if prepared {
                while !done.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            }
        });
        // Nothing is sent: the thread drops the sender once it is ready.
        let _ = ready.recv();
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Lets this thread run only when its core is otherwise idle; false if that fails.
pub fn use_idle_priority() -> bool {
    thread_id().is_some_and(|id| give_idle_priority(&id))
}

/// Lets a thread or a process of one thread run only when its core is otherwise idle; false if that fails.
pub fn give_idle_priority(id: &str) -> bool {
    let status = Command::new("chrt")
        .args(["--idle", "--pid", "0", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
