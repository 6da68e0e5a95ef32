//! PUT: what is stored, what is refused, and that nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::chunked;
use crate::harness::server::SECRET;
use crate::harness::site::{
    ROMEO, ROMEO_FOLDER, attribute, kept_type, set_attribute, set_kept_type,
};
use crate::harness::{Fields, Plan, Site, Slot, eventually, pseudo_random, request};
use crate::http_get::name_of;

/// Nothing but the program's own folder is in the store.
#[track_caller]
fn assert_empty(site: &Site) {
    eventually("an empty store", || site.entries().is_empty());
}

/// Sends a head with `Expect` and waits for the 100, so that the program is in the middle of it.
#[track_caller]
fn begin(site: &Site, slot: &Slot, size: usize) -> crate::harness::Client {
    let mut client = site.client();
    let length = size.to_string();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Content-Length", &length), ("Expect", "100-continue")],
        b"",
    ));
    client.reply().is(100);
    client
}

#[test]
fn a_file_goes_in_and_comes_out() {
    let mut site = Plan::new().start();
    let body = pseudo_random(4, 1_000_003);
    let slot = site.slot(
        "romeo@montague.tld/garden",
        "picture.jpg",
        body.len() as u64,
        Some("image/jpeg"),
    );
    assert!(
        slot.get.starts_with(&format!("/files/{ROMEO_FOLDER}/")),
        "{slot:?}"
    );
    assert_eq!(slot.put_path(), slot.get);
    let random = slot.get.split('/').nth(3).unwrap();
    assert!(random.len() > 20, "less than 120 bits: {random}");
    let mut client = site.client();
    let fields = [("Content-Type", "image/jpeg"), ("User-Agent", "it")];
    let reply = client.ask("PUT", &slot.put, &fields, &body).is(201);
    let location = reply.expect("Location");
    assert!(location.ends_with(&slot.get), "{location}");
    let got = client.get(&slot.get).is(200);
    assert!(got.body == body);
    assert_eq!(got.expect("Content-Type"), "image/jpeg");
    let file = site.store().join(slot.stored_at());
    assert_eq!(site.files(), [slot.stored_at().to_string_lossy()]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&file), 0o640);
    assert_eq!(mode(file.parent().unwrap()), 0o750);
    assert_eq!(mode(file.parent().unwrap().parent().unwrap()), 0o750);
    // The name says it.
    assert_eq!(kept_type(&file), None);
    let line = site
        .program
        .wait_line(&["upload published ", &format!("owner={ROMEO_FOLDER}")]);
    assert!(
        line.contains(" bytes=1000003") && line.contains(" from="),
        "{line}"
    );
}

#[test]
fn modes_are_configured() {
    let mut site = Plan::new()
        .set("file_mode", "0604")
        .set("dir_mode", "0711")
        .start();
    let slot = site.upload("a.txt", None, b"hello");
    let file = site.store().join(slot.stored_at());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o604, 0o711));
}

#[test]
fn without_waiting_for_the_disk() {
    let mut site = Plan::new().set("fsync", false).start();
    let slot = site.upload("a.txt", None, b"hello");
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    // Whether the body comes with its head, after it, or after a 100: the slot is used.
    let used = |site: &Site, slot: &Slot| {
        site.put(slot, b"other").is(409);
        let mut client = site.client();
        client.send(&request("PUT", &slot.put, &[("Content-Length", "5")], b""));
        client.send(b"other");
        client.reply().is(409);
        let asks = [("Expect", "100-continue"), ("Content-Length", "5")];
        let mut client = site.client();
        client.send(&request("PUT", &slot.put, &asks, b""));
        client.reply().is(409);
    };
    used(&site, &slot);
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    assert_eq!(site.files().len(), 1);

    // What stands in the way of the folder, a link too, is as good as a file of the slot's name.
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let slot = site.slot(ROMEO, "b.txt", 5, None);
    let file = site.store().join(slot.stored_at());
    std::os::unix::fs::symlink(&outside, file.parent().unwrap()).unwrap();
    used(&site, &slot);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fs::remove_file(file.parent().unwrap()).unwrap();
    site.put(&slot, b"hello").is(201);
}

