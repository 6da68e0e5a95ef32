//! The sweep: deletes expired files, one owner folder after the other, in slices.
//!
//! ```text
//!   Waiting(until) ── due ──▶ listing owners ⇄ walking one owner ── end of the list ──▶ Waiting(until)
//! ```
//!
//! A file whose modification time is in the future gets the present time: its age counts from the first sweep that sees
//! it. Times that a wrong clock has set are corrected, see [`crate::clock`]; while the clock is in doubt, no file is
//! deleted because of its age.
//!
//! Expired files are collected in batches for the pipeline of [`crate::store::removal`]; the walk pauses while the
//! tombstones of a batch are synced.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::{FileTimes, TOLERANCE};
use crate::expiry::{self, Lifetime, StoredFile};
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool::{Pool, QuotaClass};
use crate::store::Store;
use crate::store::removal::{Batch, Stage, begin_sync, end_sync};
use crate::store::trim::{Order, Trims};
use crate::store::usage::{Counts, UsageTracker};
use crate::store::walk::{Owners, Slice, Walk, WalkMode, WalkStep};

/// Maximum time from the start to the first sweep.
const FIRST: Duration = Duration::from_secs(300);

/// Maximum pause of the sweep after a clock jump; the operator may set the clock back.
const SETTLING: Duration = Duration::from_secs(3600);

/// Smaller differences are not in the future: another host or a file server may have set the time.
const AHEAD: Duration = Duration::from_secs(TOLERANCE as u64);

/// Time until a sweep that could not begin is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The settings of the sweep, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Time between two sweeps; zero disables them.
    pub interval: Duration,
    pub lifetime: Lifetime,
    /// Bytes per owner to which the sweep trims, without profile pictures and permanent files.
    pub soft_quota: Option<u64>,
    /// Whether tombstones are synced before their files are unlinked.
    pub fsync: bool,
}

/// The sweep of the whole store.
#[derive(Debug)]
pub struct Sweep {
    due: Option<Instant>,
    pass: Option<Pass>,
}

/// One sweep in progress.
#[derive(Debug)]
struct Pass {
    begun: Instant,
    owners: Owners,
    aliases: Option<rustix::fs::Dir>,
    current: Option<OwnerPass>,
    /// Expired files.
    batch: Batch,
    report: Report,
    /// Whether everything was read.
    whole: bool,
    /// One of the files with a time in the future.
    future: Option<StorePath>,
    /// One of the files whose time could not be set.
    unset: Option<StorePath>,
}

/// The owner whose files are being walked.
#[derive(Debug)]
struct OwnerPass {
    owner: Vec<u8>,
    walk: Walk,
    /// The files seen that are still there.
    remaining: Counts,
    /// The part of these that is in the batch.
    pending_removal: Counts,
    /// The owner's number of changes, if only the sweep makes any.
    changes: Option<u64>,
}

