//! GETs: a small file is sent from memory with one send, a large one with sendfile.

use std::fs::{self, File};
use std::io::{self, Write};

use mio::net::TcpStream;
use rustix::net::SendFlags;

use crate::limit::config::LimitConfig;
use crate::limit::event_loop::Handler;
use crate::limit::http::{read_request, response_head};

/// Bytes of a file to send in one call.
const CHUNK: u64 = 2 * 1024 * 1024;

#[derive(Debug)]
pub struct MemoryGet {
    /// Head and body.
    pub response: Vec<u8>,
}

impl MemoryGet {
    pub fn new(config: &LimitConfig) -> io::Result<MemoryGet> {
        let mut response = response_head(config.size);
        response.extend(fs::read(config.root.join("0"))?);
        Ok(MemoryGet { response })
    }
}

impl Handler for MemoryGet {
    type State = ();

    fn new_state(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn advance(&mut self, mut socket: &TcpStream, (): &mut ()) -> io::Result<bool> {
        match read_request(socket)? {
            // The client does not pipeline, so the send buffer always has room for the response.
            Some(true) => socket.write_all(&self.response).map(|()| true),
            Some(false) => Ok(false),
            None => Ok(true),
        }
    }
}

#[derive(Debug)]
pub struct FileGet {
    pub head: Vec<u8>,
    pub file: File,
    pub size: u64,
}

impl FileGet {
    pub fn new(config: &LimitConfig) -> io::Result<FileGet> {
        Ok(FileGet {
            head: response_head(config.size),
            file: File::open(config.root.join("0"))?,
            size: config.size,
        })
    }
}

impl Handler for FileGet {
    /// Bytes of the body sent so far; none between responses.
    type State = Option<u64>;

    fn new_state(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn advance(&mut self, socket: &TcpStream, state: &mut Option<u64>) -> io::Result<bool> {
        let sent = match state {
            Some(sent) => sent,
            None => match read_request(socket)? {
                Some(true) => {
                    rustix::net::send(socket, &self.head, SendFlags::MORE)?;
                    state.insert(0)
                }
                Some(false) => return Ok(false),
                None => return Ok(true),
            },
        };
        while *sent < self.size {
            let rest = (self.size - *sent).min(CHUNK) as usize;
            match rustix::fs::sendfile(socket, &self.file, Some(sent), rest) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
        *state = None;
        Ok(true)
    }
}
