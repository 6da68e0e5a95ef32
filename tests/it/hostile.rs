//! Garbage, resets, flapping links, and files that change while they are served.

use std::time::Duration;
use std::{fs, thread};

use crate::harness::files::seed;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Client, Plan, eventually, pseudo_random, request};

#[test]
fn garbage_on_the_http_port() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let good = [
        request("GET", "/files/none", &[("Range", "bytes=0-1,3-")], b""),
        request(
            "PUT",
            &slot.put,
            &[("Transfer-Encoding", "chunked"), ("Expect", "100-continue")],
            b"9\r\nhe",
        ),
        request("OPTIONS", "*", &[("Origin", "x")], b""),
    ];
    for seed in 0..150_u64 {
        let noise = pseudo_random(100 + seed, 600);
        let mut bytes = match seed % 3 {
            // Random bytes only.
            0 => noise.clone(),
            // A valid request with a few bytes changed.
            1 => {
                let mut bytes = good[seed as usize / 3 % good.len()].clone();
                for pair in noise[..16].chunks(4) {
                    let at = usize::from(pair[0]) * 7 % bytes.len();
                    bytes[at] = pair[1];
                }
                bytes
            }
            // A valid request with a part missing.
            _ => {
                let mut bytes = good[seed as usize / 3 % good.len()].clone();
                let at = usize::from(noise[0]) % bytes.len();
                bytes.drain(at..(at + 1 + usize::from(noise[1]) % 9).min(bytes.len()));
                bytes
            }
        };
        if seed % 2 == 0 {
            bytes.extend_from_slice(&noise);
        }
        let mut client = site.client();
        let _ = client.try_send(&bytes);
        client.shut_write();
        // Any responses are valid; then the connection ends.
        while let Some(reply) = client.next_reply("HEAD") {
            assert_ne!(reply.status, 500, "{}", String::from_utf8_lossy(&bytes));
            if reply.status >= 200 {
                break;
            }
        }
        client.drain();
    }
    let slot = site.slot(ROMEO, "b.txt", 5, None);
    site.put(&slot, b"hello").is(201);
    assert_eq!(site.files(), [slot.stored_at().to_string_lossy()]);
}

#[test]
fn a_file_is_deleted_or_truncated_while_it_is_sent() {
    let mut site = Plan::alone().set("body_timeout", 3).start();
    site.program.allow("file cut short");
    let body = pseudo_random(14, 12_000_000);
    let mut other = site.client();
    for truncate in [false, true] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large{truncate}.bin");
        let file = seed(&site.store(), &path, &body);
        let mut client = Client::with_small_buffer(site.http);
        client.send(&request("GET", &format!("/files/{path}"), &[], b""));
        assert_eq!(client.reply_head().is(200).body_length, body.len());
        let mut received = client.read(1000).unwrap();
        if truncate {
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(1_000_000)
                .unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        loop {
            match client.read(1 << 20) {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => received.extend_from_slice(&piece),
                Err(error) => panic!("neither data nor the end: {error}"),
            }
            if !truncate && received.len() == body.len() {
                break;
            }
        }
        // The data received is the beginning of the file. The kernel sends from its page cache, where truncation zeroes the
        // rest of a page that may be on its way already.
        assert!(received.len() <= body.len());
        let kept = if truncate { 1_000_000 } else { body.len() };
        let valid = |(at, (got, had)): (usize, (&u8, &u8))| got == had || (at >= kept && *got == 0);
        assert!(received.iter().zip(&body).enumerate().all(valid));
        assert_eq!(received.len() == body.len(), !truncate);
        other.get("/").is(200);
    }
}

