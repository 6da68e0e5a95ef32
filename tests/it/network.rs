//! A poor network: slow readers, one-byte segments, half-closed and reset connections. Other clients are not affected,
//! memory stays bounded, and waiting uses no processor time.

use std::io::Write;
use std::sync::Arc;
use std::thread;

use crate::harness::downloads::with_large_file;
use crate::harness::http::{HOST, chunked};
use crate::harness::server::{COMPONENT, SECRET};
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::{Client, Plan, eventually, pseudo_random, request, tls};

/// A half-closed client still gets the whole response, however slowly it reads; meanwhile the end of its input does not wake
/// the loop again.
#[test]
fn half_closed_and_slow() {
    let (plan, target, body) = with_large_file(Plan::alone(), 12_000_000);
    let site = plan.start();
    let get = request("GET", &target, &[], b"");
    let mut clients: Vec<Client> = (1..4)
        .map(|times| {
            let mut client = Client::with_small_buffer(site.http);
            client.send(&get.repeat(times));
            client.shut_write();
            assert_eq!(client.reply_head().is(200).body_length, body.len());
            client
        })
        .collect();
    site.program.assert_idle("half-closed peers");
    for (more, client) in clients.iter_mut().enumerate() {
        let mut received = Vec::new();
        while received.len() < body.len() {
            let piece = client.read(body.len() - received.len()).unwrap();
            assert!(!piece.is_empty(), "the end after {}", received.len());
            received.extend(piece);
        }
        assert!(received == body);
        for _ in 0..more {
            assert!(client.reply().is(200).body == body);
        }
        client.ends();
    }
    site.program.assert_idle("after half-closed peers");
}

/// A body cut off by a half close or a reset is not stored, and the slot stays valid.
#[test]
fn truncated_bodies() {
    let mut site = Plan::new().start();
    let body = pseudo_random(21, 600_000);
    let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
    let sockets = site.program.sockets();
    let head = request("PUT", &slot.put, &[("Content-Length", "600000")], b"");
    let in_chunks = request("PUT", &slot.put, &[("Transfer-Encoding", "chunked")], b"");
    for cut in [0, 1, 4096, 300_000, body.len() - 1] {
        for (head, wire) in [(&head, body.clone()), (&in_chunks, chunked(&body, 50_000))] {
            for resets in [false, true] {
                let mut client = site.client();
                client.send(head);
                client.send(&wire[..cut]);
                if resets {
                    client.reset();
                } else {
                    client.shut_write();
                    client.drain();
                }
            }
        }
    }
    eventually("all connections to be closed", || {
        site.program.sockets() <= sockets
    });
    eventually("an empty store", || site.entries().is_empty());
    site.program.assert_idle("after truncated bodies");
    site.put(&slot, &body).is(201);
    assert!(site.get(&slot.get).is(200).body == body);
}

/// Sends each byte in a segment of its own.
#[track_caller]
fn byte_by_byte(client: &Client, bytes: &[u8]) {
    let mut writer = client.writer();
    for byte in bytes {
        writer.write_all(&[*byte]).unwrap();
        // The kernel forms the segments; yielding makes one per byte likely.
        thread::yield_now();
    }
}

