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

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::clock::FileTimes;
use crate::now::Now;
use crate::policy::pool::Bytes;
use crate::store::walk::Slice;

mod count;

use count::{Count, Counts, Sum, TotalCount, dirty};
pub use count::{Counted, MOST_RECENT};

/// Owners that are remembered; past this those who were not asked for lately are forgotten and counted anew. Only as
/// many as are active at a time make it more.
const MAX_OWNERS: usize = 4096;

/// How long an owner who was asked for is surely remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// When the sum of all is tried anew after it could not be learned.
const TOTAL_PAUSE: Duration = Duration::from_secs(60);

/// For how long a number is believed, where no sweep corrects it before.
const BELIEVED: Duration = Duration::from_secs(3600);

/// The numbers.
#[derive(Debug, Default)]
pub struct UsageTracker {
    owners: HashMap<Vec<u8>, OwnerEntry>,
    /// So many stayed when owners were last forgotten.
    stayed: usize,
    /// Owners to be counted because somebody waits for them.
    asked: VecDeque<Vec<u8>>,
    counting: Option<Count>,
    total: Total,
    /// The walk that corrects a known sum.
    recount: Option<Box<TotalCount>>,
    /// When the next such walk begins, unless it is asked for before.
    recount_at: Option<Instant>,
    reserved: u64,
    /// See [`UsageTracker::set_times`].
    times: FileTimes,
}

#[derive(Debug)]
struct OwnerEntry {
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
    Counting(Box<TotalCount>),
    /// It could not be learned; when to try again.
    Failed(Instant),
    Known(Sum),
}

impl UsageTracker {
    /// From now on modification times mean this.
    pub fn set_times(&mut self, times: FileTimes) {
        self.times = times;
    }

    /// Begins to learn the sum of all, unless it is known or being learned.
    pub fn want_total(&mut self, root: BorrowedFd<'_>) {
        if matches!(self.total, Total::Unwanted) {
            self.total = Total::Counting(Box::new(TotalCount::new(root)));
        }
    }

    /// When [`UsageTracker::retry_total`] must be called.
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
            self.recount = Some(Box::new(TotalCount::new(root)));
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
        *self = UsageTracker {
            owners,
            asked,
            reserved,
            times,
            ..UsageTracker::default()
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
    /// [`UsageTracker::ask`].
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

    /// Counts an owner, known or not: the owner is among the results of a later [`UsageTracker::go_on`].
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
            Total::Counting(total_count) => Some(total_count),
            _ => None,
        };
        for total_count in counting.into_iter().chain(&mut self.recount) {
            if !total_count.done.contains(owner) {
                total_count.touched.push(owner.to_vec());
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

    /// Number of changes of an owner whose number is known; for [`UsageTracker::loaded`].
    pub fn changes(&self, owner: &[u8]) -> Option<u64> {
        let entry = self.owners.get(owner)?;
        entry.stored.map(|_| entry.changes)
    }

    /// A walk found `stored` bytes, and nothing but itself changed the folder since `changes` was asked: corrects
    /// what was changed behind our back.
    pub fn loaded(&mut self, owner: &[u8], changes: u64, bytes: Bytes, files: u64, now: Instant) {
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
            if count.error.is_none() {
                let entry = self.entry(&count.owner, now.mono);
                entry.stored = Some(count.sum);
                entry.counted = now.mono;
            }
            return Some(Counted {
                owner: count.owner,
                error: count.error,
                recent: count.recent,
            });
        }
        self.go_on_with_total(root, slice, now.mono);
        None
    }

    fn go_on_with_total(&mut self, root: BorrowedFd<'_>, slice: &mut Slice, now: Instant) {
        let total_count = match (&mut self.total, &mut self.recount) {
            (Total::Counting(total_count), _) | (_, Some(total_count)) => total_count,
            _ => return,
        };
        if !total_count.go_on(root, slice, &self.times) {
            return;
        }
        self.recount_at = Some(now + BELIEVED);
        let (sum, owners, error) = (
            total_count.sum,
            total_count.done.len(),
            total_count.error.take(),
        );
        let before = match self.total {
            Total::Known(before) => Some(before),
            _ => None,
        };
        self.recount = None;
        if let Some(error) = error {
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
        dirty(&mut self.counting, owner);
        match &mut self.total {
            Total::Unwanted | Total::Failed(_) => {}
            Total::Known(sum) => change_sum(sum),
            Total::Counting(total_count) => total_count.changed(owner, &change_sum),
        }
        if let Some(recount) = &mut self.recount {
            recount.changed(owner, &change_sum);
        }
    }

    fn entry(&mut self, owner: &[u8], now: Instant) -> &mut OwnerEntry {
        // Not before they have doubled, so that however many are active, a newcomer costs no look at all of them.
        let most = MAX_OWNERS.max(2 * self.stayed);
        if self.owners.len() >= most && !self.owners.contains_key(owner) {
            self.owners.retain(|_, entry| {
                entry.reserved != Bytes::default()
                    || now.saturating_duration_since(entry.touched) < REMEMBERED
            });
            self.stayed = self.owners.len();
            self.owners.shrink_to(2 * self.stayed);
        }
        let entry = self.owners.entry(owner.to_vec()).or_insert(OwnerEntry {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::pool::Pool;
    use crate::sys;

    /// Asks for an owner of that number.
    fn ask(usage: &mut UsageTracker, number: usize, now: Instant) {
        usage.of_owner(number.to_string().as_bytes(), now);
    }

    #[test]
    fn only_active_owners_are_remembered() {
        let start = Instant::now();
        let mut usage = UsageTracker::default();
        usage.reserve(b"uploading", 0, 1, start);
        for number in 1..MAX_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), MAX_OWNERS);
        // One who is known makes nobody forgotten.
        ask(&mut usage, 1, start + REMEMBERED);
        assert_eq!(usage.owners.len(), MAX_OWNERS);
        ask(&mut usage, MAX_OWNERS, start + REMEMBERED);
        let last = MAX_OWNERS.to_string();
        let left = ["uploading", "1", &last].map(str::as_bytes);
        assert_eq!(usage.owners.len(), left.len());
        assert!(left.iter().all(|owner| usage.owners.contains_key(*owner)));
        assert!(usage.owners.capacity() < MAX_OWNERS, "memory is given back");
    }

    #[test]
    fn however_many_are_active_none_of_them_is_forgotten() {
        let start = Instant::now();
        let mut usage = UsageTracker::default();
        for number in 0..5 * MAX_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), 5 * MAX_OWNERS);
        // They were looked at when they had doubled, not at every newcomer.
        assert_eq!(usage.stayed, 4 * MAX_OWNERS);
        for number in 5 * MAX_OWNERS..=8 * MAX_OWNERS {
            ask(&mut usage, number, start + REMEMBERED);
        }
        assert_eq!(usage.owners.len(), 3 * MAX_OWNERS + 1);
    }

    /// Counts until there is nothing more to count.
    fn count(usage: &mut UsageTracker, root: BorrowedFd<'_>, now: Now) {
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
        let mut usage = UsageTracker::default();
        usage.want_total(root);
        for owner in [&b"romeo"[..], b"juliet"] {
            usage.ask(owner);
        }
        count(&mut usage, root, start);
        let of = |usage: &mut UsageTracker, owner: &[u8], now: Now| {
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
