//! The turn's work on the object store: drives the connections to it, passes on its answers, begins tasks, and takes
//! their results.

use std::io;

use crate::expiry::{Order, Trimmed};
use crate::http::client::Response;
use crate::layout::FileId;
use crate::listing::{Found, Listing, Work};
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::bucket_store::BucketStore;
use crate::reactor::bucket_tasks::{BucketTask, BucketTasks, TaskMachine, TaskPurpose};
use crate::reactor::executions::Request;
use crate::reactor::shared::Shared;
use crate::reactor::storage::Storage;
use crate::reactor::upstream::{RequestClass, Upstream, UpstreamToken};
use crate::reactor::waiting::Lookup;
use crate::s3::error::StoreFailure;
use crate::s3::listing::ObjectPage;
use crate::s3::tasks::sweep::{SweepPlan, SweepResult, SweepTask};
use crate::s3::tasks::trim::TrimTask;
use crate::s3::tasks::work::{WorkResult, WorkTask};
use crate::store::jobs::Finished;
use crate::store::usage::{Counted, Counts};

/// Maximum number of times that a count is repeated because files were added or removed meanwhile.
const RECOUNTS: u32 = 8;

impl Reactor {
    /// Drives the connections to the object store, and passes on what was answered.
    pub(super) fn drive_upstream(&mut self, now: Now) {
        let Some(bucket) = self.shared.storage.bucket_mut() else {
            return;
        };
        bucket.upstream.drive(self.poll.registry(), now);
        while let Some(change) = self.upstream().and_then(Upstream::take_state_change) {
            self.shared.store_changed(change, now);
        }
        while let Some((token, result)) = self.upstream().and_then(Upstream::take_finished) {
            match token {
                UpstreamToken::Client(key, part) => {
                    if let Some(client) = self.connections.table.get_mut(key) {
                        client.store_answered(part, result, &mut self.shared, now);
                        self.enqueue(key);
                    }
                }
                UpstreamToken::Task(id) => {
                    if let Some(tasks) = self.tasks() {
                        tasks.answered(id, result, now);
                    }
                }
                UpstreamToken::Revocation(number) => {
                    self.shared.revocation_recorded(number, result, now);
                }
                UpstreamToken::Notes => self.pass_on_notes(result, now),
                UpstreamToken::Condition => self.shared.condition_answered(result, now),
                UpstreamToken::Probe => self.shared.store_probed(result, now),
            }
        }
        while let Some(key) = self.upstream().and_then(Upstream::take_awakened) {
            self.enqueue(key);
        }
        self.shared.record_revocations(now);
    }

    /// Passes a list of notes on to the uploads that wait for it.
    fn pass_on_notes(&mut self, result: Result<Response, StoreFailure>, now: Now) {
        let listed = result.and_then(|response| ObjectPage::of(response, now));
        let Some(bucket) = self.shared.storage.bucket_mut() else {
            return;
        };
        let is_whole = listed.as_ref().map_or(true, ObjectPage::is_whole);
        for key in bucket.notes.answered(is_whole, now.mono) {
            if let Some(client) = self.connections.table.get_mut(key) {
                client.notes_listed(&listed, &mut self.shared, now);
                self.enqueue(key);
            }
        }
    }

    /// Sends the requests that were made in this turn.
    pub(super) fn follow_up_upstream(&mut self, now: Now) {
        let Shared {
            service, storage, ..
        } = &mut self.shared;
        let (Some(s3), Some(bucket)) = (service.bucket(), storage.bucket_mut()) else {
            return;
        };
        let upstream = &mut bucket.upstream;
        if bucket.notes.begin() {
            let class = RequestClass::User;
            upstream.submit(s3.list_notes(now), class, UpstreamToken::Notes, now);
        }
        upstream.follow_up(self.poll.registry(), now);
    }

    fn upstream(&mut self) -> Option<&mut Upstream> {
        let bucket = self.shared.storage.bucket_mut()?;
        Some(&mut bucket.upstream)
    }

    /// Goes on with a task for a short time, begins the tasks for which something waits, sends the requests of all, and takes
    /// the results of those that want nothing more. A result may be what another task waits for.
    pub(super) fn work_on_tasks(&mut self, now: Now) {
        let Shared {
            service, storage, ..
        } = &mut self.shared;
        if let (Some(bucket), Some(store)) = (service.bucket(), storage.bucket_mut()) {
            store.tasks.go_on(bucket, now);
        }
        while self.shared.storage.is_bucket() {
            self.begin_counts(now);
            self.begin_trims(now);
            self.begin_jobs(now);
            self.begin_sweep(now);
            self.send_requests(now);
            let Some(task) = self.tasks().and_then(BucketTasks::take_done) else {
                return;
            };
            self.finish_task(task, now);
        }
    }

