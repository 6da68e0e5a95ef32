//! One HTTP answer, judged as it comes in: status, exact length and, where asked for, every byte. It refuses whatever
//! the bench does not expect, as a number measured on a wrong answer is worth nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::Outcome;

/// Heads in the bench have a few hundred bytes.
const HEAD_LIMIT: usize = 8192;

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
    pub fn at(&self, offset: u64, rest: u64) -> &[u8] {
        let start = (offset % self.bytes.len() as u64) as usize;
        let length = ((self.bytes.len() - start) as u64).min(rest) as usize;
        &self.bytes[start..start + length]
    }

    /// Makes a file of `size` bytes.
    pub fn write(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        let mut offset = 0;
        while offset < size {
            let bytes = self.at(offset, size - offset);
            file.write_all(bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Compares a file with a body of `size` bytes.
    pub fn check(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; Pattern::PERIOD];
        let mut offset = 0;
        loop {
            match file.read(&mut buffer)? {
                0 if offset == size => return Ok(()),
                n if n > 0 && self.agrees(offset, &buffer[..n]) => offset += n as u64,
                _ => return Err(io::Error::other("The file differs from what was sent.")),
            }
        }
    }

    fn agrees(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let own = self.at(offset, bytes.len() as u64);
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

/// What the answer must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub status: u16,
    /// Bytes of the body; none: any number.
    pub length: Option<u64>,
}

/// An answer under way.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
    /// Bytes of the body, known once the head is complete.
    length: Option<u64>,
    /// Bytes of the body that came so far.
    seen: u64,
}

impl Answer {
    /// Makes it ready for the next answer, and keeps its memory.
    pub fn clear(&mut self) {
        self.head.clear();
        self.length = None;
        self.seen = 0;
    }

    /// Takes what came from the server; true when the answer is complete. With `pattern`, the body is compared.
    pub fn take(
        &mut self,
        bytes: &[u8],
        expected: Expected,
        pattern: Option<&Pattern>,
    ) -> Outcome<bool> {
        let (length, body) = match self.length {
            Some(length) => (length, bytes),
            None => {
                let searched = self.head.len().saturating_sub(3);
                let before = self.head.len();
                self.head
                    .extend_from_slice(&bytes[..bytes.len().min(HEAD_LIMIT - before)]);
                let Some(end) =
                    find(&self.head[searched..], b"\r\n\r\n").map(|at| searched + at + 4)
                else {
                    if self.head.len() == HEAD_LIMIT {
                        return Err("The head of an answer is too long.".to_owned());
                    }
                    return Ok(false);
                };
                self.head.truncate(end);
                let length = judge(&self.head, expected)?;
                self.length = Some(length);
                (length, &bytes[end - before..])
            }
        };
        if body.len() as u64 > length - self.seen {
            return Err(format!("More than the {length} bytes of the body came."));
        }
        if pattern.is_some_and(|pattern| !pattern.agrees(self.seen, body)) {
            return Err("The body differs from what was stored.".to_owned());
        }
        self.seen += body.len() as u64;
        Ok(self.seen == length)
    }
}

/// Checks a complete head; gives the length of the body.
fn judge(head: &[u8], expected: Expected) -> Outcome<u64> {
    let shown = || String::from_utf8_lossy(head).into_owned();
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(number);
    if status != Some(u64::from(expected.status)) {
        return Err(format!(
            "{} was expected, this came: {}",
            expected.status,
            shown()
        ));
    }
    let length = head.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:")
            .then(|| number(value.trim_ascii()))?
    });
    match (length, expected.length) {
        (None, _) => Err(format!("An answer without a length: {}", shown())),
        (Some(length), Some(wanted)) if length != wanted => Err(format!(
            "A body of {wanted} bytes was expected, one of {length} came."
        )),
        (Some(length), _) => Ok(length),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}
