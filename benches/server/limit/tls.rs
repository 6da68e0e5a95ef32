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
use crate::limit::event_loop::Work;
use crate::limit::get::{FromFile, FromMemory};
use crate::limit::http::ANSWER;
use crate::limit::put::{Incoming, Written};

/// Bytes received at once.
const INPUT: usize = 1024 * 1024;
/// Bytes of a file that are encrypted and sent at once: they and what becomes of them should stay in the cache.
const PIECE: usize = 64 * 1024;
/// Room for what a piece becomes: a record has 16 KiB at most, and 22 bytes more when it is encrypted. The flight of
/// a handshake is shorter.
const OUTPUT: usize = PIECE + 4096;

/// What a limit line does, seen from behind TLS.
#[derive(Debug)]
pub enum Answered {
    Memory(FromMemory),
    File(FromFile),
    Written(Written),
}

impl Answered {
    /// The bytes of the answer from a place on, as many as make a piece, and whether they are the last.
    fn from<'a>(&'a self, at: u64, piece: &'a mut [u8]) -> io::Result<(&'a [u8], bool)> {
        let (head, file, size) = match self {
            Answered::Memory(memory) => return Ok((&memory.answer, true)),
            Answered::Written(_) => return Ok((ANSWER, true)),
            Answered::File(file) => (&file.head, &file.file, file.size),
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
struct Output {
    bytes: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl Output {
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
pub struct Tls {
    config: Arc<ServerConfig>,
    answered: Answered,
    input: Vec<u8>,
    piece: Vec<u8>,
    /// What the records of one receive held.
    plain: Vec<u8>,
    output: Output,
}

#[allow(missing_debug_implementations)] // rustls gives its unbuffered connections none.
pub struct Place {
    session: UnbufferedServerConnection,
    /// The start of a record whose end is not there yet.
    kept: Vec<u8>,
    /// What did not go into the socket.
    blocked: Output,
    /// Bytes of an answer that are encrypted; none between answers.
    answered: Option<u64>,
    incoming: Incoming,
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

impl Tls {
    pub fn new(config: Arc<ServerConfig>, answered: Answered) -> Tls {
        Tls {
            config,
            answered,
            input: vec![0; INPUT],
            piece: vec![0; PIECE],
            plain: Vec::with_capacity(INPUT),
            output: Output::default(),
        }
    }
}

impl Work for Tls {
    type Place = Place;

    fn begin(&mut self) -> io::Result<Place> {
        let session = UnbufferedServerConnection::new(Arc::clone(&self.config));
        Ok(Place {
            session: session.map_err(io::Error::other)?,
            kept: Vec::new(),
            blocked: Output::default(),
            answered: None,
            incoming: None,
        })
    }

    fn go_on(&mut self, mut socket: &TcpStream, place: &mut Place) -> io::Result<bool> {
        if !place.blocked.flush(socket)? {
            return Ok(true);
        }
        // The client says nothing before it has the answer.
        if place.answered.is_some() {
            self.advance(socket, place, 0)?;
            return Ok(true);
        }
        loop {
            let kept = place.kept.len();
            self.input[..kept].copy_from_slice(&place.kept);
            let n = match socket.read(&mut self.input[kept..]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            let used = self.advance(socket, place, kept + n)?;
            place.kept.clear();
            place.kept.extend_from_slice(&self.input[used..kept + n]);
            // It took all that was there; an event tells of more.
            if kept + n < INPUT {
                return Ok(true);
            }
        }
    }
}

impl Tls {
    /// Lets the session go on with so many bytes of input, and with the answer; gives how many it used.
    fn advance(&mut self, socket: &TcpStream, place: &mut Place, end: usize) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = place
                .session
                .process_tls_records(&mut self.input[used..end]);
            used += discard;
            match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let bytes = record.map_err(io::Error::other)?.payload;
                        match &self.answered {
                            // A request is shorter than a record.
                            Answered::Memory(_) | Answered::File(_) => place.answered = Some(0),
                            Answered::Written(_) => self.plain.extend_from_slice(bytes),
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
                    if let (Answered::Written(store), false) =
                        (&mut self.answered, self.plain.is_empty())
                    {
                        if Written::take(&mut store.folder, &self.plain, &mut place.incoming)? {
                            place.answered = Some(0);
                        }
                        self.plain.clear();
                    }
                    let Some(at) = place.answered else {
                        return Ok(used);
                    };
                    let (bytes, last) = self.answered.from(at, &mut self.piece)?;
                    let encrypted = traffic.encrypt(bytes, self.output.room());
                    self.output.filled += encrypted.map_err(io::Error::other)?;
                    place.answered = (!last).then_some(at + bytes.len() as u64);
                    if !self.output.flush(socket)? {
                        mem::swap(&mut self.output, &mut place.blocked);
                        return Ok(used);
                    }
                }
                _ => return Ok(used),
            }
        }
    }
}
