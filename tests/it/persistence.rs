//! Several requests on one connection (RFC 9112 §9): pipelining, persistence, half close.

use crate::framing::POISON;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Plan, Site, request};

fn digits() -> (Site, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    (
        Plan::alone().seed(&path, b"0123456789").start(),
        format!("/files/{path}"),
    )
}

#[test]
fn pipelining() {
    let mut site = Plan::new().start();
    let slots: Vec<_> = (0..20)
        .map(|i| site.slot(ROMEO, &format!("{i}.txt"), 6, None))
        .collect();
    let mut bytes = Vec::new();
    for (i, slot) in slots.iter().enumerate() {
        bytes.extend(request(
            "PUT",
            &slot.put,
            &[],
            format!("body{i:02}").as_bytes(),
        ));
        bytes.extend(request("GET", &slot.get, &[], b""));
        bytes.extend(request("HEAD", &slot.get, &[], b""));
        bytes.extend(request("OPTIONS", &slot.get, &[], b""));
        bytes.extend(request("GET", "/files/none", &[], b"ignored body"));
    }
    let mut client = site.client();
    client.send(&bytes);
    for i in 0..slots.len() {
        client.reply_to("PUT").is(201);
        assert_eq!(
            client.reply_to("GET").is(200).body,
            format!("body{i:02}").as_bytes()
        );
        client.reply_to("HEAD").is(200);
        client.reply_to("OPTIONS").is(204);
        client.reply_to("GET").is(404);
    }
}

#[test]
fn unread_bodies_are_skipped() {
    let (site, target) = digits();
    let inner = "GET /poison HTTP/1.1\r\nHost: poison\r\n\r\n";
    let length = inner.len();
    let cases = [
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
        ),
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("HEAD {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
    ];
    for bytes in cases {
        let method = bytes.split(' ').next().unwrap().to_owned();
        let mut client = site.client();
        client.send(format!("{bytes}GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let first = client.reply_to(&method);
        assert!(
            matches!(first.status, 200 | 204 | 405 | 403),
            "{method}: {}",
            first.status
        );
        // Either the next request is answered or the connection ends; the body is never parsed as a request.
        match client.next_reply("GET") {
            Some(reply) => assert_eq!(reply.is(200).body, b"0123456789", "{method}"),
            None => assert_eq!(first.field("Connection"), Some("close"), "{method}"),
        }
    }
}

#[test]
fn persistence() {
    let (site, target) = digits();
    // Version, fields, whether the connection stays open.
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: Close\r\n", false),
        ("HTTP/1.1", "Connection: foo, close\r\n", false),
        (
            "HTTP/1.1",
            "Connection: foo\r\nConnection: close\r\n",
            false,
        ),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: close\r\n", false),
    ];
    for (version, fields, stays) in cases {
        let mut client = site.client();
        let bytes = format!("GET {target} {version}\r\nHost: a\r\n{fields}\r\n");
        client.send(bytes.as_bytes());
        let reply = client.reply().is(200);
        let connection = reply
            .field("Connection")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if stays {
            assert_ne!(connection, "close", "{bytes:?}");
            if version == "HTTP/1.0" {
                assert_eq!(connection, "keep-alive", "{bytes:?}");
            }
            client.send(bytes.as_bytes());
            client.reply().is(200);
        } else {
            assert_eq!(connection, "close", "{bytes:?}");
            client.ends();
        }
    }
    // HTTP/1.0 does not require Host.
    let mut client = site.client();
    client.send(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
    client.reply().is(200);
    client.ends();
    // After `Connection: close` no further request is answered.
    let mut client = site.client();
    client.send(
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{POISON}").as_bytes(),
    );
    client.reply().is(200);
    client.ends();
}

/// A proxy's connection carries requests of many clients. A malformed request is charged to the proxy, not to the client of
/// the previous request.
#[test]
fn an_error_is_not_charged_to_the_previous_client() {
    let site = Plan::alone().set("trusted_proxies", "[127.0.0.1]").start();
    let mut client = site.client();
    let fields = [("X-Forwarded-For", "192.0.2.1")];
    client.ask("POST", "/files/o/r/n", &fields, b"").is(405);
    client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    client.reply().is(400);
    let known = site.program.wait_line(&["refused", "status=405"]);
    assert!(known.contains("from=192.0.2.1"), "{known}");
    let refusal = site.program.wait_line(&["refused", "status=400"]);
    assert!(refusal.contains("from=127.0.0.1"), "{refusal}");
}

#[test]
fn half_close() {
    let (site, target) = digits();
    let get = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    for count in [1, 3] {
        let mut client = site.client();
        client.send(get.repeat(count).as_bytes());
        client.shut_write();
        for _ in 0..count {
            assert_eq!(client.reply().is(200).body, b"0123456789");
        }
        client.ends();
    }
    // An incomplete head, or nothing: the connection ends, with a 400 at most.
    for part in [&get[..20], ""] {
        let mut client = site.client();
        client.send(part.as_bytes());
        client.shut_write();
        if let Some(reply) = client.next_reply("GET") {
            assert!(!part.is_empty());
            reply.is(400);
        }
    }
}
