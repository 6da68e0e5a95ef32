//! The machine that the bench runs on, without which the numbers mean nothing.

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

/// Reports the machine, the servers and the settings.
pub fn report(
    report: &mut Report,
    options: &Options,
    installed: &InstalledServers,
    store: &Path,
    placement: &Placement,
) -> Outcome<()> {
    report.fact("kernel", &text_of("/proc/sys/kernel/osrelease"))?;
    report.fact("cpu", &cpu_model())?;
    report.fact("cores", &cores())?;
    report.fact("governor", &governor())?;
    report.fact("memory", &total_memory())?;
    report.fact("load", &text_of("/proc/loadavg"))?;
    for kind in ServerKind::ALL {
        let description = if options.only.contains(kind) {
            installed.description(*kind)
        } else {
            "not selected".to_owned()
        };
        report.fact(kind.name(), &description)?;
    }
    let store = format!("{} ({})", store.display(), file_system(store));
    report.fact("store", &store)?;
    report.fact("placement", &placement.description())?;
    let client = if options.spin && placement.has_separate_cores() {
        "never sleeps, so that no server pays for waking it (durable cases: sleeps)"
    } else {
        "sleeps while it waits, so that the servers have to wake it"
    };
    report.fact("client", client)?;
    report.fact("cpu-clock", clock_source())?;
    report.fact("tls", certificate::DESCRIPTION)
}

/// Raises the limit of open files, which the servers inherit: they need one or two descriptors per connection, the
/// bench one. Returns the new limit.
pub fn raise_open_file_limit() -> u64 {
    /// More than any scenario needs. Servers may size tables by their limit, so it is not raised without bound.
    const ENOUGH: u64 = 32_768;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let now = limit.current.unwrap_or(ENOUGH);
    if now >= wanted {
        return now;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(_) => now,
    }
}

fn text_of(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end_matches(['\n', '\0']).to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// The model of the CPU, or of the board: x86 has it in /proc/cpuinfo, ARM boards have theirs in the device tree.
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

/// The number of cores of the machine, including those that this process may not use.
fn cores() -> String {
    let cpuinfo = text_of("/proc/cpuinfo");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor"));
    cores.count().to_string()
}

/// The frequency governor. With any but `performance`, CPU times vary with the frequency.
fn governor() -> String {
    text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

fn total_memory() -> String {
    let meminfo = text_of("/proc/meminfo");
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    total.map_or("unknown".to_owned(), |total| total.trim().to_owned())
}

/// The type of the file system at a path: that of the mount point which is its longest prefix.
fn file_system(path: &Path) -> String {
    let mounts = text_of("/proc/self/mountinfo");
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            let fs_type = after.split(' ').next()?;
            path.starts_with(point).then_some((point.len(), fs_type))
        })
        // Of several mounts at one point, the last is on top.
        .max_by_key(|(length, _)| *length)
        .map_or("unknown".to_owned(), |(_, fs_type)| fs_type.to_owned())
}