    fn send_requests(&mut self, now: Now) {
        let Shared {
            service, storage, ..
        } = &mut self.shared;
        if let (Some(bucket), Some(store)) = (service.bucket(), storage.bucket_mut()) {
            let BucketStore {
                upstream, tasks, ..
            } = store;
            tasks.submit(bucket, upstream, now);
        }
    }

    fn tasks(&mut self) -> Option<&mut BucketTasks> {
        let bucket = self.shared.storage.bucket_mut()?;
        Some(&mut bucket.tasks)
    }

    /// Begins to count owners for whose usage requests wait.
    fn begin_counts(&mut self, now: Now) {
        while self.tasks().is_some_and(|tasks| tasks.has_room_for_count()) {
            let Some(owner) = self.shared.admission.usage.take_asked() else {
                return;
            };
            if self.tasks().is_some_and(|tasks| !tasks.is_counting(&owner)) {
                self.begin_count(owner, 0, now);
            }
        }
    }

    fn begin_count(&mut self, owner: Vec<u8>, repetitions: u32, now: Now) {
        let work = Work::count(owner.clone(), self.shared.service.recent_since(now));
        let usage = &self.shared.admission.usage;
        let granted = usage.granted_files(&owner);
        let purpose = TaskPurpose::Count {
            changes: usage.change_count(&owner),
            owner,
            repetitions,
        };
        self.begin_work(purpose, work, granted, now);
    }

    /// Begins work, in which the files of these granted slots are looked for.
    fn begin_work(&mut self, purpose: TaskPurpose, work: Work, granted: Vec<FileId>, now: Now) {
        let task = WorkTask::new(work, self.shared.tombstone_policy()).seek(granted);
        if let Some(tasks) = self.tasks() {
            tasks.push(purpose, TaskMachine::Work(Box::new(task)), now);
        }
    }

    /// Begins to free space for owners.
    fn begin_trims(&mut self, now: Now) {
        let policy = self.shared.tombstone_policy();
        let Shared {
            storage, admission, ..
        } = &mut self.shared;
        let Some(BucketStore { tasks, .. }) = storage.bucket_mut() else {
            return;
        };
        while tasks.has_room_for_trim() {
            // Of several orders for an owner, those that are taken later find what the first has freed.
            let Some(order) = admission.trims.take(|owner| !tasks.is_trimming(owner)) else {
                return;
            };
            let task = TrimTask::new(order.clone(), policy, now);
            tasks.push(
                TaskPurpose::Trim(order),
                TaskMachine::Trim(Box::new(task)),
                now,
            );
        }
    }

    /// Begins the searches and deletions of users' commands.
    fn begin_jobs(&mut self, now: Now) {
        while let Storage::Bucket(bucket) = &self.shared.storage {
            let tasks = &bucket.tasks;
            if !tasks.has_room_for_job() {
                return;
            }
            let jobs = &mut self.xmpp.executions.jobs;
            let Some((user, request, work)) = jobs.take(|user| !tasks.has_job_of(user)) else {
                return;
            };
            let purpose = TaskPurpose::Job(user, Box::new(request));
            self.begin_work(purpose, work, Vec::new(), now);
        }
    }

    /// Begins a sweep, or a count of all files, if it is due.
    fn begin_sweep(&mut self, now: Now) {
        let plan = self.shared.sweep_plan();
        let interval = self.shared.config.sweep_interval();
        let policy = self.shared.tombstone_policy();
        let Shared {
            storage, admission, ..
        } = &mut self.shared;
        let Some(BucketStore { tasks, .. }) = storage.bucket_mut() else {
            return;
        };
        if tasks.take_sweep(interval, now.mono) {
            let plan = SweepPlan {
                lifetime: plan.lifetime,
                soft_quota: plan.soft_quota,
                policy,
            };
            let task = SweepTask::new(plan, now).seek(admission.usage.all_granted_files());
            tasks.push(TaskPurpose::Sweep, TaskMachine::Sweep(Box::new(task)), now);
        }
        if tasks.take_total(now.mono) {
            let granted = admission.usage.all_granted_files();
            self.begin_work(TaskPurpose::Total, Work::Sum { largest: 0 }, granted, now);
        }
    }

