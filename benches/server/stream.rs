//! The client's end of a connection, plain or TLS. Both have the same interface and return `WouldBlock` alike, so the
//! caller need not know which it drives.

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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server listens, and whether it speaks TLS.
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
    /// Connects, and registers for both directions. The TLS handshake takes place in later reads and writes.
    pub fn connect(
        endpoint: &Endpoint,
        registry: &Registry,
        token: Token,
    ) -> Outcome<ClientStream> {
        let connected = std::net::TcpStream::connect_timeout(&endpoint.address, CONNECT_TIMEOUT)
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let mut stream = TcpStream::from_std(stream);
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
        let socket = connected.map_err(|e| format!("connect to {}: {e}", endpoint.address))?;
        let tls = match &endpoint.tls {
            Some(config) => {
                let failed = |e: &dyn std::fmt::Display| format!("TLS of the client: {e}");
                let name = ServerName::try_from(certificate::NAME).map_err(|e| failed(&e))?;
                let tls =
                    ClientConnection::new(Arc::clone(config), name).map_err(|e| failed(&e))?;
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(ClientStream { socket, tls })
    }

    /// Writes as much of the two slices as fits; the first may be empty.
    pub fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let slices = [IoSlice::new(head), IoSlice::new(body)];
        let Some(tls) = &mut self.tls else {
            return match head {
                [] => self.socket.write(body),
                _ => self.socket.write_vectored(&slices),
            };
        };
        // What rustls has buffered goes first, so that its buffer never holds more than one write.
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
                // rustls has buffered the bytes; the next write sends the rest.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    /// Sends what earlier writes left buffered; `WouldBlock` if some of it still is.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }

    /// Reads once; 0 is the end of input.
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
            // Verifies for every connection that no session was resumed.
            if handshaking
                && !tls.is_handshaking()
                && tls.handshake_kind() != Some(HandshakeKind::Full)
            {
                return Err(io::Error::other("the TLS handshake was not a full one"));
            }
        }
    }

    /// Whether the TLS handshake is under way, so that no request can be written yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}
