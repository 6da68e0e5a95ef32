//! The client address that limits apply to, with and without a trusted proxy.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::harness::site::ROMEO;
use crate::harness::{Client, Plan, Site, eventually, request};

/// A connection from another address of the loopback network.
fn client_from(site: &Site, source: Ipv4Addr) -> Client {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &site.http).unwrap();
    Client::over(TcpStream::from(socket))
}

/// The status of a PUT; an admitted connection stays busy.
#[track_caller]
fn keep_busy(
    site: &mut Site,
    source: Ipv4Addr,
    fields: &[(&str, &str)],
    busy: &mut Vec<Client>,
) -> u16 {
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = client_from(site, source);
    let mut all = vec![("Content-Length", "5"), ("Expect", "100-continue")];
    all.extend_from_slice(fields);
    client.send(&request("PUT", &slot.put, &all, b""));
    let status = client.reply().status;
    if status == 100 {
        busy.push(client);
    }
    status
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn untrusted_forwarding_headers_are_ignored() {
    for trusted in ["[]", "[192.0.2.0/24, '2001:db8::/32']"] {
        let mut site = Plan::new()
            .set("max_connections_per_address", 2)
            .set("trusted_proxies", trusted)
            .start();
        let mut busy = Vec::new();
        let forged: [&[(&str, &str)]; 9] = [
            &[("X-Forwarded-For", "203.0.113.1")],
            &[("X-Forwarded-For", "192.0.2.1")],
            &[("X-Forwarded-For", "203.0.113.2, 192.0.2.1")],
            &[("Forwarded", "for=203.0.113.3")],
            &[("Forwarded", "for=\"[2001:db8::1]\"")],
            &[("X-Real-IP", "203.0.113.4")],
            &[("CF-Connecting-IP", "203.0.113.5")],
            &[("X-Forwarded-For", "127.0.0.9")],
            &[],
        ];
        for (number, fields) in forged.iter().enumerate() {
            let expected = if number < 2 { 100 } else { 503 };
            let status = keep_busy(&mut site, HOME, fields, &mut busy);
            assert_eq!(status, expected, "{fields:?}");
        }
        // Other addresses are not affected.
        let other = Ipv4Addr::new(127, 0, 0, 9);
        for _ in 0..2 {
            assert_eq!(keep_busy(&mut site, other, &[], &mut busy), 100);
        }
        assert_eq!(keep_busy(&mut site, other, &[], &mut busy), 503);
        for line in site.program.lines() {
            assert!(
                !line.contains("203.0.113.") && !line.contains("192.0.2.1"),
                "{line}"
            );
        }
        site.program
            .wait_line(&["refused status=503", "from=127.0.0.1"]);
        for client in &mut busy {
            client.send(b"hello");
            client.reply().is(201);
        }
    }
}

#[test]
fn only_trusted_proxies_name_the_client() {
    let mut site = Plan::new()
        .set("max_connections_per_address", 2)
        .set(
            "trusted_proxies",
            "[127.0.0.1, 10.0.0.0/8, '2001:db8:ffff::/48']",
        )
        .start();
    let mut busy = Vec::new();
    let long = format!("{}203.0.113.1", "6.6.6.6, ".repeat(3000));
    let v4: &[&[(&str, &str)]] = &[
        // All of these mean 203.0.113.1.
        &[("X-Forwarded-For", "203.0.113.1")],
        &[("X-Forwarded-For", "6.6.6.6, 203.0.113.1")],
        &[("X-Forwarded-For", "203.0.113.1, 10.1.2.3")],
        &[(
            "X-Forwarded-For",
            "203.0.113.1,10.1.2.3,2001:db8:ffff::1, 127.0.0.1",
        )],
        &[
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "203.0.113.1"),
        ],
        &[("X-Forwarded-For", "203.0.113.1:4711")],
        &[("X-Forwarded-For", "::ffff:203.0.113.1")],
        &[("X-Forwarded-For", "[::ffff:203.0.113.1]:4711")],
        &[("X-Forwarded-For", "10.0.0.1, garbage, 203.0.113.1")],
        &[("X-Forwarded-For", &long)],
        &[(
            "Forwarded",
            "for=6.6.6.6, for=203.0.113.1;proto=https;by=10.0.0.1",
        )],
        &[("Forwarded", "For=\"203.0.113.1:4711\", for=10.1.2.3")],
        &[
            ("X-Forwarded-For", "203.0.113.1"),
            ("Forwarded", "for=6.6.6.6"),
        ],
    ];
    // One /64 is one client.
    let v6: &[&[(&str, &str)]] = &[
        &[("X-Forwarded-For", "2001:db8::1")],
        &[("X-Forwarded-For", "2001:db8::2")],
        &[("X-Forwarded-For", "2001:db8:0:0:ffff:ffff:ffff:ffff")],
        &[("X-Forwarded-For", "[2001:db8::3]:4711")],
        &[("Forwarded", "for=\"[2001:db8::4]:4711\"")],
    ];
    for same in [v4, v6] {
        for (number, fields) in same.iter().enumerate() {
            let expected = if number < 2 { 100 } else { 503 };
            let status = keep_busy(&mut site, HOME, fields, &mut busy);
            assert_eq!(status, expected, "{fields:?}");
        }
    }
    // Other clients count separately, and a client is not trusted because it claims to be a proxy.
    for fields in [
        &[("X-Forwarded-For", "203.0.113.2")],
        &[("X-Forwarded-For", "203.0.113.1, 203.0.113.3")],
        &[("X-Forwarded-For", "2001:db8:0:1::1")],
        &[("Forwarded", "for=203.0.113.4")],
    ] {
        let status = keep_busy(&mut site, HOME, fields, &mut busy);
        assert_eq!(status, 100, "{fields:?}");
    }
    let untrusted = Ipv4Addr::new(127, 0, 0, 7);
    for number in 0..4 {
        let claim = format!("203.0.113.{}", 100 + number);
        let fields = [("X-Forwarded-For", claim.as_str())];
        let expected = if number < 2 { 100 } else { 503 };
        assert_eq!(
            keep_busy(&mut site, untrusted, &fields, &mut busy),
            expected
        );
    }
    // An idle proxy connection is not charged to any client.
    let mut kept: Vec<Client> = (0..5).map(|_| site.client()).collect();
    for address in ["203.0.113.50", "203.0.113.51", "2001:db8:50::1"] {
        for client in &mut kept {
            let fields = [("X-Forwarded-For", address)];
            client.ask("GET", "/", &fields, b"").is(200);
        }
    }
    // Without a valid address the request is charged to the proxy.
    for value in [
        "",
        ",",
        ", ,",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.1.1",
        "[2001:db8::1",
        "::1%lo",
        "203.0.113.1 203.0.113.2",
        "203.0.113.9\tx",
        "0x7f000001",
        "2130706433",
        "\"203.0.113.9\"",
        "for=203.0.113.9",
        "-1",
        "999.999.999.999",
        "\u{ff11}.1.1.1",
    ] {
        for name in ["X-Forwarded-For", "Forwarded"] {
            let mut client = site.client();
            client.send(&request("GET", "/files/none", &[(name, value)], b""));
            let status = client.reply().status;
            assert!(matches!(status, 404 | 503), "{name}: {value:?}: {status}");
        }
    }
    // Admitted again as soon as there is room.
    for client in &mut busy {
        client.send(b"hello");
        client.reply().is(201);
    }
    drop(busy);
    eventually("room", || {
        let fields = [("X-Forwarded-For", "203.0.113.1")];
        site.client().ask("GET", "/", &fields, b"").status == 200
    });
}