#[test]
fn the_size_of_the_slot_is_exact() {
    let mut site = Plan::new().start();
    let cases: &[(Fields<'_>, &[u8], u16)] = &[
        (&[], b"hell", 400),
        (&[], b"hello!", 413),
        (&[], b"", 400),
        (&[("Content-Length", "4")], b"hello", 400),
        (&[("Content-Length", "99999999999999")], b"", 413),
        (
            &[("Transfer-Encoding", "chunked")],
            b"4\r\nhell\r\n0\r\n\r\n",
            400,
        ),
        (&[("Transfer-Encoding", "chunked")], b"0\r\n\r\n", 400),
        (
            &[("Transfer-Encoding", "chunked")],
            b"6\r\nhello!\r\n0\r\n\r\n",
            413,
        ),
        (
            &[("Transfer-Encoding", "chunked")],
            b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            413,
        ),
        (
            &[("Transfer-Encoding", "chunked")],
            b"ffffffff\r\nhello!",
            413,
        ),
        // Neither length nor chunks.
        (&[("Connection", "close")], b"", 411),
    ];
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    for (fields, body, status) in cases {
        let mut client = site.client();
        if *status == 411 {
            client.send(
                format!(
                    "PUT {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                    slot.put
                )
                .as_bytes(),
            );
        } else {
            client.send(&request("PUT", &slot.put, fields, body));
        }
        assert_eq!(
            client.reply().status,
            *status,
            "{fields:?} {:?}",
            String::from_utf8_lossy(body)
        );
        assert_empty(&site);
    }
    // None of them used the slot up.
    site.put(&slot, b"hello").is(201);
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
}

#[test]
fn chunked_bodies() {
    let mut site = Plan::new().start();
    let body = pseudo_random(5, 100_000);
    for size in [1_000_000, 4096, 997, 1] {
        let body = if size == 1 { &body[..2000] } else { &body[..] };
        let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
        let bytes = request(
            "PUT",
            &slot.put,
            &[("Transfer-Encoding", "chunked")],
            &chunked(body, size),
        );
        let mut client = site.client();
        for piece in bytes.chunks(if size == 1 { 7 } else { 50_000 }) {
            client.send(piece);
        }
        client.reply().is(201);
        assert!(
            client.get(&slot.get).is(200).body == body,
            "chunks of {size}"
        );
    }
    // Extensions, leading zeros, capitals, trailers: all of them legal (RFC 9112 §7.1).
    for wire in [
        "5;name=value\r\nhello\r\n0\r\n\r\n",
        "5;name=\"quoted; \\\" value\"\r\nhello\r\n0;last\r\n\r\n",
        "5 ; a = b\r\nhello\r\n0\r\n\r\n",
        "00005\r\nhello\r\n000\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-More: d e\r\n\r\n",
    ] {
        let slot = site.slot(ROMEO, "a.txt", 5, None);
        let mut client = site.client();
        client.send(&request(
            "PUT",
            &slot.put,
            &[("Transfer-Encoding", "Chunked")],
            wire.as_bytes(),
        ));
        client.reply().is(201);
        assert_eq!(client.get(&slot.get).is(200).body, b"hello", "{wire:?}");
    }
}

#[test]
fn checks_come_before_the_100() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    let expect = ("Expect", "100-continue");
    let five = ("Content-Length", "5");
    let forged = format!("{}x", slot.put);
    let refusals: &[(&str, Fields<'_>, u16)] = &[
        (&forged, &[expect, five], 403),
        (slot.put_path(), &[expect, five], 403),
        (&slot.put, &[expect, ("Content-Length", "6")], 413),
        (&slot.put, &[expect, ("Content-Length", "4")], 400),
        (
            &slot.put,
            &[expect, five, ("Content-Type", "image/png")],
            415,
        ),
        (&slot.put, &[("Expect", "200-ok"), five], 417),
        (&slot.put, &[expect, five, ("If-Match", "*")], 412),
        (
            &slot.put,
            &[expect, five, ("Content-Range", "bytes 0-4/5")],
            400,
        ),
    ];
    for (target, fields, status) in refusals {
        let mut client = site.client();
        client.send(&request("PUT", target, fields, b""));
        // The first thing that is said is the refusal, not a 100.
        assert_eq!(client.reply().status, *status, "{fields:?}");
        assert_empty(&site);
    }
    let mut client = begin(&site, &slot, 5);
    assert_empty(&site);
    client.send(b"hello");
    client.reply().is(201);
    // Now the slot is used up, which is known before a body is asked for.
    let mut client = site.client();
    client.send(&request("PUT", &slot.put, &[expect, five], b""));
    client.reply().is(409);
}

#[test]
fn expectations_of_all_kinds() {
    let mut site = Plan::new().start();
    // The body comes at once: one 100 may come, or none.
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = site.client();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Expect", "100-Continue")],
        b"hello",
    ));
    let mut reply = client.reply();
    if reply.status == 100 {
        reply = client.reply();
    }
    reply.is(201);
    assert_eq!(client.get(&slot.get).is(200).body, b"hello");
    // Chunked.
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = site.client();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Expect", "100-continue"), ("Transfer-Encoding", "chunked")],
        b"",
    ));
    client.reply().is(100);
    client.send(b"5\r\nhello\r\n0\r\n\r\n");
    client.reply().is(201);
    // HTTP/1.0 knows no 100 (RFC 9110 §10.1.1).
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = site.client();
    client.send(
        format!(
            "PUT {} HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
            slot.put
        )
        .as_bytes(),
    );
    client.reply().is(201);
    client.ends();
    // A GET with an expectation and no body has nothing to continue.
    let mut client = site.client();
    let reply = client.ask("GET", &slot.get, &[("Expect", "100-continue")], b"");
    let reply = if reply.status == 100 {
        client.reply()
    } else {
        reply
    };
    assert_eq!(reply.is(200).body, b"hello");
}

