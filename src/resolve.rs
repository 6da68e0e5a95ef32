//! Host names to addresses, off the loop.
//!
//! Numbers and `localhost` are answered at once; anything else goes to a short-lived thread, because the resolver of
//! the C library blocks for as long as a silent name server likes. The last good addresses of a name are kept for
//! the time that name service is away.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use crate::sys;

/// Why a server cannot be connected to, in words that say when it is for want of IPv6.
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

/// Looks up one name at a time, with one thread at most.
#[derive(Debug)]
pub struct Resolver {
    waker: Arc<Waker>,
    channel: (Sender<Answer>, Receiver<Answer>),
    /// What a thread is busy with.
    busy: Option<Name>,
    /// What was asked for while the thread was busy with something else.
    next: Option<Name>,
    last_good: Option<(Name, Vec<SocketAddr>)>,
}

/// A host's name, and a port.
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

    /// Addresses of a host, if they need no look-up; else one is begun, or stands in line behind the one that is under
    /// way, and [`Resolver::answer`] has it later. Only the last name that was asked for is answered.
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

    /// The outcome of a look-up, once there is one: at least one address, or why there is none.
    pub fn answer(&mut self) -> Option<Answer> {
        let answer = self.channel.1.try_recv().ok()?;
        let name = self.busy.take()?;
        if let Some(next) = self.next.take() {
            // Nobody wants this one any more.
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
