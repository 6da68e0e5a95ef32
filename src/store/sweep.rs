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
//! upslot creates the folder of a file when the file is complete, so that both have the same age. A folder that is
//! younger than the maximum age is therefore not opened, which is by far the most expensive part of a sweep. Because
//! other programs may have set back a file's time, or deleted the file, some of these folders are opened all the same: in
//! each sweep other ones, and all of them in a store that is not large.
//!
//! Expired files are collected in batches for the pipeline of [`crate::store::removal`]; the walk pauses while the
//! tombstones of a batch are synced.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use crate::expiry::{Lifetime, StoredFile};
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool::{Pool, QuotaClass};
use crate::store::Store;
use crate::store::aliases::AliasWalk;
use crate::store::removal::{Batch, Stage, begin_sync, end_sync};
use crate::store::trim::{Order, Trims};
use crate::store::usage::{Counts, UsageTracker};
use crate::store::walk::{Owners, Slice, WalkMode, WalkStep};

pub(super) mod owner;

use owner::{OwnerPass, SpotChecks, is_ahead, is_expired};

/// Maximum time from the start to the first sweep.
pub const FIRST: Duration = Duration::from_secs(300);

/// Maximum pause of the sweep after a clock jump; the operator may set the clock back.
pub const SETTLING: Duration = Duration::from_secs(3600);

/// Time until a sweep that could not begin, or failed in an object store, is tried again.
pub const RETRY: Duration = Duration::from_secs(60);

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
    /// Sweeps that could not begin, did not reach every file, or could not delete one.
    failures: u64,
    /// Where the spot checks of the next pass begin.
    pub(super) spot_checks: u64,
}

/// One sweep in progress.
#[derive(Debug)]
struct Pass {
    begun: Instant,
    owners: Owners,
    aliases: AliasWalk,
    current: Option<OwnerPass>,
    /// Expired files.
    batch: Batch,
    report: Report,
    /// Whether everything was read.
    whole: bool,
    /// Whether an expired file could not be deleted.
    undeleted: bool,
    /// One of the files with a time in the future.
    future: Option<StorePath>,
    /// One of the files whose time could not be set.
    unset: Option<StorePath>,
    spot_checks: SpotChecks,
    /// Whether all files were looked at.
    is_measured: bool,
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
            failures: 0,
            spot_checks: 0,
        }
    }

    /// The number of sweeps so far that could not begin, did not reach every file, or could not delete one.
    pub fn failures(&self) -> u64 {
        self.failures
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
            self.begin_pass(plan, store, now)?;
        }
        let pass = self.pass.as_mut()?;
        match pass.go_on(plan, store, usage, trims, slice, now) {
            true => self.end_pass(store, usage, now),
            false => None,
        }
    }

    /// Begins a pass; `None` if it cannot begin.
    fn begin_pass(&mut self, plan: &Plan, store: &Store, now: Now) -> Option<()> {
        self.due = Some(self.due?.max(now.mono) + plan.interval);
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
                    undeleted: false,
                    future: None,
                    unset: None,
                    spot_checks: SpotChecks {
                        start: self.spot_checks,
                        seen: 0,
                    },
                    is_measured: true,
                });
                Some(())
            }
            Err(error) => {
                log::error!("sweep failed why={:?}", error.to_string());
                self.failures += 1;
                self.due = Some(now.mono + plan.interval.min(RETRY));
                None
            }
        }
    }

    /// Takes the pass, which has seen all files, and reports it.
    fn end_pass(&mut self, store: &Store, usage: &mut UsageTracker, now: Now) -> Option<Report> {
        let pass = self.pass.take()?;
        // Owners without an entry in this pass have no folder any more, or their folder could not be read.
        usage.distrust(pass.begun);
        if pass.is_measured {
            // The pass has removed empty folders, so the names are true.
            usage.recount_total(store.root(), WalkMode::Names);
        }
        self.spot_checks = pass.spot_checks.next_start();
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
        self.failures += u64::from(!pass.whole || pass.undeleted);
        let mut report = pass.report;
        report.whole = pass.whole && pass.unset.is_none();
        report.took = now.mono.saturating_duration_since(pass.begun);
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
                    None if store.drop_dead_alias(&mut self.aliases, now.wall) => {}
                    None if !self.batch.is_empty() => self.batch.close(plan.fsync),
                    None => {
                        self.whole &= self.owners.error().is_none();
                        return true;
                    }
                    Some(None) => {}
                    Some(Some(owner)) => self.enter(owner, WalkMode::Selective, store, usage),
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
    fn enter(&mut self, owner: Vec<u8>, mode: WalkMode, store: &Store, usage: &UsageTracker) {
        let pass = OwnerPass::begin(owner, mode, store, usage);
        if let Err(error) = &pass {
            self.whole &= error.kind() == io::ErrorKind::NotFound;
        }
        self.current = pass.ok();
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
            WalkStep::Other => {}
            WalkStep::Named(tag, size) => {
                if !self.spot_checks.include_next()
                    && current.cannot_expire(tag, plan.lifetime, store, now)
                {
                    self.report.files += 1;
                    current.remaining.add(QuotaClass::of(Some(tag)), size);
                    current.is_measured = false;
                } else {
                    current.walk.enter();
                }
            }
            WalkStep::File(file) => {
                self.report.files += 1;
                self.look_at_file(file, plan, store, now);
            }
            WalkStep::Done => self.leave(plan, store, usage, trims, now),
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
                let changed = current.walk.stat().map_or(now.wall, |stat| stat.changed);
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
    fn leave(
        &mut self,
        plan: &Plan,
        store: &Store,
        usage: &mut UsageTracker,
        trims: &mut Trims,
        now: Now,
    ) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let evictable = |counts: &Counts| Pool::EVICTABLE.sum(&counts.bytes);
        let stays =
            evictable(&current.remaining).saturating_sub(evictable(&current.pending_removal));
        let over = plan.soft_quota.filter(|quota| stays > *quota);
        if over.is_some() && !current.is_measured {
            // A name may be wrong, and no file may be removed because of that. The files in the batch are removed before
            // the walk finds them again.
            if !self.batch.is_empty() {
                self.batch.close(plan.fsync);
            }
            self.report.files -= current.remaining.files - current.pending_removal.files;
            return self.enter(current.owner, WalkMode::Tidy, store, usage);
        }
        // Files that could not be read may still be there.
        let whole = current.walk.error().is_none();
        self.whole &= whole;
        self.is_measured &= current.is_measured;
        if let Some(changes) = current.changes.filter(|_| whole) {
            let OwnerPass {
                owner,
                remaining,
                is_measured,
                ..
            } = &current;
            usage.loaded(owner, changes, *remaining, *is_measured, now.mono);
        }
        if let Some(quota) = over {
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
            Err(error) => {
                self.undeleted = true;
                store.warn_limited("file not removed", path, &error, now.mono);
            }
        }
    }
}
