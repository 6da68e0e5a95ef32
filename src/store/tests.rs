//! The store in a temporary folder: what is stored, counted, trimmed and swept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::removal::Batch;
use super::sweep::{Plan, Report, Sweep};
use super::trim::{Order, Trimmed, Trims};
use super::upload::PublishError;
use super::usage::UsageTracker;
use super::walk::Slice;
use super::*;
use crate::expiry::Lifetime;
use crate::now::Now;
use crate::policy::pool::Pool;

mod clock;
mod removal;

/// A folder that goes with the test.
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

    /// Puts a file there behind the store's back, `age` seconds old.
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

    /// Everything that is visible, sorted.
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
    let mut upload = store.begin(bytes.len() as u64).unwrap();
    store.append(&mut upload, bytes).unwrap();
    store.complete(&mut upload, Some("image/jpeg")).unwrap();
    let published = store.publish(&upload, &path(at));
    store.end(upload);
    published.map(|_| ())
}

#[test]
fn what_trickles_in_is_written_in_portions_and_whole() {
    let folder = Folder::new("trickle");
    let mut store = folder.open();
    let body: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    for piece in [1, 7, 2047, 2048, 2049, 10_000] {
        let at = format!("o/r{piece}/n");
        let mut upload = store.begin(body.len() as u64).unwrap();
        for bytes in body.chunks(piece) {
            store.append(&mut upload, bytes).unwrap();
        }
        let written = sys::stat_open(upload.file()).unwrap().size;
        assert!(written + 2048 > body.len() as u64, "{piece}: {written}");
        if written < body.len() as u64 {
            let early = store.publish(&upload, &path(&at));
            assert!(early.is_err(), "nothing partial gets a name");
        }
        store.complete(&mut upload, None).unwrap();
        store.publish(&upload, &path(&at)).unwrap();
        store.end(upload);
        assert!(fs::read(folder.0.join(at)).unwrap() == body, "{piece}");
    }
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
        usage.ask(owner.as_bytes());
        usage.go_on(store.root(), &mut Slice::begin(), Duration::ZERO, now);
    }
    panic!("counting does not end");
}

fn trim(store: &mut Store, usage: &mut UsageTracker, order: Order) -> Trimmed {
    let mut trims = Trims::default();
    trims.push(order);
    for _ in 0..10_000 {
        if let Some(trimmed) = trims.go_on(false, store, usage, &mut Slice::begin(), sys::now()) {
            return trimmed;
        }
    }
    panic!("trimming does not end");
}

fn sweep(store: &mut Store, usage: &mut UsageTracker, plan: Plan) -> Report {
    let now = sys::now();
    let mut sweep = Sweep::new(&plan, now);
    let mut trims = Trims::default();
    let due = now.later(plan.interval.min(Duration::from_secs(300)));
    let report = (0..10_000)
        .find_map(|_| {
            sweep.go_on(
                &plan,
                store,
                usage,
                &mut trims,
                &mut Slice::begin(),
                Now {
                    wall: now.wall,
                    ..due
                },
            )
        })
        .expect("the sweep ends");
    while !trims.is_empty() {
        trims.go_on(false, store, usage, &mut Slice::begin(), sys::now());
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
        soft_quota,
        fsync: false,
    }
}

