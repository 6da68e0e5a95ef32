//! What is known after a walk over the files of an owner, or of all owners: sums, and a bounded number of files or owners.
//!
//! Pure: it gets one file after the other. Memory does not grow with the number of files.

use std::time::SystemTime;

use crate::expiry::StoredFile;
use crate::layout::FileId;
use crate::now::unix;
use crate::policy::pool::{Bytes, QuotaClass};

/// Maximum number of recent files that are listed per owner.
pub const MOST_RECENT: usize = 4096;

/// Which files are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// So many of the oldest, the oldest first.
    Oldest(usize),
    /// So many of the newest, the newest first.
    Newest(usize),
    /// Those with one of these IDs.
    Ids(Vec<FileId>),
}

/// The facts about an owner's files.
#[derive(Debug)]
pub struct Listing {
    selection: Selection,
    /// Number of all files, and their bytes.
    pub files: u64,
    pub bytes: Bytes,
    /// The selected files, with the time at which they were stored as their modification time.
    pub selected: Vec<StoredFile>,
    /// Unix seconds and bytes of files that are younger than `since`.
    pub recent: Vec<(u64, u64)>,
    /// Unix seconds.
    since: u64,
}

impl Default for Listing {
    /// A listing that selects nothing.
    fn default() -> Listing {
        Listing::new(Selection::Ids(Vec::new()), 0)
    }
}

impl Listing {
    /// An empty listing; recent files are those stored at `since` or later.
    pub fn new(selection: Selection, since: u64) -> Listing {
        Listing {
            selection,
            files: 0,
            bytes: Bytes::default(),
            selected: Vec::new(),
            recent: Vec::new(),
            since,
        }
    }

    /// Whether a file is selected, whatever others there are.
    fn wants(&self, file: &StoredFile) -> bool {
        match &self.selection {
            Selection::Oldest(most) | Selection::Newest(most) => *most > 0,
            // An object store may list a file any number of times.
            Selection::Ids(ids) => {
                let is_same = |selected: &StoredFile| selected.path == file.path;
                !ids.is_empty()
                    && ids.contains(&FileId::of(&file.path))
                    && !self.selected.iter().any(is_same)
            }
        }
    }

    /// Adds a file that was stored at this time.
    pub fn add(&mut self, file: StoredFile, stored: SystemTime) {
        self.files += 1;
        let bytes = &mut self.bytes[QuotaClass::of(file.path.tag())];
        *bytes = bytes.saturating_add(file.size);
        let seconds = unix(stored);
        if seconds >= self.since {
            self.recent.push((seconds, file.size));
            shorten(&mut self.recent);
        }
        if self.wants(&file) {
            self.selected.push(StoredFile {
                modified: stored,
                ..file
            });
            let most = match self.selection {
                Selection::Oldest(most) | Selection::Newest(most) => most,
                Selection::Ids(_) => return,
            };
            if self.selected.len() >= 2 * most {
                self.sort();
            }
        }
    }

    /// All files were added.
    pub fn finish(&mut self) {
        self.sort();
    }

    fn sort(&mut self) {
        self.selected.sort_unstable();
        match self.selection {
            Selection::Oldest(most) => self.selected.truncate(most),
            Selection::Newest(most) => {
                self.selected.reverse();
                self.selected.truncate(most);
            }
            Selection::Ids(_) => {}
        }
    }
}

/// The usage of all owners.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub owners: u64,
    pub files: u64,
    pub bytes: u64,
    /// Bytes, files and folder of the largest owners, the largest first once sorted.
    pub largest: Vec<(u64, u64, Vec<u8>)>,
}

impl Totals {
    /// Adds an owner, unless nothing is stored; lists at most `most` owners, or twice as many before the last call of
    /// [`Totals::finish`].
    pub fn add(&mut self, folder: &[u8], files: u64, bytes: u64, most: usize) {
        if files == 0 {
            return;
        }
        self.owners += 1;
        self.files = self.files.saturating_add(files);
        self.bytes = self.bytes.saturating_add(bytes);
        self.largest.push((bytes, files, folder.to_vec()));
        if self.largest.len() >= 2 * most {
            self.finish(most);
        }
    }

