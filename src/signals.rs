//! Signals, as bytes in pipes that the loop polls.
//!
//! The handlers are installed before anything else, so that the default actions never apply. Their effect depends on the
//! stage of the start:
//!
//! - while the configuration is read, nothing is open yet: SIGTERM and SIGINT end the process at once, with exit code 0,
//!   even if reading blocks (a network file system, a FIFO);
//! - after [`Signals::defer`] they wait for the loop, but a second SIGTERM or SIGINT ends the process at once;
//! - after [`Signals::watch`] only the loop handles them.
//!
//! SIGHUP always waits for the loop, which then reads the configuration again.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::{pipe, unregister};

/// Exit code after a requested shutdown.
const SUCCESS: i32 = 0;

/// The pipes that signals are written to.
#[derive(Debug)]
pub struct Signals {
    terminate: UnixStream,
    interrupt: UnixStream,
    reload: UnixStream,
    /// Whether the next SIGTERM or SIGINT ends the process in its handler.
    immediate: Arc<AtomicBool>,
    /// The handlers that do so; empty once the loop watches.
    early: Vec<SigId>,
}

/// The signals since the last call of [`Signals::take`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingSignals {
    /// Number of SIGTERM, and of SIGINT.
    pub terminate: usize,
    pub interrupt: usize,
    pub reload: bool,
}

impl Signals {
    /// Installs handlers of SIGTERM, SIGINT and SIGHUP. SIGXFSZ is caught so that it does not end the process: the write
    /// that exceeds the limit of file sizes returns an error, too.
    pub fn register() -> io::Result<Signals> {
        let immediate = Arc::new(AtomicBool::new(true));
        let mut early = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal sets the flag, and the next one finds it set.
            let flag = Arc::clone(&immediate);
            early.push(flag::register_conditional_shutdown(signal, SUCCESS, flag)?);
            early.push(flag::register(signal, Arc::clone(&immediate))?);
        }
        let pipe_to = |signal| -> io::Result<UnixStream> {
            let (receiver, sender) = UnixStream::pair()?;
            pipe::register(signal, sender)?;
            Ok(receiver)
        };
        let signals = Signals {
            reload: pipe_to(SIGHUP)?,
            terminate: pipe_to(SIGTERM)?,
            interrupt: pipe_to(SIGINT)?,
            immediate,
            early,
        };
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(signals)
    }

    /// From now on there are resources to close: the first signal waits for the loop.
    pub fn defer(&self) {
        self.immediate.store(false, Ordering::SeqCst);
    }

    /// Registers the pipes with the loop, which also sees earlier signals.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        for pipe in [&mut self.terminate, &mut self.interrupt, &mut self.reload] {
            registry.register(pipe, token, Interest::READABLE)?;
        }
        self.end_early_actions();
        Ok(())
    }

    /// Takes the pending signals.
    pub fn take(&mut self) -> PendingSignals {
        PendingSignals {
            terminate: drain(&mut self.terminate),
            interrupt: drain(&mut self.interrupt),
            reload: drain(&mut self.reload) > 0,
        }
    }

    fn end_early_actions(&mut self) {
        for action in self.early.drain(..) {
            unregister(action);
        }
    }
}

/// After a failed start, a signal does not change the exit code.
impl Drop for Signals {
    fn drop(&mut self) {
        self.end_early_actions();
    }
}

fn drain(pipe: &mut UnixStream) -> usize {
    let mut buffer = [0; 64];
    let mut count = 0;
    // Until it would block, because events are edge-triggered.
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        count += n;
    }
    count
}
