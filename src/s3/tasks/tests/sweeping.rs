//! The sweep.

use super::*;
use crate::expiry::Lifetime;
use crate::s3::bucket::REMOVED_ALIAS;
use crate::s3::tasks::sweep::{SweepPlan, SweepResult, SweepTask};

const DAY: i64 = 86_400;

fn plan() -> SweepPlan {
    SweepPlan {
        lifetime: Lifetime {
            message: Duration::from_secs(10 * DAY as u64),
            ..Lifetime::default()
        },
        soft_quota: None,
        policy: OWN,
    }
}

fn sweep(fake: &mut FakeStore, plan: SweepPlan) -> SweepResult {
    let mut task = SweepTask::new(plan, now());
    fake.run(&mut task);
    task.finish()
}

/// 2,500 files of 25 owners; every fifth file has expired.
fn store_of_2500() -> FakeStore {
    let mut fake = FakeStore::new();
    for number in 0..2500 {
        let age = if number % 5 == 0 {
            11
        } else {
            1 + number as i64 % 4
        };
        fake.add_file(
            &format!("owner{:02}", number / 100),
            number,
            "m",
            10,
            age * DAY,
        );
    }
    fake
}

#[test]
fn expired_files_are_deleted() {
    let mut fake = store_of_2500();
    for (number, suffix, age) in [
        (1, "p", 11 * DAY),
        (2, "mn", 11 * DAY),
        // In an hour, and an hour ago.
        (3, &format!("mx{:x}", NOW + 3600)[..], DAY),
        (4, &format!("mx{:x}", NOW - 3600)[..], DAY),
        (5, &format!("e{:x}", NOW - 3600)[..], DAY),
        (6, "mt3c", 61),
        (7, "mt3c", 59),
        (8, "m", -20 * DAY),
        // Stored after the sweep has begun.
        (9, "mt0", 0),
    ] {
        fake.add_file("purposes", number, suffix, 1, age);
    }
    for foreign in ["backup.tar", "purposes/.hidden", "other/"] {
        fake.add(foreign, 1, 100 * DAY);
    }
    let result = sweep(&mut fake, plan());
    let expected = SweepResult {
        files: 2006,
        bytes: 20_006,
        removed: 503,
        removed_bytes: 5003,
        failed: 0,
        foreign: 3,
        future: 1,
        whole: true,
        found_files: Vec::new(),
        error: None,
    };
    assert_eq!(result, expected);
    // With the tombstone of the only one whose slot may be valid.
    assert_eq!(fake.objects.len(), 2010);
    assert!(fake.has("backup.tar") && !fake.has(&path("purposes", 6, "mt3c")));
    // One page after the other, and nothing is left to do for the next one.
    assert_eq!(fake.lists, 6);
    let again = sweep(&mut fake, plan());
    assert_eq!((again.files, again.removed), (2006, 0));
}

#[test]
fn owners_are_trimmed_to_the_soft_quota() {
    let mut fake = store_of_2500();
    for number in 0..1500 {
        fake.add_file("owner07x", number, "m", 10, 2000 - number as i64);
        fake.add_file("zzz", number, "k", 1000, DAY);
    }
    let plan = SweepPlan {
        soft_quota: Some(800),
        ..plan()
    };
    let result = sweep(&mut fake, plan);
    // The others have just as much once the expired files are deleted; permanent files do not count.
    assert_eq!((result.removed, result.removed_bytes), (500 + 1420, 19_200));
    assert_eq!(
        (result.files, result.bytes),
        (2000 + 80 + 1500, 20_800 + 1_500_000)
    );
    assert!(result.whole && result.error.is_none());
    for number in 0..1500 {
        assert_eq!(fake.has(&path("owner07x", number, "m")), number >= 1420);
    }
    let plan = SweepPlan {
        soft_quota: Some(795),
        ..plan
    };
    assert_eq!(sweep(&mut fake, plan).removed, 26);
}

#[test]
fn internal_objects_are_removed_once_nothing_can_need_them() {
    let objects = [
        // Kind, size, age, and whether it stays without and with slots of other servers.
        ("tombstones/new", 0, 300, true, true),
        ("tombstones/old", 0, 7200, false, true),
        ("tombstones/older", 0, 1000 * DAY, false, true),
        ("revoked/new", 10, DAY, true, true),
        ("revoked/old", 10, 2 * DAY, false, false),
        ("aliases/used", 80, 1000 * DAY, true, true),
        ("aliases/gone", REMOVED_ALIAS.len() as u64, DAY, true, true),
        (
            "aliases/spent",
            REMOVED_ALIAS.len() as u64,
            2 * DAY,
            false,
            false,
        ),
        ("other/x", 0, 1000 * DAY, true, true),
        ("x", 0, 1000 * DAY, true, true),
    ];
    for policy in [OWN, FOREIGN] {
        let mut fake = FakeStore::new();
        for (key, size, age, _, _) in objects {
            fake.add(&format!(".upslot/{key}"), size, age);
        }
        let result = sweep(&mut fake, SweepPlan { policy, ..plan() });
        let whole = SweepResult {
            whole: true,
            ..SweepResult::default()
        };
        assert_eq!(result, whole);
        for (key, _, _, own, foreign) in objects {
            let stays = if policy.foreign { foreign } else { own };
            assert_eq!(fake.has(&format!(".upslot/{key}")), stays, "{key}");
        }
    }
}

