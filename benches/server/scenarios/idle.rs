//! What a connection costs that does nothing: memory, and CPU time while nothing moves.

use std::thread;
use std::time::Duration;

use crate::bench::{Bench, once};
use crate::cases::SMALL;
use crate::common::kind::Kind;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::load::{Plan, Request};
use crate::servers::{Server, Setup};

const SERVERS: &[Kind] = &[Kind::Upslot, Kind::Nginx, Kind::Lighttpd];
/// Connections at which is looked.
const CONNECTIONS: ByMode<&[usize]> = ByMode {
    normal: &[1_000, 10_000],
    quick: &[1_000],
};
/// How long they are watched.
const IDLE: Duration = Duration::from_secs(1);
/// Open files per connection: of the bench one, and room for a server that counts two.
const FILES_PER_IDLE: usize = 2;
/// Open files and connections beside.
const REST: usize = 100;
/// So many times as many connections are allowed as there are: nginx gives up idle ones when few are left.
const SPARE: f64 = 1.2;

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    let counts = CONNECTIONS.get(bench.options);
    let most = (bench.open_files as usize).saturating_sub(REST) / FILES_PER_IDLE - REST;
    for tls in [false, true] {
        let case = if tls {
            format!("{case}-tls")
        } else {
            case.to_owned()
        };
        for kind in bench.those(&case, SERVERS, true, tls, report)? {
            let setup = Setup {
                connections: (most as f64 * SPARE) as usize + REST,
                ..bench.setup(kind, &case, tls, SMALL)?
            };
            let mut server = bench.begin(kind, setup)?;
            let counts = counts.iter().map(|count| most.min(*count));
            let result = watch(bench, &case, &mut server, counts, report);
            result.map_err(|why| bench.blame(&mut server, why))?;
        }
    }
    Ok(())
}

/// Opens connections one after the other, so that no burst leaves free memory behind that would count as theirs.
fn watch(
    bench: &Bench<'_>,
    case: &str,
    server: &mut Server,
    counts: impl Iterator<Item = usize>,
    report: &mut Report,
) -> Outcome<()> {
    let seed = bench.seed(server, SMALL)?;
    let request = Request::get(&seed.get, SMALL);
    let mut load = bench.load(server, 0)?;
    let before = server.process.own_memory()?;
    let mut open = 0;
    for count in counts {
        while open < count {
            load.add()?;
            load.run(Plan {
                first: open,
                ..once(&request)
            })?;
            open += 1;
        }
        let cpu_before = server.process.cpu()?;
        thread::sleep(IDLE);
        let cpu = server.process.cpu()?.since(cpu_before);
        let grown = server.process.own_memory()?.saturating_sub(before) as f64;
        let name = |figure: &str| format!("{case}.{}.{open}.{figure}", server.name());
        report.headline(name("memory-per-connection"), grown / open as f64, "bytes")?;
        let cpu = cpu.microseconds() / IDLE.as_secs_f64();
        report.number(name("cpu-while-idle"), cpu, "us/s")?;
    }
    let peak = server.process.peak()? as f64;
    report.number(
        format!("{case}.{}.memory-peak", server.name()),
        peak,
        "bytes",
    )?;
    // All of them are still served.
    load.run(Plan {
        count: open,
        ..once(&request)
    })?;
    Ok(())
}
