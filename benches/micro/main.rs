//! The micro bench: `cargo bench --bench micro`, or `cargo bench --bench micro -- --quick`.
//!
//! It times what upslot parses and decides for one request, in this process and without a socket, and counts the
//! allocations. It does not include the work of the kernel, which is most of the cost of a request; for that there is
//! the whole-server bench.
//!
//! The modules in import order, which is also a reading order; a file imports only from those before it:
//!
//! - [`common`] the code that both benches share;
//! - [`measure`] times an operation and counts its allocations;
//! - [`bench`] measures and reports the selected operations;
//! - [`fixtures`] a configuration, slots, signatures, and requests as real clients send them;
//! - [`http`], [`puts`], [`slots`], [`bytes`] the operations.
//!
//! An operation with a wrong result ends the bench with exit code 1; wrong usage with 2.

#[allow(dead_code)] // Some of it is used only by the whole-server bench.
#[path = "../common/mod.rs"]
mod common;

mod measure;

mod bench;

mod fixtures;

mod http;
mod puts;
mod slots;

mod bytes;

use std::process::ExitCode;

use crate::bench::Bench;
use crate::common::catalogue;
use crate::common::options::Options;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::start::Program;
use crate::measure::Sampling;

const PROGRAM: Program = Program {
    name: "micro bench",
    help: "\
Times what upslot does for one request without a socket, and counts its allocations.

cargo bench --bench micro [-- OPTIONS] [WORDS]

  --quick         a smoke run of a second
  --filter WORDS  only these operations (a,b), or those whose names contain these words
  --json FILE     also writes the numbers to FILE.micro

Operations:
",
    cases: catalogue::MICRO,
    other_cases: catalogue::SERVER,
};

fn main() -> ExitCode {
    PROGRAM.start(run)
}

fn run(options: &Options) -> Outcome<()> {
    let sampling = if options.quick {
        Sampling::quick()
    } else {
        Sampling::full()
    };
    let mut report = Report::new(bench::COLUMNS, bench::NOTE);
    let profile = if cfg!(debug_assertions) {
        "unoptimised: the times mean nothing"
    } else {
        "optimised"
    };
    report.fact(
        "upslot",
        &format!("{}, {profile}", env!("CARGO_PKG_VERSION")),
    )?;
    report.fact("samples", &sampling.description())?;
    report.fact(
        "counting",
        &format!(
            "adds about {:.0} ns per allocation to the times",
            measure::counting_time()
        ),
    )?;
    let mut bench = Bench::new(&options.filter, sampling, report);
    http::run(&mut bench)?;
    puts::run(&mut bench)?;
    slots::run(&mut bench)?;
    bytes::run(&mut bench)?;
    let report = bench.finish(PROGRAM.cases)?;
    report.summary()?;
    match &options.json {
        // The whole-server bench writes to the file itself.
        Some(file) => {
            let mut file = file.clone().into_os_string();
            file.push(".micro");
            report.save(file.as_ref())
        }
        None => Ok(()),
    }
}
