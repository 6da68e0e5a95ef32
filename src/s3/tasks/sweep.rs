//! The sweep of an object store: deletes expired files, trims owners to the soft quota, and removes internal objects that
//! are not needed any more.
//!
//! One list of all objects is read. Files of one owner follow each other in it, so that one owner's sums are held at a
//! time. When the last file of an owner over the soft quota was seen, the sweep pauses for the trim of this owner.
//!
//! Aliases whose files a life-cycle rule of the bucket has deleted are found by the same list; see [`UnusedAliases`].
//!
//! Objects that were stored after the sweep began are left alone. The age of a file counts from the object's time of
//! modification; a time in the future counts from now. If the store's clock is behind, ages are those that it would tell, so
//! that no file is deleted too early.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::expiry::{Lifetime, Order, StoredFile, TombstonePolicy};
use crate::layout::{FileId, slot_digest};
use crate::now::Now;
use crate::policy::pool::{Bytes, Pool, QuotaClass};
use crate::s3::bucket::{Bucket, Internal, REMOVED_ALIAS, REQUEST_LIFETIME};
use crate::s3::error::StoreFailure;
use crate::s3::listing::StoredObject;
use crate::s3::tasks::aliases::UnusedAliases;
use crate::s3::tasks::pages::{Pages, file_of};
use crate::s3::tasks::removals::{Removals, Victim};
use crate::s3::tasks::sought::SoughtFiles;
use crate::s3::tasks::trim::TrimTask;
use crate::s3::tasks::{RequestIds, TaskAnswer, TaskRequest, concerns_all};
use crate::slot::revoked::REMEMBERED;

/// What is to be deleted.
#[derive(Clone, Copy, Debug)]
pub struct SweepPlan {
    pub lifetime: Lifetime,
    /// Bytes per owner to which the sweep trims, without profile pictures and permanent files.
    pub soft_quota: Option<u64>,
    pub policy: TombstonePolicy,
}

/// What one sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepResult {
    /// Files that are still there, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Files deleted, and their bytes.
    pub removed: u64,
    pub removed_bytes: u64,
    /// Objects that should be deleted, but could not be.
    pub failed: u64,
    /// Objects that are no files of upslot.
    pub foreign: u64,
    /// Files with a time in the future.
    pub future: u64,
    /// Whether all objects were seen.
    pub whole: bool,
    /// The files that were looked for and found; see [`SweepTask::seek`].
    pub found_files: Vec<FileId>,
    /// The first failure.
    pub error: Option<StoreFailure>,
}

/// A sweep in progress.
#[derive(Debug)]
pub struct SweepTask {
    plan: SweepPlan,
    started: SystemTime,
    /// By how much the store's clock is behind.
    lag: Duration,
    ids: RequestIds,
    pages: Pages,
    /// The rest of the current part of a page.
    part: VecDeque<StoredObject>,
    /// The folder of the current owner, and the bytes of the files that stay.
    owner: Vec<u8>,
    stays: Bytes,
    removals: Removals,
    /// Only if there may be aliases.
    aliases: Option<UnusedAliases>,
    trim: Option<Box<TrimTask>>,
    sought: SoughtFiles,
    result: SweepResult,
}

impl SweepTask {
    pub fn new(plan: SweepPlan, now: Now) -> SweepTask {
        SweepTask {
            plan,
            started: now.wall,
            lag: Duration::ZERO,
            ids: RequestIds::default(),
            pages: Pages::new(String::new()),
            part: VecDeque::new(),
            owner: Vec::new(),
            stays: Bytes::default(),
            removals: Removals::new(plan.policy),
            aliases: plan.policy.foreign.then(|| {
                let seconds = now.unix().to_be_bytes();
                UnusedAliases::new(slot_digest(&seconds))
            }),
            trim: None,
            sought: SoughtFiles::default(),
            result: SweepResult::default(),
        }
    }

    /// Looks for these files on the way.
    pub fn seek(mut self, files: Vec<FileId>) -> SweepTask {
        self.sought = SoughtFiles::new(files);
        self
    }

    /// The next request, until there is none; more may follow after an answer.
    pub fn want(&mut self, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        if let Some(request) = self.removals.want(&mut self.ids, bucket, now) {
            return Some(request);
        }
        if !self.removals.is_idle() {
            return None;
        }
        match &mut self.trim {
            // A trim numbers its requests itself; nothing else is outstanding meanwhile.
            Some(trim) => trim.want(bucket, now),
            None => self.pages.want(&mut self.ids, bucket, now),
        }
    }

