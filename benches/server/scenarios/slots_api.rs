//! Slots through the local API: what ejabberd's `service_url` and scripts ask for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::bench::{Bench, TURN, once};
use crate::cases::SMALL;
use crate::common::kind::Kind;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::link::{DOMAIN, OWNERS};
use crate::load::{Load, Plan, Request};
use crate::response::Expected;
use crate::rounds::print;
use crate::servers::{Server, Setup, free_address};
use crate::stats::Tally;
use crate::stream::Door;

const CONNECTIONS: usize = 8;
/// Slots per round.
const COUNTS: ByMode<usize> = ByMode {
    normal: 20_000,
    quick: 2_000,
};
const WARM_UP: usize = 50;
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&Kind::Upslot) {
        return Ok(());
    }
    let door = Door {
        address: free_address()?,
        tls: None,
    };
    let setup = Setup {
        config: format!("api: {{port: {}}}\n", door.address.port()),
        ..bench.setup(Kind::Upslot, case, false, SMALL)?
    };
    let mut server = bench.begin(Kind::Upslot, setup)?;
    let mut tally = Tally::new(0);
    measured(bench, &server, &door, &mut tally).map_err(|why| bench.blame(&mut server, why))?;
    print(case, &[server], &mut [tally], report)
}

fn measured(bench: &Bench<'_>, server: &Server, door: &Door, tally: &mut Tally) -> Outcome<()> {
    check(bench, server, door)?;
    let requests: Vec<Request> = (0..OWNERS).map(|owner| ask(owner, "keep-alive")).collect();
    let mut load = Load::open(door, CONNECTIONS, &bench.pattern, bench.stop, bench.spins())?;
    let plan = Plan {
        requests: &requests,
        count: WARM_UP,
        first: 0,
        limit: TURN,
        fresh: false,
        compared: false,
    };
    load.run(plan)?;
    server.process.forget_peak();
    for _ in 0..bench.options.rounds {
        let before = server.process.cpu()?;
        let sample = load.run(Plan {
            count: COUNTS.get(bench.options),
            ..plan
        })?;
        tally.add(sample, server.process.cpu()?.since(before));
    }
    Ok(())
}

fn ask(owner: usize, connection: &str) -> Request {
    let head = format!(
        "GET /slot/?jid=user{owner}%40{DOMAIN}&name=photo.jpg&size={SMALL}&type=image%2Fjpeg HTTP/1.1\r\n\
         Host: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: {connection}\r\n\r\n"
    );
    Request {
        head: head.into_bytes(),
        body: 0,
        expected: Expected {
            status: 200,
            length: None,
        },
    }
}

/// What is counted later is a slot: one of them takes a file, and gives it back.
fn check(bench: &Bench<'_>, server: &Server, door: &Door) -> Outcome<()> {
    let shown = |e| format!("The slot API: {e}");
    let mut stream = TcpStream::connect(door.address).map_err(shown)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(shown)?;
    stream.write_all(&ask(0, "close").head).map_err(shown)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(shown)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let mut urls = body.unwrap_or_default().lines();
    let mut target = || urls.next()?.strip_prefix("http://localhost");
    let (Some(put), Some(get)) = (target(), target()) else {
        return Err(format!("No slot came, but: {answer}"));
    };
    let mut load = bench.load(server, 1)?;
    load.run(once(&Request::put(put, SMALL)))?;
    load.run(once(&Request::get(get, SMALL)))?;
    Ok(())
}
