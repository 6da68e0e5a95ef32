//! A server process: its start, its CPU time and memory, its end. Linux only: all numbers are read from `/proc/PID`
//! (proc(5)).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::outcome::Outcome;

/// The unit of the times in `/proc/PID/stat`. It is 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);
/// How long a server may take to exit before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel's count of a task's run time is exact while the task sleeps, and updated only at intervals while it runs.
/// This pause after the last response lets the server go to sleep.
const SETTLE: Duration = Duration::from_millis(5);

/// A running process; dropping it terminates the process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: &'static str,
    /// The file that receives its standard error.
    log: PathBuf,
}

/// CPU time of all threads since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// User and system time: in nanoseconds if the kernel counts them, else in ticks.
    pub total: Duration,
    /// In ticks.
    pub user: Duration,
    pub system: Duration,
    /// How often the first thread went to sleep to wait for something.
    pub sleeps: u64,
}

impl CpuTime {
    pub fn add(&mut self, more: CpuTime) {
        self.total += more.total;
        self.user += more.user;
        self.system += more.system;
        self.sleeps += more.sleeps;
    }

    /// The total, in microseconds.
    pub fn microseconds(&self) -> f64 {
        self.total.as_secs_f64() * 1e6
    }

    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            total: self.total.saturating_sub(earlier.total),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }
}

impl Process {
    /// Starts a program in a process group of its own, so that Ctrl-C reaches only the bench, which then terminates the
    /// program.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path) -> Outcome<Process> {
        let log = folder.join("stderr");
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let child = command
            // It would override the log level in the configuration.
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start {name}: {e}"))?;
        Ok(Process { child, name, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has exited, with the end of its log.
    pub fn check_running(&mut self) -> Outcome<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!(
                "{} has exited ({status}). Its log ends: {}",
                self.name,
                self.log_tail()
            )),
            Err(e) => Err(format!("{}: {e}", self.name)),
        }
    }

    /// The end of its standard error.
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(2000)..];
        let text = String::from_utf8_lossy(tail).trim().to_owned();
        if text.is_empty() {
            "(empty)".to_owned()
        } else {
            text
        }
    }

    pub fn cpu(&self) -> Outcome<CpuTime> {
        thread::sleep(SETTLE);
        let stat = self.read("stat")?;
        let (user, system) = ticks(&stat).ok_or_else(|| self.unexpected("stat"))?;
        let exact = threads_run_time(&format!("/proc/{}/task", self.child.id()));
        Ok(CpuTime {
            total: exact.unwrap_or(user + system),
            user,
            system,
            sleeps: self.status_number("voluntary_ctxt_switches:")?,
        })
    }

    /// Resets [`Process::peak_memory`]. If the kernel does not support this, the peak remains that since the start.
    pub fn reset_peak_memory(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// The largest resident set so far, in bytes.
    pub fn peak_memory(&self) -> Outcome<u64> {
        self.status_bytes("VmHWM:")
    }

    /// The resident set, in bytes.
    pub fn resident_memory(&self) -> Outcome<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The part of the resident set that maps no file, in bytes: heap and stack.
    pub fn anonymous_memory(&self) -> Outcome<u64> {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, key: &str) -> Outcome<u64> {
        Ok(self.status_number(key)? * 1024)
    }

    /// A number from `/proc/PID/status`, without the unit.
    fn status_number(&self, key: &str) -> Outcome<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .ok_or_else(|| self.unexpected("status"))
    }

    fn read(&self, file: &str) -> Outcome<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).map_err(|e| format!("{path} of {}: {e}", self.name))
    }

    fn unexpected(&self, file: &str) -> String {
        format!(
            "/proc/{}/{file} of {} has an unexpected format",
            self.child.id(),
            self.name
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The child has not been waited for, so no other process can have its id.
            if !matches!(self.child.try_wait(), Ok(Some(_))) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where [`CpuTime::total`] comes from on this machine, for the report.
pub fn clock_source() -> &'static str {
    match threads_run_time("/proc/self/task") {
        Some(_) => "schedstat (nanoseconds)",
        None => "stat (ticks of 10 ms)",
    }
}

/// The sum of the run times of a process's threads, if the kernel counts them (CONFIG_SCHED_INFO).
fn threads_run_time(folder: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(folder).ok()? {
        // A thread may exit between listing and reading.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else {
            continue;
        };
        sum += Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
    }
    (sum > Duration::ZERO).then_some(sum)
}

/// User and system time of all threads, including those that have exited. The name in parentheses may contain any
/// character, so fields are counted from the last closing parenthesis.
fn ticks(stat: &str) -> Option<(Duration, Duration)> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((TICK * user, TICK * system))
}
