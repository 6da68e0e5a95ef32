//! What is measured in rounds: a table. [`crate::rounds`] knows how.

use crate::common::kind::Kind;

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub work: Work,
    pub tls: bool,
    /// Connections at a time.
    pub connections: usize,
    /// Requests per round, in a full and in a quick run.
    pub counts: (usize, usize),
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
const LARGE: u64 = 256 * 1024 * 1024;
const QUICK_LARGE: u64 = 16 * 1024 * 1024;

impl Size {
    /// In bytes.
    pub fn bytes(self, quick: bool) -> u64 {
        match self {
            Size::Small => SMALL,
            Size::Large if quick => QUICK_LARGE,
            Size::Large => LARGE,
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
    about: &'static str,
    work: Work,
    tls: bool,
    connections: usize,
    counts: (usize, usize),
    servers: &'static [Kind],
) -> Case {
    Case {
        name,
        about,
        work,
        tls,
        connections,
        counts,
        servers,
    }
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    row("get-10k", "GET of 10 KiB on 8 kept connections", GET_SMALL, false, 8, (20_000, 2_000), GETS),
    row("get-10k-alone", "GET of 10 KiB on 1 kept connection", GET_SMALL, false, 1, (10_000, 1_000), GETS),
    row("get-10k-tls", "the same as get-10k through TLS", GET_SMALL, true, 8, (20_000, 1_500), GETS),
    row("get-10k-new", "GET of 10 KiB, a new connection for each, 8 at a time", GET_FRESH, false, 8, (12_000, 600), GETS),
    row("get-10k-new-tls", "the same through TLS, a full handshake for each", GET_FRESH, true, 8, (2_000, 200), GETS),
    row("get-large", "GET of 256 MiB (quick: 16 MiB) on 1 kept connection", GET_LARGE, false, 1, (8, 6), GETS),
    row("get-large-tls", "the same through TLS", GET_LARGE, true, 1, (4, 3), GETS),
    row("put-10k", "PUT of 10 KiB on 8 kept connections, fsync off", PUT_SMALL, false, 8, (4_000, 500), PUTS),
    row("put-10k-tls", "the same through TLS", PUT_SMALL, true, 8, (4_000, 500), TLS_PUTS),
    row("put-large", "PUT of 256 MiB (quick: 16 MiB) on 1 kept connection, fsync off", PUT_LARGE, false, 1, (4, 3), PUTS),
    row("put-large-tls", "the same through TLS", PUT_LARGE, true, 1, (4, 2), TLS_PUTS),
    row("put-durable", "PUT of 10 KiB on 1 kept connection, fsync on", PUT_DURABLE, false, 1, (300, 50), ALONE),
    row("put-durable-32", "the same on 32 kept connections", PUT_DURABLE, false, 32, (1_600, 160), ALONE),
    row("slots", "slot requests through the component, 64 at a time", Work::Slots, false, 1, (20_000, 4_000), ALONE),
];

impl Case {
    pub fn durable(&self) -> bool {
        matches!(self.work, Work::Put { durable: true, .. })
    }

    pub fn puts(&self) -> bool {
        matches!(self.work, Work::Put { .. })
    }

    /// Bytes of a body.
    pub fn size(&self, quick: bool) -> u64 {
        match self.work {
            Work::Get { size, .. } | Work::Put { size, .. } => size.bytes(quick),
            Work::Slots => Size::Small.bytes(quick),
        }
    }
}
