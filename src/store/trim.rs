//! Deletes an owner's oldest files until enough bytes are free (soft quota, eviction), or only finds out which files
//! that would be.
//!
//! ```text
//!   Waiting ──▶ Searching ──▶ Removing: batch after batch ──▶ done
//!      ▲                         │
//!      └── more files needed ────┘
//! ```
//!
//! Search and removal proceed in slices. Memory is bounded: one search picks a limited number of files, and if they do
//! not suffice, another search follows. While a batch waits for its tombstones to be synced, the orders of other owners
//! proceed; all batches that are ready at the same time share one sync.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

pub use crate::expiry::{Order, Trimmed};

use crate::expiry::{Coverage, Oldest, StoredFile, Victims};
use crate::now::Now;
use crate::policy::pool::{Pool, QuotaClass};
use crate::store::Store;
use crate::store::removal::{Batch, Stage, begin_sync, end_sync};
use crate::store::usage::UsageTracker;
use crate::store::walk::{Slice, Walk, WalkMode, WalkStep};

/// Maximum number of files picked by one search.
const MAX_PICKED: usize = 1024;

/// Maximum number of orders in progress; each may hold an open folder and the files that it has picked.
const MAX_ACTIVE: usize = 8;

/// Orders to trim. The first few are in progress, at most one per owner.
#[derive(Debug, Default)]
pub struct Trims {
    queue: VecDeque<Trim>,
}

#[derive(Debug)]
struct Trim {
    order: Order,
    stage: TrimStage,
    freed: u64,
    files: u64,
}

#[derive(Debug)]
enum TrimStage {
    Waiting,
    Searching {
        walk: Walk,
        oldest: Oldest,
    },
    Removing {
        victims: VecDeque<StoredFile>,
        batch: Batch,
        /// Whether these files suffice.
        enough: bool,
    },
}

