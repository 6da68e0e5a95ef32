//! The driver against scripted servers. Sockets are real, time is virtual: waits are passed by moving the clock.

mod hostile;
mod small;
mod streaming;
mod tls;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use mio::{Events, Poll};

use super::call::Call;
use super::pool::IDLE_TIME;
use super::work::MAX_BODY;
use super::*;
use crate::http::client::Response;
use crate::transport::Moved;

/// The longest real time that a test waits for an event.
const PATIENCE: Duration = Duration::from_secs(20);

const WAKER: Token = Token(1);

const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The driver in a loop of its own.
struct Harness {
    poll: Poll,
    events: Events,
    upstream: Upstream,
    /// Number of clients that were awakened.
    awakened: usize,
    /// It stands still, apart from [`Harness::pass`].
    clock: Now,
}

impl Harness {
    fn new(url: &str, tls: Option<Arc<ClientConfig>>) -> Harness {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let target = target(url, tls);
        let clock = now();
        Harness {
            poll,
            events: Events::with_capacity(64),
            upstream: Upstream::new(target, waker, clock),
            awakened: 0,
            clock,
        }
    }

    /// For a server on a port of 127.0.0.1.
    fn to(port: u16) -> Harness {
        Harness::new(&format!("http://127.0.0.1:{port}/"), None)
    }

    /// Lets time pass.
    fn pass(&mut self, seconds: u64) {
        self.clock = self.clock.later(Duration::from_secs(seconds));
    }

    /// One turn.
    fn turn(&mut self, wait: Duration) {
        let wait = match self.upstream.has_work() {
            true => Duration::ZERO,
            false => wait,
        };
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            self.upstream.set_ready(event.token(), event);
        }
        self.upstream.drive(self.poll.registry(), self.clock);
        while let Some(awakened) = self.upstream.take_awakened() {
            assert_eq!(awakened, key());
            self.awakened += 1;
        }
    }

    /// Turns until there is a result.
    #[track_caller]
    fn until<T>(&mut self, mut result: impl FnMut(&mut Upstream) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut turns = 0;
        while Instant::now() < end {
            self.turn(Duration::from_millis(20));
            if let Some(result) = result(&mut self.upstream) {
                return result;
            }
            turns += 1;
            assert!(turns < 20_000, "the loop spins");
        }
        panic!("nothing happened");
    }

    /// Lets time pass until there is a result, in steps of a second.
    #[track_caller]
    fn later<T>(&mut self, mut result: impl FnMut(&mut Upstream) -> Option<T>) -> (u64, T) {
        for seconds in 0..200 {
            for _ in 0..3 {
                self.turn(Duration::from_millis(20));
                if let Some(result) = result(&mut self.upstream) {
                    return (seconds, result);
                }
            }
            self.pass(1);
        }
        panic!("nothing happened");
    }

    /// The result of the next small request.
    #[track_caller]
    fn result(&mut self) -> Result<Response, StoreFailure> {
        self.until(|upstream| upstream.take_finished()).1
    }

    fn submit(&mut self, request: StoreRequest) {
        let token = UpstreamToken::Task(1);
        self.upstream
            .submit(request, RequestClass::User, token, self.clock);
    }

    fn begin(&mut self, request: StoreRequest) -> StreamId {
        self.upstream.begin_stream(request, key(), self.clock)
    }

    /// The head of the response to a stream.
    #[track_caller]
    fn head(&mut self, id: StreamId) -> Result<Response, StoreFailure> {
        self.until(|upstream| upstream.head(id).map(|head| head.cloned()))
    }

    /// Sends bytes until all are sent or no more are wanted; returns their number.
    #[track_caller]
    fn send(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StoreFailure> {
        let mut sent = 0;
        self.until(|upstream| {
            while sent < bytes.len() {
                match upstream.send_body(id, &bytes[sent..]) {
                    Ok(Moved::Bytes(n)) => sent += n,
                    Ok(Moved::End) => return Some(Ok(sent)),
                    Ok(Moved::Blocked) => return None,
                    Ok(Moved::NoBytes) => panic!("not for callers"),
                    Err(failure) => return Some(Err(failure)),
                }
            }
            Some(Ok(sent))
        })
    }

    /// Reads the body of the response to a stream, with a buffer of this size.
    #[track_caller]
    fn read(&mut self, id: StreamId, size: usize) -> Result<Vec<u8>, StoreFailure> {
        let mut body = Vec::new();
        let mut buffer = vec![0; size];
        self.until(|upstream| {
            loop {
                match upstream.read_body(id, &mut buffer) {
                    Ok(Moved::Bytes(n)) => body.extend_from_slice(&buffer[..n]),
                    Ok(Moved::End) => return Some(Ok(std::mem::take(&mut body))),
                    Ok(Moved::Blocked) => return None,
                    Ok(Moved::NoBytes) => panic!("not for callers"),
                    Err(failure) => return Some(Err(failure)),
                }
            }
        })
    }
}

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: SystemTime::now(),
    }
}

fn target(url: &str, tls: Option<Arc<ClientConfig>>) -> UpstreamTarget {
    let (origin, _) = Origin::split(url).unwrap();
    UpstreamTarget::new(&origin, tls, BODY_TIMEOUT).unwrap()
}

fn key() -> crate::reactor::table::Key {
    crate::reactor::table::Key::from_token(0x1000).unwrap()
}

/// A small request that may be repeated.
fn get(path: &str) -> StoreRequest {
    StoreRequest {
        method: "GET",
        bytes: format!("GET {path} HTTP/1.1\r\nHost: store\r\n\r\n").into_bytes(),
        body_length: 0,
        idempotent: true,
    }
}

/// One that may not.
fn once(path: &str) -> StoreRequest {
    StoreRequest {
        idempotent: false,
        ..get(path)
    }
}

fn put(length: u64) -> StoreRequest {
    let head = format!(
        "PUT /key HTTP/1.1\r\nHost: store\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    StoreRequest {
        method: "PUT",
        bytes: head.into_bytes(),
        body_length: length,
        idempotent: false,
    }
}

fn response(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server that handles one connection after the other.
type Script = Box<dyn FnOnce(TcpStream) + Send>;

fn script(script: impl FnOnce(TcpStream) + Send + 'static) -> Script {
    Box::new(script)
}

fn serve(scripts: Vec<Script>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, serve_on(listener, scripts))
}

fn serve_on(listener: TcpListener, scripts: Vec<Script>) -> JoinHandle<()> {
    thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            script(stream);
        }
    })
}

/// The head of a request, or what came of it.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn read_exactly(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn say(stream: &mut impl Write, text: impl AsRef<[u8]>) {
    stream.write_all(text.as_ref()).unwrap();
}

/// Waits until the other side has closed the connection.
fn wait_for_end(stream: &mut impl Read) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}
