//! The temporary folder, and the signals that end the bench early: whatever happens, the folder goes and the servers
//! are ended.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Outcome;

/// A folder of this run alone; removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(below: &Path) -> Outcome<Scratch> {
        let below = below
            .canonicalize()
            .map_err(|e| format!("{}: {e}", below.display()))?;
        let path = below.join(format!("upslot-bench-{}", process::id()));
        // Fails where the name is taken, so that nothing of anybody else's is ever removed.
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Scratch { path }),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    pub fn folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.path.join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the user sees the folder's name in TMPDIR if this fails.
        let _ = fs::remove_dir_all(&self.path);
    }
}

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
