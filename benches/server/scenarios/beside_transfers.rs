//! The latency of small requests beside large transfers: of GETs and PUTs on a persistent connection, and for upslot of
//! slot requests. One client sends them at a fixed interval; others upload or download, at full speed or at a given rate.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::file_tree::{create_files, target};
use crate::link::{OWNERS, Target};
use crate::load::Request;
use crate::scenarios::background::{BackgroundGets, BackgroundPuts, Progress};
use crate::scenarios::paced_clients::{BlockingClient, keep_core_awake, paced, paced_gets};
use crate::servers::{Server, ServerSetup};
use crate::stats::{median, median_ratio, percentile};

const PUT_SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx];
const GET_SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx, ServerKind::Lighttpd];
/// Different small files, requested in turn.
const FILES: usize = 64;
/// Size of each large file in bytes.
const LARGE: ByMode<u64> = ByMode {
    normal: 64 * MIB,
    quick: 16 * MIB,
};
const MIB: u64 = 1024 * 1024;
/// Bytes per second; faster than any server and disk, so that there are enough files to upload.
const FASTEST: u64 = 6 * 1024 * MIB;
/// Bytes per second and PUT.
const RATE: u64 = 50 * MIB;
/// The interval of small requests. Long enough that even beside transfers at full speed the previous one is answered;
/// otherwise the length of a queue would be measured.
const INTERVAL: Duration = Duration::from_millis(10);
/// From the head of a small PUT to its body. Part of its latency, so that a body arrives after its head was handled, as
/// over a network.
const BODY_DELAY: Duration = Duration::from_millis(1);
/// How long small requests of each kind are sent, in each round and with each background.
const DURATION: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(2_000),
    quick: Duration::from_millis(200),
};
/// Between two backgrounds.
const SETTLE: Duration = Duration::from_millis(200);
const ROUNDS: u32 = 3;

/// Numbers of PUTs at the same time. Beside many, nginx takes seconds for each small request, too long for a quick run.
const FEW: ByMode<usize> = ByMode {
    normal: 4,
    quick: 4,
};
const MANY: ByMode<usize> = ByMode {
    normal: 100,
    quick: 4,
};

/// The load during the small requests, and its name.
type Backgrounds = &'static [(&'static str, Background)];

const PUT_BACKGROUNDS: Backgrounds = &[
    ("quiet", Background::None),
    ("put-full-speed", Background::Puts(FEW, None)),
    ("put-50m", Background::Puts(FEW, Some(RATE))),
    ("put-100-full-speed", Background::Puts(MANY, None)),
];

const GET_BACKGROUNDS: Backgrounds = &[
    ("quiet", Background::None),
    ("get-8", Background::Gets(8)),
    ("get-200", Background::Gets(200)),
];

#[derive(Clone, Copy, Debug)]
enum Background {
    None,
    /// This many PUTs, at a rate in bytes per second, or at full speed.
    Puts(ByMode<usize>, Option<u64>),
    /// This many GETs at full speed.
    Gets(usize),
}

/// One server with one background: a value per round.
#[derive(Debug, Default)]
struct Figures {
    get: Latencies,
    put: Latencies,
    slot: Latencies,
    /// MiB per second of all transfers together.
    rate: Vec<f64>,
}

