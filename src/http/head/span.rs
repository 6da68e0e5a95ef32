//! A part of the head, as offsets.

use crate::http::head::error::MAX_HEAD;

const _: () = assert!(
    MAX_HEAD <= u16::MAX as usize,
    "a Span holds offsets of 16 bits"
);

/// A part of the head, as offsets. An empty one may stand anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// Offsets of a head fit, because [`MAX_HEAD`] does.
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u16,
            end: end as u16,
        }
    }

    /// Where `part` lies in `whole`, which it was sliced from.
    pub(super) fn within(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        Span::new(start, start + part.len())
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        let range = usize::from(self.start)..usize::from(self.end);
        bytes.get(range).unwrap_or_default()
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}
