//! The sweep.

use super::*;
use crate::clock::Clock;
use crate::store::sweep::owner::SPOT_CHECKS;

#[test]
fn a_sweep_removes_expired_files_and_trims_to_the_soft_quota() {
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
fn a_sweep_corrects_usage_after_external_changes() {
    let folder = Folder::new("correct");
    let mut store = folder.open();
    let now = sys::now();
    folder.file("o/r/n", 10, 0);
    folder.file("o/s/n", 10, 0);
    let mut usage = UsageTracker::default();
    usage.want_total(store.root(), WalkMode::Tidy);
    assert_eq!(count(&mut usage, &store, "o", now), 20);
    while usage.total().is_none() {
        usage.go_on(
            store.root(),
            &mut Slice::begin(sys::monotonic),
            Duration::ZERO,
            now,
        );
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
fn modification_times_before_1970_are_handled() {
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

/// A sweep whose next pass makes no spot checks in a small store.
fn without_spot_checks(plan: &Plan) -> Sweep {
    let mut sweep = Sweep::new(plan, sys::now());
    sweep.spot_checks = SPOT_CHECKS;
    sweep
}

#[test]
fn young_folders_with_a_size_in_their_name_are_only_spot_checked() {
    let folder = Folder::new("folder-times");
    let mut store = folder.open();
    let random = "aaaaaaaaaaaaaaaaaaaa";
    // Each file has expired, but only those that a sweep looks at are removed.
    folder.file_in_folder(&format!("o/{random}~a~m/young-folder"), 10, 100, 40);
    folder.file_in_folder(&format!("o/{random}~b~m/old-folder"), 11, 100, 60);
    folder.file_in_folder(&format!("o/{random}~m/no-size"), 10, 100, 0);
    folder.file_in_folder("o/AbCdEfGhIjKlM/no-tag", 10, 100, 0);
    folder.file_in_folder(&format!("o/{random}~a~mt1e/own-age"), 10, 100, 35);
    folder.file_in_folder(&format!("o/{random}~a~e1/ended"), 10, 0, 0);
    // Their own times decide.
    folder.file_in_folder(&format!("o/{random}~c~m/young-file"), 12, 10, 1000);
    folder.file_in_folder(&format!("o/{random}~d~k/permanent"), 13, 1000, 1000);
    fs::create_dir(folder.0.join(format!("o/{random}~e~m"))).unwrap();
    let plan = plan(50, 0);
    let mut usage = UsageTracker::default();
    let now = sys::now();
    count(&mut usage, &store, "o", now);
    let mut sweep = without_spot_checks(&plan);
    let report = pass(&mut sweep, &mut store, &mut usage, plan);
    assert_eq!((report.files, report.removed), (9, 5));
    let file = |name: &str| format!("o/{random}~{name}");
    let left = [
        "o/",
        &file("a~m/"),
        &file("a~m/young-folder"),
        &file("c~m/"),
        &file("c~m/young-file"),
        &file("d~k/"),
        &file("d~k/permanent"),
        &file("e~m/"),
    ];
    assert_eq!(folder.tree(), left);
    let bytes = usage.of_owner(b"o", now.mono).unwrap();
    assert_eq!(
        Pool::ALL.sum(&bytes),
        10 + 12 + 13 + 14,
        "as the names tell"
    );
    assert!(!usage.is_measured(b"o", now.mono));
    // In the next pass it is their turn.
    let report = pass(&mut sweep, &mut store, &mut usage, plan);
    assert_eq!((report.files, report.removed), (3, 1));
    assert!(!folder.0.join(file("a~m")).exists() && !folder.0.join(file("e~m")).exists());
    let bytes = usage.of_owner(b"o", now.mono).unwrap();
    assert_eq!(Pool::ALL.sum(&bytes), 12 + 13);
    assert!(usage.is_measured(b"o", now.mono));
}

#[test]
fn times_of_folders_count_only_while_the_clock_is_right() {
    let folder = Folder::new("folder-clock");
    let mut store = folder.open();
    let plan = plan(50, 0);
    let seconds = i64::try_from(sys::now().unix()).unwrap();
    // A correction that is not yet in the files, a clock in doubt, and a folder with a time in the future.
    let mut jumped = Clock::start(&[], None, seconds - 3600, 100_000).0;
    jumped.observe(seconds, 100_000);
    let doubtful = Clock::start(&[], None, 1000, 100).0;
    for (times, expired) in [
        (jumped.file_times(), true),
        (doubtful.file_times(), false),
        (FileTimes::default(), true),
    ] {
        let is_exact = times.are_exact();
        store.set_times(times, false);
        folder.file("o/aaaaaaaaaaaaaaaaaaaa~a~m/n", 10, 10_000_000);
        if is_exact {
            let opened = File::open(folder.0.join("o/aaaaaaaaaaaaaaaaaaaa~a~m")).unwrap();
            let future = sys::now().wall + Duration::from_secs(1000);
            sys::set_modified(opened, future).unwrap();
        }
        let mut usage = UsageTracker::default();
        let now = sys::now();
        count(&mut usage, &store, "o", now);
        let mut sweep = without_spot_checks(&plan);
        let report = pass(&mut sweep, &mut store, &mut usage, plan);
        assert!(usage.is_measured(b"o", now.mono), "the folder was opened");
        assert_eq!(report.removed, u64::from(expired));
    }
}

#[test]
fn the_soft_quota_counts_files_not_names() {
    let folder = Folder::new("soft-names");
    let mut store = folder.open();
    let plan = plan(50, 100);
    folder.file("o/aaaaaaaaaaaaaaaaaaaa~a~m/n", 10, 0);
    folder.file("o/aaaaaaaaaaaaaaaaaaab~a~e1/ended", 10, 0);
    // Its file was deleted by hand.
    fs::create_dir(folder.0.join("o/aaaaaaaaaaaaaaaaaaaa~3e8~m")).unwrap();
    let mut usage = UsageTracker::default();
    let now = sys::now();
    count(&mut usage, &store, "o", now);
    let mut sweep = without_spot_checks(&plan);
    let report = pass(&mut sweep, &mut store, &mut usage, plan);
    assert_eq!((report.files, report.removed), (2, 1));
    let file = "o/aaaaaaaaaaaaaaaaaaaa~a~m/";
    assert_eq!(folder.tree(), ["o/", file, &format!("{file}n")]);
    assert_eq!(
        usage.of_owner(b"o", now.mono).map(|b| Pool::ALL.sum(&b)),
        Some(10)
    );
}
