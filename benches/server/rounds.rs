//! How a case is measured. Every case starts its servers anew, so that no case inherits memory or folders from
//! another, and takes them in turn, so that all see the same moods of the machine.

use std::fs;
use std::time::Duration;

use crate::bench::{Bench, TURN, once};
use crate::cases::{Case, SMALL, Size, Work};
use crate::common::kind::Kind;
use crate::common::options::ByMode;
use crate::common::outcome::Outcome;
use crate::common::report::{Column, Report, rounded};
use crate::link::Target;
use crate::load::{Plan, Request, Sample};
use crate::process::Cpu;
use crate::servers::{Server, Setup};
use crate::stats::Tally;

const TURN_LIMIT: ByMode<Duration> = ByMode {
    normal: TURN,
    quick: Duration::from_secs(1),
};
/// A round's requests are made in so many turns, in which the servers alternate, as a machine's moods last longer
/// than a turn and shorter than a round.
const TURNS: ByMode<usize> = ByMode {
    normal: 4,
    quick: 1,
};
/// Requests before the clock starts: they fault in the server's pages and size its tables.
const WARM_UP: usize = 50;

/// The columns of the table that [`print`] fills.
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
    pub fn case(&self, case: &Case, report: &mut Report) -> Outcome<()> {
        let kinds = self.those(case.name, case.servers, case.puts(), case.tls, report)?;
        let mut servers = Vec::new();
        for kind in kinds {
            servers.push(self.begin(
                kind,
                Setup {
                    durable: case.durable(),
                    put: case.puts(),
                    ..self.setup(kind, case.name, case.tls, case.size(self.options))?
                },
            )?);
        }
        let body = match case.work {
            Work::Slots => 0,
            _ => case.size(self.options),
        };
        let mut seeds = Vec::new();
        let mut tallies = Vec::new();
        for server in &mut servers {
            let seed = self.seed(server, case.size(self.options));
            seeds.push(seed.map_err(|why| self.blame(server, why))?);
            server.process.forget_peak();
            tallies.push(Tally::new(body));
        }
        let count = case.counts.get(self.options);
        let turns = TURNS.get(self.options).min(count);
        for _ in 0..self.options.rounds {
            for turn in 0..turns {
                for ((server, seed), tally) in servers.iter_mut().zip(&seeds).zip(&mut tallies) {
                    let result = self.turn(case, server, seed, count / turns);
                    let (sample, cpu) = result.map_err(|why| self.blame(server, why))?;
                    match turn {
                        0 => tally.add(sample, cpu),
                        _ => tally.go_on(sample, cpu),
                    }
                }
            }
        }
        print(case.name, &servers, &mut tallies, report)
    }

    /// Makes `count` requests, or fewer on a slow machine.
    pub fn turn(
        &self,
        case: &Case,
        server: &mut Server,
        seed: &Target,
        count: usize,
    ) -> Outcome<(Sample, Cpu)> {
        let size = case.size(self.options);
        let limit = TURN_LIMIT.get(self.options);
        let plan = |requests, fresh| Plan {
            requests,
            count,
            first: 0,
            limit,
            fresh,
            compared: false,
        };
        match case.work {
            Work::Get { size: kind, fresh } => {
                let requests = [Request::get(&seed.get, size)];
                let mut load = self.load(server, case.connections)?;
                let warm_up = match kind {
                    Size::Small => WARM_UP,
                    Size::Large => 1,
                };
                load.run(Plan {
                    count: warm_up,
                    ..plan(&requests, false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests, fresh))?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
            Work::Put { size: kind, .. } => {
                let warm_up = match kind {
                    Size::Small => WARM_UP.min(count),
                    Size::Large => 0,
                };
                let targets = server.targets(count + warm_up, size, self.stop)?;
                let requests: Vec<Request> = targets
                    .iter()
                    .map(|target| Request::put(&target.put, size))
                    .collect();
                let mut load = self.load(server, case.connections)?;
                load.run(Plan {
                    count: warm_up,
                    ..plan(&requests[..warm_up], false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests[warm_up..], false))?;
                let cpu = server.process.cpu()?.since(before);
                let stored = warm_up + sample.latencies.len();
                self.examine(server, &targets[..stored], size)?;
                Ok((sample, cpu))
            }
            Work::Slots => {
                let before = server.process.cpu()?;
                let (_, sample) = server.link()?.slots(count, size, limit, self.stop)?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
        }
    }

    /// Every stored file has its length, and the last one every byte. Large ones are removed, as nobody's disk is
    /// endless; many small ones stay until the end, because deleting them slows down the file system for a while.
    fn examine(&self, server: &Server, stored: &[Target], size: u64) -> Outcome<()> {
        if let Some(last) = stored.last() {
            if server.serves() {
                let get = Request::get(&last.get, size);
                self.load(server, 1)?.run(once(&get))?;
            } else {
                let path = server.file(last)?;
                self.pattern
                    .check(&path, size)
                    .map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        for target in stored {
            let file = server.file(target)?;
            let shown = |e| format!("{}: {e}", file.display());
            let found = fs::metadata(&file).map_err(shown)?.len();
            if found != size {
                return Err(format!(
                    "{} has {found} bytes instead of {size}.",
                    file.display()
                ));
            }
            if size > SMALL {
                fs::remove_file(&file).map_err(shown)?;
            }
        }
        Ok(())
    }
}

/// Reports what rounds came to: a tally for each server, with its ratio to nginx in the same rounds.
pub fn print(
    case: &'static str,
    servers: &[Server],
    tallies: &mut [Tally],
    report: &mut Report,
) -> Outcome<()> {
    let nginx = servers.iter().position(|server| server.kind == Kind::Nginx);
    for (place, server) in servers.iter().enumerate() {
        let ratio = nginx
            .filter(|nginx| *nginx != place)
            .map(|nginx| tallies[place].ratio(&tallies[nginx]));
        let tally = &mut tallies[place];
        let name = |figure: &str| format!("{case}.{}.{figure}", server.name());
        let (p50, p99) = (tally.latency(0.50), tally.latency(0.99));
        let peak = server.process.peak()? as f64;
        report.number(name("requests"), tally.requests() as f64, "requests")?;
        report.number(name("cpu-per-request"), tally.cpu_per_request(), "us")?;
        if let Some(cpu_per_gib) = tally.cpu_per_gib() {
            report.number(name("cpu-per-gib"), cpu_per_gib, "ms")?;
            report.number(name("rate"), tally.rate(), "MiB/s")?;
        }
        if let Some(share) = tally.system_share() {
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
