//! The whole-server bench: `cargo bench`, or `cargo bench -- --quick`.
//!
//! It starts the real `upslot` with a temporary store and a scripted XMPP server, drives it over loopback from this
//! process, and prints one line per number. Where nginx and lighttpd are installed, the same files are fetched from
//! and stored on them by the same client code, in the same rounds: the ratio to nginx is the figure that says
//! something on a machine that nobody else has. It knows nothing of upslot's insides: only the program, its configuration,
//! XEP-0114, XEP-0363 and HTTP.
//!
//! In import order, which is also a reading order; a file imports only from those before it:
//!
//! - [`common`] what both benches share;
//! - [`stop`] the signals that end the bench early;
//! - [`scratch`] the temporary folder;
//! - [`placement`] which cores it ran on;
//! - [`process`] a server process: its CPU time, its memory, its end;
//! - [`certificate`] the one that every server shows;
//! - [`stream`] the client's end of a connection, plain or TLS;
//! - [`pattern`] what bodies consist of;
//! - [`response`] one HTTP answer, judged as it comes in;
//! - [`load`] the client: a closed loop over a few connections;
//! - [`link`] the XMPP server's side of the component's link (XEP-0114), and slots (XEP-0363);
//! - [`limit`] what this program is when it stands in for a server that does nothing but move bytes;
//! - [`cases`] what is measured in rounds: a table;
//! - [`servers`] upslot and its peers, each started with a configuration of its own;
//! - [`machine`] what it ran on;
//! - [`bench`] what all cases and scenarios share;
//! - [`stats`] from samples to figures;
//! - [`rounds`] how a case is measured;
//! - [`scenarios`] what does not go in rounds, each in a file of its own.
//!
//! A wrong answer, whether a status, a length or a byte, ends the bench with exit code 1; wrong usage with 2.

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

mod limit;

mod cases;
mod servers;

mod machine;

mod bench;
mod stats;

mod rounds;
mod scenarios;

use std::env;
use std::process::ExitCode;

use crate::bench::Bench;
use crate::cases::CASES;
use crate::certificate::Certificate;
use crate::common::catalogue;
use crate::common::options::Options;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::start::Program;
use crate::machine::Machine;
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
  --json FILE     also writes the numbers to FILE

The store is created in TMPDIR (/tmp); TMPDIR=/dev/shm leaves the disk out of the numbers.

Cases:
",
    cases: catalogue::SERVER,
    other_cases: catalogue::MICRO,
};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == limit::ARGUMENT)
    {
        return PROGRAM.exit(limit::run(arguments));
    }
    PROGRAM.start(run)
}

fn run(options: &Options) -> Outcome<()> {
    let cases = CASES.iter().map(|case| case.name);
    let scenarios = SCENARIOS.iter().map(|scenario| scenario.name);
    catalogue::check(PROGRAM.cases, cases.chain(scenarios))?;
    let stop = StopSignal::new()?;
    let scratch = Scratch::new(&env::temp_dir())?;
    let placement = Placement::new();
    let open_file_limit = machine::raise_open_file_limit();
    let installed = InstalledServers::detect(&options.program);
    let mut report = Report::new(rounds::COLUMNS, rounds::NOTE);
    Machine::inspect(options, &installed, scratch.path(), &placement).print(&mut report)?;
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
    measure(&bench, &mut report)?;
    report.summary()?;
    match &options.json {
        Some(file) => report.save(file),
        None => Ok(()),
    }
}

/// Measures all that is wanted.
fn measure(bench: &Bench<'_>, report: &mut Report) -> Outcome<()> {
    for case in CASES
        .iter()
        .filter(|case| bench.options.filter.selects(case.name))
    {
        bench
            .run_case(case, report)
            .map_err(|why| format!("{}: {why}", case.name))?;
    }
    let rate = |case| report.value(&format!("{case}.upslot.requests-per-second"));
    if let (Some(many), Some(alone)) = (rate("put-durable-32"), rate("put-durable")) {
        let name = "put-durable-32.upslot.times-alone".to_owned();
        report.number(name, many / alone, "times put-durable")?;
    }
    for scenario in SCENARIOS {
        let asked = bench.options.full || !bench.options.filter.is_empty();
        if bench.options.filter.selects(scenario.name) && (asked || !scenario.long) {
            (scenario.run)(bench, scenario.name, report)
                .map_err(|why| format!("{}: {why}", scenario.name))?;
        }
    }
    Ok(())
}
