//! Quotas per owner, the global quota, and the free space of the disk.

use crate::harness::files::{age, seed};
use crate::harness::raw::every_integration;
use crate::harness::server::{STANZAS, UPLOAD_0};
use crate::harness::signing::{Claims, KEY, UUID, put_query};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, assert_no_room, owner_folder};
use crate::harness::{Plan, Slot, eventually, request};

#[test]
fn hard_quota() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    site.fill(ROMEO, 600);
    assert_no_room(&mut site, ROMEO, 401);
    // The resource does not matter; another owner has a separate quota.
    assert_no_room(&mut site, "romeo@montague.tld/balcony", 401);
    site.slot(JULIET, "a.bin", 1000, None);
    // Exactly full is allowed.
    site.fill(ROMEO, 400);
    assert_no_room(&mut site, ROMEO, 1);
    let line = site
        .program
        .wait_line(&["slot refused ", "owner=romeo@montague.tld", "why="]);
    assert!(line.contains("600") && line.contains("1000"), "{line}");
}

/// The name of a file's folder tells its size, so that an owner's files are counted without opening their folders. What a
/// crash or another program left refuses no slot.
#[test]
fn sizes_in_names_refuse_nothing_that_files_allow() {
    let plan = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .set("expire_interval", 0);
    for (random, size, stored) in [
        ("0123456789abcdefghi1", 900, None),
        ("0123456789abcdefghi2", 600, Some(50)),
    ] {
        let folder = format!("{ROMEO_FOLDER}/{random}~{size:x}~m");
        std::fs::create_dir_all(plan.store().join(&folder)).unwrap();
        if let Some(stored) = stored {
            seed(&plan.store(), &format!("{folder}/a.bin"), &vec![0; stored]);
        }
    }
    let mut site = plan.start();
    let slot = site.slot(ROMEO, "a.bin", 950, None);
    assert!(slot.get.contains("~3b6~m/"), "{slot:?}");
    site.put(&slot, &[b'x'; 950]).is(201);
    assert_eq!(site.client().get(&slot.get).is(200).body.len(), 950);
    assert!(site.files().iter().any(|file| slot.get.ends_with(file)));
    assert_no_room(&mut site, ROMEO, 1);
}

#[test]
fn hard_quota_at_the_put() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    // There is room for either, but not for both.
    let first = site.slot(ROMEO, "a.bin", 600, None);
    let second = site.slot(ROMEO, "b.bin", 600, None);
    site.put(&first, &[b'x'; 600]).is(201);
    let reply = site.put(&second, &[b'x'; 600]).is(507);
    assert!(!reply.body.is_empty());
    assert_eq!(site.files().len(), 1);
}

