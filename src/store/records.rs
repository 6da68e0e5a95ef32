//! What is to be known of the clock after a restart: one small file for each boot, in the internal folder. Nodes that
//! share a store have boots of their own, and so files of their own.
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

/// Records that are read; there are few.
const MOST: usize = 64;

impl Store {
    /// All whole records, each with the identity of its boot.
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

    /// Writes a record to be; the file is to be synced before [`Store::name_clock_record`].
    pub fn write_clock_record(&self, name: &str, record: &Record) -> io::Result<Arc<OwnedFd>> {
        sys::make_folder(&self.internal, FOLDER.as_bytes(), self.mode(0o700))?;
        let folder = self.clock_folder()?;
        let file = sys::open_replacing(
            &folder,
            format!("{name}{UNFINISHED}").as_bytes(),
            self.mode(0o600),
        )?;
        let text = record.to_text();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            rest = &rest[sys::write(&file, rest)?..];
        }
        Ok(Arc::new(file))
    }

    /// Puts the written record in the place of the one before. Returns the folders whose entries have changed, from the
    /// outside in.
    pub fn name_clock_record(&self, name: &str) -> io::Result<Vec<OwnedFd>> {
        let folder = self.clock_folder()?;
        let written = format!("{name}{UNFINISHED}");
        sys::rename(&folder, written.as_bytes(), name.as_bytes())?;
        Ok(vec![
            self.root.try_clone()?,
            self.internal.try_clone()?,
            folder,
        ])
    }

    /// Removes all records but this one, which has taken over what they say.
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
