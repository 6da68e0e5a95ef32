//! The byte stream of one connection, accepted or opened, plain or TLS, with remembered readiness.
//!
//! The socket is registered once. Events set the readiness bits; only `WouldBlock`, or a read that emptied the socket,
//! clears them.

mod tls;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::Shutdown;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use crate::sys;
use tls::Tls;

pub use tls::wire_size;

/// Maximum number of bytes per [`Transport::write`] and [`Transport::send_file`] over TLS.
pub const MAX_WRITE: usize = 64 * 1024;

/// The outcome of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Bytes(usize),
    /// The socket is not ready; an event will announce when it is.
    Blocked,
    /// TLS made progress without moving any plaintext; call again.
    NoBytes,
    /// End of input.
    End,
}

/// The byte stream of one connection.
#[derive(Debug)]
pub struct Transport {
    socket: ReadySocket,
    tls: Option<Box<Tls>>,
    /// Whether the client sent plain HTTP to a TLS listener, so that TLS was dropped.
    plain: bool,
    /// Whether the write side is shut down.
    shut: bool,
    /// Encrypted bytes sent since the last [`Transport::take_flushed`].
    flushed: u64,
}

impl Transport {
    /// Registers an accepted socket for both directions; this happens once.
    pub fn new(
        socket: OwnedFd,
        registry: &Registry,
        token: Token,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Transport> {
        let tls = tls.map(Tls::new).transpose().map_err(io::Error::other)?;
        Transport::register(socket, registry, token, tls)
    }

    /// Begins to connect to a server, whose certificate must be valid for the name; see [`Transport::is_connected`]. There
    /// is neither input nor output before.
    pub fn connect(
        server: SocketAddr,
        registry: &Registry,
        token: Token,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> io::Result<Transport> {
        let tls = tls.map(|(config, name)| Tls::client(config, name));
        let tls = tls.transpose().map_err(io::Error::other)?;
        let socket = OwnedFd::from(TcpStream::connect(server)?);
        let mut transport = Transport::register(socket, registry, token, tls)?;
        transport.socket.readable = false;
        transport.socket.writable = false;
        Ok(transport)
    }

    fn register(
        socket: OwnedFd,
        registry: &Registry,
        token: Token,
        tls: Option<Tls>,
    ) -> io::Result<Transport> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both)?;
        Ok(Transport {
            socket: ReadySocket::new(socket),
            tls: tls.map(Box::new),
            plain: false,
            shut: false,
            flushed: 0,
        })
    }

