//! The walks that count files: over one owner folder, and over the whole tree.

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

use crate::clock::FileTimes;
use crate::listing::shorten;
use crate::now::unix;
use crate::policy::pool::{Bytes, Pool, QuotaClass};
use crate::store::walk::{Owners, Slice, Walk, WalkMode, WalkStep};
use crate::sys;

/// Maximum number of times that a count is restarted because files were added or removed meanwhile.
const RECOUNTS: u32 = 8;

/// The walk over the whole tree.
#[derive(Debug)]
pub(super) struct TotalCount {
    pub(super) owners: Option<Owners>,
    mode: WalkMode,
    /// Owners that are included in `sum`.
    pub(super) done: HashSet<Vec<u8>>,
    /// Owners with new files that are not counted yet; the listing may miss their folders.
    pub(super) touched: Vec<Vec<u8>>,
    pub(super) current: Option<Count>,
    pub(super) sum: Sum,
    /// Why the count is not complete, if so.
    pub(super) error: Option<io::Error>,
}

impl TotalCount {
    pub(super) fn new(root: BorrowedFd<'_>, mode: WalkMode) -> TotalCount {
        let (owners, error) = match Owners::new(root) {
            Ok(owners) => (Some(owners), None),
            Err(error) => (None, Some(error)),
        };
        TotalCount {
            owners,
            mode,
            done: HashSet::new(),
            touched: Vec::new(),
            current: None,
            sum: Sum::default(),
            error,
        }
    }

    /// Proceeds until the slice is used up; true at the end.
    pub(super) fn go_on(
        &mut self,
        root: BorrowedFd<'_>,
        slice: &mut Slice,
        times: &FileTimes,
    ) -> bool {
        loop {
            if let Some(count) = &mut self.current {
                if !count.go_on(root, slice, times) {
                    return false;
                }
                self.sum.add(count.sum.files, count.sum.all_bytes());
                self.error = self.error.take().or(count.error.take());
                self.done.insert(std::mem::take(&mut count.owner));
                self.current = None;
            }
            if !slice.take() {
                return false;
            }
            let next = match self.owners.as_mut().map(Owners::step) {
                Some(Some(owner)) => owner,
                Some(None) | None => {
                    let error = self.owners.take().and_then(|mut owners| owners.error());
                    self.error = self.error.take().or(error);
                    match self.touched.pop() {
                        Some(owner) => Some(owner),
                        None => return true,
                    }
                }
            };
            if let Some(owner) = next.filter(|owner| !self.done.contains(owner)) {
                self.current = Some(Count::begin(root, owner, self.mode, u64::MAX));
            }
        }
    }

    /// A file was added or removed.
    pub(super) fn changed(&mut self, owner: &[u8], change_sum: impl Fn(&mut Sum)) {
        if self.done.contains(owner) {
            change_sum(&mut self.sum);
        }
        dirty(&mut self.current, owner);
    }
}

/// Restarts the count of this owner later, if it is in progress.
pub(super) fn dirty(count: &mut Option<Count>, owner: &[u8]) {
    if let Some(count) = count.as_mut().filter(|count| count.owner == owner) {
        count.dirty = true;
    }
}

/// The files of one owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub bytes: Bytes,
    pub files: u64,
}

/// All files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Counts {
    pub fn add(&mut self, class: QuotaClass, size: u64) {
        self.bytes[class] = self.bytes[class].saturating_add(size);
        self.files += 1;
    }

    pub fn subtract(&mut self, class: QuotaClass, size: u64) {
        self.bytes[class] = self.bytes[class].saturating_sub(size);
        self.files = self.files.saturating_sub(1);
    }

    pub(super) fn all_bytes(&self) -> u64 {
        Pool::ALL.sum(&self.bytes)
    }
}

impl Sum {
    pub(super) fn add(&mut self, files: u64, bytes: u64) {
        self.files = self.files.saturating_add(files);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn subtract(&mut self, files: u64, bytes: u64) {
        self.files = self.files.saturating_sub(files);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The walk over one owner.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) owner: Vec<u8>,
    pub(super) mode: WalkMode,
    pub(super) walk: Option<Walk>,
    pub(super) sum: Counts,
    /// Unix seconds and bytes of files that are younger than `since`.
    pub(super) recent: Vec<(u64, u64)>,
    pub(super) since: u64,
    pub(super) dirty: bool,
    pub(super) recounts: u32,
    pub(super) error: Option<io::Error>,
}

/// The result of counting an owner.
#[derive(Debug)]
pub struct Counted {
    pub owner: Vec<u8>,
    /// Why counting failed, if so.
    pub error: Option<io::Error>,
    /// Unix seconds and bytes of recent files, at most the [`crate::listing::MOST_RECENT`] youngest.
    pub recent: Vec<(u64, u64)>,
}

impl Count {
    pub(super) fn begin(root: BorrowedFd<'_>, owner: Vec<u8>, mode: WalkMode, since: u64) -> Count {
        let mut count = Count {
            owner,
            mode,
            walk: None,
            sum: Counts::default(),
            recent: Vec::new(),
            since,
            dirty: false,
            recounts: 0,
            error: None,
        };
        count.restart(root);
        count
    }

    pub(super) fn restart(&mut self, root: BorrowedFd<'_>) {
        self.sum = Counts::default();
        self.recent.clear();
        self.dirty = false;
        self.walk = match Walk::new(root, &self.owner, self.mode) {
            Ok(walk) => Some(walk),
            Err(error) if sys::is_store_error(&error) => {
                self.error = Some(error);
                None
            }
            Err(error) => {
                // A file in place of the owner folder is reported when an upload needs the folder.
                if !sys::is_no_folder(&error) {
                    log::warn!(
                        "owner not counted owner={} why={:?}",
                        self.owner.escape_ascii(),
                        error.to_string()
                    );
                }
                None
            }
        };
    }

    /// Proceeds until the slice is used up; true at the end.
    pub(super) fn go_on(
        &mut self,
        root: BorrowedFd<'_>,
        slice: &mut Slice,
        times: &FileTimes,
    ) -> bool {
        loop {
            let Some(walk) = &mut self.walk else {
                return true;
            };
            if !slice.take() {
                return false;
            }
            match walk.step(root) {
                WalkStep::File(file) => {
                    self.sum.add(QuotaClass::of(file.path.tag()), file.size);
                    let stored = unix(times.stored(file.modified));
                    if stored >= self.since {
                        self.recent.push((stored, file.size));
                        shorten(&mut self.recent);
                    }
                }
                WalkStep::Named(tag, size) => self.sum.add(QuotaClass::of(Some(tag)), size),
                WalkStep::Other => {}
                WalkStep::Done if self.dirty && self.recounts < RECOUNTS => {
                    self.recounts += 1;
                    self.restart(root);
                }
                WalkStep::Done => {
                    self.error = walk.error();
                    return true;
                }
            }
        }
    }
}
