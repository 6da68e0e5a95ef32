//! GETs and PUTs over TLS with rustls: each receive takes many records, and each send many more.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use crate::common::outcome::Outcome;
use crate::limit::event_loop::Handler;
use crate::limit::http::CREATED;
use crate::limit::memory::MemoryGet;
use crate::limit::open::{FileResponse, OpenGet};
use crate::limit::put::{IncomingFile, WritePut};

/// Size of the receive buffer in bytes.
const INPUT_SIZE: usize = 1024 * 1024;
/// Bytes of a file to encrypt and send at a time: plaintext and ciphertext should stay in the CPU's cache.
const CHUNK: usize = 64 * 1024;
/// Size of the send buffer in bytes. A record has at most 16 KiB of plaintext, and encryption adds 22 bytes. The
/// flights of a handshake are shorter.
const OUTPUT_SIZE: usize = CHUNK + 4096;

/// The operations of the limit servers, without their sockets.
#[derive(Debug)]
pub enum InnerHandler {
    Memory(MemoryGet),
    Open(OpenGet),
    Write(WritePut),
}

impl InnerHandler {
    /// Up to a chunk of the response from an offset on, and whether it is the last.
    fn response_at<'a>(
        &'a self,
        at: u64,
        response: Option<&FileResponse>,
        chunk: &'a mut [u8],
    ) -> io::Result<(&'a [u8], bool)> {
        let response = match (self, response) {
            (InnerHandler::Memory(memory), _) => return Ok((&memory.response, true)),
            (InnerHandler::Write(_), _) => return Ok((CREATED, true)),
            (InnerHandler::Open(_), Some(response)) => response,
            (InnerHandler::Open(_), None) => return Err(io::Error::other("no file is open")),
        };
        let head = &response.head;
        let head_part = if at == 0 { head.len() } else { 0 };
        chunk[..head_part].copy_from_slice(&head[..head_part]);
        let offset = response.start + (at + head_part as u64) - head.len() as u64;
        let rest = (response.end - offset).min((chunk.len() - head_part) as u64) as usize;
        let n = response
            .file
            .read_at(&mut chunk[head_part..head_part + rest], offset)?;
        let last = offset + n as u64 == response.end;
        Ok((&chunk[..head_part + n], last))
    }
}

/// A buffer of encrypted bytes, and how many of them are sent.
#[derive(Debug, Default)]
struct TlsOutput {
    bytes: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl TlsOutput {
    /// The free part of the buffer.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.resize(OUTPUT_SIZE, 0);
        &mut self.bytes[self.filled..]
    }

