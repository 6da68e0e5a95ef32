//! Listening sockets.
//!
//! A listener's readiness is remembered like a connection's: while nothing can be accepted (no room, no
//! descriptors) the bit stays, because no event will repeat what is already waiting.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::config::Listen;
use crate::sys;
use crate::transport::Socket;

/// Connections that the kernel keeps waiting; it cuts this to its own limit.
const BACKLOG: i32 = 4096;

/// A Unix socket is as open as a loopback port; the folder's mode says who may reach it.
const UNIX_UMASK: u32 = 0o111;

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    tls: bool,
    /// Whether it is the local API's.
    local: bool,
    pub readable: bool,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Who is at the other end.
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
    /// Binds and listens. `tls` says what the port speaks; a Unix socket is always plain, because what connects to
    /// it is a proxy on the same host.
    pub fn bind(listen: &Listen, tls: bool, local: bool) -> io::Result<Listener> {
        let (socket, tls) = match listen {
            Listen::Tcp(address) => (Listening::Tcp(bind_tcp(*address)?), tls),
            Listen::Unix(path) => (Listening::Unix(bind_unix(path)?, path.clone()), false),
        };
        Ok(Listener {
            socket,
            tls,
            local,
            readable: true,
        })
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Listening::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Listening::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// Whether it is the local API's.
    pub fn is_local(&self) -> bool {
        self.local
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Accepts one connection.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::Tcp(stream), Peer::Tcp(address)))
            }
            Listening::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}

impl fmt::Display for Listener {
    /// The address as a URL, with the port that the system chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Listening::Tcp(listener) => {
                let scheme = if self.tls { "https" } else { "http" };
                match listener.local_addr() {
                    Ok(address) => write!(f, "{scheme}://{address}"),
                    Err(error) => write!(f, "{scheme}://? ({error})"),
                }
            }
            Listening::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listening::Unix(_, path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let SocketAddr::V6(address) = address {
        // `::` takes IPv4 as well, whatever the system's default says.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    // Without it two small writes cost 40 ms. What is accepted inherits it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Says why there is no listener at a place, and what to change.
pub fn cannot_listen(key: &str, place: &Listen, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    let change = match (place, error.kind()) {
        (Listen::Tcp(address), AddrInUse) => format!(
            ": another program has the port, which ss -ltnp sport = :{} names; stop it, or choose another port",
            address.port()
        ),
        (Listen::Tcp(_), AddrNotAvailable) => {
            ": this machine does not have the address; 0.0.0.0 or :: takes all that it has".to_owned()
        }
        (Listen::Tcp(_), PermissionDenied) => {
            ": a port below 1024 needs the capability CAP_NET_BIND_SERVICE, for which upslot.service has the lines; \
             choose another port, or a web server in front"
                .to_owned()
        }
        (Listen::Unix(_), AddrInUse) => ": another program listens there; stop it, or choose another path".to_owned(),
        (Listen::Unix(_), NotFound) => ": the folder of the socket is missing".to_owned(),
        (Listen::Unix(_), PermissionDenied) => {
            format!(": user {} cannot make files in the folder of the socket", sys::user())
        }
        _ => String::new(),
    };
    format!("{key}: cannot listen on {place}: {error}{change}.")
}

/// Binds a Unix socket; one that a dead process left behind is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let bind = || sys::with_umask(UNIX_UMASK, || UnixListener::bind(path));
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    bind()
                }
                _ => Err(error),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn what_to_change_is_said() {
        let tcp = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 80)));
        let unix = Listen::Unix("/run/upslot/http.sock".into());
        for (place, kind, part) in [
            (&tcp, io::ErrorKind::AddrInUse, "ss -ltnp sport = :80 names"),
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
                "cannot make files in the folder",
            ),
            (
                &tcp,
                io::ErrorKind::Other,
                "cannot listen on 127.0.0.1:80: other error.",
            ),
        ] {
            let said = cannot_listen("http_address", place, &kind.into());
            let begin = format!("http_address: cannot listen on {place}: ");
            assert!(said.starts_with(&begin) && said.ends_with('.'), "{said}");
            assert!(said.contains(part), "{part:?}: {said}");
        }
    }

    #[test]
    fn accepted_sockets_send_at_once() {
        let any = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = Listener::bind(&any, false, false).unwrap();
        let Listening::Tcp(socket) = &listener.socket else {
            panic!("a TCP address was bound");
        };
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
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
