//! The first slot of an owner after a start, when upslot does not know yet how much the owner has stored, for owners
//! with more and more files.

use std::path::Path;
use std::time::Duration;

use crate::bench::Bench;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::file_tree::create_files;
use crate::servers::{Server, ServerSetup};
use crate::stats::median;

/// Files per owner, and how many owners have that many.
const STORES: ByMode<&[(usize, usize)]> = ByMode {
    normal: &[(0, 1_000), (10, 1_000), (100, 1_000), (1_000, 100)],
    quick: &[(0, 100), (10, 100)],
};
/// In bytes.
const SIZE: u64 = 100;
/// For all slots of a start.
const TIMEOUT: Duration = Duration::from_secs(600);
/// With a quota that no owner reaches, each slot asks for the owner's use.
const QUOTA: &str = "user_quota_hard: 1 GiB\n";

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    for (files, owners) in STORES.get(bench.options) {
        let store = bench.scratch.folder(&format!("{case}/{files}"))?;
        create_files(bench, &store, SIZE, *owners, 0..files * owners)?;
        let (mut cpu, mut longest) = (Vec::new(), Vec::new());
        for _ in 0..bench.options.rounds {
            let mut server = start(bench, case, &store, *owners)?;
            let before = server.process.cpu()?;
            let link = server.link()?;
            let (_, sample) = link.request_slots(*owners, SIZE, TIMEOUT, bench.stop)?;
            let used = server.process.cpu()?.since(before);
            cpu.push(used.microseconds() / *owners as f64);
            longest.push(
                sample
                    .latencies
                    .iter()
                    .max()
                    .map_or(0.0, |ns| *ns as f64 / 1e3),
            );
        }
        let name = |figure: &str| format!("{case}.upslot.{files}.{figure}");
        report.headline(name("cpu-per-slot"), median(&cpu), "us")?;
        report.number(name("latency-longest"), median(&longest), "us")?;
    }
    Ok(())
}

fn start(bench: &Bench<'_>, case: &str, store: &Path, owners: usize) -> Outcome<Server> {
    let setup = ServerSetup {
        shared_files: Some(store),
        extra_config: QUOTA.to_owned(),
        ..bench.setup(ServerKind::Upslot, case, false, SIZE)?
    };
    let mut server = bench.start_with(ServerKind::Upslot, setup)?;
    server.link()?.owners = owners;
    Ok(server)
}
