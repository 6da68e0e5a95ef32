//! The buffers that all connections to the store share.

use crate::transport::{self, MAX_WRITE};

/// Most reads of a head or handshake per turn.
pub(super) const MAX_READS: usize = 16;

const SCRATCH: usize = 16 * 1024;

/// Buffers that hold nothing between calls.
#[derive(Debug)]
pub(super) struct IoBuffers {
    /// For TLS records; empty as long as there is no TLS.
    pub(super) wire: Vec<u8>,
    pub(super) scratch: Vec<u8>,
}

impl IoBuffers {
    pub(super) fn new() -> IoBuffers {
        IoBuffers {
            wire: Vec::new(),
            scratch: vec![0; SCRATCH],
        }
    }

    pub(super) fn fit_tls(&mut self) {
        self.wire.resize(transport::wire_size(MAX_WRITE), 0);
    }
}
