//! The removal pipeline: tombstones are synced before their files are unlinked.

use super::*;
use crate::store::removal::Stage;

const SLOT_LIFE: Duration = Duration::from_secs(60);

fn open(folder: &Folder) -> Store {
    let mut store = folder.open();
    let policy = TombstonePolicy {
        foreign: true,
        slot_life: SLOT_LIFE,
    };
    store.set_tombstone_policy(policy, sys::monotonic());
    store
}

fn order(owner: &str, need: u64) -> Order {
    Order {
        owner: owner.as_bytes().to_vec(),
        need,
        pool: Pool::ALL,
        remove: true,
    }
}

/// Proceeds until there is nothing to do but to wait for a sync; returns the owners whose orders are done.
fn proceed(trims: &mut Trims, store: &mut Store) -> Vec<String> {
    let mut done = Vec::new();
    let mut usage = UsageTracker::default();
    for _ in 0..10_000 {
        match trims.go_on(
            true,
            store,
            &mut usage,
            &mut Slice::begin(sys::monotonic),
            sys::now(),
        ) {
            Some(trimmed) => done.push(String::from_utf8(trimmed.order.owner).unwrap()),
            None if !trims.can_proceed() => return done,
            None => {}
        }
    }
    panic!("the orders never wait");
}

fn files(folder: &Folder) -> usize {
    folder.tree().iter().filter(|at| !at.ends_with('/')).count()
}

/// Sweeps files that are older than 50 seconds; `sync` is called while tombstones are being synced.
fn sweep_with_syncs(store: &mut Store, usage: &mut UsageTracker, mut sync: impl FnMut()) -> Report {
    let plan = Plan {
        fsync: true,
        ..plan(50, 0)
    };
    let start = sys::now();
    let now = Now {
        wall: start.wall,
        ..start.later(plan.interval)
    };
    let mut trims = Trims::default();
    let mut sweep = Sweep::new(&plan, start);
    let report = (0..10_000).find_map(|_| {
        let mut slice = Slice::begin(sys::monotonic);
        let report = sweep.go_on(&plan, store, usage, &mut trims, &mut slice, now);
        if let Some(folders) = sweep.tombstones(store) {
            assert_eq!(sweep.due(), None, "the loop sleeps until then");
            assert!(!folders.is_empty());
            sync();
            sweep.tombstones_synced(Ok(()));
        }
        report
    });
    report.expect("the sweep ends")
}

#[test]
fn an_upload_url_may_be_valid_after_its_file() {
    let now = sys::now().wall;
    let times = FileTimes::default();
    let policy = |foreign| TombstonePolicy {
        foreign,
        slot_life: SLOT_LIFE,
    };
    let random = "aaaaaaaaaaaaaaaaaaaa";
    let unix = crate::now::unix(now);
    for (at, age, foreign, needed) in [
        ("uuid/f".to_owned(), 0, true, true),
        ("uuid/f".to_owned(), 1_000_000, true, true),
        ("uuid/f".to_owned(), 0, false, false),
        (format!("o/{random}~m/f"), 0, false, true),
        (format!("o/{random}~m/f"), 60, false, true),
        (format!("o/{random}~m/f"), 61, true, false),
        (format!("o/{random}~e{:x}/f", unix + 5), 10, false, true),
        (format!("o/{random}~e{:x}/f", unix - 5), 10, false, false),
    ] {
        let modified = now - Duration::from_secs(age);
        assert_eq!(
            policy(foreign).needs_tombstone(&path(&at), modified, &times, now),
            needed,
            "{at} {age} {foreign}"
        );
    }
}

#[test]
fn trimmed_files_stay_until_their_tombstones_are_synced() {
    for sync in [Ok(()), Err(io::Error::other("the disk fails"))] {
        let folder = Folder::new("trim-sync");
        let mut store = open(&folder);
        let mut trims = Trims::default();
        for owner in ["o", "p", "q"] {
            for (name, age) in [("a", 30), ("b", 20)] {
                folder.file(&format!("{owner}/{name}/f"), 10, age);
            }
            trims.push(order(owner, 10));
        }
        // A second order of an owner waits for the first: both would pick the same files.
        trims.push(order("o", 5));
        assert_eq!(proceed(&mut trims, &mut store), Vec::<String>::new());
        assert_eq!(files(&folder), 6);
        assert!(trims.has_work(), "the tombstones have to be synced");
        let folders = trims.tombstones(&store).unwrap();
        assert!(folders.len() > 2, "one sync for the shards of all owners");
        assert!(!trims.has_work(), "the loop sleeps until then");
        assert!(trims.tombstones(&store).is_none(), "one sync at a time");
        assert_eq!(proceed(&mut trims, &mut store), Vec::<String>::new());
        assert_eq!(files(&folder), 6);
        // Files are removed even if the disk cannot sync.
        trims.synced(sync);
        assert!(trims.has_work());
        assert_eq!(proceed(&mut trims, &mut store), ["o", "p", "q"]);
        for owner in ["o", "p", "q"] {
            assert!(store.has_tombstone(&path(&format!("{owner}/a/f"))).unwrap());
        }
        assert_eq!(files(&folder), 3);
        // The second order is next.
        assert!(trims.tombstones(&store).is_some());
        trims.synced(Ok(()));
        assert_eq!(proceed(&mut trims, &mut store), ["o"]);
        assert!(trims.is_empty() && !trims.has_work());
        assert_eq!(files(&folder), 2);
    }
}

