//! The cases: operations that are measured in rounds, on several servers in turn. [`crate::rounds`] measures them.

use crate::common::options::{ByMode, Options};
use crate::common::server_kind::ServerKind;
use crate::order::Distribution;

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub operation: Operation,
    pub tls: bool,
    /// Concurrent connections.
    pub connections: usize,
    /// Requests per round; with 0, the case is not part of quick runs.
    pub requests: ByMode<usize>,
    /// The servers to compare, if installed.
    pub servers: &'static [ServerKind],
    /// Whether upslot sandboxes itself, as it does by default.
    pub sandbox: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get(Gets),
    /// `durable`: upslot responds once the file is on stable storage; no other server does.
    Put {
        size: FileSize,
        durable: bool,
    },
    /// Slot requests through the component.
    Slots,
}

/// What is requested by the GETs of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gets {
    pub size: FileSize,
    /// How many different files are requested.
    pub files: usize,
    pub distribution: Distribution,
    pub kind: GetKind,
    pub connections: ConnectionUse,
    /// Whether the files are in a folder of depth [`DEEP`].
    pub deep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetKind {
    Whole,
    /// The bytes of [`RANGE`], with status 206.
    Range,
    /// HEAD instead of GET.
    Head,
    /// With `If-None-Match`, so that the status is 304.
    NotModified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionUse {
    /// All connections are open before the measurement.
    Persistent,
    /// Each request opens a new connection.
    New,
    /// Many clients connect at the same time for one request each, all for the same file; in each turn another one.
    Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSize {
    /// As large as a thumbnail.
    Small,
    /// As large as a picture.
    Picture,
    /// As large as a film.
    Large,
}

/// In bytes.
pub const SMALL: u64 = 10 * 1024;
/// In bytes.
const PICTURE: u64 = 2 * 1024 * 1024;
/// In bytes.
const LARGE: ByMode<u64> = ByMode {
    normal: 256 * 1024 * 1024,
    quick: 16 * 1024 * 1024,
};
/// Always the same small file, on persistent connections.
pub const SAME_FILE: Gets = Gets {
    size: FileSize::Small,
    files: 1,
    distribution: Distribution::Uniform,
    kind: GetKind::Whole,
    connections: ConnectionUse::Persistent,
    deep: false,
};
/// First and last byte of a [`GetKind::Range`].
pub const RANGE: (u64, u64) = (4096, 8191);
/// The depth of the folder of [`Gets::deep`]: that of `/a` is 1.
pub const DEEP: usize = 8;

impl FileSize {
    /// In bytes.
    pub fn bytes(self, options: &Options) -> u64 {
        match self {
            FileSize::Small => SMALL,
            FileSize::Picture => PICTURE,
            FileSize::Large => LARGE.get(options),
        }
    }
}

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
    connections: usize,
    (normal, quick): (usize, usize),
    servers: &'static [ServerKind],
) -> Case {
    Case {
        name,
        operation,
        tls: false,
        connections,
        requests: ByMode { normal, quick },
        servers,
        sandbox: true,
    }
}

/// A row of GETs of small files, chosen uniformly, on 50 persistent connections.
const fn get(name: &'static str, files: usize, requests: (usize, usize)) -> Case {
    let gets = Gets { files, ..SAME_FILE };
    row(name, Operation::Get(gets), 50, requests, GETS)
}

impl Case {
    const fn tls(self) -> Case {
        Case { tls: true, ..self }
    }

    const fn on(self, connections: usize) -> Case {
        Case {
            connections,
            ..self
        }
    }

    const fn unsandboxed(self) -> Case {
        Case {
            sandbox: false,
            ..self
        }
    }

    const fn zipf(self) -> Case {
        let distribution = Distribution::Zipf;
        self.with(Gets {
            distribution,
            ..self.gets()
        })
    }

    const fn kind(self, kind: GetKind) -> Case {
        self.with(Gets {
            kind,
            ..self.gets()
        })
    }

    const fn size(self, size: FileSize) -> Case {
        self.with(Gets {
            size,
            ..self.gets()
        })
    }

    const fn connections(self, connections: ConnectionUse) -> Case {
        self.with(Gets {
            connections,
            ..self.gets()
        })
    }

    const fn deep(self) -> Case {
        self.with(Gets {
            deep: true,
            ..self.gets()
        })
    }

    const fn with(self, gets: Gets) -> Case {
        Case {
            operation: Operation::Get(gets),
            ..self
        }
    }

    /// What a row of GETs requests.
    const fn gets(&self) -> Gets {
        match self.operation {
            Operation::Get(gets) => gets,
            _ => panic!("not a row of GETs"),
        }
    }
}

use ConnectionUse::{New, Room};
use FileSize::{Large, Picture};
use GetKind::{Head, NotModified, Range};

/// Requests per round of GETs.
const MANY: (usize, usize) = (20_000, 1_500);
/// The same, but not in quick runs.
const LONG: (usize, usize) = (20_000, 0);
/// Clients of a room.
const CLIENTS: usize = 200;

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    get("get-1-file", 1, MANY),
    get("get-1-file-8", 1, MANY).on(8),
    get("get-1-file-alone", 1, (10_000, 1_000)).on(1),
    get("get-1-file-tls", 1, MANY).tls(),
    get("get-1-file-tls-8", 1, LONG).tls().on(8),
    get("get-64-files", 64, MANY),
    get("get-64-files-8", 64, MANY).on(8),
    get("get-64-files-zipf", 64, LONG).zipf(),
    get("get-64-files-tls", 64, MANY).tls(),
    get("get-64-files-tls-8", 64, LONG).tls().on(8),
    get("get-64-files-zipf-tls", 64, LONG).zipf().tls(),
    get("get-64-files-deep", 64, MANY).deep(),
    get("get-64-files-unsandboxed", 64, MANY).unsandboxed(),
    get("get-1000-files", 1_000, MANY),
    get("get-1000-files-8", 1_000, LONG).on(8),
    get("get-1000-files-zipf", 1_000, MANY).zipf(),
    get("get-1000-files-tls", 1_000, LONG).tls(),
    get("get-1000-files-zipf-tls", 1_000, LONG).zipf().tls(),
    get("get-100000-files", 100_000, LONG),
    get("get-100000-files-8", 100_000, LONG).on(8),
    get("get-100000-files-zipf", 100_000, LONG).zipf(),
    get("get-100000-files-tls", 100_000, LONG).tls(),
    get("get-100000-files-zipf-tls", 100_000, LONG).zipf().tls(),
    get("get-range", 64, MANY).kind(Range),
    get("head", 64, MANY).kind(Head),
    get("get-not-modified", 64, MANY).kind(NotModified),
    get("get-new", 64, (12_000, 600)).connections(New).on(8),
    get("get-new-tls", 64, (2_000, 200)).connections(New).on(8).tls(),
    get("get-room", 1, (4 * CLIENTS, CLIENTS)).size(Picture).connections(Room).on(CLIENTS),
    get("get-room-tls", 1, (4 * CLIENTS, CLIENTS)).size(Picture).connections(Room).on(CLIENTS).tls(),
    get("get-large", 1, (8, 6)).size(Large).on(1),
    get("get-large-tls", 1, (4, 3)).size(Large).on(1).tls(),
    row("put-10k", PUT_SMALL, 8, (4_000, 500), PUTS),
    row("put-10k-tls", PUT_SMALL, 8, (4_000, 500), TLS_PUTS).tls(),
    row("put-10k-unsandboxed", PUT_SMALL, 8, (4_000, 500), PUTS).unsandboxed(),
    row("put-large", PUT_LARGE, 1, (4, 3), PUTS),
    row("put-large-tls", PUT_LARGE, 1, (4, 2), TLS_PUTS).tls(),
    row("put-durable", PUT_DURABLE, 1, (300, 50), PUTS),
    row("put-durable-32", PUT_DURABLE, 32, (1_600, 160), PUTS),
    row("slots", Operation::Slots, 1, (20_000, 4_000), UPSLOT_ONLY),
];

impl Case {
    pub fn is_durable(&self) -> bool {
        matches!(self.operation, Operation::Put { durable: true, .. })
    }

    pub fn is_put(&self) -> bool {
        matches!(self.operation, Operation::Put { .. })
    }

    /// Size of the files in bytes.
    pub fn file_size(&self, options: &Options) -> u64 {
        match self.operation {
            Operation::Get(Gets { size, .. }) | Operation::Put { size, .. } => size.bytes(options),
            Operation::Slots => SMALL,
        }
    }

    /// Bytes of body per request.
    pub fn body_size(&self, options: &Options) -> u64 {
        match self.operation {
            Operation::Slots => 0,
            Operation::Get(gets) => match gets.kind {
                GetKind::Whole => self.file_size(options),
                GetKind::Range => RANGE.1 - RANGE.0 + 1,
                GetKind::Head | GetKind::NotModified => 0,
            },
            Operation::Put { .. } => self.file_size(options),
        }
    }
}
