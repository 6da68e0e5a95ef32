//! Timeouts, limits of connections and descriptors, back-pressure, lingering close.
//!
//! Times are not exact: a limit of one second may take several on a busy machine. Tests only distinguish whether a
//! connection ends, and with or without a response.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::site::{ROMEO, ROMEO_FOLDER, begin};
use crate::harness::{
    Client, Fields, Plan, Site, eventually, pseudo_random, raise_descriptors, request,
};

/// Sends one byte at a time until the program responds or closes; returns the time that took.
fn drip(client: &mut Client, bytes: &[u8], pause: Duration) -> Duration {
    let start = Instant::now();
    for byte in bytes.iter().cycle() {
        if client.try_send(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(15) {
            break;
        }
        client.set_patience(pause);
        match client.read(1) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => {
                // The first byte of the response; `rest_is` reads the others.
                assert_eq!(bytes, b"H");
                break;
            }
            Err(_) => {}
        }
    }
    client.set_patience(crate::harness::PATIENCE);
    start.elapsed()
}

/// After [`drip`] has read the first byte: the status, and the end of the connection.
#[track_caller]
fn rest_is(client: &mut Client, status: u16) {
    let rest = String::from_utf8(client.drain()).unwrap();
    assert!(rest.starts_with(&format!("TTP/1.1 {status} ")), "{rest:?}");
    assert!(
        rest.to_ascii_lowercase().contains("connection: close"),
        "{rest:?}"
    );
    assert_eq!(rest.matches("TTP/1.1").count(), 1, "{rest:?}");
}

#[test]
fn a_head_has_one_deadline() {
    let site = Plan::alone()
        .set("header_timeout", 1)
        .set("idle_timeout", 30)
        .start();
    // Each byte is in time, the head is not.
    let mut client = site.client();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let took = drip(&mut client, b"x", Duration::from_millis(100));
    assert!(
        took > Duration::from_millis(500) && took < Duration::from_secs(10),
        "{took:?}"
    );
    rest_is(&mut client, 408);
    // On a reused connection as well.
    let mut client = site.client();
    client.get("/").is(200);
    client.send(b"GET / HT");
    client.reply().is(408);
    client.ends();
}

#[test]
fn idle_connections_are_closed_without_a_response() {
    let site = Plan::alone()
        .set("idle_timeout", 1)
        .set("header_timeout", 2)
        .start();
    let mut fresh = site.client();
    let mut used = site.client();
    used.get("/").is(200);
    fresh.ends();
    used.ends();
}

#[test]
fn a_body_must_make_progress() {
    let mut site = Plan::new().set("body_timeout", 1).start();
    let slot = site.slot(ROMEO, "a.bin", 100_000, None);
    let head = request("PUT", &slot.put, &[("Content-Length", "100000")], b"");
    // Half a body, then nothing.
    let mut client = site.client();
    client.send(&head);
    client.send(&[0; 50_000]);
    client.reply().is(408);
    client.ends();
    // A byte now and then is no progress; 4 KiB would be.
    let mut client = site.client();
    client.send(&head);
    drip(&mut client, b"x", Duration::from_millis(50));
    rest_is(&mut client, 408);
    eventually("an empty store", || site.entries().is_empty());
    // Slow, but making progress.
    let body = pseudo_random(7, 100_000);
    let mut client = site.client();
    client.send(&head);
    for piece in body.chunks(10_000) {
        client.send(piece);
        thread::sleep(Duration::from_millis(250));
    }
    client.reply().is(201);
    assert!(site.get(&slot.get).is(200).body == body);
}

#[test]
fn only_stalled_readers_are_dropped() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(8, 12_000_000);
    let site = Plan::alone()
        .set("body_timeout", 1)
        .seed(&path, &body)
        .start();
    let get = request("GET", &format!("/files/{path}"), &[], b"");
    let before = site.program.sockets();

    let mut stalled = Client::with_small_buffer(site.http);
    stalled.send(&get);
    let mut moving = Client::with_small_buffer(site.http);
    moving.send(&get);
    moving.reply_head().is(200);
    let start = Instant::now();
    let mut received = Vec::new();
    while received.len() < body.len() {
        let piece = moving.read(256 * 1024).unwrap();
        assert!(
            !piece.is_empty(),
            "dropped after {} bytes and {:?}",
            received.len(),
            start.elapsed()
        );
        received.extend_from_slice(&piece);
        // Two and a half seconds and more in all.
        if received.len() % 1_000_000 < piece.len() {
            thread::sleep(Duration::from_millis(200));
        }
    }
    assert!(received == body);
    assert!(start.elapsed() > Duration::from_secs(2));
    drop(moving);
    eventually("the stalled reader to be dropped", || {
        site.program.sockets() <= before
    });
    // Buffered data can still be read, but not the whole file.
    stalled.reply_head().is(200);
    assert!(stalled.drain().len() < body.len());
}

