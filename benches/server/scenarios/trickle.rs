//! Clients that send one byte at a time, most of them in a body and some in a head, as attackers and bad radio links
//! do: the CPU time per byte, and the effect on other clients.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::scenarios::paced_clients::{BlockingClient, keep_core_awake, paced_gets};
use crate::servers::Server;
use crate::stats::{median, median_ratio, percentile};

const SERVERS: &[ServerKind] = &[ServerKind::Upslot, ServerKind::Nginx];
/// Clients that trickle a body.
const BODIES: usize = 400;
/// Clients that trickle a head.
const HEADS: usize = 100;
/// Between two bytes of a client. A tenth of what the slowest client might take, so that there is enough to measure;
/// the CPU time per byte is the same, because each byte is read separately.
const BYTE_INTERVAL: Duration = Duration::from_millis(100);
/// The interval of the GETs of another client.
const GET_INTERVAL: Duration = Duration::from_millis(2);
/// How long each of three phases takes: GETs alone, trickle alone, both. The sum is less than ten seconds, upslot's
/// timeout for a head.
const DURATION: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(2_500),
    quick: Duration::from_millis(500),
};
/// Size of a trickled body in bytes; more than is sent in all phases.
const BODY: u64 = 4096;
const ROUNDS: u32 = 3;

#[derive(Debug, Default)]
struct TrickleFigures {
    /// Microseconds of CPU time per trickled byte.
    cpu_per_byte: Vec<f64>,
    /// 99th percentile of GETs alone, in microseconds.
    p99_alone: Vec<f64>,
    /// 99th percentile of GETs during the trickle, in microseconds.
    p99_during: Vec<f64>,
}

/// A client that trickles a request.
#[derive(Debug)]
struct SlowClient {
    client: BlockingClient,
    request: Request,
    /// The whole request.
    bytes: Vec<u8>,
    /// Bytes of it sent so far.
    sent: usize,
}

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    let mut servers = Vec::new();
    for kind in bench.available(case, SERVERS, true, false, report)? {
        let (server, seed) = bench.start_seeded(kind, case)?;
        servers.push((server, seed, TrickleFigures::default()));
    }
    for _ in 0..bench.options.rounds.min(ROUNDS) {
        for (server, seed, figures) in &mut servers {
            let round = round(bench, server, seed, figures);
            round.map_err(|why| bench.explain_failure(server, why))?;
        }
    }
    let nginx = servers
        .iter()
        .position(|(server, _, _)| server.kind == ServerKind::Nginx);
    for (server, _, figures) in &servers {
        let name = |figure: &str| format!("{case}.{}.{figure}", server.name());
        report.headline(name("cpu-per-byte"), median(&figures.cpu_per_byte), "us")?;
        if let Some(nginx) = nginx.filter(|_| server.kind != ServerKind::Nginx) {
            let of_nginx = &servers[nginx].2.cpu_per_byte;
            report.headline(
                name("ratio"),
                median_ratio(&figures.cpu_per_byte, of_nginx),
                "to nginx",
            )?;
        }
        report.number(name("latency-p99-alone"), median(&figures.p99_alone), "us")?;
        report.number(name("latency-p99"), median(&figures.p99_during), "us")?;
        let ratio = median_ratio(&figures.p99_during, &figures.p99_alone);
        report.headline(name("p99-to-alone"), ratio, "times")?;
    }
    Ok(())
}

fn round(
    bench: &Bench<'_>,
    server: &mut Server,
    seed: &Target,
    figures: &mut TrickleFigures,
) -> Outcome<()> {
    let duration = DURATION.get(bench.options);
    let address = server.endpoint.address;
    let get = Request::get(&seed.get, SMALL);
    let gets = || {
        keep_core_awake(bench.placement, || {
            paced_gets(
                address,
                slice::from_ref(&get),
                GET_INTERVAL,
                duration,
                bench.stop,
            )
        })
    };
    let alone = gets();
    figures.p99_alone.push(percentile(&mut alone?, 0.99));

    let mut clients = open(bench, server, seed)?;
    let never = AtomicBool::new(false);
    let before = server.process.cpu()?;
    let bytes = trickle(&mut clients, Some(duration), &never)?;
    let cpu = server.process.cpu()?.since(before);
    figures.cpu_per_byte.push(cpu.microseconds() / bytes as f64);

    let done = AtomicBool::new(false);
    let during = thread::scope(|scope| {
        let trickling = scope.spawn(|| trickle(&mut clients, None, &done));
        let latencies = gets();
        done.store(true, Ordering::Relaxed);
        trickling.join().map_err(|_| "a client panicked")??;
        latencies
    });
    figures.p99_during.push(percentile(&mut during?, 0.99));

    // All of them get a response once their request is complete.
    for slow in &mut clients {
        slow.client.write(&slow.bytes[slow.sent..])?;
        slow.client.receive(&slow.request)?;
    }
    Ok(())
}

/// Connects all clients, and sends the heads of those that trickle a body.
fn open(bench: &Bench<'_>, server: &mut Server, seed: &Target) -> Outcome<Vec<SlowClient>> {
    let mut clients = Vec::new();
    for target in server.new_targets(BODIES, BODY, bench.stop)? {
        let request = Request::put(&target.put, BODY);
        let mut bytes = request.head.clone();
        bytes.extend_from_slice(bench.pattern.bytes_at(0, BODY));
        clients.push((request.head.len(), request, bytes));
    }
    for _ in 0..HEADS {
        let request = Request::get(&seed.get, SMALL);
        let bytes = request.head.clone();
        clients.push((0, request, bytes));
    }
    let clients = clients.into_iter().map(|(sent, request, bytes)| {
        let mut client = BlockingClient::connect(server.endpoint.address)?;
        client.write(&bytes[..sent])?;
        Ok(SlowClient {
            client,
            request,
            bytes,
            sent,
        })
    });
    clients.collect()
}

/// Sends a byte on each connection every [`BYTE_INTERVAL`], evenly spread, for the duration or until told to stop.
/// Returns the number of bytes. Does not send the last byte of a request.
fn trickle(
    clients: &mut [SlowClient],
    duration: Option<Duration>,
    done: &AtomicBool,
) -> Outcome<u64> {
    let start = Instant::now();
    let each = BYTE_INTERVAL / clients.len() as u32;
    for (number, index) in (0..).zip((0..clients.len()).cycle()) {
        let due = each * number;
        if duration.is_some_and(|duration| due > duration) || done.load(Ordering::Relaxed) {
            return Ok(number.into());
        }
        thread::sleep(due.saturating_sub(start.elapsed()));
        let slow = &mut clients[index];
        if slow.sent + 1 >= slow.bytes.len() {
            return Err("a request is too short for the duration".to_owned());
        }
        slow.client.write(&slow.bytes[slow.sent..slow.sent + 1])?;
        slow.sent += 1;
    }
    Ok(0)
}
