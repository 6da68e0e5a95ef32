//! Tombstones and aliases.

use super::*;
use crate::layout::slot_digest;

#[test]
fn tombstones_persist_and_are_recorded_on_removal() {
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
    // A truncated entry after a crash does not affect the entries before it.
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
    assert!(!store.has_tombstone(&own).unwrap(), "own slots expire");
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
    // An earlier version has used the store again, and a crash has truncated its last entry.
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
fn a_tombstone_after_a_truncated_entry_is_found() {
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
fn an_alias_is_dropped_some_time_after_its_file() {
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
    let mut aliases = store.aliases();
    while store.drop_dead_alias(&mut aliases, later) {}
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
fn an_old_link_outlasts_its_file_but_tells_nothing() {
    let folder = Folder::new("old-link");
    let mut store = folder.open();
    let link = slot_digest(b"a/b");
    assert_eq!(store.old_link_of(b"x/a/b"), None);
    put(&mut store, "owner/r/n", b"x").unwrap();
    store.set_old_links([(&link, &path("owner/r/n"))]).unwrap();
    store.set_old_links([(&link, &path("owner/r/m"))]).unwrap();
    for requested in ["a/b", "x/a/b", "x/y/a/b"] {
        let found = store.old_link_of(requested.as_bytes());
        assert_eq!(found, Some(path("owner/r/n")), "{requested}");
    }
    assert_eq!(store.old_link_of(b"a/b/c"), None);
    assert!(remove(&mut store, &path("owner/r/n")));
    sweep(&mut store, &mut UsageTracker::default(), plan(0, 0));
    assert_eq!(store.old_link(&link), Some(path("removed/removed")));
}
