//! The TLS state of one connection, without a socket: decrypts received records and encrypts data to be sent.
//!
//! Records pass through buffers that all connections share, and are decrypted in place. A connection buffers only data
//! that could not be processed completely: a partial record, plaintext that did not fit the reader's buffer, and
//! encrypted bytes that the socket did not accept. Each of these buffers is bounded, and its memory is freed as soon as
//! it is empty, so an idle connection costs little more than its keys.

use std::io;
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, ReadTraffic,
    UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};

/// Maximum length of a record: a header of 5 bytes and the largest body that TLS 1.2 allows (RFC 5246 §6.2.3).
const MAX_RECORD: usize = 5 + (1 << 14) + 2048;

/// Maximum length of the plaintext in a record (RFC 8446 §5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// Upper bound on the overhead of a record: 22 bytes in TLS 1.3, 29 in TLS 1.2.
const OVERHEAD: usize = 32;

/// Maximum number of encrypted bytes that wait to be sent with the first response; two session tickets take about 500.
const COALESCE_LIMIT: usize = 4096;

/// Space for the last records of a connection: a possible `key_update`, and `close_notify`.
const CLOSING_RECORDS: usize = 256;

/// Size of a buffer for records that fits `plain` bytes of plaintext at once.
pub const fn wire_size(plain: usize) -> usize {
    let size = plain + (plain / MAX_FRAGMENT + 1) * OVERHEAD + COALESCE_LIMIT + CLOSING_RECORDS;
    if size > MAX_RECORD { size } else { MAX_RECORD }
}

/// Either side of a connection.
enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What rustls offers for each side separately.
trait Records: DerefMut<Target = UnbufferedConnectionCommon<Self::Data>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, wire: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        wire: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(wire)
    }
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        wire: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(wire)
    }
}

/// The state of one connection's TLS.
pub struct Tls {
    side: Side,
    /// Whether any input was received.
    started: bool,
    buffers: Buffers,
}

/// Data that could not be processed completely, and whether the connection is closed.
#[derive(Default)]
struct Buffers {
    /// The start of a record, or of a handshake message that spans several records: at most [`Tls::room`] bytes.
    partial: Vec<u8>,
    /// Decrypted bytes not yet read: at most one record more than the reader asked for.
    plain: Vec<u8>,
    /// Encrypted bytes not yet sent: at most the output of one call.
    unsent: Vec<u8>,
    /// Whether the unsent bytes must be sent even if no further output follows.
    must_flush: bool,
    /// The peer has sent `close_notify`.
    closed: bool,
    /// `close_notify` or an alert was queued or sent.
    notified: bool,
}

impl Tls {
    /// The server's side.
    pub fn new(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        let server = UnbufferedServerConnection::new(config)?;
        Ok(Tls::of(Side::Server(server)))
    }

    /// The client's side. The first handshake message is added to [`Tls::must_flush`].
    pub fn client(
        config: Arc<ClientConfig>,
        server: ServerName<'static>,
    ) -> Result<Tls, rustls::Error> {
        let client = UnbufferedClientConnection::new(config, server)?;
        let mut tls = Tls::of(Side::Client(client));
        tls.process(&mut [], &mut [])?;
        Ok(tls)
    }

    fn of(side: Side) -> Tls {
        Tls {
            side,
            started: false,
            buffers: Buffers::default(),
        }
    }

