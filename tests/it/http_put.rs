//! PUT: what is stored, what is refused, and that aborted uploads leave nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::downloads::name_of;
use crate::harness::files::kept_type;
use crate::harness::http::chunked;
use crate::harness::site::{ROMEO, ROMEO_FOLDER, assert_empty, begin};
use crate::harness::{Fields, Plan, Site, Slot, pseudo_random, request};

#[test]
fn upload_and_download() {
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
    // The extension implies the type.
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
fn without_fsync() {
    let mut site = Plan::new().set("fsync", false).start();
    let slot = site.upload("a.txt", None, b"hello");
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    // The slot is used, whether the body comes with the head, after it, or after a 100.
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

    // Anything in place of the folder, even a symlink, counts as an existing file.
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
    // None of them used the slot.
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
    // Extensions, leading zeros, capitals and trailers are legal (RFC 9112 §7.1).
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
fn an_aborted_upload_leaves_nothing_and_can_be_retried() {
    let mut site = Plan::new().start();
    let slot = site.slot("juliet@capulet.tld", "a.bin", 1_000_000, None);
    let body = pseudo_random(6, 1_000_000);
    for way in ["half close", "reset", "close"] {
        let mut client = begin(&site, &slot, body.len());
        client.send(&body[..700_000]);
        // A running upload is not visible.
        assert!(site.files().is_empty(), "{way}: {:?}", site.files());
        site.get(&slot.get).is(404);
        match way {
            "half close" => {
                client.shut_write();
                // A response is optional, but must not be a 201.
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

/// An aborted upload does not delete the owner folder that another upload needs.
#[test]
fn complete_and_aborted_uploads_of_one_owner() {
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
            // Nor the other way round.
            put.strip_prefix("/files").unwrap().to_owned()
        }),
        ("doubled", |put| format!("/files{put}")),
        ("absolute", |put| format!("https://upload.localhost{put}")),
        ("other hex", |put| {
            // Nor the other way round.
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
fn file_names() {
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