#[test]
fn an_upload_is_invisible_until_it_is_published() {
    let folder = Folder::new("publish");
    let mut store = folder.open();
    let mut upload = store.begin(5).unwrap();
    store.append(&mut upload, b"hello").unwrap();
    store.complete(&mut upload, Some("image/jpeg")).unwrap();
    assert_eq!(folder.tree(), Vec::<String>::new());
    store.publish(&upload, &path("o/r/n")).unwrap();
    store.end(upload);
    assert_eq!(folder.tree(), ["o/", "o/r/", "o/r/n"]);
    let file = store.download(&path("o/r/n")).unwrap().unwrap();
    assert_eq!(file.size, 5);
    assert_eq!(fs::read(folder.0.join("o/r/n")).unwrap(), b"hello");
    assert!(store.exists(&path("o/r/n")).unwrap());
    assert!(!store.exists(&path("o/r/m")).unwrap());
    assert!(!store.exists(&path("p/r/m")).unwrap());
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let folder = Folder::new("abort");
    let mut store = folder.open();
    for naming in [store.naming, Naming::Temporary] {
        store.naming = naming;
        let mut upload = store.begin(5).unwrap();
        store.append(&mut upload, b"hel").unwrap();
        store.complete(&mut upload, None).unwrap();
        store.end(upload);
        assert_eq!(folder.tree(), Vec::<String>::new());
        assert_eq!(fs::read_dir(folder.0.join(".upslot")).unwrap().count(), 0);
        assert_eq!(store.unwritten, 0);
    }
}

