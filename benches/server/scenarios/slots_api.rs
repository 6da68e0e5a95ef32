//! Slots through the local API, as requested by ejabberd's `service_url` and by scripts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::bench::{Bench, TIME_LIMIT, single};
use crate::cases::SMALL;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::link::{DOMAIN, OWNERS};
use crate::load::{LoadGenerator, Plan, Request};
use crate::response::ExpectedResponse;
use crate::rounds::report_case;
use crate::servers::{Server, ServerSetup, free_address};
use crate::stats::Tally;
use crate::stream::Endpoint;

const CONNECTIONS: usize = 8;
/// Slots per round.
const COUNTS: ByMode<usize> = ByMode {
    normal: 20_000,
    quick: 2_000,
};
/// Requests before the measurement.
const WARM_UP: usize = 50;
const TIMEOUT: Duration = Duration::from_secs(10);

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    if !bench.options.only.contains(&ServerKind::Upslot) {
        return Ok(());
    }
    let endpoint = Endpoint {
        address: free_address()?,
        tls: None,
    };
    let setup = ServerSetup {
        extra_config: format!("api: {{port: {}}}\n", endpoint.address.port()),
        ..bench.setup(ServerKind::Upslot, case, false, SMALL)?
    };
    let mut server = bench.start_with(ServerKind::Upslot, setup)?;
    let mut tally = Tally::new(0);
    measure(bench, &server, &endpoint, &mut tally)
        .map_err(|why| bench.explain_failure(&mut server, why))?;
    report_case(case, &[server], &mut [tally], report)
}

fn measure(
    bench: &Bench<'_>,
    server: &Server,
    endpoint: &Endpoint,
    tally: &mut Tally,
) -> Outcome<()> {
    check_slot(bench, server, endpoint)?;
    let requests: Vec<Request> = (0..OWNERS)
        .map(|owner| slot_request(owner, "keep-alive"))
        .collect();
    let mut load = LoadGenerator::open(
        endpoint,
        CONNECTIONS,
        &bench.pattern,
        bench.stop,
        bench.spin(),
    )?;
    let plan = Plan {
        order: &[],
        requests: &requests,
        count: WARM_UP,
        first_connection: 0,
        time_limit: TIME_LIMIT,
        reconnect: false,
        compare_bodies: false,
    };
    load.run(plan)?;
    server.process.reset_peak_memory();
    for _ in 0..bench.options.rounds {
        let before = server.process.cpu()?;
        let sample = load.run(Plan {
            count: COUNTS.get(bench.options),
            ..plan
        })?;
        tally.add_round(sample, server.process.cpu()?.since(before));
    }
    Ok(())
}

fn slot_request(owner: usize, connection: &str) -> Request {
    let head = format!(
        "GET /slot/?jid=user{owner}%40{DOMAIN}&name=photo.jpg&size={SMALL}&type=image%2Fjpeg HTTP/1.1\r\n\
         Host: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: {connection}\r\n\r\n"
    );
    Request {
        head: head.into_bytes(),
        body: 0,
        expected: ExpectedResponse {
            has_body: true,
            status: 200,
            length: None,
        },
    }
}

/// Verifies that the API returns slots: uploads and downloads a file with one.
fn check_slot(bench: &Bench<'_>, server: &Server, endpoint: &Endpoint) -> Outcome<()> {
    let failed = |e| format!("slot API: {e}");
    let mut stream = TcpStream::connect(endpoint.address).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream
        .write_all(&slot_request(0, "close").head)
        .map_err(failed)?;
    let mut response = String::new();
    stream.read_to_string(&mut response).map_err(failed)?;
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body);
    let mut urls = body.unwrap_or_default().lines();
    let mut target = || urls.next()?.strip_prefix("http://localhost");
    let (Some(put), Some(get)) = (target(), target()) else {
        return Err(format!("not a slot: {response}"));
    };
    let mut load = bench.connect(server, 1)?;
    load.run(single(&Request::put(put, SMALL)))?;
    load.run(single(&Request::get(get, SMALL)))?;
    Ok(())
}
