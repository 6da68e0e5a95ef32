//! The CPU time of a sweep that visits many files of which one has expired, and the latency of GETs meanwhile and without
//! a sweep.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::slice;
use std::thread;
use std::time::{Duration, SystemTime};

use upslot::layout::StorePath;

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::file_tree::{create_files, target};
use crate::load::Request;
use crate::scenarios::paced_clients::{keep_core_awake, paced_gets};
use crate::servers::{Server, ServerSetup};
use crate::stats::{median, percentile};

const FILES: ByMode<usize> = ByMode {
    normal: 100_000,
    quick: 2_000,
};
/// Owners of these files.
const OWNERS: usize = 1_000;
/// In bytes.
const SIZE: u64 = 100;
/// From the start to the first sweep, and then from one to the next.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long after the start the measurement begins, and how long after a sweep's start it ends.
const MARGIN: Duration = Duration::from_secs(1);
/// A file of this age has expired; others are new.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The interval of GETs.
const GET_INTERVAL: Duration = Duration::from_millis(1);
const ROUNDS: u32 = 3;

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let store = bench.scratch.folder(&format!("{case}/files"))?;
    let count = FILES.get(bench.options);
    let mut files = create_files(bench, &store, SIZE, OWNERS, 0..count)?;
    let requested = create_files(bench, &store, SMALL, 1, 0..1)?;
    let get = Request::get(&target(&store, &requested[0]), SMALL);
    let (mut cpu, mut p99, mut longest) = (Vec::new(), Vec::new(), Vec::new());
    let (mut p99_alone, mut longest_alone) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds.min(ROUNDS) {
        cpu.push(sweep(bench, case, &store, &mut files, |server| {
            let before = server.process.cpu()?;
            thread::sleep(SWEEP_INTERVAL + MARGIN);
            Ok(server.process.cpu()?.since(before).microseconds() / 1e3)
        })?);
        let mut latencies = sweep(bench, case, &store, &mut files, |server| {
            gets(bench, server, &get)
        })?;
        p99.push(percentile(&mut latencies, 0.99));
        longest.push(percentile(&mut latencies, 1.0));
        let mut server = start(bench, case, &store, "")?;
        let latencies = gets(bench, &server, &get);
        let mut latencies = latencies.map_err(|why| bench.explain_failure(&mut server, why))?;
        p99_alone.push(percentile(&mut latencies, 0.99));
        longest_alone.push(percentile(&mut latencies, 1.0));
    }
    let name = |figure: &str| format!("{case}.upslot.{figure}");
    report.headline(name("cpu-per-sweep"), median(&cpu), "ms")?;
    report.number(name("get-latency-p99"), median(&p99), "us")?;
    report.number(name("get-latency-p99-alone"), median(&p99_alone), "us")?;
    report.headline(name("get-latency-longest"), median(&longest), "us")?;
    report.headline(
        name("get-latency-longest-alone"),
        median(&longest_alone),
        "us",
    )
}

/// The latencies of GETs for the time of a sweep.
fn gets(bench: &Bench<'_>, server: &Server, get: &Request) -> Outcome<Vec<u64>> {
    keep_core_awake(bench.placement, || {
        let duration = SWEEP_INTERVAL + MARGIN;
        let address = server.endpoint.address;
        paced_gets(
            address,
            slice::from_ref(get),
            GET_INTERVAL,
            duration,
            bench.stop,
        )
    })
}

fn start(bench: &Bench<'_>, case: &str, store: &Path, config: &str) -> Outcome<Server> {
    let setup = ServerSetup {
        shared_files: Some(store),
        extra_config: config.to_owned(),
        ..bench.setup(ServerKind::Upslot, case, false, SMALL)?
    };
    bench.start_with(ServerKind::Upslot, setup)
}

/// Does some work while a new server begins and ends its first sweep, which deletes one of the files.
fn sweep<T>(
    bench: &Bench<'_>,
    case: &str,
    store: &Path,
    files: &mut Vec<StorePath>,
    work: impl FnOnce(&Server) -> Outcome<T>,
) -> Outcome<T> {
    let config = format!(
        "expire_interval: {}\nexpire_maxage: {}\n",
        SWEEP_INTERVAL.as_secs(),
        MAX_AGE.as_secs()
    );
    let mut server = start(bench, case, store, &config)?;
    let expired = files.pop().ok_or("too few files")?;
    let path = store.join(OsStr::from_bytes(expired.as_bytes()));
    // The folder of a file is not younger than the file.
    for path in [&path, path.parent().unwrap_or(store)] {
        File::open(path)
            .and_then(|file| file.set_modified(SystemTime::now() - 2 * MAX_AGE))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    thread::sleep(MARGIN);
    let result = work(&server).map_err(|why| bench.explain_failure(&mut server, why))?;
    if path.exists() {
        return Err("the sweep did not end in time".to_owned());
    }
    Ok(result)
}
