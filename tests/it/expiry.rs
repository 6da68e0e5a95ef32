//! Expiry: by age, by soft quota, and to the second for ephemeral files.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::downloads::served_until;
use crate::harness::files::{age, seed};
use crate::harness::site::{ROMEO_FOLDER, owner_folder};
use crate::harness::{Client, Plan, Site, unix_now};

/// Stores a file that expires at `until`, as its folder name encodes; returns its target.
fn seed_ephemeral(site: &Site, until: u64) -> String {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijklmnopqrst~e{until:x}/e.txt");
    seed(&site.store(), &path, b"hello");
    format!("/files/{path}")
}

#[test]
fn by_age() {
    let plan = Plan::alone()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000);
    let store = plan.store();
    let old = seed(
        &store,
        &format!("{ROMEO_FOLDER}/0123456789abc/old.txt"),
        b"old",
    );
    let two = seed(&store, &format!("{ROMEO_FOLDER}/0123456789abd"), b"old");
    let alone = seed(
        &store,
        &format!("{}/0123456789abc/old.txt", owner_folder("x@montague.tld")),
        b"old",
    );
    let young = seed(
        &store,
        &format!("{ROMEO_FOLDER}/0123456789abe/young.txt"),
        b"young",
    );
    for file in [&old, &two, &alone] {
        age(file, 1100);
    }
    age(&young, 900);
    let site = plan.start();
    let line = site.program.wait_line(&["sweep done ", "removed=3"]);
    assert!(
        line.contains(" files=") && line.contains(" bytes="),
        "{line}"
    );
    assert_eq!(
        site.files(),
        [format!("{ROMEO_FOLDER}/0123456789abe/young.txt")]
    );
    // Empty folders were deleted with their files; the store itself stays.
    assert_eq!(site.entries().len(), 3, "{:?}", site.entries());
    let target = format!("/files/{ROMEO_FOLDER}/0123456789abe/young.txt");
    site.get(&target).is(200);
    site.get(&format!("/files/{ROMEO_FOLDER}/0123456789abc/old.txt"))
        .is(404);
    // The next sweep.
    age(&young, 1100);
    site.program.wait_line(&["sweep done ", "removed=1"]);
    assert!(site.entries().is_empty());
    assert!(site.store().join(".upslot").is_dir());
}

#[test]
fn zero_is_off() {
    let plan = Plan::alone()
        .set("expire_interval", 1)
        .set("expire_maxage", 0)
        .set("user_quota_soft", 1_000_000);
    let file = seed(
        &plan.store(),
        &format!("{ROMEO_FOLDER}/0123456789abc/old.txt"),
        b"old",
    );
    age(&file, 100_000_000);
    let site = plan.start();
    site.program.wait_lines(&["sweep done "], 2);
    assert!(file.exists());
    // Without an interval nothing is swept, whatever the age.
    let plan = Plan::alone()
        .set("expire_interval", 0)
        .set("expire_maxage", 1);
    let file = seed(
        &plan.store(),
        &format!("{ROMEO_FOLDER}/0123456789abc/old.txt"),
        b"old",
    );
    age(&file, 100_000);
    let mut site = plan.start();
    site.program.allow("expire_maxage");
    assert_eq!(
        site.get(&format!("/files/{ROMEO_FOLDER}/0123456789abc/old.txt"))
            .is(200)
            .body,
        b"old"
    );
    assert!(file.exists());
}

#[test]
fn an_ephemeral_file_is_never_served_past_its_second() {
    let mut site = Plan::new().start();
    let until = unix_now() + 3;
    let target = seed_ephemeral(&site, until);
    let lasting = site.upload("a.txt", None, b"hello");
    let mut client = site.client();
    assert!(served_until(&mut client, &target, until) > 0);
    let expired = client.get(&target).is(404);
    let missing = client.get("/files/none").is(404);
    assert_eq!(
        (expired.lasting_fields(), expired.body),
        (missing.lasting_fields(), missing.body)
    );
    // No sweep has run; other files are not affected.
    assert!(
        site.store()
            .join(target.strip_prefix("/files/").unwrap())
            .exists()
    );
    client.get(&lasting.get).is(200);
}

#[test]
fn the_sweep_removes_ephemeral_files() {
    let mut site = Plan::alone().set("expire_interval", 1).start();
    site.program.allow("expire_interval");
    let until = unix_now() + 3;
    let short = seed_ephemeral(&site, until);
    let long = seed_ephemeral(&site, until + 3600);
    site.program.wait_line(&["sweep done ", "removed=1"]);
    assert!(unix_now() >= until);
    let file = site.store().join(short.strip_prefix("/files/").unwrap());
    assert!(!file.parent().unwrap().exists());
    site.get(&long).is(200);
}

#[test]
fn a_long_sweep_does_not_delay_requests() {
    const FILES: usize = 8000;
    let plan = Plan::alone()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000);
    let store = plan.store();
    // Few owners with many files and many owners with few; half of the files have expired.
    for number in 0..FILES {
        let owner = if number % 2 == 0 {
            format!("{:027}", number % 20)
        } else {
            format!("{number:027}")
        };
        let folder = store.join(owner).join(format!("Abcdefgh{number:05}"));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("a.txt");
        fs::write(&file, b"hello").unwrap();
        if number % 4 < 2 {
            age(&file, 2000);
        }
    }
    let kept = format!("/files/{:027}/Abcdefgh00003/a.txt", 3);
    let site = plan.start();
    let mut client: Client = site.client();
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !site
        .program
        .lines()
        .iter()
        .any(|line| line.contains("sweep done "))
    {
        let start = Instant::now();
        assert_eq!(client.get(&kept).is(200).body, b"hello");
        slowest = slowest.max(start.elapsed());
        count += 1;
        assert!(Instant::now() < deadline, "the sweep does not end");
    }
    let line = site.program.wait_line(&["sweep done "]);
    assert!(line.contains(&format!("removed={}", FILES / 2)), "{line}");
    assert_eq!(site.files().len(), FILES / 2);
    // A slice takes milliseconds; the bound allows for a busy machine.
    assert!(
        count > 10 && slowest < Duration::from_secs(2),
        "{count} requests, the slowest took {slowest:?}"
    );
}
