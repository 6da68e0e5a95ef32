//! Jobs for commands of users: searches through an owner folder, or through all of them, and deletions.
//!
//! ```text
//!   Waiting ──▶ Searching ─────────────────────────────────▶ done
//!          └──▶ Deleting: batch after batch ──▶ Confirming ──▶ done
//! ```
//!
//! Jobs proceed in slices and take turns, so that an owner with many files delays no other user for long. Memory is
//! bounded: a search keeps what [`Listing`] keeps, and a deletion holds one batch. Files are deleted by the pipeline of
//! [`crate::store::removal`]: their tombstones are synced before, and the whole file system after, so that what is
//! reported as deleted stays so. Without `fsync` nothing is synced.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

pub use crate::listing::{Found, Work};

use crate::layout::FileId;
use crate::listing::{Listing, Totals};
use crate::now::Now;
use crate::policy::pool::{Pool, QuotaClass};
use crate::store::Store;
use crate::store::removal::{Batch, Stage, log_sync_failure};
use crate::store::usage::{Counts, UsageTracker};
use crate::store::walk::{Owners, Slice, Walk, WalkMode, WalkStep};
use crate::sys;

/// Maximum number of jobs; further ones are refused.
const MAX_JOBS: usize = 256;

/// Maximum number of jobs for one user, so that one user cannot use all places.
const MAX_PER_USER: usize = 4;

/// Maximum number of jobs in progress; each may hold some open folders.
const MAX_ACTIVE: usize = 4;

/// Maximum number of passes of a deletion until nothing is found: a pass may miss entries while others are removed. More
/// passes could only find files that were stored meanwhile.
const PASSES: u32 = 16;

/// A completed job.
#[derive(Debug)]
pub struct Finished<T> {
    /// As given to [`Jobs::push`].
    pub request: T,
    pub found: Found,
    /// Why the result is not complete, if so.
    pub error: Option<io::Error>,
}

/// What has to be synced for a job.
#[derive(Debug)]
pub enum ToSync {
    Folders(Vec<OwnedFd>),
    FileSystem(OwnedFd),
}

/// All jobs; the first few are in progress.
#[derive(Debug)]
pub struct Jobs<T> {
    queue: VecDeque<Job<T>>,
    /// The number of the last job.
    last: u64,
}

impl<T> Default for Jobs<T> {
    fn default() -> Jobs<T> {
        Jobs {
            queue: VecDeque::new(),
            last: 0,
        }
    }
}

#[derive(Debug)]
struct Job<T> {
    /// Identifies the job while something is synced for it.
    number: u64,
    /// The folder of the user who asked for it.
    user: String,
    request: T,
    work: Work,
    progress: Progress,
    error: Option<io::Error>,
}

#[derive(Debug)]
enum Progress {
    Waiting,
    Searching {
        walk: Walk,
        listing: Box<Listing>,
    },
    Deleting(Box<Deletion>),
    Summing {
        owners: Owners,
        current: Option<(Vec<u8>, Walk, Counts)>,
        totals: Totals,
    },
    Done(Found),
}

/// A deletion in progress.
#[derive(Debug)]
struct Deletion {
    /// `None` between two passes.
    walk: Option<Walk>,
    batch: Batch,
    files: u64,
    bytes: u64,
    passes: u32,
    /// Files deleted before this pass.
    before: u64,
    /// Whether the file system is being synced, or has to be.
    confirming: Option<bool>,
}

impl<T> Jobs<T> {
    /// Whether one more job of this user is accepted.
    pub fn has_room(&self, user: &str) -> bool {
        let of_user = self.queue.iter().filter(|job| job.user == user).count();
        self.queue.len() < MAX_JOBS && of_user < MAX_PER_USER
    }

    /// Adds a job of a user, if [`Jobs::has_room`].
    pub fn push(&mut self, user: &str, work: Work, request: T) {
        self.last += 1;
        self.queue.push_back(Job {
            number: self.last,
            user: user.to_owned(),
            request,
            work,
            progress: Progress::Waiting,
            error: None,
        });
    }

    /// Whether there is work other than waiting for a sync.
    pub fn has_work(&self) -> bool {
        self.next().is_some()
    }

    /// Takes a job that the caller does: the first one of a user for whom `may_begin` holds. Returns the user's folder, the
    /// request and the work.
    pub fn take(&mut self, may_begin: impl Fn(&str) -> bool) -> Option<(String, T, Work)> {
        let mut queue = self.queue.iter();
        let at = queue.position(|job| may_begin(&job.user))?;
        let job = self.queue.remove(at)?;
        Some((job.user, job.request, job.work))
    }

    fn next(&self) -> Option<usize> {
        let mut active = self.queue.iter().take(MAX_ACTIVE);
        active.position(|job| !job.is_syncing())
    }