/// Starts a PUT that waits for its body.
#[track_caller]
fn busy(site: &mut Site) -> Client {
    let slot = site.slot(ROMEO, "busy.txt", 5, None);
    begin(site, &slot, 5)
}

#[test]
fn max_connections() {
    let mut site = Plan::new().set("max_connections", 4).start();
    let mut clients: Vec<Client> = (0..4).map(|_| busy(&mut site)).collect();
    // All of them are busy, so the next one gets a 503.
    for _ in 0..3 {
        let mut client = site.client();
        client.send(&request("GET", "/", &[], b""));
        let reply = client.reply().is(503);
        assert!(reply.expect("Retry-After").parse::<u32>().is_ok());
        assert_eq!(reply.expect("Access-Control-Allow-Origin"), "*");
        client.ends();
    }
    // Open connections get their responses, and a free place is used at once.
    for client in &mut clients {
        client.send(b"hello");
        client.reply().is(201);
    }
    drop(clients.pop());
    eventually("room", || {
        site.client().ask("GET", "/", &[], b"").status == 200
    });

    // An idle connection is evicted, or the new one gets a 503; the others stay.
    let mut fresh = site.client();
    fresh.send(&request("GET", "/", &[], b""));
    let status = fresh.reply().status;
    assert!(matches!(status, 200 | 503), "{status}");
    assert_eq!(site.files().len(), 4);
    site.program.allow("connection");
}

#[test]
fn exactly_max_connections() {
    for most in [1, 2, 4] {
        let mut site = Plan::new().set("max_connections", most).start();
        let before = site.program.sockets();
        let mut clients: Vec<Client> = (0..most).map(|_| busy(&mut site)).collect();
        for client in &mut clients {
            client.send(b"hello");
            client.reply().is(201);
        }
        // All of them are idle now, and still open.
        for client in &mut clients {
            client.get("/").is(200);
        }
        drop(clients);
        // The same with connections that never sent a request.
        eventually("room", || site.program.sockets() <= before);
        let mut clients: Vec<Client> = (0..most).map(|_| site.client()).collect();
        for client in &mut clients {
            client.get("/").is(200);
        }
        site.program.allow("connection");
    }
}

#[test]
fn the_oldest_idle_connection_is_evicted() {
    let mut site = Plan::alone().set("max_connections", 4).start();
    site.program.allow("connection");
    let mut clients: Vec<Client> = (0..4).map(|_| site.client()).collect();
    // The most recently used connection is the first that was accepted.
    for client in clients.iter_mut().rev() {
        client.get("/").is(200);
    }
    let mut fresh = site.client();
    fresh.send(&request("GET", "/", &[], b""));
    let status = fresh.reply().status;
    assert!(matches!(status, 200 | 503), "{status}");
    if status == 200 {
        clients.pop().unwrap().ends();
    }
    for client in &mut clients {
        client.get("/").is(200);
    }
}

/// A request that has arrived is answered, even if it is unread when the next connection is accepted.
#[test]
fn connections_with_a_request_are_not_evicted() {
    let mut site = Plan::alone().set("max_connections", 1).start();
    site.program.allow("connection");
    for _ in 0..3 {
        site.program.signal(Signal::STOP);
        let mut clients: Vec<Client> = (0..4).map(|_| site.client()).collect();
        for client in &mut clients {
            client.send(&request("GET", "/", &[], b""));
        }
        site.program.signal(Signal::CONT);
        let statuses: Vec<u16> = clients
            .iter_mut()
            .map(|client| client.reply().status)
            .collect();
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 503)) && statuses.contains(&200),
            "{statuses:?}"
        );
        drop(clients);
        eventually("room", || {
            site.client().ask("GET", "/", &[], b"").status == 200
        });
    }
}

#[test]
fn max_connections_per_address() {
    let mut site = Plan::new().set("max_connections_per_address", 2).start();
    let mut first = busy(&mut site);
    let mut second = busy(&mut site);
    let mut third = site.client();
    third.send(&request("GET", "/", &[], b""));
    third.reply().is(503);
    drop(third);
    first.send(b"hello");
    first.reply().is(201);
    second.send(b"hello");
    second.reply().is(201);
    drop((first, second));
    eventually("room", || {
        site.client().ask("GET", "/", &[], b"").status == 200
    });
    site.program.allow("connection");
}

