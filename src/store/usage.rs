//! Stored bytes: per owner, and in total.
//!
//! An owner's usage is counted by a walk over the owner folder when it is first needed, and kept up to date from then
//! on, because every addition and removal of a file is reported here. The total is counted by a walk over the whole
//! tree, and only if `global_quota` is set. Both walks proceed in slices. If a file is added or removed while its owner
//! is being counted, that count is restarted.
//!
//! Files are also removed by operators and by other nodes. Therefore no value is used for longer than [`MAX_AGE`], or
//! than until the end of the next sweep: an owner is counted again when next needed, and the total while the old value
//! is still used.
//!
//! Uploads in progress are reserved, so that concurrent uploads cannot exceed a quota together. So are slots whose uploads
//! are not seen; see [`granted`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::clock::FileTimes;
use crate::expiry::StoredFile;
use crate::now::Now;
use crate::policy::pool::{Bytes, QuotaClass};
use crate::store::Store;
use crate::store::walk::{Slice, WalkMode};

mod count;
mod granted;

use count::{Count, Sum, TotalCount, dirty};
use granted::GrantedSlots;

pub use count::{Counted, Counts};
pub use granted::GrantedSlot;

/// Number of cached owners beyond which idle ones are dropped, and counted again when needed. Only more active owners
/// make the cache larger.
const MAX_OWNERS: usize = 4096;

/// Time for which an owner counts as active after each use.
const ACTIVE: Duration = Duration::from_secs(60);

/// Pause after the total could not be counted.
const TOTAL_PAUSE: Duration = Duration::from_secs(60);

/// Maximum age of a count that no sweep has confirmed.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The usage of all owners, and the total.
#[derive(Debug, Default)]
pub struct UsageTracker {
    owners: HashMap<Vec<u8>, OwnerEntry>,
    /// Number of owners that remained when idle ones were last dropped.
    stayed: usize,
    /// Owners to be counted because a request waits for them.
    asked: VecDeque<(Vec<u8>, WalkMode)>,
    counting: Option<Count>,
    /// All published files, once counted.
    total: Option<Sum>,
    /// The walk that counts them.
    total_count: Option<Box<TotalCount>>,
    /// When the next such walk begins, unless it is requested earlier; `None` before the end of the first one.
    total_due: Option<Instant>,
    reserved: u64,
    /// Bytes of slots whose uploads are not seen. Since the last count of all files, also of owners that are not cached any
    /// more.
    granted: u64,
    /// See [`UsageTracker::set_times`].
    times: FileTimes,
    /// See [`UsageTracker::set_max_age`]; [`MAX_AGE`] by default.
    max_age: Option<Duration>,
    refusal_age: Option<Duration>,
}

#[derive(Debug)]
struct OwnerEntry {
    /// Published files; `None` until counted.
    stored: Option<Counts>,
    /// Bytes of uploads in progress.
    reserved: Bytes,
    /// Slots whose uploads are not seen.
    granted: Option<Box<GrantedSlots>>,
    /// Number of changes, by which a walk detects changes made meanwhile.
    changes: u64,
    touched: Instant,
    /// When it was last counted.
    counted: Instant,
    /// Whether files were counted, not only the names that tell their sizes.
    is_measured: bool,
}

impl UsageTracker {
    /// Sets how modification times are interpreted.
    pub fn set_times(&mut self, times: FileTimes) {
        self.times = times;
    }

    /// Begins to count the total, if it was not wanted before.
    pub fn want_total(&mut self, root: BorrowedFd<'_>, mode: WalkMode) {
        if self.total_count.is_none() && self.total_due.is_none() {
            self.total_count = Some(Box::new(TotalCount::new(root, mode)));
        }
    }

    /// When [`UsageTracker::retry_total`] must be called.
    pub fn due(&self) -> Option<Instant> {
        self.total_due.filter(|_| self.total_count.is_none())
    }

    /// Invalidates the counts of owners that are older than this.
    pub fn distrust(&mut self, since: Instant) {
        for entry in self.owners.values_mut() {
            if entry.counted < since {
                entry.stored = None;
            }
        }
    }

    /// Counts the total again if it is loaded; the old value is used meanwhile.
    pub fn recount_total(&mut self, root: BorrowedFd<'_>, mode: WalkMode) {
        if self.total.is_some() && self.total_count.is_none() {
            self.total_count = Some(Box::new(TotalCount::new(root, mode)));
        }
    }

