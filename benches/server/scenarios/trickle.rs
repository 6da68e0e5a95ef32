//! Clients that send a byte at a time: most of them a body, some a head. What each byte costs the server, and what the
//! others notice of it. Attackers do this, and so do bad radio links.

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
/// Those with a body, and those with a head.
const BODIES: usize = 400;
const HEADS: usize = 100;
/// From byte to byte of one client. Ten times as often as the slowest would, so that there is something to measure;
/// the cost of a byte is the same, as every one is read by itself.
const EVERY: Duration = Duration::from_millis(100);
/// From one GET of the others to the next.
const OTHERS: Duration = Duration::from_millis(2);
/// How long each of three times is: trickle alone, GETs alone, both. All together stays below the ten seconds that
/// upslot gives a head.
const LENGTH: ByMode<Duration> = ByMode {
    normal: Duration::from_millis(2_500),
    quick: Duration::from_millis(500),
};
/// Bytes of a trickled body; more than come in all that time.
const BODY: u64 = 4096;
const ROUNDS: u32 = 3;

#[derive(Debug, Default)]
struct TrickleFigures {
    /// Microseconds of CPU time per trickled byte.
    byte: Vec<f64>,
    /// The p99 of GETs alone, and beside the trickle; microseconds.
    alone: Vec<f64>,
    beside: Vec<f64>,
}

/// A client, its request, and how many bytes of it are sent.
#[derive(Debug)]
struct SlowClient {
    client: BlockingClient,
    request: Request,
    /// The whole request.
    bytes: Vec<u8>,
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
        report.headline(name("cpu-per-byte"), median(&figures.byte), "us")?;
        if let Some(nginx) = nginx.filter(|_| server.kind != ServerKind::Nginx) {
            let theirs = &servers[nginx].2.byte;
            report.headline(
                name("ratio"),
                median_ratio(&figures.byte, theirs),
                "to nginx",
            )?;
        }
        report.number(name("latency-p99-alone"), median(&figures.alone), "us")?;
        report.number(name("latency-p99"), median(&figures.beside), "us")?;
        let ratio = median_ratio(&figures.beside, &figures.alone);
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
    let length = LENGTH.get(bench.options);
    let address = server.endpoint.address;
    let get = Request::get(&seed.get, SMALL);
    let others = || {
        keep_core_awake(bench.placement, || {
            paced_gets(address, &get, OTHERS, length, bench.stop)
        })
    };
    let alone = others();
    figures.alone.push(percentile(&mut alone?, 0.99));

    let mut clients = open(bench, server, seed)?;
    let never = AtomicBool::new(false);
    let before = server.process.cpu()?;
    let bytes = trickle(&mut clients, Some(length), &never)?;
    let cpu = server.process.cpu()?.since(before);
    figures.byte.push(cpu.microseconds() / bytes as f64);

    let done = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        let trickling = scope.spawn(|| trickle(&mut clients, None, &done));
        let latencies = others();
        done.store(true, Ordering::Relaxed);
        trickling.join().map_err(|_| "A client failed.")??;
        latencies
    });
    figures.beside.push(percentile(&mut beside?, 0.99));

    // All of them are served when they come to their end.
    for slow in &mut clients {
        slow.client.write(&slow.bytes[slow.sent..])?;
        slow.client.finish(&slow.request)?;
    }
    Ok(())
}

/// Connects all clients, and sends the heads of those with a body.
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

/// Sends a byte every [`EVERY`] on each connection, spread evenly, for so long or until it is done; gives how many. The
/// last byte of a request is kept back.
fn trickle(
    clients: &mut [SlowClient],
    length: Option<Duration>,
    done: &AtomicBool,
) -> Outcome<u64> {
    let began = Instant::now();
    let each = EVERY / clients.len() as u32;
    for (number, place) in (0..).zip((0..clients.len()).cycle()) {
        let due = each * number;
        if length.is_some_and(|length| due > length) || done.load(Ordering::Relaxed) {
            return Ok(number.into());
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        let slow = &mut clients[place];
        if slow.sent + 1 >= slow.bytes.len() {
            return Err("A request is too short to trickle for so long.".to_owned());
        }
        slow.client.write(&slow.bytes[slow.sent..slow.sent + 1])?;
        slow.sent += 1;
    }
    Ok(0)
}
