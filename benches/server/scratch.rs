//! The temporary folder of a run.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;

use crate::common::outcome::Outcome;

/// A folder for this run only; dropping it removes it with its contents.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// `suffix` tells several folders of a run apart.
    pub fn new(below: &Path, suffix: &str) -> Outcome<Scratch> {
        let below = below
            .canonicalize()
            .map_err(|e| format!("{}: {e}", below.display()))?;
        let path = below.join(format!("upslot-bench-{}{suffix}", process::id()));
        // Fails if the name is taken, so that no existing folder is ever removed.
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Scratch { path }),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a folder in it.
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
        // Best effort: if this fails, the folder is left in TMPDIR under a name that says where it comes from.
        let _ = fs::remove_dir_all(&self.path);
    }
}
