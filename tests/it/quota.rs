//! Quotas: what an owner may keep, what all may keep, and what the disk must keep free.

use crate::harness::server::{STANZAS, UPLOAD_0, error_of};
use crate::harness::site::{ROMEO, ROMEO_FOLDER, age, owner_folder, seed};
use crate::harness::{Plan, Site, Slot, eventually, request};

const JULIET: &str = "juliet@capulet.tld";

/// A slot request that is refused for want of room.
#[track_caller]
fn assert_no_room(site: &mut Site, owner: &str, size: u64) {
    let refused = site
        .ask(owner, "a.bin", size, None, "")
        .expect_err("granted");
    let (kind, condition, text) = error_of(&refused);
    assert_eq!(
        (kind.as_str(), condition.as_str()),
        ("wait", "resource-constraint"),
        "{refused:?}"
    );
    assert!(!text.is_empty());
}

#[track_caller]
fn upload(site: &mut Site, owner: &str, size: usize) -> Slot {
    let slot = site.slot(owner, "a.bin", size as u64, None);
    site.put(&slot, &vec![b'x'; size]).is(201);
    slot
}

#[test]
fn hard() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    upload(&mut site, ROMEO, 600);
    assert_no_room(&mut site, ROMEO, 401);
    // Whatever the resource, it is the same owner; another owner has room of their own.
    assert_no_room(&mut site, "romeo@montague.tld/balcony", 401);
    site.slot(JULIET, "a.bin", 1000, None);
    // Exactly full is allowed.
    upload(&mut site, ROMEO, 400);
    assert_no_room(&mut site, ROMEO, 1);
    let line = site
        .program
        .wait_line(&["slot refused ", "owner=romeo@montague.tld", "why="]);
    assert!(line.contains("600") && line.contains("1000"), "{line}");
}

#[test]
fn hard_counts_at_the_put() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    // Each of them has room; both do not.
    let first = site.slot(ROMEO, "a.bin", 600, None);
    let second = site.slot(ROMEO, "b.bin", 600, None);
    site.put(&first, &[b'x'; 600]).is(201);
    let reply = site.put(&second, &[b'x'; 600]).is(507);
    assert!(!reply.body.is_empty());
    assert_eq!(site.files().len(), 1);
}

/// What is under way counts before it is stored, and no longer when it is over.
#[test]
fn what_is_under_way_counts() {
    for key in ["user_quota_hard", "global_quota"] {
        let mut site = Plan::new()
            .set(key, 1000)
            .set("max_file_size", 1000)
            .start();
        let first = site.slot(ROMEO, "a.bin", 600, None);
        let second = site.slot(ROMEO, "b.bin", 600, None);
        let head = |slot: &Slot| request("PUT", &slot.put, &[("Content-Length", "600")], b"half");
        let mut under_way = site.client();
        under_way.send(&head(&first));
        // It has begun when there is no room left for another.
        eventually("the first upload under way", || {
            site.ask(ROMEO, "c.bin", 401, None, "").is_err()
        });
        site.put(&second, &[b'x'; 600]).is(507);
        site.slot(ROMEO, "c.bin", 400, None);
        drop(under_way);
        eventually("the first upload aborted", || {
            site.ask(ROMEO, "c.bin", 1000, None, "").is_ok()
        });
        site.put(&second, &[b'x'; 600]).is(201);
    }
}

#[test]
fn old_files_count_right_after_the_start() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 500])
        .seed(&format!("{ROMEO_FOLDER}/0123456789abd"), &[0; 300])
        .seed(
            &format!("{}/0123456789abc/old.bin", owner_folder(JULIET)),
            &[0; 100],
        )
        .seed(&format!("{ROMEO_FOLDER}/0123456789abe~m/new.bin"), &[0; 50])
        .start();
    // The very first request.
    assert_no_room(&mut site, ROMEO, 151);
    site.slot(ROMEO, "a.bin", 150, None);
    assert_no_room(&mut site, JULIET, 901);
    site.slot(JULIET, "a.bin", 900, None);
}

#[test]
fn old_files_count_at_the_first_put() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let slot = site.slot(ROMEO, "a.bin", 600, None);
    site.program.signal(rustix::process::Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    seed(
        &site.store(),
        &format!("{ROMEO_FOLDER}/0123456789abc/old.bin"),
        &[0; 500],
    );
    site.start_again();
    site.put(&slot, &[b'x'; 600]).is(507);
}

