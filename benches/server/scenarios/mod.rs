//! What does not go in rounds of equal requests, each in a file of its own:
//!
//! - [`paced_clients`] the clients that keep to a clock, for some of these;
//! - [`slots_api`] slots through the local API;
//! - [`slots_open`] slots while many are open;
//! - [`idle`] what a connection costs that does nothing;
//! - [`get_beside_put`] how long a small GET takes while large files come in;
//! - [`trickle`] what clients cost that send a byte at a time;
//! - [`store_size`] what grows with the number of stored files.

mod paced_clients;

mod get_beside_put;
mod idle;
mod slots_api;
mod slots_open;
mod store_size;
mod trickle;

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::common::report::Report;

#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Whether it takes minutes, so that it must be asked for.
    pub long: bool,
    /// Runs it; its name is what its figures begin with.
    pub run: fn(&Bench<'_>, &'static str, &mut Report) -> Outcome<()>,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slots-api",
        long: false,
        run: slots_api::run,
    },
    Scenario {
        name: "slots-open",
        long: false,
        run: slots_open::run,
    },
    Scenario {
        name: "idle",
        long: false,
        run: idle::run,
    },
    Scenario {
        name: "get-beside-put",
        long: false,
        run: get_beside_put::run,
    },
    Scenario {
        name: "trickle",
        long: false,
        run: trickle::run,
    },
    Scenario {
        name: "store-size",
        long: false,
        run: store_size::run,
    },
    Scenario {
        name: "store-million",
        long: true,
        run: store_size::run_million,
    },
];
