//! The signals that stop the bench early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::common::outcome::Outcome;

/// Set by SIGINT, SIGTERM and SIGHUP; checked wherever the bench waits.
#[derive(Debug)]
pub struct StopSignal {
    requested: Arc<AtomicBool>,
}

impl StopSignal {
    pub fn new() -> Outcome<StopSignal> {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&requested))
                .map_err(|e| format!("signal {signal}: {e}"))?;
        }
        Ok(StopSignal { requested })
    }

    pub fn check(&self) -> Outcome<()> {
        if self.requested.load(Ordering::Relaxed) {
            return Err("stopped by a signal".to_owned());
        }
        Ok(())
    }
}