#[test]
fn every_part_of_the_url_is_signed() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "abc.txt", 1, Some("text/plain"));
    let other = site.slot(ROMEO, "abc.txt", 1, Some("text/plain"));
    let query = slot.put.split_once('?').unwrap().1;
    let mut forged = Vec::new();
    for (at, byte) in slot.put.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            // The next letter, and the other case or a far digit: also where only a few bits of a letter count.
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
        // A value for itself twice, of which one is another's.
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

/// The suffix of the random part says when a file goes; the signature covers it like the rest.
#[test]
fn a_purpose_cannot_be_forged() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 1, None);
    let random = slot.get.split('/').nth(3).unwrap();
    let (head, _) = random
        .rsplit_once('~')
        .expect("a suffix that tells the purpose");
    for suffix in ["k", "p", "effffffff", "m0", ""] {
        let forged = slot.put.replacen(random, &format!("{head}~{suffix}"), 1);
        site.client().ask("PUT", &forged, &[], b"x").is(403);
    }
}

#[test]
fn a_slot_lapses() {
    let mut site = Plan::new().set("put_timeout", 2).start();
    let late = site.slot(ROMEO, "late.txt", 5, None);
    let early = site.slot(ROMEO, "early.txt", 5, None);
    let issued = Instant::now();
    // It counts to the start of the PUT.
    let mut client = begin(&site, &early, 5);
    client.send(b"he");
    // Nothing tells that a slot has lapsed, so its time has to pass.
    thread::sleep(Duration::from_millis(3300).saturating_sub(issued.elapsed()));
    site.put(&late, b"hello").is(403);
    client.send(b"llo");
    client.reply().is(201);
    assert_eq!(site.get(&early.get).is(200).body, b"hello");
    assert_eq!(site.files().len(), 1);
}

#[test]
fn one_slot_makes_one_file() {
    let mut site = Plan::new().start();
    let slot = site.upload("a.txt", None, b"hello");
    site.put(&slot, b"other").is(409);
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");

    // Of two at once the first complete one wins.
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
fn a_broken_upload_leaves_nothing_and_may_be_repeated() {
    let mut site = Plan::new().start();
    let slot = site.slot("juliet@capulet.tld", "a.bin", 1_000_000, None);
    let body = pseudo_random(6, 1_000_000);
    for way in ["half close", "reset", "close"] {
        let mut client = begin(&site, &slot, body.len());
        client.send(&body[..700_000]);
        // Nothing of it can be seen while it goes on.
        assert!(site.files().is_empty(), "{way}: {:?}", site.files());
        site.get(&slot.get).is(404);
        match way {
            "half close" => {
                client.shut_write();
                // An answer is welcome, but a 201 would be a lie.
                if let Some(reply) = client.next_reply("PUT") {
                    reply.is(400);
                    client.ends();
                }
            }
            "reset" => client.reset(),
            _ => drop(client),
        }
        assert_empty(&site);
    }
    // The same in chunks.
    let mut client = site.client();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Transfer-Encoding", "chunked")],
        b"f4240\r\n",
    ));
    client.send(&body);
    client.send(b"\r\n");
    client.shut_write();
    if let Some(reply) = client.next_reply("PUT") {
        reply.is(400);
        client.ends();
    }
    assert_empty(&site);
    site.put(&slot, &body).is(201);
    assert!(site.get(&slot.get).is(200).body == body);
}