    /// Whether [`Transport::connect`] has succeeded; the error if it has failed.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        if !self.socket.writable || !sys::is_connected(&self.socket.fd)? {
            return Ok(false);
        }
        // Without it two small writes cost 40 ms.
        sys::set_nodelay(&self.socket.fd)?;
        Ok(true)
    }

    /// Records the readiness reported by an event.
    pub fn set_ready(&mut self, event: &Event) {
        let socket = &mut self.socket;
        socket.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        socket.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        socket.ending |= event.is_read_closed() || event.is_error();
    }

    /// Whether there is input in the socket that was not read.
    pub fn has_unread_input(&self) -> bool {
        sys::has_unread_input(&self.socket.fd)
    }

    /// Assumes that the socket is writable again, which may be true long before an event reports it.
    pub fn assume_writable(&mut self) {
        self.socket.writable = true;
    }

    /// Whether the peer has closed TLS. Without it, the end of input may have been forged.
    pub fn is_tls_closed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_closed())
    }

    /// Whether the socket may accept output.
    pub fn is_writable(&self) -> bool {
        self.socket.writable
    }

    /// Whether the TLS handshake, if any, has completed.
    pub fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the client sent plain HTTP to a TLS listener. Its input is dropped, and output is no longer encrypted, so
    /// that the client can read the error response.
    pub fn received_plain_http(&self) -> bool {
        self.plain
    }

    /// Reads into the buffer. `wire`, here and in [`Transport::write`] and [`Transport::send_file`], is a buffer of
    /// [`wire_size`] bytes for TLS records, which holds nothing between calls.
    pub fn read(&mut self, buffer: &mut [u8], wire: &mut [u8]) -> io::Result<Moved> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(buffer);
        };
        match tls.take_plain(buffer) {
            0 => {}
            n => return Ok(Moved::Bytes(n)),
        }
        if tls.is_closed() {
            return Ok(Moved::End);
        }
        let Some(room) = tls.room(buffer.len(), wire) else {
            return Err(io::Error::other("the TLS message is too long"));
        };
        let n = match self.socket.read(room)? {
            Moved::Bytes(n) => n,
            // An end without close_notify is accepted: HTTP framing shows whether the message is complete.
            other => return Ok(other),
        };
        if tls.is_plain_text(&wire[..n]) {
            if tls.is_client() {
                return Err(io::Error::other(
                    "the server does not speak TLS on this port",
                ));
            }
            self.tls = None;
            self.plain = true;
            return Ok(Moved::NoBytes);
        }
        let result = tls.received(n, wire, buffer);
        let closed = tls.is_closed();
        // Sends handshake messages or an alert.
        let flushed = self.flush();
        let n = result.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        flushed?;
        Ok(match n {
            0 if closed => Moved::End,
            0 => Moved::NoBytes,
            n => Moved::Bytes(n),
        })
    }

    /// Writes from the buffer; `more` means that file data follows immediately.
    pub fn write(&mut self, bytes: &[u8], more: bool, wire: &mut [u8]) -> io::Result<Moved> {
        if self.tls.is_none() {
            return self.socket.write(bytes, more);
        }
        if !self.flush()? {
            return Ok(Moved::Blocked);
        }
        let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
        self.send_encrypted(bytes, more, wire)?;
        Ok(Moved::Bytes(bytes.len()))
    }

    /// Sends at most `most` bytes from an offset of a file; zero bytes at the end of the file. `scratch` is used where
    /// the bytes must pass through memory.
    pub fn send_file(
        &mut self,
        file: impl AsFd,
        offset: u64,
        most: usize,
        scratch: &mut [u8],
        wire: &mut [u8],
    ) -> io::Result<Moved> {
        if self.tls.is_none() {
            return self.socket.send_file(file, offset, most);
        }
        if !self.socket.writable || !self.flush()? {
            return Ok(Moved::Blocked);
        }
        let most = most.min(scratch.len()).min(MAX_WRITE);
        let read = sys::read_at(file, &mut scratch[..most], offset)?;
        if read > 0 {
            self.send_encrypted(&scratch[..read], false, wire)?;
        }
        Ok(Moved::Bytes(read))
    }

    /// Encrypts and sends; bytes that the socket does not accept are buffered.
    fn send_encrypted(&mut self, bytes: &[u8], more: bool, wire: &mut [u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let n = tls.encrypt(bytes, wire)?;
        let sent = self.socket.write_until_full(&wire[..n], more)?;
        self.flushed += sent as u64;
        tls.buffer_unsent(&wire[sent..n]);
        Ok(())
    }

    /// Sends buffered TLS records that must not wait; returns true when none are left.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        let sent = self.socket.write_until_full(tls.must_flush(), false)?;
        self.flushed += sent as u64;
        tls.sent(sent);
        Ok(tls.must_flush().is_empty())
    }

    /// Encrypted bytes sent since the last call, as a sign that the client is reading.
    pub fn take_flushed(&mut self) -> u64 {
        std::mem::take(&mut self.flushed)
    }

    /// Shuts the write side down, after sending `close_notify` over TLS; returns true when it is shut.
    pub fn shut_write(&mut self) -> io::Result<bool> {
        if self.shut {
            return Ok(true);
        }
        if let Some(tls) = &mut self.tls {
            tls.close()?;
            if !self.flush()? {
                return Ok(false);
            }
        }
        self.shut = true;
        rustix::net::shutdown(&self.socket.fd, Shutdown::Write)?;
        Ok(true)
    }

    /// Reads and discards raw input, without decrypting it.
    pub fn discard_input(&mut self, scratch: &mut [u8]) -> io::Result<Moved> {
        self.socket.read(scratch)
    }
}

/// A connected stream socket, with its readiness.
#[derive(Debug)]
struct ReadySocket {
    fd: OwnedFd,
    readable: bool,
    writable: bool,
    /// An event announced the end of input, so a short read no longer means that the socket is empty.
    ending: bool,
}

impl ReadySocket {
    /// A new socket is assumed to be ready until an attempt shows otherwise.
    fn new(fd: OwnedFd) -> ReadySocket {
        ReadySocket {
            fd,
            readable: true,
            writable: true,
            ending: false,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Moved> {
        if !self.readable {
            return Ok(Moved::Blocked);
        }
        let moved = blocked(sys::receive(&self.fd, buffer), &mut self.readable)?;
        match moved {
            Moved::Bytes(0) => return Ok(Moved::End),
            // A short read has emptied the socket, and a new event will announce further input. The end of input,
            // however, is not announced a second time.
            Moved::Bytes(n) if n < buffer.len() && !self.ending => self.readable = false,
            _ => {}
        }
        Ok(moved)
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        blocked(sys::send(&self.fd, bytes, more), &mut self.writable)
    }

    /// Returns the number of bytes that the socket accepted.
    fn write_until_full(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.write(&bytes[sent..], more)? {
                Moved::Bytes(n) => sent += n,
                _ => break,
            }
        }
        Ok(sent)
    }

    fn send_file(&mut self, file: impl AsFd, offset: u64, most: usize) -> io::Result<Moved> {
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        let sent = sys::send_file(&self.fd, file, offset, most);
        blocked(sent, &mut self.writable)
    }
}

/// Maps `WouldBlock` to [`Moved::Blocked`] and clears the readiness bit.
fn blocked(moved: io::Result<usize>, ready: &mut bool) -> io::Result<Moved> {
    match moved {
        Ok(n) => Ok(Moved::Bytes(n)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *ready = false;
            Ok(Moved::Blocked)
        }
        Err(error) => Err(error),
    }
}
