//! What is measured. Every case starts its servers anew, so that no case inherits memory or folders from another,
//! and takes them in turn, round by round, so that both see the same moods of the machine.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::answer::Pattern;
use crate::figures::Tally;
use crate::link::Target;
use crate::load::{Load, Plan, Request, Sample};
use crate::options::Options;
use crate::placement::Placement;
use crate::process::Cpu;
use crate::report::{Report, Row};
use crate::scratch::{Scratch, Stop};
use crate::server::Server;

/// A picture.
const SMALL: u64 = 10 * 1024;
/// A film; in a quick run a short one.
const LARGE: u64 = 256 * 1024 * 1024;
const QUICK_LARGE: u64 = 16 * 1024 * 1024;
/// No round goes on for much longer, however slow the board.
const ROUND: Duration = Duration::from_secs(5);
const QUICK_ROUND: Duration = Duration::from_secs(1);
/// Requests before the clock starts: they fault in the server's pages and size its tables.
const WARM_UP: usize = 50;
/// How long idle connections are watched.
const IDLE: Duration = Duration::from_secs(1);
/// Open files beside the idle connections, of bench and server, and room for a server that counts two per connection.
const FILES_PER_IDLE: u64 = 4;

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    work: Work,
    /// Connections at a time.
    connections: usize,
    /// Requests per round, in a full and in a quick run.
    counts: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Get { large: bool, fresh: bool },
    Put { large: bool, durable: bool },
    Slots,
    Idle,
}

pub const CASES: &[Case] = &[
    Case {
        name: "get-10k",
        about: "GET of 10 KiB on 8 kept connections",
        work: Work::Get {
            large: false,
            fresh: false,
        },
        connections: 8,
        counts: (20_000, 3_000),
    },
    Case {
        name: "get-10k-alone",
        about: "GET of 10 KiB on 1 kept connection",
        work: Work::Get {
            large: false,
            fresh: false,
        },
        connections: 1,
        counts: (10_000, 1_500),
    },
    Case {
        name: "get-10k-new",
        about: "GET of 10 KiB, a new connection for each, 8 at a time",
        work: Work::Get {
            large: false,
            fresh: true,
        },
        connections: 8,
        counts: (4_000, 1_000),
    },
    Case {
        name: "get-large",
        about: "GET of 256 MiB (quick: 16 MiB) on 1 kept connection",
        work: Work::Get {
            large: true,
            fresh: false,
        },
        connections: 1,
        counts: (8, 8),
    },
    Case {
        name: "put-10k",
        about: "PUT of 10 KiB on 8 kept connections, fsync off",
        work: Work::Put {
            large: false,
            durable: false,
        },
        connections: 8,
        counts: (3_000, 1_000),
    },
    Case {
        name: "put-large",
        about: "PUT of 256 MiB (quick: 16 MiB) on 1 kept connection, fsync off",
        work: Work::Put {
            large: true,
            durable: false,
        },
        connections: 1,
        counts: (2, 4),
    },
    Case {
        name: "put-durable",
        about: "PUT of 10 KiB on 1 kept connection, fsync on; upslot alone",
        work: Work::Put {
            large: false,
            durable: true,
        },
        connections: 1,
        counts: (300, 50),
    },
    Case {
        name: "put-durable-32",
        about: "PUT of 10 KiB on 32 kept connections, fsync on; upslot alone",
        work: Work::Put {
            large: false,
            durable: true,
        },
        connections: 32,
        counts: (1_600, 320),
    },
    Case {
        name: "slots",
        about: "slot requests through the component, 64 at a time; upslot alone",
        work: Work::Slots,
        connections: 1,
        counts: (20_000, 4_000),
    },
    Case {
        name: "idle",
        about: "memory per idle connection, of 1000, each after one GET of 10 KiB",
        work: Work::Idle,
        connections: 1_000,
        counts: (1, 1),
    },
];

impl Case {
    /// Whether the same can be asked of nginx: it has no slots, and does not wait for the disk.
    fn suits_nginx(&self) -> bool {
        self.work != Work::Slots && !self.durable()
    }

    fn durable(&self) -> bool {
        matches!(self.work, Work::Put { durable: true, .. })
    }

    /// Bytes of a body.
    fn size(&self, quick: bool) -> u64 {
        match self.work {
            Work::Get { large: true, .. } | Work::Put { large: true, .. } if quick => QUICK_LARGE,
            Work::Get { large: true, .. } | Work::Put { large: true, .. } => LARGE,
            _ => SMALL,
        }
    }
}

