//! Parts of a request head as offsets, so that a head owns one buffer and no part is copied.

use crate::http::head::error::MAX_HEAD;

const _: () = assert!(
    MAX_HEAD <= u16::MAX as usize,
    "a Span holds offsets of 16 bits"
);

/// A range of bytes in a buffer. All empty spans read the same, whatever their offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// The span of `part` in `whole`, which it is a slice of.
    pub(super) fn within(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        Span::new(start, start + part.len())
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
