//! The address of a client: that of the socket, or the one that a trusted proxy reports in each request.

use std::fmt;
use std::net::IpAddr;

use crate::http::forwarded;
use crate::http::head::RequestHead;
use crate::reactor::listener::Peer;
use crate::reactor::shared::Shared;

/// The address of a client, and how the connection is counted.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress {
    peer: Peer,
    /// The client behind a trusted proxy, as of the present request.
    forwarded: Option<IpAddr>,
    /// The group counted in [`crate::reactor::connection_limits::AddressCounts`].
    counted: Option<IpAddr>,
}

impl ClientAddress {
    /// The address of a new connection; `counted` is the group counted for it.
    pub fn new(peer: Peer, counted: Option<IpAddr>) -> ClientAddress {
        ClientAddress {
            peer,
            forwarded: None,
            counted,
        }
    }

    /// The other end of the socket.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Takes the address that a trusted proxy reports in this request.
    pub fn begin_request(&mut self, request: &RequestHead, shared: &Shared) {
        let trusted = &shared.config.trusted_proxies;
        let is_proxy = match self.peer {
            Peer::Tcp(address) => forwarded::is_trusted(address.ip().to_canonical(), trusted),
            Peer::Unix => !trusted.is_empty(),
        };
        self.forwarded = is_proxy
            .then(|| forwarded::client_address(request, trusted))
            .flatten();
    }

    /// Counts the connection for the client behind a proxy. False if that client has too many connections.
    pub fn count_forwarded(&mut self, shared: &mut Shared) -> bool {
        let limit = shared.config.max_connections_per_address;
        let Some(address) = self.forwarded.filter(|_| limit > 0) else {
            return true;
        };
        self.uncount(shared);
        let (count, group) = shared.connections.addresses.add(address);
        self.counted = Some(group);
        count <= limit
    }

    /// Forgets the client behind the proxy: the next request may come from another one.
    pub fn end_request(&mut self, shared: &mut Shared) {
        if self.forwarded.take().is_some() {
            self.uncount(shared);
        }
    }

    /// Forgets the client of the previous request: it is not known from which client a malformed head came.
    pub fn forget_forwarded(&mut self) {
        self.forwarded = None;
    }

    /// Counts the connection for no address any more.
    pub fn uncount(&mut self, shared: &mut Shared) {
        if let Some(group) = self.counted.take() {
            shared.connections.addresses.remove(group);
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}", self.peer),
        }
    }
}
