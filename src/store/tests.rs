//! The store in a temporary folder: what is stored, counted, trimmed and swept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::removal::Batch;
use super::sweep::{Plan, Report, Sweep};
use super::trim::{Order, Trimmed, Trims};
use super::upload::PublishError;
use super::usage::UsageTracker;
use super::walk::{Slice, WalkMode};
use super::*;
use crate::expiry::Lifetime;
use crate::now::Now;
use crate::policy::pool::{Pool, QuotaClass};

mod clock;
mod removal;
mod root;
mod sweep;
mod tombstones;
mod upload;
mod usage;

/// A temporary folder, removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("upslot-store-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn open(&self) -> Store {
        Store::open(&self.0, 0o640, 0o750).unwrap()
    }

    /// Creates a file without the store; it is `age` seconds old.
    fn file(&self, path: &str, size: usize, age: u64) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; size]).unwrap();
        let modified = sys::now().wall - Duration::from_secs(age);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    /// Creates a file and makes its folder `age` seconds old.
    fn file_in_folder(&self, path: &str, size: usize, age: u64, folder_age: u64) {
        self.file(path, size, age);
        let folder = File::open(self.0.join(path).parent().unwrap()).unwrap();
        let modified = sys::now().wall - Duration::from_secs(folder_age);
        sys::set_modified(folder, modified).unwrap();
    }

    /// All visible entries, sorted.
    fn tree(&self) -> Vec<String> {
        fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    found.push(format!("{}/", path.strip_prefix(root).unwrap().display()));
                    list(root, &path, found);
                } else {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        list(&self.0, &self.0, &mut found);
        found.sort();
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn path(text: &str) -> StorePath {
    StorePath::from_segments(text.as_bytes().split(|b| *b == b'/')).unwrap()
}

fn put(store: &mut Store, at: &str, bytes: &[u8]) -> Result<(), PublishError> {
    put_and(store, at, bytes, true)
}

fn put_and(store: &mut Store, at: &str, bytes: &[u8], sync: bool) -> Result<(), PublishError> {
    let mut upload = store.begin(bytes.len() as u64).unwrap();
    store.append(&mut upload, bytes).unwrap();
    store.complete(&mut upload, Some("image/jpeg")).unwrap();
    let published = store.publish(&upload, &path(at), sync, sys::now().wall);
    store.end(upload);
    published.map(|_| ())
}

/// Removes one file; false if there is none.
fn remove(store: &mut Store, path: &StorePath) -> bool {
    let Some(victim) = store.find(path).unwrap() else {
        return false;
    };
    let mut batch = Batch::default();
    batch.add(victim, store, sys::now()).unwrap();
    batch.close(false);
    store.unlink(&batch.next_victim().unwrap().path).unwrap()
}

/// Counts until the owner's bytes are known.
fn count(usage: &mut UsageTracker, store: &Store, owner: &str, now: Now) -> u64 {
    for _ in 0..10_000 {
        if let Some(bytes) = usage.of_owner(owner.as_bytes(), now.mono) {
            return Pool::ALL.sum(&bytes);
        }
        usage.ask(owner.as_bytes(), WalkMode::Names);
        usage.go_on(
            store.root(),
            &mut Slice::begin(sys::monotonic),
            Duration::ZERO,
            now,
        );
    }
    panic!("counting does not end");
}

fn trim(store: &mut Store, usage: &mut UsageTracker, order: Order) -> Trimmed {
    let mut trims = Trims::default();
    trims.push(order);
    for _ in 0..10_000 {
        if let Some(trimmed) = trims.go_on(
            false,
            store,
            usage,
            &mut Slice::begin(sys::monotonic),
            sys::now(),
        ) {
            return trimmed;
        }
    }
    panic!("trimming does not end");
}

fn sweep(store: &mut Store, usage: &mut UsageTracker, plan: Plan) -> Report {
    pass(&mut Sweep::new(&plan, sys::now()), store, usage, plan)
}

/// The next pass of a sweep, and the trimming that it orders.
fn pass(sweep: &mut Sweep, store: &mut Store, usage: &mut UsageTracker, plan: Plan) -> Report {
    let now = Now {
        mono: sweep.due().unwrap(),
        ..sys::now()
    };
    let mut trims = Trims::default();
    let report = (0..10_000)
        .find_map(|_| {
            let mut slice = Slice::begin(sys::monotonic);
            sweep.go_on(&plan, store, usage, &mut trims, &mut slice, now)
        })
        .expect("the sweep ends");
    while !trims.is_empty() {
        trims.go_on(
            false,
            store,
            usage,
            &mut Slice::begin(sys::monotonic),
            sys::now(),
        );
    }
    report
}

fn plan(max_age: u64, soft_quota: u64) -> Plan {
    Plan {
        interval: Duration::from_secs(60),
        lifetime: Lifetime {
            message: Duration::from_secs(max_age),
            ..Lifetime::default()
        },
        soft_quota: Some(soft_quota).filter(|quota| *quota > 0),
        fsync: false,
    }
}
