//! Counting stored bytes, and trimming.

use super::*;

#[test]
fn existing_files_are_counted_on_first_use() {
    let folder = Folder::new("count");
    let mut store = folder.open();
    let now = sys::now();
    folder.file("owner/AbCdEfGhIjKlM/photo.jpg", 100, 0);
    folder.file("owner/AbCdEfGhIjKlN", 20, 0);
    folder.file("owner/.hidden", 1000, 0);
    for at in 0..1500 {
        folder.file(&format!("owner/folder{at}/f"), 1, 0);
    }
    folder.file("other/r/n", 7, 0);
    let mut usage = UsageTracker::default();
    assert_eq!(count(&mut usage, &store, "owner", now), 1620);
    assert_eq!(count(&mut usage, &store, "absent", now), 0);
    usage.reserve(b"owner", QuotaClass::Message, 50, now.mono);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(1670)
    );
    put(&mut store, "owner/r/n", &[0; 50]).unwrap();
    usage.release(b"owner", QuotaClass::Message, 50);
    usage.added(b"owner", QuotaClass::Message, 50);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(1670)
    );
    usage.removed(b"owner", QuotaClass::Message, 100);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(1570)
    );
}

#[test]
fn a_file_added_during_a_count_is_counted_once() {
    let folder = Folder::new("unsteady");
    let mut store = folder.open();
    let now = sys::now();
    for at in 0..200 {
        folder.file(&format!("owner/folder{at}/f"), 1, 0);
    }
    for after in [1, 2, 3, 5, 8] {
        let mut usage = UsageTracker::default();
        usage.want_total(store.root(), WalkMode::Tidy);
        assert_eq!(usage.of_owner(b"owner", now.mono), None);
        usage.ask(b"owner", WalkMode::Names);
        for _ in 0..after {
            usage.go_on(
                store.root(),
                &mut Slice::begin(sys::monotonic),
                Duration::ZERO,
                now,
            );
        }
        put(&mut store, &format!("owner/new{after}/f"), b"x").unwrap();
        usage.added(b"owner", QuotaClass::Message, 1);
        put(&mut store, &format!("late{after}/new/f"), b"xy").unwrap();
        usage.added(format!("late{after}").as_bytes(), QuotaClass::Message, 2);
        let expected = 200 + [1, 2, 3, 5, 8].iter().filter(|a| **a <= after).count() as u64;
        assert_eq!(
            count(&mut usage, &store, "owner", now),
            expected,
            "after {after} slices"
        );
        while usage.total().is_none() {
            usage.go_on(
                store.root(),
                &mut Slice::begin(sys::monotonic),
                Duration::ZERO,
                now,
            );
        }
        let late = 2 * (expected - 200);
        assert_eq!(usage.total(), Some(expected + late), "after {after} slices");
    }
}