#[test]
fn the_first_complete_upload_wins() {
    let folder = Folder::new("taken");
    let mut store = folder.open();
    for (at, naming) in [
        ("a/r/n", store.naming),
        ("b/r/n", Naming::Proc),
        ("c/r/n", Naming::Temporary),
    ] {
        store.naming = naming;
        put(&mut store, at, b"first").unwrap();
        assert!(
            matches!(put(&mut store, at, b"second"), Err(PublishError::Taken)),
            "{naming:?}"
        );
        assert_eq!(fs::read(folder.0.join(at)).unwrap(), b"first");
    }
    assert_eq!(fs::read_dir(folder.0.join(".upslot")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_published_leaves_no_folder() {
    let folder = Folder::new("no-folder");
    let mut store = folder.open();
    folder.file("o/file", 1, 0);
    assert!(matches!(
        put(&mut store, "o/file/n", b"x"),
        Err(PublishError::Io(_))
    ));
    // A folder where the file should be.
    fs::create_dir_all(folder.0.join("p/r/n")).unwrap();
    assert!(matches!(
        put(&mut store, "p/r/n", b"x"),
        Err(PublishError::Taken)
    ));
    assert_eq!(folder.tree(), ["o/", "o/file", "p/", "p/r/", "p/r/n/"]);
    put(&mut store, "q/r/n", b"x").unwrap();
    store.unpublish(&path("q/r/n"));
    assert_eq!(folder.tree(), ["o/", "o/file", "p/", "p/r/", "p/r/n/"]);
}

#[test]
fn the_folders_that_changed_are_told() {
    let folder = Folder::new("changed");
    let mut store = folder.open();
    let identity = |at: &str| sys::stat(&folder.0.join(at)).unwrap().identity;
    for (at, changed) in [
        ("o/r/n", &["", "o", "o/r"][..]),
        ("o/s/n", &["o", "o/s"]),
        ("o/s/m", &["o/s"]),
        ("o/n", &["o"]),
        ("p/n", &["", "p"]),
        ("q/1/2/n", &["", "q", "q/1", "q/1/2"]),
        ("q/1/3/n", &["q/1", "q/1/3"]),
    ] {
        let mut upload = store.begin(1).unwrap();
        store.append(&mut upload, b"x").unwrap();
        store.complete(&mut upload, None).unwrap();
        let published = store.publish(&upload, &path(at)).unwrap();
        store.end(upload);
        let told = published.folders.iter();
        let told: Vec<_> = told.map(|f| sys::stat_open(f).unwrap().identity).collect();
        let changed: Vec<_> = changed.iter().map(|at| identity(at)).collect();
        assert_eq!(told, changed, "{at}");
    }
}

#[test]
fn a_planted_link_is_not_followed_by_a_publication() {
    let folder = Folder::new("planted");
    let mut store = folder.open();
    let outside = Folder::new("planted-outside");
    fs::create_dir_all(outside.0.join("r")).unwrap();
    fs::create_dir_all(folder.0.join("o/s")).unwrap();
    let plant = |to: PathBuf, at: &str| std::os::unix::fs::symlink(to, folder.0.join(at)).unwrap();
    plant(outside.0.clone(), "p");
    plant(outside.0.join("r"), "o/r");
    plant(outside.0.join("r/n"), "o/s/n");
    plant(outside.0.join("not there"), "o/t");
    for naming in [store.naming, Naming::Proc, Naming::Temporary] {
        store.naming = naming;
        for (at, taken) in [
            ("p/r/n", false),
            ("p/new/n", false),
            ("p/n", false),
            ("o/r/n", false),
            ("o/r/new/n", false),
            ("o/t/n", false),
            ("o/s/n", true),
        ] {
            let put = put(&mut store, at, b"x");
            assert_eq!(matches!(put, Err(PublishError::Taken)), taken, "{at}");
            assert!(put.is_err(), "{at} {naming:?}");
            assert!(store.exists(&path(at)).unwrap(), "{at}");
        }
    }
    assert_eq!(outside.tree(), ["r/"]);
    assert_eq!(folder.tree(), ["o/", "o/r", "o/s/", "o/s/n", "o/t", "p"]);
}

#[test]
fn only_plain_files_are_served() {
    let folder = Folder::new("plain");
    let store = folder.open();
    folder.file("o/r/n", 3, 0);
    folder.file("secret", 3, 0);
    std::os::unix::fs::symlink("n", folder.0.join("o/r/link")).unwrap();
    std::os::unix::fs::symlink("../../secret", folder.0.join("o/r/out")).unwrap();
    std::os::unix::fs::symlink("r", folder.0.join("o/s")).unwrap();
    let fifo = folder.0.join("o/r/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    assert!(store.download(&path("o/r/n")).unwrap().is_some());
    for hidden in [
        "o/r", "o/r/link", "o/r/out", "o/s/n", "o/r/fifo", "o/r/m", "x/y",
    ] {
        assert!(store.download(&path(hidden)).unwrap().is_none(), "{hidden}");
    }
}

#[test]
fn old_files_count_from_the_first_question() {
    let folder = Folder::new("count");
    let mut store = folder.open();
    let now = sys::now();
    folder.file("owner/AbCdEfGhIjKlM/photo.jpg", 100, 0);
    folder.file("owner/AbCdEfGhIjKlN", 20, 0);
    folder.file("owner/.hidden", 1000, 0);
    for at in 0..300 {
        folder.file(&format!("owner/folder{at}/f"), 1, 0);
    }
    folder.file("other/r/n", 7, 0);
    let mut usage = UsageTracker::default();
    assert_eq!(count(&mut usage, &store, "owner", now), 420);
    assert_eq!(count(&mut usage, &store, "nobody", now), 0);
    usage.reserve(b"owner", 0, 50, now.mono);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(470)
    );
    put(&mut store, "owner/r/n", &[0; 50]).unwrap();
    usage.release(b"owner", 0, 50);
    usage.added(b"owner", 0, 50);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(470)
    );
    usage.removed(b"owner", 0, 100);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(370)
    );
}

#[test]
fn a_file_that_comes_while_its_owner_is_counted_is_counted_once() {
    let folder = Folder::new("unsteady");
    let mut store = folder.open();
    let now = sys::now();
    for at in 0..200 {
        folder.file(&format!("owner/folder{at}/f"), 1, 0);
    }
    for after in [1, 2, 3, 5, 8] {
        let mut usage = UsageTracker::default();
        usage.want_total(store.root());
        assert_eq!(usage.of_owner(b"owner", now.mono), None);
        usage.ask(b"owner");
        for _ in 0..after {
            usage.go_on(store.root(), &mut Slice::begin(), Duration::ZERO, now);
        }
        put(&mut store, &format!("owner/new{after}/f"), b"x").unwrap();
        usage.added(b"owner", 0, 1);
        put(&mut store, &format!("late{after}/new/f"), b"xy").unwrap();
        usage.added(format!("late{after}").as_bytes(), 0, 2);
        let expected = 200 + [1, 2, 3, 5, 8].iter().filter(|a| **a <= after).count() as u64;
        assert_eq!(
            count(&mut usage, &store, "owner", now),
            expected,
            "after {after} slices"
        );
        while usage.total().is_none() {
            usage.go_on(store.root(), &mut Slice::begin(), Duration::ZERO, now);
        }
        let late = 2 * (expected - 200);
        assert_eq!(usage.total(), Some(expected + late), "after {after} slices");
    }
}

#[test]
fn the_oldest_files_make_room() {
    let folder = Folder::new("trim");
    let mut store = folder.open();
    let now = sys::now();
    for (name, age) in [("a", 400), ("b", 300), ("c", 200), ("d", 100)] {
        folder.file(&format!("owner/{name}/f"), 10, age);
    }
    let mut usage = UsageTracker::default();
    count(&mut usage, &store, "owner", now);
    let order = |need, remove| Order {
        owner: b"owner".to_vec(),
        need,
        pool: Pool::ALL,
        remove,
    };
    let looked = trim(&mut store, &mut usage, order(15, false));
    let age = now
        .wall
        .duration_since(looked.newest.unwrap())
        .unwrap()
        .as_secs();
    assert!((298..=302).contains(&age), "{age}");
    assert_eq!(looked.files, 0);
    assert_eq!(trim(&mut store, &mut usage, order(41, false)).newest, None);
    let trimmed = trim(&mut store, &mut usage, order(15, true));
    assert_eq!((trimmed.files, trimmed.freed), (2, 20));
    assert_eq!(
        folder.tree(),
        ["owner/", "owner/c/", "owner/c/f", "owner/d/", "owner/d/f"]
    );
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(20)
    );
    assert_eq!(
        trim(&mut store, &mut usage, order(21, true)).files,
        0,
        "it would be in vain"
    );
    let trimmed = trim(&mut store, &mut usage, order(20, true));
    assert_eq!(trimmed.files, 2);
    assert_eq!(folder.tree(), Vec::<String>::new());
}

