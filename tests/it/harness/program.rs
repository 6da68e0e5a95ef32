//! The child process: started, observed through its log, stopped and checked.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// The program under test: the one that was built with these tests, or the one that `UPSLOT_BIN` names.
fn binary() -> OsString {
    std::env::var_os("UPSLOT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_upslot").into())
}

/// What runs the program: itself, or the emulator that `UPSLOT_EMULATOR` names.
pub fn command_line() -> Vec<OsString> {
    let emulator = std::env::var_os("UPSLOT_EMULATOR");
    emulator.into_iter().chain([binary()]).collect()
}

/// A command that starts the program under test, without arguments so far.
pub fn command() -> Command {
    let line = command_line();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

/// Lines of standard error so far, and whether more may come.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

#[derive(Debug)]
pub struct Program {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    /// A WARN or ERROR line is expected if it contains one of these.
    allowed: Vec<String>,
    /// Must not appear in the log.
    secrets: Vec<String>,
    ended: Option<ExitStatus>,
    /// SIGTERM or SIGINT was sent.
    signalled: bool,
}

impl Program {
    /// Starts `upslot -c config`; `descriptors` is its limit of open files, set by the shell.
    pub fn start(config: &Path, descriptors: Option<u64>, more: &[&str]) -> Program {
        let mut command = match descriptors {
            None => self::command(),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]);
                shell.args(command_line());
                shell
            }
        };
        command.arg("-c").arg(config).args(more);
        Program::spawn(command)
    }

    /// Starts the program by a given command, with its own environment, user or arguments.
    pub fn spawn(mut command: Command) -> Program {
        command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let filled = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.split(b'\n') {
                let Ok(line) = line else { break };
                let mut state = filled.state.lock().unwrap();
                state.0.push(String::from_utf8_lossy(&line).into_owned());
                filled.changed.notify_all();
            }
            filled.state.lock().unwrap().1 = true;
            filled.changed.notify_all();
        });
        Program {
            child,
            log,
            reader: Some(reader),
            // Limits without a unit are usual in tests and usually mistakes elsewhere.
            allowed: vec!["has no unit".to_owned()],
            secrets: Vec::new(),
            ended: None,
            signalled: false,
        }
    }

    /// WARN and ERROR lines that contain this are expected, also earlier ones.
    pub fn allow(&mut self, part: &str) {
        self.allowed.push(part.to_owned());
    }

    /// The log must never contain this.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.state.lock().unwrap().0.clone()
    }

    /// The first line that contains all `parts`.
    #[track_caller]
    pub fn wait_line(&self, parts: &[&str]) -> String {
        self.wait_lines(parts, 1).remove(0)
    }

    /// The first `count` lines that contain all `parts`.
    #[track_caller]
    pub fn wait_lines(&self, parts: &[&str], count: usize) -> Vec<String> {
        self.wait_lines_for(parts, count, PATIENCE)
    }

    #[track_caller]
    pub fn wait_lines_for(&self, parts: &[&str], count: usize, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.log.state.lock().unwrap();
        loop {
            let found: Vec<String> = state
                .0
                .iter()
                .filter(|line| parts.iter().all(|part| line.contains(part)))
                .take(count)
                .cloned()
                .collect();
            if found.len() == count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                let lines = state.0.join("\n");
                // The reader and the end of the program need the lock after a panic, too.
                drop(state);
                panic!("no {count} log lines with {parts:?} in:\n{lines}");
            }
            state = self.log.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Where the `count` listeners of the configuration are, such as `http://127.0.0.1:43121`.
    #[track_caller]
    pub fn listening(&self, count: usize) -> Vec<String> {
        self.wait_lines(&["listening ", "on="], count)
            .iter()
            .map(|line| value_of(line, "on").unwrap())
            .collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&mut self, signal: Signal) {
        self.signalled |= matches!(signal, Signal::TERM | Signal::INT);
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// A signal for a program that may be ending by itself.
    pub fn signal_if_running(&mut self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for the end; its exit code, `None` after a fatal signal.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        self.exit_within(PATIENCE)
            .unwrap_or_else(|| panic!("still running; log:\n{}", self.lines().join("\n")))
            .code()
    }

    /// Its exit status, if it ends in time.
    pub fn exit_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // The log ends when the process does: an event to wait for.
            let deadline = Instant::now() + patience;
            let mut state = self.log.state.lock().unwrap();
            while !state.1 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                state = self.log.changed.wait_timeout(state, left).unwrap().0;
            }
            drop(state);
            self.ended = Some(self.child.wait().unwrap());
            if let Some(reader) = self.reader.take() {
                reader.join().unwrap();
            }
        }
        self.ended
    }

    /// Whether the exit status is known.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Waits until it catches SIGHUP, SIGINT and SIGTERM.
    #[track_caller]
    pub fn catches_signals(&self) {
        const CAUGHT: u64 = 1 | 1 << 1 | 1 << 14;
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/proc/{}/status", self.pid());
        loop {
            let status = std::fs::read_to_string(&path).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            if caught.is_some_and(|mask| mask & CAUGHT == CAUGHT) {
                return;
            }
            assert!(Instant::now() < deadline, "signals are not caught");
            thread::yield_now();
        }
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().unwrap();
            self.ended = Some(self.child.wait().unwrap());
        }
    }

    /// A number of `/proc/<pid>/status`, in KiB: `VmRSS`, `VmHWM`.
    pub fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Processor time used so far, in clock ticks (a hundredth of a second on Linux).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Voluntary context switches so far, summed over all threads.
    fn sleeps(&self) -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let sleeps = threads.filter_map(|thread| {
            // A thread may end in between.
            let status = std::fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        });
        sleeps.sum()
    }

    /// Asserts that the program is idle: for one second it uses at most 2 % of a processor and wakes at most 20 times.
    /// Running work has a few seconds to finish. The state must last longer than that, so that a busy loop is seen.
    #[track_caller]
    pub fn assert_idle(&self, state: &str) {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let (ticks, sleeps) = (self.cpu_ticks(), self.sleeps());
            thread::sleep(Duration::from_secs(1));
            let used = self.cpu_ticks() - ticks;
            let woken = self.sleeps().saturating_sub(sleeps);
            if used <= 2 && woken <= 20 {
                return;
            }
            seen.push((used, woken));
        }
        panic!("{state}: not idle; ticks and wake-ups per second: {seen:?}");
    }

    /// Open descriptors that are sockets.
    pub fn sockets(&self) -> usize {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        folder
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Every line is a log line, no line contains a secret, and every warning or error is expected.
    fn check_log(&self) {
        let lines = self.lines();
        for line in &lines {
            let whole = lines.join("\n");
            let Some(level) = level_of(line) else {
                panic!("not a log line: {line:?} in:\n{whole}");
            };
            assert!(!line.contains("sig="), "a signature in the log: {line}");
            assert!(
                !line.chars().any(char::is_control),
                "a control character in the log: {line:?}"
            );
            for secret in &self.secrets {
                assert!(
                    !line.contains(secret.as_str()),
                    "a secret in the log: {line}"
                );
            }
            assert!(
                !matches!(level, "WARN" | "ERROR")
                    || self.allowed.iter().any(|part| line.contains(part.as_str())),
                "unexpected: {line}\nin:\n{whole}"
            );
        }
    }
}

