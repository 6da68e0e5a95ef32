//! What does not go in rounds of equal requests, each in a file of its own:
//!
//! - [`paced`] the clients that keep to a clock, for some of these;
//! - [`slots_api`] slots through the local API;
//! - [`slots_open`] slots while many are open;
//! - [`idle`] what a connection costs that does nothing;
//! - [`get_beside_put`] how long a small GET takes while large files come in;
//! - [`trickle`] what clients cost that send a byte at a time;
//! - [`store_size`] what grows with the number of stored files.

mod paced;

mod get_beside_put;
mod idle;
mod slots_api;
mod slots_open;
mod store_size;
mod trickle;

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::report::Report;

#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it takes minutes, so that it must be asked for.
    pub long: bool,
    /// Runs it; its name is what its figures begin with.
    pub run: fn(&Bench<'_>, &'static str, &mut Report) -> Outcome<()>,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slots-api",
        about: "slot requests through the local API on 8 kept connections; upslot alone",
        long: false,
        run: slots_api::run,
    },
    Scenario {
        name: "slots-open",
        about: "the cost of a slot while up to 32,000 are open (quick: 4,000); upslot alone",
        long: false,
        run: slots_open::run,
    },
    Scenario {
        name: "idle",
        about: "memory per idle connection of 1,000 and 10,000 (quick: 1,000), plain and TLS, each after one GET",
        long: false,
        run: idle::run,
    },
    Scenario {
        name: "get-beside-put",
        about: "small GETs alone, beside 4 large PUTs at full speed, and beside 4 of 50 MiB/s each; not lighttpd",
        long: false,
        run: get_beside_put::run,
    },
    Scenario {
        name: "trickle",
        about: "500 clients that send a byte at a time, alone and beside small GETs; not lighttpd",
        long: false,
        run: trickle::run,
    },
    Scenario {
        name: "store-size",
        about: "slots, small PUTs and GETs, start and memory with 0, 10,000 and 100,000 stored files (quick: 0 and \
                1,000); upslot alone",
        long: false,
        run: store_size::run,
    },
    Scenario {
        name: "store-million",
        about: "the same with 0 and 1,000,000; only with --full or when asked for, as the files alone take minutes",
        long: true,
        run: store_size::run_million,
    },
];
