//! `upslot list`: the stored files of one owner, or the usage of all owners.
//!
//! It only reads the tree, so it works whether upslot is running or not. Memory does not grow with the number of files:
//! an owner's files are sorted in portions, and only the largest owners are listed, the rest as a sum.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::Config;
use crate::expiry::StoredFile;
use crate::layout::Owner;
use crate::now::date_time;
use crate::purpose::Purpose;
use crate::service::Service;
use crate::store::walk::{Owners, Walk, WalkMode, WalkStep};
use crate::sys;
use crate::units::{files, size};

/// Maximum number of files that are sorted together.
const PORTION: usize = 16_384;

/// Maximum number of owners listed; the others are summed.
const MAX_OWNERS: usize = 10_000;

/// Formats the lines of files.
#[derive(Debug)]
pub struct Lines {
    service: Service,
    get_prefix: String,
}

impl Lines {
    pub fn new(config: &Config) -> Lines {
        Lines {
            service: Service::unsigned(config),
            get_prefix: config.get_url.prefix.clone(),
        }
    }

    /// Time, size, purpose, expiry and URL of a file.
    pub fn line(&self, file: &StoredFile) -> String {
        let StoredFile {
            modified,
            path,
            size: bytes,
        } = file;
        let tag = path.tag();
        let purpose = tag.map_or(Purpose::Message, |tag| tag.purpose).word();
        let end = self.service.lifetime().end(tag, *modified);
        let end = end.map_or("never".to_owned(), date_time);
        format!(
            "{}  {:>10}  {purpose:<9}  {end:<20}  {}{}",
            date_time(*modified),
            size(*bytes),
            self.get_prefix,
            path.encoded()
        )
    }
}

/// Opens the storage folder; `None` when there is none yet.
pub(crate) fn open(config: &Config) -> Result<Option<OwnedFd>, String> {
    match sys::open_root(&config.storage_path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "storage_path {}: cannot open the folder: {error}.",
            config.storage_path.display()
        )),
    }
}

/// Files of one owner that are being listed, the oldest of each portion first.
#[derive(Debug)]
pub struct Listed {
    lines: Lines,
    portion: Vec<StoredFile>,
    number: u64,
    bytes: u64,
}

impl Listed {
    pub fn new(config: &Config) -> Listed {
        Listed {
            lines: Lines::new(config),
            portion: Vec::new(),
            number: 0,
            bytes: 0,
        }
    }

    /// Adds a file, and prints a portion that is complete.
    pub fn add(&mut self, file: StoredFile, out: &mut dyn Write) -> Result<(), String> {
        self.number += 1;
        self.bytes = self.bytes.saturating_add(file.size);
        self.portion.push(file);
        match self.portion.len() >= PORTION {
            true => self.flush(out),
            false => Ok(()),
        }
    }

    fn flush(&mut self, out: &mut dyn Write) -> Result<(), String> {
        self.portion.sort_unstable();
        for file in self.portion.drain(..) {
            say(out, &self.lines.line(&file))?;
        }
        Ok(())
    }

    /// Prints the rest, and the sum.
    pub fn finish(mut self, owner: &Owner, out: &mut dyn Write) -> Result<(), String> {
        self.flush(out)?;
        let text = match self.number {
            0 => format!("Nothing is stored of {owner}."),
            number => format!("{} of {owner}, {}.", files(number), size(self.bytes)),
        };
        say(out, &text)
    }
}

/// Lists the files of one owner, the oldest first.
pub fn one(config: &Config, owner: &Owner, out: &mut dyn Write) -> Result<(), String> {
    let mut listed = Listed::new(config);
    if let Some(root) = open(config)? {
        let folder = owner.folder();
        walk(root.as_fd(), folder.as_bytes(), WalkMode::Files, |file| {
            listed.add(file, out)
        })?;
    }
    listed.finish(owner, out)
}

/// The usage of all owners: the largest of them, and sums.
#[derive(Debug, Default)]
pub struct OwnerTotals {
    /// The smallest of the listed owners is on top.
    largest: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    /// Numbers of owners, files and bytes: of those that are not listed, and of all.
    others: (u64, u64, u64),
    all: (u64, u64, u64),
}