#[test]
fn a_sweep_removes_what_is_old_and_what_is_over_soft_quota() {
    let folder = Folder::new("sweep");
    let mut store = folder.open();
    let now = sys::now();
    let past = now.unix() - 1;
    let future = now.unix() + 1000;
    let random = "aaaaaaaaaaaaaaaaaaaa";
    for (at, age) in [
        ("o/AbCdEfGhIjKlM/old", 100),
        ("o/AbCdEfGhIjKlN", 100),
        ("o/AbCdEfGhIjKlO/young", 10),
    ] {
        folder.file(at, 10, age);
    }
    folder.file(&format!("o/{random}~p/avatar"), 10, 1000);
    folder.file(&format!("o/{random}~k/kept"), 10, 1000);
    folder.file(&format!("o/{random}~e{past:x}/gone"), 10, 0);
    folder.file(&format!("o/{random}~e{future:x}/there"), 10, 0);
    folder.file("p/r/old", 10, 100);
    fs::create_dir_all(folder.0.join("q/empty")).unwrap();
    folder.file("unrelated", 10, 1000);
    let mut usage = UsageTracker::default();
    count(&mut usage, &store, "o", now);
    let report = sweep(&mut store, &mut usage, plan(50, 0));
    assert_eq!((report.files, report.removed, report.bytes), (8, 4, 40));
    let mut left = vec![
        "o/".to_owned(),
        "o/AbCdEfGhIjKlO/".to_owned(),
        "o/AbCdEfGhIjKlO/young".to_owned(),
        format!("o/{random}~e{future:x}/"),
        format!("o/{random}~e{future:x}/there"),
        format!("o/{random}~k/"),
        format!("o/{random}~k/kept"),
        format!("o/{random}~p/"),
        format!("o/{random}~p/avatar"),
        "unrelated".to_owned(),
    ];
    left.sort();
    assert_eq!(folder.tree(), left);
    assert_eq!(
        usage.of_owner(b"o", now.mono).map(|b| Pool::ALL.sum(&b)),
        Some(40)
    );
    let report = sweep(&mut store, &mut usage, plan(0, 15));
    assert_eq!(report.removed, 0, "age is off");
    assert_eq!(
        usage.of_owner(b"o", now.mono).map(|b| Pool::ALL.sum(&b)),
        Some(30),
        "of what may go, the soft quota is left"
    );
    assert_eq!(count(&mut UsageTracker::default(), &store, "o", now), 30);
}

