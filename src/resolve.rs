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

/// Enough for the C library's resolver; bytes.
const STACK: usize = 256 * 1024;

/// Looks up one name at a time.
#[derive(Debug)]
pub struct Resolver {
    waker: Arc<Waker>,
    channel: (Sender<Answer>, Receiver<Answer>),
    /// The name that a thread is busy with.
    busy: Option<(String, u16)>,
    last_good: Option<(String, u16, Vec<SocketAddr>)>,
}

type Answer = io::Result<Vec<SocketAddr>>;

impl Resolver {
    pub fn new(waker: Arc<Waker>) -> Resolver {
        Resolver {
            waker,
            channel: mpsc::channel(),
            busy: None,
            last_good: None,
        }
    }

    /// Addresses of a host, if they need no look-up; else one is begun, unless one for this name is under way, and
    /// [`Resolver::answer`] has it later.
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
        if self.busy.as_ref() == Some(&wanted) {
            return None;
        }
        // A thread that is still busy with another name answers into a channel that nobody reads any more.
        self.channel = mpsc::channel();
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
        None
    }

    /// The outcome of a look-up, once there is one: at least one address, or why there is none.
    pub fn answer(&mut self) -> Option<Answer> {
        let answer = self.channel.1.try_recv().ok()?;
        let (host, port) = self.busy.take()?;
        let known = |good: &Option<(String, u16, Vec<SocketAddr>)>| {
            good.as_ref()
                .filter(|(h, p, _)| *h == host && *p == port)
                .map(|(_, _, addresses)| addresses.clone())
        };
        Some(match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.last_good = Some((host, port, addresses.clone()));
                Ok(addresses)
            }
            Ok(_) => known(&self.last_good)
                .ok_or_else(|| io::Error::other(format!("the name {host} has no address"))),
            Err(error) => known(&self.last_good).ok_or_else(|| {
                io::Error::other(format!("the name {host} cannot be resolved: {error}"))
            }),
        })
    }
}
