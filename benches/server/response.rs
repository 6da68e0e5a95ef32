//! One HTTP answer, judged as it comes in: status, exact length and, where asked for, every byte. It refuses whatever
//! the bench does not expect, as a number measured on a wrong answer is worth nothing.

use crate::common::outcome::Outcome;
use crate::pattern::Pattern;

/// Heads in the bench have a few hundred bytes.
const HEAD_LIMIT: usize = 8192;

/// What the answer must be.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedResponse {
    pub status: u16,
    /// Bytes of the body; none: any number.
    pub length: Option<u64>,
}

/// An answer under way.
#[derive(Debug, Default)]
pub struct ResponseReader {
    head: Vec<u8>,
    /// Bytes of the body, known once the head is complete.
    length: Option<u64>,
    /// Bytes of the body that came so far.
    received: u64,
}

impl ResponseReader {
    /// Makes it ready for the next answer, and keeps its memory.
    pub fn reset(&mut self) {
        self.head.clear();
        self.length = None;
        self.received = 0;
    }

    /// Takes what came from the server; true when the answer is complete. With `pattern`, the body is compared.
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
                        return Err("The head of an answer is too long.".to_owned());
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
            return Err(format!("More than the {length} bytes of the body came."));
        }
        if pattern.is_some_and(|pattern| !pattern.matches(self.received, body)) {
            return Err("The body differs from what was stored.".to_owned());
        }
        self.received += body.len() as u64;
        Ok(self.received == length)
    }
}

/// Checks a complete head; gives the length of the body.
fn check_head(head: &[u8], expected: ExpectedResponse) -> Outcome<u64> {
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
