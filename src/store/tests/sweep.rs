//! The sweep.

use super::*;

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
