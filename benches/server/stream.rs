//! The client's end of one connection, plain or TLS. Both read, write and say `WouldBlock` alike, so that the loop
//! over them need not know which it drives.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::certificate;
use crate::common::outcome::Outcome;

const CONNECT: Duration = Duration::from_secs(10);

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// None for plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

#[derive(Debug)]
pub struct ClientStream {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl ClientStream {
    /// Connects, and registers for both directions. TLS shakes hands later, as bytes are moved.
    pub fn connect(
        endpoint: &Endpoint,
        registry: &Registry,
        token: Token,
    ) -> Outcome<ClientStream> {
        let opened =
            std::net::TcpStream::connect_timeout(&endpoint.address, CONNECT).and_then(|stream| {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let mut stream = TcpStream::from_std(stream);
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
        let socket = opened.map_err(|e| format!("connect to {}: {e}", endpoint.address))?;
        let tls = match &endpoint.tls {
            Some(config) => {
                let shown = |e: &dyn std::fmt::Display| format!("The client's TLS: {e}");
                let name = ServerName::try_from(certificate::NAME).map_err(|e| shown(&e))?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(|e| shown(&e))?;
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(ClientStream { socket, tls })
    }

    /// Writes what fits of the two slices; the first may be empty.
    pub fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let slices = [IoSlice::new(head), IoSlice::new(body)];
        let Some(tls) = &mut self.tls else {
            return match head {
                [] => self.socket.write(body),
                _ => self.socket.write_vectored(&slices),
            };
        };
        // What rustls holds goes out first, so that its buffer stays as small as one write.
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        if tls.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = tls.writer().write_vectored(&slices)?;
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                // The bytes are taken all the same; the next write sends the rest.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    /// Sends what an earlier write left behind. `WouldBlock` where some of it still is.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }

    /// Reads once; 0 is the end of the input.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(buffer);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            let handshaking = tls.is_handshaking();
            tls.process_new_packets().map_err(io::Error::other)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            // The proof that nothing was resumed, for every single connection.
            if handshaking
                && !tls.is_handshaking()
                && tls.handshake_kind() != Some(HandshakeKind::Full)
            {
                return Err(io::Error::other("The handshake was not a full one."));
            }
        }
    }

    /// Whether a request can be written.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}