    /// Keeps the largest owners.
    pub fn finish(&mut self, most: usize) {
        self.largest.sort_unstable_by(|a, b| b.cmp(a));
        self.largest.truncate(most);
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Finds files of an owner folder. Files stored since this Unix second are listed as recent.
    Search {
        owner: Vec<u8>,
        selection: Selection,
        since: u64,
    },
    /// Deletes files of an owner folder: those with these IDs, or all.
    Delete {
        owner: Vec<u8>,
        files: Option<Vec<FileId>>,
    },
    /// Sums up all owners, and lists so many of the largest.
    Sum { largest: usize },
}

impl Work {
    /// Counts an owner's files, and lists those stored since this Unix second.
    pub fn count(owner: Vec<u8>, since: u64) -> Work {
        Work::Search {
            owner,
            selection: Selection::Ids(Vec::new()),
            since,
        }
    }
}

/// The result of a job.
#[derive(Debug)]
pub enum Found {
    Files(Listing),
    Deleted { files: u64, bytes: u64 },
    Owners(Totals),
}

/// Keeps the youngest of the recent files.
pub fn shorten(recent: &mut Vec<(u64, u64)>) {
    if recent.len() >= 2 * MOST_RECENT {
        recent.sort_unstable_by(|a, b| b.cmp(a));
        recent.truncate(MOST_RECENT);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::layout::StorePath;

    fn file(number: u64) -> StoredFile {
        let name = format!("f{number}");
        StoredFile {
            modified: UNIX_EPOCH + Duration::from_secs(number),
            path: StorePath::from_segments([&b"owner"[..], name.as_bytes()].into_iter()).unwrap(),
            size: 10,
        }
    }

    /// The numbers of the selected ones of a thousand files.
    fn selected(selection: Selection) -> Vec<u64> {
        let mut listing = Listing::new(selection, 990);
        // In no order.
        for number in (0..1000).map(|n| n * 7 % 1000) {
            let file = file(number);
            let stored = file.modified;
            listing.add(file, stored);
            assert!(listing.selected.len() <= 100);
        }
        listing.finish();
        assert_eq!(
            (listing.files, listing.bytes[QuotaClass::Message]),
            (1000, 10_000)
        );
        assert_eq!(listing.recent.len(), 10);
        listing
            .selected
            .iter()
            .map(|file| unix(file.modified))
            .collect()
    }

    #[test]
    fn the_oldest_the_newest_or_certain_files_are_selected() {
        assert_eq!(selected(Selection::Oldest(50)), (0..50).collect::<Vec<_>>());
        let newest: Vec<u64> = (950..1000).rev().collect();
        assert_eq!(selected(Selection::Newest(50)), newest);
        assert_eq!(selected(Selection::Oldest(0)), []);
        assert_eq!(selected(Selection::Newest(1)), [999]);
        let ids = [7, 500, 1001].map(|number| FileId::of(&file(number).path));
        assert_eq!(selected(Selection::Ids(ids.to_vec())), [7, 500]);
        assert_eq!(selected(Selection::Ids(Vec::new())), []);
    }

    #[test]
    fn the_largest_owners_are_listed() {
        let mut totals = Totals::default();
        for number in 0..100u64 {
            let folder = number.to_string();
            totals.add(folder.as_bytes(), number % 2, number * 7 % 100, 3);
        }
        totals.finish(3);
        assert_eq!((totals.owners, totals.files), (50, 50));
        let largest = [(99, 57), (97, 71), (95, 85)]
            .map(|(bytes, n): (u64, u64)| (bytes, 1, n.to_string().into_bytes()));
        assert_eq!(totals.largest, largest);
    }

    #[test]
    fn ids_are_texts_of_one_length() {
        let id = FileId::of(&file(1).path);
        assert_eq!(FileId::parse(&id.text()), Some(id));
        assert_ne!(FileId::of(&file(2).path), id);
        for text in [
            "",
            "a",
            "../../secret",
            "AAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAA",
            "ÄÄÄÄÄÄÄÄ",
        ] {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_listed_again_takes_no_memory() {
        let ids = [1, 2].map(|number| FileId::of(&file(number).path));
        let mut listing = Listing::new(Selection::Ids(ids.to_vec()), 0);
        for _ in 0..100 {
            listing.add(file(1), UNIX_EPOCH);
        }
        listing.add(file(2), UNIX_EPOCH);
        assert_eq!(listing.selected.len(), 2);
    }
}
