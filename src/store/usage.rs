//! Stored bytes: per owner, and in all.
//!
//! An owner's number is learned by a walk over the one folder when it is first asked for, and kept exact from then
//! on, because everything that adds or removes a file says so here. The sum of all is learned by a walk over the
//! whole tree, and only where `global_quota` is set. Both walks go in slices. A file that comes or goes while its owner
//! is being counted makes that owner be counted again.
//!
//! Others remove files, too: operators by hand, other nodes. So no number is believed for longer than [`BELIEVED`], or
//! than until the end of the next sweep: an owner is counted again when next asked for, and the sum of all while the
//! old one is still used.
//!
//! Uploads under way are reserved, so that many at once cannot pass a quota together.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::clock::FileTimes;
use crate::layout::StorePath;
use crate::now::{Now, unix};
use crate::policy::pool::{self, Bytes, Pool};
use crate::store::walk::{Owners, Slice, Step, Walk};
use crate::sys;

/// Owners that are remembered; past this those who were not asked for lately are forgotten and counted anew. Only as
/// many as are active at a time make it more.
const MOST_OWNERS: usize = 4096;

/// How long an owner who was asked for is surely remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How often a count is begun anew because files came and went meanwhile; the last result is taken then.
const RECOUNTS: u32 = 8;

/// When the sum of all is tried anew after it could not be learned.
const TOTAL_PAUSE: Duration = Duration::from_secs(60);

/// For how long a number is believed, where no sweep corrects it before.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Young files that are listed of one owner.
pub const MOST_RECENT: usize = 4096;

/// The numbers.
#[derive(Debug, Default)]
pub struct Usage {
    owners: HashMap<Vec<u8>, Entry>,
    /// So many stayed when owners were last forgotten.
    stayed: usize,
    /// Owners to be counted because somebody waits for them.
    asked: VecDeque<Vec<u8>>,
    counting: Option<Count>,
    total: Total,
    /// The walk that corrects a known sum.
    recount: Option<Box<Tally>>,
    /// When the next such walk begins, unless it is asked for before.
    recount_at: Option<Instant>,
    reserved: u64,
    /// See [`Usage::set_times`].
    times: FileTimes,
}

#[derive(Debug)]
struct Entry {
    /// Published files; `None` until counted.
    stored: Option<Counts>,
    /// Bytes of uploads under way.
    reserved: Bytes,
    /// Number of changes, so that a walk can tell whether it saw a steady folder.
    changes: u64,
    touched: Instant,
    /// When it was counted last.
    counted: Instant,
}

#[derive(Debug, Default)]
enum Total {
    #[default]
    Unwanted,
    Counting(Box<Tally>),
    /// It could not be learned; when to try again.
    Failed(Instant),
    Known(Sum),
}

/// The walk over the whole tree.
#[derive(Debug)]
struct Tally {
    owners: Option<Owners>,
    /// Owners whose number is in `sum`.
    done: HashSet<Vec<u8>>,
    /// Owners who got files before they were counted, and whom the listing may miss.
    touched: Vec<Vec<u8>>,
    current: Option<Count>,
    sum: Sum,
    /// Why not all was seen, if so.
    trouble: Option<io::Error>,
}

impl Tally {
    fn new(root: BorrowedFd<'_>) -> Tally {
        let (owners, trouble) = match Owners::new(root) {
            Ok(owners) => (Some(owners), None),
            Err(error) => (None, Some(error)),
        };
        Tally {
            owners,
            done: HashSet::new(),
            touched: Vec::new(),
            current: None,
            sum: Sum::default(),
            trouble,
        }
    }

