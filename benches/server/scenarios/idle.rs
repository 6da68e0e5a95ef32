//! Memory and CPU time of idle connections.

use std::thread;
use std::time::Duration;

use crate::bench::{Bench, single};
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::load::{Plan, Request};
use crate::servers::{Server, ServerSetup};

const SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx, ServerKind::Lighttpd];
/// The numbers of connections to measure at.
const CONNECTIONS: ByMode<&[usize]> = ByMode {
    normal: &[1_000, 10_000],
    quick: &[1_000],
};
/// How long CPU time is measured.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Open files per connection: one in the bench, and up to two in a server.
const FILES_PER_CONNECTION: usize = 2;
/// Room for other open files and connections.
const OTHER_FILES: usize = 100;
/// The configured limit of connections, relative to their number: nginx closes idle connections when few are left.
const CONNECTION_MARGIN: f64 = 1.2;

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    let counts = CONNECTIONS.get(bench.options);
    let limit = (bench.open_file_limit as usize).saturating_sub(OTHER_FILES) / FILES_PER_CONNECTION
        - OTHER_FILES;
    for tls in [false, true] {
        let case = if tls {
            format!("{case}-tls")
        } else {
            case.to_owned()
        };
        for kind in bench.available(&case, SERVERS, true, tls, report)? {
            let setup = ServerSetup {
                connections: (limit as f64 * CONNECTION_MARGIN) as usize + OTHER_FILES,
                ..bench.setup(kind, &case, tls, SMALL)?
            };
            let mut server = bench.start_with(kind, setup)?;
            let counts = counts.iter().map(|count| limit.min(*count));
            let result = measure(bench, &case, &mut server, counts, report);
            result.map_err(|why| bench.explain_failure(&mut server, why))?;
        }
    }
    Ok(())
}

/// Opens connections one after the other: a burst would leave free memory behind, which would be counted.
fn measure(
    bench: &Bench<'_>,
    case: &str,
    server: &mut Server,
    counts: impl Iterator<Item = usize>,
    report: &mut Report,
) -> Outcome<()> {
    let seed = bench.seed(server, SMALL)?;
    let request = Request::get(&seed.get, SMALL);
    let mut load = bench.connect(server, 0)?;
    let before = server.process.anonymous_memory()?;
    let mut open = 0;
    for count in counts {
        while open < count {
            load.open_connection()?;
            load.run(Plan {
                first_connection: open,
                ..single(&request)
            })?;
            open += 1;
        }
        let cpu_before = server.process.cpu()?;
        thread::sleep(IDLE_TIME);
        let cpu = server.process.cpu()?.since(cpu_before);
        let grown = server.process.anonymous_memory()?.saturating_sub(before) as f64;
        let name = |figure: &str| format!("{case}.{}.{open}.{figure}", server.name());
        report.headline(name("memory-per-connection"), grown / open as f64, "bytes")?;
        let cpu = cpu.microseconds() / IDLE_TIME.as_secs_f64();
        report.number(name("cpu-while-idle"), cpu, "us/s")?;
    }
    let peak = server.process.peak_memory()? as f64;
    report.number(
        format!("{case}.{}.memory-peak", server.name()),
        peak,
        "bytes",
    )?;
    // All connections still work.
    load.run(Plan {
        count: open,
        ..single(&request)
    })?;
    Ok(())
}