/// An upload that breaks off takes no folder from under another one of the same owner.
#[test]
fn good_and_broken_uploads_of_one_owner() {
    let mut site = Plan::new().start();
    for round in 0..15 {
        let good = site.slot(ROMEO, "good.txt", 5, None);
        let bad: Vec<Slot> = (0..3)
            .map(|_| site.slot(ROMEO, "bad.txt", 5, None))
            .collect();
        let mut broken: Vec<_> = bad.iter().map(|slot| begin(&site, slot, 5)).collect();
        let mut client = begin(&site, &good, 5);
        for client in &mut broken {
            client.send(b"hel");
        }
        broken.remove(round % 3).reset();
        client.send(b"hello");
        drop(broken);
        client.reply().is(201);
        assert_eq!(client.get(&good.get).is(200).body, b"hello");
        // The next round starts with no folder of this owner.
        fs::remove_dir_all(site.store().join(ROMEO_FOLDER)).unwrap();
    }
    assert_empty(&site);
}

#[test]
fn the_type_of_the_slot_binds() {
    let mut site = Plan::new().start();
    let accepted: &[(Option<&str>, Option<&str>, &str)] = &[
        (Some("image/jpeg"), Some("image/jpeg"), "image/jpeg"),
        (Some("image/jpeg"), Some("IMAGE/JPEG"), "image/jpeg"),
        (Some("image/jpeg"), Some("image/jpeg; q=1"), "image/jpeg"),
        (Some("image/jpeg"), Some("image/jpeg;q=1"), "image/jpeg"),
        (Some("image/jpeg"), None, "image/jpeg"),
        (Some("image/jpeg"), Some(""), "image/jpeg"),
        (
            Some("image/jpeg"),
            Some("application/octet-stream"),
            "image/jpeg",
        ),
        (
            Some("text/plain; charset=utf-8"),
            Some("text/plain; charset=utf-8"),
            "text/plain",
        ),
        (
            Some("text/plain; charset=utf-8"),
            Some("text/plain"),
            "text/plain",
        ),
        (Some("Text/Plain"), Some("text/plain"), "text/plain"),
        // The slot names none: what the PUT says, else the extension.
        (None, Some("image/png"), "image/png"),
        (None, Some("text/html; charset=utf-8"), "text/html"),
        (None, None, "image/gif"),
        (None, Some(""), "image/gif"),
    ];
    let keeps_types = set_kept_type(&site.dir.path().join("config.yml"), b"probe/probe");
    for (slot_type, put_type, served) in accepted {
        let slot = site.slot(ROMEO, "a.gif", 5, *slot_type);
        let fields: Vec<_> = put_type
            .iter()
            .map(|kind| ("Content-Type", *kind))
            .collect();
        let mut client = site.client();
        let reply = client.ask("PUT", &slot.put, &fields, b"hello");
        assert_eq!(reply.status, 201, "slot {slot_type:?}, PUT {put_type:?}");
        if keeps_types {
            let reply = client.get(&slot.get).is(200);
            let told = reply.expect("Content-Type").to_ascii_lowercase();
            assert_eq!(
                told.split(';').next(),
                Some(*served),
                "slot {slot_type:?}, PUT {put_type:?}"
            );
            let kept = kept_type(&site.store().join(slot.stored_at()));
            let kept = kept.map(|kept| kept.to_ascii_lowercase());
            let kept = kept.as_deref().and_then(|kept| kept.split(';').next());
            let told = Some(*served).filter(|served| *served != "image/gif");
            assert_eq!(kept, told, "slot {slot_type:?}, PUT {put_type:?}");
        }
    }
    let refused: &[(&str, &str)] = &[
        ("image/jpeg", "image/png"),
        ("image/jpeg", "text/html"),
        ("image/jpeg", "image/*"),
        ("image/jpeg", "image/jpegx"),
        ("image/jpeg", "nonsense"),
        ("text/plain", "text/html; charset=utf-8"),
    ];
    for (slot_type, put_type) in refused {
        let slot = site.slot(ROMEO, "b.gif", 5, Some(slot_type));
        let reply = site
            .client()
            .ask("PUT", &slot.put, &[("Content-Type", put_type)], b"hello");
        assert_eq!(reply.status, 415, "slot {slot_type:?}, PUT {put_type:?}");
    }
    assert_eq!(site.files().len(), accepted.len());
}