/// In microseconds.
#[derive(Debug, Default)]
struct Latencies {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Latencies {
    fn add(&mut self, mut latencies: Vec<u64>) {
        self.p50.push(percentile(&mut latencies, 0.50));
        self.p99.push(percentile(&mut latencies, 0.99));
    }
}

/// The requests of all rounds.
#[derive(Debug)]
struct Requests {
    small: Vec<Request>,
    large: Request,
}

/// Small GETs beside large GETs.
pub fn run_gets(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    run(bench, case, GET_SERVERS, GET_BACKGROUNDS, report)
}

/// Small GETs beside large PUTs.
pub fn run_puts(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    run(bench, case, PUT_SERVERS, PUT_BACKGROUNDS, report)
}

fn run(
    bench: &Bench<'_>,
    case: &'static str,
    kinds: &[ServerKind],
    backgrounds: Backgrounds,
    report: &mut Report,
) -> Outcome<()> {
    let store = bench.scratch.folder(&format!("{case}/files"))?;
    let get = |size, count| -> Outcome<Vec<Request>> {
        let paths = create_files(bench, &store, size, OWNERS, 0..count)?;
        let get = |path| Request::get(&target(&store, path), size);
        Ok(paths.iter().map(get).collect())
    };
    let requests = Requests {
        small: get(SMALL, FILES)?,
        large: get(LARGE.get(bench.options), 1)?.remove(0),
    };
    let mut servers = Vec::new();
    for kind in bench.available(case, kinds, true, false, report)? {
        let setup = ServerSetup {
            shared_files: Some(&store),
            ..bench.setup(kind, case, false, SMALL)?
        };
        let figures: Vec<Figures> = backgrounds.iter().map(|_| Figures::default()).collect();
        servers.push((bench.start_with(kind, setup)?, figures));
    }
    for _ in 0..bench.options.rounds.min(ROUNDS) {
        for ((_, background), index) in backgrounds.iter().zip(0..) {
            for (server, figures) in &mut servers {
                thread::sleep(SETTLE);
                let round = round(bench, server, &requests, *background, &mut figures[index]);
                round.map_err(|why| bench.explain_failure(server, why))?;
            }
        }
    }
    for (server, figures) in &servers {
        report_server(case, server, backgrounds, figures, report)?;
    }
    Ok(())
}

fn report_server(
    case: &str,
    server: &Server,
    backgrounds: Backgrounds,
    figures: &[Figures],
    report: &mut Report,
) -> Outcome<()> {
    let quiet = &figures[0].get.p99;
    for ((background, _), figures) in backgrounds.iter().zip(figures) {
        let name = |figure: &str| format!("{case}.{}.{background}.{figure}", server.name());
        let Figures { get, put, slot, .. } = figures;
        for (kind, latencies) in [("get", get), ("put", put), ("slot", slot)] {
            if !latencies.p50.is_empty() {
                let (p50, p99) = (median(&latencies.p50), median(&latencies.p99));
                report.number(name(&format!("{kind}-p50")), p50, "us")?;
                report.headline(name(&format!("{kind}-p99")), p99, "us")?;
            }
        }
        if !figures.rate.is_empty() {
            report.number(name("rate"), median(&figures.rate), "MiB/s")?;
            let ratio = median_ratio(&get.p99, quiet);
            report.headline(name("get-p99-to-quiet"), ratio, "times")?;
        }
    }
    Ok(())
}

fn round(
    bench: &Bench<'_>,
    server: &mut Server,
    requests: &Requests,
    background: Background,
    figures: &mut Figures,
) -> Outcome<()> {
    let address = server.endpoint.address;
    let progress = Progress::default();
    match background {
        Background::None => small_requests(bench, server, requests, figures),
        Background::Puts(clients, rate) => {
            let clients = clients.get(bench.options);
            let puts = BackgroundPuts {
                pattern: &bench.pattern,
                address,
                files: Mutex::new(new_files(bench, server, clients, rate)?),
                rate,
                progress: &progress,
            };
            let work = || small_requests(bench, server, requests, figures);
            let rate = progress.during(clients, || puts.run(), work)?;
            figures.rate.push(rate);
            Ok(())
        }
        Background::Gets(connections) => {
            let gets = BackgroundGets {
                address,
                request: &requests.large,
                connections,
                progress: &progress,
            };
            let work = || small_requests(bench, server, requests, figures);
            let rate = progress.during(1, || gets.run(), work)?;
            figures.rate.push(rate);
            Ok(())
        }
    }
}

/// Measures the latencies of small GETs, then of small PUTs, then of slot requests.
fn small_requests(
    bench: &Bench<'_>,
    server: &mut Server,
    requests: &Requests,
    figures: &mut Figures,
) -> Outcome<()> {
    let duration = DURATION.get(bench.options);
    let address = server.endpoint.address;
    if server.kind == ServerKind::Lighttpd {
        return keep_core_awake(bench.placement, || {
            let gets = paced_gets(address, &requests.small, INTERVAL, duration, bench.stop)?;
            figures.get.add(gets);
            Ok(())
        });
    }
    let count = duration.as_micros() / INTERVAL.as_micros();
    let targets = server.new_targets(count as usize, SMALL, bench.stop)?;
    let puts: Vec<Request> = targets
        .iter()
        .map(|target| Request::put(&target.put, SMALL))
        .collect();
    let body = bench.pattern.bytes_at(0, SMALL);
    keep_core_awake(bench.placement, || {
        let gets = paced_gets(address, &requests.small, INTERVAL, duration, bench.stop)?;
        figures.get.add(gets);
        let mut client = BlockingClient::connect(address)?;
        let mut puts = puts.iter();
        let puts = paced(INTERVAL, duration, bench.stop, || {
            let put = puts.next().ok_or("too few files to store")?;
            client.write(&put.head)?;
            thread::sleep(BODY_DELAY);
            client.write(body)?;
            client.receive(put)
        })?;
        figures.put.add(puts);
        if server.kind != ServerKind::Upslot {
            return Ok(());
        }
        let link = server.link()?;
        let slots = paced(INTERVAL, duration, bench.stop, || {
            link.request_slots(1, SMALL, duration, bench.stop)?;
            Ok(())
        })?;
        figures.slot.add(slots);
        Ok(())
    })
}

/// Requests for new files that are enough for as many clients, and the paths of these.
fn new_files(
    bench: &Bench<'_>,
    server: &mut Server,
    clients: usize,
    rate: Option<u64>,
) -> Outcome<Vec<(Request, PathBuf)>> {
    let size = LARGE.get(bench.options);
    let per_second = rate.map_or(FASTEST, |rate| rate * clients as u64);
    // For GETs, PUTs and slot requests.
    let seconds = 3.0 * DURATION.get(bench.options).as_secs_f64() + 2.0;
    let count = (per_second as f64 * seconds / size as f64) as usize + 2 * clients;
    let targets = server.new_targets(count, size, bench.stop)?;
    let file = |target: &Target| Ok((Request::put(&target.put, size), server.file_path(target)?));
    targets.iter().map(file).collect()
}
