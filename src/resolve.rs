//! Asynchronous resolution of host names.
//!
//! Literal addresses and `localhost` are answered immediately; other names are looked up on a short-lived thread,
//! because the resolver of the C library blocks for as long as a name server does not answer. The last addresses of a
//! name are kept and used while name resolution fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
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

/// Looks up one name at a time, on at most one thread.
#[derive(Debug)]
pub struct Resolver {
    waker: Arc<Waker>,
    channel: (Sender<Answer>, Receiver<Answer>),
    /// The name that a thread is looking up.
    busy: Option<Name>,
    /// The name that was requested meanwhile, if it is another one.
    next: Option<Name>,
    last_good: Option<(Name, Vec<SocketAddr>)>,
}

/// A host name and a port.
type Name = (String, u16);

type Answer = io::Result<Vec<SocketAddr>>;

impl Resolver {
    pub fn new(waker: Arc<Waker>) -> Resolver {
        Resolver {
            waker,
            channel: mpsc::channel(),
            busy: None,
            next: None,
            last_good: None,
        }
    }

    /// The addresses of a host, if they need no lookup. Otherwise a lookup is started, or queued behind the current one,
    /// and [`Resolver::answer`] returns the result later. Only the most recently requested name gets a result.
    pub fn resolve(&mut self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let number = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = number.parse::<IpAddr>() {
            return Some(vec![SocketAddr::new(address, port)]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Some(vec![
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
                SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            ]);
        }
        let wanted = (host.to_owned(), port);
        match &self.busy {
            None => self.look_up(wanted),
            Some(busy) => self.next = (*busy != wanted).then_some(wanted),
        }
        None
    }

    fn look_up(&mut self, wanted: Name) {
        self.busy = Some(wanted.clone());
        let sender = self.channel.0.clone();
        let waker = Arc::clone(&self.waker);
        let look_up = move || {
            let found = (wanted.0.as_str(), wanted.1).to_socket_addrs();
            let _ = sender.send(found.map(Iterator::collect));
            let _ = waker.wake();
        };
        let spawned = thread::Builder::new()
            .name("resolver".to_owned())
            .stack_size(STACK)
            .spawn(look_up);
        if let Err(error) = spawned {
            let _ = self.channel.0.send(Err(error));
            let _ = self.waker.wake();
        }
    }

    /// The result of a completed lookup: at least one address, or an error.
    pub fn answer(&mut self) -> Option<Answer> {
        let answer = self.channel.1.try_recv().ok()?;
        let name = self.busy.take()?;
        if let Some(next) = self.next.take() {
            // This result has been superseded by a newer request.
            self.look_up(next);
            return None;
        }
        let host = &name.0;
        let failure = match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.last_good = Some((name, addresses.clone()));
                return Some(Ok(addresses));
            }
            Ok(_) => format!("the name {host} has no address"),
            Err(error) => format!("the name {host} cannot be resolved: {error}"),
        };
        let known = self.last_good.as_ref().filter(|(good, _)| *good == name);
        Some(match known {
            Some((_, addresses)) => Ok(addresses.clone()),
            None => Err(io::Error::other(failure)),
        })
    }
}
