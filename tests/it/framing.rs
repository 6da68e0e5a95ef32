//! Framing (RFC 9112): a malformed request gets one response and the connection ends; no body byte is parsed as a request.

use std::time::{Duration, Instant};

use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Client, Plan, Site};

/// A request that must not be parsed: it would be answered with 204.
pub const POISON: &str = "OPTIONS / HTTP/1.1\r\nHost: poison\r\n\r\n";

fn digits() -> (Site, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    (
        Plan::alone().seed(&path, b"0123456789").start(),
        format!("/files/{path}"),
    )
}

/// One response with one of these statuses and `Connection: close`, then the end of the connection, soon.
#[track_caller]
fn check_refused(site: &Site, bytes: &[u8], statuses: &[u16]) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let mut client = site.client();
    // The program may close before it has read everything.
    let _ = client.try_send(&[bytes, POISON.as_bytes()].concat());
    let Some(reply) = client.next_reply("GET") else {
        panic!("no answer to {shown:?}")
    };
    assert!(
        statuses.contains(&reply.status),
        "{} instead of {statuses:?} to {shown:?}",
        reply.status
    );
    assert_eq!(reply.expect("Connection"), "close", "{shown:?}");
    let answered = Instant::now();
    let rest = client.drain();
    assert!(
        rest.is_empty(),
        "after the answer to {shown:?}: {:?}",
        String::from_utf8_lossy(&rest)
    );
    // About a second, and more on a busy machine.
    assert!(
        answered.elapsed() < Duration::from_secs(4),
        "the end came late after {shown:?}"
    );
}

/// Malformed requests, with the statuses of which one is the response.
const MALFORMED_HEADS: &[(&str, &[u16])] = &[
    // Request lines.
    ("GET\r\n\r\n", &[400]),
    ("GET /\r\n\r\n", &[400]),
    ("GET / \r\n\r\n", &[400]),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", &[400]),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", &[400]),
    ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("\u{e9} / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("nonsense\r\n\r\n", &[400]),
    (": / HTTP/1.1\r\n\r\n", &[400]),
    // Versions.
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[505]),
    ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", &[505]),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", &[505]),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", &[505]),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", &[400, 505]),
    ("GET / HTTP/1\r\nHost: a\r\n\r\n", &[400, 505]),
    ("GET / HTTP/11\r\nHost: a\r\n\r\n", &[400, 505]),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", &[400, 505]),
    ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", &[400, 505]),
    ("GET / ICY/1.1\r\nHost: a\r\n\r\n", &[400, 505]),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", &[400]),
    ("GET http://a/ HTTP/1.1\r\n\r\n", &[400]),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
    // Field lines.
    ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(y: b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", &[400]),
    // Lengths.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        &[400],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        &[400, 413],
    ),
    // Transfer codings.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        &[501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        &[501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
];

#[test]
fn malformed_heads() {
    let (site, _) = digits();
    for (bytes, statuses) in MALFORMED_HEADS {
        check_refused(&site, bytes.as_bytes(), statuses);
    }
    // A line that ends in a bare LF: parsed strictly.
    check_refused(&site, b"GET / HTTP/1.1\nHost: a\n\n", &[400]);
    check_refused(&site, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", &[400]);
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn conflicting_framing_in_unusual_spellings() {
    let (site, _) = digits();
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunk\u{eb}d",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: x\0chunked",
        "Content-Length: 5\r\nContent_Length : 6",
        "Content-Length: 5\r\n Content-Length: 6",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        check_refused(&site, bytes.as_bytes(), &[400, 501]);
    }
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn ambiguous_framing_ends_the_connection() {
    let (site, target) = digits();
    for method in ["GET", "POST", "PUT", "OPTIONS"] {
        for fields in [
            "HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
            "HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
        ] {
            let mut client = site.client();
            client.send(format!("{method} {target} {fields}\r\n\r\n0\r\n\r\n{POISON}").as_bytes());
            let reply = client.reply();
            assert_eq!(reply.expect("Connection"), "close", "{method} {fields}");
            client.ends();
        }
    }
}

#[test]
fn large_heads() {
    let (site, target) = digits();
    let long = |length: usize| "x".repeat(length);
    let fields = |count: usize, length: usize| {
        (0..count)
            .map(|i| format!("X-{i}: {}\r\n", long(length)))
            .collect::<String>()
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    // A request line of 8,000 octets is accepted.
    let path = long(8000 - "GET / HTTP/1.1\r\n".len());
    site.get(&format!("/{path}")).is(404);
    check_refused(
        &site,
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8200)).as_bytes(),
        &[414],
    );
    check_refused(
        &site,
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(20_000)).as_bytes(),
        &[414],
    );
    check_refused(
        &site,
        format!("GET /{}", long(60_000)).as_bytes(),
        &[414, 431],
    );
    check_refused(
        &site,
        format!("{get}{}\r\n", fields(10, 4000)).as_bytes(),
        &[431],
    );
    check_refused(
        &site,
        format!("{get}X: {}\r\n\r\n", long(33_000)).as_bytes(),
        &[431],
    );
    check_refused(
        &site,
        format!("{get}X: {}", long(70_000)).as_bytes(),
        &[431],
    );
    check_refused(
        &site,
        format!("{get}{}\r\n", fields(101, 1)).as_bytes(),
        &[431],
    );
    check_refused(
        &site,
        format!("{get}{}\r\n", fields(1000, 1)).as_bytes(),
        &[431],
    );
    for taken in [
        format!("{get}{}\r\n", fields(60, 20)),
        format!("{get}{}\r\n", fields(99, 1)),
        format!("{get}Cookie: {}\r\n\r\n", long(4096)),
        format!("{get}{}\r\n", fields(7, 4096)),
    ] {
        let mut client = site.client();
        client.send(taken.as_bytes());
        client.reply().is(200);
    }
    site.get(&target).is(200);
}

