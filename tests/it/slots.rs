//! Slots of the component: signed in every part, valid once and for a limited time, and after a restart.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::harness::files::age;
use crate::harness::raw::every_integration;
use crate::harness::server::SECRET;
use crate::harness::signing::{Claims, DELETE_SECRET, delete_query, put_query};
use crate::harness::site::{JULIET, ROMEO, assert_empty, begin, owner_folder};
use crate::harness::{Plan, Site, eventually, request, unix_now};
use crate::purposes::until;

#[test]
fn every_part_of_the_url_is_signed() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "abc.txt", 1, Some("text/plain"));
    let other = site.slot(ROMEO, "abc.txt", 1, Some("text/plain"));
    let query = slot.put.split_once('?').unwrap().1;
    let mut forged = Vec::new();
    for (at, byte) in slot.put.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            // The next character, and the other case or a distant digit, because the last one encodes only a few bits.
            let next = match byte {
                b'z' => b'a',
                b'Z' => b'A',
                b'9' => b'0',
                byte => byte + 1,
            };
            let far = if byte.is_ascii_digit() {
                b'0' + (byte - b'0' + 5) % 10
            } else {
                byte ^ 0x20
            };
            // Hex digits of an escape have two spellings.
            let escaped =
                slot.put[..at].ends_with('%') || slot.put[..at.saturating_sub(1)].ends_with('%');
            for byte in [next, far].into_iter().filter(|_| !escaped) {
                let mut bytes = slot.put.clone().into_bytes();
                bytes[at] = byte;
                forged.push(String::from_utf8(bytes).unwrap());
            }
        }
    }
    forged.push(slot.put_path().to_owned());
    forged.push(format!("{}?", slot.put_path()));
    forged.push(format!("{}?{query}", other.put_path()));
    forged.push(format!("{}0", slot.put));
    forged.push(format!("{}%00", slot.put));
    forged.push(format!("{}=", slot.put));
    forged.push(slot.put[..slot.put.len() - 1].to_owned());
    let parts: Vec<&str> = query.split('&').collect();
    for (number, part) in parts.iter().enumerate() {
        let mut less = parts.clone();
        less.remove(number);
        forged.push(format!("{}?{}", slot.put_path(), less.join("&")));
        let mut empty = parts.clone();
        let bare = format!("{}=", part.split('=').next().unwrap());
        empty[number] = &bare;
        forged.push(format!("{}?{}", slot.put_path(), empty.join("&")));
        // A duplicate parameter with another value.
        let twice = format!("{}=2&{part}", part.split('=').next().unwrap());
        let mut doubled = parts.clone();
        doubled[number] = &twice;
        forged.push(format!("{}?{}", slot.put_path(), doubled.join("&")));
    }
    forged.push("/files/".to_owned() + &"A".repeat(27) + "/" + &"B".repeat(22) + "/a.txt");
    forged.push("/".to_owned());
    forged.push("/files/../../x?".to_owned() + query);
    let mut client = site.client();
    for target in &forged {
        client.send(&request("PUT", target, &[], b"x"));
        let reply = client.reply();
        assert_eq!(reply.status, 403, "PUT {target}\ngranted {}", slot.put);
        if reply.field("Connection") == Some("close") {
            client = site.client();
        }
    }
    assert_empty(&site);
    site.put(&slot, b"x").is(201);
}

/// The suffix of the random part encodes the expiry; the signature covers it.
#[test]
fn a_purpose_cannot_be_forged() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 1, None);
    let random = slot.get.split('/').nth(3).unwrap();
    let (head, _) = random
        .rsplit_once('~')
        .expect("a suffix that encodes the purpose");
    for suffix in ["k", "p", "effffffff", "m0", ""] {
        let forged = slot.put.replacen(random, &format!("{head}~{suffix}"), 1);
        site.client().ask("PUT", &forged, &[], b"x").is(403);
    }
}

#[test]
fn a_slot_expires() {
    let mut site = Plan::new().set("put_timeout", 2).start();
    let late = site.slot(ROMEO, "late.txt", 5, None);
    let early = site.slot(ROMEO, "early.txt", 5, None);
    let issued = Instant::now();
    // The start of the PUT counts.
    let mut client = begin(&site, &early, 5);
    client.send(b"he");
    // No event reports the expiry of a slot, so this sleeps.
    thread::sleep(Duration::from_millis(3300).saturating_sub(issued.elapsed()));
    site.put(&late, b"hello").is(403);
    client.send(b"llo");
    client.reply().is(201);
    assert_eq!(site.get(&early.get).is(200).body, b"hello");
    assert_eq!(site.files().len(), 1);
}

#[test]
fn one_file_per_slot() {
    let mut site = Plan::new().start();
    let slot = site.upload("a.txt", None, b"hello");
    site.put(&slot, b"other").is(409);
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");

    // Of two concurrent uploads the first complete one wins.
    let slot = site.slot(ROMEO, "b.txt", 6, None);
    let mut first = begin(&site, &slot, 6);
    let mut second = begin(&site, &slot, 6);
    first.send(b"fir");
    second.send(b"sec");
    second.send(b"ond");
    second.reply().is(201);
    first.send(b"st!");
    first.reply().is(409);
    assert_eq!(site.get(&slot.get).is(200).body, b"second");

    // Many at the same moment.
    let slot = site.slot(ROMEO, "c.txt", 6, None);
    let mut clients: Vec<_> = (0..8).map(|_| begin(&site, &slot, 6)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("body {number}").as_bytes());
    }
    let statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| client.reply().status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 409).count(),
        7,
        "{statuses:?}"
    );
    let winner = statuses.iter().position(|status| *status == 201).unwrap();
    assert_eq!(
        site.get(&slot.get).is(200).body,
        format!("body {winner}").as_bytes()
    );
    assert_eq!(site.files().len(), 3);
}

