//! Small GETs: one receive, one send, from memory. Large GETs: one receive, the head, then sendfile.

use std::fs::{self, File};
use std::io::{self, Write};

use mio::net::TcpStream;
use rustix::net::SendFlags;

use crate::limit::config::Told;
use crate::limit::event_loop::Work;
use crate::limit::http::{head, request};

/// Bytes of a file sent at once.
const PIECE: u64 = 2 * 1024 * 1024;

#[derive(Debug)]
pub struct FromMemory {
    /// Head and body.
    pub answer: Vec<u8>,
}

impl FromMemory {
    pub fn new(told: &Told) -> io::Result<FromMemory> {
        let mut answer = head(told.size);
        answer.extend(fs::read(told.root.join("0"))?);
        Ok(FromMemory { answer })
    }
}

impl Work for FromMemory {
    type Place = ();

    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn go_on(&mut self, mut socket: &TcpStream, (): &mut ()) -> io::Result<bool> {
        match request(socket)? {
            // The client takes one answer before it asks for the next, so that there is always room for it.
            Some(true) => socket.write_all(&self.answer).map(|()| true),
            Some(false) => Ok(false),
            None => Ok(true),
        }
    }
}

#[derive(Debug)]
pub struct FromFile {
    pub head: Vec<u8>,
    pub file: File,
    pub size: u64,
}

impl FromFile {
    pub fn new(told: &Told) -> io::Result<FromFile> {
        Ok(FromFile {
            head: head(told.size),
            file: File::open(told.root.join("0"))?,
            size: told.size,
        })
    }
}

impl Work for FromFile {
    /// Bytes of the body that are sent; none between answers.
    type Place = Option<u64>;

    fn begin(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn go_on(&mut self, socket: &TcpStream, place: &mut Option<u64>) -> io::Result<bool> {
        let sent = match place {
            Some(sent) => sent,
            None => match request(socket)? {
                Some(true) => {
                    rustix::net::send(socket, &self.head, SendFlags::MORE)?;
                    place.insert(0)
                }
                Some(false) => return Ok(false),
                None => return Ok(true),
            },
        };
        while *sent < self.size {
            let rest = (self.size - *sent).min(PIECE) as usize;
            match rustix::fs::sendfile(socket, &self.file, Some(sent), rest) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
        *place = None;
        Ok(true)
    }
}
