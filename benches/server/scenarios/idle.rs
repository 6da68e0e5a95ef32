//! What a connection costs that does nothing: memory, and CPU time while nothing moves.

use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::cases::SMALL;
use crate::load::{Plan, Request};
use crate::measure::{Bench, once};
use crate::report::Report;
use crate::server::{Kind, Server};

const SERVERS: &[Kind] = &[Kind::Upslot, Kind::Nginx, Kind::Lighttpd];
const CONNECTIONS: usize = 1_000;
/// How long they are watched.
const IDLE: Duration = Duration::from_secs(1);
/// Open files beside the idle connections, of bench and server, and room for a server that counts two per connection.
const FILES_PER_IDLE: u64 = 4;

pub fn run(bench: &Bench<'_>, case: &'static str, report: &mut Report) -> Outcome<()> {
    for kind in bench.those(case, SERVERS, true, false, report)? {
        let mut server = bench.start(kind, case, false, false)?;
        let result = watch(bench, case, &mut server, report);
        result.map_err(|why| bench.blame(&mut server, why))?;
    }
    Ok(())
}

/// Opens connections one after the other, so that no burst leaves free memory behind that would count as theirs.
fn watch(bench: &Bench<'_>, case: &str, server: &mut Server, report: &mut Report) -> Outcome<()> {
    let connections = CONNECTIONS.min((bench.open_files / FILES_PER_IDLE) as usize);
    let seed = bench.seed(server, SMALL)?;
    let request = Request::get(&seed.get, SMALL);
    let mut load = bench.load(server, 0)?;
    let before = server.process.own_memory()?;
    for first in 0..connections {
        load.add()?;
        load.run(Plan {
            first,
            ..once(&request)
        })?;
    }
    let cpu_before = server.process.cpu()?;
    thread::sleep(IDLE);
    let cpu = server.process.cpu()?.since(cpu_before);
    let after = server.process.own_memory()?;
    let peak = server.process.peak()?;
    // All of them are still served.
    load.run(Plan {
        count: connections,
        ..once(&request)
    })?;
    let name = |figure: &str| format!("{case}.{}.{figure}", server.name());
    let grown = after.saturating_sub(before) as f64;
    report.number(name("connections"), connections as f64, "connections")?;
    report.number(
        name("memory-per-connection"),
        grown / connections as f64,
        "bytes",
    )?;
    report.number(
        name("cpu-while-idle"),
        cpu.total.as_secs_f64() * 1e6 / IDLE.as_secs_f64(),
        "us/s",
    )?;
    report.number(name("memory-peak"), peak as f64, "bytes")
}