    /// Goes on until the slice is used up; true at the end.
    fn go_on(&mut self, root: BorrowedFd<'_>, slice: &mut Slice, times: &FileTimes) -> bool {
        loop {
            if let Some(count) = &mut self.current {
                if !count.go_on(root, slice, times) {
                    return false;
                }
                self.sum.add(&count.sum);
                self.trouble = self.trouble.take().or(count.trouble.take());
                self.done.insert(std::mem::take(&mut count.owner));
                self.current = None;
            }
            if !slice.take() {
                return false;
            }
            let next = match self.owners.as_mut().map(Owners::step) {
                Some(Some(owner)) => owner,
                Some(None) | None => {
                    let trouble = self.owners.take().and_then(|mut owners| owners.trouble());
                    self.trouble = self.trouble.take().or(trouble);
                    match self.touched.pop() {
                        Some(owner) => Some(owner),
                        None => return true,
                    }
                }
            };
            if let Some(owner) = next.filter(|owner| !self.done.contains(owner)) {
                self.current = Some(Count::begin(root, owner, u64::MAX));
            }
        }
    }

    /// A file came or went.
    fn changed(&mut self, owner: &[u8], change_sum: impl Fn(&mut Sum)) {
        if self.done.contains(owner) {
            change_sum(&mut self.sum);
        }
        unsteady(&mut self.current, owner);
    }
}

/// Has an owner counted again who is being counted.
fn unsteady(count: &mut Option<Count>, owner: &[u8]) {
    if let Some(count) = count.as_mut().filter(|count| count.owner == owner) {
        count.unsteady = true;
    }
}

/// Files of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    bytes: Bytes,
    files: u64,
}

/// All files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    files: u64,
}

impl Counts {
    fn add(&mut self, new: &Counts) {
        self.files = self.files.saturating_add(new.files);
        for (bytes, new) in self.bytes.iter_mut().zip(new.bytes) {
            *bytes = bytes.saturating_add(new);
        }
    }

    fn subtract(&mut self, gone: &Counts) {
        self.files = self.files.saturating_sub(gone.files);
        for (bytes, gone) in self.bytes.iter_mut().zip(gone.bytes) {
            *bytes = bytes.saturating_sub(gone);
        }
    }
}

impl Sum {
    fn add(&mut self, counts: &Counts) {
        self.bytes = self.bytes.saturating_add(Pool::ALL.sum(&counts.bytes));
        self.files = self.files.saturating_add(counts.files);
    }

    fn subtract(&mut self, counts: &Counts) {
        self.bytes = self.bytes.saturating_sub(Pool::ALL.sum(&counts.bytes));
        self.files = self.files.saturating_sub(counts.files);
    }
}

/// The walk over one owner.
#[derive(Debug)]
struct Count {
    owner: Vec<u8>,
    walk: Option<Walk>,
    sum: Counts,
    /// Unix seconds and bytes of files that are younger than `since`.
    recent: Vec<(u64, u64)>,
    since: u64,
    unsteady: bool,
    recounts: u32,
    trouble: Option<io::Error>,
}

/// An owner who was counted.
#[derive(Debug)]
pub struct Counted {
    pub owner: Vec<u8>,
    /// Why the number is not known after all.
    pub trouble: Option<io::Error>,
    /// Unix seconds and bytes of the young files, the youngest [`MOST_RECENT`] of them.
    pub recent: Vec<(u64, u64)>,
}

impl Count {
    fn begin(root: BorrowedFd<'_>, owner: Vec<u8>, since: u64) -> Count {
        let mut count = Count {
            owner,
            walk: None,
            sum: Counts::default(),
            recent: Vec::new(),
            since,
            unsteady: false,
            recounts: 0,
            trouble: None,
        };
        count.restart(root);
        count
    }