/// A running upload counts until it is published or aborted.
#[test]
fn running_uploads_count() {
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
        // It has started once there is no room for another.
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
fn existing_files_count_after_the_start() {
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
fn existing_files_count_at_the_first_put() {
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
    let oldest = site.fill(ROMEO, 300);
    let middle = site.fill(ROMEO, 300);
    let newest = site.fill(ROMEO, 300);
    let juliets = site.fill(JULIET, 300);
    for (slot, seconds) in [
        (&oldest, 300),
        (&middle, 200),
        (&newest, 100),
        (&juliets, 900),
    ] {
        age(&site.store().join(slot.stored_at()), seconds);
    }
    // 900 bytes are stored; 350 more require 250 less: the oldest file is evicted, and no more than needed.
    let slot = site.slot(ROMEO, "new.bin", 350, None);
    site.put(&slot, &[b'x'; 350]).is(201);
    site.get(&oldest.get).is(404);
    for slot in [&middle, &newest, &juliets, &slot] {
        site.get(&slot.get).is(200);
    }
    // Its folder was deleted as well.
    assert!(
        !site
            .store()
            .join(oldest.stored_at())
            .parent()
            .unwrap()
            .exists()
    );
    // A file larger than the quota never fits, and nothing is evicted for it.
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
    site.fill(ROMEO, 900);
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
fn the_sweep_trims_to_the_soft_quota() {
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
    site.fill(ROMEO, 900);
}

#[test]
fn global_quota() {
    let mut site = Plan::new()
        .set("global_quota", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 500])
        .seed(
            &format!("{}/0123456789abc/old.bin", owner_folder(JULIET)),
            &[0; 300],
        )
        .start();
    // The store is counted in slices, which may take a moment.
    eventually("the walk", || {
        site.ask(ROMEO, "a.bin", 201, None, "").is_err()
    });
    assert_no_room(&mut site, JULIET, 201);
    let first = site.slot(JULIET, "a.bin", 150, None);
    let second = site.slot(ROMEO, "a.bin", 150, None);
    site.put(&first, &[b'x'; 150]).is(201);
    site.put(&second, &[b'x'; 150]).is(507);
    site.fill(ROMEO, 50);
    assert_no_room(&mut site, ROMEO, 1);
}

#[test]
fn min_free_space() {
    let mut site = Plan::new().set("min_free_space", 1_u64 << 60).start();
    assert_no_room(&mut site, ROMEO, 1);
    let mut site = Plan::new().set("min_free_space", 0).start();
    site.fill(ROMEO, 1);
}

#[test]
fn one_owner_cannot_evict_or_fill_another() {
    let mut site = every_integration()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .set("evict_on_quota", true)
        .set("expire_interval", 1)
        .set("user_quota_soft", 900)
        .start();
    site.program.allow("external_delete_secret");
    let kept: Vec<Slot> = (0..2)
        .map(|_| {
            let slot = site.slot(JULIET, "old.bin", 400, None);
            site.put(&slot, &[b'j'; 400]).is(201);
            age(&site.store().join(slot.stored_at()), 100_000);
            slot
        })
        .collect();
    // Juliet's files are the oldest and stay, whatever Romeo does and however his address is spelled.
    for number in 0..30 {
        let owner = [
            "romeo@montague.tld",
            "Romeo@Montague.TLD/x",
            "romeo@montague.tld./juliet@capulet.tld",
        ][number % 3];
        let slot = site.slot(owner, "new.bin", 700, None);
        assert!(slot.get.contains(ROMEO_FOLDER), "{owner}: {slot:?}");
        site.put(&slot, &[b'r'; 700]).is(201);
    }
    // Running, refused and aborted uploads do not affect other owners.
    let slots: Vec<Slot> = (0..4)
        .map(|_| site.slot(ROMEO, "hanging.bin", 1000, None))
        .collect();
    let mut hanging = Vec::new();
    for (number, slot) in slots.iter().enumerate() {
        let mut client = site.client();
        client.send(&request(
            "PUT",
            &slot.put,
            &[("Content-Length", "1000")],
            b"",
        ));
        client.send(&[b'r'; 500]);
        let juliets = slot.put.replace(ROMEO_FOLDER, &owner_folder(JULIET));
        assert_ne!(juliets, slot.put);
        site.client()
            .ask("PUT", &juliets, &[], &[b'r'; 1000])
            .is(403);
        if number % 2 == 0 {
            hanging.push(client);
        }
    }
    // Neither do addresses that look like hers.
    for owner in [
        "\u{458}uliet@capulet.tld",
        "juliet@capulet.tld.montague.tld",
        "juliet\u{200b}@capulet.tld",
        "juliet%40capulet.tld@montague.tld",
        "capulet.tld",
    ] {
        assert_ne!(owner_folder(owner), owner_folder(JULIET));
        if let Ok(slot) = site.ask(owner, "new.bin", 900, None, "") {
            assert!(!slot.get.contains(&owner_folder(JULIET)), "{owner}");
            site.put(&slot, &[b'x'; 900]).is(201);
        }
    }
    for slot in &kept {
        assert_eq!(site.get(&slot.get).is(200).body, [b'j'; 400]);
    }
    // Her free space is unchanged.
    let slot = site.slot(JULIET, "new.bin", 200, None);
    site.put(&slot, &[b'j'; 200]).is(201);
    for slot in &kept {
        site.get(&slot.get).is(200);
    }
    drop(hanging);
    // The same without eviction.
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let slot = site.slot(ROMEO, "a.bin", 1000, None);
    site.put(&slot, &[b'r'; 1000]).is(201);
    assert!(site.ask(ROMEO, "b.bin", 1, None, "").is_err());
    let slot = site.slot(JULIET, "a.bin", 1000, None);
    site.put(&slot, &[b'j'; 1000]).is(201);
}

#[test]
fn one_quota_for_all_schemes() {
    let mut site = Plan::new()
        .set("file_share_secret", format!("'{KEY}'"))
        .set("external_secret", format!("'{KEY}'"))
        .set("api", "{port: 0}")
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 100])
        .start();
    Claims::new("one")
        .sized(500)
        .put(&site, &[b'h'; 500])
        .is(201);
    assert!(site.ask(ROMEO, "a.bin", 401, None, "").is_err());
    let slot = site.slot(ROMEO, "a.bin", 300, None);
    site.put(&slot, &[b'x'; 300]).is(201);
    site.ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=101"))
        .is(403);
    // The resource does not matter.
    Claims::new("two")
        .sized(101)
        .with("sub", "Romeo@montague.tld/x")
        .put(&site, &[b'h'; 101])
        .is(507);
    Claims::new("two")
        .sized(100)
        .with("sub", "Romeo@montague.tld/x")
        .put(&site, &[b'h'; 100])
        .is(201);
    assert!(site.ask(ROMEO, "a.bin", 1, None, "").is_err());
    Claims::new("three")
        .sized(1000)
        .with("sub", "juliet@capulet.tld")
        .put(&site, &[b'h'; 1000])
        .is(201);
    // A signed link names no owner, so the file counts for none.
    let path = format!("{UUID}/a.bin");
    site.client()
        .ask(
            "PUT",
            &format!("/files/{path}?{}", put_query("v", &path, 5000, "")),
            &[],
            &[b'x'; 5000],
        )
        .is(201);
    let folder = site.store().join(owner_folder("juliet@capulet.tld"));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    // Files in a legacy layout are still served.
    seed(
        &site.store(),
        &format!("{ROMEO_FOLDER}/0123456789abd"),
        b"old",
    );
    site.get(&format!("/files/{ROMEO_FOLDER}/0123456789abd"))
        .is(200);
}