#[test]
fn aliases_of_files_that_a_life_cycle_rule_deleted_are_removed() {
    let name = |number: u8| data_encoding::BASE64URL_NOPAD.encode(&[number; 15]);
    for policy in [OWN, FOREIGN] {
        let mut fake = FakeStore::new();
        // Owners before and after the aliases; none has expired.
        for (number, owner) in [(1, "-owner"), (2, "owner")] {
            fake.add(&format!("{owner}/{}~a~m/b.png", name(number)), 10, 3 * DAY);
        }
        for number in 1..=10 {
            let age = if number == 10 { DAY } else { 3 * DAY };
            fake.add(&format!(".upslot/aliases/{}", name(number)), 80, age);
        }
        fake.failures = vec![("DELETE", "CQkJ", 403)];
        let result = sweep(&mut fake, SweepPlan { policy, ..plan() });
        assert_eq!((result.whole, result.removed), (true, 0));
        for number in 1..=10 {
            // The tenth is young, and the ninth cannot be deleted.
            let stays = !policy.foreign || [1, 2, 9, 10].contains(&number);
            let key = format!(".upslot/aliases/{}", name(number));
            assert_eq!(fake.has(&key), stays, "{number}");
        }
        assert_eq!(fake.count("HEAD") + fake.count("GET"), 0);
        // A list that breaks off proves nothing.
        for number in 0..500 {
            fake.add_file("a", number, "m", 1, 0);
        }
        fake.add(&format!(".upslot/aliases/{}", name(3)), 80, 3 * DAY);
        fake.failing_list = fake.lists + 2;
        assert!(!sweep(&mut fake, SweepPlan { policy, ..plan() }).whole);
        assert!(fake.has(&format!(".upslot/aliases/{}", name(3))));
    }
}

#[test]
fn a_sweep_survives_failures() {
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "0~m/", 403)];
    let result = sweep(&mut fake, plan());
    // Every other one of 200 in the first two pages, and that is enough.
    assert_eq!((result.removed, result.failed, fake.lists), (100, 100, 2));
    assert!(!result.whole);
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "00~m/", 403)];
    let result = sweep(&mut fake, plan());
    assert_eq!(
        (result.removed, result.failed, result.files),
        (475, 25, 2025)
    );
    assert!(result.whole && result.error.unwrap().kind == FailureKind::Denied);
    // The list breaks off: what was found before is deleted.
    let mut fake = store_of_2500();
    fake.failing_list = 2;
    let result = sweep(&mut fake, plan());
    assert_eq!(
        (result.removed, result.files, result.whole),
        (100, 400, false)
    );
    assert_eq!(result.error.unwrap().kind, FailureKind::Unreachable);
    // While an owner is trimmed.
    let mut fake = store_of_2500();
    fake.failing_list = 2;
    let soft = SweepPlan {
        soft_quota: Some(700),
        ..plan()
    };
    let result = sweep(&mut fake, soft);
    assert!(!result.whole && fake.lists == 2, "{result:?}");
    // The store stops working.
    let mut fake = store_of_2500();
    fake.failures = vec![("DELETE", "", 503)];
    let result = sweep(&mut fake, plan());
    assert_eq!((result.removed, result.whole, fake.lists), (0, false, 1));
    assert!(fake.log.len() <= MAX_REMOVALS);
}

/// A clock that is ahead would make all files expire.
#[test]
fn nothing_expires_by_a_wrong_clock() {
    for (clock, swept) in [(NOW - 899, true), (NOW - 900, false), (NOW + 5000, false)] {
        let mut fake = store_of_2500();
        fake.clock = clock;
        let result = sweep(&mut fake, plan());
        assert_eq!((result.removed > 0, result.whole), (swept, swept));
        let skewed = result.error.map(|error| error.kind);
        assert_eq!(skewed, (!swept).then_some(FailureKind::Skewed));
    }
}

/// The times of objects are those of its clock.
#[test]
fn nothing_expires_early_by_a_clock_that_is_behind() {
    let mut fake = FakeStore::new();
    fake.clock = NOW - 600;
    fake.add_file("owner", 1, "mt3c", 1, 600 + 59);
    fake.add_file("owner", 2, "mt3c", 1, 600 + 61);
    let result = sweep(&mut fake, plan());
    assert_eq!((result.files, result.removed, result.error), (1, 1, None));
    assert!(fake.has(&path("owner", 1, "mt3c")));
}
