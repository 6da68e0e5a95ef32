//! Answers of an object store: pages are bounded, and keys are what a store would have encoded; errors are bounded and can
//! be logged; whatever is listed, tasks ask only for objects below the configured prefix.

use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::config;
use upslot::expiry::{Lifetime, Order, TombstonePolicy};
use upslot::http::client::Response;
use upslot::listing::{Selection, Work};
use upslot::now::Now;
use upslot::policy::pool::Pool;
use upslot::s3::bucket::Bucket;
use upslot::s3::error::{FailureKind, StoreFailure};
use upslot::s3::listing::{MAX_OBJECTS, ObjectPage, PageReader};
use upslot::s3::tasks::TaskRequest;
use upslot::s3::tasks::sweep::{SweepPlan, SweepTask};
use upslot::s3::tasks::trim::TrimTask;
use upslot::s3::tasks::work::WorkTask;

use super::{Choices, NOW, expand};

/// Most requests and steps of a task.
const MOST: usize = 200;

thread_local! {
    static BUCKET: Bucket = {
        let text = "get_url: https://get.example/\nput_url: https://put.example/\nslot_secret: 00112233445566778899\n\
                    s3: {endpoint: 'https://s3.example', bucket: uploads, prefix: 'my files', access_key: AK, secret_key: 5ec2e7}\n";
        let config = config::read(text).unwrap().config;
        Bucket::new(&config.s3.unwrap())
    };
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let status = choices.number() % 600;
    let token = String::from_utf8_lossy(choices.until(b'\n')).into_owned();
    let bytes = expand(choices.rest());
    check_page(&bytes, &token);
    check_failure(&bytes, status, &token);
    BUCKET.with(|bucket| check_tasks(bucket, &bytes, status));
}

/// Gives a task its answers, and lets it do its work in between.
macro_rules! work_through {
    ($task:ident, $bucket:expr, $bytes:expr, $status:expr, $now:expr) => {
        for _ in 0..MOST {
            if $task.has_work() {
                $task.go_on($bucket, $now);
                continue;
            }
            let Some(request) = $task.want($bucket, $now) else {
                break;
            };
            let response = answer(&request, $bytes, $status);
            $task.answered(request.id, Ok(response), $now);
        }
    };
}

/// Answers every list with the same page, and everything else with the status.
fn check_tasks(bucket: &Bucket, bytes: &[u8], status: u16) {
    let now = Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    };
    let policy = TombstonePolicy {
        foreign: true,
        slot_life: Duration::from_secs(300),
    };
    let owner = || b"owner".to_vec();
    let works = [
        Work::Search {
            owner: owner(),
            selection: Selection::Oldest(3),
            since: 0,
        },
        Work::Delete {
            owner: owner(),
            files: None,
        },
        Work::Sum { largest: 3 },
    ];
    for work in works {
        let mut task = WorkTask::new(work, policy);
        work_through!(task, bucket, bytes, status, now);
        let _ = task.finish();
    }
    let order = Order {
        owner: owner(),
        need: 1000,
        pool: Pool::EVICTABLE,
        remove: true,
    };
    let mut task = TrimTask::new(order, policy, now);
    work_through!(task, bucket, bytes, status, now);
    let plan = SweepPlan {
        lifetime: Lifetime {
            message: Duration::from_secs(10),
            ..Lifetime::default()
        },
        soft_quota: Some(100),
        policy,
    };
    let mut task = SweepTask::new(plan, now);
    work_through!(task, bucket, bytes, status, now);
    let _ = task.finish();
}

/// Checks a request, and answers it.
fn answer(TaskRequest { request, .. }: &TaskRequest, bytes: &[u8], status: u16) -> Response {
    let line = request.bytes.split(|byte| *byte == b'\r').next().unwrap();
    let head = std::str::from_utf8(line).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap();
    let is_list = path == "/uploads";
    assert!(
        is_list || path.starts_with("/uploads/my%20files/"),
        "{head}"
    );
    assert!(path.split('/').all(|segment| segment != ".."), "{head}");
    assert!(!is_list || query.contains("prefix=my%20files%2F"), "{head}");
    assert_eq!(is_list, request.method == "GET", "{head}");
    Response {
        status: if is_list { 200 } else { status },
        body: if is_list { bytes.to_vec() } else { Vec::new() },
        ..Response::default()
    }
}

/// Reads a page in steps of this size.
fn read(bytes: &[u8], token: Option<&str>, step: usize) -> Option<ObjectPage> {
    let mut reader = PageReader::new(bytes.to_vec()).ok()?;
    while !reader.go_on(step).ok()? {}
    reader.finish(token).ok()
}

fn check_page(bytes: &[u8], token: &str) {
    let page = read(bytes, Some(token), MAX_OBJECTS);
    assert_eq!(read(bytes, Some(token), 1), page);
    let Some(page) = page else {
        return;
    };
    assert!(page.objects.len() <= MAX_OBJECTS);
    assert!(page.next.as_deref() != Some(token) && page.next.as_deref() != Some(""));
    let mut written = String::from("<ListBucketResult><EncodingType>url</EncodingType>");
    for object in &page.objects {
        assert!((1..=1024).contains(&object.key.len()));
        let key = upslot::layout::encode_segment(object.key.as_bytes());
        let time = upslot::now::date_time(object.modified);
        let size = object.size;
        written += &format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{time}</LastModified></Contents>"
        );
    }
    written += "</ListBucketResult>";
    let again = read(written.as_bytes(), None, 32).unwrap();
    assert_eq!(again.objects, page.objects);
}

fn check_failure(bytes: &[u8], status: u16, value: &str) {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let fields = ["date", "location", "x-amz-bucket-region"];
    let fields = fields.map(|name| (name.to_owned(), value.to_owned()));
    let failure = StoreFailure::of(status, &fields, bytes, now);
    assert!(failure.code.len() <= 64 && failure.message.len() <= 400);
    if let FailureKind::WrongRegion(region) = &failure.kind {
        assert!(region.len() <= 64, "{region}");
    }
    let text = failure.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(failure.remedy().ends_with('.'));
}
