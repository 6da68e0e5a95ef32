//! The searches and deletions in an object store that take many requests: counts of owners, trims, users' commands, the
//! sweep, and the total.
//!
//! Tasks proceed side by side, a bounded number of each kind, and fewer of them are active at a time: an active task waits
//! for a page of its list or works through one. Between two pages a task gives way to those that have had fewer, so that an
//! owner with very many files delays no other. This file knows which tasks there are and which request belongs to which;
//! [`crate::s3::tasks`] does the work, and [`crate::reactor::bucket`] takes the results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::expiry::Order;
use crate::http::client::Response;
use crate::now::Now;
use crate::reactor::executions::Request;
use crate::reactor::upstream::{RequestClass, Upstream, UpstreamToken};
use crate::s3::bucket::{Bucket, StoreRequest};
use crate::s3::error::StoreFailure;
use crate::s3::tasks::TaskRequest;
use crate::s3::tasks::sweep::SweepTask;
use crate::s3::tasks::trim::TrimTask;
use crate::s3::tasks::work::WorkTask;
use crate::store::sweep::{FIRST, RETRY};

/// The kinds of tasks that users wait for. Those of a kind share its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TaskKind {
    Count,
    Trim,
    Job,
}

/// How often all bytes are counted, if no sweep does that.
const TOTAL_INTERVAL: Duration = Duration::from_secs(3600);

/// What a task is for.
#[derive(Debug)]
pub enum TaskPurpose {
    /// Counts an owner's files. `changes` is the number of changes before.
    Count {
        owner: Vec<u8>,
        changes: u64,
        repetitions: u32,
    },
    Trim(Order),
    /// The user's folder, and the request.
    Job(String, Box<Request>),
    Sweep,
    /// Counts all files.
    Total,
}

/// The machine that does the work.
#[derive(Debug)]
pub enum TaskMachine {
    Work(Box<WorkTask>),
    Trim(Box<TrimTask>),
    Sweep(Box<SweepTask>),
}

/// A task in progress.
#[derive(Debug)]
pub struct BucketTask {
    pub purpose: TaskPurpose,
    pub machine: TaskMachine,
    pub begun: Now,
    /// Number of pages for which it had a place.
    pages: u64,
}

/// All tasks in progress, and when the next ones begin.
#[derive(Debug, Default)]
pub struct BucketTasks {
    tasks: BTreeMap<u32, BucketTask>,
    /// The task and its number of each request that is not answered.
    requests: BTreeMap<u32, (u32, u32)>,
    next: u32,
    /// The task that has worked last without an answer.
    worked: u32,
    sweep_due: Option<Instant>,
    total_due: Option<Instant>,
    /// Sweeps that failed.
    failures: u64,
}

impl TaskKind {
    /// Most tasks at a time. One that is not active keeps what it has found so far: a count some kilobytes, a trim and a job
    /// a few hundred.
    fn max_tasks(self) -> usize {
        match self {
            TaskKind::Count => 256,
            TaskKind::Trim | TaskKind::Job => 16,
        }
    }

    /// Most of them that are active.
    fn max_active(self) -> usize {
        match self {
            TaskKind::Count => 8,
            TaskKind::Trim | TaskKind::Job => 4,
        }
    }
}

impl TaskPurpose {
    /// `None` for background work.
    fn kind(&self) -> Option<TaskKind> {
        match self {
            TaskPurpose::Count { .. } => Some(TaskKind::Count),
            TaskPurpose::Trim(_) => Some(TaskKind::Trim),
            TaskPurpose::Job(..) => Some(TaskKind::Job),
            TaskPurpose::Sweep | TaskPurpose::Total => None,
        }
    }
}

impl BucketTask {
    fn want(&mut self, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        match &mut self.machine {
            TaskMachine::Work(task) => task.want(bucket, now),
            TaskMachine::Trim(task) => task.want(bucket, now),
            TaskMachine::Sweep(task) => task.want(bucket, now),
        }
    }

    fn is_done(&self) -> bool {
        match &self.machine {
            TaskMachine::Work(task) => task.is_done(),
            TaskMachine::Trim(task) => task.is_done(),
            TaskMachine::Sweep(task) => task.is_done(),
        }
    }

