//! Listening sockets.
//!
//! A listener has a readiness bit, like a connection. While nothing can be accepted, for want of places or descriptors,
//! the bit stays set, because no event announces waiting connections a second time.
//!
//! upslot starts even if the kernel lacks an address family: `[::]` becomes `0.0.0.0`, and of several addresses of a key
//! those of the missing family are skipped. Sockets that a service manager passes replace all addresses of their key.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::activation::PassedSocket;
use crate::config::{Config, Listen};
use crate::sys;

/// The length of the kernel's queue of connections, which the kernel reduces to its own limit.
const BACKLOG: i32 = 4096;

/// A Unix socket is accessible to all users, like a loopback port; the mode of its folder restricts access.
const UNIX_UMASK: u32 = 0o111;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// The path of a Unix socket, which is removed when it is closed.
    path: Option<PathBuf>,
    tls: bool,
    /// Whether it is for the local API.
    local: bool,
    /// Whether a service manager opened it.
    passed: bool,
    pub readable: bool,
}

/// Opens all listeners, the public ones first. Returns all errors, each as one sentence.
pub fn open_all(
    config: &Config,
    tls: bool,
    passed: Vec<PassedSocket>,
) -> Result<Vec<Listener>, Vec<String>> {
    let mut opening = Opening::default();
    let (local, public): (Vec<_>, Vec<_>) = passed.into_iter().partition(|socket| socket.local);
    match &config.api {
        Some(api) => {
            opening.open("http_address", &config.listen, public, tls, false);
            opening.open("api", &api.listen, local, false, true);
        }
        None => {
            opening.open("http_address", &config.listen, public, tls, false);
            if !local.is_empty() {
                let text = "api: nothing, but the service manager passes a socket for it; expected the section with \
                            its settings, or no such socket.";
                opening.errors.push(text.to_owned());
            }
        }
    }
    opening.finish()
}

/// The state of [`open_all`].
#[derive(Default)]
struct Opening {
    listeners: Vec<Listener>,
    errors: Vec<String>,
    /// The addresses that were skipped or replaced, because their family is missing.
    degraded: Vec<String>,
}

impl Opening {
    /// Opens the listeners of one key.
    fn open(
        &mut self,
        key: &str,
        places: &[Listen],
        passed: Vec<PassedSocket>,
        tls: bool,
        local: bool,
    ) {
        if !passed.is_empty() {
            for socket in passed {
                match Listener::adopt(socket.socket, tls, local) {
                    Ok(listener) => self.listeners.push(listener),
                    Err(error) => {
                        let text = format!("{key}: cannot use a socket that was passed: {error}.");
                        self.errors.push(text);
                    }
                }
            }
            return;
        }
        let before = (self.listeners.len(), self.errors.len());
        let mut skipped = Vec::new();
        for place in places {
            match Listener::bind(place, tls, local) {
                Ok(listener) => self.listeners.push(listener),
                Err(error) if lacks_family(&error) => match ipv4_fallback(place) {
                    Some(fallback) => self.open_fallback(key, place, &fallback, tls, local),
                    None => skipped.push((place, error)),
                },
                Err(error) if is_ipv6_disabled(place, &error) => skipped.push((place, error)),
                Err(error) => self.errors.push(cannot_listen(key, place, &error)),
            }
        }
        let is_all = before == (self.listeners.len(), self.errors.len());
        for (place, error) in skipped {
            let family = family_name(place);
            if !is_all {
                self.degraded.push(format!(
                    "not on {place}, because there is no {family}: {error}"
                ));
            } else {
                self.errors.push(format!(
                    "{key}: cannot listen on {place}, because this system has no {family}: {error}. Another address is \
                     needed, such as {}.",
                    alternative(place)
                ));
            }
        }
    }

