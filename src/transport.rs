//! Bytes of one accepted connection, plain or TLS, with remembered readiness.
//!
//! The socket is registered once. Events set the readiness bits; only an answer that nothing more can be moved now
//! clears them.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown};
use rustls::{ServerConfig, ServerConnection};

use crate::sys;

/// Plaintext that rustls may hold encrypted and unsent; bytes.
const TLS_BUFFER: usize = 64 * 1024;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Registers for both directions, once and for all.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Socket::Tcp(stream) => registry.register(stream, token, both),
            Socket::Unix(stream) => registry.register(stream, token, both),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What came of an attempt to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Bytes(usize),
    /// Nothing now; an event will tell when.
    Blocked,
    /// Work was done that moved no bytes of ours, and there may be more of it.
    Nothing,
    /// The other side sends no more.
    End,
}

/// One connection's bytes.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    readable: bool,
    writable: bool,
    /// An event said that the end of input is near, so that a short read does not mean an empty socket.
    ending: bool,
    tls: Option<Box<ServerConnection>>,
    shut: bool,
    notified: bool,
    /// Bytes that TLS brought out since [`Transport::take_flushed`].
    flushed: u64,
}

impl Transport {
    /// Readiness is assumed until an attempt shows otherwise.
    pub fn new(socket: Socket, tls: Option<Arc<ServerConfig>>) -> io::Result<Transport> {
        let tls = match tls {
            Some(config) => {
                let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
                connection.set_buffer_limit(Some(TLS_BUFFER));
                Some(Box::new(connection))
            }
            None => None,
        };
        Ok(Transport {
            socket,
            readable: true,
            writable: true,
            ending: false,
            tls,
            shut: false,
            notified: false,
            flushed: 0,
        })
    }

    /// Remembers what an event says.
    pub fn set_ready(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.ending |= event.is_read_closed() || event.is_error();
    }

    /// Believes once more that the socket takes bytes: it may, long before an event says so.
    pub fn assume_writable(&mut self) {
        self.writable = true;
    }

    /// Whether input may be waiting.
    pub fn may_have_input(&self) -> bool {
        self.readable
    }

    /// Whether the TLS handshake, if any, is over.
    pub fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads into the buffer.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Moved> {
        let Some(tls) = &mut self.tls else {
            return self.read_raw(buffer);
        };
        match tls.reader().read(buffer) {
            Ok(0) => return Ok(Moved::End),
            Ok(n) => return Ok(Moved::Bytes(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // No close_notify; HTTP's own framing tells whether something is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Moved::End),
            Err(error) => return Err(error),
        }
        if !self.readable {
            return Ok(Moved::Blocked);
        }
        match tls.read_tls(&mut Raw(&self.socket)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(Moved::Blocked);
            }
            Err(error) => return Err(error),
        }
        let processed = tls.process_new_packets();
        let state = processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        if tls.wants_write() {
            // Handshake messages, or the alert that says what is wrong.
            let flushed = self.flush();
            state?;
            flushed?;
        } else {
            state?;
        }
        Ok(Moved::Nothing)
    }

    /// Writes from the buffer; `more` says that a file's bytes follow at once.
    pub fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        if self.tls.is_none() {
            return self.write_raw(bytes, more);
        }
        if !self.flush()? {
            return Ok(Moved::Blocked);
        }
        let Some(tls) = &mut self.tls else {
            return Ok(Moved::Blocked);
        };
        let taken = tls.writer().write(bytes)?;
        if !more {
            self.flush()?;
        }
        Ok(Moved::Bytes(taken))
    }

    /// Sends at most `most` bytes from a place in a file; zero bytes at the file's end. `scratch` serves where the
    /// bytes must pass through memory.
    pub fn send_file(
        &mut self,
        file: impl AsFd,
        offset: u64,
        most: usize,
        scratch: &mut [u8],
    ) -> io::Result<Moved> {
        if self.tls.is_none() {
            if !self.writable {
                return Ok(Moved::Blocked);
            }
            let sent = sys::send_file(&self.socket, file, offset, most);
            return blocked(sent, &mut self.writable);
        }
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        let most = most.min(scratch.len());
        let read = sys::read_at(file, &mut scratch[..most], offset)?;
        if read == 0 {
            return Ok(Moved::Bytes(0));
        }
        self.write(&scratch[..read], false)
    }

    /// Brings out what TLS holds back; true when nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while tls.wants_write() {
            if !self.writable {
                return Ok(false);
            }
            match tls.write_tls(&mut Raw(&self.socket)) {
                Ok(n) => self.flushed += n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Bytes that TLS brought out since the last call: a sign that the client reads.
    pub fn take_flushed(&mut self) -> u64 {
        std::mem::take(&mut self.flushed)
    }

    /// Shuts the write side, with TLS's `close_notify` before; true when it is shut.
    pub fn shut_write(&mut self) -> io::Result<bool> {
        if self.shut {
            return Ok(true);
        }
        if let Some(tls) = &mut self.tls {
            if !self.notified {
                tls.send_close_notify();
                self.notified = true;
            }
            if !self.flush()? {
                return Ok(false);
            }
        }
        self.shut = true;
        rustix::net::shutdown(&self.socket, Shutdown::Write)?;
        Ok(true)
    }

    /// Reads and drops input as it is on the wire.
    pub fn drop_input(&mut self, scratch: &mut [u8]) -> io::Result<Moved> {
        self.read_raw(scratch)
    }

    fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<Moved> {
        if !self.readable {
            return Ok(Moved::Blocked);
        }
        let read = sys::receive(&self.socket, buffer);
        if let Ok(n) = read {
            if n == 0 {
                return Ok(Moved::End);
            }
            // A read that did not fill the buffer has emptied the socket, and whatever comes next is announced by a
            // new event; but an end that was announced already is not announced again.
            if n < buffer.len() && !self.ending {
                self.readable = false;
            }
        }
        blocked(read, &mut self.readable)
    }

    fn write_raw(&mut self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        let sent = sys::send(&self.socket, bytes, more);
        blocked(sent, &mut self.writable)
    }
}

/// Turns "would block" into a cleared readiness bit.
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

/// The socket, as rustls wants it.
struct Raw<'a>(&'a Socket);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::receive(self.0, buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send(self.0, bytes, false)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut nothing_beside = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(
            self.0,
            bytes,
            &mut nothing_beside,
            flags,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
