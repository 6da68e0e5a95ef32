//! The loop that all limit lines share: wait, accept, let each connection that has news go on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_tcp_nodelay;

/// What is done with the connections, with whatever all of them share.
pub trait Handler {
    /// One connection's state in its request or answer.
    type State;

    fn new_state(&mut self) -> io::Result<Self::State>;

    /// Goes on as far as it can; false when the client has gone. There may be nothing to do.
    fn advance(&mut self, socket: &TcpStream, state: &mut Self::State) -> io::Result<bool>;
}

const LISTENER: Token = Token(usize::MAX);

pub fn serve<W: Handler>(address: SocketAddr, handler: &mut W) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listener = TcpListener::bind(address)?;
    // Every accepted socket inherits it.
    set_tcp_nodelay(&listener, true)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<(TcpStream, W::State)>> = Vec::new();
    let mut free = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        for event in &events {
            if event.token() != LISTENER {
                let Some(Some((socket, state))) = connections.get_mut(event.token().0) else {
                    continue;
                };
                match handler.advance(socket, state) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    // A client that is done may take its leave by a reset.
                    Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
                    Err(e) => return Err(e),
                }
                connections[event.token().0] = None;
                free.push(event.token().0);
                continue;
            }
            loop {
                let (mut socket, _) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                };
                let index = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut socket, Token(index), both)?;
                connections[index] = Some((socket, handler.new_state()?));
            }
        }
    }
}
