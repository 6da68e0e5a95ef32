//! Which cores the bench and the servers run on. Where the kernel chooses, a server that happens to share the
//! client's core answers a lone request for a third of the CPU time that waking another core takes; a comparison then
//! measures the scheduler. So the client gets the first core and the server that is measured the last one.

use std::fs;
use std::process::{self, Command, Stdio};

/// The cores that this process may use.
#[derive(Debug)]
pub struct Placement {
    /// As the kernel writes it: `0-3,6`.
    all: String,
    /// The client's and the server's; none where nothing can be chosen.
    chosen: Option<(String, String)>,
}

impl Placement {
    /// Puts the bench on its core, where there is more than one and util-linux's taskset is at hand. Threads and
    /// processes that are started later begin there, too.
    pub fn new() -> Placement {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let all = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        let first = all.split(['-', ',']).next().unwrap_or_default().to_owned();
        let last = all.rsplit(['-', ',']).next().unwrap_or_default().to_owned();
        let possible = first != last && put(process::id(), &first);
        Placement {
            all,
            chosen: possible.then_some((first, last)),
        }
    }

    /// Gives a server one core, or all: one whose helper threads wait for the disk needs them.
    pub fn place(&self, pid: u32, alone: bool) {
        if let Some((_, last)) = &self.chosen {
            put(pid, if alone { last } else { &self.all });
        }
    }

    /// Whether client and server have a core each.
    pub fn apart(&self) -> bool {
        self.chosen.is_some()
    }

    /// Moves one thread of this process to the server's core; false where nothing can be chosen.
    pub fn place_beside_server(&self, thread: &str) -> bool {
        let chosen = self.chosen.as_ref();
        chosen.is_some_and(|(_, server)| taskset(&["-p", "-c", server, thread]))
    }

    /// For the user.
    pub fn shown(&self) -> String {
        match &self.chosen {
            Some((client, server)) => {
                format!("client on core {client}, server on core {server} (durable cases: any)")
            }
            None => "left to the kernel: no taskset, or one core only".to_owned(),
        }
    }
}

fn put(pid: u32, cores: &str) -> bool {
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