#[test]
fn files_without_a_valid_upload_url_wait_for_no_sync() {
    let folder = Folder::new("trim-old");
    let mut store = open(&folder);
    for at in 0..300 {
        let random = format!("{at:020}");
        folder.file(&format!("o/{random}~m/f"), 10, 1000);
    }
    let mut trims = Trims::default();
    trims.push(order("o", 2500));
    assert_eq!(proceed(&mut trims, &mut store), ["o"]);
    assert_eq!(files(&folder), 50);
}

#[test]
fn only_a_few_trim_orders_are_in_progress() {
    let folder = Folder::new("trim-many");
    let mut store = open(&folder);
    let mut trims = Trims::default();
    for at in 0..20 {
        folder.file(&format!("o{at}/a/f"), 10, 10);
        trims.push(order(&format!("o{at}"), 10));
    }
    let mut syncs = 0;
    let mut done = proceed(&mut trims, &mut store);
    while let Some(folders) = trims.tombstones(&store) {
        let recorded =
            (0..20).filter(|at| store.has_tombstone(&path(&format!("o{at}/a/f"))).unwrap());
        assert!(recorded.count() <= done.len() + 8);
        assert!(!folders.is_empty());
        trims.synced(Ok(()));
        syncs += 1;
        done.extend(proceed(&mut trims, &mut store));
    }
    assert_eq!((done.len(), syncs), (20, 3));
}

#[test]
fn expired_files_stay_until_their_tombstones_are_synced() {
    let folder = Folder::new("sweep-sync");
    let mut store = open(&folder);
    for at in 0..100 {
        folder.file(&format!("uuid/{at}/f"), 10, 100);
    }
    folder.file("uuid/young/f", 10, 0);
    let mut usage = UsageTracker::default();
    count(&mut usage, &store, "uuid", sys::now());
    let mut syncs = 0;
    let report = sweep_with_syncs(&mut store, &mut usage, || {
        assert_eq!(files(&folder), 101 - 64 * syncs);
        syncs += 1;
    });
    assert_eq!((report.removed, report.bytes, syncs), (100, 1000, 2));
    assert_eq!(files(&folder), 1);
    assert_eq!(count(&mut usage, &store, "uuid", sys::now()), 10);
}

#[test]
fn an_expired_file_that_was_touched_stays() {
    let folder = Folder::new("sweep-touched");
    let mut store = open(&folder);
    folder.file("uuid/a/f", 10, 100);
    folder.file("uuid/b/f", 10, 100);
    let report = sweep_with_syncs(&mut store, &mut UsageTracker::default(), || {
        folder.file("uuid/b/f", 10, 10);
    });
    assert_eq!(report.removed, 1);
    assert_eq!(folder.tree(), ["uuid/", "uuid/b/", "uuid/b/f"]);
}

#[test]
fn a_batch_goes_through_its_stages_and_can_be_filled_again() {
    let folder = Folder::new("batch");
    let mut store = open(&folder);
    let mut batch = Batch::default();
    for at in ["uuid/a/f", "uuid/b/f"] {
        folder.file(at, 10, 0);
        assert_eq!(batch.stage(), Stage::Recording);
        let victim = store.find(&path(at)).unwrap().unwrap();
        batch.add(victim, &mut store, sys::now()).unwrap();
        assert!(store.has_tombstone(&path(at)).unwrap());
        assert_eq!(batch.next_victim(), None);
        batch.close(true);
        assert_eq!(
            (batch.stage(), batch.next_victim()),
            (Stage::Recorded, None)
        );
        assert_eq!(batch.begin_sync(), [path(at)]);
        assert_eq!((batch.stage(), batch.next_victim()), (Stage::Syncing, None));
        batch.synced();
        let next = batch.next_victim().map(|victim| victim.path);
        assert_eq!(next, Some(path(at)));
        assert_eq!(batch.next_victim(), None);
    }
}
