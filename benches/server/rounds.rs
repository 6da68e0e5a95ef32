//! Measures a case. Each case starts new servers, so that it inherits neither memory nor folders from another, and
//! measures them in turn, so that variations of the machine's speed affect all of them.

use std::fs;
use std::time::Duration;

use crate::bench::{Bench, TIME_LIMIT, single};
use crate::cases::{
    Case, ConnectionUse, FileSize, GetKind, Gets, Operation, RANGE, SAME_FILE, SMALL,
};
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::{Column, Report, rounded};
use crate::common::server_kind::ServerKind;
use crate::file_tree::FileTrees;
use crate::link::Target;
use crate::load::{Plan, Request, Sample};
use crate::process::CpuTime;
use crate::response::ExpectedResponse;
use crate::servers::{Server, ServerSetup};
use crate::stats::Tally;

/// See [`TIME_LIMIT`].
const TURN_LIMIT: ByMode<Duration> = ByMode {
    normal: TIME_LIMIT,
    quick: Duration::from_secs(1),
};
/// The servers take this many turns per round: the machine's speed varies over times that are longer than a turn and
/// shorter than a round.
const TURNS: ByMode<usize> = ByMode {
    normal: 4,
    quick: 1,
};
/// Requests before the measurement, in which the server faults in its pages and grows its tables.
const WARM_UP: usize = 50;

/// The columns of the table that [`report_case`] fills.
pub const COLUMNS: &[Column] = &[
    Column::text("case", 27),
    Column::text("server", 14),
    Column::number("CPU us/req", 12),
    Column::number("CPU ms/GiB", 12),
    Column::number("ratio", 8),
    Column::number("req/s", 12),
    Column::number("p50 us", 12),
    Column::number("p99 us", 12),
    Column::number("peak MiB", 10),
];
/// Explains the table.
pub const NOTE: &str = "CPU is the user and system time of the server. ratio is its CPU time relative to that of nginx in the same \
     round, the median of the rounds: below 1, it needs less.";

