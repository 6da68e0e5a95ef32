//! The cases: operations that are measured in rounds, on several servers in turn. [`crate::rounds`] measures them.

use crate::common::options::{ByMode, Options};
use crate::common::server_kind::ServerKind;

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub operation: Operation,
    pub tls: bool,
    /// Concurrent connections.
    pub connections: usize,
    /// Requests per round.
    pub requests: ByMode<usize>,
    /// The servers to compare, if installed.
    pub servers: &'static [ServerKind],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `new_connections`: opens a new connection for each request.
    Get {
        size: FileSize,
        new_connections: bool,
    },
    /// `durable`: the server responds once the file is on stable storage.
    Put { size: FileSize, durable: bool },
    /// Slot requests through the component.
    Slots,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSize {
    /// As large as a picture.
    Small,
    /// As large as a film.
    Large,
}

/// In bytes.
pub const SMALL: u64 = 10 * 1024;
/// In bytes.
const LARGE: ByMode<u64> = ByMode {
    normal: 256 * 1024 * 1024,
    quick: 16 * 1024 * 1024,
};

impl FileSize {
    /// In bytes.
    pub fn bytes(self, options: &Options) -> u64 {
        match self {
            FileSize::Small => SMALL,
            FileSize::Large => LARGE.get(options),
        }
    }
}

const GET_SMALL: Operation = Operation::Get {
    size: FileSize::Small,
    new_connections: false,
};
const GET_NEW: Operation = Operation::Get {
    size: FileSize::Small,
    new_connections: true,
};
const GET_LARGE: Operation = Operation::Get {
    size: FileSize::Large,
    new_connections: false,
};
const PUT_SMALL: Operation = Operation::Put {
    size: FileSize::Small,
    durable: false,
};
const PUT_LARGE: Operation = Operation::Put {
    size: FileSize::Large,
    durable: false,
};
const PUT_DURABLE: Operation = Operation::Put {
    size: FileSize::Small,
    durable: true,
};

const GETS: &[ServerKind] = &[
    ServerKind::Upslot,
    ServerKind::Nginx,
    ServerKind::Lighttpd,
    ServerKind::Limit,
];
const PUTS: &[ServerKind] = ServerKind::ALL;
/// Without splice, which cannot decrypt TLS.
const TLS_PUTS: &[ServerKind] = GETS;
/// For operations that no other server supports.
const UPSLOT_ONLY: &[ServerKind] = &[ServerKind::Upslot];

/// A row of the table.
const fn row(
    name: &'static str,
    operation: Operation,
    tls: bool,
    connections: usize,
    (normal, quick): (usize, usize),
    servers: &'static [ServerKind],
) -> Case {
    Case {
        name,
        operation,
        tls,
        connections,
        requests: ByMode { normal, quick },
        servers,
    }
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    row("get-10k", GET_SMALL, false, 8, (20_000, 2_000), GETS),
    row("get-10k-alone", GET_SMALL, false, 1, (10_000, 1_000), GETS),
    row("get-10k-tls", GET_SMALL, true, 8, (20_000, 1_500), GETS),
    row("get-10k-new", GET_NEW, false, 8, (12_000, 600), GETS),
    row("get-10k-new-tls", GET_NEW, true, 8, (2_000, 200), GETS),
    row("get-large", GET_LARGE, false, 1, (8, 6), GETS),
    row("get-large-tls", GET_LARGE, true, 1, (4, 3), GETS),
    row("put-10k", PUT_SMALL, false, 8, (4_000, 500), PUTS),
    row("put-10k-tls", PUT_SMALL, true, 8, (4_000, 500), TLS_PUTS),
    row("put-large", PUT_LARGE, false, 1, (4, 3), PUTS),
    row("put-large-tls", PUT_LARGE, true, 1, (4, 2), TLS_PUTS),
    row("put-durable", PUT_DURABLE, false, 1, (300, 50), UPSLOT_ONLY),
    row("put-durable-32", PUT_DURABLE, false, 32, (1_600, 160), UPSLOT_ONLY),
    row("slots", Operation::Slots, false, 1, (20_000, 4_000), UPSLOT_ONLY),
];

impl Case {
    pub fn is_durable(&self) -> bool {
        matches!(self.operation, Operation::Put { durable: true, .. })
    }

    pub fn is_put(&self) -> bool {
        matches!(self.operation, Operation::Put { .. })
    }

    /// Size of the files in bytes.
    pub fn size(&self, options: &Options) -> u64 {
        match self.operation {
            Operation::Get { size, .. } | Operation::Put { size, .. } => size.bytes(options),
            Operation::Slots => FileSize::Small.bytes(options),
        }
    }
}
