//! Tasks against a store in memory, which answers in another order than asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use percent_encoding::percent_decode_str;

use super::removals::{Removals, Victim};
use super::*;
use crate::expiry::TombstonePolicy;
use crate::http::client::Response;
use crate::layout::{StorePath, encode_segment};
use crate::now::{Now, date_time};
use crate::s3::bucket::{Bucket, tests::store};

mod deleting;
mod searching;
mod sweeping;

/// The time of every task, in Unix seconds.
const NOW: u64 = 1_800_000_000;

const OWNER: &str = "Q_7dsld2o0PGmDXH553Cx_WVmKY";

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: at(NOW),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Own slots are valid for six minutes.
const OWN: TombstonePolicy = TombstonePolicy {
    foreign: false,
    slot_life: Duration::from_secs(360),
};

const FOREIGN: TombstonePolicy = TombstonePolicy {
    foreign: true,
    ..OWN
};

/// What a task is to its driver.
trait Driven {
    fn want(&mut self, bucket: &Bucket) -> Option<TaskRequest>;
    fn answered(&mut self, id: u32, answer: TaskAnswer);
    fn has_work(&self) -> bool;
    fn go_on(&mut self, bucket: &Bucket);
    fn is_done(&self) -> bool;
}

macro_rules! driven {
    ($($task:ty),*) => {$(
        impl Driven for $task {
            fn want(&mut self, bucket: &Bucket) -> Option<TaskRequest> {
                <$task>::want(self, bucket, now())
            }
            fn answered(&mut self, id: u32, answer: TaskAnswer) {
                <$task>::answered(self, id, answer, now());
            }
            fn has_work(&self) -> bool {
                <$task>::has_work(self)
            }
            fn go_on(&mut self, bucket: &Bucket) {
                <$task>::go_on(self, bucket, now());
            }
            fn is_done(&self) -> bool {
                <$task>::is_done(self)
            }
        }
    )*};
}

driven!(work::WorkTask, trim::TrimTask, sweep::SweepTask);

/// A bucket, in memory.
struct FakeStore {
    bucket: Bucket,
    /// Sizes and times, by key.
    objects: BTreeMap<String, (u64, SystemTime)>,
    /// Requests for objects: method and key, without the prefix.
    log: Vec<(String, String)>,
    lists: usize,
    /// The answers to these are failures: method, what the key contains, status.
    failures: Vec<(&'static str, &'static str, u16)>,
    /// The list with this number fails.
    failing_list: usize,
    /// Unix seconds.
    clock: u64,
}

const PREFIX: &str = "x y/";

impl FakeStore {
    fn new() -> FakeStore {
        FakeStore {
            bucket: Bucket::new(&store(PREFIX, true)),
            objects: BTreeMap::new(),
            log: Vec::new(),
            lists: 0,
            failures: Vec::new(),
            failing_list: 0,
            clock: NOW,
        }
    }

    /// Adds an object of this age in seconds; a negative one is in the future.
    fn add(&mut self, key: &str, size: u64, age: i64) {
        let time = at(NOW.checked_add_signed(-age).unwrap());
        self.objects.insert(format!("{PREFIX}{key}"), (size, time));
    }

    /// Adds a file with a tag.
    fn add_file(&mut self, owner: &str, number: usize, suffix: &str, size: u64, age: i64) {
        self.add(&path(owner, number, suffix), size, age);
    }

    fn has(&self, key: &str) -> bool {
        self.objects.contains_key(&format!("{PREFIX}{key}"))
    }

    /// Number of files in the log with this method.
    fn count(&self, method: &str) -> usize {
        let log = self.log.iter();
        log.filter(|(other, _)| other == method).count()
    }

    fn answer(&mut self, request: &StoreRequest) -> Result<Response, StoreFailure> {
        let head = std::str::from_utf8(&request.bytes).unwrap();
        let target = head.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let mut response = Response {
            status: 200,
            fields: vec![("date".to_owned(), httpdate::fmt_http_date(at(self.clock)))],
            ..Response::default()
        };
        if path == "/uploads" {
            self.lists += 1;
            if self.lists == self.failing_list {
                return Err(StoreFailure::unreachable("cut off"));
            }
            response.body = self.list(query).into_bytes();
            return Ok(response);
        }
        let key = path.strip_prefix("/uploads/").unwrap();
        let key = percent_decode_str(key).decode_utf8().unwrap().into_owned();
        let below = key.strip_prefix(PREFIX).unwrap().to_owned();
        let mut failures = self.failures.iter();
        let failure =
            failures.find(|(method, part, _)| *method == request.method && below.contains(part));
        self.log.push((request.method.to_owned(), below));
        if let Some((_, _, status)) = failure {
            response.status = *status;
            return Ok(response);
        }
        match request.method {
            "PUT" => {
                let end = request.bytes.windows(4).position(|at| at == b"\r\n\r\n");
                let size = (request.bytes.len() - end.unwrap() - 4) as u64;
                self.objects.insert(key, (size, at(NOW)));
            }
            "DELETE" if self.objects.remove(&key).is_some() => response.status = 204,
            "HEAD" if self.objects.contains_key(&key) => {}
            // For a deletion this is what few stores say.
            "DELETE" | "HEAD" => response.status = 404,
            other => panic!("{other}"),
        }
        Ok(response)
    }