    /// Whether it is to ask for a page next, and does nothing else.
    fn is_between_pages(&self) -> bool {
        match &self.machine {
            TaskMachine::Work(task) => task.is_between_pages(),
            TaskMachine::Trim(task) => task.is_between_pages(),
            TaskMachine::Sweep(_) => false,
        }
    }

    fn has_work(&self) -> bool {
        match &self.machine {
            TaskMachine::Work(task) => task.has_work(),
            TaskMachine::Trim(task) => task.has_work(),
            TaskMachine::Sweep(task) => task.has_work(),
        }
    }

    fn go_on(&mut self, bucket: &Bucket, now: Now) {
        match &mut self.machine {
            TaskMachine::Work(task) => task.go_on(bucket, now),
            TaskMachine::Trim(task) => task.go_on(bucket, now),
            TaskMachine::Sweep(task) => task.go_on(bucket, now),
        }
    }

    fn class(&self) -> RequestClass {
        match self.purpose.kind() {
            None => RequestClass::Background,
            Some(_) => RequestClass::User,
        }
    }
}

impl BucketTasks {
    /// Begins a task.
    pub fn push(&mut self, purpose: TaskPurpose, machine: TaskMachine, now: Now) {
        let number = self.number();
        let task = BucketTask {
            purpose,
            machine,
            begun: now,
            pages: 0,
        };
        self.tasks.insert(number, task);
    }