    /// Sends all of it; false if the socket is full.
    fn flush(&mut self, mut socket: &TcpStream) -> io::Result<bool> {
        while self.sent < self.filled {
            match socket.write(&self.bytes[self.sent..self.filled]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        (self.filled, self.sent) = (0, 0);
        Ok(true)
    }
}

#[derive(Debug)]
pub struct TlsHandler {
    config: Arc<ServerConfig>,
    inner: InnerHandler,
    input: Vec<u8>,
    chunk: Vec<u8>,
    /// The plaintext of the records of one receive.
    plaintext: Vec<u8>,
    output: TlsOutput,
}

#[allow(missing_debug_implementations)] // rustls gives its unbuffered connections none.
pub struct TlsState {
    session: UnbufferedServerConnection,
    /// The start of a record whose end is not yet received.
    partial_record: Vec<u8>,
    /// Bytes that the socket did not take.
    unsent: TlsOutput,
    /// Bytes of the response encrypted so far; none between responses.
    responded: Option<u64>,
    /// The file of the response, if it is not in memory.
    response: Option<FileResponse>,
    incoming: IncomingFile,
}

/// The TLS configuration of a limit server.
pub fn config(chain: &Path, key: &Path) -> Outcome<Arc<ServerConfig>> {
    let unreadable = |e: pem::Error| format!("the certificate: {e}");
    let chain: Result<Vec<CertificateDer<'static>>, pem::Error> =
        CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let chain = chain.map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| format!("TLS: {e}"))?;
    // Sessions are not resumed.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

impl TlsHandler {
    pub fn new(config: Arc<ServerConfig>, inner: InnerHandler) -> TlsHandler {
        TlsHandler {
            config,
            inner,
            input: vec![0; INPUT_SIZE],
            chunk: vec![0; CHUNK],
            plaintext: Vec::with_capacity(INPUT_SIZE),
            output: TlsOutput::default(),
        }
    }
}

impl Handler for TlsHandler {
    type State = TlsState;

    fn new_state(&mut self) -> io::Result<TlsState> {
        let session = UnbufferedServerConnection::new(Arc::clone(&self.config));
        Ok(TlsState {
            session: session.map_err(io::Error::other)?,
            partial_record: Vec::new(),
            unsent: TlsOutput::default(),
            responded: None,
            response: None,
            incoming: None,
        })
    }

    fn advance(&mut self, mut socket: &TcpStream, state: &mut TlsState) -> io::Result<bool> {
        if !state.unsent.flush(socket)? {
            return Ok(true);
        }
        // The client sends nothing before it has the response.
        if state.responded.is_some() {
            self.process_records(socket, state, 0)?;
            return Ok(true);
        }
        loop {
            let partial = state.partial_record.len();
            self.input[..partial].copy_from_slice(&state.partial_record);
            let n = match socket.read(&mut self.input[partial..]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            let used = self.process_records(socket, state, partial + n)?;
            state.partial_record.clear();
            state
                .partial_record
                .extend_from_slice(&self.input[used..partial + n]);
            // The socket is drained; the next event announces more.
            if partial + n < INPUT_SIZE {
                return Ok(true);
            }
        }
    }
}

impl TlsHandler {
    /// Processes the first `end` bytes of input, and sends as much of the response as the socket takes. Returns the
    /// number of bytes used.
    fn process_records(
        &mut self,
        socket: &TcpStream,
        state: &mut TlsState,
        end: usize,
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus {
                discard,
                state: next,
            } = state
                .session
                .process_tls_records(&mut self.input[used..end]);
            used += discard;
            match next.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let bytes = record.map_err(io::Error::other)?.payload;
                        match &self.inner {
                            // A request is shorter than a record.
                            InnerHandler::Memory(_) => state.responded = Some(0),
                            InnerHandler::Open(open) => {
                                state.response = Some(open.respond(bytes)?);
                                state.responded = Some(0);
                            }
                            InnerHandler::Write(_) => self.plaintext.extend_from_slice(bytes),
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut handshake) => {
                    let encoded = handshake.encode(self.output.room());
                    self.output.filled += encoded.map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(flight) => {
                    if !self.output.flush(socket)? {
                        return Err(io::Error::other("the socket is full during a handshake"));
                    }
                    flight.done();
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    // There are no more records: write all of their content at once.
                    if let (InnerHandler::Write(put), false) =
                        (&mut self.inner, self.plaintext.is_empty())
                    {
                        if WritePut::receive(&mut put.folder, &self.plaintext, &mut state.incoming)?
                        {
                            state.responded = Some(0);
                        }
                        self.plaintext.clear();
                    }
                    let Some(at) = state.responded else {
                        return Ok(used);
                    };
                    let (bytes, last) =
                        self.inner
                            .response_at(at, state.response.as_ref(), &mut self.chunk)?;
                    let encrypted = traffic.encrypt(bytes, self.output.room());
                    self.output.filled += encrypted.map_err(io::Error::other)?;
                    state.responded = (!last).then_some(at + bytes.len() as u64);
                    if !self.output.flush(socket)? {
                        mem::swap(&mut self.output, &mut state.unsent);
                        return Ok(used);
                    }
                }
                _ => return Ok(used),
            }
        }
    }
}
