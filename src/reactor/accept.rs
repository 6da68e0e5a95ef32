//! Taking in connections: a few per turn, and what to do when there is no room.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mio::Token;

use crate::http::forwarded;
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::client::{Acceptance, AcceptedSocket, Client, ClientAddress, Endpoint};
use crate::reactor::listener::Peer;
use crate::sys;
use crate::transport::{Socket, Transport};

/// Connections accepted per turn.
const ACCEPTS: usize = 16;

/// When to try again after nothing could be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

impl Reactor {
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
                    // Whoever comes now waits in the kernel's queue.
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
                        self.acceptance(index, socket, peer, acceptance, now);
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
                    // This one is gone already; the next may not be.
                    Err(error) => {
                        left -= 1;
                        log::debug!("connection not accepted why={:?}", error.to_string());
                    }
                }
            }
        }
    }

    pub(super) fn pause_accepting(&mut self, now: Now) {
        self.acceptor.paused_until = Some(now.mono + ACCEPT_PAUSE);
    }

    pub(super) fn acceptance(
        &mut self,
        index: usize,
        socket: Socket,
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
        let accepted_socket = AcceptedSocket {
            address: ClientAddress::new(peer, counted),
            endpoint,
            acceptance,
        };
        let registry = self.poll.registry();
        let shared = &self.shared;
        let inserted = self.connections.table.insert_with(|key| {
            let mut socket = socket;
            socket.register(registry, Token(key.to_token()))?;
            let transport = Transport::new(socket, tls)?;
            Ok::<_, io::Error>(Client::new(key, accepted_socket, transport, shared, now))
        });
        match inserted {
            Some(Ok(key)) => {
                log::debug!("connection accepted conn={key} from={peer}");
                self.enqueue(key);
            }
            Some(Err(error)) => log::warn!(
                "connection not taken from={peer} why={:?}",
                error.to_string()
            ),
            None => log::warn!("connection not taken from={peer} why=\"the table is full\""),
        }
    }

    /// Counts a connection for its address, unless a trusted proxy stands there.
    pub(super) fn count_address(
        &mut self,
        peer: Peer,
        acceptance: &mut Acceptance,
    ) -> Option<IpAddr> {
        let most = self.shared.config.max_connections_per_address;
        let Peer::Tcp(address) = peer else {
            return None;
        };
        let address = address.ip().to_canonical();
        if most == 0 || forwarded::is_trusted(address, &self.shared.config.trusted_proxies) {
            return None;
        }
        let (count, group) = self.shared.connections.addresses.add(address);
        if count > most {
            *acceptance = Acceptance::Rejected;
        }
        Some(group)
    }

    /// Closes the connection that has owed a request head for longest, idle or begun; false when all are at work. In
    /// a flood the one that came first goes first, so that everybody has the same time to say what they want. Whose
    /// request may be here, unread, has said it.
    pub(super) fn make_room(&mut self) -> bool {
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
