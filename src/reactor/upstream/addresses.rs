//! The addresses of the store: looked up off the loop, kept while they are fresh, the last good one first.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Waker;

use crate::resolve::{self, Lookup};

/// How long addresses are used before they are looked up again.
const FRESH: Duration = Duration::from_secs(60);

/// How long requests wait for a lookup. The resolver itself may take longer.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// The addresses of one host.
#[derive(Debug)]
pub(super) struct Addresses {
    host: String,
    port: u16,
    /// The last good one first.
    known: Vec<SocketAddr>,
    /// When to look them up again; `None` for a host that needs no lookup.
    stale_at: Option<Instant>,
    lookup: Option<Lookup>,
    /// When requests no longer wait for the lookup.
    until: Option<Instant>,
    waker: Arc<Waker>,
}

/// Where to connect to.
#[derive(Debug)]
pub(super) enum Candidates {
    Known(VecDeque<SocketAddr>),
    /// They are being looked up.
    Pending,
    /// They cannot be looked up, and why.
    Unknown(String),
}

impl Addresses {
    pub(super) fn new(host: &str, port: u16, waker: Arc<Waker>, now: Instant) -> Addresses {
        let known = resolve::known_addresses(host, port);
        Addresses {
            host: host.to_owned(),
            port,
            stale_at: known.is_none().then_some(now),
            known: known.unwrap_or_default(),
            lookup: None,
            until: None,
            waker,
        }
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The addresses to try, in order. Starts a lookup if they are not fresh.
    pub(super) fn candidates(&mut self, now: Instant) -> Candidates {
        let is_stale = self.stale_at.is_some_and(|at| at <= now);
        if is_stale && self.lookup.is_none() {
            match Lookup::start(&self.host, self.port, Arc::clone(&self.waker)) {
                Ok(lookup) => {
                    self.lookup = Some(lookup);
                    self.until = Some(now + LOOKUP_TIME);
                }
                Err(error) if self.known.is_empty() => {
                    return Candidates::Unknown(error.to_string());
                }
                Err(_) => {}
            }
        }
        match self.known.is_empty() {
            true => Candidates::Pending,
            false => Candidates::Known(self.known.iter().copied().collect()),
        }
    }

    /// When [`Addresses::take_answer`] must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.filter(|_| self.known.is_empty())
    }

    /// The result of a lookup, if requests waited for it and it is there, or takes too long.
    pub(super) fn take_answer(&mut self, now: Instant) -> Option<Result<(), String>> {
        let answer = self.lookup.as_ref().and_then(Lookup::answer);
        let is_awaited = self.known.is_empty();
        match answer {
            Some(answer) => {
                self.lookup = None;
                self.until = None;
                match answer {
                    Ok(found) => self.found(found, now),
                    Err(error) if is_awaited => return Some(Err(error.to_string())),
                    // The last good ones are used on.
                    Err(_) => self.stale_at = Some(now + FRESH),
                }
                is_awaited.then_some(Ok(()))
            }
            None if self.deadline().is_some_and(|until| until <= now) => {
                self.until = None;
                let host = &self.host;
                let within = LOOKUP_TIME.as_secs();
                Some(Err(format!(
                    "the name {host} was not resolved within {within} s"
                )))
            }
            None => None,
        }
    }

    fn found(&mut self, found: Vec<SocketAddr>, now: Instant) {
        let last_good = self.known.first().copied();
        self.known = found;
        if let Some(good) = last_good {
            self.connected(good);
        }
        self.stale_at = Some(now + FRESH);
    }

    /// A connection to this address was opened.
    pub(super) fn connected(&mut self, address: SocketAddr) {
        if let Some(at) = self.known.iter().position(|known| *known == address) {
            self.known[..=at].rotate_right(1);
        }
    }

    /// No address could be connected to. The next time they are looked up.
    pub(super) fn failed(&mut self, now: Instant) {
        self.stale_at = self.stale_at.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    fn addresses(host: &str) -> (Poll, Addresses) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        (poll, Addresses::new(host, 80, waker, Instant::now()))
    }

    #[track_caller]
    fn known(addresses: &mut Addresses) -> Vec<String> {
        match addresses.candidates(Instant::now()) {
            Candidates::Known(known) => known.iter().map(SocketAddr::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_good_address_comes_first() {
        let (_poll, mut addresses) = addresses("localhost");
        assert_eq!(known(&mut addresses), ["127.0.0.1:80", "[::1]:80"]);
        addresses.connected("[::1]:80".parse().unwrap());
        assert_eq!(known(&mut addresses), ["[::1]:80", "127.0.0.1:80"]);
        addresses.connected("192.0.2.1:80".parse().unwrap());
        addresses.failed(Instant::now());
        assert_eq!(known(&mut addresses), ["[::1]:80", "127.0.0.1:80"]);
        assert!(addresses.lookup.is_none());
        let found = ["192.0.2.1:80", "[::1]:80"].map(|text| text.parse().unwrap());
        addresses.found(found.to_vec(), Instant::now());
        assert_eq!(known(&mut addresses), ["[::1]:80", "192.0.2.1:80"]);
    }

    #[test]
    fn names_without_an_address_are_errors() {
        let (mut poll, mut addresses) = addresses("no-such-name.invalid");
        let start = Instant::now();
        assert!(matches!(addresses.candidates(start), Candidates::Pending));
        assert!(addresses.deadline().is_some());
        let late = start + LOOKUP_TIME;
        assert!(matches!(addresses.take_answer(late), Some(Err(_))));
        assert_eq!(addresses.take_answer(late), None);
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(60)))
            .unwrap();
        let answer = addresses.take_answer(start);
        assert!(matches!(answer, Some(Err(why)) if why.contains("no-such-name.invalid")));
        assert!(matches!(addresses.candidates(late), Candidates::Pending));
    }
}
