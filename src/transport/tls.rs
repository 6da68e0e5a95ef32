//! One connection's TLS: records in, plaintext out, and back. It touches no socket.
//!
//! Records pass through buffers that all connections share, and are decrypted where they were received. What a
//! connection keeps of its own is what no call can finish: the beginning of a record whose end has not come, decrypted
//! bytes for which the reader had no room, and encrypted bytes for which the socket had none. Each is bounded, and
//! its memory is given back as soon as it is empty: an idle connection costs the keys and little more.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ProtocolVersion, ServerConfig};

/// The longest record: a header of 5 bytes, and a body as TLS 1.2 allows it (RFC 5246 §6.2.3).
const RECORD: usize = 5 + (1 << 14) + 2048;

/// Plaintext in one record (RFC 8446 §5.1).
const FRAGMENT: usize = 1 << 14;

/// What a record adds to its plaintext, and a little more: 22 bytes in TLS 1.3, 29 in TLS 1.2.
const OVERHEAD: usize = 32;

/// Encrypted bytes that may wait for the next ones to be sent with them; two tickets are some 500.
const COMPANY: usize = 4096;

/// What ends our side: the overhead of one record, perhaps a `key_update`, a `close_notify`.
const LAST: usize = 256;

/// Bytes that a buffer for records must have, so that `plain` bytes of plaintext fit in at once.
pub const fn wire_size(plain: usize) -> usize {
    let size = plain + (plain / FRAGMENT + 1) * OVERHEAD + COMPANY + LAST;
    if size > RECORD { size } else { RECORD }
}

/// The state of one connection's TLS.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// Whether anything was received.
    begun: bool,
    /// The beginning of a record, or of a handshake message in several records: at most [`Tls::room`] bytes.
    partial: Vec<u8>,
    /// With how many bytes the record that `partial` begins is whole; 0 while its header is not.
    whole: usize,
    /// Decrypted, and not yet read: at most one record more than a reader asked for.
    plain: Vec<u8>,
    /// Where the unread bytes begin in `plain`.
    read: usize,
    /// Plaintext that is to share its record with what follows.
    held: Vec<u8>,
    /// Encrypted, and not yet sent: at most what one call encrypts.
    unsent: Vec<u8>,
    /// Where the unsent bytes begin in `unsent`.
    sent: usize,
    /// Whether the unsent bytes must leave even if nothing follows them.
    pressing: bool,
    /// The other side says that it sends no more.
    closed: bool,
    /// An error ended it, and an alert told so.
    failed: bool,
    /// Our `close_notify` is among the unsent bytes, or was sent.
    notified: bool,
}

impl Tls {
    pub fn new(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        Ok(Tls {
            connection: UnbufferedServerConnection::new(config)?,
            begun: false,
            partial: Vec::new(),
            whole: 0,
            plain: Vec::new(),
            read: 0,
            held: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            pressing: false,
            closed: false,
            failed: false,
            notified: false,
        })
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether what was just received, before it is given to [`Tls::received`], is the beginning of a request without
    /// TLS: a method, or the empty lines that may stand before it (RFC 9112 §2.2). A record begins with a number
    /// below 32 that is none of these (RFC 8446 §5.1), and SSL 2 began with its highest bit set.
    pub fn is_plain_text(&self, received: &[u8]) -> bool {
        let text = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'\r' | b'\n');
        !self.begun && received.first().is_some_and(text)
    }

    /// Whether the other side sends no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether decrypted bytes wait to be read.
    #[cfg(test)]
    pub fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Plaintext that was decrypted before; 0 when there is none.
    pub fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.plain[self.read..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        if self.read == self.plain.len() {
            self.plain = Vec::new();
            self.read = 0;
        }
        n
    }