#[test]
fn the_storage_folder_disappears_and_returns() {
    let mut site = Plan::new().start();
    // Any warning or error is acceptable.
    for level in ["WARN", "ERROR"] {
        site.program.allow(level);
    }
    let slot = site.upload("a.txt", None, b"hello");
    let late = site.slot(ROMEO, "late.txt", 5, None);
    let store = site.store();
    let away = site.dir.path().join("away");
    fs::rename(&store, &away).unwrap();
    let reply = site.get(&slot.get);
    assert!(matches!(reply.status, 200 | 404), "{}", reply.status);
    let reply = site.put(&late, b"hello");
    assert!(matches!(reply.status, 201 | 503 | 507), "{}", reply.status);
    let _ = site.ask(ROMEO, "b.txt", 5, None, "");
    fs::rename(&away, &store).unwrap();
    assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    let slot = site.upload("b.txt", None, b"hello");

    // Deleted and created again: new uploads work.
    fs::remove_dir_all(&store).unwrap();
    site.get(&slot.get).is(404);
    let late = site.ask(ROMEO, "c.txt", 5, None, "");
    if let Ok(late) = &late {
        let reply = site.put(late, b"hello");
        assert!(matches!(reply.status, 201 | 503 | 507), "{}", reply.status);
    }
    let _ = fs::create_dir(&store);
    eventually("uploads to work again", || {
        match site.ask(ROMEO, "d.txt", 5, None, "") {
            Err(_) => false,
            Ok(slot) => {
                let status = site.put(&slot, b"hello").status;
                assert_ne!(status, 500);
                status == 201 && site.get(&slot.get).status == 200
            }
        }
    });
    assert!(!site.files().is_empty());
}

#[test]
fn a_flapping_link() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let mut site = Plan::new().seed(&path, b"hello").start();
    site.program.allow("link down");
    let server = site.server.take().unwrap();
    let mut client = site.client();
    site.link().close();
    for round in 0..3 {
        let mut link = server
            .accept_within(Duration::from_secs(30))
            .expect("no retry");
        match round {
            0 => {}
            1 => link.read_header(),
            _ => link.try_send(&pseudo_random(15, 10_000)),
        }
        link.close();
        client.get(&format!("/files/{path}")).is(200);
    }
    site.link = Some(server.accept_link());
    let slot = site.slot(ROMEO, "b.txt", 5, None);
    site.put(&slot, b"hello").is(201);
    site.server = Some(server);
}

/// Resets at every stage of a request.
#[test]
fn resets() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(16, 3_000_000);
    let mut site = Plan::new().seed(&path, &body).start();
    let before = site.program.sockets();
    let slot = site.slot(ROMEO, "a.bin", 1_000_000, None);
    for round in 0..30 {
        let mut client = site.client();
        match round % 5 {
            0 => {}
            1 => client.send(b"GET / HTTP/1.1\r\nHo"),
            2 => client.send(&request("GET", &format!("/files/{path}"), &[], b"")),
            3 => {
                client.send(&request("GET", &format!("/files/{path}"), &[], b"").repeat(5));
                client.reply_head();
            }
            _ => {
                client.send(&request(
                    "PUT",
                    &slot.put,
                    &[("Content-Length", "1000000")],
                    b"",
                ));
                client.send(&[0; 300_000]);
            }
        }
        client.reset();
    }
    eventually("all connections to be closed", || {
        site.program.sockets() <= before
    });
    assert_eq!(site.files().join(" "), path);
    site.put(&slot, &[0; 1_000_000]).is(201);
    assert!(site.get(&format!("/files/{path}")).is(200).body == body);
}

/// Many concurrent clients, each with its own file.
#[test]
fn many_concurrent_clients() {
    let mut site = Plan::new().start();
    let slots: Vec<_> = (0..40)
        .map(|i| site.slot(ROMEO, &format!("{i}.bin"), 200_000, None))
        .collect();
    let http = site.http;
    thread::scope(|scope| {
        for (number, slot) in slots.iter().enumerate() {
            scope.spawn(move || {
                let body = pseudo_random(number as u64, 200_000);
                let mut client = Client::connect(http);
                client.ask("PUT", &slot.put, &[], &body).is(201);
                for _ in 0..3 {
                    assert!(client.get(&slot.get).is(200).body == body);
                }
            });
        }
    });
    assert_eq!(site.files().len(), slots.len());
}