#[test]
fn one_byte_segments() {
    let mut site = Plan::new().start();
    let body = pseudo_random(22, 2000);
    let fields = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
    for size in [1, 7, 2000] {
        let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
        let mut client = site.client();
        byte_by_byte(&client, &request("PUT", &slot.put, &fields, b""));
        client.reply().is(100);
        let mut wire = Vec::new();
        for chunk in body.chunks(size) {
            // The total size of extensions is limited.
            let extension = if size == 1 { "" } else { ";name=\"a \\\" b\"" };
            wire.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nX-Trailer: yes\r\n\r\n");
        // Pipelined requests.
        wire.extend(request("GET", &slot.get, &[], b""));
        wire.extend(request("HEAD", &slot.get, &[], b""));
        wire.extend(request("GET", "/none", &[], b"ignored"));
        wire.extend(request(
            "GET",
            &slot.get,
            &[("Range", "bytes=5-9,20-")],
            b"",
        ));
        byte_by_byte(&client, &wire);
        client.reply_to("PUT").is(201);
        assert!(client.reply().is(200).body == body);
        client.reply_to("HEAD").is(200);
        client.reply().is(404);
        client.reply().is(206);
        assert!(client.get(&slot.get).is(200).body == body);
    }
}

/// A whole XML stream byte by byte: header, handshake, stanzas, end.
#[test]
fn xml_stream_byte_by_byte() {
    let mut site = Plan::new().without_link().start();
    let server = site.server.take().unwrap();
    let mut link = server.accept();
    link.read_header();
    let drip = |link: &mut crate::harness::Link, text: &str| {
        for byte in text.as_bytes() {
            link.send_bytes(&[*byte]);
            thread::yield_now();
        }
    };
    let header = format!(
        "<?xml version='1.0'?>\n<stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
         xmlns='jabber:component:accept' from='{COMPONENT}' id='3BF9&#x26;6D32'>"
    );
    drip(&mut link, &header);
    link.check_handshake(SECRET);
    drip(&mut link, "<handshake/>");
    site.program.wait_line(&["link up "]);
    for id in ["a", "ü&amp;"] {
        let ping = format!(
            " \n<iq type='get' id='{id}' from='{ROMEO}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        drip(&mut link, &ping);
        assert_eq!(link.stanza().attribute("type"), Some("result"));
    }
    site.program.allow("link down");
    drip(&mut link, "</stream:stream>");
    link.wait_closed();
    site.link = Some(server.accept_link());
    assert_alive(&mut site);
    site.server = Some(server);
}

/// Out of descriptors: accepting is retried now and then, without a busy loop.
#[test]
fn idle_while_out_of_descriptors() {
    let mut site = Plan::new().descriptors(64).start();
    site.program.allow("descriptor");
    site.program.allow("connection");
    let mut early = site.client();
    early.get("/").is(200);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    // These are busy, so none of them is evicted.
    let crowd: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = site.client();
            client.send(&request(
                "PUT",
                &slot.put,
                &[("Content-Length", "5")],
                b"hell",
            ));
            client
        })
        .collect();
    site.program.assert_idle("out of descriptors");
    drop((crowd, early));
    eventually("room", || {
        site.client().ask("GET", "/", &[], b"").status == 200
    });
    assert_alive(&mut site);
    site.program.assert_idle("descriptors again");
}

/// Idle with and without a link and with TLS, with open connections.
#[test]
fn no_cpu_time_when_idle() {
    let plain = Plan::alone().start();
    let linked = Plan::new().start();
    let (plan, certificate) = tls::plan(Plan::alone());
    let secure = plan.start();
    let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
    let mut kept = vec![
        plain.client(),
        linked.client(),
        Client::tls(secure.http, &config, HOST),
    ];
    // Some send nothing, or only a handshake.
    let _fresh = [plain.client(), secure.client()];
    let _mute = Client::tls(secure.http, &config, HOST);
    for client in &mut kept {
        client.get("/").is(200);
    }
    thread::scope(|scope| {
        for site in [&plain, &linked, &secure] {
            scope.spawn(|| site.program.assert_idle("idle"));
        }
    });
    for client in &mut kept {
        client.get("/").is(200);
    }
}

/// A full store refuses PUTs, and lingering connections use no processor time.
#[test]
fn idle_while_the_store_is_full() {
    let mut site = Plan::new().start();
    let slots: Vec<_> = (0..10)
        .map(|i| site.slot(ROMEO, &format!("{i}.bin"), 1_000_000, None))
        .collect();
    site.rewrite("min_free_space", u64::MAX / 2);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let mut clients: Vec<Client> = slots
        .iter()
        .map(|slot| {
            let mut client = site.client();
            let fields = [("Content-Length", "1000000")];
            client.send(&request("PUT", &slot.put, &fields, b"beginning"));
            client.reply().is(507);
            client
        })
        .collect();
    // Each connection lingers, because its body was refused and is still to come.
    site.program.assert_idle("a full store");
    site.client().get("/").is(200);
    for client in &mut clients {
        let _ = client.try_send(&[0; 100_000]);
    }
    drop(clients);
    assert_alive(&mut site);
    site.program.assert_idle("after a full store");
}
