//! Whether a slot costs more when many slots are open: issued, but neither used nor expired.

use std::time::Duration;

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::servers::Server;
use crate::stats::median;

/// How many slots are open at the end.
const OPEN: ByMode<usize> = ByMode {
    normal: 32_000,
    quick: 4_000,
};
/// How many of the first and of the last slots are compared.
const PART: ByMode<usize> = ByMode {
    normal: 2_000,
    quick: 500,
};
/// Slots before the measurement, in which the server faults in its pages.
const WARM_UP: usize = 200;
/// For one call of [`slots`].
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let (mut first, mut last, mut ratio, mut grown) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.options.rounds {
        // A new process has no open slots.
        let mut server =
            bench.start(ServerKind::Upslot, &format!("{case}/{round}"), false, false)?;
        let (cpu_first, cpu_last, memory) =
            compare(bench, &mut server).map_err(|why| bench.explain_failure(&mut server, why))?;
        first.push(cpu_first);
        last.push(cpu_last);
        ratio.push(cpu_last / cpu_first);
        grown.push(memory);
    }
    let name = |figure: &str| format!("{case}.upslot.{figure}");
    report.number(name("cpu-per-slot-first"), median(&first), "us")?;
    report.number(name("cpu-per-slot-last"), median(&last), "us")?;
    report.headline(name("last-to-first"), median(&ratio), "times")?;
    report.number(name("memory-grown"), median(&grown), "bytes")
}

/// CPU time per slot at the start and at the end in microseconds, and the growth of memory in bytes.
fn compare(bench: &Bench<'_>, server: &mut Server) -> Outcome<(f64, f64, f64)> {
    let (open, part) = (OPEN.get(bench.options), PART.get(bench.options));
    slots(bench, server, WARM_UP)?;
    let memory = server.process.anonymous_memory()?;
    let first = slots(bench, server, part)?;
    slots(bench, server, open - 2 * part)?;
    let last = slots(bench, server, part)?;
    let grown = server.process.anonymous_memory()?.saturating_sub(memory);
    Ok((first, last, grown as f64))
}

/// Requests slots; returns the CPU time per slot in microseconds.
fn slots(bench: &Bench<'_>, server: &mut Server, count: usize) -> Outcome<f64> {
    let before = server.process.cpu()?;
    let (slots, _) = server
        .link()?
        .request_slots(count, SMALL, TIMEOUT, bench.stop)?;
    if slots.len() < count {
        return Err(format!(
            "received only {} of {count} slots in time",
            slots.len()
        ));
    }
    let cpu = server.process.cpu()?.since(before);
    Ok(cpu.microseconds() / count as f64)
}
