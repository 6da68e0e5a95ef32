//! The whole-server bench: `cargo bench`, or `cargo bench -- --quick`.
//!
//! It starts the `upslot` program with a temporary store and a scripted XMPP server, drives it over loopback from this
//! process, and prints one line per number. If nginx and lighttpd are installed, the same code downloads from them and
//! uploads to them in the same rounds: the ratio to nginx is the number that can be compared between machines. The
//! bench depends on the program, its configuration, XEP-0114, XEP-0363 and HTTP, and on nothing inside upslot except the
//! paths of stored files.
//!
//! The modules in import order, which is also a reading order; a file imports only from those before it:
//!
//! - [`common`] the code that both benches share;
//! - [`stop`] the signals that stop the bench early;
//! - [`scratch`] the temporary folder;
//! - [`placement`] which cores client and servers run on;
//! - [`process`] a server process: its CPU time, its memory, its end;
//! - [`certificate`] the certificate of all servers;
//! - [`stream`] the client's end of a connection, plain or TLS;
//! - [`pattern`] the content of all stored files;
//! - [`response`] an HTTP response, checked as it is received;
//! - [`load`] the load generator: a closed loop over a few connections;
//! - [`link`] the scripted XMPP server (XEP-0114), which requests slots (XEP-0363);
//! - [`order`] the order in which files are requested;
//! - [`cases`] the operations that are measured in rounds;
//! - [`limit`] this program as a server that does nothing but move bytes;
//! - [`object_store`] this program as an object store;
//! - [`servers`] upslot and the servers that it is compared with;
//! - [`machine`] the machine that the bench runs on;
//! - [`bench`] the context of all cases and scenarios;
//! - [`file_tree`] files that are created without a server;
//! - [`guard`] system calls and instructions of single requests, compared with earlier numbers;
//! - [`stats`] percentiles, medians and ratios;
//! - [`rounds`] measures a case;
//! - [`scenarios`] the other measurements.
//!
//! A wrong response, whether in its status, its length or a byte, ends the bench with exit code 1; wrong usage with 2.

#[path = "../common/mod.rs"]
mod common;

mod stop;

mod scratch;

mod placement;
mod process;

mod certificate;
mod stream;

mod pattern;
mod response;

mod load;

mod link;

mod order;

mod cases;

mod limit;

mod object_store;

mod servers;

mod machine;

mod bench;
mod file_tree;

#[cfg(target_arch = "x86_64")]
mod guard;

mod stats;

mod rounds;
mod scenarios;

use std::env;
use std::fs;
use std::process::ExitCode;

use crate::bench::Bench;
use crate::cases::{CASES, Case};
use crate::certificate::Certificate;
use crate::common::catalogue;
use crate::common::options::{Guard, Options};
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::start::Program;
use crate::file_tree::{FileTree, FileTrees};
use crate::pattern::Pattern;
use crate::placement::Placement;
use crate::scenarios::SCENARIOS;
use crate::scratch::Scratch;
use crate::servers::InstalledServers;
use crate::stop::StopSignal;

const PROGRAM: Program = Program {
    name: "bench",
    help: "\
Measures upslot over loopback, beside nginx and lighttpd if they are installed.

cargo bench [-- OPTIONS] [WORDS]

  --quick         a smoke run of less than a minute
  --full          includes the cases that take minutes
  --filter WORDS  only these cases (a,b), or those whose names contain these words
  --rounds N      rounds per case (5; 2 with --quick)
  --only SERVERS  only these servers (a,b): upslot, nginx, lighttpd, limit, limit-splice
  --spin          the client never sleeps, so that no server pays for waking it
  --program FILE  measures this upslot instead of the one just built
  --files FOLDER  keeps the files that GETs request in this folder, and uses those that an earlier run has left there:
                  on some disks, creating and deleting 100,000 of them takes minutes
  --json FILE     also writes the numbers to FILE
  --guard         instead of all this, counts system calls and instructions of single requests, and fails if there are
                  more of them than in benches/server/guard.txt; root and x86-64 only
  --guard-update  counts them, and writes them to that file

The store is created in TMPDIR (/tmp); TMPDIR=/dev/shm leaves the disk out of the numbers.

Cases:
",
    cases: catalogue::SERVER,
    other_cases: catalogue::MICRO,
};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == limit::ARGUMENT => PROGRAM.exit(limit::run(arguments)),
        Some(first) if first == object_store::ARGUMENT => {
            PROGRAM.exit(object_store::run(arguments))
        }
        _ => PROGRAM.start(run),
    }
}