    pub fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(connection) => connection.is_handshaking(),
            Side::Client(connection) => connection.is_handshaking(),
        }
    }

    /// Whether the first input, before it is passed to [`Tls::received`], is a plain HTTP request: a method, or the empty
    /// lines that may precede it (RFC 9112 §2.2). A TLS record starts with a content type from 20 to 24 (RFC 8446 §5.1),
    /// and SSL 2 messages have the highest bit set.
    pub fn is_plain_text(&self, received: &[u8]) -> bool {
        let text = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'\r' | b'\n');
        !self.started && received.first().is_some_and(text)
    }

    /// Whether the peer has sent `close_notify`.
    pub fn is_closed(&self) -> bool {
        self.buffers.closed
    }

    /// Reads plaintext that was decrypted earlier; returns 0 if there is none.
    pub fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let n = self.buffers.plain.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.buffers.plain[..n]);
        remove_front(&mut self.buffers.plain, n);
        n
    }

    /// The part of `wire` into which input must be received for a reader of `wanted` bytes; the caller then calls
    /// [`Tls::received`]. `None` if a message exceeds the maximum length.
    ///
    /// The part is large enough for full records of the expected size, so that they need not be buffered.
    pub fn room<'w>(&self, wanted: usize, wire: &'w mut [u8]) -> Option<&'w mut [u8]> {
        let end = wanted + (wanted / MAX_FRAGMENT + 1) * OVERHEAD;
        let end = end.max(MAX_RECORD).min(wire.len());
        (self.buffers.partial.len() < end).then(|| &mut wire[self.buffers.partial.len()..end])
    }

    /// The first `n` bytes of [`Tls::room`] were received. Decrypts into the reader's buffer and returns the number of
    /// plaintext bytes; 0 does not mean end of input.
    pub fn received(
        &mut self,
        n: usize,
        wire: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        self.started = true;
        let start = self.buffers.partial.len();
        if start + n < self.record_length() {
            self.buffers
                .partial
                .extend_from_slice(&wire[start..start + n]);
            return Ok(0);
        }
        wire[..start].copy_from_slice(&self.buffers.partial);
        let wire = &mut wire[..start + n];
        let (used, filled) = self.process(wire, buffer)?;
        let rest = &wire[used..];
        if rest.is_empty() || self.buffers.closed {
            self.buffers.partial = Vec::new();
        } else {
            self.buffers.partial.clear();
            self.buffers.partial.extend_from_slice(rest);
        }
        Ok(filled)
    }

    /// Total length of the record at the start of `partial`; 0 until its header is complete.
    fn record_length(&self) -> usize {
        match *self.buffers.partial {
            [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        }
    }

    fn process(
        &mut self,
        wire: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<(usize, usize), rustls::Error> {
        match &mut self.side {
            Side::Server(connection) => self.buffers.process(connection, wire, buffer),
            Side::Client(connection) => self.buffers.process(connection, wire, buffer),
        }
    }

    /// Encrypts the bytes into `wire`, preceded by any unsent bytes; returns the number of bytes to send. `wire` is a
    /// buffer of [`wire_size`] bytes.
    pub fn encrypt(&mut self, bytes: &[u8], wire: &mut [u8]) -> io::Result<usize> {
        let waiting = self.buffers.unsent.len();
        wire[..waiting].copy_from_slice(&self.buffers.unsent);
        let n = self.write_records(bytes, false, &mut wire[waiting..])?;
        self.buffers.unsent = Vec::new();
        Ok(waiting + n)
    }

    fn write_records(&mut self, bytes: &[u8], last: bool, wire: &mut [u8]) -> io::Result<usize> {
        match &mut self.side {
            Side::Server(connection) => self.buffers.write_records(connection, bytes, last, wire),
            Side::Client(connection) => self.buffers.write_records(connection, bytes, last, wire),
        }
    }

    /// Buffers the bytes from [`Tls::encrypt`] that could not be sent.
    pub fn buffer_unsent(&mut self, bytes: &[u8]) {
        self.buffers.unsent.extend_from_slice(bytes);
        self.buffers.must_flush = !self.buffers.unsent.is_empty();
    }

    /// The unsent bytes, if they must be sent without waiting for further output.
    pub fn must_flush(&self) -> &[u8] {
        match self.buffers.must_flush {
            true => &self.buffers.unsent,
            false => &[],
        }
    }

    /// The first `n` bytes of [`Tls::must_flush`] were sent.
    pub fn sent(&mut self, n: usize) {
        remove_front(&mut self.buffers.unsent, n);
        self.buffers.must_flush &= !self.buffers.unsent.is_empty();
    }

    /// Closes the write side: `close_notify` is added to [`Tls::must_flush`]. If the handshake has not completed, nothing
    /// is sent.
    pub fn close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.buffers.notified, true) || self.is_handshaking() {
            return Ok(());
        }
        self.buffers.must_flush = true;
        let mut wire = [0; CLOSING_RECORDS];
        let n = self.write_records(&[], true, &mut wire)?;
        self.buffers.unsent.extend_from_slice(&wire[..n]);
        Ok(())
    }
}

