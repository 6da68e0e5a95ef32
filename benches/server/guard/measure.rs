//! The requests whose work is counted. Each is sent alone, to a server that waits for it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bench::{Bench, single};
use crate::cases::SMALL;
use crate::common::outcome::Outcome;
use crate::common::report::print;
use crate::common::server_kind::ServerKind;
use crate::guard::stepper::{Counts, Step, Stepper};
use crate::guard::system_calls::name;
use crate::guard::table::{Row, Table};
use crate::load::{Plan, Request};
use crate::servers::{DIRECT, RELAY, Server, StoredObjects};

/// Different files of the store.
const FILES: usize = 64;
/// Requests of which the median counts: a few meet a timer, or a table that grows.
const SAMPLES: usize = 5;
/// Time after which the server holds no response that it built for an earlier request.
const FORGET: Duration = Duration::from_millis(1_100);

/// What is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The same file as just before.
    Hot,
    /// Another file each time.
    Get,
    /// The same on a new connection.
    New,
    NotModified,
    Put,
    Slot,
}

const PLAIN: &[(&str, Kind)] = &[
    ("get-hot", Kind::Hot),
    ("get", Kind::Get),
    ("get-not-modified", Kind::NotModified),
    ("get-new-connection", Kind::New),
    ("put", Kind::Put),
    ("slot", Kind::Slot),
];
/// For these, only system calls are counted: the instructions of encryption depend on the CPU.
const TLS: &[(&str, Kind)] = &[
    ("get-hot-tls", Kind::Hot),
    ("get-tls", Kind::Get),
    ("get-new-connection-tls", Kind::New),
    ("put-tls", Kind::Put),
];

/// Before an object store, to and from which files pass through. With a stop after each instruction an upload takes more
/// than a second, so that its slot is checked again afterwards: two more requests.
const RELAYED: &[(&str, Kind)] = &[("s3-get", Kind::Get), ("s3-put", Kind::Put)];

/// Measures all requests.
pub fn measure(bench: &Bench<'_>) -> Outcome<Table> {
    let mut table = Table::new();
    for (tls, step, kinds) in [
        (false, Step::Instruction, PLAIN),
        (true, Step::SystemCall, TLS),
    ] {
        let case = if tls { "guard-tls" } else { "guard" };
        let mut server = bench.start(ServerKind::Upslot, case, tls, false)?;
        let rows = measure_all(bench, &mut server, kinds, step);
        let rows = rows.map_err(|why| bench.explain_failure(&mut server, why))?;
        table.rows.extend(rows);
    }
    let start = |case, config| {
        let objects = StoredObjects::Count(0);
        bench.start_before_store(ServerKind::Upslot, case, objects, config)
    };
    let (_store, mut server) = start("guard-s3", RELAY)?;
    let rows = measure_all(bench, &mut server, RELAYED, Step::Instruction);
    let rows = rows.map_err(|why| bench.explain_failure(&mut server, why))?;
    table.rows.extend(rows);
    let (_store, mut server) = start("guard-s3-direct", DIRECT)?;
    let unused = Request::get("/", 0);
    let sample = |_| {
        let requests = (&unused, &unused);
        sample(bench, &mut server, requests, Kind::Slot, Step::Instruction)
    };
    let samples: Vec<Counts> = (0..SAMPLES).map(sample).collect::<Outcome<_>>()?;
    let row = row("s3-slot-direct", &samples, Step::Instruction);
    print(&format!("{}\n", row.line()))?;
    table.rows.push(row);
    Ok(table)
}

fn measure_all(
    bench: &Bench<'_>,
    server: &mut Server,
    kinds: &[(&str, Kind)],
    step: Step,
) -> Outcome<Vec<Row>> {
    let (puts, files): (Vec<Request>, Vec<String>) = new_puts(bench, server, FILES)?;
    bench.connect(server, 1)?.run(all(&puts))?;
    let mut rows = Vec::new();
    for (name, kind) in kinds {
        let samples = samples(bench, server, &files, *kind, step)?;
        let row = row(name, &samples, step);
        print(&format!("{}\n", row.line()))?;
        rows.push(row);
    }
    Ok(rows)
}

/// PUTs of new files, and the paths of their GETs.
fn new_puts(
    bench: &Bench<'_>,
    server: &mut Server,
    count: usize,
) -> Outcome<(Vec<Request>, Vec<String>)> {
    let targets = server.new_targets(count, SMALL, bench.stop)?;
    let targets = targets.into_iter();
    Ok(targets
        .map(|target| (Request::put(&target.put, SMALL), target.get))
        .unzip())
}