#[test]
fn a_sweep_corrects_what_was_changed_behind_the_back() {
    let folder = Folder::new("correct");
    let mut store = folder.open();
    let now = sys::now();
    folder.file("o/r/n", 10, 0);
    folder.file("o/s/n", 10, 0);
    let mut usage = UsageTracker::default();
    usage.want_total(store.root());
    assert_eq!(count(&mut usage, &store, "o", now), 20);
    while usage.total().is_none() {
        usage.go_on(store.root(), &mut Slice::begin(), Duration::ZERO, now);
    }
    fs::remove_file(folder.0.join("o/r/n")).unwrap();
    sweep(&mut store, &mut usage, plan(0, 0));
    assert_eq!(
        usage.of_owner(b"o", now.mono).map(|b| Pool::ALL.sum(&b)),
        Some(10)
    );
    assert_eq!(usage.total(), Some(10));
    assert_eq!(usage.stored(), Some((1, 10)));
    assert_eq!(folder.tree(), ["o/", "o/s/", "o/s/n"]);
}

#[test]
fn a_root_that_was_replaced_is_taken() {
    let folder = Folder::new("root");
    let root = Folder(folder.0.join("store"));
    let mut store = root.open();
    let mut now = sys::now();
    assert!(!store.check_root(now.mono));
    put(&mut store, "o/r/n", b"x").unwrap();
    fs::remove_dir_all(&root.0).unwrap();
    now = now.later(Duration::from_secs(2));
    assert!(!store.check_root(now.mono), "there is nothing to take");
    assert!(store.begin(1).is_err() || put(&mut store, "o/r/n", b"x").is_err());
    fs::create_dir(&root.0).unwrap();
    now = now.later(Duration::from_secs(2));
    assert!(store.check_root(now.mono));
    put(&mut store, "o/r/n", b"x").unwrap();
    assert_eq!(root.tree(), ["o/", "o/r/", "o/r/n"]);
}

#[test]
fn leftovers_of_a_dead_process_go_and_the_secret_stays() {
    let folder = Folder::new("leftovers");
    let store = folder.open();
    assert_eq!(store.read_internal("slot_secret").unwrap(), None);
    store.write_internal("slot_secret", b"secret").unwrap();
    assert!(store.write_internal("slot_secret", b"another").is_err());
    drop(store);
    fs::write(folder.0.join(".upslot/upload-1-1"), b"partial").unwrap();
    fs::write(folder.0.join(".upslot/slot_secret.new"), b"secret").unwrap();
    let store = folder.open();
    assert_eq!(
        store.read_internal("slot_secret").unwrap().as_deref(),
        Some(&b"secret"[..])
    );
    let names: Vec<_> = fs::read_dir(folder.0.join(".upslot"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["slot_secret"]);
}

#[test]
fn free_space_counts_what_is_still_to_come() {
    let folder = Folder::new("free");
    let mut store = folder.open();
    let now = sys::now().mono;
    let free = store.free_space(now).unwrap();
    let mut upload = store.begin(1000).unwrap();
    assert_eq!(store.free_space(now), Some(free - 1000));
    store.append(&mut upload, &[0; 400]).unwrap();
    store.complete(&mut upload, None).unwrap();
    assert_eq!(
        store.free_space(now),
        Some(free - 1000),
        "written bytes are gone from the disk instead"
    );
    store.end(upload);
    assert_eq!(store.free_space(now), Some(free - 400));
}

#[test]
fn modification_times_before_1970_are_survived() {
    let folder = Folder::new("ancient");
    let mut store = folder.open();
    folder.file("o/r/n", 1, 0);
    let ancient = SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000);
    File::options()
        .write(true)
        .open(folder.0.join("o/r/n"))
        .unwrap()
        .set_modified(ancient)
        .unwrap();
    let file = store.download(&path("o/r/n")).unwrap().unwrap();
    assert_eq!(file.modified, SystemTime::UNIX_EPOCH);
    let report = sweep(&mut store, &mut UsageTracker::default(), plan(60, 0));
    assert_eq!(report.removed, 1);
}

