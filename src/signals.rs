//! Signals, as bytes in pipes that the loop polls.
//!
//! They are taken over before anything else is done, so that none of them ever meets the system's default action. What
//! they ask for depends on how far the start has come:
//!
//! - while the configuration is read nothing is open yet: SIGTERM and SIGINT end the process at once, with exit code 0,
//!   even if that reading blocks (a file on a network, a FIFO);
//! - from [`Signals::defer`] on the loop decides, as soon as it runs. Until then a second SIGTERM or SIGINT ends the
//!   process at once;
//! - from [`Signals::watch`] on the loop alone decides.
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

/// The exit code of an end that was asked for.
const SUCCESS: i32 = 0;

/// The two things that a signal can ask for.
#[derive(Debug)]
pub struct Signals {
    terminate: UnixStream,
    interrupt: UnixStream,
    reload: UnixStream,
    /// Whether the next SIGTERM or SIGINT ends the process in its handler.
    immediate: Arc<AtomicBool>,
    /// The actions that do so; empty once the loop watches.
    early: Vec<SigId>,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// How often SIGTERM and SIGINT came.
    pub terminate: usize,
    pub interrupt: usize,
    pub reload: bool,
}

impl Signals {
    /// Takes SIGTERM, SIGINT and SIGHUP over from the system's defaults. SIGXFSZ is of no interest, but must not end the
    /// process: the write that went over the limit of file sizes says so, too.
    pub fn register() -> io::Result<Signals> {
        let immediate = Arc::new(AtomicBool::new(true));
        let mut early = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal sets the flag, and the next one finds it set.
            let flag = Arc::clone(&immediate);
            early.push(flag::register_conditional_shutdown(signal, SUCCESS, flag)?);
            early.push(flag::register(signal, Arc::clone(&immediate))?);
        }
        let take_over = |signal| -> io::Result<UnixStream> {
            let (receiver, sender) = UnixStream::pair()?;
            pipe::register(signal, sender)?;
            Ok(receiver)
        };
        let signals = Signals {
            reload: take_over(SIGHUP)?,
            terminate: take_over(SIGTERM)?,
            interrupt: take_over(SIGINT)?,
            immediate,
            early,
        };
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(signals)
    }

    /// From now on there is something to close: what comes is kept for the loop.
    pub fn defer(&self) {
        self.immediate.store(false, Ordering::SeqCst);
    }

    /// Hands the signals to the loop, those that came before too.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        for pipe in [&mut self.terminate, &mut self.interrupt, &mut self.reload] {
            registry.register(pipe, token, Interest::READABLE)?;
        }
        self.end_early_actions();
        Ok(())
    }

    /// Takes what came.
    pub fn take(&mut self) -> Asked {
        Asked {
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

/// After a start that failed a signal changes nothing: the exit code tells of the failure.
impl Drop for Signals {
    fn drop(&mut self) {
        self.end_early_actions();
    }
}

fn drain(pipe: &mut UnixStream) -> usize {
    let mut buffer = [0; 64];
    let mut count = 0;
    // Until it would block, as edges demand.
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        count += n;
    }
    count
}