    pub fn answered(&mut self, id: u32, answer: TaskAnswer, now: Now) {
        if !self.removals.is_idle() {
            self.removals.answered(id, answer, now);
            if self.removals.is_stopped {
                let error = self.removals.error.clone();
                error.into_iter().for_each(|error| self.stop(error));
            }
        } else if let Some(trim) = &mut self.trim {
            trim.answered(id, answer, now);
            self.end_trim();
        } else if self.pages.is_asked(id) {
            let checked = self.check_clock(&answer, now);
            let answered = self.pages.answered(answer, now).and(checked);
            answered.unwrap_or_else(|failure| self.stop(failure));
        }
    }

    /// Whether there is something to do without an answer.
    pub fn has_work(&self) -> bool {
        match &self.trim {
            Some(trim) => trim.has_work(),
            None => {
                let has_objects = !self.part.is_empty() || self.pages.has_work();
                (has_objects || self.has_unused_aliases()) && self.removals.has_room()
            }
        }
    }

    /// Whether the whole list was seen, and aliases without files in it.
    fn has_unused_aliases(&self) -> bool {
        let aliases = self.aliases.as_ref();
        let is_whole = self.pages.is_done() && self.part.is_empty();
        is_whole && aliases.is_some_and(|aliases| !aliases.is_empty())
    }

    /// Does some of this work.
    pub fn go_on(&mut self, bucket: &Bucket, now: Now) {
        if let Some(trim) = &mut self.trim {
            trim.go_on(bucket, now);
            return self.end_trim();
        }
        if self.has_unused_aliases() {
            let aliases = self.aliases.as_mut();
            if let Some(key) = aliases.and_then(|aliases| aliases.take(bucket)) {
                self.removals.push(Victim::Internal(key), now);
            }
            return;
        }
        if self.part.is_empty() {
            match self.pages.go_on() {
                Ok(part) => {
                    self.result.foreign += part.skipped;
                    self.part = part.objects.into();
                    self.result.whole = self.pages.is_done();
                }
                Err(failure) => return self.stop(failure),
            }
        }
        self.look_at_part(bucket, now);
    }

    /// Learns by how much the store's clock is behind. One that is ahead would make files expire.
    fn check_clock(&mut self, answer: &TaskAnswer, now: Now) -> Result<(), StoreFailure> {
        if let Ok(response) = answer {
            StoreFailure::check_clock(response, now.wall)?;
            self.lag = StoreFailure::clock_lag(response, now.wall);
        }
        Ok(())
    }

    /// Looks at the rest of the part, until an owner must be trimmed.
    fn look_at_part(&mut self, bucket: &Bucket, now: Now) {
        while let Some(object) = self.part.front() {
            let file = file_of(object, bucket, now.wall);
            let is_new_owner = file
                .as_ref()
                .is_some_and(|file| file.path.owner_folder() != self.owner);
            if is_new_owner && self.leave_owner(now) {
                return;
            }
            let Some(object) = self.part.pop_front() else {
                return;
            };
            if let Some(aliases) = &mut self.aliases {
                aliases.look_at_key(&object.key);
            }
            match file {
                Some(file) => self.look_at_file(file, object.modified, now),
                None if bucket.is_internal(&object.key) => {
                    if self.is_spent(&object, bucket, now) {
                        self.removals.push(Victim::Internal(object.key), now);
                    } else if let Some((Internal::Aliases, name)) = bucket.internal_of(&object.key)
                    {
                        self.look_at_alias(name, &object, now);
                    }
                }
                None => self.result.foreign += 1,
            }
        }
        if self.pages.is_done() {
            self.leave_owner(now);
        }
    }

    /// Looks at an alias that has a path. While a token for its slot may be valid, it is needed even without a file.
    fn look_at_alias(&mut self, name: &str, object: &StoredObject, now: Now) {
        let has_path = object.size != REMOVED_ALIAS.len() as u64;
        if has_path && is_older(object, Duration::from_secs(REMEMBERED), now) {
            if let Some(aliases) = &mut self.aliases {
                aliases.look_at_alias(name);
            }
        }
    }