    fn restart(&mut self, root: BorrowedFd<'_>) {
        self.sum = Counts::default();
        self.recent.clear();
        self.unsteady = false;
        self.walk = match Walk::new(root, &self.owner, false) {
            Ok(walk) => Some(walk),
            Err(error) if sys::is_trouble(&error) => {
                self.trouble = Some(error);
                None
            }
            Err(error) => {
                // What has the place of an owner's folder is named when something is to be stored there.
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

    /// Goes on until the slice is used up; true when the number is known.
    fn go_on(&mut self, root: BorrowedFd<'_>, slice: &mut Slice, times: &FileTimes) -> bool {
        loop {
            let Some(walk) = &mut self.walk else {
                return true;
            };
            if !slice.take() {
                return false;
            }
            match walk.step(root) {
                Step::File {
                    path,
                    size,
                    modified,
                } => {
                    let mark = StorePath::from_segments(path.split(|b| *b == b'/'))
                        .and_then(|path| path.mark());
                    self.sum.files += 1;
                    let sum = &mut self.sum.bytes[pool::kind(mark)];
                    *sum = sum.saturating_add(size);
                    let modified = unix(times.stored(modified));
                    if modified >= self.since {
                        self.recent.push((modified, size));
                        shorten(&mut self.recent);
                    }
                }
                Step::Other => {}
                Step::Done if self.unsteady && self.recounts < RECOUNTS => {
                    self.recounts += 1;
                    self.restart(root);
                }
                Step::Done => {
                    self.trouble = walk.trouble();
                    return true;
                }
            }
        }
    }
}

impl Usage {
    /// From now on modification times mean this.
    pub fn set_times(&mut self, times: FileTimes) {
        self.times = times;
    }

    /// Begins to learn the sum of all, unless it is known or being learned.
    pub fn want_total(&mut self, root: BorrowedFd<'_>) {
        if matches!(self.total, Total::Unwanted) {
            self.total = Total::Counting(Box::new(Tally::new(root)));
        }
    }

    /// When [`Usage::retry_total`] must be called.
    pub fn due(&self) -> Option<Instant> {
        match self.total {
            Total::Failed(until) => Some(until),
            Total::Known(_) if self.recount.is_none() => self.recount_at,
            _ => None,
        }
    }

    /// Believes no number of an owner any more that is older than this.
    pub fn distrust(&mut self, since: Instant) {
        for entry in self.owners.values_mut() {
            if entry.counted < since {
                entry.stored = None;
            }
        }
    }

    /// Counts all files again, if their sum is known; until then it is used as it is.
    pub fn recount_total(&mut self, root: BorrowedFd<'_>) {
        if matches!(self.total, Total::Known(_)) && self.recount.is_none() {
            self.recount = Some(Box::new(Tally::new(root)));
        }
    }

    /// Begins anew what could not be learned, if it is time.
    pub fn retry_total(&mut self, root: BorrowedFd<'_>, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            if let Total::Failed(_) = self.total {
                self.total = Total::Unwanted;
                self.want_total(root);
            }
            self.recount_total(root);
        }
    }

    /// Forgets everything but reservations, because another tree is in place.
    pub fn forget(&mut self) {
        let reserved = self.reserved;
        let mut owners = std::mem::take(&mut self.owners);
        owners.retain(|_, entry| {
            entry.stored = None;
            entry.reserved != Bytes::default()
        });
        let asked = std::mem::take(&mut self.asked);
        let counting = self.counting.take().map(|count| count.owner);
        let times = std::mem::take(&mut self.times);
        *self = Usage {
            owners,
            asked,
            reserved,
            times,
            ..Usage::default()
        };
        self.asked.extend(counting);
    }

    /// Bytes of all files and uploads under way, once known.
    pub fn total(&self) -> Option<u64> {
        match self.total {
            Total::Known(sum) => Some(sum.bytes.saturating_add(self.reserved)),
            Total::Unwanted | Total::Counting(_) | Total::Failed(_) => None,
        }
    }

    /// Number and bytes of all published files, once known.
    pub fn stored(&self) -> Option<(u64, u64)> {
        match self.total {
            Total::Known(sum) => Some((sum.files, sum.bytes)),
            Total::Unwanted | Total::Counting(_) | Total::Failed(_) => None,
        }
    }

    /// Bytes of an owner's files and uploads under way, by kind. `None` when they have to be counted first; see
    /// [`Usage::ask`].
    pub fn of_owner(&mut self, owner: &[u8], now: Instant) -> Option<Bytes> {
        let entry = self.entry(owner, now);
        if now.saturating_duration_since(entry.counted) >= BELIEVED {
            entry.stored = None;
        }
        if let Some(Counts { mut bytes, .. }) = entry.stored {
            for (bytes, reserved) in bytes.iter_mut().zip(entry.reserved) {
                *bytes = bytes.saturating_add(reserved);
            }
            return Some(bytes);
        }
        None
    }

    /// Counts an owner, known or not: the owner is among the results of a later [`Usage::go_on`].
    pub fn ask(&mut self, owner: &[u8]) {
        let under_way = self
            .counting
            .as_ref()
            .is_some_and(|count| count.owner == owner);
        if !under_way && !self.asked.iter().any(|asked| asked == owner) {
            self.asked.push_back(owner.to_vec());
        }
    }

    /// An upload begins.
    pub fn reserve(&mut self, owner: &[u8], kind: usize, size: u64, now: Instant) {
        let reserved = &mut self.entry(owner, now).reserved[kind];
        *reserved = reserved.saturating_add(size);
        self.reserved = self.reserved.saturating_add(size);
    }

    /// An upload that was reserved is over, published or not.
    pub fn release(&mut self, owner: &[u8], kind: usize, size: u64) {
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.reserved[kind] = entry.reserved[kind].saturating_sub(size);
        }
        self.reserved = self.reserved.saturating_sub(size);
    }