#[test]
fn eviction_instead_of_refusal() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .set("evict_on_quota", true)
        .start();
    let oldest = upload(&mut site, ROMEO, 300);
    let middle = upload(&mut site, ROMEO, 300);
    let newest = upload(&mut site, ROMEO, 300);
    let juliets = upload(&mut site, JULIET, 300);
    for (slot, seconds) in [
        (&oldest, 300),
        (&middle, 200),
        (&newest, 100),
        (&juliets, 900),
    ] {
        age(&site.store().join(slot.stored_at()), seconds);
    }
    // 900 are there; 350 more need 250 less: the oldest goes, and no more than needed.
    let slot = site.slot(ROMEO, "new.bin", 350, None);
    site.put(&slot, &[b'x'; 350]).is(201);
    site.get(&oldest.get).is(404);
    for slot in [&middle, &newest, &juliets, &slot] {
        site.get(&slot.get).is(200);
    }
    // Its folder went with it.
    assert!(
        !site
            .store()
            .join(oldest.stored_at())
            .parent()
            .unwrap()
            .exists()
    );
    // No eviction makes room for more than the quota, and nothing is removed in vain.
    assert!(site.ask(ROMEO, "a.bin", 1001, None, "").is_err());
    site.get(&middle.get).is(200);
}

#[test]
fn retry_when_an_expiry_frees_enough() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .set("expire_interval", 3600)
        .set("expire_maxage", 86_400)
        .start();
    upload(&mut site, ROMEO, 900);
    let refused = site
        .ask(ROMEO, "a.bin", 200, None, "")
        .expect_err("granted");
    let error = refused.child("error").unwrap();
    let stamp = error
        .expect("retry", UPLOAD_0)
        .attribute("stamp")
        .expect("a stamp")
        .to_owned();
    assert!(
        stamp.len() >= 20 && stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T',
        "{stamp}"
    );
    assert!(
        error
            .children
            .iter()
            .any(|child| child.space == STANZAS && child.name == "resource-constraint")
    );
    // More than the quota will never fit, whatever expires.
    let refused = site
        .ask(ROMEO, "a.bin", 1001, None, "")
        .expect_err("granted");
    assert!(
        refused.child("error").unwrap().child("retry").is_none(),
        "{refused:?}"
    );
}

#[test]
fn soft_is_trimmed_by_the_sweep() {
    let plan = Plan::new()
        .set("user_quota_soft", 1000)
        .set("expire_interval", 1);
    for (number, seconds) in [(0, 500), (1, 400), (2, 300), (3, 200), (4, 100)] {
        let file = seed(
            &plan.store(),
            &format!("{ROMEO_FOLDER}/0123456789ab{number}/a.bin"),
            &[0; 400],
        );
        age(&file, seconds);
    }
    seed(
        &plan.store(),
        &format!("{}/0123456789abc/a.bin", owner_folder(JULIET)),
        &[0; 900],
    );
    let mut site = plan.start();
    let line = site.program.wait_line(&["owner trimmed ", "files=3"]);
    assert!(line.contains("bytes=1200"), "{line}");
    // Oldest first, and only as many as needed.
    let mut files = site.files();
    files.retain(|file| file.starts_with(ROMEO_FOLDER));
    assert_eq!(
        files,
        [3, 4].map(|number| format!("{ROMEO_FOLDER}/0123456789ab{number}/a.bin"))
    );
    assert_eq!(site.files().len(), 3);
    // The soft quota refuses nothing.
    upload(&mut site, ROMEO, 900);
}

#[test]
fn of_all_together() {
    let mut site = Plan::new()
        .set("global_quota", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 500])
        .seed(
            &format!("{}/0123456789abc/old.bin", owner_folder(JULIET)),
            &[0; 300],
        )
        .start();
    // The sum is learnt by a walk in slices, so that it may take a moment.
    eventually("the walk", || {
        site.ask(ROMEO, "a.bin", 201, None, "").is_err()
    });
    assert_no_room(&mut site, JULIET, 201);
    let first = site.slot(JULIET, "a.bin", 150, None);
    let second = site.slot(ROMEO, "a.bin", 150, None);
    site.put(&first, &[b'x'; 150]).is(201);
    site.put(&second, &[b'x'; 150]).is(507);
    upload(&mut site, ROMEO, 50);
    assert_no_room(&mut site, ROMEO, 1);
}

#[test]
fn the_disk_keeps_some_room() {
    let mut site = Plan::new().set("min_free_space", 1_u64 << 60).start();
    assert_no_room(&mut site, ROMEO, 1);
    let mut site = Plan::new().set("min_free_space", 0).start();
    upload(&mut site, ROMEO, 1);
}
