//! Measurements that do not consist of rounds of equal requests:
//!
//! - [`paced_clients`] clients that send at given times, for some of the scenarios;
//! - [`background`] large transfers, for [`beside_transfers`];
//! - [`expiry`] a sweep over many files, and the GETs beside it;
//! - [`first_slot`] the first slot of owners with many files;
//! - [`beside_transfers`] latency of small GETs and slots beside large GETs and PUTs;
//! - [`idle`] memory and CPU time of idle connections;
//! - [`object_store`] uploads, downloads, slots and sweeps before an object store;
//! - [`slots_api`] slots through the local API;
//! - [`slots_open`] slots while many are open;
//! - [`store_size`] the influence of the number of stored files;
//! - [`trickle`] clients that send one byte at a time.

mod paced_clients;

mod background;

mod beside_transfers;
mod expiry;
mod first_slot;
mod idle;
mod object_store;
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
    /// Whether it takes minutes, and so runs only with `--full` or if selected.
    pub long: bool,
    /// Measures it; the name is the prefix of all its numbers.
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
        name: "first-slot",
        long: false,
        run: first_slot::run,
    },
    Scenario {
        name: "expiry",
        long: true,
        run: expiry::run,
    },
    Scenario {
        name: "idle",
        long: false,
        run: idle::run,
    },
    Scenario {
        name: "get-beside-put",
        long: false,
        run: beside_transfers::run_puts,
    },
    Scenario {
        name: "get-beside-get",
        long: false,
        run: beside_transfers::run_gets,
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
    Scenario {
        name: "s3-slots",
        long: false,
        run: object_store::run_slots,
    },
    Scenario {
        name: "s3-put-10k",
        long: false,
        run: object_store::run_put_small,
    },
    Scenario {
        name: "s3-put-large",
        long: false,
        run: object_store::run_put_large,
    },
    Scenario {
        name: "s3-get-10k",
        long: false,
        run: object_store::run_get_small,
    },
    Scenario {
        name: "s3-get-large",
        long: false,
        run: object_store::run_get_large,
    },
    Scenario {
        name: "s3-memory",
        long: false,
        run: object_store::run_memory,
    },
    Scenario {
        name: "s3-sweep",
        long: false,
        run: object_store::run_sweep,
    },
];
