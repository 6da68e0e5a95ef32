//! The content of all stored files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Incompressible bytes, which every file repeats from its start to its end. The period is long enough for large writes
/// and short enough for the CPU's cache.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// In bytes.
    const PERIOD: usize = 256 * 1024;

    pub fn new() -> Pattern {
        // Marsaglia's xorshift; the seed may be any number but 0.
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

    /// The bytes of a body from `offset` to the end of the period, at most `rest`.
    pub fn bytes_at(&self, offset: u64, rest: u64) -> &[u8] {
        let start = (offset % self.bytes.len() as u64) as usize;
        let length = ((self.bytes.len() - start) as u64).min(rest) as usize;
        &self.bytes[start..start + length]
    }

    /// Creates a file of `size` bytes.
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

    /// Fails unless a file consists of `size` bytes of the pattern.
    pub fn check_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; Pattern::PERIOD];
        let mut offset = 0;
        loop {
            match file.read(&mut buffer)? {
                0 if offset == size => return Ok(()),
                n if n > 0 && self.matches(offset, &buffer[..n]) => offset += n as u64,
                _ => return Err(io::Error::other("the file differs from what was sent")),
            }
        }
    }

    /// Whether these are the bytes of a body from `offset` on.
    pub fn matches(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.bytes_at(offset, bytes.len() as u64);
            let (start, rest) = bytes.split_at(expected.len());
            if start != expected {
                return false;
            }
            offset += expected.len() as u64;
            bytes = rest;
        }
        true
    }
}
