//! Whether anything grows with the number of stored files, which nothing should: CPU time of slots, small PUTs and
//! small GETs, time from the start to the first response, and memory after it.
//!
//! The files are empty. Some are in the folders of the owners that upload in the bench, the others in those of a thousand
//! other owners.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::cases::{Case, FileSize, Operation, SAME_FILE, SMALL};
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::file_tree::{create_file, sync};
use crate::link::{OWNERS, Target};
use crate::load::Request;
use crate::process::Process;
use crate::scenarios::paced_clients::BlockingClient;
use crate::servers::Server;
use crate::stats::{Tally, median};

const SIZES: ByMode<&[usize]> = ByMode {
    normal: &[0, 10_000, 100_000],
    quick: &[0, 1_000],
};
const MILLION: &[usize] = &[0, 1_000_000];
/// Owners that do not upload in the bench.
const OTHER_OWNERS: usize = 1_000;
/// How often the server is started per size of the store.
const STARTS: ByMode<u32> = ByMode {
    normal: 9,
    quick: 3,
};
/// For the server to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_micros(100);

/// The operations measured on each store, in turn.
const OPERATIONS: &[Case] = &[
    case("slot", Operation::Slots, (5_000, 1_000)),
    case(
        "put",
        Operation::Put {
            size: FileSize::Small,
            durable: false,
        },
        (1_500, 200),
    ),
    case("get", Operation::Get(SAME_FILE), (10_000, 1_000)),
];

const fn case(name: &'static str, operation: Operation, (normal, quick): (usize, usize)) -> Case {
    Case {
        name,
        operation,
        tls: false,
        connections: 8,
        requests: ByMode { normal, quick },
        servers: &[ServerKind::Upslot],
        sandbox: true,
    }
}

/// A store with files, and its server.
#[derive(Debug)]
struct FilledStore {
    files: usize,
    server: Server,
    seed: Target,
    /// Milliseconds from each start to the first response.
    ready: Vec<f64>,
    /// Resident bytes after each first response.
    resident: Vec<f64>,
    tallies: Vec<Tally>,
}

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, SIZES.get(bench.options), report)
}

pub fn run_million(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, MILLION, report)
}

fn compare(
    bench: &Bench<'_>,
    case: &'static str,
    sizes: &[usize],
    report: &mut Report,
) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let mut stores = Vec::new();
    for files in sizes {
        stores.push(prepare(bench, case, *files, report)?);
    }
    for _ in 0..bench.options.rounds {
        for store in &mut stores {
            for (case, tally) in OPERATIONS.iter().zip(&mut store.tallies) {
                let count = case.requests.get(bench.options);
                let gets = [Request::get(&store.seed.get, SMALL)];
                let turn = bench.run_turn(case, &mut store.server, &gets, count, 0);
                let (sample, cpu) =
                    turn.map_err(|why| bench.explain_failure(&mut store.server, why))?;
                tally.add_round(sample, cpu);
            }
        }
    }
    for index in 0..stores.len() {
        let (empty, store) = (&stores[0], &stores[index]);
        let name = |figure: &str| format!("{case}.upslot.{}.{figure}", store.files);
        for (index, case) in OPERATIONS.iter().enumerate() {
            let tally = &store.tallies[index];
            let figure = format!("cpu-per-{}", case.name);
            report.headline(name(&figure), tally.cpu_per_request(), "us")?;
            if let Some(share) = tally.kernel_percentage() {
                report.number(name(&format!("{figure}-in-kernel")), share, "%")?;
            }
            if store.files > 0 {
                let (ratio, _, _) = tally.ratio(&empty.tallies[index]);
                report.number(name(&format!("{figure}-to-empty")), ratio, "times")?;
            }
        }
        report.headline(name("ready"), median(&store.ready), "ms")?;
        let resident = median(&store.resident);
        report.headline(name("memory-after-start"), resident, "bytes")?;
    }
    Ok(())
}

/// Creates a store with `files` files, measures [`STARTS`] starts of upslot, and leaves it running.
fn prepare(
    bench: &Bench<'_>,
    case: &str,
    files: usize,
    report: &mut Report,
) -> Outcome<FilledStore> {
    let folder = format!("{case}/{files}");
    let (server, seed) = bench.start_seeded(ServerKind::Upslot, &folder)?;
    let address = server.endpoint.address;
    let storage = server.file_root.clone();
    drop(server);
    let start = Instant::now();
    for number in 0..files {
        create_file(bench, &storage, 0, OWNERS + OTHER_OWNERS, number)?;
    }
    sync(&storage)?;
    if files > 0 {
        let seconds = start.elapsed().as_secs_f64();
        report.number(format!("{case}.made.{files}"), seconds, "s")?;
    }
    let home = bench.scratch.folder(&format!("{folder}/upslot"))?;
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    let get = Request::get(&seed.get, SMALL);
    for _ in 0..STARTS.get(bench.options) {
        let mut command = Command::new(&bench.options.program);
        command.arg("-c").arg(home.join("config.yml"));
        let start = Instant::now();
        let mut process = Process::start("upslot", &mut command, &home)?;
        let mut client = loop {
            match BlockingClient::connect(address) {
                Ok(client) => break client,
                Err(why) if start.elapsed() > START_TIMEOUT => return Err(why),
                Err(_) => thread::sleep(RETRY_INTERVAL),
            }
            process.check_running()?;
        };
        client.write(&get.head)?;
        client.receive(&get)?;
        ready.push(start.elapsed().as_secs_f64() * 1e3);
        resident.push(process.resident_memory()? as f64);
        bench.stop.check()?;
    }
    let server = bench.start(ServerKind::Upslot, &folder, false, false)?;
    Ok(FilledStore {
        files,
        server,
        seed,
        ready,
        resident,
        tallies: OPERATIONS.iter().map(|_| Tally::new(0)).collect(),
    })
}