impl Bench<'_> {
    /// Measures a case.
    pub fn run_case(&self, case: &Case, trees: &mut FileTrees, report: &mut Report) -> Outcome<()> {
        let tls = case.tls;
        let kinds = self.available(case.name, case.servers, case.is_put(), tls, report)?;
        let count = case.requests.get(self.options);
        let turns = TURNS.get(self.options).min(count);
        let all_turns = turns * self.options.rounds as usize;
        let targets = self.shared_targets(case, trees, all_turns)?;
        let (mut servers, mut gets, mut tallies) = (Vec::new(), Vec::new(), Vec::new());
        for kind in kinds {
            let mut server = self.start_for(case, kind, trees)?;
            let prepared = self.prepare(case, &mut server, &targets);
            gets.push(prepared.map_err(|why| self.explain_failure(&mut server, why))?);
            server.process.reset_peak_memory();
            servers.push(server);
            tallies.push(Tally::new(case.body_size(self.options)));
        }
        for number in 0..all_turns {
            // Each server is the first to request the files of a turn as often as any other.
            for place in 0..servers.len() {
                let index = (place + number) % servers.len();
                let (server, tally) = (&mut servers[index], &mut tallies[index]);
                let result = self.run_turn(case, server, &gets[index], count / turns, number);
                let (sample, cpu) = result.map_err(|why| self.explain_failure(server, why))?;
                match number % turns {
                    0 => tally.add_round(sample, cpu),
                    _ => tally.add_to_round(sample, cpu),
                }
            }
        }
        report_case(case.name, &servers, &mut tallies, report)
    }

    /// The targets of the files that all servers of a case serve.
    fn shared_targets(
        &self,
        case: &Case,
        trees: &mut FileTrees,
        turns: usize,
    ) -> Outcome<Vec<String>> {
        let Operation::Get(gets) = case.operation else {
            return Ok(Vec::new());
        };
        let tree = trees.of(gets);
        let size = case.file_size(self.options);
        let targets = match gets.connections {
            // The picture is new in each turn.
            ConnectionUse::Room => tree.more_targets(self, size, turns)?,
            _ => tree.targets(self, size, gets.files)?,
        };
        Ok(targets.to_vec())
    }

    /// Starts a server for a case.
    fn start_for(&self, case: &Case, kind: ServerKind, trees: &mut FileTrees) -> Outcome<Server> {
        let setup = self.setup(kind, case.name, case.tls, case.file_size(self.options))?;
        let mut setup = ServerSetup {
            durable: case.is_durable() && kind == ServerKind::Upslot,
            for_put: case.is_put(),
            ..setup
        };
        if !case.sandbox {
            setup.extra_config = "sandbox: off\n".to_owned();
        }
        if let Operation::Get(gets) = case.operation {
            // A single file is the case in which a server may keep its response in memory.
            if kind != ServerKind::Limit || gets != SAME_FILE {
                setup.shared_files = Some(&trees.of(gets).folder);
            }
            setup.kind = gets.kind;
        }
        self.start_with(kind, setup)
    }

    /// The requests of a case's GETs. For other operations, verifies that the server works.
    fn prepare(
        &self,
        case: &Case,
        server: &mut Server,
        targets: &[String],
    ) -> Outcome<Vec<Request>> {
        let size = case.file_size(self.options);
        let Operation::Get(gets) = case.operation else {
            self.seed(server, size)?;
            return Ok(Vec::new());
        };
        let range = format!("Range: bytes={}-{}", RANGE.0, RANGE.1);
        let partial = ExpectedResponse {
            status: 206,
            length: Some(case.body_size(self.options)),
            has_body: true,
        };
        let requests: Vec<Request> = targets
            .iter()
            .map(|target| match gets.kind {
                GetKind::Whole | GetKind::NotModified => Request::get(target, size),
                GetKind::Range => Request::get_with(target, &range, partial),
                GetKind::Head => Request::head(target, size),
            })
            .collect();
        match gets.kind {
            GetKind::NotModified => self.conditional(server, targets, size),
            _ => {
                // Rooms get a file that no server has sent before.
                if gets.connections != ConnectionUse::Room {
                    self.connect(server, 1)?.run(single(&requests[0]))?;
                }
                Ok(requests)
            }
        }
    }

    /// Measures `count` requests, or fewer on a slow machine. `gets` are the requests of GETs; `number` counts the
    /// turns of a server.
    pub fn run_turn(
        &self,
        case: &Case,
        server: &mut Server,
        gets: &[Request],
        count: usize,
        number: usize,
    ) -> Outcome<(Sample, CpuTime)> {
        let size = case.file_size(self.options);
        let plan = Plan {
            requests: gets,
            order: &[],
            count,
            first_connection: 0,
            time_limit: TURN_LIMIT.get(self.options),
            reconnect: false,
            compare_bodies: false,
        };
        match case.operation {
            Operation::Get(Gets {
                connections: ConnectionUse::Room,
                ..
            }) => self.run_room(server, &gets[number], case.connections),
            Operation::Get(kind) => {
                let warm_up = match kind.size {
                    FileSize::Small => WARM_UP,
                    _ => 1,
                };
                let files = kind.files.min(gets.len());
                let order = kind
                    .distribution
                    .order(files, count + warm_up, number as u64);
                let mut load = self.connect(server, case.connections)?;
                load.run(Plan {
                    count: warm_up,
                    order: &order[..warm_up],
                    ..plan
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(Plan {
                    reconnect: kind.connections == ConnectionUse::New,
                    order: &order[warm_up..],
                    ..plan
                })?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
            Operation::Put { size: kind, .. } => {
                let warm_up = match kind {
                    FileSize::Large => 0,
                    _ => WARM_UP.min(count),
                };
                self.run_puts(case, server, plan, warm_up)
            }
            Operation::Slots => {
                let before = server.process.cpu()?;
                let (_, sample) =
                    server
                        .link()?
                        .request_slots(count, size, plan.time_limit, self.stop)?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
        }
    }

    /// Measures many clients that connect at once, each for one request.
    fn run_room(
        &self,
        server: &mut Server,
        get: &Request,
        clients: usize,
    ) -> Outcome<(Sample, CpuTime)> {
        let mut load = self.connect(server, 0)?;
        let before = server.process.cpu()?;
        for _ in 0..clients {
            load.open_connection()?;
        }
        let sample = load.run(Plan {
            count: clients,
            compare_bodies: false,
            ..single(get)
        })?;
        drop(load);
        Ok((sample, server.process.cpu()?.since(before)))
    }

    fn run_puts(
        &self,
        case: &Case,
        server: &mut Server,
        plan: Plan<'_>,
        warm_up: usize,
    ) -> Outcome<(Sample, CpuTime)> {
        let size = case.file_size(self.options);
        let targets = server.new_targets(plan.count + warm_up, size, self.stop)?;
        let requests: Vec<Request> = targets
            .iter()
            .map(|target| Request::put(&target.put, size))
            .collect();
        let mut load = self.connect(server, case.connections)?;
        load.run(Plan {
            requests: &requests[..warm_up],
            count: warm_up,
            // All of them, as the targets that follow are numbered from there.
            time_limit: Duration::MAX,
            ..plan
        })?;
        let before = server.process.cpu()?;
        let sample = load.run(Plan {
            requests: &requests[warm_up..],
            ..plan
        })?;
        let cpu = server.process.cpu()?.since(before);
        let stored = warm_up + sample.latencies.len();
        server.return_targets(targets.len() - stored);
        self.verify_stored(server, &targets[..stored], size)?;
        Ok((sample, cpu))
    }

    /// Verifies the size of each stored file, and the content of the last. Removes large files to save space; small
    /// ones stay until the end, because deleting many of them slows down the file system for a while.
    fn verify_stored(&self, server: &Server, stored: &[Target], size: u64) -> Outcome<()> {
        if let Some(last) = stored.last() {
            if server.answers_get() {
                let get = Request::get(&last.get, size);
                self.connect(server, 1)?.run(single(&get))?;
            } else {
                let path = server.file_path(last)?;
                self.pattern
                    .check_file(&path, size)
                    .map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        for target in stored {
            let file = server.file_path(target)?;
            let failed = |e| format!("{}: {e}", file.display());
            let found = fs::metadata(&file).map_err(failed)?.len();
            if found != size {
                return Err(format!(
                    "{} has {found} bytes instead of {size}",
                    file.display()
                ));
            }
            if size > SMALL {
                fs::remove_file(&file).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Reports a case: the tally of each server, with the ratio to nginx in the same rounds.
pub fn report_case(
    case: &'static str,
    servers: &[Server],
    tallies: &mut [Tally],
    report: &mut Report,
) -> Outcome<()> {
    let nginx = servers
        .iter()
        .position(|server| server.kind == ServerKind::Nginx);
    for (index, server) in servers.iter().enumerate() {
        let ratio = nginx
            .filter(|nginx| *nginx != index)
            .map(|nginx| tallies[index].ratio(&tallies[nginx]));
        let tally = &mut tallies[index];
        let name = |figure: &str| format!("{case}.{}.{figure}", server.name());
        let (p50, p99) = (tally.latency(0.50), tally.latency(0.99));
        let peak = server.process.peak_memory()? as f64;
        report.number(name("requests"), tally.requests() as f64, "requests")?;
        report.number(name("cpu-per-request"), tally.cpu_per_request(), "us")?;
        if let Some(cpu_per_gib) = tally.cpu_per_gib() {
            report.number(name("cpu-per-gib"), cpu_per_gib, "ms")?;
            report.number(name("rate"), tally.rate(), "MiB/s")?;
        }
        if let Some(share) = tally.kernel_percentage() {
            report.number(name("cpu-in-kernel"), share, "%")?;
        }
        report.number(name("sleeps-per-request"), tally.sleeps(), "sleeps")?;
        report.number(
            name("requests-per-second"),
            tally.requests_per_second(),
            "1/s",
        )?;
        report.number(name("latency-p50"), p50, "us")?;
        report.number(name("latency-p99"), p99, "us")?;
        report.number(name("memory-peak"), peak, "bytes")?;
        if let Some((median, least, largest)) = ratio {
            report.number(name("ratio"), median, "to nginx")?;
            report.number(name("ratio-least"), least, "to nginx")?;
            report.number(name("ratio-largest"), largest, "to nginx")?;
        }
        report.row(vec![
            case.to_owned(),
            server.name().to_owned(),
            rounded(tally.cpu_per_request()),
            tally.cpu_per_gib().map(rounded).unwrap_or_default(),
            ratio
                .map(|(median, _, _)| format!("{median:.3}"))
                .unwrap_or_default(),
            rounded(tally.requests_per_second()),
            rounded(p50),
            rounded(p99),
            rounded(peak / f64::from(1 << 20)),
        ]);
    }
    Ok(())
}