#[test]
fn the_oldest_files_are_trimmed_first() {
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
fn profile_and_permanent_files_are_never_trimmed() {
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

const RANDOM: &str = "aaaaaaaaaaaaaaaaaaa";

/// Counts until nothing is left to count.
fn count_all(usage: &mut UsageTracker, store: &Store) {
    while usage.is_counting() {
        usage.go_on(
            store.root(),
            &mut Slice::begin(sys::monotonic),
            Duration::ZERO,
            sys::now(),
        );
    }
}

/// An owner's files by what the names tell, and by the files themselves.
fn by_names_and_by_files(store: &Store, owner: &str) -> [u64; 2] {
    [WalkMode::Names, WalkMode::Files].map(|mode| {
        let mut usage = UsageTracker::default();
        usage.ask(owner.as_bytes(), mode);
        count_all(&mut usage, store);
        assert_eq!(
            usage.is_measured(owner.as_bytes(), sys::monotonic()),
            mode == WalkMode::Files
        );
        let bytes = usage.of_owner(owner.as_bytes(), sys::monotonic());
        Pool::ALL.sum(&bytes.unwrap())
    })
}

fn total(store: &Store, mode: WalkMode) -> Option<(u64, u64)> {
    let mut usage = UsageTracker::default();
    usage.want_total(store.root(), mode);
    count_all(&mut usage, store);
    usage.stored()
}

#[test]
fn names_tell_the_same_sum_as_files() {
    let folder = Folder::new("names");
    let mut store = folder.open();
    // What upslot stores now, what an earlier version stored, and what other programs stored.
    for (number, size) in [0, 1, 15, 16, 300].into_iter().enumerate() {
        let at = format!("o/{RANDOM}{number}~{size:x}~m/f");
        put(&mut store, &at, &vec![b'x'; size]).unwrap();
    }
    folder.file(&format!("o/{RANDOM}5~m/f"), 40, 0);
    folder.file(&format!("o/{RANDOM}6~64~kn/f"), 100, 0);
    folder.file("o/AbCdEfGhIjKlM/f", 7, 0);
    folder.file("o/AbCdEfGhIjKlN", 5, 0);
    folder.file(&format!("p/{RANDOM}7~2~pt3c/f"), 2, 0);
    assert_eq!(by_names_and_by_files(&store, "o"), [332 + 152, 332 + 152]);
    for mode in [WalkMode::Names, WalkMode::Files, WalkMode::Tidy] {
        assert_eq!(total(&store, mode), Some((10, 332 + 152 + 2)), "{mode:?}");
    }
    // The list and the sweep say so, too.
    let mut listed = 0;
    crate::list::walk(store.root(), b"o", WalkMode::Files, |file| {
        listed += file.size;
        Ok(())
    })
    .unwrap();
    assert_eq!(listed, 332 + 152);
    let mut usage = UsageTracker::default();
    count(&mut usage, &store, "o", sys::now());
    let report = sweep(&mut store, &mut usage, plan(1000, 0));
    assert_eq!((report.files, report.removed), (10, 0));
    assert_eq!(count(&mut usage, &store, "o", sys::now()), 332 + 152);
    // By class, so that a quota of its own holds.
    let bytes = usage.of_owner(b"o", sys::monotonic()).unwrap();
    assert_eq!(bytes[QuotaClass::Permanent], 100);
}

#[test]
fn a_folder_without_its_file_counts_until_the_next_sweep_at_most() {
    let folder = Folder::new("names-crash");
    let mut store = folder.open();
    folder.file(&format!("o/{RANDOM}1~a~m/f"), 10, 0);
    fs::create_dir_all(folder.0.join(format!("o/{RANDOM}2~3e8~m"))).unwrap();
    assert_eq!(by_names_and_by_files(&store, "o"), [1010, 10]);
    assert_eq!(total(&store, WalkMode::Names), Some((2, 1010)));
    let mut usage = UsageTracker::default();
    assert_eq!(count(&mut usage, &store, "o", sys::now()), 1010);
    sweep(&mut store, &mut usage, plan(1000, 0));
    assert_eq!(count(&mut usage, &store, "o", sys::now()), 10);
    assert!(usage.is_measured(b"o", sys::monotonic()));
    assert_eq!(by_names_and_by_files(&store, "o"), [10, 10]);
    // The first count of the total after a start removes it where no sweep runs.
    fs::create_dir_all(folder.0.join(format!("o/{RANDOM}3~3e8~m"))).unwrap();
    assert_eq!(total(&store, WalkMode::Tidy), Some((1, 10)));
    assert_eq!(total(&store, WalkMode::Names), Some((1, 10)));
}

#[test]
fn a_sweep_corrects_usage_where_a_name_tells_a_wrong_size() {
    let folder = Folder::new("names-wrong");
    let mut store = folder.open();
    folder.file(&format!("o/{RANDOM}1~64~m/f"), 10, 0);
    folder.file(&format!("o/{RANDOM}2~1~m/f"), 500, 0);
    folder.file(&format!("o/{RANDOM}3~1~m/f"), 20, 2000);
    assert_eq!(by_names_and_by_files(&store, "o"), [102, 530]);
    let mut usage = UsageTracker::default();
    assert_eq!(count(&mut usage, &store, "o", sys::now()), 102);
    let report = sweep(&mut store, &mut usage, plan(1000, 0));
    assert_eq!((report.removed, report.bytes), (1, 20));
    assert_eq!(count(&mut usage, &store, "o", sys::now()), 510);
}