    /// The part of `wire` into which records are to be received for a reader of `wanted` bytes, and which is then to
    /// be given to [`Tls::received`]; `None` when a message is longer than any that is expected.
    ///
    /// Records of the usual size come in whole, so that nothing has to be kept until their rest is there.
    pub fn room<'w>(&self, wanted: usize, wire: &'w mut [u8]) -> Option<&'w mut [u8]> {
        let most = wanted + (wanted / FRAGMENT + 1) * OVERHEAD;
        let most = most.max(RECORD).min(wire.len());
        (self.partial.len() < most).then(|| &mut wire[self.partial.len()..most])
    }

    /// The first `n` bytes of [`Tls::room`] were received. Puts plaintext into the reader's buffer, and returns how
    /// much: none is no end.
    pub fn received(
        &mut self,
        n: usize,
        wire: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        self.begun = true;
        let had = self.partial.len();
        if had + n < self.whole {
            self.partial.extend_from_slice(&wire[had..had + n]);
            return Ok(0);
        }
        wire[..had].copy_from_slice(&self.partial);
        let wire = &mut wire[..had + n];
        let (used, filled) = self.process(wire, buffer)?;
        let rest = &wire[used..];
        if rest.is_empty() || self.closed {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        self.whole = match *self.partial {
            [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        Ok(filled)
    }

    /// Works through records; returns how many bytes of them are done with, and how many of plaintext came of them.
    fn process(
        &mut self,
        wire: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<(usize, usize), rustls::Error> {
        let (mut used, mut filled) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut wire[used..]);
            let mut goes_on = true;
            let result = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            let n = record.payload.len().min(buffer.len() - filled);
                            let (now, later) = record.payload.split_at(n);
                            buffer[filled..filled + n].copy_from_slice(now);
                            filled += n;
                            self.plain.extend_from_slice(later);
                            discard += record.discard;
                        }
                        Some(Err(error)) => break Err(error),
                        None => break Ok(()),
                    }
                },
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    push(message, &mut self.unsent);
                    // Tickets are in no hurry: a request is on its way, and they go with its answer.
                    self.pressing |= self.connection.is_handshaking()
                        || self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3)
                        || self.unsent.len() > COMPANY;
                    Ok(())
                }
                Ok(ConnectionState::TransmitTlsData(unsent)) => {
                    unsent.done();
                    Ok(())
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.closed = true;
                    goes_on = false;
                    Ok(())
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                    goes_on = false;
                    Ok(())
                }
                // Early data is not offered.
                Ok(_) => Err(rustls::Error::HandshakeNotComplete),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.fail();
                return Err(error);
            }
            used += discard;
            if !goes_on {
                return Ok((used, filled));
            }
        }
    }

    /// Nothing more is read or written but the alert that says why.
    fn fail(&mut self) {
        self.failed = true;
        self.partial = Vec::new();
        self.held = Vec::new();
        while self.connection.wants_write() {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(message)) => push(message, &mut self.unsent),
                _ => break,
            }
        }
        self.pressing = true;
    }

    /// Keeps plaintext back, so that it shares its record with what is written next; false when there is too much.
    pub fn hold(&mut self, bytes: &[u8]) -> bool {
        let fits = self.held.len() + bytes.len() <= FRAGMENT;
        if fits {
            self.held.extend_from_slice(bytes);
        }
        fits
    }

    /// Takes what is held.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Encrypts the bytes, after what waits for their company; returns how much of `wire` is to be sent. `wire` has
    /// [`wire_size`] of them.
    pub fn encrypt(&mut self, bytes: &[u8], wire: &mut [u8]) -> io::Result<usize> {
        let waiting = self.unsent.len() - self.sent;
        wire[..waiting].copy_from_slice(&self.unsent[self.sent..]);
        let n = self.write_records(bytes, false, &mut wire[waiting..])?;
        self.clear_unsent();
        Ok(waiting + n)
    }

    /// Encrypts the bytes, and a `close_notify` if they are the last.
    fn write_records(&mut self, bytes: &[u8], last: bool, wire: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        // Each message that is to go before takes one round.
        loop {
            match self.connection.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    at += traffic
                        .encrypt(bytes, &mut wire[at..])
                        .map_err(|error| broken(&error))?;
                    if last {
                        at += traffic
                            .queue_close_notify(&mut wire[at..])
                            .map_err(|error| broken(&error))?;
                    }
                    return Ok(at);
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    at += message
                        .encode(&mut wire[at..])
                        .map_err(|error| broken(&error))?;
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(state) => return Err(broken(&format!("{state:?}"))),
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// What could not be sent of [`Tls::encrypt`]'s bytes.
    pub fn keep_unsent(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.pressing = !self.unsent.is_empty();
    }

    /// Bytes that must leave, whatever follows them.
    pub fn pressing(&self) -> &[u8] {
        match self.pressing {
            true => &self.unsent[self.sent..],
            false => &[],
        }
    }

    /// So many of [`Tls::pressing`]'s bytes were sent.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.unsent.len() {
            self.clear_unsent();
        }
    }

    fn clear_unsent(&mut self) {
        self.unsent = Vec::new();
        self.sent = 0;
        self.pressing = false;
    }

    /// Ends our side: what is held and the `close_notify` become [`Tls::pressing`]. A handshake that is not over ends
    /// without.
    pub fn close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.notified, true) || self.failed || self.is_handshaking() {
            return Ok(());
        }
        self.pressing = true;
        let held = self.take_held();
        let mut wire = vec![0; held.len() + LAST];
        let n = self.write_records(&held, true, &mut wire)?;
        self.unsent.extend_from_slice(&wire[..n]);
        Ok(())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("partial", &self.partial.len())
            .field("plain", &(self.plain.len() - self.read))
            .field("held", &self.held.len())
            .field("unsent", &(self.unsent.len() - self.sent))
            .field("closed", &self.closed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Puts a handshake message or an alert behind what is to be sent.
fn push(mut message: EncodeTlsData<'_, ServerConnectionData>, unsent: &mut Vec<u8>) {
    let at = unsent.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        message.encode(&mut [])
    {
        unsent.resize(at + required_size, 0);
        // There is room for it now.
        let _ = message.encode(&mut unsent[at..]);
    }
}

fn broken(why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests;
