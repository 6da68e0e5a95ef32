//! The state of the clock that outlives a restart: one small file per boot, in the internal folder. Nodes that share a
//! store have their own boots, and so their own files.
//!
//! A record is replaced as a whole: written beside the old one, synced, renamed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::clock::Record;
use crate::store::{Store, UNFINISHED};
use crate::sys;

/// The folder in the internal folder.
const FOLDER: &str = "clock";

/// Maximum number of records read; usually there are few.
const MOST: usize = 64;

impl Store {
    /// All complete records, each with the ID of its boot.
    pub fn clock_records(&self) -> Vec<(String, Record)> {
        let names = self.clock_record_names();
        let mut records = Vec::with_capacity(names.len());
        for name in names {
            if name.ends_with(UNFINISHED) {
                continue;
            }
            let text = self.read_internal(&format!("{FOLDER}/{name}"));
            let record = text.ok().flatten().and_then(|text| Record::parse(&text));
            records.extend(record.map(|record| (name, record)));
        }
        records
    }

    /// Writes a new record under a temporary name; the file must be synced before [`Store::name_clock_record`].
    pub fn write_clock_record(&self, name: &str, record: &Record) -> io::Result<Arc<OwnedFd>> {
        if sys::create_folder(&self.internal, FOLDER.as_bytes(), self.mode(0o700))? {
            // Once in the life of a store, so that later only this folder has to be synced.
            rustix::fs::fsync(&self.internal)?;
            rustix::fs::fsync(&self.root)?;
        }
        let folder = self.clock_folder()?;
        let file = sys::open_replacing(
            &folder,
            format!("{name}{UNFINISHED}").as_bytes(),
            self.mode(0o600),
        )?;
        sys::write_all(&file, record.to_text().as_bytes())?;
        Ok(Arc::new(file))
    }

    /// Replaces the previous record by the one written. Returns the folder whose entries have changed.
    pub fn name_clock_record(&self, name: &str) -> io::Result<OwnedFd> {
        let folder = self.clock_folder()?;
        let written = format!("{name}{UNFINISHED}");
        sys::rename(&folder, written.as_bytes(), name.as_bytes())?;
        Ok(folder)
    }

    /// Removes all other records, whose content this one has taken over.
    pub fn drop_other_clock_records(&self, name: &str) {
        let Ok(folder) = self.clock_folder() else {
            return;
        };
        for other in self.clock_record_names() {
            if other != name {
                let _ = sys::remove_file(&folder, other.as_bytes());
            }
        }
    }

    fn clock_folder(&self) -> io::Result<OwnedFd> {
        sys::open_folder_below(self.internal.as_fd(), FOLDER.as_bytes())
    }

    fn clock_record_names(&self) -> Vec<String> {
        let Ok(entries) = self
            .clock_folder()
            .and_then(|f| Ok(rustix::fs::Dir::new(f)?))
        else {
            return Vec::new();
        };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().to_str().ok()?;
            (!name.starts_with('.')).then(|| name.to_owned())
        });
        let mut names: Vec<String> = names.take(MOST).collect();
        names.sort_unstable();
        names
    }
}
