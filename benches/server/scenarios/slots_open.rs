//! Whether a slot costs more the more slots are open: handed out, not yet used, not yet lapsed.

use std::time::Duration;

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::servers::Server;
use crate::stats::median;

/// Slots that are open at the end.
const OPEN: ByMode<usize> = ByMode {
    normal: 32_000,
    quick: 4_000,
};
/// The first and the last so many are compare.
const PART: ByMode<usize> = ByMode {
    normal: 2_000,
    quick: 500,
};
/// Before the first: they fault in the server's pages.
const WARM_UP: usize = 200;
/// For all slots of a part.
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
        let (a, b, memory) =
            compare(bench, &mut server).map_err(|why| bench.explain_failure(&mut server, why))?;
        first.push(a);
        last.push(b);
        ratio.push(b / a);
        grown.push(memory);
    }
    let name = |figure: &str| format!("{case}.upslot.{figure}");
    report.number(name("cpu-per-slot-first"), median(&first), "us")?;
    report.number(name("cpu-per-slot-last"), median(&last), "us")?;
    report.headline(name("last-to-first"), median(&ratio), "times")?;
    report.number(name("memory-grown"), median(&grown), "bytes")
}

/// CPU time of one of the first slots and one of the last, in microseconds, and by how many bytes memory grew in
/// between.
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

/// Gets slots; CPU time of each, in microseconds.
fn slots(bench: &Bench<'_>, server: &mut Server, count: usize) -> Outcome<f64> {
    let before = server.process.cpu()?;
    let (slots, _) = server
        .link()?
        .request_slots(count, SMALL, TIMEOUT, bench.stop)?;
    if slots.len() < count {
        return Err(format!(
            "Only {} of {count} slots came in time.",
            slots.len()
        ));
    }
    let cpu = server.process.cpu()?.since(before);
    Ok(cpu.microseconds() / count as f64)
}