    fn look_at_file(&mut self, file: StoredFile, modified: SystemTime, now: Now) {
        if self.owner != file.path.owner_folder() {
            self.owner = file.path.owner_folder().to_vec();
        }
        self.sought.look_at(&file.path);
        if let Some(aliases) = &mut self.aliases {
            aliases.look_at_file(&file.path);
        }
        self.result.files += 1;
        self.result.bytes = self.result.bytes.saturating_add(file.size);
        self.result.future += u64::from(is_ahead(modified, now));
        let tag = file.path.tag();
        let end = self.plan.lifetime.end(tag, file.modified);
        let is_over =
            |end: SystemTime| end.checked_add(self.lag).is_some_and(|end| end <= now.wall);
        if modified < self.started && end.is_some_and(is_over) {
            self.removals.push(Victim::File(file), now);
        } else {
            let stays = &mut self.stays[QuotaClass::of(tag)];
            *stays = stays.saturating_add(file.size);
        }
    }

    /// All files of the current owner were seen; true if it has to be trimmed first.
    fn leave_owner(&mut self, now: Now) -> bool {
        let owner = std::mem::take(&mut self.owner);
        let stays = Pool::EVICTABLE.sum(&std::mem::take(&mut self.stays));
        let Some(need) = self
            .plan
            .soft_quota
            .and_then(|quota| stays.checked_sub(quota))
            .filter(|need| *need > 0)
        else {
            return false;
        };
        let order = Order {
            owner,
            need,
            pool: Pool::EVICTABLE,
            remove: true,
        };
        let trim = TrimTask::new(order, self.plan.policy, now);
        if trim.is_done() {
            return false;
        }
        self.trim = Some(Box::new(trim));
        true
    }

    /// Takes the result of the trim if it is done.
    fn end_trim(&mut self) {
        let Some(trim) = self.trim.take_if(|trim| trim.is_done()) else {
            return;
        };
        let (trimmed, error) = trim.finish();
        self.result.removed += trimmed.files;
        self.result.removed_bytes += trimmed.freed;
        match error {
            Some(error) if concerns_all(&error) => self.stop(error),
            Some(error) => {
                self.result.error.get_or_insert(error);
            }
            None => {}
        }
    }

    /// There is no use in going on.
    fn stop(&mut self, failure: StoreFailure) {
        self.result.error.get_or_insert(failure);
        self.result.whole = false;
        self.pages.end();
        self.part.clear();
        self.aliases = None;
        self.trim = None;
        self.stays = Bytes::default();
    }

    /// Whether nothing can need an internal object any more.
    fn is_spent(&self, object: &StoredObject, bucket: &Bucket, now: Now) -> bool {
        let TombstonePolicy { foreign, slot_life } = self.plan.policy;
        let kept = match bucket.internal_of(&object.key) {
            // Signatures of other servers never expire.
            Some((Internal::Tombstones, _)) if !foreign => slot_life,
            Some((Internal::Revoked, _)) => Duration::from_secs(REMEMBERED),
            // Other aliases are deleted with their files, or after them.
            Some((Internal::Aliases, _)) if object.size == REMOVED_ALIAS.len() as u64 => {
                Duration::from_secs(REMEMBERED)
            }
            Some((Internal::Tombstones | Internal::Aliases, _)) | None => return false,
        };
        is_older(object, kept, now)
    }

    /// Whether nothing is wanted or outstanding any more; call it when [`SweepTask::want`] wants nothing.
    pub fn is_done(&self) -> bool {
        let is_idle = self.removals.is_idle() && self.trim.is_none();
        let has_objects = !self.pages.is_done() || !self.part.is_empty();
        is_idle && !has_objects && !self.has_unused_aliases()
    }

    pub fn finish(self) -> SweepResult {
        let mut result = self.result;
        result.removed += self.removals.files;
        result.removed_bytes += self.removals.bytes;
        result.files = result.files.saturating_sub(result.removed);
        result.bytes = result.bytes.saturating_sub(result.removed_bytes);
        result.failed = self.removals.failed;
        result.found_files = self.sought.finish();
        result.error = result.error.or(self.removals.error);
        result
    }
}

/// Whether an object is older than this for sure; the clock of the store may differ.
fn is_older(object: &StoredObject, age: Duration, now: Now) -> bool {
    let age = age + Duration::from_secs(2 * REQUEST_LIFETIME);
    let found = now.wall.duration_since(object.modified);
    found.is_ok_and(|found| found > age)
}

/// Whether a time is in the future by more than clocks usually differ.
fn is_ahead(modified: SystemTime, now: Now) -> bool {
    let by = modified.duration_since(now.wall);
    by.is_ok_and(|by| by.as_secs() >= REQUEST_LIFETIME)
}