#[test]
fn tombstones_last() {
    let folder = Folder::new("tombstones");
    let mut store = folder.open();
    for at in 0..3000 {
        store
            .record_tombstone(&path(&format!("uuid{at}/f")))
            .unwrap();
    }
    assert!(store.has_tombstone(&path("uuid0/f")).unwrap());
    assert!(store.has_tombstone(&path("uuid2999/f")).unwrap());
    assert!(!store.has_tombstone(&path("uuid3000/f")).unwrap());
    // What a crash cut short spoils nothing before it.
    for entry in fs::read_dir(folder.0.join(".upslot/tombstones")).unwrap() {
        let mut bytes = fs::read(entry.as_ref().unwrap().path()).unwrap();
        bytes.extend_from_slice(b"cut");
        fs::write(entry.unwrap().path(), bytes).unwrap();
    }
    assert!(store.has_tombstone(&path("uuid2999/f")).unwrap());

    let policy = TombstonePolicy {
        foreign: true,
        slot_life: Duration::from_secs(60),
    };
    store.set_tombstone_policy(policy, sys::monotonic());
    folder.file("uuid/r/old", 10, 100);
    folder.file("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~m/own", 10, 100);
    folder.file("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~m/young", 10, 55);
    sweep(&mut store, &mut UsageTracker::default(), plan(50, 0));
    assert_eq!(folder.tree(), Vec::<String>::new());
    assert!(store.has_tombstone(&path("uuid/r/old")).unwrap());
    let own = path("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~m/own");
    assert!(!store.has_tombstone(&own).unwrap(), "our own slots lapse");
    folder.file("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~mx1/over", 10, 55);
    let over = path("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~mx1/over");
    assert!(remove(&mut store, &over));
    assert!(
        !store.has_tombstone(&over).unwrap(),
        "it tells its end itself"
    );
    let young = path("aaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaa~m/young");
    assert!(
        store.has_tombstone(&young).unwrap(),
        "and are good until then"
    );
    folder.file("uuid/r/new", 10, 0);
    assert!(remove(&mut store, &path("uuid/r/new")));
    assert!(!remove(&mut store, &path("uuid/r/new")));
    assert!(store.has_tombstone(&path("uuid/r/new")).unwrap());
}

#[test]
fn tombstones_of_an_earlier_version_are_taken_over() {
    let folder = Folder::new("old-tombstones");
    let (new, old) = (
        folder.0.join(".upslot/tombstones"),
        folder.0.join(".upslot/gone"),
    );
    let names = |range: std::ops::Range<usize>| range.map(|at| path(&format!("uuid/{at}/f")));
    let record = |range| {
        let store = folder.open();
        names(range).for_each(|path| store.record_tombstone(&path).unwrap());
    };
    record(0..600);
    fs::rename(&new, &old).unwrap();
    let store = folder.open();
    assert!(!old.exists());
    assert!(names(0..600).all(|path| store.has_tombstone(&path).unwrap()));
    // An earlier version has used the store again, and a crash has cut its last entry.
    fs::rename(&new, &old).unwrap();
    fs::write(
        old.join("00"),
        [&fs::read(old.join("00")).unwrap()[..], b"cut"].concat(),
    )
    .unwrap();
    store.record_tombstone(&path("uuid/600/f")).unwrap();
    let store = folder.open();
    assert!(!old.exists());
    assert!(names(0..601).all(|path| store.has_tombstone(&path).unwrap()));
    assert!(!store.has_tombstone(&path("uuid/601/f")).unwrap());
}

