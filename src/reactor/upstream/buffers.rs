//! The buffers that all connections to the store share.

use crate::transport::{self, MAX_WRITE};

/// Most reads of a head or handshake per turn.
pub(super) const MAX_READS: usize = 16;

/// Bytes read at a time before the head of a response is complete, and so the part of its body that may be buffered. A
/// small object comes along with its head, so that one read receives both.
const SCRATCH: usize = 16 * 1024;

/// Most buffers that are kept without use.
const MAX_SPARE: usize = 8;

/// Buffers that hold nothing between calls.
#[derive(Debug)]
pub(super) struct IoBuffers {
    /// For TLS records; empty as long as there is no TLS.
    pub(super) wire: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    /// Others like `scratch`.
    spare: Vec<Vec<u8>>,
}

impl IoBuffers {
    pub(super) fn new() -> IoBuffers {
        IoBuffers {
            wire: Vec::new(),
            scratch: vec![0; SCRATCH],
            spare: Vec::new(),
        }
    }

    /// Takes `scratch` with what it holds, and replaces it.
    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        let other = self.spare.pop().unwrap_or_else(|| vec![0; SCRATCH]);
        std::mem::replace(&mut self.scratch, other)
    }

    /// A buffer that was taken, if any, is not needed any more.
    pub(super) fn give_back(&mut self, buffer: Option<Vec<u8>>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.extend(buffer);
        }
    }

    pub(super) fn fit_tls(&mut self) {
        self.wire.resize(transport::wire_size(MAX_WRITE), 0);
    }
}