    /// A file was published.
    pub fn added(&mut self, owner: &[u8], kind: usize, size: u64) {
        let mut new = Counts {
            files: 1,
            ..Counts::default()
        };
        new.bytes[kind] = size;
        self.changed(owner, |stored| stored.add(&new), |sum| sum.add(&new));
        let counting = match &mut self.total {
            Total::Counting(tally) => Some(tally),
            _ => None,
        };
        for tally in counting.into_iter().chain(&mut self.recount) {
            if !tally.done.contains(owner) {
                tally.touched.push(owner.to_vec());
            }
        }
    }

    /// Another process removed so many files of an owner; of which kinds, nobody says.
    pub fn removed_elsewhere(&mut self, owner: &[u8], files: u64, bytes: u64) {
        let mut gone = Counts {
            files,
            ..Counts::default()
        };
        gone.bytes[0] = bytes;
        self.changed(owner, |_| {}, |sum| sum.subtract(&gone));
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.stored = None;
        }
    }

    /// A file was removed.
    pub fn removed(&mut self, owner: &[u8], kind: usize, size: u64) {
        let mut gone = Counts {
            files: 1,
            ..Counts::default()
        };
        gone.bytes[kind] = size;
        self.changed(
            owner,
            |stored| stored.subtract(&gone),
            |sum| sum.subtract(&gone),
        );
    }

    /// Number of changes of an owner whose number is known; for [`Usage::learned`].
    pub fn changes(&self, owner: &[u8]) -> Option<u64> {
        let entry = self.owners.get(owner)?;
        entry.stored.map(|_| entry.changes)
    }

    /// A walk found `stored` bytes, and nothing but itself changed the folder since `changes` was asked: corrects
    /// what was changed behind our back.
    pub fn learned(&mut self, owner: &[u8], changes: u64, bytes: Bytes, files: u64, now: Instant) {
        let stored = Counts { bytes, files };
        let Some(entry) = self.owners.get_mut(owner) else {
            return;
        };
        let Some(before) = entry.stored.filter(|_| entry.changes == changes) else {
            return;
        };
        entry.stored = Some(stored);
        entry.counted = now;
        if let Total::Known(sum) = &mut self.total {
            sum.subtract(&before);
            sum.add(&stored);
        }
    }

    /// Whether counting has work.
    pub fn is_counting(&self) -> bool {
        self.counting.is_some()
            || !self.asked.is_empty()
            || matches!(self.total, Total::Counting(_))
            || self.recount.is_some()
    }

    /// Goes on counting until the slice is used up; returns an owner whose number became known, or cannot be. Files
    /// younger than `window` are listed.
    pub fn go_on(
        &mut self,
        root: BorrowedFd<'_>,
        slice: &mut Slice,
        window: Duration,
        now: Now,
    ) -> Option<Counted> {
        let since = now.unix().saturating_sub(window.as_secs());
        let since = if window.is_zero() { u64::MAX } else { since };
        if self.counting.is_none() {
            self.counting = self
                .asked
                .pop_front()
                .map(|owner| Count::begin(root, owner, since));
        }
        if let Some(mut count) = self.counting.take() {
            if !count.go_on(root, slice, &self.times) {
                self.counting = Some(count);
                return None;
            }
            if count.trouble.is_none() {
                let entry = self.entry(&count.owner, now.mono);
                entry.stored = Some(count.sum);
                entry.counted = now.mono;
            }
            return Some(Counted {
                owner: count.owner,
                trouble: count.trouble,
                recent: count.recent,
            });
        }
        self.go_on_with_total(root, slice, now.mono);
        None
    }

    fn go_on_with_total(&mut self, root: BorrowedFd<'_>, slice: &mut Slice, now: Instant) {
        let tally = match (&mut self.total, &mut self.recount) {
            (Total::Counting(tally), _) | (_, Some(tally)) => tally,
            _ => return,
        };
        if !tally.go_on(root, slice, &self.times) {
            return;
        }
        self.recount_at = Some(now + BELIEVED);
        let (sum, owners, trouble) = (tally.sum, tally.done.len(), tally.trouble.take());
        let before = match self.total {
            Total::Known(before) => Some(before),
            _ => None,
        };
        self.recount = None;
        if let Some(error) = trouble {
            log::warn!("store not counted why={:?}", error.to_string());
            if before.is_none() {
                self.total = Total::Failed(now + TOTAL_PAUSE);
            }
            return;
        }
        let Sum { files, bytes } = sum;
        if before != Some(sum) {
            log::info!("store counted files={files} bytes={bytes} owners={owners}");
        }
        self.total = Total::Known(sum);
    }

    fn changed(
        &mut self,
        owner: &[u8],
        change: impl Fn(&mut Counts),
        change_sum: impl Fn(&mut Sum),
    ) {
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.changes += 1;
            if let Some(stored) = &mut entry.stored {
                change(stored);
            }
        }
        unsteady(&mut self.counting, owner);
        match &mut self.total {
            Total::Unwanted | Total::Failed(_) => {}
            Total::Known(sum) => change_sum(sum),
            Total::Counting(tally) => tally.changed(owner, &change_sum),
        }
        if let Some(recount) = &mut self.recount {
            recount.changed(owner, &change_sum);
        }
    }

    fn entry(&mut self, owner: &[u8], now: Instant) -> &mut Entry {
        // Not before they have doubled, so that however many are active, a newcomer costs no look at all of them.
        let most = MOST_OWNERS.max(2 * self.stayed);
        if self.owners.len() >= most && !self.owners.contains_key(owner) {
            self.owners.retain(|_, entry| {
                entry.reserved != Bytes::default()
                    || now.saturating_duration_since(entry.touched) < REMEMBERED
            });
            self.stayed = self.owners.len();
            self.owners.shrink_to(2 * self.stayed);
        }
        let entry = self.owners.entry(owner.to_vec()).or_insert(Entry {
            stored: None,
            reserved: Bytes::default(),
            changes: 0,
            touched: now,
            counted: now,
        });
        entry.touched = now;
        entry
    }
}

