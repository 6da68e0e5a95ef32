//! Trims, and deletions by request.

use super::*;
use crate::expiry::{Order, Trimmed};
use crate::layout::FileId;
use crate::listing::{Found, Work};
use crate::policy::pool::Pool;
use crate::s3::bucket::{Internal, REMOVED_ALIAS};
use crate::s3::tasks::trim::TrimTask;
use crate::s3::tasks::work::WorkTask;

fn trim(fake: &mut FakeStore, need: u64, remove: bool) -> (Trimmed, Option<StoreFailure>) {
    let order = Order {
        owner: OWNER.as_bytes().to_vec(),
        need,
        pool: Pool::EVICTABLE,
        remove,
    };
    let mut task = TrimTask::new(order, OWN, now());
    fake.run(&mut task);
    task.finish()
}

/// 2,500 old files of 10 bytes, the first the oldest, a profile picture and a permanent file that are older, and a file
/// that was stored just now.
fn store_of_2500() -> FakeStore {
    let mut fake = FakeStore::new();
    for number in 0..2500 {
        fake.add_file(OWNER, number, "m", 10, 100_000 - number as i64);
    }
    fake.add_file(OWNER, 9000, "p", 10, 200_000);
    fake.add_file(OWNER, 9001, "k", 10, 200_000);
    fake.add_file(OWNER, 9002, "m", 10, 0);
    fake.add_file("other", 1, "m", 10, 200_000);
    fake
}

#[test]
fn the_oldest_files_are_deleted() {
    let mut fake = store_of_2500();
    let (trimmed, error) = trim(&mut fake, 95, true);
    assert_eq!((trimmed.freed, trimmed.files, error), (100, 10, None));
    for number in 0..20 {
        assert_eq!(fake.has(&path(OWNER, number, "m")), number >= 10);
    }
    // More than one search picks.
    let (trimmed, error) = trim(&mut fake, 15_000, true);
    assert_eq!((trimmed.freed, trimmed.files, error), (15_000, 1500, None));
    assert_eq!(fake.objects.len(), 2504 - 1510);
    assert!(fake.has(&path(OWNER, 1510, "m")) && !fake.has(&path(OWNER, 1509, "m")));
    // Old slots are void, so that no tombstone is needed.
    assert_eq!(fake.count("PUT"), 0);
}

#[test]
fn a_trim_may_only_look() {
    let mut fake = store_of_2500();
    for (need, newest) in [
        (0, None),
        (95, Some(NOW - 100_000 + 9)),
        (25_000, None),
        (25_001, None),
    ] {
        let (trimmed, error) = trim(&mut fake, need, false);
        assert_eq!((trimmed.freed, trimmed.files, error), (0, 0, None));
        assert_eq!(trimmed.newest, newest.map(at), "{need}");
    }
    // All together do not suffice: the file that was stored just now does not count.
    let (trimmed, _) = trim(&mut fake, 25_001, true);
    assert_eq!((trimmed.files, trimmed.newest), (0, None));
    assert!(fake.log.is_empty());
    let mut invalid = TrimTask::new(
        Order {
            owner: b".upslot".to_vec(),
            ..trimmed.order
        },
        OWN,
        now(),
    );
    fake.run(&mut invalid);
    assert_eq!(invalid.finish().0.files, 0);
}

#[test]
fn a_trim_survives_failures() {
    // One object cannot be deleted: the others are, and another search picks more.
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "/00000000000000000003~m/", 403)];
    let (trimmed, error) = trim(&mut fake, 95, true);
    assert_eq!(trimmed.files, 9);
    assert_eq!(error.unwrap().kind, FailureKind::Denied);
    assert!(fake.has(&path(OWNER, 3, "m")));
    // An incomplete search deletes nothing.
    let mut fake = store_of_2500();
    fake.failing_list = 2;
    let (trimmed, error) = trim(&mut fake, 95, true);
    assert_eq!((trimmed.files, fake.log.len()), (0, 0));
    assert_eq!(error.unwrap().kind, FailureKind::Unreachable);
    // The store stops working.
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "/0000000000000000000", 503)];
    let (trimmed, error) = trim(&mut fake, 15_000, true);
    assert_eq!(trimmed.files, 0);
    assert!(fake.log.len() <= MAX_REMOVALS);
    assert_eq!(error.unwrap().kind, FailureKind::Unavailable);
    // Nothing can be deleted.
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "", 403)];
    let (trimmed, _) = trim(&mut fake, 95, true);
    assert_eq!((trimmed.files, fake.log.len()), (0, 10));
}