#[test]
fn slots_survive_a_restart() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let half = site.slot(ROMEO, "half.bin", 100_000, None);
    let mut client = begin(&site, &half, 100_000);
    client.send(&[7; 50_000]);
    // Killed during a PUT: no partial file is left.
    site.program.kill();
    drop(client);
    site.start_again();
    assert_empty(&site);
    site.put(&slot, b"hello").is(201);
    site.put(&half, &[7; 100_000]).is(201);
    site.program.signal(rustix::process::Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    site.start_again();
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    assert!(site.get(&half.get).is(200).body == [7; 100_000]);
    site.put(&slot, b"hello").is(409);
    let line = site.program.lines().join("\n");
    assert!(!line.contains(SECRET));
}

#[test]
fn nodes_share_a_secret() {
    let secret = "between-two-nodes-0123456789abcdef";
    let mut one = Plan::new().set("slot_secret", secret).start();
    let mut two = Plan::new().set("slot_secret", secret).start();
    let mut three = Plan::new().start();
    for site in [&mut one, &mut two, &mut three] {
        site.program.hide(secret);
    }
    let slot = one.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    three.put(&slot, b"hello").is(403);
    two.put(&slot, b"hello").is(201);
    assert_eq!(two.get(&slot.get).is(200).body, b"hello");
    // The secret generated at the first start is private.
    let own = three.store().join(".upslot");
    for entry in fs::read_dir(own).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o077,
                0,
                "{:?}",
                entry.path()
            );
        }
    }
}

/// A slot creates one file, also after that file has expired, was deleted or evicted, and also for a PUT that started
/// before the deletion.
#[test]
fn a_slot_stays_used_after_its_file_is_deleted() {
    let mut site = every_integration()
        .set("fsync", true)
        .set("purposes", "{message: {}, ephemeral: {}}")
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("user_quota_hard", 12)
        .set("max_file_size", 12)
        .set("evict_on_quota", true)
        .start();
    site.program.allow("external_delete_secret");
    let begin = |site: &Site, target: &str, fields: &[(&str, &str)]| {
        let mut client = site.client();
        let mut all = vec![("Content-Length", "5"), ("Expect", "100-continue")];
        all.extend_from_slice(fields);
        client.send(&request("PUT", target, &all, b""));
        client.reply().is(100);
        client
    };
    let delete = |site: &Site, path: &str| {
        let target = format!("/files/{path}?{}", delete_query(path, DELETE_SECRET));
        site.client().ask("DELETE", &target, &[], b"").is(204);
    };

    // Ephemeral: used or not, the slot expires with the file.
    let at = unix_now() + 4;
    let used = site.ask(ROMEO, "a.txt", 5, None, &until(at)).unwrap();
    let unused = site.ask(ROMEO, "a.txt", 5, None, &until(at)).unwrap();
    site.put(&used, b"hello").is(201);
    eventually("its end", || {
        unix_now() > at && site.get(&used.get).status == 404
    });
    eventually("the sweep", || site.files().is_empty());
    for slot in [&used, &unused] {
        let status = site.put(slot, b"other").status;
        assert!(matches!(status, 403 | 409), "{status}");
    }

    // Deleted by age while the slot is still valid.
    site.rewrite("expire_maxage", 1);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let aged = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&aged, b"hello").is(201);
    eventually("the sweep", || site.files().is_empty());
    site.put(&aged, b"other").is(409);
    site.rewrite("expire_maxage", 1000);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_lines(&["config reloaded"], 2);

    // Evicted.
    let first = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&first, b"hello").is(201);
    age(&site.store().join(first.stored_at()), 10);
    for _ in 0..2 {
        let slot = site.slot(ROMEO, "b.txt", 5, None);
        site.put(&slot, b"hello").is(201);
    }
    site.get(&first.get).is(404);
    let evicted = first;

    // Deleted by the XMPP server while a second PUT is running.
    let slot = site.slot(JULIET, "a.txt", 5, None);
    let mut second = begin(&site, &slot.put, &[]);
    site.put(&slot, b"hello").is(201);
    delete(&site, &slot.stored_at().to_string_lossy());
    second.send(b"other");
    second.reply().is(409);
    let deleted = slot;
    let path = "external-folder/a.txt";
    let external = format!("/files/{path}?{}", put_query("v", path, 5, ""));
    let mut second = begin(&site, &external, &[]);
    site.client().ask("PUT", &external, &[], b"hello").is(201);
    delete(&site, path);
    second.send(b"other");
    second.reply().is(409);
    let share = Claims::new("share").with("sub", JULIET);
    let bearer = share.bearer();
    let mut second = begin(&site, &share.target, &[("Authorization", &bearer)]);
    share.put(&site, b"hello").is(201);
    let stored = site
        .files()
        .into_iter()
        .find(|file| file.starts_with(&owner_folder(JULIET)));
    delete(&site, &stored.unwrap());
    second.send(b"other");
    second.reply().is(409);

    for _ in 0..2 {
        for slot in [&aged, &evicted, &deleted] {
            site.put(slot, b"other").is(409);
        }
        site.client().ask("PUT", &external, &[], b"other").is(409);
        share.put(&site, b"other").is(409);
        // After a restart as well.
        site.restart();
        site.program.allow("external_delete_secret");
    }
}