    /// Counts the total again if it failed or is too old.
    pub fn retry_total(&mut self, root: BorrowedFd<'_>, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.total_count = Some(Box::new(TotalCount::new(root, WalkMode::Tidy)));
        }
    }

    /// Drops everything except reservations, because the storage folder was replaced.
    pub fn forget(&mut self) {
        let reserved = self.reserved;
        let mut owners = std::mem::take(&mut self.owners);
        owners.retain(|_, entry| {
            entry.stored = None;
            entry.reserved != Bytes::default()
        });
        let asked = std::mem::take(&mut self.asked);
        let counting = self.counting.take();
        let times = std::mem::take(&mut self.times);
        *self = UsageTracker {
            owners,
            asked,
            reserved,
            times,
            ..UsageTracker::default()
        };
        self.asked
            .extend(counting.map(|count| (count.owner, count.mode)));
    }

    /// Bytes of all files, uploads in progress and granted slots, once counted.
    pub fn total(&self) -> Option<u64> {
        let stored = self.total?.bytes;
        let coming = self.reserved.saturating_add(self.granted);
        Some(stored.saturating_add(coming))
    }

    /// Number and bytes of all published files, once counted.
    pub fn stored(&self) -> Option<(u64, u64)> {
        self.total.map(|sum| (sum.files, sum.bytes))
    }

    /// Bytes of an owner's files, uploads in progress and granted slots, by quota class. `None` if they have to be counted
    /// first; see [`UsageTracker::ask`].
    pub fn of_owner(&mut self, owner: &[u8], now: Instant) -> Option<Bytes> {
        let max_age = self.max_age.unwrap_or(MAX_AGE);
        let entry = self.entry(owner, now);
        if now.saturating_duration_since(entry.counted) >= max_age {
            entry.stored = None;
        }
        let mut bytes = entry.stored?.bytes;
        let granted = entry.granted_bytes();
        for class in QuotaClass::ALL {
            let coming = entry.reserved[class].saturating_add(granted[class]);
            bytes[class] = bytes[class].saturating_add(coming);
        }
        Some(bytes)
    }

    /// Whether the bytes of an owner are those of the files, so that a refusal can be based on them.
    pub fn is_measured(&self, owner: &[u8], now: Instant) -> bool {
        let is_fresh = |entry: &OwnerEntry| {
            let age = now.saturating_duration_since(entry.counted);
            self.refusal_age.is_none_or(|max_age| age < max_age)
        };
        let entry = self.owners.get(owner);
        entry.is_some_and(|entry| entry.is_measured && is_fresh(entry))
    }

    /// Sets how long a count is used that no sweep has confirmed, and how old one may be on which a refusal is based.
    pub fn set_max_age(&mut self, max_age: Duration, refusal_age: Option<Duration>) {
        self.max_age = Some(max_age);
        self.refusal_age = refusal_age;
    }

    /// Takes an owner to be counted by the caller, who reports the result to [`UsageTracker::set_counted`], or gives up.
    pub fn take_asked(&mut self) -> Option<Vec<u8>> {
        self.asked.pop_front().map(|(owner, _)| owner)
    }

    /// The number of changes of an owner so far.
    pub fn change_count(&self, owner: &[u8]) -> u64 {
        self.owners.get(owner).map_or(0, |entry| entry.changes)
    }

    /// Counts an owner, cached or not: the owner will be a result of [`UsageTracker::go_on`].
    pub fn ask(&mut self, owner: &[u8], mode: WalkMode) {
        let counting = self.counting.iter().map(|count| (&count.owner, count.mode));
        let asked = self.asked.iter().map(|(owner, mode)| (owner, *mode));
        let same = |other: (&Vec<u8>, WalkMode)| other.0 == owner && other.1 == mode;
        if !counting.chain(asked).any(same) {
            self.asked.push_back((owner.to_vec(), mode));
        }
    }

    /// An upload begins.
    pub fn reserve(&mut self, owner: &[u8], class: QuotaClass, size: u64, now: Instant) {
        let reserved = &mut self.entry(owner, now).reserved[class];
        *reserved = reserved.saturating_add(size);
        self.reserved = self.reserved.saturating_add(size);
    }

    /// A reserved upload has ended, published or not.
    pub fn release(&mut self, owner: &[u8], class: QuotaClass, size: u64) {
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.reserved[class] = entry.reserved[class].saturating_sub(size);
        }
        self.reserved = self.reserved.saturating_sub(size);
    }

    /// A file was published.
    pub fn added(&mut self, owner: &[u8], class: QuotaClass, size: u64) {
        self.changed(
            owner,
            |stored| stored.add(class, size),
            |sum| sum.add(1, size),
        );
        self.touch(owner);
    }

    /// Notes for a walk in progress that an owner may be new.
    fn touch(&mut self, owner: &[u8]) {
        if let Some(total_count) = &mut self.total_count {
            if !total_count.done.contains(owner) {
                total_count.touched.push(owner.to_vec());
            }
        }
    }

    /// Another process removed files of an owner; their quota classes are unknown.
    pub fn removed_elsewhere(&mut self, owner: &[u8], files: u64, bytes: u64) {
        self.changed(owner, |_| {}, |sum| sum.subtract(files, bytes));
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.stored = None;
        }
    }

    /// Another process added files of an owner.
    pub fn added_elsewhere(&mut self, owner: &[u8], files: u64, bytes: u64) {
        self.changed(owner, |_| {}, |sum| sum.add(files, bytes));
        if let Some(entry) = self.owners.get_mut(owner) {
            entry.stored = None;
        }
        self.touch(owner);
    }

    /// A file was removed.
    pub fn removed(&mut self, owner: &[u8], class: QuotaClass, size: u64) {
        self.changed(
            owner,
            |stored| stored.subtract(class, size),
            |sum| sum.subtract(1, size),
        );
    }

    /// Unlinks a file and counts that; false if there is none.
    pub fn unlink(&mut self, file: &StoredFile, store: &mut Store) -> io::Result<bool> {
        let owner = file.path.owner_folder();
        let unlinked = store.unlink(&file.path)?;
        match unlinked {
            true => self.removed(owner, QuotaClass::of(file.path.tag()), file.size),
            // Already removed, maybe by a process that has not reported it.
            false => self.removed_elsewhere(owner, 0, 0),
        }
        Ok(unlinked)
    }

    /// The number of changes of an owner that is counted; for [`UsageTracker::loaded`].
    pub fn changes(&self, owner: &[u8]) -> Option<u64> {
        let entry = self.owners.get(owner)?;
        entry.stored.map(|_| entry.changes)
    }

    /// A walk has counted these files: corrects the owner's usage if it only had the number of changes that the walk
    /// knows of. `is_measured` says that it has looked at all of them, not only at names.
    pub fn loaded(
        &mut self,
        owner: &[u8],
        changes: u64,
        stored: Counts,
        is_measured: bool,
        now: Instant,
    ) {
        let Some(entry) = self.owners.get_mut(owner) else {
            return;
        };
        let Some(before) = entry.stored.filter(|_| entry.changes == changes) else {
            return;
        };
        entry.stored = Some(stored);
        entry.counted = now;
        entry.is_measured = is_measured;
        if let Some(sum) = &mut self.total {
            sum.subtract(before.files, before.all_bytes());
            sum.add(stored.files, stored.all_bytes());
        }
    }

    /// Whether counting has work.
    pub fn is_counting(&self) -> bool {
        self.counting.is_some() || !self.asked.is_empty() || self.total_count.is_some()
    }

    /// Continues counting until the slice is used up; returns an owner that was counted, or could not be. When files
    /// are counted, those younger than `window` are listed.
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
                .map(|(owner, mode)| Count::begin(root, owner, mode, since));
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
                entry.is_measured = count.mode != WalkMode::Names;
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
        let Some(mut total_count) = self.total_count.take() else {
            return;
        };
        if !total_count.go_on(root, slice, &self.times) {
            self.total_count = Some(total_count);
            return;
        }
        self.total_due = Some(now + MAX_AGE);
        if let Some(error) = total_count.error {
            log::warn!("store not counted why={:?}", error.to_string());
            if self.total.is_none() {
                self.total_due = Some(now + TOTAL_PAUSE);
            }
            return;
        }
        let before = self.total.replace(total_count.sum);
        if before != self.total {
            let Sum { files, bytes } = total_count.sum;
            let owners = total_count.done.len();
            log::info!("store counted files={files} bytes={bytes} owners={owners}");
        }
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
        if let Some(sum) = &mut self.total {
            change_sum(sum);
        }
        if let Some(total_count) = &mut self.total_count {
            total_count.changed(owner, change_sum);
        }
    }

    fn entry(&mut self, owner: &[u8], now: Instant) -> &mut OwnerEntry {
        // Only after the number has doubled, so that a new owner rarely costs a pass over all of them.
        let most = MAX_OWNERS.max(2 * self.stayed);
        if self.owners.len() >= most && !self.owners.contains_key(owner) {
            self.owners.retain(|_, entry| {
                let granted_until = entry.granted.as_ref().and_then(|slots| slots.until());
                entry.reserved != Bytes::default()
                    || granted_until.is_some_and(|until| until > now)
                    || now.saturating_duration_since(entry.touched) < ACTIVE
            });
            self.stayed = self.owners.len();
            self.owners.shrink_to(2 * self.stayed);
        }
        let entry = self.owners.entry(owner.to_vec()).or_insert(OwnerEntry {
            stored: None,
            reserved: Bytes::default(),
            granted: None,
            changes: 0,
            touched: now,
            counted: now,
            is_measured: false,
        });
        entry.touched = now;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FileId, StorePath};
    use crate::policy::pool::Pool;
    use crate::sys;

    /// Uses the owner with this number.
    fn ask(usage: &mut UsageTracker, number: usize, now: Instant) {
        usage.of_owner(number.to_string().as_bytes(), now);
    }

    #[test]
    fn only_active_owners_are_cached() {
        let start = Instant::now();
        let mut usage = UsageTracker::default();
        usage.reserve(b"uploading", QuotaClass::Message, 1, start);
        for number in 1..MAX_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), MAX_OWNERS);
        // A cached owner causes no drop.
        ask(&mut usage, 1, start + ACTIVE);
        assert_eq!(usage.owners.len(), MAX_OWNERS);
        ask(&mut usage, MAX_OWNERS, start + ACTIVE);
        let last = MAX_OWNERS.to_string();
        let left = ["uploading", "1", &last].map(str::as_bytes);
        assert_eq!(usage.owners.len(), left.len());
        assert!(left.iter().all(|owner| usage.owners.contains_key(*owner)));
        assert!(usage.owners.capacity() < MAX_OWNERS, "memory is given back");
    }

    /// A slot of the file with this number, of 10 bytes, that expires after so many seconds.
    fn slot(number: u32, start: Instant, seconds: u64) -> GrantedSlot {
        GrantedSlot {
            file: file(number),
            class: QuotaClass::Message,
            size: 10,
            expires: start + Duration::from_secs(seconds),
        }
    }

    fn file(number: u32) -> FileId {
        let folder = number.to_string();
        let path = [&b"owner"[..], folder.as_bytes(), b"name"];
        FileId::of(&StorePath::from_segments(path.into_iter()).unwrap())
    }

    fn counts(files: u64) -> Counts {
        let mut counts = Counts::default();
        (0..files).for_each(|_| counts.add(QuotaClass::Message, 10));
        counts
    }

    #[test]
    fn granted_slots_count_until_their_files_are_seen() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut usage = UsageTracker::default();
        let of = |usage: &mut UsageTracker, owner: &[u8]| {
            usage
                .of_owner(owner, start)
                .map(|bytes| Pool::ALL.sum(&bytes))
        };
        usage.set_total(0, 0, &[], start);
        for number in 1..=3 {
            usage.grant(b"a", slot(number, start, 60), start);
        }
        usage.grant(b"b", slot(4, start, 60), start);
        assert_eq!((of(&mut usage, b"a"), usage.total()), (None, Some(40)));
        let changes = usage.change_count(b"a");
        usage.grant(b"a", slot(5, start, 90), start);
        assert!(usage.change_count(b"a") > changes);
        // One of them is stored, next to a file that is not known.
        usage.set_counted(b"a", counts(2), &[file(2)], start, start);
        assert_eq!(of(&mut usage, b"a"), Some(20 + 30));
        assert_eq!((usage.total(), usage.stored()), (Some(50), Some((1, 10))));
        let mut left = usage.all_granted_files();
        left.sort_unstable();
        let mut expected = vec![file(1), file(3), file(4), file(5)];
        expected.sort_unstable();
        assert_eq!(left, expected);
        // A count of all files finds another one.
        usage.set_total(3, 30, &[file(3)], after(1));
        assert_eq!((of(&mut usage, b"a"), usage.total()), (Some(50), Some(60)));
        assert_eq!(usage.granted_files(b"a").len(), 2);
        // A count that was begun before the end of a slot says nothing about it.
        usage.set_counted(b"a", counts(3), &[], after(59), after(61));
        assert_eq!((of(&mut usage, b"a"), usage.total()), (Some(50), Some(60)));
        usage.set_counted(b"a", counts(3), &[], after(60), after(61));
        assert_eq!((of(&mut usage, b"a"), usage.total()), (Some(40), Some(50)));
        usage.set_total(3, 30, &[], after(90));
        assert_eq!((of(&mut usage, b"a"), usage.total()), (Some(30), Some(30)));
        assert_eq!(usage.all_granted_files(), []);
        assert!(usage.owners.values().all(|entry| entry.granted.is_none()));
    }

    #[test]
    fn many_granted_slots_take_little_memory() {
        let start = Instant::now();
        let mut usage = UsageTracker::default();
        for number in 0..1000 {
            usage.grant(b"a", slot(number, start, 60), start);
        }
        assert!(usage.granted_files(b"a").len() <= 256);
        let shown: Vec<FileId> = {
            let mut shown: Vec<FileId> = (0..1000).map(file).collect();
            shown.sort_unstable();
            shown
        };
        // It is not known which files the others are.
        usage.set_counted(b"a", counts(1000), &shown, start, start);
        let bytes = usage.of_owner(b"a", start).unwrap();
        assert_eq!(bytes[QuotaClass::Message], 10_000 + 7440);
        let end = start + Duration::from_secs(60);
        usage.set_counted(b"a", counts(1000), &[], end, end);
        let bytes = usage.of_owner(b"a", end).unwrap();
        assert_eq!(bytes[QuotaClass::Message], 10_000);
    }

    #[test]
    fn no_active_owner_is_dropped() {
        let start = Instant::now();
        let mut usage = UsageTracker::default();
        for number in 0..5 * MAX_OWNERS {
            ask(&mut usage, number, start);
        }
        assert_eq!(usage.owners.len(), 5 * MAX_OWNERS);
        // Owners are checked when their number has doubled, not at each new one.
        assert_eq!(usage.stayed, 4 * MAX_OWNERS);
        for number in 5 * MAX_OWNERS..=8 * MAX_OWNERS {
            ask(&mut usage, number, start + ACTIVE);
        }
        assert_eq!(usage.owners.len(), 3 * MAX_OWNERS + 1);
    }

    /// Counts until nothing is left to count.
    fn count(usage: &mut UsageTracker, root: BorrowedFd<'_>, now: Now) {
        while usage.is_counting() {
            usage.go_on(root, &mut Slice::begin(sys::monotonic), Duration::ZERO, now);
        }
    }

    #[test]
    fn counts_have_a_maximum_age() {
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
        usage.want_total(root, WalkMode::Files);
        for owner in [&b"romeo"[..], b"juliet"] {
            usage.ask(owner, WalkMode::Names);
        }
        count(&mut usage, root, start);
        let of = |usage: &mut UsageTracker, owner: &[u8], now: Now| {
            usage
                .of_owner(owner, now.mono)
                .map(|bytes| Pool::ALL.sum(&bytes))
        };
        assert_eq!(usage.stored(), Some((2, 20)));
        std::fs::remove_dir_all(path.join("romeo")).unwrap();
        // For an hour, or until a sweep does not find the owner.
        let before = start.later(MAX_AGE - Duration::from_secs(1));
        usage.retry_total(root, before.mono);
        assert!(!usage.is_counting());
        assert_eq!(of(&mut usage, b"romeo", before), Some(10));
        usage.distrust(start.mono);
        assert_eq!(of(&mut usage, b"romeo", before), Some(10));
        let after = start.later(MAX_AGE);
        assert_eq!(usage.due(), Some(after.mono));
        assert_eq!(of(&mut usage, b"romeo", after), None);
        assert_eq!(of(&mut usage, b"juliet", after), None);
        usage.ask(b"romeo", WalkMode::Names);
        usage.retry_total(root, after.mono);
        assert_eq!(usage.stored(), Some((2, 20)), "the old value is used");
        // Files added meanwhile are counted.
        usage.added(b"new", QuotaClass::Message, 7);
        std::fs::create_dir_all(path.join("new/r")).unwrap();
        std::fs::write(path.join("new/r/a"), [0; 7]).unwrap();
        count(&mut usage, root, after);
        assert_eq!(usage.stored(), Some((2, 17)));
        assert_eq!(of(&mut usage, b"romeo", after), Some(0));
        // A sweep that began later did not find this owner.
        usage.distrust(after.mono + Duration::from_secs(1));
        assert_eq!(of(&mut usage, b"romeo", after), None);
        // Another process reports a removal.
        std::fs::remove_dir_all(path.join("juliet")).unwrap();
        usage.removed_elsewhere(b"juliet", 1, 10);
        assert_eq!(usage.stored(), Some((1, 7)));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