impl Trims {
    pub fn push(&mut self, order: Order) {
        if self.queue.iter().any(|trim| trim.order == order) {
            return;
        }
        self.queue.push_back(Trim {
            order,
            stage: TrimStage::Waiting,
            freed: 0,
            files: 0,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is work other than waiting for a sync.
    pub fn has_work(&self) -> bool {
        let mut stages = self.active().filter_map(Trim::batch).map(Batch::stage);
        let is_syncing = stages.clone().any(|stage| stage == Stage::Syncing);
        self.can_proceed() || (!is_syncing && stages.any(|stage| stage == Stage::Recorded))
    }

    /// Whether an order does not wait for a sync.
    pub(super) fn can_proceed(&self) -> bool {
        self.next().is_some()
    }

    /// The tombstones to be synced, if any; the caller then reports the result to [`Trims::synced`].
    pub fn tombstones(&mut self, store: &Store) -> Option<Vec<OwnedFd>> {
        begin_sync(self.batches(), store)
    }

    /// The tombstones are on stable storage, or could not be synced.
    pub fn synced(&mut self, result: io::Result<()>) {
        end_sync(self.batches(), result);
    }

    /// Proceeds until the slice is used up; returns an order that is done. With `fsync`, tombstones are synced before
    /// their files are unlinked, see [`Trims::tombstones`].
    pub fn go_on(
        &mut self,
        fsync: bool,
        store: &mut Store,
        usage: &mut UsageTracker,
        slice: &mut Slice,
        now: Now,
    ) -> Option<Trimmed> {
        while let Some(at) = self.next() {
            match self.queue[at].go_on(fsync, store, usage, slice, now) {
                Progress::SliceUsed => return None,
                Progress::WaitingForSync => {}
                Progress::Done(newest) => {
                    let Trim {
                        order,
                        freed,
                        files,
                        ..
                    } = self.queue.remove(at)?;
                    return Some(Trimmed {
                        order,
                        freed,
                        files,
                        newest,
                    });
                }
            }
        }
        None
    }

    /// Takes an order that the caller carries out: the first one of an owner for whom `may_begin` holds.
    pub fn take(&mut self, may_begin: impl Fn(&[u8]) -> bool) -> Option<Order> {
        let mut queue = self.queue.iter();
        let at = queue.position(|trim| may_begin(&trim.order.owner))?;
        self.queue.remove(at).map(|trim| trim.order)
    }

    /// The orders in progress.
    fn active(&self) -> impl Iterator<Item = &Trim> + Clone {
        self.queue.iter().take(MAX_ACTIVE)
    }

    /// The batches of the orders in progress.
    fn batches(&mut self) -> Vec<&mut Batch> {
        let active = self.queue.iter_mut().take(MAX_ACTIVE);
        let batches = active.filter_map(|trim| match &mut trim.stage {
            TrimStage::Removing { batch, .. } => Some(batch),
            TrimStage::Waiting | TrimStage::Searching { .. } => None,
        });
        batches.collect()
    }

    /// The first order that does not wait for a sync, nor for an earlier order of the same owner.
    fn next(&self) -> Option<usize> {
        self.active().enumerate().position(|(at, trim)| {
            let mut earlier = self.queue.iter().take(at);
            !trim.waits_for_sync() && !earlier.any(|other| other.order.owner == trim.order.owner)
        })
    }
}

/// How far an order came.
enum Progress {
    SliceUsed,
    WaitingForSync,
    /// It is done; see [`Trimmed::newest`].
    Done(Option<SystemTime>),
}

impl Trim {
    fn waits_for_sync(&self) -> bool {
        let stage = self.batch().map(Batch::stage);
        matches!(stage, Some(Stage::Recorded | Stage::Syncing))
    }

    /// The files being removed.
    fn batch(&self) -> Option<&Batch> {
        match &self.stage {
            TrimStage::Removing { batch, .. } => Some(batch),
            TrimStage::Waiting | TrimStage::Searching { .. } => None,
        }
    }

    fn go_on(
        &mut self,
        fsync: bool,
        store: &mut Store,
        usage: &mut UsageTracker,
        slice: &mut Slice,
        now: Now,
    ) -> Progress {
        loop {
            match &mut self.stage {
                TrimStage::Waiting => {
                    let Ok(walk) = Walk::new(store.root(), &self.order.owner, WalkMode::Files)
                    else {
                        return Progress::Done(None);
                    };
                    let need = self.order.need.saturating_sub(self.freed);
                    let oldest = Oldest::new(need, MAX_PICKED);
                    self.stage = TrimStage::Searching { walk, oldest };
                }
                TrimStage::Searching { walk, oldest } => {
                    if !slice.take() {
                        return Progress::SliceUsed;
                    }
                    if search(walk, oldest, self.order.pool, store) {
                        let oldest = std::mem::replace(oldest, Oldest::new(0, 0));
                        if let Some(newest) = self.begin_removal(oldest.finish()) {
                            return Progress::Done(newest);
                        }
                    }
                }
                TrimStage::Removing { .. } => match self.remove(fsync, store, usage, slice, now) {
                    None => {}
                    Some(progress) => return progress,
                },
            }
        }
    }

    /// The search is over: `Some` if nothing is to be removed.
    fn begin_removal(&mut self, found: Victims) -> Option<Option<SystemTime>> {
        let Victims { victims, coverage } = found;
        let newest = victims.last().map(|victim| victim.modified);
        let enough = coverage == Coverage::Enough;
        // Files are only removed if that frees enough.
        if !self.order.remove || victims.is_empty() || coverage == Coverage::Never {
            return Some(newest.filter(|_| enough));
        }
        self.stage = TrimStage::Removing {
            victims: victims.into(),
            batch: Batch::default(),
            enough,
        };
        None
    }

    /// One step of the removal; `None` if there are more.
    fn remove(
        &mut self,
        fsync: bool,
        store: &mut Store,
        usage: &mut UsageTracker,
        slice: &mut Slice,
        now: Now,
    ) -> Option<Progress> {
        let TrimStage::Removing {
            victims,
            batch,
            enough,
        } = &mut self.stage
        else {
            return None;
        };
        match batch.stage() {
            Stage::Recorded | Stage::Syncing => return Some(Progress::WaitingForSync),
            Stage::Recording if batch.is_full() || victims.is_empty() => match batch.is_empty() {
                false => batch.close(fsync),
                true if *enough => return Some(Progress::Done(None)),
                true => self.stage = TrimStage::Waiting,
            },
            Stage::Recording => {
                if !slice.take() {
                    return Some(Progress::SliceUsed);
                }
                let picked = victims.pop_front()?;
                match store.find(&picked.path) {
                    Ok(Some(victim)) => batch.add_or_warn(victim, store, now),
                    // Already removed, maybe by a process that has not reported it.
                    Ok(None) => {
                        usage.removed_elsewhere(&self.order.owner, 0, 0);
                        self.count(picked.size);
                    }
                    // Another search would pick it again, endlessly.
                    Err(_) => {
                        victims.clear();
                        *enough = true;
                    }
                }
            }
            Stage::Unlinking => {
                if !slice.take() {
                    return Some(Progress::SliceUsed);
                }
                let victim = batch.next_victim()?;
                if let Err(error) = usage.unlink(&victim, store) {
                    store.warn_limited("file not removed", &victim.path, &error, now.mono);
                    return Some(Progress::Done(None));
                }
                self.count(victim.size);
            }
        }
        None
    }

    fn count(&mut self, size: u64) {
        self.freed += size;
        self.files += 1;
    }
}

/// One step of the search; true at its end.
fn search(walk: &mut Walk, oldest: &mut Oldest, pool: Pool, store: &Store) -> bool {
    match walk.step(store.root()) {
        WalkStep::File(file) => {
            if pool.has(QuotaClass::of(file.path.tag())) {
                let modified = store.times().rank(file.modified);
                oldest.consider(StoredFile { modified, ..file });
            }
            false
        }
        WalkStep::Named(..) | WalkStep::Other => false,
        WalkStep::Done => true,
    }
}
