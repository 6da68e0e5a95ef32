//! Counting stored bytes, and making room.

use super::*;

#[test]
fn existing_files_are_counted_on_first_use() {
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
    assert_eq!(count(&mut usage, &store, "absent", now), 0);
    usage.reserve(b"owner", QuotaClass::Message, 50, now.mono);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(470)
    );
    put(&mut store, "owner/r/n", &[0; 50]).unwrap();
    usage.release(b"owner", QuotaClass::Message, 50);
    usage.added(b"owner", QuotaClass::Message, 50);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(470)
    );
    usage.removed(b"owner", QuotaClass::Message, 100);
    assert_eq!(
        usage
            .of_owner(b"owner", now.mono)
            .map(|b| Pool::ALL.sum(&b)),
        Some(370)
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
        usage.want_total(store.root());
        assert_eq!(usage.of_owner(b"owner", now.mono), None);
        usage.ask(b"owner");
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