/// Keeps the youngest.
fn shorten(recent: &mut Vec<(u64, u64)>) {
    if recent.len() >= 2 * MOST_RECENT {
        recent.sort_unstable_by(|a, b| b.cmp(a));
        recent.truncate(MOST_RECENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for an owner of that number.
    fn ask(usage: &mut Usage, number: usize, now: Instant) {
        usage.of_owner(number.to_string().as_bytes(), now);
    }

    #[test]
    fn only_active_owners_are_remembered() {
        let start = Instant::now();
        let mut usage = Usage::default();
        usage.reserve(b"uploading", 0, 1, start);
        for number in 1..MOST_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), MOST_OWNERS);
        // One who is known makes nobody forgotten.
        ask(&mut usage, 1, start + REMEMBERED);
        assert_eq!(usage.owners.len(), MOST_OWNERS);
        ask(&mut usage, MOST_OWNERS, start + REMEMBERED);
        let last = MOST_OWNERS.to_string();
        let left = ["uploading", "1", &last].map(str::as_bytes);
        assert_eq!(usage.owners.len(), left.len());
        assert!(left.iter().all(|owner| usage.owners.contains_key(*owner)));
        assert!(
            usage.owners.capacity() < MOST_OWNERS,
            "memory is given back"
        );
    }

    #[test]
    fn however_many_are_active_none_of_them_is_forgotten() {
        let start = Instant::now();
        let mut usage = Usage::default();
        for number in 0..5 * MOST_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), 5 * MOST_OWNERS);
        // They were looked at when they had doubled, not at every newcomer.
        assert_eq!(usage.stayed, 4 * MOST_OWNERS);
        for number in 5 * MOST_OWNERS..=8 * MOST_OWNERS {
            ask(&mut usage, number, start + REMEMBERED);
        }
        assert_eq!(usage.owners.len(), 3 * MOST_OWNERS + 1);
    }

    /// Counts until there is nothing more to count.
    fn count(usage: &mut Usage, root: BorrowedFd<'_>, now: Now) {
        while usage.is_counting() {
            usage.go_on(root, &mut Slice::begin(), Duration::ZERO, now);
        }
    }

    #[test]
    fn no_number_is_believed_for_long() {
        let path = std::env::temp_dir().join(format!("upslot-believed-{}", std::process::id()));
        let files = ["romeo/r/a", "juliet/r/a"].map(|file| path.join(file));
        for file in &files {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, [0; 10]).unwrap();
        }
        let opened = sys::open_root(&path).unwrap();
        let root = std::os::fd::AsFd::as_fd(&opened);
        let start = sys::now();
        let mut usage = Usage::default();
        usage.want_total(root);
        for owner in [&b"romeo"[..], b"juliet"] {
            usage.ask(owner);
        }
        count(&mut usage, root, start);
        let of = |usage: &mut Usage, owner: &[u8], now: Now| {
            usage
                .of_owner(owner, now.mono)
                .map(|bytes| Pool::ALL.sum(&bytes))
        };
        assert_eq!(usage.stored(), Some((2, 20)));
        std::fs::remove_dir_all(path.join("romeo")).unwrap();
        // Until an hour is over, or a sweep has not met the owner.
        let before = start.later(BELIEVED - Duration::from_secs(1));
        usage.retry_total(root, before.mono);
        assert!(!usage.is_counting());
        assert_eq!(of(&mut usage, b"romeo", before), Some(10));
        usage.distrust(start.mono);
        assert_eq!(of(&mut usage, b"romeo", before), Some(10));
        let after = start.later(BELIEVED);
        assert_eq!(usage.due(), Some(after.mono));
        assert_eq!(of(&mut usage, b"romeo", after), None);
        assert_eq!(of(&mut usage, b"juliet", after), None);
        usage.ask(b"romeo");
        usage.retry_total(root, after.mono);
        assert_eq!(usage.stored(), Some((2, 20)), "known all the while");
        // What comes meanwhile counts.
        usage.added(b"new", 0, 7);
        std::fs::create_dir_all(path.join("new/r")).unwrap();
        std::fs::write(path.join("new/r/a"), [0; 7]).unwrap();
        count(&mut usage, root, after);
        assert_eq!(usage.stored(), Some((2, 17)));
        assert_eq!(of(&mut usage, b"romeo", after), Some(0));
        // A sweep that began later has not met this one.
        usage.distrust(after.mono + Duration::from_secs(1));
        assert_eq!(of(&mut usage, b"romeo", after), None);
        // Another process says what it removed.
        std::fs::remove_dir_all(path.join("juliet")).unwrap();
        usage.removed_elsewhere(b"juliet", 1, 10);
        assert_eq!(usage.stored(), Some((1, 7)));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
