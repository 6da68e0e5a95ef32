//! The event loop of all limit servers: wait, accept, and advance each connection that is ready.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_tcp_nodelay;

/// Serves connections, and holds what they share.
pub trait Handler {
    /// The state of one connection.
    type State;

    /// The state of a new connection.
    fn new_state(&mut self) -> io::Result<Self::State>;

    /// Makes as much progress as the socket allows, possibly none; false once the client has closed the connection.
    fn advance(&mut self, socket: &TcpStream, state: &mut Self::State) -> io::Result<bool>;
}

const LISTENER: Token = Token(usize::MAX);

/// Serves until the process is killed; returns only errors.
pub fn serve<H: Handler>(address: SocketAddr, handler: &mut H) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listener = TcpListener::bind(address)?;
    // Accepted sockets inherit this.
    set_tcp_nodelay(&listener, true)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<(TcpStream, H::State)>> = Vec::new();
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
                    // A client may close its connection with a reset.
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