    /// A number that no task or request has.
    fn number(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let number = self.next;
            if !self.tasks.contains_key(&number) && !self.requests.contains_key(&number) {
                return number;
            }
        }
    }

    fn count(&self, of: impl Fn(&TaskPurpose) -> bool) -> usize {
        let tasks = self.tasks.values();
        tasks.filter(|task| of(&task.purpose)).count()
    }

    fn has_room_for(&self, kind: TaskKind) -> bool {
        self.count(|purpose| purpose.kind() == Some(kind)) < kind.max_tasks()
    }

    /// Whether another owner may be counted.
    pub fn has_room_for_count(&self) -> bool {
        self.has_room_for(TaskKind::Count)
    }

    /// Whether an owner is being counted.
    pub fn is_counting(&self, counted: &[u8]) -> bool {
        self.count(
            |purpose| matches!(purpose, TaskPurpose::Count { owner, .. } if owner == counted),
        ) > 0
    }

    /// Whether another order may be carried out.
    pub fn has_room_for_trim(&self) -> bool {
        self.has_room_for(TaskKind::Trim)
    }

    /// Whether an owner is being trimmed.
    pub fn is_trimming(&self, owner: &[u8]) -> bool {
        self.count(|purpose| matches!(purpose, TaskPurpose::Trim(order) if order.owner == owner))
            > 0
    }

    /// Whether another job may begin.
    pub fn has_room_for_job(&self) -> bool {
        self.has_room_for(TaskKind::Job)
    }

    /// Whether a job of this user is in progress; each user has one at a time.
    pub fn has_job_of(&self, folder: &str) -> bool {
        self.count(|purpose| matches!(purpose, TaskPurpose::Job(user, _) if user == folder)) > 0
    }

    /// Sets when the sweep is due; `interval` is the time between two sweeps, zero if there are none.
    pub fn plan_sweep(&mut self, interval: Duration, now: Instant) {
        self.sweep_due = match self.sweep_due {
            _ if interval.is_zero() => None,
            None => Some(now + interval.min(FIRST)),
            Some(due) => Some(due.min(now + interval)),
        };
    }

    /// Delays the sweep, because the clock is wrong or has jumped.
    pub fn delay_sweep(&mut self, pause: Duration, now: Instant) {
        self.sweep_due = self.sweep_due.map(|due| due.max(now + pause));
        self.tasks
            .retain(|_, task| !matches!(task.purpose, TaskPurpose::Sweep));
    }

    /// Whether the sweep begins now; the next one follows after `interval`.
    pub fn take_sweep(&mut self, interval: Duration, now: Instant) -> bool {
        let is_due = self.sweep_due.is_some_and(|due| due <= now);
        if !is_due || self.count(|purpose| matches!(purpose, TaskPurpose::Sweep)) > 0 {
            return false;
        }
        self.sweep_due = Some(now + interval);
        true
    }

    /// A sweep failed: tries again soon. Returns the number of sweeps that have failed.
    pub fn sweep_failed(&mut self, now: Instant) -> u64 {
        self.sweep_due = self.sweep_due.map(|due| due.min(now + RETRY));
        self.failures += 1;
        self.failures
    }

    /// Sets whether all files are counted from time to time.
    pub fn plan_total(&mut self, is_wanted: bool, now: Instant) {
        self.total_due = match self.total_due {
            _ if !is_wanted => None,
            None => Some(now),
            due => due,
        };
    }

    /// Whether all files are to be counted now.
    pub fn take_total(&mut self, now: Instant) -> bool {
        let is_due = self.total_due.is_some_and(|due| due <= now);
        if is_due {
            self.total_due = Some(now + TOTAL_INTERVAL);
        }
        is_due
    }

    /// All files were counted, or could not be.
    pub fn counted_total(&mut self, failed: bool, now: Instant) {
        let pause = if failed { RETRY } else { TOTAL_INTERVAL };
        self.total_due = self.total_due.map(|_| now + pause);
    }

    /// When a sweep or a count of all files begins. A sweep that is due while one is in progress begins with its end.
    pub fn deadline(&self) -> Option<Instant> {
        let is_sweeping = self.count(|purpose| matches!(purpose, TaskPurpose::Sweep)) > 0;
        let sweep = self.sweep_due.filter(|_| !is_sweeping);
        sweep.into_iter().chain(self.total_due).min()
    }

    /// Whether a task has something to do without an answer.
    pub fn has_work(&self) -> bool {
        self.tasks.values().any(BucketTask::has_work)
    }

    /// Does a part of the work of one task; they take turns.
    pub fn go_on(&mut self, bucket: &Bucket, now: Now) {
        let later = self.tasks.range(self.worked.wrapping_add(1)..);
        let mut tasks = later.chain(&self.tasks);
        let next = tasks.find(|(_, task)| task.has_work());
        let Some(number) = next.map(|(number, _)| *number) else {
            return;
        };
        self.worked = number;
        if let Some(task) = self.tasks.get_mut(&number) {
            task.go_on(bucket, now);
        }
    }

    /// Sends what the tasks want.
    pub fn submit(&mut self, bucket: &Bucket, upstream: &mut Upstream, now: Now) {
        for (class, id, request) in self.take_wanted(bucket, now) {
            upstream.submit(request, class, UpstreamToken::Task(id), now);
        }
    }

    /// The requests that the tasks want, and their numbers. Tasks that have had the fewest pages come first, and of these the
    /// oldest.
    fn take_wanted(&mut self, bucket: &Bucket, now: Now) -> Vec<(RequestClass, u32, StoreRequest)> {
        let mut active: BTreeMap<TaskKind, usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(self.tasks.len());
        for (number, task) in &self.tasks {
            order.push((task.pages, *number));
            if let (Some(kind), false) = (task.purpose.kind(), task.is_between_pages()) {
                *active.entry(kind).or_default() += 1;
            }
        }
        order.sort_unstable();
        let mut wanted = Vec::new();
        for (_, number) in order {
            let Some(task) = self.tasks.get_mut(&number) else {
                continue;
            };
            if let (Some(kind), true) = (task.purpose.kind(), task.is_between_pages()) {
                let active = active.entry(kind).or_default();
                if *active >= kind.max_active() {
                    continue;
                }
                *active += 1;
                task.pages += 1;
            }
            let class = task.class();
            while let Some(request) = self.next_request(number, bucket, now) {
                let id = self.number();
                self.requests.insert(id, (number, request.id));
                wanted.push((class, id, request.request));
            }
        }
        wanted
    }

    fn next_request(&mut self, number: u32, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        self.tasks.get_mut(&number)?.want(bucket, now)
    }

    /// The store has answered a request, or will not.
    pub fn answered(&mut self, id: u32, result: Result<Response, StoreFailure>, now: Now) {
        let Some((number, id)) = self.requests.remove(&id) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        match &mut task.machine {
            TaskMachine::Work(task) => task.answered(id, result, now),
            TaskMachine::Trim(task) => task.answered(id, result, now),
            TaskMachine::Sweep(task) => task.answered(id, result, now),
        }
    }

    /// The next task that is done. To be called after [`BucketTasks::submit`], because a task that wants more is not.
    pub fn take_done(&mut self) -> Option<BucketTask> {
        let done = self.tasks.iter().find(|(_, task)| task.is_done());
        let number = *done?.0;
        self.tasks.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expiry::{Lifetime, TombstonePolicy};
    use crate::listing::Work;
    use crate::s3::bucket::tests::store;
    use crate::s3::tasks::sweep::SweepPlan;

    #[test]
    fn nothing_is_due_during_a_sweep() {
        let begun = crate::sys::now();
        let interval = Duration::from_secs(2);
        let mut tasks = BucketTasks::default();
        tasks.plan_sweep(interval, begun.mono);
        let first = begun.mono + interval;
        assert_eq!(tasks.deadline(), Some(first));
        assert!(tasks.take_sweep(interval, first));
        assert_eq!(tasks.deadline(), Some(first + interval));
        let plan = SweepPlan {
            lifetime: Lifetime::default(),
            soft_quota: None,
            policy: TombstonePolicy::default(),
        };
        let machine = TaskMachine::Sweep(Box::new(SweepTask::new(plan, begun)));
        tasks.push(TaskPurpose::Sweep, machine, begun);
        assert!(!tasks.take_sweep(interval, first + interval));
        assert_eq!(tasks.deadline(), None);
    }

    /// Begins to count an owner.
    fn count(tasks: &mut BucketTasks, owner: &str, now: Now) {
        let owner = owner.as_bytes().to_vec();
        let work = Work::count(owner.clone(), 0);
        let task = WorkTask::new(work, TombstonePolicy::default());
        let purpose = TaskPurpose::Count {
            owner,
            changes: 0,
            repetitions: 0,
        };
        tasks.push(purpose, TaskMachine::Work(Box::new(task)), now);
    }

    /// A page without objects; others follow, or none.
    fn page(number: u32, is_last: bool) -> Response {
        let next = match is_last {
            true => String::new(),
            false => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{number}</NextContinuationToken>"
            ),
        };
        Response {
            status: 200,
            body: format!("<ListBucketResult>{next}</ListBucketResult>").into_bytes(),
            ..Response::default()
        }
    }

    #[test]
    fn long_counts_delay_no_other() {
        let now = crate::sys::now();
        let bucket = Bucket::new(&store("", true));
        let mut tasks = BucketTasks::default();
        let mut pages_of = BTreeMap::new();
        let mut number = 0;
        let long = 50;
        for owner in 0..long {
            count(&mut tasks, &format!("long{owner}"), now);
        }
        let mut outstanding = Vec::new();
        for round in 0..200 {
            if round == 100 {
                count(&mut tasks, "short", now);
            }
            let wanted = tasks.take_wanted(&bucket, now);
            outstanding.extend(wanted.into_iter().map(|(class, id, request)| {
                assert_eq!(class, RequestClass::User);
                (id, String::from_utf8(request.bytes).unwrap())
            }));
            assert!(!outstanding.is_empty() && outstanding.len() <= TaskKind::Count.max_active());
            // The store answers in another order.
            let (id, head) = outstanding.swap_remove(round % outstanding.len());
            let (_, owner) = head.split_once("&prefix=").unwrap();
            let owner = owner.split('%').next().unwrap().to_owned();
            number += 1;
            tasks.answered(id, Ok(page(number, owner == "short")), now);
            while tasks.has_work() {
                tasks.go_on(&bucket, now);
            }
            if owner == "short" {
                assert!(round - 100 <= TaskKind::Count.max_active(), "{round}");
                assert!(tasks.take_done().is_some());
                assert!(pages_of.values().all(|pages| (1..=4).contains(pages)));
                assert_eq!(pages_of.len(), long);
                return;
            }
            *pages_of.entry(owner).or_insert(0) += 1;
            assert!(tasks.take_done().is_none());
        }
        panic!("the short count waits for the long ones");
    }
}