    /// Listens on all IPv4 addresses instead of all addresses.
    fn open_fallback(
        &mut self,
        key: &str,
        place: &Listen,
        fallback: &Listen,
        tls: bool,
        local: bool,
    ) {
        match Listener::bind(fallback, tls, local) {
            Ok(listener) => {
                self.listeners.push(listener);
                self.degraded.push(format!(
                    "on {fallback} instead of {place}, because there is no IPv6"
                ));
            }
            Err(error) => self.errors.push(cannot_listen(key, fallback, &error)),
        }
    }

    fn finish(self) -> Result<Vec<Listener>, Vec<String>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        if !self.degraded.is_empty() {
            log::warn!(
                "address family missing listening={:?}",
                self.degraded.join("; ")
            );
        }
        Ok(self.listeners)
    }
}

/// The replacement of `[::]` on systems without IPv6.
fn ipv4_fallback(place: &Listen) -> Option<Listen> {
    match place {
        Listen::Tcp(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
            Some(Listen::Tcp((Ipv4Addr::UNSPECIFIED, address.port()).into()))
        }
        _ => None,
    }
}

/// Whether the kernel, or a filter of system calls, lacks the address family.
fn lacks_family(error: &io::Error) -> bool {
    sys::lacks_address_family(error) || error.kind() == io::ErrorKind::Unsupported
}

/// Whether an IPv6 address cannot be bound because IPv6 is disabled: then `::1` is missing too.
fn is_ipv6_disabled(place: &Listen, error: &io::Error) -> bool {
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let is_v6 = matches!(place, Listen::Tcp(address) if address.is_ipv6());
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    is_v6 && is_missing(error) && bind_tcp(loopback).is_err_and(|error| is_missing(&error))
}

fn family_name(place: &Listen) -> &'static str {
    match place {
        Listen::Tcp(SocketAddr::V4(_)) => "IPv4",
        Listen::Tcp(SocketAddr::V6(_)) => "IPv6",
        Listen::Unix(_) => "Unix sockets",
    }
}

