//! Parts of a request head as offsets, so that a head owns one buffer and no part is copied.

use crate::http::head::error::MAX_HEAD;

const _: () = assert!(
    MAX_HEAD <= u16::MAX as usize,
    "a Span holds offsets of 16 bits"
);

/// A range of bytes in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The offsets fit, because [`MAX_HEAD`] does.
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u16,
            end: end as u16,
        }
    }

    /// The bytes of the span in `buffer`.
    pub(super) fn of(self, buffer: &[u8]) -> &[u8] {
        let range = usize::from(self.start)..usize::from(self.end);
        buffer.get(range).unwrap_or_default()
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}