impl Drop for Program {
    /// Stops the program, which must exit with 0 unless the test stopped it; then checks its log.
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("log of the program:\n{}", self.lines().join("\n"));
            return;
        }
        let running = self.ended.is_none();
        if running {
            // A second signal would force the shutdown.
            if !self.signalled {
                self.signal(Signal::TERM);
            }
            if self.exit_within(PATIENCE).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("did not end on SIGTERM; log:\n{}", self.lines().join("\n"));
            }
        }
        if let Some(status) = self.ended {
            if running {
                assert_eq!(
                    status.code(),
                    Some(0),
                    "{status:?}, log:\n{}",
                    self.lines().join("\n")
                );
            }
            assert!(
                matches!(status.signal(), None | Some(2 | 9 | 15)),
                "died of {status:?}, log:\n{}",
                self.lines().join("\n")
            );
        }
        self.check_log();
    }
}

/// Copies the program under test. A child process writes the copy: if this process did, a child that another test
/// starts meanwhile would inherit the descriptor, and the copy could not be executed (ETXTBSY).
#[track_caller]
pub fn copy_program(to: &Path) {
    let status = Command::new("cp").arg(binary()).arg(to).status().unwrap();
    assert!(status.success(), "cp: {status}");
}

/// Runs the program in a folder until it exits; its exit code and its output.
#[track_caller]
pub fn run(arguments: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut command = command();
    command
        .args(arguments)
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    let outputs: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    for mut output in outputs {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = output.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    let mut said = String::new();
    for _ in 0..2 {
        let Ok(bytes) = receiver.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?} does not exit; output so far:\n{said}");
        };
        said += &String::from_utf8(bytes).unwrap();
    }
    let code = child.wait().unwrap().code();
    assert!(!said.contains("panicked"), "{said}");
    (code, said)
}

/// The level of `2026-11-21T22:49:55.123Z INFO  text`, if the line has that form.
fn level_of(line: &str) -> Option<&'static str> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000Z ";
    let bytes = line.as_bytes();
    if bytes.len() < SHAPE.len() {
        return None;
    }
    let alike = |(&byte, &shape): (&u8, &u8)| {
        if shape == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == shape
        }
    };
    if !bytes.iter().zip(SHAPE).all(alike) {
        return None;
    }
    let rest = &line[SHAPE.len()..];
    ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
        .into_iter()
        .find(|level| rest.starts_with(&format!("{level:5} ")))
}

/// The value of ` key=`, without its quotes.
pub fn value_of(line: &str, key: &str) -> Option<String> {
    let start = line.find(&format!(" {key}="))? + key.len() + 2;
    let rest = &line[start..];
    match rest.strip_prefix('"') {
        Some(quoted) => Some(quoted[..quoted.find('"')?].to_owned()),
        None => Some(rest.split(' ').next()?.to_owned()),
    }
}