/// A usable address of another family.
fn alternative(place: &Listen) -> &'static str {
    match place {
        Listen::Tcp(address) if address.is_ipv4() => "::1",
        Listen::Tcp(address) if !address.ip().is_loopback() => "0.0.0.0",
        _ => "127.0.0.1",
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{}", address.ip().to_canonical()),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

impl Listener {
    /// Binds and listens. A Unix socket never uses TLS, because its clients are proxies on the same host.
    fn bind(listen: &Listen, tls: bool, local: bool) -> io::Result<Listener> {
        let (socket, path) = match listen {
            Listen::Tcp(address) => (bind_tcp(*address)?, None),
            Listen::Unix(path) => (bind_unix(path)?, Some(path.clone())),
        };
        Ok(Listener {
            socket,
            tls: tls && path.is_none(),
            path,
            local,
            passed: false,
            readable: true,
        })
    }

    /// Takes over a passed socket, which must be listening and non-blocking.
    fn adopt(socket: OwnedFd, tls: bool, local: bool) -> io::Result<Listener> {
        let is_tcp = match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => false,
            AddressFamily::INET | AddressFamily::INET6 => true,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        if is_tcp {
            // As in `bind_tcp`.
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        Ok(Listener {
            socket,
            path: None,
            tls: tls && is_tcp,
            local,
            passed: true,
            readable: true,
        })
    }

    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Whether it is for the local API.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Whether a service manager opened it.
    pub fn is_passed(&self) -> bool {
        self.passed
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Accepts one connection.
    pub fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let (socket, address) = rustix::net::acceptfrom_with(&self.socket, FLAGS)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        Ok((socket, address.map_or(Peer::Unix, Peer::Tcp)))
    }
}

impl fmt::Display for Listener {
    /// The address as a URL, with the port that the system chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match rustix::net::getsockname(&self.socket) {
            Ok(address) => address,
            Err(error) => return write!(f, "? ({error})"),
        };
        if let Ok(address) = SocketAddr::try_from(address.clone()) {
            let scheme = if self.tls { "https" } else { "http" };
            return write!(f, "{scheme}://{address}");
        }
        let unix = SocketAddrUnix::try_from(address).ok();
        match unix.as_ref().and_then(SocketAddrUnix::path) {
            Some(path) => write!(f, "unix:{}", path.to_string_lossy()),
            None => f.write_str("unix:(abstract)"),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let made = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None);
    made.map_err(|error| match error {
        // Some system call filters answer that it is not permitted.
        Errno::PERM | Errno::ACCESS => {
            io::Error::new(io::ErrorKind::Unsupported, io::Error::from(error))
        }
        other => other.into(),
    })
}

fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_socket(match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    })?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let SocketAddr::V6(address) = address {
        // `::` accepts IPv4 as well, whatever the system's default is.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    // Nagle's algorithm would delay the second of two small writes by 40 ms. Accepted sockets inherit the option.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Binds a Unix socket. Replaces one that a dead process left behind.
fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    let bind = || sys::with_umask(UNIX_UMASK, || rustix::net::bind(&socket, &address));
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let bound = bind();
    if bound == Err(Errno::ADDRINUSE)
        && UnixStream::connect(path).is_err_and(|error| is_refused(&error))
    {
        std::fs::remove_file(path)?;
        bind()?;
    } else {
        bound?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The error for an address that cannot be listened on, with the remedy.
fn cannot_listen(key: &str, place: &Listen, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    let remedy = match (place, error.kind()) {
        (Listen::Tcp(address), AddrInUse) => format!(
            ": another program uses the port, which ss -ltnp sport = :{} shows; stop it, or choose another port",
            address.port()
        ),
        (Listen::Tcp(_), AddrNotAvailable) => {
            ": this machine does not have the address; 0.0.0.0 or :: means all of its addresses".to_owned()
        }
        (Listen::Tcp(_), PermissionDenied) => {
            ": a port below 1024 needs the capability CAP_NET_BIND_SERVICE (see the lines in upslot.service) or \
             upslot.socket; or choose another port, or use a web server in front"
                .to_owned()
        }
        (Listen::Unix(_), AddrInUse) => ": another program listens there; stop it, or choose another path".to_owned(),
        (Listen::Unix(_), NotFound) => ": the folder of the socket is missing".to_owned(),
        (Listen::Unix(_), PermissionDenied) => {
            format!(": user {} cannot create files in the folder of the socket", sys::user())
        }
        _ => String::new(),
    };
    format!("{key}: cannot listen on {place}: {error}{remedy}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn errors_name_the_remedy() {
        let tcp = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 80)));
        let unix = Listen::Unix("/run/upslot/http.sock".into());
        for (place, kind, part) in [
            (&tcp, io::ErrorKind::AddrInUse, "ss -ltnp sport = :80 shows"),
            (
                &tcp,
                io::ErrorKind::PermissionDenied,
                "CAP_NET_BIND_SERVICE",
            ),
            (&tcp, io::ErrorKind::AddrNotAvailable, "0.0.0.0 or ::"),
            (&unix, io::ErrorKind::AddrInUse, "another path"),
            (
                &unix,
                io::ErrorKind::NotFound,
                "the folder of the socket is missing",
            ),
            (
                &unix,
                io::ErrorKind::PermissionDenied,
                "cannot create files in the folder",
            ),
            (
                &tcp,
                io::ErrorKind::Other,
                "cannot listen on 127.0.0.1:80: other error.",
            ),
        ] {
            let text = cannot_listen("http_address", place, &kind.into());
            let begin = format!("http_address: cannot listen on {place}: ");
            assert!(text.starts_with(&begin) && text.ends_with('.'), "{text}");
            assert!(text.contains(part), "{part:?}: {text}");
        }
    }

    #[test]
    fn accepted_sockets_have_nodelay() {
        let any = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = Listener::bind(&any, false, false).unwrap();
        let address = rustix::net::getsockname(&listener.socket).unwrap();
        let address = SocketAddr::try_from(address).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let accepted = loop {
            match listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nothing was accepted");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert!(sockopt::tcp_nodelay(&accepted).unwrap());
    }
}
