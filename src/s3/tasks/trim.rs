//! Deletes an owner's oldest files until enough bytes are free (soft quota, eviction), or only finds out which files that
//! would be.
//!
//! ```text
//!   Searching ──▶ Removing ──▶ done
//!       ▲             │
//!       └─ more files needed
//! ```

use std::time::SystemTime;

use crate::expiry::{Coverage, Oldest, Order, TombstonePolicy, Trimmed, Victims};
use crate::now::Now;
use crate::policy::pool::QuotaClass;
use crate::s3::bucket::Bucket;
use crate::s3::error::StoreFailure;
use crate::s3::listing::StoredObject;
use crate::s3::tasks::pages::{Pages, file_of};
use crate::s3::tasks::removals::{Removals, Victim};
use crate::s3::tasks::{RequestIds, TaskAnswer, TaskRequest};

/// Maximum number of files picked by one search.
const MAX_PICKED: usize = 1000;

/// An order in progress.
#[derive(Debug)]
pub struct TrimTask {
    order: Order,
    /// Files stored since then are new: one of them may be the upload for which there is to be room.
    started: SystemTime,
    ids: RequestIds,
    pages: Pages,
    oldest: Oldest,
    removals: Removals,
    stage: TrimTaskStage,
    newest: Option<SystemTime>,
    error: Option<StoreFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrimTaskStage {
    Searching,
    Removing {
        /// Whether the picked files suffice.
        enough: bool,
        /// Files deleted by earlier searches.
        before: u64,
    },
    Done,
}

impl TrimTask {
    pub fn new(order: Order, policy: TombstonePolicy, now: Now) -> TrimTask {
        let pages = Pages::of_owner(&order.owner);
        TrimTask {
            started: now.wall,
            ids: RequestIds::default(),
            oldest: Oldest::new(order.need, MAX_PICKED),
            removals: Removals::new(policy),
            stage: match pages.is_done() {
                true => TrimTaskStage::Done,
                false => TrimTaskStage::Searching,
            },
            pages,
            newest: None,
            error: None,
            order,
        }
    }

    /// The next request, until there is none; more may follow after an answer.
    pub fn want(&mut self, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        if self.stage == TrimTaskStage::Searching {
            return self.pages.want(&mut self.ids, bucket, now);
        }
        self.removals.want(&mut self.ids, bucket, now)
    }

    pub fn answered(&mut self, id: u32, answer: TaskAnswer, now: Now) {
        if self.pages.is_asked(id) {
            if let Err(failure) = self.pages.answered(answer, now) {
                self.give_up(failure);
            }
            return;
        }
        self.removals.answered(id, answer, now);
        let TrimTaskStage::Removing { enough, before } = self.stage else {
            return;
        };
        if !self.removals.is_idle() {
            return;
        }
        let deleted_none = self.removals.files == before;
        if enough || deleted_none || self.removals.is_stopped {
            self.stage = TrimTaskStage::Done;
        } else {
            let need = self.order.need.saturating_sub(self.removals.bytes);
            self.oldest = Oldest::new(need, MAX_PICKED);
            self.pages = Pages::of_owner(&self.order.owner);
            self.stage = TrimTaskStage::Searching;
        }
    }

    /// Whether there is something to do without an answer.
    pub fn has_work(&self) -> bool {
        self.stage == TrimTaskStage::Searching && self.pages.has_work()
    }

    /// Whether the next request is for a page, and nothing else is outstanding.
    pub fn is_between_pages(&self) -> bool {
        self.stage == TrimTaskStage::Searching && self.pages.is_due()
    }

    /// Does some of this work.
    pub fn go_on(&mut self, bucket: &Bucket, now: Now) {
        match self.pages.go_on() {
            Ok(part) => {
                self.consider(&part.objects, bucket, now);
                if self.pages.is_done() {
                    self.begin_removal(now);
                }
            }
            Err(failure) => self.give_up(failure),
        }
    }

    /// An incomplete search would delete files although others are older.
    fn give_up(&mut self, failure: StoreFailure) {
        self.error = Some(failure);
        self.stage = TrimTaskStage::Done;
    }

    fn consider(&mut self, objects: &[StoredObject], bucket: &Bucket, now: Now) {
        for object in objects {
            let file = file_of(object, bucket, now.wall);
            let file = file.filter(|file| {
                let class = QuotaClass::of(file.path.tag());
                self.order.pool.has(class) && object.modified < self.started
            });
            if let Some(file) = file {
                self.oldest.consider(file);
            }
        }
    }

    /// All files were considered.
    fn begin_removal(&mut self, now: Now) {
        let oldest = std::mem::replace(&mut self.oldest, Oldest::new(0, 0));
        let Victims { victims, coverage } = oldest.finish();
        let enough = coverage == Coverage::Enough;
        let newest = victims.last().map(|victim| victim.modified);
        // Files are only deleted if that frees enough.
        if !self.order.remove || victims.is_empty() || coverage == Coverage::Never {
            self.newest = newest.filter(|_| enough);
            self.stage = TrimTaskStage::Done;
            return;
        }
        self.stage = TrimTaskStage::Removing {
            enough,
            before: self.removals.files,
        };
        for victim in victims {
            self.removals.push(Victim::File(victim), now);
        }
    }

    pub fn is_done(&self) -> bool {
        self.stage == TrimTaskStage::Done
    }

    /// The result, and why it is not complete, if so.
    pub fn finish(self) -> (Trimmed, Option<StoreFailure>) {
        let trimmed = Trimmed {
            order: self.order,
            freed: self.removals.bytes,
            files: self.removals.files,
            newest: self.newest,
        };
        (trimmed, self.error.or(self.removals.error))
    }
}
