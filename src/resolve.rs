//! Asynchronous resolution of host names.
//!
//! Literal addresses and `localhost` are answered immediately; other names are looked up on a short-lived thread,
//! because the resolver of the C library blocks for as long as a name server does not answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use mio::Waker;

use crate::sys;

/// The message for a failed connection, which says so if the cause is missing IPv6 support.
pub fn connect_failure(server: SocketAddr, error: &io::Error) -> String {
    let lacks_ipv6 = server.is_ipv6()
        && (sys::lacks_address_family(error) || error.kind() == io::ErrorKind::AddrNotAvailable);
    match lacks_ipv6 {
        true => format!("{server}: this system has no IPv6: {error}"),
        false => format!("{server}: {error}"),
    }
}

/// Enough for the C library's resolver; bytes.
const STACK: usize = 256 * 1024;

/// The addresses of a host that needs no lookup.
pub fn known_addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = number.parse::<IpAddr>() {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    host.eq_ignore_ascii_case("localhost").then(|| {
        vec![
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        ]
    })
}

/// A name that a thread is looking up.
#[derive(Debug)]
pub struct Lookup {
    host: String,
    port: u16,
    answer: Receiver<io::Result<Vec<SocketAddr>>>,
}

impl Lookup {
    /// Starts to look up a name; the waker announces the result.
    pub fn start(host: &str, port: u16, waker: Arc<Waker>) -> io::Result<Lookup> {
        let (sender, answer) = mpsc::channel();
        let name = host.to_owned();
        thread::Builder::new()
            .name("resolver".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let found = (name.as_str(), port).to_socket_addrs();
                let _ = sender.send(found.map(Iterator::collect));
                let _ = waker.wake();
            })?;
        let host = host.to_owned();
        Ok(Lookup { host, port, answer })
    }

    /// Whether this host is looked up.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }

    /// The result, if the lookup is complete: at least one address, or an error.
    pub fn answer(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        let host = &self.host;
        let failure = match self.answer.try_recv().ok()? {
            Ok(addresses) if !addresses.is_empty() => return Some(Ok(addresses)),
            Ok(_) => format!("the name {host} has no address"),
            Err(error) => format!("the name {host} cannot be resolved: {error}"),
        };
        Some(Err(io::Error::other(failure)))
    }
}
