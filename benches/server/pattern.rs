//! What bodies consist of.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// What every stored body consists of, over and over: bytes that compress badly, in a period that is long enough for
/// large writes and short enough for a cache.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// Bytes; larger than what is written at once.
    const PERIOD: usize = 256 * 1024;

    pub fn new() -> Pattern {
        // Marsaglia's xorshift, any seed but 0.
        let mut x: u64 = 0x2545_F491_4F6C_DD1D;
        let mut bytes = Vec::with_capacity(Pattern::PERIOD);
        while bytes.len() < Pattern::PERIOD {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            bytes.extend_from_slice(&x.to_le_bytes());
        }
        Pattern { bytes }
    }

    /// The bytes of a body from `offset` on, as many as are at hand, at most `rest`.
    pub fn bytes_at(&self, offset: u64, rest: u64) -> &[u8] {
        let start = (offset % self.bytes.len() as u64) as usize;
        let length = ((self.bytes.len() - start) as u64).min(rest) as usize;
        &self.bytes[start..start + length]
    }

    /// Makes a file of `size` bytes.
    pub fn write_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        let mut offset = 0;
        while offset < size {
            let bytes = self.bytes_at(offset, size - offset);
            file.write_all(bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Compares a file with a body of `size` bytes.
    pub fn check_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; Pattern::PERIOD];
        let mut offset = 0;
        loop {
            match file.read(&mut buffer)? {
                0 if offset == size => return Ok(()),
                n if n > 0 && self.matches(offset, &buffer[..n]) => offset += n as u64,
                _ => return Err(io::Error::other("The file differs from what was sent.")),
            }
        }
    }

    pub fn matches(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let own = self.bytes_at(offset, bytes.len() as u64);
            let (now, later) = bytes.split_at(own.len());
            if now != own {
                return false;
            }
            offset += own.len() as u64;
            bytes = later;
        }
        true
    }
}