impl Buffers {
    /// Processes records; returns the number of bytes consumed and the number of plaintext bytes written to `buffer`.
    fn process<C: Records>(
        &mut self,
        connection: &mut C,
        wire: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<(usize, usize), rustls::Error> {
        let (mut used, mut filled) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } = connection.process(&mut wire[used..]);
            let mut is_done = false;
            let result = match state {
                Ok(ConnectionState::ReadTraffic(traffic)) => {
                    copy_plaintext(traffic, buffer, &mut filled, &mut self.plain)
                        .map(|consumed| discard += consumed)
                }
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    push(message, &mut self.unsent);
                    // Session tickets can wait: a request is on its way, and they are sent with its response.
                    self.must_flush |= connection.is_handshaking()
                        || connection.protocol_version() != Some(ProtocolVersion::TLSv1_3)
                        || self.unsent.len() > COALESCE_LIMIT;
                    Ok(())
                }
                Ok(ConnectionState::TransmitTlsData(unsent)) => {
                    unsent.done();
                    Ok(())
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.closed = true;
                    is_done = true;
                    Ok(())
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                    is_done = true;
                    Ok(())
                }
                // Early data is disabled.
                Ok(_) => Err(rustls::Error::HandshakeNotComplete),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.fail(connection);
                return Err(error);
            }
            used += discard;
            if is_done {
                return Ok((used, filled));
            }
        }
    }

    /// Drops all input and output and queues the alert.
    fn fail(&mut self, connection: &mut impl Records) {
        self.notified = true;
        self.partial = Vec::new();
        while connection.wants_write() {
            match connection.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(message)) => push(message, &mut self.unsent),
                _ => break,
            }
        }
        self.must_flush = true;
    }

    /// Encrypts the bytes, followed by `close_notify` if they are the last.
    fn write_records(
        &mut self,
        connection: &mut impl Records,
        bytes: &[u8],
        last: bool,
        wire: &mut [u8],
    ) -> io::Result<usize> {
        let mut at = 0;
        // Each iteration encodes one pending message, until traffic can be written.
        loop {
            match connection.process(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    at += traffic
                        .encrypt(bytes, &mut wire[at..])
                        .map_err(|error| invalid_data(&error))?;
                    if last {
                        at += traffic
                            .queue_close_notify(&mut wire[at..])
                            .map_err(|error| invalid_data(&error))?;
                    }
                    return Ok(at);
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    at += message
                        .encode(&mut wire[at..])
                        .map_err(|error| invalid_data(&error))?;
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(state) => return Err(invalid_data(&format!("{state:?}"))),
                Err(error) => return Err(invalid_data(&error)),
            }
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("partial", &self.buffers.partial.len())
            .field("plain", &self.buffers.plain.len())
            .field("unsent", &self.buffers.unsent.len())
            .field("closed", &self.buffers.closed)
            .finish_non_exhaustive()
    }
}

/// Copies the plaintext of all available records to `buffer`, and the rest to `overflow`; returns the number of bytes
/// of records consumed.
fn copy_plaintext<D>(
    mut traffic: ReadTraffic<'_, '_, D>,
    buffer: &mut [u8],
    filled: &mut usize,
    overflow: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut consumed = 0;
    while let Some(record) = traffic.next_record() {
        let record = record?;
        let n = record.payload.len().min(buffer.len() - *filled);
        let (fitting, rest) = record.payload.split_at(n);
        buffer[*filled..*filled + n].copy_from_slice(fitting);
        *filled += n;
        overflow.extend_from_slice(rest);
        consumed += record.discard;
    }
    Ok(consumed)
}

/// Removes bytes from the front of a buffer, and frees its memory if it is empty.
fn remove_front(buffer: &mut Vec<u8>, n: usize) {
    if n == buffer.len() {
        *buffer = Vec::new();
    } else {
        buffer.drain(..n);
    }
}

/// Appends a handshake message or an alert to the unsent bytes.
fn push<D>(mut message: EncodeTlsData<'_, D>, unsent: &mut Vec<u8>) {
    let at = unsent.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        message.encode(&mut [])
    {
        unsent.resize(at + required_size, 0);
        // The buffer has the required size now.
        let _ = message.encode(&mut unsent[at..]);
    }
}

fn invalid_data(why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests;
