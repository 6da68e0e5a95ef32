//! An HTTP response, checked as it is received: status, exact length and, if asked for, every byte. Anything that the
//! bench does not expect is an error, because a time measured for a wrong response means nothing.

use crate::common::outcome::Outcome;
use crate::pattern::Pattern;

/// In bytes; heads in the bench have a few hundred.
const HEAD_LIMIT: usize = 8192;

/// The response that a request must get.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedResponse {
    pub status: u16,
    /// `Content-Length` in bytes; none accepts any.
    pub length: Option<u64>,
    /// Whether a body follows, which is not the case for HEAD and for status 304.
    pub has_body: bool,
}

/// Reads one response after another.
#[derive(Debug, Default)]
pub struct ResponseReader {
    head: Vec<u8>,
    /// Length of the body in bytes, known once the head is complete.
    length: Option<u64>,
    /// Bytes of the body received so far.
    received: u64,
}

impl ResponseReader {
    /// Prepares for the next response, keeping the buffer.
    pub fn reset(&mut self) {
        self.head.clear();
        self.length = None;
        self.received = 0;
    }

    /// The head of the response, as far as it is received.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether the head is complete, so that only bytes of the body follow.
    pub fn has_head(&self) -> bool {
        self.length.is_some()
    }

    /// Takes bytes received from the server; true when the response is complete. With `pattern`, the body is compared.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        expected: ExpectedResponse,
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
                        return Err("the head of a response is too long".to_owned());
                    }
                    return Ok(false);
                };
                self.head.truncate(end);
                let length = check_head(&self.head, expected)?;
                self.length = Some(length);
                (length, &bytes[end - before..])
            }
        };
        if body.len() as u64 > length - self.received {
            return Err(format!("received more than the {length} bytes of the body"));
        }
        if pattern.is_some_and(|pattern| !pattern.matches(self.received, body)) {
            return Err("the body differs from what was stored".to_owned());
        }
        self.received += body.len() as u64;
        Ok(self.received == length)
    }
}

/// Checks a complete head; returns the length of the body.
fn check_head(head: &[u8], expected: ExpectedResponse) -> Outcome<u64> {
    let text = || String::from_utf8_lossy(head).into_owned();
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(number);
    if status != Some(u64::from(expected.status)) {
        return Err(format!(
            "expected status {}, received: {}",
            expected.status,
            text()
        ));
    }
    let length = field(head, "content-length").and_then(number);
    match (length, expected.length) {
        (None, None) if !expected.has_body => Ok(0),
        (None, _) => Err(format!("a response without Content-Length: {}", text())),
        (Some(length), Some(wanted)) if length != wanted => Err(format!(
            "expected a body of {wanted} bytes, received one of {length}"
        )),
        (Some(_), _) if !expected.has_body => Ok(0),
        (Some(length), _) => Ok(length),
    }
}

/// The value of a header field.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.trim_ascii())
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}
