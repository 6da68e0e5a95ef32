//! GETs that open the file of each request, as a server with many files has to: open, fstat, the head with one send, the
//! rest with sendfile.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::cases::{GetKind, RANGE};
use crate::limit::config::LimitConfig;
use crate::limit::event_loop::Handler;
use crate::limit::http::{REQUEST_LIMIT, head_end};

/// Bytes of a file to send in one call.
const CHUNK: u64 = 2 * 1024 * 1024;

#[derive(Debug)]
pub struct OpenGet {
    root: OwnedFd,
    kind: GetKind,
}

/// A response: its head, and the part of a file that follows.
#[derive(Debug)]
pub struct FileResponse {
    pub head: Vec<u8>,
    pub file: File,
    /// First byte of the file to send, and the first not to send.
    pub start: u64,
    pub end: u64,
}

impl OpenGet {
    pub fn new(config: &LimitConfig, kind: GetKind) -> io::Result<OpenGet> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(OpenGet {
            root: rustix::fs::open(&config.root, flags, Mode::empty())?,
            kind,
        })
    }

    /// Opens the file of a request.
    pub fn respond(&self, request: &[u8]) -> io::Result<FileResponse> {
        let target = request.split(|b| *b == b' ').nth(1).unwrap_or_default();
        let path = target.strip_prefix(b"/").unwrap_or(target);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, path, flags, Mode::empty())?;
        let size = rustix::fs::fstat(&file)?.st_size as u64;
        let (first, last) = RANGE;
        let (status, length, start, end) = match self.kind {
            GetKind::Whole => ("200 OK", size, 0, size),
            GetKind::Head => ("200 OK", size, 0, 0),
            GetKind::Range => ("206 Partial Content", last - first + 1, first, last + 1),
            GetKind::NotModified => ("304 Not Modified", 0, 0, 0),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nETag: \"0\"\r\nContent-Length: {length}\r\n\r\n"
        );
        Ok(FileResponse {
            head: head.into_bytes(),
            file: file.into(),
            start,
            end,
        })
    }
}

impl Handler for OpenGet {
    type State = Option<FileResponse>;

    fn new_state(&mut self) -> io::Result<Self::State> {
        Ok(None)
    }

    fn advance(&mut self, mut socket: &TcpStream, state: &mut Self::State) -> io::Result<bool> {
        let response = match state {
            Some(response) => response,
            None => {
                let mut request = [0; REQUEST_LIMIT];
                let n = match socket.read(&mut request) {
                    Ok(0) => return Ok(false),
                    Ok(n) if head_end(&request[..n]) == Some(n) => n,
                    Ok(_) => return Err(io::Error::other("a request arrived in pieces")),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(e) => return Err(e),
                };
                let response = self.respond(&request[..n])?;
                let flags = if response.start < response.end {
                    SendFlags::MORE
                } else {
                    SendFlags::empty()
                };
                rustix::net::send(socket, &response.head, flags)?;
                state.insert(response)
            }
        };
        while response.start < response.end {
            let rest = (response.end - response.start).min(CHUNK) as usize;
            match rustix::fs::sendfile(socket, &response.file, Some(&mut response.start), rest) {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
        *state = None;
        Ok(true)
    }
}
