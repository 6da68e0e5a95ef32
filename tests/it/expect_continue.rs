//! `Expect: 100-continue`.

use crate::harness::site::{ROMEO, assert_empty, begin};
use crate::harness::{Fields, Plan, request};

#[test]
fn refusals_come_before_the_100() {
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
        // The first response is the refusal, not a 100.
        assert_eq!(client.reply().status, *status, "{fields:?}");
        assert_empty(&site);
    }
    let mut client = begin(&site, &slot, 5);
    assert_empty(&site);
    client.send(b"hello");
    client.reply().is(201);
    // The slot is used now, which is checked before the 100.
    let mut client = site.client();
    client.send(&request("PUT", &slot.put, &[expect, five], b""));
    client.reply().is(409);
}

#[test]
fn other_expectations() {
    let mut site = Plan::new().start();
    // The body is sent at once: a 100 is optional.
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
    // HTTP/1.0 has no 100 (RFC 9110 §10.1.1).
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
