//! The jobs of users and operators.

use crate::expiry::{StoredFile, TombstonePolicy};
use crate::layout::FileId;
use crate::listing::{Found, Listing, Totals, Work};
use crate::now::Now;
use crate::s3::bucket::Bucket;
use crate::s3::error::StoreFailure;
use crate::s3::tasks::pages::{ObjectsPart, Pages, file_of};
use crate::s3::tasks::removals::{Removals, Victim};
use crate::s3::tasks::sought::SoughtFiles;
use crate::s3::tasks::{RequestIds, TaskAnswer, TaskRequest};

/// Maximum number of passes of a deletion until nothing is found: a store may list what was stored meanwhile, or what is
/// deleted already.
const PASSES: u32 = 4;

/// A job in progress.
#[derive(Debug)]
pub struct WorkTask {
    ids: RequestIds,
    pages: Pages,
    stage: WorkStage,
    sought: SoughtFiles,
    /// Objects that are no files of upslot.
    foreign: u64,
    error: Option<StoreFailure>,
}

#[derive(Debug)]
enum WorkStage {
    Search(Box<Listing>),
    Delete(Box<ChosenFiles>),
    Sum(OwnerSums),
}

/// The files to be deleted.
#[derive(Debug)]
struct ChosenFiles {
    owner: Vec<u8>,
    /// All, if `None`.
    ids: Option<Vec<FileId>>,
    removals: Removals,
    passes: u32,
    /// Files deleted before this pass.
    before: u64,
}

/// The sums of all owners; the files of each follow each other.
#[derive(Debug)]
struct OwnerSums {
    current: Vec<u8>,
    files: u64,
    bytes: u64,
    totals: Totals,
    largest: usize,
}

/// What came of a job.
#[derive(Debug)]
pub struct WorkResult {
    pub found: Found,
    /// Objects that are no files of upslot.
    pub foreign: u64,
    /// The files that were looked for and found; see [`WorkTask::seek`].
    pub found_files: Vec<FileId>,
    /// Why the result is not complete, if so.
    pub error: Option<StoreFailure>,
}

impl WorkTask {
    pub fn new(work: Work, policy: TombstonePolicy) -> WorkTask {
        let (pages, stage) = match work {
            Work::Search {
                owner,
                selection,
                since,
            } => (
                Pages::of_owner(&owner),
                WorkStage::Search(Box::new(Listing::new(selection, since))),
            ),
            Work::Delete { owner, files } => (
                Pages::of_owner(&owner),
                WorkStage::Delete(Box::new(ChosenFiles {
                    owner,
                    ids: files,
                    removals: Removals::new(policy),
                    passes: 1,
                    before: 0,
                })),
            ),
            Work::Sum { largest } => (
                Pages::new(String::new()),
                WorkStage::Sum(OwnerSums {
                    current: Vec::new(),
                    files: 0,
                    bytes: 0,
                    totals: Totals::default(),
                    largest,
                }),
            ),
        };
        WorkTask {
            ids: RequestIds::default(),
            pages,
            stage,
            sought: SoughtFiles::default(),
            foreign: 0,
            error: None,
        }
    }

    /// Looks for these files on the way.
    pub fn seek(mut self, files: Vec<FileId>) -> WorkTask {
        self.sought = SoughtFiles::new(files);
        self
    }

    /// The next request, until there is none; more may follow after an answer.
    pub fn want(&mut self, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        if let WorkStage::Delete(chosen) = &mut self.stage {
            if let Some(request) = chosen.removals.want(&mut self.ids, bucket, now) {
                return Some(request);
            }
            if !chosen.removals.is_idle() {
                return None;
            }
            if self.pages.is_done() && chosen.begin_pass() {
                self.pages = Pages::of_owner(&chosen.owner);
            }
        }
        self.pages.want(&mut self.ids, bucket, now)
    }