    /// Proceeds until the slice is used up, or a job is done, which is returned.
    pub fn go_on(
        &mut self,
        fsync: bool,
        store: &mut Store,
        usage: &mut UsageTracker,
        slice: &mut Slice,
        now: Now,
    ) -> Option<Finished<T>> {
        while let Some(at) = self.next() {
            let job = &mut self.queue[at];
            while !job.is_syncing() && !matches!(job.progress, Progress::Done(_)) {
                if !slice.take() {
                    // The next slice is another job's.
                    if let Some(job) = self.queue.remove(at) {
                        let last = self.queue.len().min(MAX_ACTIVE - 1);
                        self.queue.insert(last, job);
                    }
                    return None;
                }
                job.step(fsync, store, usage, now);
            }
            if matches!(job.progress, Progress::Done(_)) {
                let job = self.queue.remove(at)?;
                let Progress::Done(found) = job.progress else {
                    return None;
                };
                return Some(Finished {
                    request: job.request,
                    found,
                    error: job.error,
                });
            }
        }
        None
    }

    /// What has to be synced next, with the number of its job; the caller then reports the result to [`Jobs::synced`].
    pub fn to_sync(&mut self, store: &Store) -> Option<(u64, io::Result<ToSync>)> {
        let mut active = self.queue.iter_mut().take(MAX_ACTIVE);
        active.find_map(|job| {
            let Progress::Deleting(deletion) = &mut job.progress else {
                return None;
            };
            let needed = if deletion.batch.stage() == Stage::Recorded {
                let paths = deletion.batch.begin_sync();
                store.tombstone_folders(&paths).map(ToSync::Folders)
            } else if deletion.confirming == Some(false) {
                deletion.confirming = Some(true);
                let root = store.root().try_clone_to_owned();
                root.map(ToSync::FileSystem)
            } else {
                return None;
            };
            Some((job.number, needed))
        })
    }

    /// What a job waited for is on stable storage, or could not be synced.
    pub fn synced(&mut self, number: u64, result: io::Result<()>) {
        let Some(job) = self.queue.iter_mut().find(|job| job.number == number) else {
            return;
        };
        let Progress::Deleting(deletion) = &mut job.progress else {
            return;
        };
        if deletion.confirming.is_some() {
            job.error = job.error.take().or(result.err());
            let found = deletion.found();
            job.progress = Progress::Done(found);
        } else {
            log_sync_failure(&result);
            deletion.batch.synced();
        }
    }
}

impl<T> Job<T> {
    fn is_syncing(&self) -> bool {
        match &self.progress {
            Progress::Deleting(deletion) => {
                deletion.confirming.is_some()
                    || matches!(deletion.batch.stage(), Stage::Recorded | Stage::Syncing)
            }
            _ => false,
        }
    }

    /// Looks at one entry.
    fn step(&mut self, fsync: bool, store: &mut Store, usage: &mut UsageTracker, now: Now) {
        match &mut self.progress {
            Progress::Waiting => self.begin(store),
            Progress::Searching { walk, listing } => match walk.step(store.root()) {
                WalkStep::File(file) => {
                    let stored = store.times().stored(file.modified);
                    listing.add(file, stored);
                }
                WalkStep::Named(..) | WalkStep::Other => {}
                WalkStep::Done => {
                    listing.finish();
                    self.error = walk.error();
                    self.progress = Progress::Done(Found::Files(std::mem::take(listing)));
                }
            },
            Progress::Deleting(_) => self.delete(fsync, store, usage, now),
            Progress::Summing { .. } => self.sum(store),
            Progress::Done(_) => {}
        }
    }

    fn begin(&mut self, store: &Store) {
        let open = |owner: &[u8], mode| match Walk::new(store.root(), owner, mode) {
            // Whatever else has the name of the folder holds no files.
            Err(error) if sys::is_no_folder(&error) => Ok(None),
            other => other.map(Some),
        };
        let begun = match &self.work {
            Work::Search {
                owner,
                selection,
                since,
            } => {
                let listing = Listing::new(selection.clone(), *since);
                open(owner, WalkMode::Files).map(|walk| match walk {
                    Some(walk) => Progress::Searching {
                        walk,
                        listing: Box::new(listing),
                    },
                    None => Progress::Done(Found::Files(listing)),
                })
            }
            Work::Delete { .. } => Ok(Progress::Deleting(Box::new(Deletion {
                walk: None,
                batch: Batch::default(),
                files: 0,
                bytes: 0,
                passes: 0,
                before: 0,
                confirming: None,
            }))),
            Work::Sum { .. } => Owners::new(store.root()).map(|owners| Progress::Summing {
                owners,
                current: None,
                totals: Totals::default(),
            }),
        };
        self.progress = begun.unwrap_or_else(|error| {
            self.error = Some(error);
            Progress::Done(match &self.work {
                Work::Search { .. } => Found::Files(Listing::default()),
                Work::Delete { .. } => Found::Deleted { files: 0, bytes: 0 },
                Work::Sum { .. } => Found::Owners(Totals::default()),
            })
        });
    }

