//! The signals that end the bench early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::common::outcome::Outcome;

/// Set by SIGINT, SIGTERM and SIGHUP. Looked at wherever the bench waits.
#[derive(Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    pub fn new() -> Outcome<Stop> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked))
                .map_err(|e| format!("signal {signal}: {e}"))?;
        }
        Ok(Stop { asked })
    }

    pub fn check(&self) -> Outcome<()> {
        if self.asked.load(Ordering::Relaxed) {
            return Err("Stopped by a signal.".to_owned());
        }
        Ok(())
    }
}
