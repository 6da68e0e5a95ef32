//! The byte stream of one accepted connection, plain or TLS, with remembered readiness.
//!
//! The socket is registered once. Events set the readiness bits; only `WouldBlock`, or a read that emptied the socket,
//! clears them.

mod tls;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::Shutdown;
use rustls::ServerConfig;

use crate::sys;
use tls::Tls;

pub use tls::wire_size;

/// Maximum number of bytes per [`Transport::write`] over TLS.
const MAX_WRITE: usize = 16 * 1024;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Registers the socket for both directions; this happens once.
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

/// The outcome of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Bytes(usize),
    /// The socket is not ready; an event will announce when it is.
    Blocked,
    /// TLS made progress without moving any plaintext; call again.
    Nothing,
    /// End of input.
    End,
}

/// The byte stream of one connection.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    readable: bool,
    writable: bool,
    /// An event announced the end of input, so a short read no longer means that the socket is empty.
    ending: bool,
    tls: Option<Box<Tls>>,
    /// Whether the client sent plain HTTP to a TLS listener, so that TLS was dropped.
    plain: bool,
    /// Whether the write side is shut down.
    shut: bool,
    /// Encrypted bytes sent since the last [`Transport::take_flushed`].
    flushed: u64,
}

impl Transport {
    /// A new socket is assumed to be ready until an attempt shows otherwise.
    pub fn new(socket: Socket, tls: Option<Arc<ServerConfig>>) -> io::Result<Transport> {
        let tls = match tls {
            Some(config) => {
                let tls = Tls::new(config).map_err(io::Error::other)?;
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(Transport {
            socket,
            readable: true,
            writable: true,
            ending: false,
            tls,
            plain: false,
            shut: false,
            flushed: 0,
        })
    }

    /// Records the readiness reported by an event.
    pub fn set_ready(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.ending |= event.is_read_closed() || event.is_error();
    }

    /// Whether there is input in the socket that was not read.
    pub fn has_unread_input(&self) -> bool {
        sys::has_unread_input(&self.socket)
    }

    /// Assumes that the socket is writable again, which may be true long before an event reports it.
    pub fn assume_writable(&mut self) {
        self.writable = true;
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
    pub fn was_addressed_in_plain(&self) -> bool {
        self.plain
    }

    /// Reads into the buffer. `wire`, here and in [`Transport::write`] and [`Transport::send_file`], is a buffer of
    /// [`wire_size`] bytes for TLS records, which holds nothing between calls.
    pub fn read(&mut self, buffer: &mut [u8], wire: &mut [u8]) -> io::Result<Moved> {
        let Some(tls) = &mut self.tls else {
            return self.read_raw(buffer);
        };
        match tls.take_plain(buffer) {
            0 => {}
            n => return Ok(Moved::Bytes(n)),
        }
        if tls.is_closed() {
            return Ok(Moved::End);
        }
        if !self.readable {
            return Ok(Moved::Blocked);
        }
        let Some(room) = tls.room(buffer.len(), wire) else {
            return Err(io::Error::other("the TLS message is too long"));
        };
        let wanted = room.len();
        let read = sys::receive(&self.socket, room);
        let n = match received(read, wanted, self.ending, &mut self.readable)? {
            Moved::Bytes(n) => n,
            // An end without close_notify is accepted: HTTP framing shows whether the message is complete.
            other => return Ok(other),
        };
        if tls.is_plain_text(&wire[..n]) {
            self.tls = None;
            self.plain = true;
            return Ok(Moved::Nothing);
        }
        let result = tls.received(n, wire, buffer);
        let closed = tls.is_closed();
        // Sends handshake messages or an alert.
        let flushed = self.flush();
        match result {
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            Ok(n) => {
                flushed?;
                Ok(match n {
                    0 if closed => Moved::End,
                    0 => Moved::Nothing,
                    n => Moved::Bytes(n),
                })
            }
        }
    }

    /// Writes from the buffer; `more` means that file data follows immediately.
    pub fn write(&mut self, bytes: &[u8], more: bool, wire: &mut [u8]) -> io::Result<Moved> {
        if self.tls.is_none() {
            return self.write_raw(bytes, more);
        }
        if !self.flush()? {
            return Ok(Moved::Blocked);
        }
        let Some(tls) = &mut self.tls else {
            return Ok(Moved::Blocked);
        };
        let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
        if more && tls.coalesce(bytes) {
            return Ok(Moved::Bytes(bytes.len()));
        }
        let mut buffered = tls.take_held();
        if buffered.is_empty() {
            self.send_encrypted(bytes, wire)?;
        } else {
            buffered.extend_from_slice(bytes);
            self.send_encrypted(&buffered, wire)?;
        }
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
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        if self.tls.is_none() {
            let sent = sys::send_file(&self.socket, file, offset, most);
            return blocked(sent, &mut self.writable);
        }
        if !self.flush()? {
            return Ok(Moved::Blocked);
        }
        let Some(tls) = &mut self.tls else {
            return Ok(Moved::Blocked);
        };
        let (front, rest) = scratch.split_at_mut(tls.held());
        let most = most.min(rest.len());
        let read = sys::read_at(file, &mut rest[..most], offset)?;
        if read == 0 {
            return Ok(Moved::Bytes(0));
        }
        front.copy_from_slice(&tls.take_held());
        let plain = front.len() + read;
        self.send_encrypted(&scratch[..plain], wire)?;
        Ok(Moved::Bytes(read))
    }

    /// Encrypts and sends; bytes that the socket does not accept are buffered.
    fn send_encrypted(&mut self, bytes: &[u8], wire: &mut [u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let n = tls.encrypt(bytes, wire)?;
        let mut rest = &wire[..n];
        while !rest.is_empty() {
            match blocked(sys::send(&self.socket, rest, false), &mut self.writable)? {
                Moved::Bytes(n) => {
                    self.flushed += n as u64;
                    rest = &rest[n..];
                }
                _ => break,
            }
        }
        tls.keep_unsent(rest);
        Ok(())
    }

    /// Sends buffered TLS records that must not wait; returns true when none are left.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while !tls.pressing().is_empty() {
            if !self.writable {
                return Ok(false);
            }
            match blocked(
                sys::send(&self.socket, tls.pressing(), false),
                &mut self.writable,
            )? {
                Moved::Bytes(n) => {
                    self.flushed += n as u64;
                    tls.sent(n);
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
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
        rustix::net::shutdown(&self.socket, Shutdown::Write)?;
        Ok(true)
    }

    /// Reads and discards raw input, without decrypting it.
    pub fn drop_input(&mut self, scratch: &mut [u8]) -> io::Result<Moved> {
        self.read_raw(scratch)
    }

    fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<Moved> {
        if !self.readable {
            return Ok(Moved::Blocked);
        }
        let wanted = buffer.len();
        let read = sys::receive(&self.socket, buffer);
        received(read, wanted, self.ending, &mut self.readable)
    }

    fn write_raw(&mut self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        if !self.writable {
            return Ok(Moved::Blocked);
        }
        let sent = sys::send(&self.socket, bytes, more);
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

/// The outcome of an attempt to read `wanted` bytes; `ending` as in [`Transport`].
fn received(
    read: io::Result<usize>,
    wanted: usize,
    ending: bool,
    readable: &mut bool,
) -> io::Result<Moved> {
    if let Ok(n) = read {
        if n == 0 {
            return Ok(Moved::End);
        }
        // A short read has emptied the socket, and a new event will announce further input. The end of input, however,
        // is not announced a second time.
        if n < wanted && !ending {
            *readable = false;
        }
    }
    blocked(read, readable)
}
