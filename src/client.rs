//! A blocking HTTP client whose every step has a deadline, and which ends early at Ctrl-C.
//!
//! Each request has a connection of its own, so that no answer depends on an earlier one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::http::client::{Response, ResponseError, ResponseReader};
use crate::http::origin::Origin;
use crate::resolve;
use crate::sys;

/// Time limits of connecting to an address, of a TLS handshake, and of a response.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of a lookup; the resolver of the C library may take longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);

/// Exit code after a second SIGINT or SIGTERM, which ends the command at once.
const FAILURE: i32 = 1;

/// How often a blocked call checks for Ctrl-C and for its deadline.
const SLICE: Duration = Duration::from_millis(100);

/// Limits of the whole command.
#[derive(Clone, Debug)]
pub struct Limits {
    pub deadline: Instant,
    /// Set by SIGINT and SIGTERM.
    pub interrupted: Arc<AtomicBool>,
}

impl Limits {
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// The end of a step that may take that long.
    pub fn until(&self, within: Duration) -> Instant {
        self.deadline.min(sys::monotonic() + within)
    }

    /// Whether nothing more may be begun.
    pub fn is_over(&self) -> bool {
        self.is_interrupted() || sys::monotonic() >= self.deadline
    }
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How to reach a server: the address, the name, and TLS.
#[derive(Clone, Debug)]
pub struct Route {
    pub endpoint: Endpoint,
    pub origin: Origin,
    /// The TLS configuration; `None` for plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A connected socket with a deadline for its calls.
#[derive(Debug)]
pub struct TimedSocket {
    socket: Socket,
    deadline: Instant,
    limits: Limits,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl TimedSocket {
    /// Connects within [`CONNECT_TIMEOUT`].
    pub fn connect(endpoint: &Endpoint, limits: &Limits) -> io::Result<TimedSocket> {
        let timeout = limits
            .until(CONNECT_TIMEOUT)
            .saturating_duration_since(sys::monotonic());
        if timeout.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let socket = match endpoint {
            Endpoint::Tcp(address) => {
                let socket = TcpStream::connect_timeout(address, timeout)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(SLICE))?;
                socket.set_write_timeout(Some(SLICE))?;
                Socket::Tcp(socket)
            }
            Endpoint::Unix(path) => {
                let socket = connect_unix(path.clone(), timeout)?;
                socket.set_read_timeout(Some(SLICE))?;
                socket.set_write_timeout(Some(SLICE))?;
                Socket::Unix(socket)
            }
        };
        Ok(TimedSocket {
            socket,
            deadline: limits.deadline,
            limits: limits.clone(),
        })
    }

    /// Sets the deadline of the calls that follow.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Repeats a call until it succeeds, fails, or takes too long. The deadline is checked before each call, so that a peer
    /// that always has another byte does not pass it.
    fn repeat(
        &mut self,
        mut call: impl FnMut(&mut Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if self.limits.is_interrupted() {
                return Err(io::Error::other("interrupted"));
            }
            if sys::monotonic() >= self.deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match call(&mut self.socket) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                other => return other,
            }
        }
    }
}

/// Connects on a thread, because a full backlog blocks without a timeout. The thread ends with the process.
fn connect_unix(path: PathBuf, timeout: Duration) -> io::Result<UnixStream> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let _ = sender.send(UnixStream::connect(path));
    })?;
    let connected = receiver.recv_timeout(timeout);
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Read for TimedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.repeat(|socket| match socket {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        })
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.repeat(|socket| match socket {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection for one request, plain or over TLS.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    limits: Limits,
    /// Why the request could not be written to its end; the response says more, if there is one.
    write_error: Option<io::Error>,
}

#[derive(Debug)]
enum Stream {
    Plain(TimedSocket),
    Tls(Box<StreamOwned<ClientConnection, TimedSocket>>),
}

impl Connection {
    /// Connects, with the TLS handshake.
    pub fn open(route: &Route, limits: &Limits) -> io::Result<Connection> {
        let mut socket = TimedSocket::connect(&route.endpoint, limits)?;
        let stream = match &route.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                socket.set_deadline(limits.until(HANDSHAKE_TIMEOUT));
                let name = ServerName::try_from(route.origin.host.clone());
                let name = name.map_err(io::Error::other)?;
                let connection = ClientConnection::new(Arc::clone(config), name);
                let connection = connection.map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, socket);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Connection {
            stream,
            limits: limits.clone(),
            write_error: None,
        })
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(&stream.conn),
        }
    }

    fn socket(&mut self) -> &mut TimedSocket {
        match &mut self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    /// Sends bytes. An error is kept until the response is read: the server may have refused the rest.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.write_error.is_some() {
            return;
        }
        let deadline = self.limits.until(RESPONSE_TIMEOUT);
        self.socket().set_deadline(deadline);
        let written = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        self.write_error = written.err();
    }

    /// Whether the request could not be sent to its end.
    pub fn is_broken(&self) -> bool {
        self.write_error.is_some()
    }

    /// Reads until `enough` says so or the response is complete; false if that takes too long.
    pub fn receive(
        &mut self,
        reader: &mut ResponseReader,
        within: Duration,
        enough: impl Fn(&ResponseReader) -> bool,
    ) -> Result<bool, String> {
        let deadline = self.limits.until(within);
        self.socket().set_deadline(deadline);
        let mut buffer = vec![0; 16 * 1024];
        while !reader.is_complete() && !enough(reader) {
            let read = match &mut self.stream {
                Stream::Plain(socket) => socket.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
            };
            let taken = match read {
                Ok(0) => reader.peer_closed(),
                Ok(n) => reader.received(&buffer[..n]),
                // The server closed the connection without close_notify.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => reader.peer_closed(),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                Err(error) => return Err(self.explain(&error)),
            };
            taken.map_err(|ResponseError(why)| match &self.write_error {
                Some(error) => format!("{why} ({error} while sending)"),
                None => why.to_owned(),
            })?;
        }
        Ok(true)
    }

    fn explain(&self, error: &io::Error) -> String {
        match &self.write_error {
            Some(first) => format!("{first} while sending, and no response ({error})"),
            None => error.to_string(),
        }
    }

    /// The response to what was sent.
    pub fn response(&mut self, head_only: bool) -> Result<Response, String> {
        let mut reader = ResponseReader::new(head_only);
        match self.receive(&mut reader, RESPONSE_TIMEOUT, |_| false)? {
            true => reader.take().ok_or_else(|| "no response".to_owned()),
            false => Err(no_answer(&reader)),
        }
    }
}