fn run(options: &Options) -> Outcome<()> {
    let cases = CASES.iter().map(|case| case.name);
    let scenarios = SCENARIOS.iter().map(|scenario| scenario.name);
    catalogue::check(PROGRAM.cases, cases.chain(scenarios))?;
    let stop = StopSignal::new()?;
    let scratch = Scratch::new(&env::temp_dir(), "")?;
    let placement = Placement::new();
    let open_file_limit = machine::raise_open_file_limit();
    let installed = InstalledServers::detect(&options.program);
    let mut report = Report::new(rounds::COLUMNS, rounds::NOTE);
    machine::report(&mut report, options, &installed, scratch.path(), &placement)?;
    let bench = Bench {
        options,
        stop: &stop,
        scratch: &scratch,
        installed: &installed,
        certificate: Certificate::new(scratch.path())?,
        placement: &placement,
        pattern: Pattern::new(),
        open_file_limit,
    };
    if let Some(guard) = options.guard {
        return run_guard(&bench, guard);
    }
    let temporary;
    let shallow = match &options.files {
        Some(folder) => fs::create_dir_all(folder)
            .and_then(|()| folder.canonicalize())
            .map_err(|e| format!("{}: {e}", folder.display()))?,
        None => {
            temporary = Scratch::new(&env::temp_dir(), "-files")?;
            temporary.path().to_owned()
        }
    };
    let mut trees = FileTrees::new(shallow, scratch.path().to_owned());
    let depth = |tree: &FileTree| tree.depth().to_string();
    report.fact("depth", &depth(&trees.shallow))?;
    report.fact("depth-deep", &depth(&trees.deep))?;
    measure(&bench, &mut trees, &mut report)?;
    report.summary()?;
    match &options.json {
        Some(file) => report.save(file),
        None => Ok(()),
    }
}

#[cfg(target_arch = "x86_64")]
fn run_guard(bench: &Bench<'_>, guard: Guard) -> Outcome<()> {
    guard::run(bench, guard)
}

#[cfg(not(target_arch = "x86_64"))]
fn run_guard(_: &Bench<'_>, _: Guard) -> Outcome<()> {
    Err("--guard counts the instructions of x86-64 only".to_owned())
}

/// Measures the selected cases and scenarios.
fn measure(bench: &Bench<'_>, trees: &mut FileTrees, report: &mut Report) -> Outcome<()> {
    let selected = |case: &&Case| {
        bench.options.filter.selects(case.name) && case.requests.get(bench.options) > 0
    };
    for case in CASES.iter().filter(selected) {
        bench
            .run_case(case, trees, report)
            .map_err(|why| format!("{}: {why}", case.name))?;
    }
    let rate = |case| report.value(&format!("{case}.upslot.requests-per-second"));
    if let (Some(concurrent), Some(alone)) = (rate("put-durable-32"), rate("put-durable")) {
        let name = "put-durable-32.upslot.times-alone".to_owned();
        report.number(name, concurrent / alone, "times put-durable")?;
    }
    for scenario in SCENARIOS {
        let run_long = bench.options.full || !bench.options.filter.is_empty();
        if bench.options.filter.selects(scenario.name) && (run_long || !scenario.long) {
            (scenario.run)(bench, scenario.name, report)
                .map_err(|why| format!("{}: {why}", scenario.name))?;
        }
    }
    Ok(())
}