/// What all cases share.
#[derive(Debug)]
pub struct Bench<'a> {
    pub options: &'a Options,
    pub stop: &'a Stop,
    pub scratch: &'a Scratch,
    pub nginx: Option<&'a Path>,
    pub placement: &'a Placement,
    /// How many files a process may have open.
    pub open_files: u64,
}

impl Bench<'_> {
    pub fn run(&self, report: &mut Report) -> Outcome<()> {
        let pattern = Pattern::new();
        for case in CASES {
            let wanted = match &self.options.filter {
                Some(word) => case.name.contains(word.as_str()),
                None => true,
            };
            if wanted {
                self.case(case, &pattern, report)
                    .map_err(|why| format!("{}: {why}", case.name))?;
            }
        }
        Ok(())
    }

    fn case(&self, case: &Case, pattern: &Pattern, report: &mut Report) -> Outcome<()> {
        let mut servers = self.start(case)?;
        if case.work == Work::Idle {
            for server in &mut servers {
                let result = self.idle(case, server, pattern, report);
                result.map_err(|why| self.blame(server, why))?;
            }
            return Ok(());
        }
        let size = if case.work == Work::Slots {
            0
        } else {
            case.size(self.options.quick)
        };
        let mut seeds = Vec::new();
        let mut tallies = Vec::new();
        for server in &mut servers {
            seeds.push(
                self.seed(case, server, pattern)
                    .map_err(|why| self.blame(server, why))?,
            );
            server.process.forget_peak();
            tallies.push(Tally::new(size));
        }
        for _ in 0..self.options.rounds {
            for ((server, seed), tally) in servers.iter_mut().zip(&seeds).zip(&mut tallies) {
                let round = self.round(case, server, seed, pattern);
                let (sample, cpu) = round.map_err(|why| self.blame(server, why))?;
                tally.add(sample, cpu);
            }
        }
        print(case, &servers, &mut tallies, report)
    }

    /// Names the server, and says what became of it, unless the user simply had enough.
    fn blame(&self, server: &mut Server, why: String) -> String {
        match self.stop.check() {
            Ok(()) => server.blame(&why),
            Err(stopped) => stopped,
        }
    }

    fn start(&self, case: &Case) -> Outcome<Vec<Server>> {
        let mut servers = Vec::new();
        if self.options.upslot {
            let folder = self.scratch.folder(&format!("{}/upslot", case.name))?;
            servers.push(Server::upslot(
                &self.options.program,
                &folder,
                case.durable(),
                self.stop,
            )?);
        }
        if let (Some(program), true) = (self.nginx, case.suits_nginx()) {
            let folder = self.scratch.folder(&format!("{}/nginx", case.name))?;
            servers.push(Server::nginx(program, &folder, self.stop)?);
        }
        for server in &servers {
            self.placement.place(server.process.id(), !case.durable());
        }
        Ok(servers)
    }

    /// Stores a file of the case's size, and reads it back byte by byte.
    ///
    /// In between its bytes are written anew, in place: the kernel keeps a file in pieces as large as it was written
    /// in, and sendfile is the faster the larger they are. Every server gets the same pieces to send, whatever it
    /// made itself.
    fn seed(&self, case: &Case, server: &mut Server, pattern: &Pattern) -> Outcome<Target> {
        let size = case.size(self.options.quick);
        let target = server.targets(1, size, self.stop)?.remove(0);
        let mut load = Load::open(server.address, 1, pattern, self.stop)?;
        load.run(once(&Request::put(&target.put, size)))?;
        let path = server.file(&target)?;
        pattern
            .write(&path, size)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        load.run(once(&Request::get(&target.get, size)))?;
        Ok(target)
    }

    fn round(
        &self,
        case: &Case,
        server: &mut Server,
        seed: &Target,
        pattern: &Pattern,
    ) -> Outcome<(Sample, Cpu)> {
        let quick = self.options.quick;
        let size = case.size(quick);
        let count = if quick { case.counts.1 } else { case.counts.0 };
        let limit = if quick { QUICK_ROUND } else { ROUND };
        let plan = |requests, fresh| Plan {
            requests,
            count,
            first: 0,
            limit,
            fresh,
            compared: false,
        };
        match case.work {
            Work::Get { large, fresh } => {
                let requests = [Request::get(&seed.get, size)];
                let mut load = Load::open(server.address, case.connections, pattern, self.stop)?;
                let warm_up = if large { 1 } else { WARM_UP };
                load.run(Plan {
                    count: warm_up,
                    ..plan(&requests, false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests, fresh))?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
            Work::Put { large, .. } => {
                let warm_up = if large { 0 } else { WARM_UP.min(count) };
                let targets = server.targets(count + warm_up, size, self.stop)?;
                let requests: Vec<Request> = targets
                    .iter()
                    .map(|target| Request::put(&target.put, size))
                    .collect();
                let mut load = Load::open(server.address, case.connections, pattern, self.stop)?;
                load.run(Plan {
                    count: warm_up,
                    ..plan(&requests[..warm_up], false)
                })?;
                let before = server.process.cpu()?;
                let sample = load.run(plan(&requests[warm_up..], false))?;
                let cpu = server.process.cpu()?.since(before);
                let stored = warm_up + sample.latencies.len();
                self.examine(server, &targets[..stored], size, pattern)?;
                Ok((sample, cpu))
            }
            Work::Slots => {
                let before = server.process.cpu()?;
                let link = server
                    .link
                    .as_mut()
                    .ok_or("There is no link to ask for slots.")?;
                let (_, sample) = link.slots(count, size, limit, self.stop)?;
                Ok((sample, server.process.cpu()?.since(before)))
            }
            Work::Idle => Err("Idle connections have no rounds.".to_owned()),
        }
    }

    /// Every stored file has its length, and the last one every byte. Large ones are removed, as nobody's disk is
    /// endless; many small ones stay until the end, because deleting them slows down the file system for a while.
    fn examine(
        &self,
        server: &Server,
        stored: &[Target],
        size: u64,
        pattern: &Pattern,
    ) -> Outcome<()> {
        if let Some(last) = stored.last() {
            let mut load = Load::open(server.address, 1, pattern, self.stop)?;
            load.run(once(&Request::get(&last.get, size)))?;
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

    /// Opens connections one after the other, so that no burst leaves free memory behind that would count as theirs.
    fn idle(
        &self,
        case: &Case,
        server: &mut Server,
        pattern: &Pattern,
        report: &mut Report,
    ) -> Outcome<()> {
        let size = case.size(self.options.quick);
        let connections = case
            .connections
            .min((self.open_files / FILES_PER_IDLE) as usize);
        let seed = self.seed(case, server, pattern)?;
        let request = Request::get(&seed.get, size);
        let mut load = Load::open(server.address, 0, pattern, self.stop)?;
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
        let name = |figure: &str| format!("{}.{}.{figure}", case.name, server.name);
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
}

/// A single request, its answer compared.
fn once(request: &Request) -> Plan<'_> {
    Plan {
        requests: std::slice::from_ref(request),
        count: 1,
        first: 0,
        limit: ROUND,
        fresh: false,
        compared: true,
    }
}

fn print(
    case: &Case,
    servers: &[Server],
    tallies: &mut [Tally],
    report: &mut Report,
) -> Outcome<()> {
    let ratio = match &*tallies {
        [upslot, nginx] => Some(upslot.ratio(nginx)),
        _ => None,
    };
    for (server, tally) in servers.iter().zip(tallies) {
        let row = Row {
            case: case.name,
            server: server.name,
            cpu: tally.cpu_per_request(),
            cpu_per_gib: tally.cpu_per_gib(),
            ratio: ratio
                .filter(|_| server.name == "upslot")
                .map(|(median, _, _)| median),
            per_second: tally.requests_per_second(),
            p50: tally.latency(0.50),
            p99: tally.latency(0.99),
            peak: server.process.peak()?,
        };
        let name = |figure: &str| format!("{}.{}.{figure}", case.name, server.name);
        report.number(name("requests"), tally.requests() as f64, "requests")?;
        report.number(name("cpu-per-request"), row.cpu, "us")?;
        if let Some(cpu_per_gib) = row.cpu_per_gib {
            report.number(name("cpu-per-gib"), cpu_per_gib, "ms")?;
            report.number(name("rate"), tally.rate(), "MiB/s")?;
        }
        if let Some(share) = tally.system_share() {
            report.number(name("cpu-in-kernel"), share, "%")?;
        }
        report.number(name("requests-per-second"), row.per_second, "1/s")?;
        report.number(name("latency-p50"), row.p50, "us")?;
        report.number(name("latency-p99"), row.p99, "us")?;
        report.number(name("memory-peak"), row.peak as f64, "bytes")?;
        report.row(row);
    }
    if let Some((median, least, largest)) = ratio {
        report.number(format!("{}.cpu-ratio", case.name), median, "upslot/nginx")?;
        report.number(
            format!("{}.cpu-ratio-least", case.name),
            least,
            "upslot/nginx",
        )?;
        report.number(
            format!("{}.cpu-ratio-largest", case.name),
            largest,
            "upslot/nginx",
        )?;
    }
    Ok(())
}
