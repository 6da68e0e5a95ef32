//! Files in an object store: slots for direct uploads, uploads and downloads that are relayed, memory per transfer, and a
//! sweep. nginx is a reverse proxy before the same store.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, TIME_LIMIT, single};
use crate::cases::{FileSize, SMALL};
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::link::Target;
use crate::load::{LoadGenerator, Plan, Request, Sample};
use crate::object_store::{COUNT, COUNT_PATH};
use crate::process::CpuTime;
use crate::response::field;
use crate::rounds::report_case;
use crate::scenarios::paced_clients::{give_idle_priority, keep_core_awake, paced};
use crate::servers::{DIRECT, RELAY, Server, StoreProcess, StoredObjects};
use crate::stats::{Tally, percentile};
use crate::stream::Endpoint;

const SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx];
/// Connections of clients with small files.
const CONNECTIONS: usize = 8;
/// Different files of the GETs.
const FILES: usize = 64;
/// Requests before the measurement.
const WARM_UP: usize = 50;
/// Small requests per turn.
const SMALL_REQUESTS: ByMode<usize> = ByMode {
    normal: 1_000,
    quick: 200,
};
/// Turns per round; the servers take them alternately.
const TURNS: ByMode<u32> = ByMode {
    normal: 4,
    quick: 1,
};
/// Slots per round.
const SLOTS: ByMode<usize> = ByMode {
    normal: 20_000,
    quick: 2_000,
};
/// Transfers at the same time, whose memory is measured.
const TRANSFERS: ByMode<usize> = ByMode {
    normal: 200,
    quick: 50,
};
/// The time in which buffers fill.
const FILL_TIME: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(1_500),
    quick: Duration::from_millis(200),
};
/// Objects before the sweep.
const OBJECTS: ByMode<usize> = ByMode {
    normal: 100_000,
    quick: 20_000,
};
/// From the start to the first sweep.
const SWEEP_DELAY: Duration = Duration::from_secs(2);
/// How long latencies are measured before the number of objects is asked for, and without a sweep.
const SLOT_TIME: ByMode<Duration> = ByMode {
    normal: Duration::from_secs(2),
    quick: Duration::from_millis(500),
};
const SLOT_INTERVAL: Duration = Duration::from_millis(2);
/// For a whole sweep.
const SWEEP_LIMIT: Duration = Duration::from_secs(600);

/// Slots whose uploads go to the store itself.
pub fn run_slots(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let (_store, mut server) =
        bench.start_before_store(ServerKind::Upslot, case, StoredObjects::Count(0), DIRECT)?;
    let mut tally = Tally::new(0);
    let count = SLOTS.get(bench.options);
    for _ in 0..bench.options.rounds {
        let result = (|| {
            let before = server.process.cpu()?;
            let link = server.link()?;
            let (_, sample) = link.request_slots(count, SMALL, TIME_LIMIT, bench.stop)?;
            Ok((sample, server.process.cpu()?.since(before)))
        })();
        let (sample, cpu) = result.map_err(|why| bench.explain_failure(&mut server, why))?;
        tally.add_round(sample, cpu);
    }
    report_case(case, &[server], &mut [tally], report)
}

pub fn run_put_small(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, FileSize::Small, puts, report)
}

pub fn run_put_large(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, FileSize::Large, puts, report)
}

pub fn run_get_small(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, FileSize::Small, gets, report)
}

pub fn run_get_large(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    compare(bench, case, FileSize::Large, gets, report)
}