#[test]
fn tolerated_heads() {
    let (site, target) = digits();
    let cases = [
        format!("\r\nGET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nhOST:a\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: \t a \t \r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a:\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: caf\u{e9} \"quoted, \\\" text\"\r\n\r\n"),
        format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        ),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 00003\r\n\r\nabc"),
        format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nTE:\r\nAccept-Encoding: gzip, br\r\n\r\n"),
    ];
    for bytes in cases {
        let mut client = site.client();
        client.send(bytes.as_bytes());
        let reply = client.reply();
        assert_eq!(
            (reply.status, &reply.body[..]),
            (200, &b"0123456789"[..]),
            "{bytes:?}"
        );
        // The next request follows directly.
        assert_eq!(client.get(&target).is(200).body, b"0123456789", "{bytes:?}");
    }
}

#[test]
fn fragmented_requests() {
    let (site, target) = digits();
    let bytes = format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nX: yz\r\nContent-Length: 3\r\n\r\nabcHEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    .into_bytes();
    #[track_caller]
    fn check(client: &mut Client) {
        assert_eq!(client.reply_to("GET").is(200).body, b"0123456789");
        client.reply_to("HEAD").is(200);
    }
    let mut client = site.client();
    for at in 1..bytes.len() {
        client.send(&bytes[..at]);
        // The kernel may merge the pieces; yielding makes two reads likely.
        std::thread::yield_now();
        client.send(&bytes[at..]);
        check(&mut client);
    }
    for byte in &bytes {
        client.send(&[*byte]);
        std::thread::yield_now();
    }
    check(&mut client);
}

#[test]
fn strict_chunks() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let long = "x".repeat(70_000);
    let bad: Vec<String> = vec![
        "5\nhello\r\n0\r\n\r\n".into(),
        "5\r\nhello\n0\r\n\r\n".into(),
        "5\r\nhello0\r\n\r\n".into(),
        "5\r\nhello\r\n0\n\n".into(),
        "5\r\nhello\r\r\n0\r\n\r\n".into(),
        "5\r\nhellox\r\n0\r\n\r\n".into(),
        " 5\r\nhello\r\n0\r\n\r\n".into(),
        "0x5\r\nhello\r\n0\r\n\r\n".into(),
        "+5\r\nhello\r\n0\r\n\r\n".into(),
        "-5\r\nhello\r\n0\r\n\r\n".into(),
        "5g\r\nhello\r\n0\r\n\r\n".into(),
        "\r\nhello\r\n0\r\n\r\n".into(),
        ";x\r\nhello\r\n0\r\n\r\n".into(),
        "10000000000000005\r\nhello\r\n0\r\n\r\n".into(),
        "5;\"\r\nhello\r\n0\r\n\r\n".into(),
        "5;a=\"b\r\nhello\r\n0\r\n\r\n".into(),
        "5;a=b\rc\r\nhello\r\n0\r\n\r\n".into(),
        "5;a\0b\r\nhello\r\n0\r\n\r\n".into(),
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n".into(),
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n".into(),
        "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n".into(),
        format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n"),
    ];
    for wire in &bad {
        let head = format!(
            "{} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            slot.put
        );
        check_refused(
            &site,
            format!("PUT {head}{wire}").as_bytes(),
            &[400, 413, 431],
        );
        // The same for a skipped body: no byte of it is parsed as a request.
        let mut client = site.client();
        let head = "/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = client.try_send(format!("GET {head}{wire}{POISON}").as_bytes());
        while let Some(reply) = client.next_reply("GET") {
            assert!(
                matches!(reply.status, 200 | 400 | 413 | 431),
                "{} after {wire:?}",
                reply.status
            );
        }
    }
    assert!(site.entries().is_empty(), "{:?}", site.entries());
    site.put(&slot, b"hello").is(201);
}
