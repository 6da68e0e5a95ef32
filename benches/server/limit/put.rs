//! PUTs into unnamed files that are linked to a name once they are complete, through a buffer or with splice.

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

/// Size of the buffer and of the pipe in bytes. Larger ones take less CPU time per byte on some file
/// systems only.
const BUFFER_SIZE: usize = 1024 * 1024;
/// Writes end at multiples of this offset in the file, so that no page is written in two parts.
const PAGE: u64 = 4096;

/// The name of every file; each has a folder of its own.
pub const FILE_NAME: &str = "photo.jpg";

/// A file that is being received, and the bytes received so far; none between requests.
pub type IncomingFile = Option<(File, u64)>;

/// The folder that receives files.
#[derive(Debug)]
pub struct UploadFolder {
    root: OwnedFd,
    /// Size of every file in bytes.
    pub size: u64,
    /// Files received so far; also the name of the next file's folder.
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

    /// Links a file to its name, in a folder of its own as for every slot. Linking by descriptor needs a privilege, so
    /// the fallback is its path in /proc (linkat(2), AT_EMPTY_PATH).
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
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    /// Takes received bytes, beginning with a head; true once a file is complete and published.
    pub fn receive(
        folder: &mut UploadFolder,
        bytes: &[u8],
        incoming: &mut IncomingFile,
    ) -> io::Result<bool> {
        let (file, received, body) = match incoming {
            Some((file, received)) => (file, received, bytes),
            None => {
                let end =
                    head_end(bytes).ok_or_else(|| io::Error::other("a head arrived in pieces"))?;
                let (file, received) = incoming.insert((folder.create_unnamed()?, 0));
                (file, received, &bytes[end..])
            }
        };
        file.write_all(body)?;
        *received += body.len() as u64;
        if *received < folder.size {
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
            let excess = incoming.as_ref().map_or(0, |(_, received)| received % PAGE);
            let room = BUFFER_SIZE - excess as usize;
            let n = match socket.read(&mut self.buffer[..room]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            if WritePut::receive(&mut self.folder, &self.buffer[..n], incoming)? {
                return socket.write_all(CREATED).map(|()| true);
            }
            // The socket is drained; the next event announces more.
            if n < room {
                return Ok(true);
            }
        }
    }
}

#[derive(Debug)]
pub struct SplicePut {
    folder: UploadFolder,
    /// Empty between calls.
    pipe: (OwnedFd, OwnedFd),
}

impl SplicePut {
    pub fn new(config: &LimitConfig) -> io::Result<SplicePut> {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::pipe::fcntl_setpipe_size(&pipe.0, BUFFER_SIZE)?;
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
        let (read_end, write_end) = &self.pipe;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while let Some((file, received)) = incoming {
            let rest = (self.folder.size - *received).min(BUFFER_SIZE as u64) as usize;
            let mut in_pipe = match rustix::pipe::splice(socket, None, write_end, None, rest, flags)
            {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(Errno::AGAIN) => return Ok(true),
                Err(e) => return Err(e.into()),
            };
            *received += in_pipe as u64;
            while in_pipe > 0 {
                in_pipe -=
                    rustix::pipe::splice(read_end, None, &*file, None, in_pipe, SpliceFlags::MOVE)?;
            }
            if *received == self.folder.size {
                self.folder.publish(file)?;
                *incoming = None;
                socket.write_all(CREATED)?;
            }
        }
        Ok(true)
    }
}
