//! The micro bench: `cargo bench --bench micro`, or `cargo bench --bench micro -- --quick`.
//!
//! It times what upslot decides and parses for one request, in this process and without a socket: nanoseconds, and
//! how often and how much memory is asked for. What the kernel does is not in it: that is the whole-server bench's
//! matter, and most of what a request costs.
//!
//! In import order, which is also a reading order; a file imports only from those before it:
//!
//! - [`common`] what both benches share;
//! - [`options`] what the user asked for;
//! - [`measure`] how an operation is timed, and its allocations counted;
//! - [`report`] lines, table and JSON;
//! - [`bench`] what operations are measured with;
//! - [`site`] what operations work with: a configuration, slots, signatures, requests as clients send them;
//! - [`http`], [`puts`], [`slots`], [`bytes`] what is measured.
//!
//! An operation that does not come to what it must ends the bench with exit code 1; wrong usage with 2.

#[allow(dead_code)] // The whole-server bench uses more of it.
#[path = "../common/mod.rs"]
mod common;

mod options;

mod measure;
mod report;

mod bench;

mod site;

mod http;
mod puts;
mod slots;

mod bytes;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::measure::Effort;
use crate::options::{Options, Parsed};
use crate::report::Report;

fn main() -> ExitCode {
    let outcome = match options::parse(env::args_os().skip(1)) {
        Ok(Parsed::Run(options)) => run(&options),
        Ok(Parsed::Help) => help(),
        Err(why) => return complain(&why, 2),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why, 1),
    }
}

fn run(options: &Options) -> Outcome<()> {
    let mut bench = Bench {
        filter: options.filter.clone(),
        effort: if options.quick {
            Effort::quick()
        } else {
            Effort::full()
        },
        lists: false,
        report: Report::new(),
        names: Vec::new(),
    };
    bench.report.fact(
        "upslot",
        &format!("{}, {}", env!("CARGO_PKG_VERSION"), options.profile()),
    )?;
    bench.report.fact("samples", &bench.effort.shown())?;
    bench.report.fact(
        "counting",
        &format!(
            "adds about {:.0} ns to every allocation, which is in the times",
            measure::counting_time()
        ),
    )?;
    all(&mut bench)?;
    bench.report.table()?;
    match &options.json {
        Some(file) => bench.report.save(file),
        None => Ok(()),
    }
}

/// Every operation, in the order of the table.
fn all(bench: &mut Bench) -> Outcome<()> {
    http::run(bench)?;
    puts::run(bench)?;
    slots::run(bench)?;
    bytes::run(bench)
}

fn help() -> Outcome<()> {
    let mut bench = Bench {
        filter: Vec::new(),
        effort: Effort::quick(),
        lists: true,
        report: Report::new(),
        names: Vec::new(),
    };
    all(&mut bench)?;
    let mut text = options::HELP.to_owned();
    for (name, about) in &bench.names {
        text.push_str(&format!("  {name:<18}{about}\n"));
    }
    report::print(&text)
}

fn complain(why: &str, code: u8) -> ExitCode {
    // Nothing is left to do where even standard error is gone.
    let _ = writeln!(io::stderr(), "micro bench: {why}");
    ExitCode::from(code)
}