    fn finish_task(&mut self, task: BucketTask, now: Now) {
        let begun = task.begun;
        match (task.purpose, task.machine) {
            (TaskPurpose::Trim(order), TaskMachine::Trim(task)) => {
                let (trimmed, failure) = task.finish();
                self.finish_trim(&order, &trimmed, failure, now);
            }
            (TaskPurpose::Sweep, TaskMachine::Sweep(task)) => {
                self.finish_sweep(&task.finish(), begun, now);
            }
            (
                TaskPurpose::Count {
                    owner,
                    changes,
                    repetitions,
                },
                TaskMachine::Work(task),
            ) => match (task.finish(), repetitions) {
                (result, ..RECOUNTS)
                    if result.error.is_none()
                        && self.shared.admission.usage.change_count(&owner) != changes =>
                {
                    self.begin_count(owner, repetitions + 1, now);
                }
                (result, _) => self.finish_count(owner, result, begun, now),
            },
            (TaskPurpose::Job(_, request), TaskMachine::Work(task)) => {
                self.finish_job(*request, task.finish(), now);
            }
            (TaskPurpose::Total, TaskMachine::Work(task)) => {
                self.finish_total(task.finish(), begun, now);
            }
            // No other combination is begun.
            _ => {}
        }
    }

    fn finish_count(&mut self, owner: Vec<u8>, result: WorkResult, begun: Now, now: Now) {
        let listing = match result.found {
            Found::Files(listing) => listing,
            _ => Listing::default(),
        };
        if result.error.is_none() {
            let counts = Counts {
                bytes: listing.bytes,
                files: listing.files,
            };
            let usage = &mut self.shared.admission.usage;
            usage.set_counted(&owner, counts, &result.found_files, begun.mono, now.mono);
        }
        let counted = Counted {
            owner,
            error: result.error.map(io_error),
            recent: listing.recent,
        };
        self.answer_counted(&counted, now);
    }

    fn finish_trim(
        &mut self,
        order: &Order,
        trimmed: &Trimmed,
        failure: Option<StoreFailure>,
        now: Now,
    ) {
        self.note_removed(&order.owner, trimmed.files, trimmed.freed);
        self.note_trimmed(trimmed);
        let lookup = match failure {
            None => Lookup::Searched(trimmed.newest),
            Some(failure) => {
                self.shared.object_store_failed(&failure, now);
                Lookup::Failed
            }
        };
        self.wake(&order.owner, lookup, now);
    }

    fn finish_job(&mut self, request: Request, result: WorkResult, now: Now) {
        if let Found::Deleted { files, bytes } = result.found {
            let owner = request.task.folder(&request.iq.owner);
            self.note_removed(owner.as_bytes(), files, bytes);
        }
        let finished = Finished {
            request,
            found: result.found,
            error: result.error.map(io_error),
        };
        self.finish_command(finished, now);
    }

    fn finish_sweep(&mut self, result: &SweepResult, begun: Now, now: Now) {
        let took = now.mono.saturating_duration_since(begun.mono);
        let shared = &mut self.shared;
        let usage = &mut shared.admission.usage;
        usage.distrust(begun.mono);
        if result.whole {
            usage.set_total(result.files, result.bytes, &result.found_files, begun.mono);
        }
        let metrics = &mut shared.status.metrics;
        metrics.swept(result.removed, result.removed_bytes, took);
        log::info!(
            "sweep done files={} removed={} bytes={} ms={} foreign={}",
            result.files,
            result.removed,
            result.removed_bytes,
            took.as_millis(),
            result.foreign
        );
        if let Some(failure) = &result.error {
            log::warn!(
                "sweep not complete failed={} why={:?}",
                result.failed,
                failure.to_string()
            );
        }
        if result.removed > 0 {
            self.forget_objects();
        }
        let (whole, failed) = (result.whole, result.error.is_some());
        let Some(tasks) = self.tasks() else {
            return;
        };
        if whole {
            tasks.counted_total(false, now.mono);
        }
        if failed {
            let failures = tasks.sweep_failed(now.mono);
            self.shared.status.metrics.sweeps_failed(failures);
        }
    }

    fn finish_total(&mut self, result: WorkResult, begun: Now, now: Now) {
        let failed = result.error.is_some();
        if let (Found::Owners(totals), false) = (&result.found, failed) {
            let usage = &mut self.shared.admission.usage;
            usage.set_total(totals.files, totals.bytes, &result.found_files, begun.mono);
            log::info!(
                "store counted files={} bytes={} owners={}",
                totals.files,
                totals.bytes,
                totals.owners
            );
        }
        if let Some(failure) = &result.error {
            log::warn!("store not counted why={:?}", failure.to_string());
        }
        if let Some(tasks) = self.tasks() {
            tasks.counted_total(failed, now.mono);
        }
    }

    /// Files of an owner were deleted.
    fn note_removed(&mut self, owner: &[u8], files: u64, bytes: u64) {
        if files > 0 {
            let usage = &mut self.shared.admission.usage;
            usage.removed_elsewhere(owner, files, bytes);
            self.forget_objects();
        }
    }

    /// Any object may have been deleted.
    fn forget_objects(&mut self) {
        if let Some(bucket) = self.shared.storage.bucket_mut() {
            bucket.facts.clear();
        }
    }
}

/// A failure as an error of the store.
fn io_error(failure: StoreFailure) -> io::Error {
    io::Error::other(failure)
}