impl OwnerTotals {
    /// Adds an owner, unless nothing is stored.
    pub fn add(&mut self, folder: Vec<u8>, number: u64, bytes: u64) {
        if number == 0 {
            return;
        }
        self.all.0 += 1;
        self.all.1 += number;
        self.all.2 = self.all.2.saturating_add(bytes);
        self.largest.push(Reverse((bytes, number, folder)));
        if self.largest.len() > MAX_OWNERS {
            if let Some(Reverse((bytes, number, _))) = self.largest.pop() {
                self.others.0 += 1;
                self.others.1 += number;
                self.others.2 = self.others.2.saturating_add(bytes);
            }
        }
    }

    /// Prints the owners, the largest first.
    pub fn say(self, out: &mut dyn Write) -> Result<(), String> {
        say_owners(self.largest, self.others, self.all, out)
    }
}

/// Lists all owners, the largest first.
pub fn all(config: &Config, out: &mut dyn Write) -> Result<(), String> {
    let mut totals = OwnerTotals::default();
    if let Some(root) = open(config)? {
        let failed = |error: io::Error| cannot_read(b".", &error);
        let mut folders = Owners::new(root.as_fd()).map_err(failed)?;
        while let Some(folder) = folders.step() {
            let Some(folder) = folder else { continue };
            let (mut number, mut bytes) = (0u64, 0u64);
            walk(root.as_fd(), &folder, WalkMode::Files, |file| {
                number += 1;
                bytes = bytes.saturating_add(file.size);
                Ok(())
            })?;
            totals.add(folder, number, bytes);
        }
        if let Some(error) = folders.error() {
            return Err(cannot_read(b".", &error));
        }
    }
    totals.say(out)
}

/// Prints the largest owners, and the numbers of owners, files and bytes of the others and of all.
fn say_owners(
    largest: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    others: (u64, u64, u64),
    (owners, all_files, all_bytes): (u64, u64, u64),
    out: &mut dyn Write,
) -> Result<(), String> {
    // `Reverse` sorts the largest first.
    for Reverse((bytes, number, folder)) in largest.into_sorted_vec() {
        let line = format!(
            "{:>10}  {:>12}  {}",
            size(bytes),
            files(number),
            folder.escape_ascii()
        );
        say(out, &line)?;
    }
    if others.0 > 0 {
        let (owners, number, bytes) = others;
        let line = format!(
            "{:>10}  {:>12}  of {owners} smaller owners",
            size(bytes),
            files(number)
        );
        say(out, &line)?;
    }
    let text = match owners {
        0 => "Nothing is stored.".to_owned(),
        1 => format!("{} of 1 owner, {}.", files(all_files), size(all_bytes)),
        _ => format!(
            "{} of {owners} owners, {}.",
            files(all_files),
            size(all_bytes)
        ),
    };
    say(out, &text)
}

/// Visits the files of one owner. Something that is not a folder has no files.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    owner: &[u8],
    mode: WalkMode,
    mut visit: impl FnMut(StoredFile) -> Result<(), String>,
) -> Result<(), String> {
    let mut walk = match Walk::new(root, owner, mode) {
        Ok(walk) => walk,
        Err(error) if sys::is_no_folder(&error) => return Ok(()),
        Err(error) => return Err(cannot_read(owner, &error)),
    };
    loop {
        match walk.step(root) {
            WalkStep::File(file) => visit(file)?,
            WalkStep::Named(..) | WalkStep::Other => {}
            WalkStep::Done => break,
        }
    }
    match walk.error() {
        Some(error) => Err(cannot_read(owner, &error)),
        None => Ok(()),
    }
}

fn cannot_read(folder: &[u8], error: &io::Error) -> String {
    format!("cannot read {}: {error}.", folder.escape_ascii())
}

/// Prints a line. A closed pipe is not an error.
pub(crate) fn say(out: &mut dyn Write, line: &str) -> Result<(), String> {
    match writeln!(out, "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the answer: {error}."))
        }
        _ => Ok(()),
    }
}
