//! The search for the end of a request head, as its bytes arrive.

use crate::http::head::error::{HeadError, MAX_FIELDS, MAX_HEAD, MAX_TARGET};
use crate::http::head::line::RequestLine;
use crate::http::syntax::{is_control, is_token_byte};

/// Longest method in bytes; the longest registered one has 17.
pub(super) const MAX_METHOD: usize = 64;
/// Most empty lines that are skipped before a request line (RFC 9112 §2.2 asks for "at least one").
const MAX_EMPTY_LINES: u8 = 4;
/// The first byte of a TLS connection: a record with a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// The number of empty lines with which the binary form of HAProxy's PROXY protocol begins, before a NUL.
const PROXY_EMPTY_LINES: u8 = 2;
/// Length of what follows the longest target in its line: a space and the version.
const AFTER_TARGET: usize = " HTTP/1.1".len();

/// The search for the end of a head. It remembers where it stopped, so that the work is linear in the size of the head
/// and the result does not depend on how the bytes are split into reads.
#[derive(Clone, Debug, Default)]
pub struct HeadScan {
    /// Bytes before this offset have been checked.
    pub(super) position: usize,
    /// Offset of the current line.
    line_start: usize,
    /// Offset of the target, once the method has ended.
    target_start: Option<usize>,
    /// The request line, once it has ended.
    pub(super) request_line: Option<RequestLine>,
    /// Field lines that have ended.
    pub(super) field_count: usize,
    /// Empty lines before the request line.
    empty_lines: u8,
}

impl HeadScan {
    /// Continues the search in `buffer`, which holds all bytes since the end of the previous request: those of the last
    /// call, and any that have arrived since. `Some(n)`: the head is the first n bytes. `None`: more bytes are needed.
    /// An error is returned as soon as no further bytes could make the head valid. After `Some` or an error the scan is
    /// finished; the next head needs a new one.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadError> {
        let window = &buffer[..buffer.len().min(MAX_HEAD)];
        while self.target_start.is_some() || self.scan_method(window)? {
            let rest = window.get(self.position..).unwrap_or_default();
            let control = rest.iter().position(|&byte| is_control(byte));
            let line_end = self.position + control.unwrap_or(rest.len());
            if self.request_line.is_none()
                && line_end - self.target_start.unwrap_or(line_end) > MAX_TARGET + AFTER_TARGET
            {
                return Err(HeadError::TargetTooLong);
            }
            self.position = line_end;
            match (window.get(line_end), window.get(line_end + 1)) {
                (None, _) | (Some(b'\r'), None) => break,
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), Some(_)) => return Err(HeadError::BARE_CR),
                (Some(b'\n'), _) => return Err(HeadError::BARE_LF),
                (Some(_), _) => return Err(HeadError::CONTROL),
            }
            let line = window.get(self.line_start..line_end).unwrap_or_default();
            self.position = line_end + 2;
            self.line_start = self.position;
            if self.request_line.is_none() {
                self.request_line = Some(RequestLine::parse(line)?);
            } else if line.is_empty() {
                return Ok(Some(self.position));
            } else if self.field_count == MAX_FIELDS {
                return Err(HeadError::TooManyFields);
            } else {
                self.field_count += 1;
            }
        }
        if buffer.len() >= MAX_HEAD {
            return Err(HeadError::TooLarge);
        }
        Ok(None)
    }

    /// Bytes of the empty lines before the request line. They are part of the head that `scan` measures, but a
    /// connection that has sent nothing else is still idle.
    pub fn empty_line_bytes(&self) -> usize {
        usize::from(self.empty_lines) * 2
    }

    /// Whether the first byte of a request line has arrived.
    pub fn started(&self) -> bool {
        self.position > self.empty_line_bytes()
    }

    /// Skips empty lines and reads the method; true once the space after it has arrived.
    fn scan_method(&mut self, window: &[u8]) -> Result<bool, HeadError> {
        while let Some(&byte) = window.get(self.position) {
            let is_first = self.position == self.line_start;
            match byte {
                b'\r' if is_first => match window.get(self.position + 1) {
                    None => return Ok(false),
                    Some(b'\n') if self.empty_lines < MAX_EMPTY_LINES => {
                        self.empty_lines += 1;
                        self.position += 2;
                        self.line_start = self.position;
                    }
                    Some(_) => return Err(HeadError::NO_METHOD),
                },
                b' ' if !is_first => {
                    self.position += 1;
                    self.target_start = Some(self.position);
                    return Ok(true);
                }
                byte if is_token_byte(byte) => {
                    self.position += 1;
                    if self.position - self.line_start > MAX_METHOD {
                        return Err(HeadError::MethodTooLong);
                    }
                }
                // No HTTP method begins so. Clients of these protocols cannot read the response; the log tells the operator.
                TLS_HANDSHAKE if is_first => return Err(HeadError::TLS),
                b'<' if is_first => return Err(HeadError::XMPP),
                b'\0' if is_first && self.empty_lines == PROXY_EMPTY_LINES => {
                    return Err(HeadError::PROXY);
                }
                _ => return Err(HeadError::NO_METHOD),
            }
        }
        Ok(false)
    }
}