/// The counts of [`SAMPLES`] requests of a kind.
fn samples(
    bench: &Bench<'_>,
    server: &mut Server,
    files: &[String],
    kind: Kind,
    step: Step,
) -> Outcome<Vec<Counts>> {
    let gets: Vec<Request> = files.iter().map(|file| Request::get(file, SMALL)).collect();
    // Everything once, so that neither code nor folders are new to the server.
    bench.connect(server, 1)?.run(all(&gets))?;
    let requests = match kind {
        Kind::NotModified => bench.conditional(server, files, SMALL)?,
        Kind::Put => new_puts(bench, server, 2 * SAMPLES)?.0,
        Kind::Hot | Kind::Get | Kind::New | Kind::Slot => gets,
    };
    thread::sleep(FORGET);
    let other = Request::get(&files[FILES - 1], SMALL);
    let mut samples = Vec::new();
    for (number, request) in requests.iter().enumerate().take(SAMPLES) {
        let before = match kind {
            Kind::Hot => request,
            Kind::Put => &requests[SAMPLES + number],
            _ => &other,
        };
        samples.push(sample(bench, server, (before, request), kind, step)?);
        bench.stop.check()?;
    }
    Ok(samples)
}

/// The counts of one request, the second of these. The first is sent before it, uncounted, on the same connection.
fn sample(
    bench: &Bench<'_>,
    server: &mut Server,
    (before, request): (&Request, &Request),
    kind: Kind,
    step: Step,
) -> Outcome<Counts> {
    let pid = server.process.id();
    let counted = |work: &mut dyn FnMut() -> Outcome<()>| {
        let stepper = Stepper::attach(pid, step, bench.placement)?;
        let counted = (|| {
            let before = stepper.counts(bench.stop)?;
            work()?;
            Ok(stepper.counts(bench.stop)?.since(&before))
        })();
        stepper.detach().and(counted)
    };
    match kind {
        Kind::Slot => {
            let mut slot = || server.new_targets(1, SMALL, bench.stop).map(drop);
            slot()?;
            counted(&mut slot)
        }
        Kind::New => counted(&mut || bench.connect(server, 1)?.run(single(request)).map(drop)),
        Kind::Hot | Kind::Get | Kind::NotModified | Kind::Put => {
            let mut load = bench.connect(server, 1)?;
            // What a server looks up once per second, it has looked up. A file that is requested repeatedly stays open
            // until the second ends.
            if matches!(kind, Kind::Hot | Kind::Put) {
                thread::sleep(until_next_second());
            }
            let times = if kind == Kind::Hot { 3 } else { 1 };
            for _ in 0..times {
                load.run(single(before))?;
            }
            counted(&mut || load.run(single(request)).map(drop))
        }
    }
}

/// The rest of the present second of the wall clock.
fn until_next_second() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let passed = now.map_or(0, |now| now.subsec_nanos());
    Duration::from_nanos(1_000_000_000 - u64::from(passed))
}

/// A plan of each request once.
fn all(requests: &[Request]) -> Plan<'_> {
    Plan {
        requests,
        count: requests.len(),
        time_limit: Duration::MAX,
        compare_bodies: false,
        ..single(&requests[0])
    }
}

/// The median of the instructions, and the fewest system calls: chance only adds to these. Closing is left out, because
/// it depends on the time between two requests whether the cache of open files keeps a file.
fn row(case: &str, samples: &[Counts], step: Step) -> Row {
    let counted = |counts: &Counts| {
        let calls = counts.system_calls.iter();
        let calls = calls.filter(|(number, _)| name(**number) != "close");
        calls.map(|(number, count)| (*number, *count)).collect()
    };
    let samples_calls = samples.iter().map(counted);
    let calls: BTreeMap<u64, u64> = samples_calls
        .min_by_key(|calls: &BTreeMap<u64, u64>| calls.values().sum::<u64>())
        .unwrap_or_default();
    let mut instructions: Vec<u64> = samples.iter().map(|counts| counts.instructions).collect();
    instructions.sort_unstable();
    let mut names: Vec<String> = calls
        .iter()
        .map(|(number, count)| match count {
            1 => name(*number).into_owned(),
            _ => format!("{} {count}", name(*number)),
        })
        .collect();
    names.sort_unstable();
    Row {
        name: case.to_owned(),
        instructions: (step == Step::Instruction).then_some(instructions[instructions.len() / 2]),
        system_calls: calls.values().sum(),
        calls: names.join(", "),
    }
}