    /// A page of a list; its token is the last key of the page before.
    fn list(&self, query: &str) -> String {
        let value = |name: &str| {
            let found = query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap();
                (key == name).then(|| percent_decode_str(value).decode_utf8().unwrap())
            });
            found.map(|value| value.into_owned())
        };
        assert_eq!(value("list-type").as_deref(), Some("2"));
        let prefix = value("prefix").unwrap();
        let after = value("continuation-token").unwrap_or_default();
        let most: usize = value("max-keys").unwrap().parse().unwrap();
        let all = self.objects.iter();
        let mut all = all.filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let mut text = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
        let mut last = "";
        for (key, (size, time)) in all.by_ref().take(most) {
            last = key;
            let (key, time) = (encode_segment(key.as_bytes()), date_time(*time));
            text += &format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{time}</LastModified></Contents>"
            );
        }
        if all.next().is_some() {
            text += &format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            );
        }
        text + "</ListBucketResult>"
    }

    /// Does all that a task wants.
    fn run(&mut self, task: &mut impl Driven) {
        let mut outstanding: Vec<TaskRequest> = Vec::new();
        let mut dice = 1_usize;
        loop {
            while let Some(request) = task.want(&self.bucket) {
                outstanding.push(request);
            }
            let is_list = |request: &&TaskRequest| request.request.bytes.starts_with(b"GET ");
            let lists = outstanding.iter().filter(is_list).count();
            assert!(lists <= 1 && outstanding.len() - lists <= MAX_REMOVALS);
            if task.has_work() {
                assert!(!task.is_done());
                task.go_on(&self.bucket);
                continue;
            }
            if outstanding.is_empty() {
                assert!(task.is_done());
                return;
            }
            assert!(!task.is_done());
            dice = dice.wrapping_mul(25_173).wrapping_add(13_849) % 65_536;
            let next = outstanding.swap_remove(dice % outstanding.len());
            let answer = self.answer(&next.request);
            task.answered(next.id, answer);
        }
    }
}

/// The path of a file with a tag.
fn path(owner: &str, number: usize, suffix: &str) -> String {
    format!("{owner}/{number:020}~{suffix}/é {number}+.png")
}

fn store_path(text: &str) -> StorePath {
    StorePath::from_segments(text.as_bytes().split(|b| *b == b'/')).unwrap()
}

#[test]
fn a_list_that_goes_around_in_circles_ends() {
    let bucket = Bucket::new(&store("", true));
    let mut pages = pages::Pages::new(String::new());
    let mut ids = RequestIds::default();
    for number in 0..1000 {
        let Some(TaskRequest { id, .. }) = pages.want(&mut ids, &bucket, now()) else {
            assert!(number < 30);
            return;
        };
        assert!(pages.is_asked(id) && !pages.is_asked(id + 1));
        assert!(pages.want(&mut ids, &bucket, now()).is_none());
        let body = format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken></ListBucketResult>",
            number % 7
        );
        let response = Response {
            status: 200,
            body: body.into_bytes(),
            ..Response::default()
        };
        pages.answered(Ok(response), now()).unwrap();
        let mut failed = false;
        while pages.has_work() {
            failed = pages.go_on().is_err();
        }
        assert_eq!(failed, pages.is_done());
    }
    panic!("it did not end");
}

#[test]
fn many_failures_stop_the_removal() {
    let mut fake = FakeStore::new();
    fake.failures = vec![("DELETE", "", 403)];
    let mut removals = Removals::new(OWN);
    for number in 0..1000 {
        removals.push(Victim::Internal(format!("{PREFIX}{number}")), now());
    }
    let mut ids = RequestIds::default();
    while let Some(request) = removals.want(&mut ids, &fake.bucket, now()) {
        let answer = fake.answer(&request.request);
        removals.answered(request.id, answer, now());
    }
    assert!(removals.is_idle() && removals.is_stopped);
    assert_eq!((fake.log.len(), removals.failed), (100, 1000));
    assert_eq!(removals.error.unwrap().kind, FailureKind::Denied);
}
