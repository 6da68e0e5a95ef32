//! What is measured in rounds: a table. [`crate::rounds`] knows how.

use crate::common::kind::Kind;
use crate::common::options::{ByMode, Options};

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub work: Work,
    pub tls: bool,
    /// Connections at a time.
    pub connections: usize,
    /// Requests per round.
    pub counts: ByMode<usize>,
    /// Who takes part, where it is installed.
    pub servers: &'static [Kind],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// `fresh`: a new connection for each request.
    Get { size: Size, fresh: bool },
    /// `durable`: answered when the file is on the disk.
    Put { size: Size, durable: bool },
    /// Slot requests through the component.
    Slots,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A picture.
    Small,
    /// A film; in a quick run a short one.
    Large,
}

/// A picture.
pub const SMALL: u64 = 10 * 1024;
/// A film.
const LARGE: ByMode<u64> = ByMode {
    normal: 256 * 1024 * 1024,
    quick: 16 * 1024 * 1024,
};

impl Size {
    /// In bytes.
    pub fn bytes(self, options: &Options) -> u64 {
        match self {
            Size::Small => SMALL,
            Size::Large => LARGE.get(options),
        }
    }
}

const GET_SMALL: Work = Work::Get {
    size: Size::Small,
    fresh: false,
};
const GET_FRESH: Work = Work::Get {
    size: Size::Small,
    fresh: true,
};
const GET_LARGE: Work = Work::Get {
    size: Size::Large,
    fresh: false,
};
const PUT_SMALL: Work = Work::Put {
    size: Size::Small,
    durable: false,
};
const PUT_LARGE: Work = Work::Put {
    size: Size::Large,
    durable: false,
};
const PUT_DURABLE: Work = Work::Put {
    size: Size::Small,
    durable: true,
};

const GETS: &[Kind] = &[Kind::Upslot, Kind::Nginx, Kind::Lighttpd, Kind::Limit];
const PUTS: &[Kind] = Kind::ALL;
/// Nothing is spliced through TLS.
const TLS_PUTS: &[Kind] = GETS;
/// For what nothing else here can do.
const ALONE: &[Kind] = &[Kind::Upslot];

/// A row of the table, with a column each for its fields.
const fn row(
    name: &'static str,
    work: Work,
    tls: bool,
    connections: usize,
    (normal, quick): (usize, usize),
    servers: &'static [Kind],
) -> Case {
    Case {
        name,
        work,
        tls,
        connections,
        counts: ByMode { normal, quick },
        servers,
    }
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    row("get-10k", GET_SMALL, false, 8, (20_000, 2_000), GETS),
    row("get-10k-alone", GET_SMALL, false, 1, (10_000, 1_000), GETS),
    row("get-10k-tls", GET_SMALL, true, 8, (20_000, 1_500), GETS),
    row("get-10k-new", GET_FRESH, false, 8, (12_000, 600), GETS),
    row("get-10k-new-tls", GET_FRESH, true, 8, (2_000, 200), GETS),
    row("get-large", GET_LARGE, false, 1, (8, 6), GETS),
    row("get-large-tls", GET_LARGE, true, 1, (4, 3), GETS),
    row("put-10k", PUT_SMALL, false, 8, (4_000, 500), PUTS),
    row("put-10k-tls", PUT_SMALL, true, 8, (4_000, 500), TLS_PUTS),
    row("put-large", PUT_LARGE, false, 1, (4, 3), PUTS),
    row("put-large-tls", PUT_LARGE, true, 1, (4, 2), TLS_PUTS),
    row("put-durable", PUT_DURABLE, false, 1, (300, 50), ALONE),
    row("put-durable-32", PUT_DURABLE, false, 32, (1_600, 160), ALONE),
    row("slots", Work::Slots, false, 1, (20_000, 4_000), ALONE),
];

impl Case {
    pub fn durable(&self) -> bool {
        matches!(self.work, Work::Put { durable: true, .. })
    }

    pub fn puts(&self) -> bool {
        matches!(self.work, Work::Put { .. })
    }

    /// Bytes of a body.
    pub fn size(&self, options: &Options) -> u64 {
        match self.work {
            Work::Get { size, .. } | Work::Put { size, .. } => size.bytes(options),
            Work::Slots => Size::Small.bytes(options),
        }
    }
}
