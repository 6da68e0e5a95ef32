//! Runs the first thread of a process instruction by instruction (ptrace(2), PTRACE_SINGLESTEP) or from one system call
//! to the next (PTRACE_SYSCALL), and counts.
//!
//! Nothing but the time differs from a normal run: the kernel executes the system calls, unlike under valgrind, which
//! lacks some of those that upslot needs. Hardware counters are missing in most virtual machines. The numbers of system
//! calls are found in the registers, which are those of x86-64.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::outcome::Outcome;
use crate::placement::{Placement, thread_id};
use crate::stop::StopSignal;

/// Interrupts the wait of a process for its next event. Programs ignore it by default, and it is not delivered.
const WAKE: Signal = Signal::SIGWINCH;
/// Between two looks at the state of the process.
const LOOK: Duration = Duration::from_millis(2);
/// The result of a system call that has not ended: -ENOSYS.
const NOT_YET: u64 = -38_i64 as u64;
/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How far a process runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Instruction,
    /// Much faster; instructions are not counted.
    SystemCall,
}

#[derive(Debug, Default)]
struct Shared {
    instructions: AtomicU64,
    /// By number.
    system_calls: Mutex<BTreeMap<u64, u64>>,
    /// Set to let the process run freely again.
    done: AtomicBool,
}

/// What a process did since the stepper was attached.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub instructions: u64,
    /// By number.
    pub system_calls: BTreeMap<u64, u64>,
}

impl Counts {
    pub fn since(mut self, earlier: &Counts) -> Counts {
        self.instructions -= earlier.instructions;
        for (number, count) in &earlier.system_calls {
            if let Some(now) = self.system_calls.get_mut(number) {
                *now -= count;
            }
        }
        self.system_calls.retain(|_, count| *count > 0);
        self
    }
}

/// A process that runs step by step until this is detached.
#[derive(Debug)]
pub struct Stepper {
    pid: Pid,
    shared: Arc<Shared>,
    /// Makes all calls of ptrace, which the kernel accepts only from the thread that attached.
    thread: JoinHandle<Outcome<()>>,
}

impl Stepper {
    /// Attaches to a process. Needs the right to trace it: that of root, because upslot does not let other processes of
    /// its user read its memory.
    pub fn attach(pid: u32, step: Step, placement: &Placement) -> Outcome<Stepper> {
        let pid = Pid::from_raw(pid.try_into().map_err(|_| "the process id is too large")?);
        let shared = Arc::new(Shared::default());
        let (attached, ready) = mpsc::channel();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("stepper".to_owned())
            .spawn(move || run(pid, step, &of_thread, &attached))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        match ready.recv() {
            // On the core of the process, a step does not have to wake another one.
            Ok(thread) => {
                placement.move_thread_to_server_core(&thread);
            }
            Err(_) => {
                return thread
                    .join()
                    .unwrap_or(Ok(()))
                    .and(Err("not attached".into()));
            }
        }
        Ok(Stepper {
            pid,
            shared,
            thread,
        })
    }

    /// Waits until the process waits for its next event, and returns the counts.
    pub fn counts(&self, stop: &StopSignal) -> Outcome<Counts> {
        let start = Instant::now();
        let mut before = None;
        loop {
            let instructions = self.shared.instructions.load(Ordering::Acquire);
            if !is_asleep(self.pid) {
                before = None;
            } else if before.replace(instructions) == Some(instructions) {
                let calls = self.shared.system_calls.lock();
                return Ok(Counts {
                    instructions,
                    system_calls: calls.unwrap_or_else(PoisonError::into_inner).clone(),
                });
            }
            stop.check()?;
            if self.thread.is_finished() || start.elapsed() > TIMEOUT {
                return Err("the server did not become idle while it ran step by step".to_owned());
            }
            thread::sleep(LOOK);
        }
    }

    /// Lets the process run freely again.
    pub fn detach(self) -> Outcome<()> {
        self.shared.done.store(true, Ordering::Release);
        kill(self.pid, WAKE).map_err(|e| format!("kill: {e}"))?;
        self.thread.join().map_err(|_| "the stepper panicked")?
    }
}

/// Whether the process sleeps until an event, in contrast to stopping for a step.
fn is_asleep(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|rest| rest.starts_with('S'))
}

/// The thread of a stepper.
fn run(pid: Pid, step: Step, shared: &Shared, attached: &Sender<String>) -> Outcome<()> {
    let failed = |what: &'static str| move |e: Errno| format!("ptrace: {what}: {e}");
    ptrace::seize(pid, ptrace::Options::empty()).map_err(failed("attach (are you root?)"))?;
    ptrace::interrupt(pid).map_err(failed("interrupt"))?;
    attached
        .send(thread_id().unwrap_or_default())
        .map_err(|_| "the bench has ended")?;
    let mut last = 0;
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::__WALL)).map_err(failed("wait"))?;
        let deliver = match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let registers = ptrace::getregs(pid).map_err(failed("read registers"))?;
                match step {
                    // A repeated string instruction counts once, however long the string is: whether the C library
                    // uses it depends on the CPU.
                    Step::Instruction if registers.rip == last => {}
                    Step::Instruction => {
                        last = registers.rip;
                        shared.instructions.fetch_add(1, Ordering::Release);
                    }
                    Step::SystemCall => {}
                }
                let ended = step == Step::Instruction || registers.rax != NOT_YET;
                // Behind an instruction that is no system call, it is -1.
                if i64::try_from(registers.orig_rax).is_ok() && ended {
                    let calls = shared.system_calls.lock();
                    let mut calls = calls.unwrap_or_else(PoisonError::into_inner);
                    *calls.entry(registers.orig_rax).or_default() += 1;
                }
                None
            }
            WaitStatus::Stopped(_, WAKE) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceEvent(..) => None,
            other => return Err(format!("the server has ended: {other:?}")),
        };
        if shared.done.load(Ordering::Acquire) {
            return ptrace::detach(pid, deliver).map_err(failed("detach"));
        }
        let next = match step {
            Step::Instruction => ptrace::step(pid, deliver),
            Step::SystemCall => ptrace::syscall(pid, deliver),
        };
        next.map_err(failed("step"))?;
    }
}
