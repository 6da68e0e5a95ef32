//! Clients that send a byte at a time: most of them a body, some a head. What each byte costs the server, and what the
//! others notice of it. Attackers do this, and so do bad radio links.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::cases::SMALL;
use crate::common::kind::Kind;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::link::Target;
use crate::load::Request;
use crate::scenarios::paced::{Client, awake, gets};
use crate::servers::Server;
use crate::stats::{median, median_ratio, percentile};

const SERVERS: &[Kind] = &[Kind::Upslot, Kind::Nginx];
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
struct Figures {
    /// Microseconds of CPU time per trickled byte.
    byte: Vec<f64>,
    /// The p99 of GETs alone, and beside the trickle; microseconds.
    alone: Vec<f64>,
    beside: Vec<f64>,
}

/// A client, its request, and how many bytes of it are sent.
#[derive(Debug)]
struct Drip {
    client: Client,
    request: Request,
    /// The whole request.
    bytes: Vec<u8>,
    sent: usize,
}

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    let mut servers = Vec::new();
    for kind in bench.those(case, SERVERS, true, false, report)? {
        let (server, seed) = bench.start_seeded(kind, case)?;
        servers.push((server, seed, Figures::default()));
    }
    for _ in 0..bench.options.rounds.min(ROUNDS) {
        for (server, seed, figures) in &mut servers {
            let round = round(bench, server, seed, figures);
            round.map_err(|why| bench.blame(server, why))?;
        }
    }
    let nginx = servers
        .iter()
        .position(|(server, _, _)| server.kind == Kind::Nginx);
    for (server, _, figures) in &servers {
        let name = |figure: &str| format!("{case}.{}.{figure}", server.name());
        report.headline(name("cpu-per-byte"), median(&figures.byte), "us")?;
        if let Some(nginx) = nginx.filter(|_| server.kind != Kind::Nginx) {
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
    figures: &mut Figures,
) -> Outcome<()> {
    let length = LENGTH.get(bench.options);
    let address = server.door.address;
    let get = Request::get(&seed.get, SMALL);
    let others = || {
        awake(bench.placement, || {
            gets(address, &get, OTHERS, length, bench.stop)
        })
    };
    let alone = others();
    figures.alone.push(percentile(&mut alone?, 0.99));

    let mut drips = open(bench, server, seed)?;
    let never = AtomicBool::new(false);
    let before = server.process.cpu()?;
    let bytes = trickle(&mut drips, Some(length), &never)?;
    let cpu = server.process.cpu()?.since(before);
    figures.byte.push(cpu.microseconds() / bytes as f64);

    let over = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        let trickling = scope.spawn(|| trickle(&mut drips, None, &over));
        let latencies = others();
        over.store(true, Ordering::Relaxed);
        trickling.join().map_err(|_| "A client failed.")??;
        latencies
    });
    figures.beside.push(percentile(&mut beside?, 0.99));

    // All of them are served when they come to their end.
    for drip in &mut drips {
        drip.client.write(&drip.bytes[drip.sent..])?;
        drip.client.finish(&drip.request)?;
    }
    Ok(())
}

/// Connects all clients, and sends the heads of those with a body.
fn open(bench: &Bench<'_>, server: &mut Server, seed: &Target) -> Outcome<Vec<Drip>> {
    let mut drips = Vec::new();
    for target in server.targets(BODIES, BODY, bench.stop)? {
        let request = Request::put(&target.put, BODY);
        let mut bytes = request.head.clone();
        bytes.extend_from_slice(bench.pattern.at(0, BODY));
        drips.push((request.head.len(), request, bytes));
    }
    for _ in 0..HEADS {
        let request = Request::get(&seed.get, SMALL);
        let bytes = request.head.clone();
        drips.push((0, request, bytes));
    }
    let drips = drips.into_iter().map(|(sent, request, bytes)| {
        let mut client = Client::connect(server.door.address)?;
        client.write(&bytes[..sent])?;
        Ok(Drip {
            client,
            request,
            bytes,
            sent,
        })
    });
    drips.collect()
}

/// Sends a byte every [`EVERY`] on each connection, spread evenly, for so long or until it is over; gives how many. The
/// last byte of a request is kept back.
fn trickle(drips: &mut [Drip], length: Option<Duration>, over: &AtomicBool) -> Outcome<u64> {
    let began = Instant::now();
    let each = EVERY / drips.len() as u32;
    for (number, place) in (0..).zip((0..drips.len()).cycle()) {
        let due = each * number;
        if length.is_some_and(|length| due > length) || over.load(Ordering::Relaxed) {
            return Ok(number.into());
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        let drip = &mut drips[place];
        if drip.sent + 1 >= drip.bytes.len() {
            return Err("A request is too short to trickle for so long.".to_owned());
        }
        drip.client.write(&drip.bytes[drip.sent..drip.sent + 1])?;
        drip.sent += 1;
    }
    Ok(0)
}
