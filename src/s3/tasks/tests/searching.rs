//! Counting, searching and summing up.

use super::*;
use crate::expiry::Lifetime;
use crate::layout::FileId;
use crate::listing::{Found, Listing, Selection, Totals, Work};
use crate::policy::pool::QuotaClass;
use crate::s3::tasks::sweep::{SweepPlan, SweepTask};
use crate::s3::tasks::work::{WorkResult, WorkTask};

/// 2,500 files of an owner, of which every tenth is a profile picture, among objects of others and odd ones.
fn store_of_2500() -> FakeStore {
    let mut fake = FakeStore::new();
    for number in 0..2500 {
        let suffix = if number % 10 == 0 { "p" } else { "a~m" };
        fake.add_file(OWNER, number, suffix, 10, number as i64);
        fake.add_file("other", number, "m", 10, 0);
    }
    for odd in ["", "/b", "/.hidden/b", "/1/2/3/4/5/6/7/8", "/a/"] {
        fake.add(&format!("{OWNER}{odd}"), 1, 0);
    }
    fake.add(".upslot/revoked/a", 10, 0);
    fake.add(".upslot/unknown", 10, 0);
    fake.add("top", 10, 0);
    fake
}

fn run(fake: &mut FakeStore, work: Work) -> WorkResult {
    let mut task = WorkTask::new(work, OWN);
    fake.run(&mut task);
    task.finish()
}

fn search(owner: &str, selection: Selection) -> Work {
    Work::Search {
        owner: owner.as_bytes().to_vec(),
        selection,
        since: NOW - 9,
    }
}

fn listing(result: WorkResult) -> Listing {
    match result.found {
        Found::Files(listing) => listing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_owner_is_counted() {
    let mut fake = store_of_2500();
    let result = run(&mut fake, search(OWNER, Selection::Ids(Vec::new())));
    // `owner/b` is a file; the owner without a slash belongs to another prefix.
    assert_eq!((result.foreign, result.error.clone()), (3, None));
    let listing = listing(result);
    assert_eq!(listing.files, 2501);
    assert_eq!(listing.bytes[QuotaClass::Profile], 2500);
    assert_eq!(listing.bytes[QuotaClass::Message], 22_501);
    assert_eq!(listing.recent.len(), 11);
    assert!(listing.selected.is_empty());
    assert_eq!(fake.lists, 6);
    for owner in ["nobody", "", ".upslot", "a/b"] {
        let result = run(&mut fake, search(owner, Selection::Oldest(9)));
        assert_eq!((result.foreign, result.error.clone()), (0, None));
        assert_eq!(super::searching::listing(result).files, 0, "{owner}");
    }
}

#[test]
fn files_are_found() {
    let mut fake = store_of_2500();
    let oldest = listing(run(&mut fake, search(OWNER, Selection::Oldest(2))));
    let expected = [2499, 2498].map(|number| path(OWNER, number, "a~m"));
    let paths: Vec<_> = oldest.selected.iter().map(|f| f.path.clone()).collect();
    assert_eq!(paths, expected.map(|path| store_path(&path)));
    let wanted = store_path(&path(OWNER, 1234, "a~m"));
    let ids = Selection::Ids(vec![FileId::of(&wanted)]);
    let found = listing(run(&mut fake, search(OWNER, ids)));
    assert_eq!(found.selected.len(), 1);
    assert_eq!(found.selected[0].path, wanted);
    assert_eq!(found.selected[0].modified, at(NOW - 1234));
    // A time in the future counts from now.
    fake.add_file(OWNER, 9999, "m", 10, -5000);
    let newest = listing(run(&mut fake, search(OWNER, Selection::Newest(1))));
    assert_eq!(newest.selected[0].modified, at(NOW));
}

#[test]
fn files_are_sought_on_the_way() {
    let mut fake = store_of_2500();
    let id = |number| FileId::of(&store_path(&path(OWNER, number, "a~m")));
    let mut expected = vec![id(1), id(1234)];
    expected.sort_unstable();
    let wanted = vec![id(1234), id(3000), id(1)];
    for work in [
        search(OWNER, Selection::Ids(Vec::new())),
        Work::Sum { largest: 0 },
    ] {
        let mut task = WorkTask::new(work, OWN).seek(wanted.clone());
        fake.run(&mut task);
        assert_eq!(task.finish().found_files, expected);
    }
    let plan = SweepPlan {
        lifetime: Lifetime::default(),
        soft_quota: None,
        policy: OWN,
    };
    let mut task = SweepTask::new(plan, now()).seek(wanted);
    fake.run(&mut task);
    assert_eq!(task.finish().found_files, expected);
}

#[test]
fn a_search_ends_with_the_first_failure() {
    let mut fake = store_of_2500();
    fake.failing_list = 2;
    let result = run(&mut fake, search(OWNER, Selection::Ids(Vec::new())));
    assert_eq!(result.error.clone().unwrap().kind, FailureKind::Unreachable);
    assert!(listing(result).files < 1001);
    assert_eq!(fake.lists, 2);
}

#[test]
fn owners_are_summed_up() {
    let mut fake = store_of_2500();
    for owner in 0..300 {
        fake.add_file(&format!("owner{owner:03}"), 1, "m", 1000 + owner, 0);
    }
    let result = run(&mut fake, Work::Sum { largest: 3 });
    assert_eq!((result.foreign, result.error), (5, None));
    let Found::Owners(Totals {
        owners,
        files,
        bytes,
        largest,
    }) = result.found
    else {
        panic!("no sums");
    };
    assert_eq!((owners, files), (302, 5301));
    assert_eq!(bytes, 50_001 + 300 * 1000 + 299 * 300 / 2);
    let names = [
        (25_001, 2501, OWNER),
        (25_000, 2500, "other"),
        (1299, 1, "owner299"),
    ]
    .map(|(bytes, files, owner)| (bytes, files, owner.as_bytes().to_vec()));
    assert_eq!(largest, names);
}