impl OwnerPass {
    /// Sets the modification time of the file that the walk has found, if it is wrong and the clock is right; then tells
    /// whether it was in the future.
    fn set_time(
        &mut self,
        store: &Store,
        modified: SystemTime,
        now: Now,
        set: impl FnOnce(bool),
    ) -> io::Result<()> {
        let times = store.times();
        let stored = times.stored(modified);
        let counted = if is_ahead(stored, now) {
            now.wall
        } else {
            stored
        };
        if counted == modified || !times.is_known() {
            return Ok(());
        }
        match self.walk.set_modified(counted) {
            Ok(()) => set(is_ahead(modified, now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a modification time is in the future.
fn is_ahead(modified: SystemTime, now: Now) -> bool {
    modified
        .duration_since(now.wall)
        .is_ok_and(|by| by >= AHEAD)
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files looked at.
    pub files: u64,
    pub removed: u64,
    /// Bytes removed.
    pub bytes: u64,
    /// Files that had a modification time in the future.
    pub future: u64,
    /// Other files that got another modification time, because the clock had been wrong.
    pub corrected: u64,
    /// Files whose modification time could not be set.
    pub unset: u64,
    /// Whether all files were seen, and have the times that they should have.
    pub whole: bool,
    pub took: Duration,
}

impl Sweep {
    /// A sweep that is first due one interval, but at most five minutes, from now.
    pub fn new(plan: &Plan, now: Now) -> Sweep {
        Sweep {
            due: (!plan.interval.is_zero()).then(|| now.mono + plan.interval.min(FIRST)),
            pass: None,
        }
    }

    /// The wall clock has jumped: nothing is done until that has lasted for a while. Returns how long that is, if there
    /// is a sweep at all.
    pub fn settle(&mut self, plan: &Plan, now: Instant) -> Option<Duration> {
        self.pass = None;
        let pause = plan.interval.min(SETTLING);
        self.due = self.due.map(|_| now + pause);
        self.due.map(|_| pause)
    }

    /// Takes a plan that changed; a pass under way goes on.
    pub fn set_plan(&mut self, plan: &Plan, now: Instant) {
        if plan.interval.is_zero() {
            self.due = None;
        } else {
            let latest = now + plan.interval;
            self.due = Some(
                self.due
                    .map_or(now + plan.interval.min(FIRST), |due| due.min(latest)),
            );
        }
    }

    /// When there is something to do next; a time in the past while a pass is in progress. `None` while it waits for a
    /// sync.
    pub fn due(&self) -> Option<Instant> {
        match &self.pass {
            Some(pass) if pass.batch.stage() == Stage::Syncing => None,
            Some(pass) => Some(pass.begun),
            None => self.due,
        }
    }

    /// The tombstones to be synced, if any; the caller then reports the result to [`Sweep::tombstones_synced`].
    pub fn tombstones(&mut self, store: &Store) -> Option<Vec<OwnedFd>> {
        begin_sync(self.batches(), store)
    }

    /// The tombstones are on stable storage, or could not be synced.
    pub fn tombstones_synced(&mut self, result: io::Result<()>) {
        end_sync(self.batches(), result);
    }

    fn batches(&mut self) -> Vec<&mut Batch> {
        let pass = self.pass.as_mut();
        pass.map(|pass| &mut pass.batch).into_iter().collect()
    }

    /// Goes on, if it is time, until the slice is used up; reports a pass that ended.
    pub fn go_on(
        &mut self,
        plan: &Plan,
        store: &mut Store,
        usage: &mut UsageTracker,
        trims: &mut Trims,
        slice: &mut Slice,
        now: Now,
    ) -> Option<Report> {
        if self.due().is_none_or(|due| due > now.mono) {
            return None;
        }
        if self.pass.is_none() {
            let due = self.due.filter(|due| *due <= now.mono)?;
            self.due = Some(due.max(now.mono) + plan.interval);
            match Owners::new(store.root()) {
                Ok(owners) => {
                    self.pass = Some(Pass {
                        begun: now.mono,
                        owners,
                        aliases: store.aliases(),
                        current: None,
                        batch: Batch::default(),
                        report: Report::default(),
                        whole: true,
                        future: None,
                        unset: None,
                    });
                }
                Err(error) => {
                    log::error!("sweep failed why={:?}", error.to_string());
                    self.due = Some(now.mono + plan.interval.min(RETRY));
                    return None;
                }
            }
        }
        let pass = self.pass.as_mut()?;
        if !pass.go_on(plan, store, usage, trims, slice, now) {
            return None;
        }
        // Owners without an entry in this pass have no folder any more, or their folder could not be read.
        usage.distrust(pass.begun);
        // The pass has removed empty folders, so the names are true.
        usage.recount_total(store.root(), WalkMode::Names);
        if let Some(path) = &pass.future {
            let files = pass.report.future;
            log::warn!(
                "files have a time in the future, which counts from now files={files} path={path:?}"
            );
        }
        if let Some(path) = &pass.unset {
            let files = pass.report.unset;
            log::warn!("times of files cannot be set files={files} path={path:?}");
        }
        let mut report = pass.report;
        report.whole = pass.whole && pass.unset.is_none();
        report.took = now.mono.saturating_duration_since(pass.begun);
        self.pass = None;
        Some(report)
    }
}

impl Pass {
    /// True at the end.
    fn go_on(
        &mut self,
        plan: &Plan,
        store: &mut Store,
        usage: &mut UsageTracker,
        trims: &mut Trims,
        slice: &mut Slice,
        now: Now,
    ) -> bool {
        while slice.take() {
            match self.batch.stage() {
                Stage::Recording if self.batch.is_full() => self.batch.close(plan.fsync),
                Stage::Recording if self.current.is_some() => {
                    self.look_at_entry(plan, store, usage, trims, now);
                }
                Stage::Recording => match self.owners.step() {
                    None if self.drop_an_alias(store, now) => {}
                    None if !self.batch.is_empty() => self.batch.close(plan.fsync),
                    None => {
                        self.whole &= self.owners.error().is_none();
                        return true;
                    }
                    Some(None) => {}
                    Some(Some(owner)) => self.enter(owner, store, usage),
                },
                Stage::Recorded | Stage::Syncing => return false,
                Stage::Unlinking => {
                    if let Some(victim) = self.batch.next_victim() {
                        self.unlink(&victim, plan, store, usage, now);
                    }
                }
            }
        }
        false
    }

    /// Begins to walk over an owner's files.
    fn enter(&mut self, owner: Vec<u8>, store: &Store, usage: &UsageTracker) {
        let walk = Walk::new(store.root(), &owner, WalkMode::Tidy);
        if let Err(error) = &walk {
            self.whole &= error.kind() == io::ErrorKind::NotFound;
        }
        self.current = walk.ok().map(|walk| OwnerPass {
            changes: usage.changes(&owner),
            owner,
            walk,
            remaining: Counts::default(),
            pending_removal: Counts::default(),
        });
    }

    /// One step of the walk over the current owner's files.
    fn look_at_entry(
        &mut self,
        plan: &Plan,
        store: &mut Store,
        usage: &mut UsageTracker,
        trims: &mut Trims,
        now: Now,
    ) {
        let Some(current) = &mut self.current else {
            return;
        };
        match current.walk.step(store.root()) {
            WalkStep::Named(..) | WalkStep::Other => {}
            WalkStep::File(file) => {
                self.report.files += 1;
                self.look_at_file(file, plan, store, now);
            }
            WalkStep::Done => self.leave(plan, usage, trims, now),
        }
    }

    /// Checks a file of the current owner: it is added to the batch if it has expired.
    fn look_at_file(&mut self, file: StoredFile, plan: &Plan, store: &mut Store, now: Now) {
        let Some(current) = &mut self.current else {
            return;
        };
        let is_expired = |counted: SystemTime, store: &Store| {
            is_expired(plan.lifetime, store.times(), &file.path, counted, now)
        };
        let mut expired = is_expired(file.modified, store);
        if !expired {
            let set = current.set_time(store, file.modified, now, |is_future| match is_future {
                true => {
                    self.report.future += 1;
                    self.future.get_or_insert_with(|| file.path.clone());
                }
                false => self.report.corrected += 1,
            });
            if let Err(error) = set {
                let (path, why) = (&file.path, error.to_string());
                log::debug!("time not set path={path:?} why={why:?}");
                self.report.unset += 1;
                self.unset.get_or_insert_with(|| path.clone());
                // Its age counts from its last change instead, so that it expires at all.
                let changed = current.walk.changed().unwrap_or(now.wall);
                expired = is_ahead(file.modified, now) && is_expired(changed, store);
            }
        }
        let class = QuotaClass::of(file.path.tag());
        current.remaining.add(class, file.size);
        if expired {
            current.pending_removal.add(class, file.size);
            self.batch.add_or_warn(file, store, now);
        }
    }

    /// All files of the current owner were seen.
    fn leave(&mut self, plan: &Plan, usage: &mut UsageTracker, trims: &mut Trims, now: Now) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        // Files that could not be read may still be there.
        let whole = current.walk.error().is_none();
        self.whole &= whole;
        if let Some(changes) = current.changes.filter(|_| whole) {
            usage.loaded(&current.owner, changes, current.remaining, now.mono);
        }
        let evictable = |counts: &Counts| Pool::EVICTABLE.sum(&counts.bytes);
        let stays =
            evictable(&current.remaining).saturating_sub(evictable(&current.pending_removal));
        if let Some(quota) = plan.soft_quota.filter(|quota| stays > *quota) {
            trims.push(Order {
                owner: current.owner,
                need: stays - quota,
                pool: Pool::EVICTABLE,
                remove: true,
            });
        }
        if !self.batch.is_empty() && !self.batch.needs_sync(plan.fsync) {
            self.batch.close(plan.fsync);
        }
    }

    /// Unlinks a file of the batch, unless it was replaced or touched, or the configuration changed meanwhile.
    fn unlink(
        &mut self,
        victim: &StoredFile,
        plan: &Plan,
        store: &mut Store,
        usage: &mut UsageTracker,
        now: Now,
    ) {
        let StoredFile {
            path,
            size,
            modified,
        } = victim;
        // A time that is still in the future could not be set.
        let expired = is_ahead(*modified, now)
            || is_expired(plan.lifetime, store.times(), path, *modified, now);
        let unchanged = matches!(store.find(path), Ok(Some(found)) if found == *victim);
        if !expired || !unchanged {
            return;
        }
        match usage.unlink(victim, store) {
            Ok(true) => {
                let owner = path.owner_folder();
                if let Some(current) = self.current.as_mut().filter(|c| c.owner == owner) {
                    let class = QuotaClass::of(path.tag());
                    current.changes = current.changes.map(|changes| changes + 1);
                    current.remaining.subtract(class, *size);
                    current.pending_removal.subtract(class, *size);
                }
                self.report.removed += 1;
                self.report.bytes += size;
                log::debug!("file expired path={path:?} bytes={size}");
            }
            Ok(false) => {}
            Err(error) => store.warn_limited("file not removed", path, &error, now.mono),
        }
    }

    /// Looks at one more alias; false at the end.
    fn drop_an_alias(&mut self, store: &Store, now: Now) -> bool {
        let Some(Some(Ok(entry))) = self.aliases.as_mut().map(rustix::fs::Dir::read) else {
            return false;
        };
        store.drop_dead_alias(entry.file_name().to_bytes(), now.wall);
        true
    }
}

/// Whether a file has expired. While the clock is in doubt, only a file whose path tells its end may expire: the clock
/// is likely to be behind, not ahead.
fn is_expired(
    lifetime: Lifetime,
    times: &FileTimes,
    path: &StorePath,
    modified: SystemTime,
    now: Now,
) -> bool {
    let end = match times.is_known() {
        true => lifetime.end(path.tag(), times.stored(modified).min(now.wall)),
        false => expiry::hard_end(path.tag()),
    };
    end.is_some_and(|end| end <= now.wall)
}