#[test]
fn more_idle_connections_than_allowed() {
    raise_descriptors(4096);
    let mut site = Plan::new().start();
    let mut busy = busy(&mut site);
    // The default is 1,024. Some send a request before they fall silent.
    let mut idle = Vec::new();
    for number in 0..1200 {
        let mut client = site.client();
        if number % 100 == 0 {
            if let Err(error) = client.try_send(&request("GET", "/", &[], b"")) {
                panic!("connection {number}: {error}");
            }
        }
        idle.push(client);
    }
    for _ in 0..3 {
        let mut client = site.client();
        client.send(&request("GET", "/", &[], b""));
        let reply = client.reply();
        assert!(matches!(reply.status, 200 | 503), "{}", reply.status);
        assert_eq!(reply.status == 503, reply.has("Retry-After"));
    }
    busy.send(b"hello");
    busy.reply().is(201);
    drop(idle);
    eventually("room", || {
        site.client().ask("GET", "/", &[], b"").status == 200
    });
    site.program.allow("connection");
}

#[test]
fn out_of_descriptors() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let mut site = Plan::new().descriptors(64).seed(&path, b"hello").start();
    site.program.allow("connection");
    site.program.allow("descriptor");
    let target = format!("/files/{path}");
    let mut busy = busy(&mut site);
    let mut early = site.client();
    early.get(&target).is(200);
    let crowd: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = site.client();
            let _ = client.try_send(b"GET / HTTP/1.1\r\nHo");
            client
        })
        .collect();
    // Two seconds in this state must not use two seconds of processor time.
    let ticks = site.program.cpu_ticks();
    thread::sleep(Duration::from_secs(2));
    let used = site.program.cpu_ticks() - ticks;
    assert!(used < 100, "{used} ticks of 200: a busy loop");
    // Open connections get their responses.
    busy.send(b"hello");
    busy.reply().is(201);
    drop(crowd);
    eventually("room", || site.client().get(&target).status == 200);
    let slot = site.slot(ROMEO, "b.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

/// The sender of a large body can write all of it before it reads the refusal.
#[test]
fn refusals_linger() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    let body = vec![b'x'; 8 << 20];
    let length = body.len().to_string();
    let length = ("Content-Length", length.as_str());
    let chunked = ("Transfer-Encoding", "chunked");
    let cases: &[(&str, &str, Fields<'_>, u16)] = &[
        ("PUT", "/files/none", &[length], 403),
        ("PUT", &slot.put, &[length], 413),
        (
            "PUT",
            &slot.put,
            &[length, ("Content-Type", "image/png")],
            0,
        ),
        ("PUT", &slot.put, &[length, ("Expect", "x")], 417),
        (
            "PUT",
            "/files/none",
            &[length, ("Connection", "close")],
            403,
        ),
        ("POST", "/", &[length], 405),
        ("BREW", "/", &[length], 501),
        ("POST", "/", &[length, ("Bad Field", "x")], 400),
        ("POST", "/", &[length, chunked], 0),
        ("GET", "/files/none", &[length], 404),
        ("OPTIONS", "/", &[length], 204),
    ];
    for (method, target, fields, status) in cases {
        for _ in 0..2 {
            let mut client = site.client();
            client.send(&request(method, target, fields, b""));
            // In pieces, so that an early close causes a write error.
            for (number, piece) in body.chunks(64 * 1024).enumerate() {
                if let Err(error) = client.try_send(piece) {
                    panic!("{method} {fields:?}: {error} in piece {number}");
                }
            }
            let reply = client.reply_to(method);
            assert!(
                *status == 0 || reply.status == *status,
                "{} instead of {status}",
                reply.status
            );
            if reply.field("Connection") == Some("close") {
                client.ends();
            }
        }
    }
    assert!(site.entries().is_empty());
}

#[test]
fn pipelining_has_back_pressure() {
    const COUNT: usize = 20_000;
    let site = Plan::alone().start();
    site.get("/").is(200);
    let before = site.program.memory("VmRSS");
    let mut client = Client::with_small_buffer(site.http);
    let mut writer = client.writer();
    let sender = thread::spawn(move || {
        let get = request("GET", "/files/none", &[], b"");
        for _ in 0..COUNT / 100 {
            writer.write_all(&get.repeat(100)).unwrap();
        }
    });
    // The client does not read for a while; the program must not buffer responses.
    thread::sleep(Duration::from_secs(1));
    for _ in 0..COUNT {
        client.reply().is(404);
    }
    sender.join().unwrap();
    let grown = site.program.memory("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

#[test]
fn memory_does_not_grow_with_bodies() {
    const SIZE: usize = 48 << 20;
    let mut site = Plan::new()
        .set("max_file_size", 100 << 20)
        .set("fsync", false)
        .start();
    site.get("/").is(200);
    let before = site.program.memory("VmHWM");
    let body = pseudo_random(9, SIZE);
    let slot = site.slot(ROMEO, "a.bin", SIZE as u64, None);
    site.put(&slot, &body).is(201);
    let slow: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = Client::with_small_buffer(site.http);
            client.send(&request("GET", &slot.get, &[], b""));
            client.reply_head().is(200);
            client
        })
        .collect();
    assert!(site.get(&slot.get).is(200).body == body);
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
    drop(slow);
}