fn delete(
    fake: &mut FakeStore,
    ids: Option<Vec<FileId>>,
    policy: TombstonePolicy,
) -> (u64, u64, Option<StoreFailure>) {
    let work = Work::Delete {
        owner: OWNER.as_bytes().to_vec(),
        files: ids,
    };
    let mut task = WorkTask::new(work, policy);
    fake.run(&mut task);
    let result = task.finish();
    match result.found {
        Found::Deleted { files, bytes } => (files, bytes, result.error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_files_of_an_owner_are_deleted() {
    let mut fake = store_of_2500();
    fake.add(&format!("{OWNER}/.odd"), 1, 0);
    fake.add(".upslot/revoked/a", 10, 0);
    assert_eq!(delete(&mut fake, None, OWN), (2503, 25_030, None));
    let left: Vec<&str> = fake
        .objects
        .keys()
        .map(|key| &key[PREFIX.len()..])
        .collect();
    // The slot of the newest file may be valid.
    let tombstone = fake
        .bucket
        .tombstone_key(&store_path(&path(OWNER, 9002, "m")));
    let tombstone = &tombstone.unwrap().as_str()[PREFIX.len()..].to_owned();
    let odd = format!("{OWNER}/.odd");
    let other = path("other", 1, "m");
    assert_eq!(
        left,
        [".upslot/revoked/a", tombstone, odd.as_str(), other.as_str()]
    );
    assert_eq!(fake.count("PUT"), 1);
    // The last pass finds nothing.
    assert_eq!(fake.lists, 7);
    assert_eq!(delete(&mut fake, None, OWN), (0, 0, None));
}

#[test]
fn chosen_files_are_deleted() {
    let mut fake = store_of_2500();
    let id = |number| FileId::of(&store_path(&path(OWNER, number, "m")));
    let ids = vec![id(5), id(2000), id(77_777)];
    assert_eq!(delete(&mut fake, Some(ids), OWN), (2, 20, None));
    assert!(!fake.has(&path(OWNER, 5, "m")) && !fake.has(&path(OWNER, 2000, "m")));
    assert_eq!((fake.objects.len(), fake.log.len()), (2502, 2));
    let lists = fake.lists;
    assert_eq!(delete(&mut fake, Some(vec![id(6)]), OWN), (1, 10, None));
    // Nothing else is looked for.
    assert_eq!(fake.lists, lists + 6);
}

#[test]
fn tombstones_come_before_and_aliases_after() {
    let mut fake = FakeStore::new();
    let new = path(OWNER, 1, "m");
    let old = path(OWNER, 2, "m");
    let own = path(OWNER, 3, "m");
    let signed = format!("{OWNER}/b1946ac9-2492-4d23-9c1a-3d7ed0b4c1aa/a.png");
    for (path, age) in [
        (&new, 60),
        (&old, 100_000),
        (&own, 60),
        (&signed, 1_000_000),
    ] {
        fake.add(path, 10, age);
    }
    let alias = |number: usize| format!("{}{number:020}", Internal::Aliases.prefix());
    fake.add(&alias(1), 70, 60);
    fake.add(&alias(2), 70, 100_000);
    assert_eq!(delete(&mut fake, None, FOREIGN), (4, 40, None));
    let tombstone = |path: &str| {
        let key = fake.bucket.tombstone_key(&store_path(path)).unwrap();
        key.as_str()[PREFIX.len()..].to_owned()
    };
    let mut steps: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
    for (path, expected) in [
        (
            &new,
            vec![
                ("PUT", tombstone(&new)),
                ("DELETE", new.clone()),
                ("HEAD", alias(1)),
                ("PUT", alias(1)),
            ],
        ),
        (&old, vec![("DELETE", old.clone()), ("DELETE", alias(2))]),
        (
            &own,
            vec![
                ("PUT", tombstone(&own)),
                ("DELETE", own.clone()),
                ("HEAD", alias(3)),
            ],
        ),
        (
            &signed,
            vec![("PUT", tombstone(&signed)), ("DELETE", signed.clone())],
        ),
    ] {
        steps.insert(path.as_str(), expected);
    }
    for expected in steps.values() {
        let log: Vec<(&str, String)> = fake
            .log
            .iter()
            .map(|(method, key)| (method.as_str(), key.clone()))
            .filter(|(_, key)| expected.iter().any(|(_, other)| other == key))
            .collect();
        assert_eq!(log, *expected);
    }
    assert_eq!(fake.log.len(), 11);
    let blank = &fake.objects[&format!("{PREFIX}{}", alias(1))];
    assert_eq!(blank.0, REMOVED_ALIAS.len() as u64);
    assert!(!fake.has(&alias(2)) && !fake.has(&alias(3)));
}

#[test]
fn a_full_store_can_be_emptied() {
    let mut fake = store_of_2500();
    fake.failures = vec![("PUT", ".upslot/tombstones/", 507)];
    let (files, _, error) = delete(&mut fake, None, OWN);
    assert_eq!(files, 2503);
    assert_eq!(error.unwrap().kind, FailureKind::Full);
    // A dead one cannot.
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "", 500)];
    let (files, _, error) = delete(&mut fake, None, OWN);
    assert_eq!((files, fake.lists), (0, 1));
    assert!(fake.log.len() <= MAX_REMOVALS);
    assert_eq!(error.unwrap().kind, FailureKind::Unavailable);
}