#[test]
fn partial_and_conditional_puts_store_nothing() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let cases: &[(&str, &str, &[u16])] = &[
        ("Content-Range", "bytes 0-4/5", &[400]),
        ("Content-Range", "bytes 0-4/10", &[400]),
        ("Content-Range", "nonsense", &[400]),
        ("If-Match", "*", &[412]),
        ("If-Match", "\"a\"", &[412]),
    ];
    for (name, value, statuses) in cases {
        let reply = site
            .client()
            .ask("PUT", &slot.put, &[(name, value)], b"hello");
        assert!(
            statuses.contains(&reply.status),
            "{name}: {value}: {}",
            reply.status
        );
        assert_empty(&site);
    }
    site.client()
        .ask("PUT", &slot.put, &[("If-None-Match", "*")], b"hello")
        .is(201);
    let again = site
        .client()
        .ask("PUT", &slot.put, &[("If-None-Match", "*")], b"other");
    assert!(matches!(again.status, 409 | 412), "{}", again.status);
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
}

#[test]
fn prefixes_and_spellings_of_a_put() {
    let mut site = Plan::new().start();
    type Spelling = fn(&str) -> String;
    let spellings: &[(&str, Spelling)] = &[
        ("kept", str::to_owned),
        ("stripped", |put| {
            put.strip_prefix("/files").unwrap().to_owned()
        }),
        ("doubled", |put| format!("/files{put}")),
        ("absolute", |put| format!("https://upload.localhost{put}")),
        ("other hex", |put| {
            put.replacen("tr%C3%A8s%20", "tr%c3%a8s%20", 1)
        }),
        ("raw", |put| put.replacen("tr%C3%A8s", "très", 1)),
    ];
    for (what, spelling) in spellings {
        let slot = site.slot(ROMEO, "très cool.jpg", 5, None);
        let target = spelling(&slot.put);
        assert!(
            *what == "kept" || target != slot.put,
            "{what}: {}",
            slot.put
        );
        let reply = site.client().ask("PUT", &target, &[], b"hello");
        assert_eq!(reply.status, 201, "{what}");
        assert_eq!(site.get(&slot.get).is(200).body, b"hello", "{what}");
    }
}

#[test]
fn names() {
    let mut site = Plan::new().start();
    let long = format!("{}.jpeg", "x".repeat(250));
    let longer = format!("{}.jpeg", "x".repeat(400));
    let wide = format!("{}.png", "é".repeat(200));
    let cases: Vec<(&str, String)> = vec![
        ("plain.txt", "plain.txt".into()),
        ("très cool.jpg", "très cool.jpg".into()),
        ("💚 日本.png", "💚 日本.png".into()),
        ("#?%&=+;,'\"<>.txt", "#?%&=+;,'\"<>.txt".into()),
        ("100%25.txt", "100%25.txt".into()),
        ("back\\slash.txt", "back\\slash.txt".into()),
        ("a/b/../c.txt", "a_b_.._c.txt".into()),
        (".htaccess", "_htaccess".into()),
        (".", "_".into()),
        ("..", "_.".into()),
        ("tab\there", "tab_here".into()),
        ("noextension", "noextension".into()),
        (&long, long.clone()),
        (&longer, format!("{}.jpeg", "x".repeat(250))),
        (&wide, format!("{}.png", "é".repeat(125))),
    ];
    for (asked, stored) in &cases {
        let slot = site.slot(ROMEO, asked, 5, None);
        let name = slot
            .stored_at()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(&name, stored, "asked for {asked:?}");
        site.put(&slot, b"hello").is(201);
        let reply = site.get(&slot.get).is(200);
        assert_eq!(reply.body, b"hello", "{asked:?}");
        assert_eq!(&name_of(reply.expect("Content-Disposition")), stored);
        assert!(site.store().join(slot.stored_at()).is_file());
    }
}

