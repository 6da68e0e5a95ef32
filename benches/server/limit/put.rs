//! PUTs into unnamed files that get a name when they are complete: a buffer between receive and write, or a pipe
//! between two splices.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::net::TcpStream;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::limit::config::LimitConfig;
use crate::limit::event_loop::Handler;
use crate::limit::http::{CREATED, head_end};

/// Bytes received at once; the pipe holds as many. Larger pieces cost less a byte, but not on every file system and at
/// every moment.
const BUFFER: usize = 1024 * 1024;
/// Writes end at a multiple of this in the file, so that no piece is begun by one and ended by the next.
const PAGE: u64 = 4096;

/// Of every file, in a folder of its own.
pub const FILE_NAME: &str = "photo.jpg";

/// A file that is coming in, and how many of its bytes are there.
pub type IncomingFile = Option<(File, u64)>;

/// Where the files go.
#[derive(Debug)]
pub struct UploadFolder {
    root: OwnedFd,
    pub size: u64,
    /// Files so far; the name of the next one's folder.
    serial: u64,
}

impl UploadFolder {
    fn new(config: &LimitConfig) -> io::Result<UploadFolder> {
        let root = rustix::fs::open(
            &config.root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(UploadFolder {
            root,
            size: config.size,
            serial: 0,
        })
    }

    fn create_unnamed(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        Ok(rustix::fs::openat(&self.root, ".", flags, mode)?.into())
    }

    /// Gives a file its name, in a folder of its own as every slot has. By its descriptor alone only where that is
    /// allowed (linkat(2), AT_EMPTY_PATH).
    fn publish(&mut self, file: &File) -> io::Result<()> {
        let folder = self.serial.to_string();
        self.serial += 1;
        rustix::fs::mkdirat(&self.root, &folder, Mode::from_raw_mode(0o750))?;
        let name = format!("{folder}/{FILE_NAME}");
        match rustix::fs::linkat(file, "", &self.root, &name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                Ok(rustix::fs::linkat(CWD, &path, &self.root, &name, follow)?)
            }
            other => Ok(other?),
        }
    }
}

#[derive(Debug)]
pub struct WritePut {
    pub folder: UploadFolder,
    buffer: Vec<u8>,
}

impl WritePut {
    pub fn new(config: &LimitConfig) -> io::Result<WritePut> {
        Ok(WritePut {
            folder: UploadFolder::new(config)?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Takes bytes as they came, head first; true when they complete a file, which has its name then.
    pub fn receive(
        folder: &mut UploadFolder,
        bytes: &[u8],
        incoming: &mut IncomingFile,
    ) -> io::Result<bool> {
        let (file, there, body) = match incoming {
            Some((file, there)) => (file, there, bytes),
            None => {
                let end = head_end(bytes).ok_or_else(|| io::Error::other("Half a head came."))?;
                let (file, there) = incoming.insert((folder.create_unnamed()?, 0));
                (file, there, &bytes[end..])
            }
        };
        file.write_all(body)?;
        *there += body.len() as u64;
        if *there < folder.size {
            return Ok(false);
        }
        folder.publish(file)?;
        *incoming = None;
        Ok(true)
    }
}

impl Handler for WritePut {
    type State = IncomingFile;

    fn new_state(&mut self) -> io::Result<IncomingFile> {
        Ok(None)
    }

    fn advance(&mut self, mut socket: &TcpStream, incoming: &mut IncomingFile) -> io::Result<bool> {
        loop {
            let over = incoming.as_ref().map_or(0, |(_, there)| there % PAGE);
            let most = BUFFER - over as usize;
            let n = match socket.read(&mut self.buffer[..most]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            if WritePut::receive(&mut self.folder, &self.buffer[..n], incoming)? {
                return socket.write_all(CREATED).map(|()| true);
            }
            // It took all that was there; an event tells of more.
            if n < most {
                return Ok(true);
            }
        }
    }
}

#[derive(Debug)]
pub struct SplicePut {
    folder: UploadFolder,
    /// Empty between two turns.
    pipe: (OwnedFd, OwnedFd),
}

impl SplicePut {
    pub fn new(config: &LimitConfig) -> io::Result<SplicePut> {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::pipe::fcntl_setpipe_size(&pipe.0, BUFFER)?;
        Ok(SplicePut {
            folder: UploadFolder::new(config)?,
            pipe,
        })
    }
}

impl Handler for SplicePut {
    type State = IncomingFile;

    fn new_state(&mut self) -> io::Result<IncomingFile> {
        Ok(None)
    }

    fn advance(&mut self, mut socket: &TcpStream, incoming: &mut IncomingFile) -> io::Result<bool> {
        if incoming.is_none() {
            let mut start = [0; 4096];
            let complete = match socket.read(&mut start) {
                Ok(0) => return Ok(false),
                Ok(n) => WritePut::receive(&mut self.folder, &start[..n], incoming)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            if complete {
                return socket.write_all(CREATED).map(|()| true);
            }
        }
        let (reading, writing) = &self.pipe;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while let Some((file, there)) = incoming {
            let rest = (self.folder.size - *there).min(BUFFER as u64) as usize;
            let mut held = match rustix::pipe::splice(socket, None, writing, None, rest, flags) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(Errno::AGAIN) => return Ok(true),
                Err(e) => return Err(e.into()),
            };
            *there += held as u64;
            while held > 0 {
                held -= rustix::pipe::splice(reading, None, &*file, None, held, SpliceFlags::MOVE)?;
            }
            if *there == self.folder.size {
                self.folder.publish(file)?;
                *incoming = None;
                socket.write_all(CREATED)?;
            }
        }
        Ok(true)
    }
}