/// A turn of a server with files of a size; the targets are those of GETs.
type Turn = fn(&Bench<'_>, &mut Server, &[Target], FileSize) -> Outcome<(Sample, CpuTime)>;

/// Measures upslot and nginx in turn.
fn compare(
    bench: &Bench<'_>,
    case: &'static str,
    size: FileSize,
    turn: Turn,
    report: &mut Report,
) -> Outcome<()> {
    let (mut servers, mut targets, mut tallies) = (Vec::new(), Vec::new(), Vec::new());
    // They run until the end.
    let mut stores = Vec::new();
    let bytes = size.bytes(bench.options);
    for kind in bench.available(case, SERVERS, false, false, report)? {
        let (store, mut server) =
            bench.start_before_store(kind, case, StoredObjects::Count(0), RELAY)?;
        stores.push(store);
        let files = if size == FileSize::Small { FILES } else { 1 };
        let stored = store_files(bench, &mut server, files, bytes);
        targets.push(stored.map_err(|why| bench.explain_failure(&mut server, why))?);
        server.process.reset_peak_memory();
        servers.push(server);
        tallies.push(Tally::new(bytes));
    }
    for round in 0..bench.options.rounds {
        for number in 0..TURNS.get(bench.options) {
            for place in 0..servers.len() {
                let index = (place + (round + number) as usize) % servers.len();
                let server = &mut servers[index];
                let result = turn(bench, server, &targets[index], size);
                let (sample, cpu) = result.map_err(|why| bench.explain_failure(server, why))?;
                match number {
                    0 => tallies[index].add_round(sample, cpu),
                    _ => tallies[index].add_to_round(sample, cpu),
                }
            }
        }
    }
    report_case(case, &servers, &mut tallies, report)
}

/// An upload. nginx passes on the status of the store, which is another one than that of upslot.
fn put(server: &Server, target: &Target, size: u64) -> Request {
    let mut request = Request::put(&target.put, size);
    if server.kind == ServerKind::Nginx {
        request.expected.status = 200;
    }
    request
}

/// Uploads files, and verifies a GET of each byte by byte.
fn store_files(
    bench: &Bench<'_>,
    server: &mut Server,
    count: usize,
    size: u64,
) -> Outcome<Vec<Target>> {
    let targets = server.new_targets(count, size, bench.stop)?;
    let mut load = bench.connect(server, 1)?;
    for target in &targets {
        load.run(single(&put(server, target, size)))?;
        load.run(single(&Request::get(&target.get, size)))?;
    }
    Ok(targets)
}

/// The number of requests of a turn, and of connections.
fn requests(bench: &Bench<'_>, size: FileSize) -> (usize, usize) {
    match size {
        FileSize::Small => (SMALL_REQUESTS.get(bench.options), CONNECTIONS),
        _ => (1, 1),
    }
}

fn plan(requests: &[Request], count: usize) -> Plan<'_> {
    Plan {
        requests,
        count,
        time_limit: Duration::MAX,
        compare_bodies: false,
        ..single(&requests[0])
    }
}

fn puts(
    bench: &Bench<'_>,
    server: &mut Server,
    _: &[Target],
    size: FileSize,
) -> Outcome<(Sample, CpuTime)> {
    let (count, connections) = requests(bench, size);
    let bytes = size.bytes(bench.options);
    let warm_up = if count > 1 { WARM_UP } else { 0 };
    let targets = server.new_targets(warm_up + count, bytes, bench.stop)?;
    let puts: Vec<Request> = targets
        .iter()
        .map(|target| put(server, target, bytes))
        .collect();
    let mut load = bench.connect(server, connections)?;
    if warm_up > 0 {
        load.run(plan(&puts[..warm_up], warm_up))?;
    }
    let before = server.process.cpu()?;
    let sample = load.run(plan(&puts[warm_up..], count))?;
    let cpu = server.process.cpu()?.since(before);
    if let Some(last) = targets.last() {
        load.run(single(&Request::get(&last.get, bytes)))?;
    }
    Ok((sample, cpu))
}

fn gets(
    bench: &Bench<'_>,
    server: &mut Server,
    targets: &[Target],
    size: FileSize,
) -> Outcome<(Sample, CpuTime)> {
    let (count, connections) = requests(bench, size);
    let bytes = size.bytes(bench.options);
    let gets: Vec<Request> = targets
        .iter()
        .map(|target| Request::get(&target.get, bytes))
        .collect();
    let mut load = bench.connect(server, connections)?;
    if count > 1 {
        load.run(plan(&gets, WARM_UP))?;
    }
    let before = server.process.cpu()?;
    let sample = load.run(plan(&gets, count))?;
    Ok((sample, server.process.cpu()?.since(before)))
}

/// The memory of transfers whose other end is slow.
pub fn run_memory(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    for kind in bench.available(case, SERVERS, false, false, report)? {
        for (direction, objects) in [
            ("get", StoredObjects::Count(0)),
            ("put", StoredObjects::Stalled),
        ] {
            let (_store, mut server) =
                bench.start_before_store(kind, &format!("{case}-{direction}"), objects, RELAY)?;
            let stalled = memory(
                bench,
                &mut server,
                matches!(objects, StoredObjects::Stalled),
            );
            let stalled = stalled.map_err(|why| bench.explain_failure(&mut server, why))?;
            let name = |figure: &str| format!("{case}.{}.{direction}.{figure}", server.name());
            report.headline(name("memory-per-transfer"), stalled.memory, "bytes")?;
            report.number(name("cpu-while-stalled"), stalled.cpu, "us/s")?;
        }
    }
    Ok(())
}

/// Transfers that make no progress any more.
#[derive(Debug)]
struct Stalled {
    /// Of each, in bytes.
    memory: f64,
    /// Of all of them, in microseconds a second.
    cpu: f64,
}