    pub fn answered(&mut self, id: u32, answer: TaskAnswer, now: Now) {
        if self.pages.is_asked(id) {
            let failure = self.pages.answered(answer, now).err();
            self.error = failure.or(self.error.take());
        } else if let WorkStage::Delete(chosen) = &mut self.stage {
            chosen.removals.answered(id, answer, now);
            if chosen.removals.is_stopped {
                self.pages.end();
            }
        }
    }

    /// Whether there is something to do without an answer.
    pub fn has_work(&self) -> bool {
        self.pages.has_work()
    }

    /// Whether the next request is for a page, and nothing else is outstanding.
    pub fn is_between_pages(&self) -> bool {
        self.pages.is_due() && self.is_idle()
    }

    /// Whether no deletion is outstanding.
    fn is_idle(&self) -> bool {
        match &self.stage {
            WorkStage::Delete(chosen) => chosen.removals.is_idle(),
            WorkStage::Search(_) | WorkStage::Sum(_) => true,
        }
    }

    /// Does some of this work.
    pub fn go_on(&mut self, bucket: &Bucket, now: Now) {
        match self.pages.go_on() {
            Ok(part) => self.take(&part, bucket, now),
            Err(failure) => self.error = Some(failure),
        }
    }

    fn take(&mut self, part: &ObjectsPart, bucket: &Bucket, now: Now) {
        self.foreign += part.skipped;
        for object in &part.objects {
            match file_of(object, bucket, now.wall) {
                Some(file) => {
                    self.sought.look_at(&file.path);
                    self.stage.take(file, now);
                }
                None if bucket.is_internal(&object.key) => {}
                None => self.foreign += 1,
            }
        }
    }

    /// Whether nothing is wanted or outstanding any more; call it when [`WorkTask::want`] wants nothing.
    pub fn is_done(&self) -> bool {
        self.pages.is_done() && self.is_idle()
    }

    pub fn finish(self) -> WorkResult {
        let mut error = self.error;
        let found = match self.stage {
            WorkStage::Search(mut listing) => {
                listing.finish();
                Found::Files(*listing)
            }
            WorkStage::Delete(chosen) => {
                error = error.or(chosen.removals.error);
                Found::Deleted {
                    files: chosen.removals.files,
                    bytes: chosen.removals.bytes,
                }
            }
            WorkStage::Sum(mut sums) => {
                sums.close();
                sums.totals.finish(sums.largest);
                Found::Owners(sums.totals)
            }
        };
        WorkResult {
            found,
            foreign: self.foreign,
            found_files: self.sought.finish(),
            error,
        }
    }
}

impl WorkStage {
    fn take(&mut self, file: StoredFile, now: Now) {
        match self {
            WorkStage::Search(listing) => {
                let stored = file.modified;
                listing.add(file, stored);
            }
            WorkStage::Delete(chosen) => {
                let mut ids = chosen.ids.iter();
                if ids.all(|ids| ids.contains(&FileId::of(&file.path))) {
                    chosen.removals.push(Victim::File(file), now);
                }
            }
            WorkStage::Sum(sums) => sums.add(file.path.owner_folder(), file.size),
        }
    }
}

impl ChosenFiles {
    /// Begins another pass, unless all chosen files are deleted, or the last pass found none.
    fn begin_pass(&mut self) -> bool {
        let deleted = self.removals.files;
        let has_all = self
            .ids
            .as_ref()
            .is_some_and(|ids| deleted >= ids.len() as u64);
        if deleted == self.before || has_all || self.passes == PASSES || self.removals.is_stopped {
            return false;
        }
        self.passes += 1;
        self.before = deleted;
        true
    }
}

impl OwnerSums {
    fn add(&mut self, owner: &[u8], size: u64) {
        if self.current != owner {
            self.close();
            self.current = owner.to_vec();
        }
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    /// All files of the current owner were added.
    fn close(&mut self) {
        self.totals
            .add(&self.current, self.files, self.bytes, self.largest);
        (self.files, self.bytes) = (0, 0);
    }
}