    /// One step of a deletion.
    fn delete(&mut self, fsync: bool, store: &mut Store, usage: &mut UsageTracker, now: Now) {
        let (Progress::Deleting(deletion), Work::Delete { owner, files }) =
            (&mut self.progress, &self.work)
        else {
            return;
        };
        let ended = match (deletion.batch.stage(), &mut deletion.walk) {
            (Stage::Recorded | Stage::Syncing, _) => false,
            (Stage::Unlinking, _) => match deletion.unlink_next(store, usage) {
                Ok(()) => false,
                // A file that cannot be deleted does not keep the others.
                Err(error) => {
                    let is_failing = sys::is_store_error(&error);
                    self.error.get_or_insert(error);
                    is_failing
                }
            },
            (Stage::Recording, _) if deletion.batch.is_full() => {
                deletion.batch.close(fsync);
                false
            }
            (Stage::Recording, Some(walk)) => {
                match walk.step(store.root()) {
                    WalkStep::File(file) => {
                        let is_chosen = files
                            .as_ref()
                            .is_none_or(|files| files.contains(&FileId::of(&file.path)));
                        if is_chosen {
                            deletion.batch.add_or_warn(file, store, now);
                        }
                    }
                    WalkStep::Named(..) | WalkStep::Other => {}
                    WalkStep::Done => {
                        self.error = self.error.take().or(walk.error());
                        deletion.walk = None;
                        if !deletion.batch.is_empty() {
                            deletion.batch.close(fsync);
                        }
                    }
                }
                false
            }
            (Stage::Recording, None) if self.error.is_some() => true,
            (Stage::Recording, None) => match deletion.next_pass(owner, files.as_deref(), store) {
                Ok(begun) => !begun,
                Err(error) => {
                    self.error = Some(error);
                    true
                }
            },
        };
        if ended {
            if fsync && deletion.files > 0 {
                deletion.confirming = Some(false);
            } else {
                self.progress = Progress::Done(deletion.found());
            }
        }
    }

    /// One step through all owners.
    fn sum(&mut self, store: &Store) {
        let (
            Progress::Summing {
                owners,
                current,
                totals,
            },
            Work::Sum { largest },
        ) = (&mut self.progress, &self.work)
        else {
            return;
        };
        if let Some((_, walk, counts)) = current {
            match walk.step(store.root()) {
                WalkStep::File(file) => {
                    let class = QuotaClass::of(file.path.tag());
                    counts.add(class, file.size);
                }
                WalkStep::Named(tag, size) => counts.add(QuotaClass::of(Some(tag)), size),
                WalkStep::Other => {}
                WalkStep::Done => {
                    self.error = self.error.take().or(walk.error());
                    if let Some((owner, _, counts)) = current.take() {
                        totals.add(&owner, counts.files, Pool::ALL.sum(&counts.bytes), *largest);
                    }
                }
            }
            return;
        }
        match owners.step() {
            Some(Some(owner)) => {
                if let Ok(walk) = Walk::new(store.root(), &owner, WalkMode::Names) {
                    *current = Some((owner, walk, Counts::default()));
                }
            }
            Some(None) => {}
            None => {
                self.error = self.error.take().or(owners.error());
                totals.finish(*largest);
                self.progress = Progress::Done(Found::Owners(std::mem::take(totals)));
            }
        }
    }
}

impl Deletion {
    fn found(&self) -> Found {
        Found::Deleted {
            files: self.files,
            bytes: self.bytes,
        }
    }

    /// Begins another pass over the folder, which also removes empty folders; false if all `chosen` files are deleted, or
    /// the last pass found nothing.
    fn next_pass(
        &mut self,
        owner: &[u8],
        chosen: Option<&[FileId]>,
        store: &Store,
    ) -> io::Result<bool> {
        let is_over = self.passes > 0 && self.files == self.before;
        let has_all = chosen.is_some_and(|chosen| self.files >= chosen.len() as u64);
        if is_over || has_all || self.passes == PASSES {
            return Ok(false);
        }
        self.passes += 1;
        self.before = self.files;
        self.walk = match Walk::new(store.root(), owner, WalkMode::Tidy) {
            Ok(walk) => Some(walk),
            Err(error) if sys::is_no_folder(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(true)
    }

    fn unlink_next(&mut self, store: &mut Store, usage: &mut UsageTracker) -> io::Result<()> {
        let Some(victim) = self.batch.next_victim() else {
            return Ok(());
        };
        if usage.unlink(&victim, store)? {
            store.blank_alias(&victim.path);
            self.files += 1;
            self.bytes = self.bytes.saturating_add(victim.size);
            log::debug!("file deleted path={:?} bytes={}", victim.path, victim.size);
        }
        Ok(())
    }
}