fn memory(bench: &Bench<'_>, server: &mut Server, is_put: bool) -> Outcome<Stalled> {
    let size = FileSize::Large.bytes(bench.options);
    let count = TRANSFERS.get(bench.options);
    let fill_time = FILL_TIME.get(bench.options);
    let targets = if is_put {
        server.new_targets(count, size, bench.stop)?
    } else {
        vec![store_files(bench, server, 1, size)?.remove(0); count]
    };
    thread::sleep(fill_time);
    let before = server.process.anonymous_memory()?;
    let mut clients = Vec::with_capacity(count);
    for target in &targets {
        let failed = |e| format!("a slow client: {e}");
        let mut client = TcpStream::connect(server.endpoint.address).map_err(failed)?;
        let request = if is_put {
            put(server, target, size)
        } else {
            Request::get(&target.get, size)
        };
        client.write_all(&request.head).map_err(failed)?;
        client.set_nonblocking(true).map_err(failed)?;
        clients.push((client, request.body));
    }
    let start = Instant::now();
    while start.elapsed() < fill_time * 2 {
        for (client, rest) in &mut clients {
            // Nothing more fits, or the server does not accept it yet.
            if let Ok(n) = client.write(bench.pattern.bytes_at(0, *rest)) {
                *rest -= n as u64;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    let grown = server.process.anonymous_memory()?.saturating_sub(before);
    let cpu = server.process.cpu()?;
    thread::sleep(fill_time);
    let cpu = server.process.cpu()?.since(cpu);
    Ok(Stalled {
        memory: grown as f64 / count as f64,
        cpu: cpu.microseconds() / fill_time.as_secs_f64(),
    })
}

/// Slots during a sweep that deletes half of the objects, and without one.
pub fn run_sweep(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let objects = OBJECTS.get(bench.options);
    let config = format!(
        "{RELAY}expire_interval: {}\nexpire_maxage: 86400\n",
        SWEEP_DELAY.as_secs()
    );
    let (store, mut server) = bench.start_before_store(
        ServerKind::Upslot,
        case,
        StoredObjects::Count(objects),
        &config,
    )?;
    // It has the core of the client, which must not wait for it.
    give_idle_priority(&store.process.id().to_string());
    let swept = sweep(bench, &store, &mut server, objects);
    let mut swept = swept.map_err(|why| bench.explain_failure(&mut server, why))?;
    drop(server);
    let (_store, mut server) = bench.start_before_store(
        ServerKind::Upslot,
        case,
        StoredObjects::Count(objects),
        RELAY,
    )?;
    let alone = slots(bench, &mut server, SLOT_TIME.get(bench.options) * 3);
    let mut alone = alone.map_err(|why| bench.explain_failure(&mut server, why))?;
    let name = |figure: &str| format!("{case}.upslot.{figure}");
    report.headline(name("seconds"), swept.time.as_secs_f64(), "s")?;
    report.headline(
        name("cpu-per-object"),
        swept.cpu.microseconds() / objects as f64,
        "us",
    )?;
    report.headline(
        name("slot-latency-p99"),
        percentile(&mut swept.latencies, 0.99),
        "us",
    )?;
    report.headline(
        name("slot-latency-p99-alone"),
        percentile(&mut alone, 0.99),
        "us",
    )?;
    report.number(
        name("slot-latency-p50"),
        percentile(&mut swept.latencies, 0.5),
        "us",
    )?;
    report.number(
        name("slot-latency-p50-alone"),
        percentile(&mut alone, 0.5),
        "us",
    )
}

#[derive(Debug)]
struct Swept {
    time: Duration,
    cpu: CpuTime,
    latencies: Vec<u64>,
}

/// Requests slots until the sweep has ended.
fn sweep(
    bench: &Bench<'_>,
    store: &StoreProcess,
    server: &mut Server,
    objects: usize,
) -> Outcome<Swept> {
    let start = Instant::now();
    while stored_objects(bench, store)? == objects {
        bench.stop.check()?;
        thread::sleep(Duration::from_millis(5));
        if start.elapsed() > SWEEP_LIMIT {
            return Err("no sweep began".to_owned());
        }
    }
    let (start, before) = (Instant::now(), server.process.cpu()?);
    let mut latencies = Vec::new();
    while stored_objects(bench, store)? > objects / 2 {
        latencies.extend(slots(bench, server, SLOT_TIME.get(bench.options))?);
        if start.elapsed() > SWEEP_LIMIT {
            return Err("the sweep did not end in time".to_owned());
        }
    }
    Ok(Swept {
        time: start.elapsed(),
        cpu: server.process.cpu()?.since(before),
        latencies,
    })
}

/// The latencies of single slots at a fixed interval.
fn slots(bench: &Bench<'_>, server: &mut Server, time: Duration) -> Outcome<Vec<u64>> {
    keep_core_awake(bench.placement, || {
        paced(SLOT_INTERVAL, time, bench.stop, || {
            server.new_targets(1, SMALL, bench.stop).map(drop)
        })
    })
}

/// Asks the store how many objects it has.
fn stored_objects(bench: &Bench<'_>, store: &StoreProcess) -> Outcome<usize> {
    let endpoint = Endpoint {
        address: store.address,
        tls: None,
    };
    let mut load = LoadGenerator::open(&endpoint, 1, &bench.pattern, bench.stop, false)?;
    load.run(single(&Request::get(COUNT_PATH, 0)))?;
    let count = field(load.last_head(0), COUNT);
    let count = count.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    count.ok_or_else(|| "the object store does not say how many objects it has".to_owned())
}
