//! The latency of small GETs during large PUTs. One client sends GETs at a fixed interval on a persistent connection;
//! four others upload, at full speed or at a given rate, with idle priority on the client's core, so that they do not
//! delay the one that measures. What the PUTs add to a latency is due to the server, or the same for all servers.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::link::Target;
use crate::load::Request;
use crate::scenarios::paced_clients::{BackgroundPuts, keep_core_awake, paced_gets};
use crate::servers::Server;
use crate::stats::{median, median_ratio, percentile};

const SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx];
const PUTS: usize = 4;
/// Size of each uploaded file in bytes.
const LARGE: ByMode<u64> = ByMode {
    normal: 64 * MIB,
    quick: 16 * MIB,
};
const MIB: u64 = 1024 * 1024;
/// Bytes per second; faster than any server and disk, so that there are enough files to upload.
const FASTEST: u64 = 6 * 1024 * MIB;
/// Bytes per second and PUT.
const RATE: u64 = 50 * MIB;
/// The interval of GETs. Long enough that even during PUTs at full speed the previous GET is answered; otherwise the
/// length of a queue would be measured.
const INTERVAL: Duration = Duration::from_millis(4);
/// How long GETs are sent, in each round and with each background.
const DURATION: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(2_500),
    quick: Duration::from_millis(400),
};
/// Between the start of the PUTs and the first GET, and between two backgrounds.
const SETTLE: Duration = Duration::from_millis(200);
/// For the first bytes of the PUTs.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 3;

/// The load during the GETs.
const BACKGROUNDS: &[(&str, Background)] = &[
    ("quiet", Background::None),
    ("put-full-speed", Background::Puts(None)),
    ("put-50m", Background::Puts(Some(RATE))),
];

#[derive(Clone, Copy, Debug)]
enum Background {
    None,
    /// PUTs at a rate in bytes per second, or at full speed.
    Puts(Option<u64>),
}

/// One server with one background: a value per round.
#[derive(Debug, Default)]
struct Latencies {
    /// Microseconds.
    p50: Vec<f64>,
    /// Microseconds.
    p99: Vec<f64>,
    /// MiB per second of all PUTs together.
    rate: Vec<f64>,
}

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    let mut servers = Vec::new();
    for kind in bench.available(case, SERVERS, true, false, report)? {
        let (server, seed) = bench.start_seeded(kind, case)?;
        let figures: Vec<Latencies> = BACKGROUNDS.iter().map(|_| Latencies::default()).collect();
        servers.push((server, seed, figures));
    }
    for _ in 0..bench.options.rounds.min(ROUNDS) {
        for (server, seed, figures) in &mut servers {
            for ((_, background), figures) in BACKGROUNDS.iter().zip(figures) {
                thread::sleep(SETTLE);
                let round = round(bench, server, seed, *background, figures);
                round.map_err(|why| bench.explain_failure(server, why))?;
            }
        }
    }
    for (server, _, figures) in &servers {
        let quiet = &figures[0].p99;
        for ((background, _), figures) in BACKGROUNDS.iter().zip(figures) {
            let name = |figure: &str| format!("{case}.{}.{background}.{figure}", server.name());
            report.number(name("latency-p50"), median(&figures.p50), "us")?;
            report.headline(name("latency-p99"), median(&figures.p99), "us")?;
            if figures.rate.is_empty() {
                continue;
            }
            report.number(name("put-rate"), median(&figures.rate), "MiB/s")?;
            let ratio = median_ratio(&figures.p99, quiet);
            report.headline(name("p99-to-quiet"), ratio, "times")?;
        }
    }
    Ok(())
}

fn round(
    bench: &Bench<'_>,
    server: &mut Server,
    seed: &Target,
    background: Background,
    figures: &mut Latencies,
) -> Outcome<()> {
    let duration = DURATION.get(bench.options);
    let address = server.endpoint.address;
    let get = Request::get(&seed.get, SMALL);
    let mut latencies = match background {
        Background::None => keep_core_awake(bench.placement, || {
            paced_gets(address, &get, INTERVAL, duration, bench.stop)
        })?,
        Background::Puts(rate) => {
            let size = LARGE.get(bench.options);
            let per_second = rate.map_or(FASTEST, |rate| rate * PUTS as u64);
            let seconds = duration.as_secs_f64() + 2.0;
            let count = (per_second as f64 * seconds / size as f64) as usize + 2 * PUTS;
            let puts = BackgroundPuts {
                pattern: &bench.pattern,
                address,
                files: Mutex::new(new_files(bench, server, count, size)?),
                rate,
                sent: AtomicU64::new(0),
                done: AtomicBool::new(false),
            };
            let (latencies, rate) = keep_core_awake(bench.placement, || {
                during(&puts, || {
                    paced_gets(address, &get, INTERVAL, duration, bench.stop)
                })
            })?;
            figures.rate.push(rate);
            latencies
        }
    };
    figures.p50.push(percentile(&mut latencies, 0.50));
    figures.p99.push(percentile(&mut latencies, 0.99));
    Ok(())
}

/// Requests for new files, and the paths of these.
fn new_files(
    bench: &Bench<'_>,
    server: &mut Server,
    count: usize,
    size: u64,
) -> Outcome<Vec<(Request, PathBuf)>> {
    let targets = server.new_targets(count, size, bench.stop)?;
    let file = |target: &Target| Ok((Request::put(&target.put, size), server.file_path(target)?));
    targets.iter().map(file).collect()
}

/// Does some work during PUTs; also returns how many MiB per second the PUTs sent meanwhile.
fn during<T>(puts: &BackgroundPuts<'_>, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..PUTS).map(|_| scope.spawn(|| puts.run())).collect();
        let outcome = await_first_bytes(puts).and_then(|()| {
            let (start, before) = (Instant::now(), puts.sent.load(Ordering::Relaxed));
            let result = work()?;
            let sent = puts.sent.load(Ordering::Relaxed) - before;
            Ok((
                result,
                sent as f64 / MIB as f64 / start.elapsed().as_secs_f64(),
            ))
        });
        puts.done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        outcome
    })
}

/// Waits until the PUTs have sent their first bytes.
fn await_first_bytes(puts: &BackgroundPuts<'_>) -> Outcome<()> {
    let start = Instant::now();
    while puts.sent.load(Ordering::Relaxed) < PUTS as u64 * MIB {
        if start.elapsed() > START_TIMEOUT {
            return Err("the PUTs did not start in time".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(SETTLE);
    Ok(())
}