#[test]
fn a_tombstone_after_a_cut_entry_is_found() {
    let folder = Folder::new("cut-tombstone");
    let store = folder.open();
    fs::create_dir_all(folder.0.join(".upslot/tombstones")).unwrap();
    for shard in 0..256 {
        fs::write(
            folder.0.join(format!(".upslot/tombstones/{shard:02x}")),
            b"cut",
        )
        .unwrap();
    }
    store.record_tombstone(&path("uuid/r/n")).unwrap();
    assert!(store.has_tombstone(&path("uuid/r/n")).unwrap());
}

#[test]
fn an_alias_leads_to_its_file_and_goes_with_it() {
    let folder = Folder::new("alias");
    let mut store = folder.open();
    assert_eq!(store.alias(b"slot"), None);
    put(&mut store, "owner/r/n", b"x").unwrap();
    store.set_alias(b"slot", &path("owner/r/n")).unwrap();
    store.set_alias(b"../../etc", &path("owner/r/m")).unwrap();
    assert_eq!(store.alias(b"slot"), Some(path("owner/r/n")));
    sweep(&mut store, &mut UsageTracker::default(), plan(0, 0));
    assert_eq!(store.alias(b"slot"), Some(path("owner/r/n")));
    assert!(
        store.alias(b"../../etc").is_some(),
        "a used slot is remembered"
    );
    assert!(remove(&mut store, &path("owner/r/n")));
    sweep(&mut store, &mut UsageTracker::default(), plan(0, 0));
    assert!(
        store.alias(b"slot").is_some(),
        "its token may still be good"
    );
    let later = sys::now().wall + Duration::from_secs(90_000);
    for entry in store.aliases().unwrap().map(Result::unwrap) {
        store.drop_dead_alias(entry.file_name().to_bytes(), later);
    }
    assert_eq!(store.alias(b"slot"), None);
    store.set_alias(b"slot", &path("owner/r/n")).unwrap();
    store.drop_alias(b"slot");
    assert_eq!(
        fs::read_dir(folder.0.join(".upslot/share"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn what_is_there_to_stay_is_never_trimmed() {
    let folder = Folder::new("stay");
    let mut store = folder.open();
    let random = "aaaaaaaaaaaaaaaaaaaa";
    folder.file(&format!("o/{random}~k/kept"), 10, 1000);
    folder.file(&format!("o/{random}~pn/avatar"), 10, 1000);
    folder.file(&format!("o/{random}~m/message"), 10, 10);
    let mut usage = UsageTracker::default();
    let order = Order {
        owner: b"o".to_vec(),
        need: 10,
        pool: Pool::EVICTABLE,
        remove: true,
    };
    assert_eq!(trim(&mut store, &mut usage, order).files, 1);
    assert_eq!(folder.tree().len(), 5);
}

#[test]
fn empty_folders_go_even_if_the_inner_one_was_never_made() {
    let folder = Folder::new("no-inner");
    let mut store = folder.open();
    fs::create_dir_all(folder.0.join("o")).unwrap();
    store.unpublish(&path("o/r/n"));
    assert!(folder.tree().is_empty(), "{:?}", folder.tree());
    folder.file("p/s/n", 1, 0);
    store.unpublish(&path("p/r/n"));
    assert_eq!(folder.tree(), ["p/", "p/s/", "p/s/n"]);
}
