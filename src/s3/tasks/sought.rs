//! Files that are looked for in a list of objects.

use crate::layout::{FileId, StorePath};

/// Which files are looked for, and which were found.
#[derive(Debug, Default)]
pub struct SoughtFiles {
    /// Sorted.
    wanted: Vec<FileId>,
    found: Vec<FileId>,
}

impl SoughtFiles {
    pub fn new(mut wanted: Vec<FileId>) -> SoughtFiles {
        wanted.sort_unstable();
        SoughtFiles {
            wanted,
            found: Vec::new(),
        }
    }

    /// A list shows this file.
    pub fn look_at(&mut self, path: &StorePath) {
        if self.wanted.is_empty() {
            return;
        }
        let file = FileId::of(path);
        if self.wanted.binary_search(&file).is_ok() {
            self.found.push(file);
        }
    }

    /// Those that were found, sorted.
    pub fn finish(mut self) -> Vec<FileId> {
        self.found.sort_unstable();
        self.found
    }
}
