//! How long small GETs take while large new_files come in. One client asks by the clock, on a kept connection; four others
//! send bodies, at full speed or at a rate, and step back on the client's core whenever the one that measures is due.
//! So what is added to a GET is the server's doing, or what all servers have alike.

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
/// Bytes of each file that comes in.
const LARGE: ByMode<u64> = ByMode {
    normal: 64 * MIB,
    quick: 16 * MIB,
};
const MIB: u64 = 1024 * 1024;
/// What the fastest disk and server could store in a second, in bytes, so that the new_files suffice.
const FASTEST: u64 = 6 * 1024 * MIB;
/// Bytes per second and PUT.
const RATE: u64 = 50 * MIB;
/// The time from one GET to the next: so long that even beside PUTs at full speed the one before is answered, because
/// else the length of the queue would be measured.
const EVERY: Duration = Duration::from_millis(4);
/// How long GETs are sent each time.
const LENGTH: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(2_500),
    quick: Duration::from_millis(400),
};
/// From the first bytes of the PUTs to the first GET, and from one kind of background to the next.
const SETTLE: Duration = Duration::from_millis(200);
/// For the first bytes.
const START: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 3;

/// What there is beside the GETs.
const BACKGROUNDS: &[(&str, Background)] = &[
    ("quiet", Background::None),
    ("put-full-speed", Background::BackgroundPuts(None)),
    ("put-50m", Background::BackgroundPuts(Some(RATE))),
];

#[derive(Clone, Copy, Debug)]
enum Background {
    None,
    /// PUTs of so many bytes per second.
    BackgroundPuts(Option<u64>),
}

/// Of one server and background, for each round.
#[derive(Debug, Default)]
struct Latencies {
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// MiB per second that came in, all PUTs together.
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
    let length = LENGTH.get(bench.options);
    let address = server.endpoint.address;
    let get = Request::get(&seed.get, SMALL);
    let mut latencies = match background {
        Background::None => keep_core_awake(bench.placement, || {
            paced_gets(address, &get, EVERY, length, bench.stop)
        })?,
        Background::BackgroundPuts(rate) => {
            let size = LARGE.get(bench.options);
            let second = rate.map_or(FASTEST, |rate| rate * PUTS as u64);
            let seconds = length.as_secs_f64() + 2.0;
            let count = (second as f64 * seconds / size as f64) as usize + 2 * PUTS;
            let puts = BackgroundPuts {
                pattern: &bench.pattern,
                address,
                files: Mutex::new(new_files(bench, server, count, size)?),
                rate,
                sent: AtomicU64::new(0),
                done: AtomicBool::new(false),
            };
            let (latencies, rate) = keep_core_awake(bench.placement, || {
                beside(&puts, || {
                    paced_gets(address, &get, EVERY, length, bench.stop)
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

/// Does something while PUTs are under way; gives how many MiB per second they sent meanwhile.
fn beside<T>(puts: &BackgroundPuts<'_>, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..PUTS).map(|_| scope.spawn(|| puts.run())).collect();
        let outcome = await_first_bytes(puts).and_then(|()| {
            let (began, before) = (Instant::now(), puts.sent.load(Ordering::Relaxed));
            let done = work()?;
            let sent = puts.sent.load(Ordering::Relaxed) - before;
            Ok((
                done,
                sent as f64 / MIB as f64 / began.elapsed().as_secs_f64(),
            ))
        });
        puts.done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "A client failed.")??;
        }
        outcome
    })
}

fn await_first_bytes(puts: &BackgroundPuts<'_>) -> Outcome<()> {
    let began = Instant::now();
    while puts.sent.load(Ordering::Relaxed) < PUTS as u64 * MIB {
        if began.elapsed() > START {
            return Err("The PUTs do not get under way.".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(SETTLE);
    Ok(())
}
