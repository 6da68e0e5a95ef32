//! Measures a case. Each case starts new servers, so that it inherits neither memory nor folders from another, and
//! measures them in turn, so that variations of the machine's speed affect all of them.

use std::fs;
use std::time::Duration;

use crate::bench::{Bench, TIME_LIMIT, single};
use crate::cases::{Case, FileSize, Operation, SMALL};
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::{Column, Report, rounded};
use crate::common::server_kind::ServerKind;
use crate::link::Target;
use crate::load::{Plan, Request, Sample};
use crate::process::CpuTime;
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
    Column::text("case", 18),
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
    pub fn run_case(&self, case: &Case, report: &mut Report) -> Outcome<()> {
        let kinds = self.available(case.name, case.servers, case.is_put(), case.tls, report)?;
        let mut servers = Vec::new();
        for kind in kinds {
            servers.push(self.start_with(
                kind,
                ServerSetup {
                    durable: case.is_durable(),
                    for_put: case.is_put(),
                    ..self.setup(kind, case.name, case.tls, case.size(self.options))?
                },
            )?);
        }
        let body = match case.operation {
            Operation::Slots => 0,
            _ => case.size(self.options),
        };
        let mut seeds = Vec::new();
        let mut tallies = Vec::new();
        for server in &mut servers {
            let seed = self.seed(server, case.size(self.options));
            seeds.push(seed.map_err(|why| self.explain_failure(server, why))?);
            server.process.reset_peak_memory();
            tallies.push(Tally::new(body));
        }
        let count = case.requests.get(self.options);
        let turns = TURNS.get(self.options).min(count);
        for _ in 0..self.options.rounds {
            for turn in 0..turns {
                for ((server, seed), tally) in servers.iter_mut().zip(&seeds).zip(&mut tallies) {
                    let result = self.run_turn(case, server, seed, count / turns);
                    let (sample, cpu) = result.map_err(|why| self.explain_failure(server, why))?;
                    match turn {
                        0 => tally.add_round(sample, cpu),
                        _ => tally.add_to_round(sample, cpu),
                    }
                }
            }
        }
        report_case(case.name, &servers, &mut tallies, report)
    }

    /// Measures `count` requests, or fewer on a slow machine.
    pub fn run_turn(
        &self,
        case: &Case,
        server: &mut Server,
        seed: &Target,
        count: usize,
    ) -> Outcome<(Sample, CpuTime)> {
        let size = case.size(self.options);
        let limit = TURN_LIMIT.get(self.options);
        let plan = |requests, reconnect| Plan {
            requests,
            count,
            first_connection: 0,
            time_limit: limit,
            reconnect,
            compare_bodies: false,
        };
        match case.operation {
            Operation::Get {
                size: kind,
                new_connections,
            } => {
                let requests = [Request::get(&seed.get, size)];
                let mut load = self.connect(server, case.connections)?;
                let warm_up = match kind {
                    FileSize::Small => WARM_UP,
                    FileSize::Large => 1,
                };
                load.run(Plan {
                    count: warm_up,
                    ..plan(&requests, false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests, new_connections))?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
            Operation::Put { size: kind, .. } => {
                let warm_up = match kind {
                    FileSize::Small => WARM_UP.min(count),
                    FileSize::Large => 0,
                };
                let targets = server.new_targets(count + warm_up, size, self.stop)?;
                let requests: Vec<Request> = targets
                    .iter()
                    .map(|target| Request::put(&target.put, size))
                    .collect();
                let mut load = self.connect(server, case.connections)?;
                load.run(Plan {
                    count: warm_up,
                    // All of them, as the targets that follow are numbered from there.
                    time_limit: Duration::MAX,
                    ..plan(&requests[..warm_up], false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests[warm_up..], false))?;
                let cpu = server.process.cpu()?.since(before);
                let stored = warm_up + sample.latencies.len();
                server.return_targets(targets.len() - stored);
                self.verify_stored(server, &targets[..stored], size)?;
                Ok((sample, cpu))
            }
            Operation::Slots => {
                let before = server.process.cpu()?;
                let (_, sample) = server
                    .link()?
                    .request_slots(count, size, limit, self.stop)?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
        }
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
