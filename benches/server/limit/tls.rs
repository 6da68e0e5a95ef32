//! The same works behind rustls: one receive for many records, and one send for many more.

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
use crate::limit::get::{FileGet, MemoryGet};
use crate::limit::http::CREATED;
use crate::limit::put::{IncomingFile, WritePut};

/// Bytes received at once.
const INPUT: usize = 1024 * 1024;
/// Bytes of a file that are encrypted and sent at once: they and what becomes of them should stay in the cache.
const PIECE: usize = 64 * 1024;
/// Room for what a piece becomes: a record has 16 KiB at most, and 22 bytes more when it is encrypted. The flight of
/// a handshake is shorter.
const OUTPUT: usize = PIECE + 4096;

/// What a limit line does, seen from behind TLS.
#[derive(Debug)]
pub enum InnerHandler {
    Memory(MemoryGet),
    File(FileGet),
    Write(WritePut),
}

impl InnerHandler {
    /// The bytes of the answer from a state on, as many as make a piece, and whether they are the last.
    fn from<'a>(&'a self, at: u64, piece: &'a mut [u8]) -> io::Result<(&'a [u8], bool)> {
        let (head, file, size) = match self {
            InnerHandler::Memory(memory) => return Ok((&memory.answer, true)),
            InnerHandler::Write(_) => return Ok((CREATED, true)),
            InnerHandler::File(file) => (&file.head, &file.file, file.size),
        };
        let before = if at == 0 { head.len() } else { 0 };
        piece[..before].copy_from_slice(&head[..before]);
        let offset = (at + before as u64) - head.len() as u64;
        let n = before + file.read_at(&mut piece[before..], offset)?;
        let last = at + n as u64 == head.len() as u64 + size;
        Ok((&piece[..n], last))
    }
}

/// What is encrypted, and how much of it is sent.
#[derive(Debug, Default)]
struct TlsOutput {
    bytes: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl TlsOutput {
    /// What is still free.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.resize(OUTPUT, 0);
        &mut self.bytes[self.filled..]
    }

    /// Sends it all; false where the socket is full.
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
    answered: InnerHandler,
    input: Vec<u8>,
    piece: Vec<u8>,
    /// What the records of one receive held.
    plain: Vec<u8>,
    output: TlsOutput,
}

#[allow(missing_debug_implementations)] // rustls gives its unbuffered connections none.
pub struct TlsState {
    session: UnbufferedServerConnection,
    /// The start of a record whose end is not there yet.
    kept: Vec<u8>,
    /// What did not go into the socket.
    blocked: TlsOutput,
    /// Bytes of an answer that are encrypted; none between answers.
    answered: Option<u64>,
    incoming: IncomingFile,
}

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
    // Who comes back to a limit line resumes nothing.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

impl TlsHandler {
    pub fn new(config: Arc<ServerConfig>, answered: InnerHandler) -> TlsHandler {
        TlsHandler {
            config,
            answered,
            input: vec![0; INPUT],
            piece: vec![0; PIECE],
            plain: Vec::with_capacity(INPUT),
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
            kept: Vec::new(),
            blocked: TlsOutput::default(),
            answered: None,
            incoming: None,
        })
    }

    fn advance(&mut self, mut socket: &TcpStream, state: &mut TlsState) -> io::Result<bool> {
        if !state.blocked.flush(socket)? {
            return Ok(true);
        }
        // The client says nothing before it has the answer.
        if state.answered.is_some() {
            self.process_records(socket, state, 0)?;
            return Ok(true);
        }
        loop {
            let kept = state.kept.len();
            self.input[..kept].copy_from_slice(&state.kept);
            let n = match socket.read(&mut self.input[kept..]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            let used = self.process_records(socket, state, kept + n)?;
            state.kept.clear();
            state.kept.extend_from_slice(&self.input[used..kept + n]);
            // It took all that was there; an event tells of more.
            if kept + n < INPUT {
                return Ok(true);
            }
        }
    }
}

impl TlsHandler {
    /// Lets the session go on with so many bytes of input, and with the answer; gives how many it used.
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
                        match &self.answered {
                            // A request is shorter than a record.
                            InnerHandler::Memory(_) | InnerHandler::File(_) => {
                                state.answered = Some(0)
                            }
                            InnerHandler::Write(_) => self.plain.extend_from_slice(bytes),
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut handshake) => {
                    let encoded = handshake.encode(self.output.room());
                    self.output.filled += encoded.map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(flight) => {
                    if !self.output.flush(socket)? {
                        return Err(io::Error::other("A handshake filled a socket."));
                    }
                    flight.done();
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    // No more records: what they held goes into the file at once.
                    if let (InnerHandler::Write(store), false) =
                        (&mut self.answered, self.plain.is_empty())
                    {
                        if WritePut::receive(&mut store.folder, &self.plain, &mut state.incoming)? {
                            state.answered = Some(0);
                        }
                        self.plain.clear();
                    }
                    let Some(at) = state.answered else {
                        return Ok(used);
                    };
                    let (bytes, last) = self.answered.from(at, &mut self.piece)?;
                    let encrypted = traffic.encrypt(bytes, self.output.room());
                    self.output.filled += encrypted.map_err(io::Error::other)?;
                    state.answered = (!last).then_some(at + bytes.len() as u64);
                    if !self.output.flush(socket)? {
                        mem::swap(&mut self.output, &mut state.blocked);
                        return Ok(used);
                    }
                }
                _ => return Ok(used),
            }
        }
    }
}
