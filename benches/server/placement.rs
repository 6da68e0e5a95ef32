//! Which cores the bench and the servers run on. Where the kernel chooses, a server that happens to share the
//! client's core answers a lone request for a third of the CPU time that waking another core takes; a comparison then
//! measures the scheduler. So the client gets the first core and the server that is measured the last one.

use std::fs;
use std::process::{self, Command, Stdio};

/// The cores that this process may use.
#[derive(Debug)]
pub struct Placement {
    /// As the kernel writes it: `0-3,6`.
    allowed: String,
    /// The client's and the server's; none where nothing can be cores.
    cores: Option<(String, String)>,
}

impl Placement {
    /// Puts the bench on its core, where there is more than one and util-linux's taskset is at hand. Threads and
    /// processes that are started later begin there, too.
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

    /// Gives a server one core, or allowed: one whose helper threads wait for the disk needs them.
    pub fn place_server(&self, pid: u32, alone: bool) {
        if let Some((_, last)) = &self.cores {
            pin(pid, if alone { last } else { &self.allowed });
        }
    }

    /// Whether client and server have a core each.
    pub fn has_separate_cores(&self) -> bool {
        self.cores.is_some()
    }

    /// Moves one thread of this process to the server's core; false where nothing can be cores.
    pub fn move_thread_to_server_core(&self, thread: &str) -> bool {
        let cores = self.cores.as_ref();
        cores.is_some_and(|(_, server)| taskset(&["-p", "-c", server, thread]))
    }

    /// For the user.
    pub fn description(&self) -> String {
        match &self.cores {
            Some((client, server)) => {
                format!("client on core {client}, server on core {server} (durable cases: any)")
            }
            None => "left to the kernel: no taskset, or one core only".to_owned(),
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
