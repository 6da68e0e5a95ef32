//! Accepting connections: a few per turn, within the limits and with the descriptors that are free.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::Token;

use crate::http::forwarded;
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::client::{Acceptance, AcceptedSocket, Client, ClientAddress, Endpoint};
use crate::reactor::listener::Peer;
use crate::sys;
use crate::transport::Transport;

/// Maximum number of connections accepted per turn.
const ACCEPTS: usize = 16;

/// When to try again after nothing could be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

impl Reactor {
    /// Accepts connections from all listeners that are readable.
    pub(super) fn accept(&mut self, now: Now) {
        if self
            .acceptor
            .paused_until
            .is_some_and(|until| now.mono < until)
        {
            return;
        }
        self.acceptor.paused_until = None;
        let mut left = ACCEPTS;
        for index in 0..self.acceptor.listeners.len() {
            while left > 0 && self.acceptor.listeners[index].readable {
                if self.connections.table.len() >= self.acceptor.limit + self.acceptor.max_rejected
                {
                    // Further connections wait in the kernel's queue.
                    return self.pause_accepting(now);
                }
                match self.acceptor.listeners[index].accept() {
                    Ok((socket, peer)) => {
                        self.acceptor.out_of_descriptors = false;
                        left -= 1;
                        let full = self.connections.table.len() >= self.acceptor.limit;
                        self.shared.status.metrics.accepted();
                        let acceptance = if full && !self.make_room() {
                            self.shared.status.metrics.rejected();
                            Acceptance::Rejected
                        } else {
                            Acceptance::Admitted
                        };
                        self.add_connection(index, socket, peer, acceptance, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.acceptor.listeners[index].readable = false;
                    }
                    Err(error) if sys::is_out_of_descriptors(&error) => {
                        if !std::mem::replace(&mut self.acceptor.out_of_descriptors, true) {
                            log::warn!(
                                "out of descriptors connections={}",
                                self.connections.table.len()
                            );
                        }
                        self.shared.open_files.close();
                        self.make_room();
                        return self.pause_accepting(now);
                    }
                    // This connection was closed before it was accepted.
                    Err(error) => {
                        left -= 1;
                        log::debug!("connection not accepted why={:?}", error.to_string());
                    }
                }
            }
        }
    }

    fn pause_accepting(&mut self, now: Now) {
        self.acceptor.paused_until = Some(now.mono + ACCEPT_PAUSE);
    }

    /// Registers an accepted socket, and adds it to the table.
    fn add_connection(
        &mut self,
        index: usize,
        socket: OwnedFd,
        peer: Peer,
        mut acceptance: Acceptance,
        now: Now,
    ) {
        let counted = self.count_address(peer, &mut acceptance);
        let tls = self.acceptor.listeners[index]
            .is_tls()
            .then(|| self.tls.config.clone())
            .flatten();
        let endpoint = match self.acceptor.listeners[index].is_local() {
            true => Endpoint::LocalApi,
            false => Endpoint::Public,
        };
        let accepted = AcceptedSocket {
            address: ClientAddress::new(peer, counted),
            endpoint,
            acceptance,
        };
        let registry = self.poll.registry();
        let shared = &self.shared;
        let inserted = self.connections.table.insert_with(|key| {
            let transport = Transport::new(socket, registry, Token(key.to_token()), tls)?;
            Ok::<_, io::Error>(Client::new(key, accepted, transport, shared, now))
        });
        match inserted {
            Ok(key) => {
                log::debug!("connection accepted conn={key} from={peer}");
                self.enqueue(key);
            }
            Err(error) => log::warn!(
                "connection not added from={peer} why={:?}",
                error.to_string()
            ),
        }
    }

    /// Counts a connection for its address, unless that is a trusted proxy.
    fn count_address(&mut self, peer: Peer, acceptance: &mut Acceptance) -> Option<IpAddr> {
        let limit = self.shared.config.max_connections_per_address;
        let Peer::Tcp(address) = peer else {
            return None;
        };
        let address = address.ip().to_canonical();
        if limit == 0 || forwarded::is_trusted(address, &self.shared.config.trusted_proxies) {
            return None;
        }
        let (count, group) = self.shared.connections.addresses.add(address);
        if count > limit {
            *acceptance = Acceptance::Rejected;
        }
        Some(group)
    }

    /// Closes the connection that has been waiting for a complete request head for longest; false if there is none. In
    /// a flood of connections the oldest is closed first, so that all have the same time to send a request. Connections
    /// on a queue are not closed, because their request may have arrived.
    fn make_room(&mut self) -> bool {
        let victim = self
            .connections
            .table
            .iter_mut()
            .filter(|(_, client)| !client.queued)
            .filter_map(|(key, client)| client.evictable_since().map(|since| (since, key)))
            .min();
        match victim {
            Some((_, key)) => {
                if let Some(client) = self.connections.table.get_mut(key) {
                    client.mark_evicted();
                }
                self.remove(key);
                true
            }
            None => false,
        }
    }
}