#[test]
fn a_slot_outlives_the_program() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let half = site.slot(ROMEO, "half.bin", 100_000, None);
    let mut client = begin(&site, &half, 100_000);
    client.send(&[7; 50_000]);
    // Killed in the middle of a PUT: nothing partial stays.
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
    // The secret that is made at the first start is nobody else's to read.
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

/// Every text upload is looked at as a whole, however it comes, and its answers say so.
#[test]
fn text_is_labelled_as_it_was_received() {
    let mut site = Plan::new().start();
    let keeps = set_attribute(&site.dir.path().join("config.yml"), "user.charset", b"a");
    let long = "Grüße ☕ 😀\n".repeat(20_000);
    let mut late = long.clone().into_bytes();
    // Where no piece of a file that is already there is looked at.
    let at = late.len() / 4;
    late[at..at + 20].fill(0xe9);
    let utf16: Vec<u8> = "\u{feff}Grüße"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let labelled = "text/plain; charset=utf-8";
    // Type of the slot, name, body, type told, kept charset.
    type Case<'a> = (Option<&'a str>, &'a str, &'a [u8], &'a str, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        (
            Some("text/plain"),
            "a.txt",
            "Grüße ☕".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            None,
            "a.txt",
            "Grüße ☕".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            Some("text/plain"),
            "a.bin",
            long.as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (None, "a.txt", b"x", labelled, Some("utf-8")),
        (
            None,
            "a.txt",
            "\u{feff}a".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            None,
            "a.txt",
            b"Gr\xfc\xdfe",
            "text/plain",
            Some("unknown-8bit"),
        ),
        (None, "a.txt", &utf16, "text/plain", Some("unknown-8bit")),
        (
            None,
            "a.txt",
            "é".as_bytes().split_at(1).0,
            "text/plain",
            Some("unknown-8bit"),
        ),
        (
            Some("text/plain; charset=koi8-r"),
            "a.txt",
            "é".as_bytes(),
            "text/plain; charset=koi8-r",
            None,
        ),
        (
            Some("text/html"),
            "a.html",
            "é".as_bytes(),
            "text/html",
            Some("utf-8"),
        ),
        (None, "a.json", "é".as_bytes(), "application/json", None),
        (None, "a.jpg", b"ascii", "image/jpeg", None),
    ];
    for (kind, name, body, told, kept) in cases {
        for way in ["whole", "chunked", "drip"] {
            let slot = site.slot(ROMEO, name, body.len() as u64, *kind);
            let mut client = site.client();
            match way {
                "whole" => client.send(&request("PUT", &slot.put, &[], body)),
                "chunked" => {
                    let fields = [("Transfer-Encoding", "chunked")];
                    client.send(&request("PUT", &slot.put, &fields, b""));
                    client.send(&chunked(body, 1021));
                }
                _ => {
                    let length = body.len().to_string();
                    client.send(&request(
                        "PUT",
                        &slot.put,
                        &[("Content-Length", &length)],
                        b"",
                    ));
                    let (first, rest) = body.split_at(body.len().min(30));
                    for byte in first {
                        client.send(&[*byte]);
                    }
                    client.send(rest);
                }
            }
            client.reply().is(201);
            let got = client.get(&slot.get).is(200);
            assert_eq!(got.expect("Content-Type"), *told, "{kind:?} {name} {way}");
            assert!(got.body == *body);
            if keeps {
                let found = attribute(&site.store().join(slot.stored_at()), "user.charset");
                assert_eq!(found.as_deref(), *kept, "{kind:?} {name} {way}");
            }
        }
    }
    if keeps {
        let slot = site.upload("a.txt", None, &late);
        let got = site.get(&slot.get).is(200);
        assert_eq!(
            got.expect("Content-Type"),
            "text/plain",
            "a fault anywhere counts"
        );
    }
}
