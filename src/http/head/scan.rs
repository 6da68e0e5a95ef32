//! The search for the end of a head.

use crate::http::head::error::{HeadFault, MAX_FIELDS, MAX_HEAD, MAX_TARGET};
use crate::http::head::line::RequestLine;
use crate::http::syntax::{is_control, is_token_byte};

/// Longest method in bytes; the longest registered one has 17.
pub(super) const MAX_METHOD: usize = 64;
/// Empty lines that are skipped before a request line (RFC 9112 §2.2 asks for "at least one").
const MAX_EMPTY_LINES: u8 = 4;
/// What follows the longest target in its line: a blank and the version.
const AFTER_TARGET: usize = " HTTP/1.1".len();

/// The search for the end of a head. It remembers where it stopped, so that the work is linear however
/// the bytes arrive, and answers the same however they were split.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Bytes before this one were judged.
    pub(super) at: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the target begins, once the method has ended.
    target: Option<usize>,
    /// The request line, once it has ended.
    pub(super) request: Option<RequestLine>,
    /// Field lines that have ended.
    pub(super) fields: usize,
    /// Empty lines before the request line.
    empty: u8,
}

impl Scan {
    /// Looks on in `buffer`, which holds all bytes since the last head (or its body) ended: what was
    /// there at the last call, and what came since. `Some(n)`: the head is the first n bytes. `None`:
    /// more bytes are needed. A fault is told as soon as no further byte could mend it. After `Some`
    /// or a fault the scan has served; the next head takes a new one.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadFault> {
        let seen = &buffer[..buffer.len().min(MAX_HEAD)];
        while self.target.is_some() || self.scan_method(seen)? {
            let rest = seen.get(self.at..).unwrap_or_default();
            let found = find_control(rest);
            let stop = self.at + found.unwrap_or(rest.len());
            if self.request.is_none()
                && stop - self.target.unwrap_or(stop) > MAX_TARGET + AFTER_TARGET
            {
                return Err(HeadFault::TargetTooLong);
            }
            self.at = stop;
            match (seen.get(stop), seen.get(stop + 1)) {
                (None, _) | (Some(b'\r'), None) => break,
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), Some(_)) => return Err(HeadFault::BARE_CR),
                (Some(b'\n'), _) => return Err(HeadFault::BARE_LF),
                (Some(_), _) => return Err(HeadFault::CONTROL),
            }
            let line = seen.get(self.line..stop).unwrap_or_default();
            self.at = stop + 2;
            self.line = self.at;
            if self.request.is_none() {
                self.request = Some(RequestLine::parse(line)?);
            } else if line.is_empty() {
                return Ok(Some(self.at));
            } else if self.fields == MAX_FIELDS {
                return Err(HeadFault::TooManyFields);
            } else {
                self.fields += 1;
            }
        }
        if buffer.len() >= MAX_HEAD {
            return Err(HeadFault::TooLarge);
        }
        Ok(None)
    }

    /// Bytes of empty lines before the request line. They belong to the head that `scan` measures, but
    /// a connection that sent nothing else is still idle.
    pub fn skipped(&self) -> usize {
        usize::from(self.empty) * 2
    }

    /// Whether a byte of a request line was seen.
    pub fn started(&self) -> bool {
        self.at > self.skipped()
    }

    /// Skips empty lines and goes through the method; true once a blank ended it.
    fn scan_method(&mut self, seen: &[u8]) -> Result<bool, HeadFault> {
        while let Some(&byte) = seen.get(self.at) {
            let first = self.at == self.line;
            match byte {
                b'\r' if first => match seen.get(self.at + 1) {
                    None => return Ok(false),
                    Some(b'\n') if self.empty < MAX_EMPTY_LINES => {
                        self.empty += 1;
                        self.at += 2;
                        self.line = self.at;
                    }
                    Some(_) => return Err(HeadFault::NO_METHOD),
                },
                b' ' if !first => {
                    self.at += 1;
                    self.target = Some(self.at);
                    return Ok(true);
                }
                byte if is_token_byte(byte) => {
                    self.at += 1;
                    if self.at - self.line > MAX_METHOD {
                        return Err(HeadFault::MethodTooLong);
                    }
                }
                _ => return Err(HeadFault::NO_METHOD),
            }
        }
        Ok(false)
    }
}

/// Where the first control character is. Sixteen bytes at a time, without a branch for each, because
/// every byte of every head goes through here.
fn find_control(bytes: &[u8]) -> Option<usize> {
    let clean = |block: &&[u8]| {
        !block
            .iter()
            .fold(false, |any, &byte| any | is_control(byte))
    };
    let at = 16 * bytes.chunks_exact(16).take_while(clean).count();
    let found = bytes[at..].iter().position(|&byte| is_control(byte))?;
    Some(at + found)
}
