//! What the bench ran on: without it no number means anything.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::certificate;
use crate::common::options::Options;
use crate::common::outcome::Outcome;
use crate::common::report::Report;
use crate::common::server_kind::ServerKind;
use crate::placement::Placement;
use crate::process::clock_source;
use crate::servers::InstalledServers;

#[derive(Debug)]
pub struct Machine {
    facts: Vec<(&'static str, String)>,
}

impl Machine {
    pub fn inspect(
        options: &Options,
        installed: &InstalledServers,
        store: &Path,
        placement: &Placement,
    ) -> Machine {
        let mut facts = vec![
            ("kernel", text_of("/proc/sys/kernel/osrelease")),
            ("cpu", cpu_model()),
            ("cores", cores()),
            ("governor", governor()),
            ("memory", meminfo_total()),
            ("load", text_of("/proc/loadavg")),
        ];
        for kind in ServerKind::ALL {
            let shown = if options.only.contains(kind) {
                installed.description(*kind)
            } else {
                "left out".to_owned()
            };
            facts.push((kind.name(), shown));
        }
        facts.extend([
            (
                "store",
                format!("{} ({})", store.display(), file_system(store)),
            ),
            ("placement", placement.description()),
            (
                "client",
                if options.spin && placement.has_separate_cores() {
                    "never sleeps, so that no server pays for waking it (durable cases: sleeps)"
                } else {
                    "sleeps while it waits, and is woken by the servers"
                }
                .to_owned(),
            ),
            ("cpu-clock", clock_source().to_owned()),
            ("tls", certificate::DESCRIPTION.to_owned()),
        ]);
        Machine { facts }
    }

    pub fn print(&self, report: &mut Report) -> Outcome<()> {
        for (name, value) in &self.facts {
            report.fact(name, value)?;
        }
        Ok(())
    }
}

/// The servers need a descriptor or two per connection, the bench one; they inherit this limit. Gives the limit.
pub fn raise_open_file_limit() -> u64 {
    /// Far more than any case needs; a server may size tables by its limit, so this is not left open.
    const ENOUGH: u64 = 32_768;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let now = limit.current.unwrap_or(ENOUGH);
    if now >= most {
        return now;
    }
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => now,
    }
}

fn text_of(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end_matches(['\n', '\0']).to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// x86 names the model per core; ARM boards name the board in the device tree.
fn cpu_model() -> String {
    let cpuinfo = text_of("/proc/cpuinfo");
    let named = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name");
    match named {
        Some((_, model)) => model.trim().to_owned(),
        None => text_of("/proc/device-tree/model"),
    }
}

/// Of the machine, not those that this process may use.
fn cores() -> String {
    let cpuinfo = text_of("/proc/cpuinfo");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor"));
    cores.count().to_string()
}

/// Anything but `performance` makes CPU time depend on what the clock felt like.
fn governor() -> String {
    text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

fn meminfo_total() -> String {
    let meminfo = text_of("/proc/meminfo");
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    total.map_or("unknown".to_owned(), |total| total.trim().to_owned())
}

/// The kind of the file system at a path: the mount whose point is its longest prefix.
fn file_system(path: &Path) -> String {
    let mounts = text_of("/proc/self/mountinfo");
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            let kind = after.split(' ').next()?;
            path.starts_with(point).then_some((point.len(), kind))
        })
        // The last of equals wins: it was mounted over the others.
        .max_by_key(|(length, _)| *length)
        .map_or("unknown".to_owned(), |(_, kind)| kind.to_owned())
}
