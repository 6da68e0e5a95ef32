//! Which cores the bench and the servers run on. If the kernel chooses, a server that happens to share the client's
//! core spends a third of the CPU time on a single request that it spends if it has to wake another core, and a
//! comparison measures the scheduler. So the client is pinned to the first core and the measured server to the last.

use std::fs;
use std::process::{self, Command, Stdio};

/// The cores that this process may use, and how they are assigned.
#[derive(Debug)]
pub struct Placement {
    /// All of them, in the kernel's notation: `0-3,6`.
    allowed: String,
    /// The client's core and the server's; none if processes cannot be pinned.
    cores: Option<(String, String)>,
}

impl Placement {
    /// Pins the bench to its core, if there are several and util-linux's taskset is installed. Threads and processes
    /// that are started later inherit this.
    pub fn new() -> Placement {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        let first = allowed
            .split(['-', ','])
            .next()
            .unwrap_or_default()
            .to_owned();
        let last = allowed
            .rsplit(['-', ','])
            .next()
            .unwrap_or_default()
            .to_owned();
        let possible = first != last && pin(process::id(), &first);
        Placement {
            allowed,
            cores: possible.then_some((first, last)),
        }
    }

    /// Pins a server to its core, or lets it use all: a server with helper threads that wait for the disk needs them.
    pub fn place_server(&self, pid: u32, own_core: bool) {
        if let Some((_, last)) = &self.cores {
            pin(pid, if own_core { last } else { &self.allowed });
        }
    }

    /// Whether client and server each have a core of their own.
    pub fn has_separate_cores(&self) -> bool {
        self.cores.is_some()
    }

    /// Moves a thread of this process to the server's core; false if threads cannot be pinned.
    pub fn move_thread_to_server_core(&self, thread: &str) -> bool {
        let cores = self.cores.as_ref();
        cores.is_some_and(|(_, server)| taskset(&["-p", "-c", server, thread]))
    }

    /// For the report.
    pub fn description(&self) -> String {
        match &self.cores {
            Some((client, server)) => {
                format!("client on core {client}, server on core {server} (durable cases: any)")
            }
            None => "left to the kernel: taskset is missing, or there is only one core".to_owned(),
        }
    }
}

fn pin(pid: u32, cores: &str) -> bool {
    taskset(&["-a", "-p", "-c", cores, &pid.to_string()])
}

fn taskset(arguments: &[&str]) -> bool {
    let status = Command::new("taskset")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The kernel's id of this thread.
pub fn thread_id() -> Option<String> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}