/// Connects to the first address of a host that accepts a connection.
pub fn reach(
    origin: &Origin,
    tls: Option<Arc<ClientConfig>>,
    limits: &Limits,
) -> Result<(Route, Connection), String> {
    let Origin { host, port, .. } = origin;
    let addresses = lookup(host, *port, limits).map_err(|why| format!("{host}: {why}"))?;
    let mut failures = Vec::new();
    for address in addresses {
        let route = Route {
            endpoint: Endpoint::Tcp(address),
            origin: origin.clone(),
            tls: tls.clone(),
        };
        match Connection::open(&route, limits) {
            Ok(connection) => return Ok((route, connection)),
            Err(error) => failures.push(format!("{address}: {}", describe(&error))),
        }
    }
    Err(failures.join("; "))
}

/// The message for a response that did not come in time.
pub fn no_answer(reader: &ResponseReader) -> String {
    let part = if reader.has_begun() {
        "no complete"
    } else {
        "no"
    };
    format!("{part} answer within {} s", RESPONSE_TIMEOUT.as_secs())
}

/// The flag that the first SIGINT or SIGTERM sets; the next one ends the command.
pub fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal sets the flag, and the next one finds it set.
        flag::register_conditional_shutdown(signal, FAILURE, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// All addresses of a host, or why there are none.
pub fn lookup(host: &str, port: u16, limits: &Limits) -> Result<Vec<SocketAddr>, String> {
    if is_onion(host) {
        return Err("only Tor reaches it".to_owned());
    }
    if let Some(known) = resolve::known_addresses(host, port) {
        return Ok(known);
    }
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    // The thread ends with the process.
    let resolver = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        let _ = sender.send(found.map(Iterator::collect::<Vec<_>>));
    };
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(resolver)
        .map_err(|error| error.to_string())?;
    let within = limits
        .until(LOOKUP_TIMEOUT)
        .saturating_duration_since(sys::monotonic());
    match receiver.recv_timeout(within) {
        Ok(Ok(mut addresses)) => {
            addresses.sort_unstable();
            addresses.dedup();
            match addresses.is_empty() {
                true => Err("the name has no address".to_owned()),
                false => Ok(addresses),
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
    }
}

/// Whether only Tor reaches a host (RFC 7686), which therefore is never looked up.
pub fn is_onion(host: &str) -> bool {
    host.trim_end_matches('.').ends_with(".onion")
}

/// The head of a request.
pub fn head(method: &str, target: &str, origin: &Origin, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nConnection: close\r\n",
        origin.authority,
        concat!("upslot-doctor/", env!("CARGO_PKG_VERSION"))
    );
    for (name, value) in fields {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Makes one request, and returns the response or one line about why there is none.
pub fn request(
    route: &Route,
    limits: &Limits,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Result<Response, String> {
    let mut connection = Connection::open(route, limits).map_err(|error| describe(&error))?;
    let mut bytes = head(method, target, &route.origin, fields);
    bytes.extend_from_slice(body);
    connection.send(&bytes);
    connection.response(method == "HEAD")
}

/// An error of connecting, in words.
pub fn describe(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let text = match (inner, error.kind()) {
        (
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )),
            _,
        ) => {
            "the certificate is not from a known authority: name the root certificate in `ca_file`"
        }
        (Some(rustls::Error::InvalidMessage(_)), _) => "the server does not speak TLS at this port",
        (_, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => "no answer in time",
        (_, io::ErrorKind::UnexpectedEof) => "the connection was closed",
        _ => return error.to_string(),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_does_not_pass_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let begun = Instant::now();
        let limits = Limits {
            deadline: begun + Duration::from_secs(60),
            interrupted: Arc::default(),
        };
        let mut socket = TimedSocket::connect(&endpoint, &limits).unwrap();
        socket.set_deadline(begun + Duration::from_millis(300));
        let mut byte = [0];
        let error = loop {
            match socket.read(&mut byte) {
                Ok(n) => assert!(n == 1 && begun.elapsed() < Duration::from_secs(10)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(socket);
        server.join().unwrap();
    }
}
