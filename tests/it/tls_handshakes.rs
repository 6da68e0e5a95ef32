//! TLS: plain HTTP on a TLS port, old versions, malformed handshakes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::harness::http::HOST;
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::tls::{BOTH, trusting};
use crate::harness::{Client, PATIENCE, Plan, Site, eventually, pseudo_random, request, tls};

/// A plain HTTP request to a TLS port gets a readable explanation in plain text.
#[test]
fn plain_http_gets_an_explanation() {
    let (site, config, target) = tls::digits();
    let body = vec![b'x'; 6 << 20];
    let length = body.len().to_string();
    let cases = [
        request("GET", &target, &[], b""),
        request("GET", &target, &[], b"").repeat(50),
        request("PUT", "/files/none", &[("Content-Length", &length)], b""),
        b"get / http/1.0\r\n\r\n".to_vec(),
        b"\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(),
        b"G".to_vec(),
        b"STARTTLS\r\n".to_vec(),
    ];
    for bytes in &cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        let mut client = Client::over(TcpStream::connect(site.http).unwrap());
        client.send(bytes);
        if bytes.starts_with(b"PUT") {
            // The whole body can be sent before the response is read.
            for (number, piece) in body.chunks(64 * 1024).enumerate() {
                if let Err(error) = client.try_send(piece) {
                    panic!("{error} in piece {number}");
                }
            }
        }
        let reply = client.reply().is(400);
        assert_eq!(reply.expect("Connection"), "close", "{shown}");
        assert_eq!(
            reply.text().trim_end(),
            "This port speaks HTTPS: use a URL that starts with https://.",
            "{shown}"
        );
        client.ends();
    }
    // In one-byte segments: still one response.
    let client = Client::over(TcpStream::connect(site.http).unwrap());
    let mut writer = client.writer();
    for byte in &cases[0] {
        writer.write_all(&[*byte]).unwrap();
        thread::yield_now();
    }
    let mut client = client;
    client.reply().is(400);
    client.ends();
    // TLS clients are not affected.
    let mut client = Client::tls(site.http, &config, HOST);
    client.get(&target).is(200);
    let logged = site.program.lines();
    let logged = logged.iter().filter(|line| line.contains("speaks HTTPS"));
    assert_eq!(logged.count(), cases.len() + 1);
}

/// A TLS record.
fn record(kind: u8, version: [u8; 2], content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, version[0], version[1]][..], &length, content].concat()
}

/// A ClientHello of a client that supports no later version.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut hello = vec![1, 0, 0, 0, version[0], version[1]];
    hello.extend([7; 32]);
    // No session; old ciphers and ECDHE-ECDSA-AES128-GCM-SHA256; no compression.
    hello.extend([0, 0, 8, 0xc0, 0x2b, 0xc0, 0x09, 0, 0x2f, 0, 0x0a, 1, 0]);
    // supported_groups, ec_point_formats, signature_algorithms.
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let length = u32::try_from(hello.len() - 4).unwrap().to_be_bytes();
    hello[1..4].copy_from_slice(&length[1..]);
    record(22, [3, 1], &hello)
}

#[test]
fn older_versions_are_refused() {
    let (site, config, target) = tls::digits();
    for (version, name) in [(0, "SSL 3.0"), (1, "TLS 1.0"), (2, "TLS 1.1")] {
        let mut client = Client::over(TcpStream::connect(site.http).unwrap());
        client.send(&old_hello([3, version]));
        // A fatal alert: protocol_version (RFC 8446 §6.2).
        let answer = client.drain();
        assert_eq!(
            (answer[0], &answer[3..]),
            (21, &[0, 2, 2, 70][..]),
            "{name}"
        );
    }
    // SSL 2.0: another format of 46 bytes.
    let mut client = Client::over(TcpStream::connect(site.http).unwrap());
    let mut hello = vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10];
    hello.extend([
        1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80, 4, 0, 0x80, 5, 0, 0x80, 6, 0, 0x40, 7, 0, 0xc0,
    ]);
    hello.extend([7; 16]);
    client.send(&hello);
    let answer = client.drain();
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    // The hello is valid except for its version: with that of TLS 1.2 it is answered.
    let mut client = Client::over(TcpStream::connect(site.http).unwrap());
    client.send(&old_hello([3, 3]));
    client.shut_write();
    assert_eq!(client.drain()[..3], [22, 3, 3]);
    Client::tls(site.http, &config, HOST).get(&target).is(200);
}

/// A connection after its handshake, with access to the socket below TLS.
fn after_handshake(
    site: &Site,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let session = ClientConnection::new(Arc::clone(config), HOST.try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(site.http).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// Bytes that are no valid start of a handshake; `hello` is one.
fn malformed_hellos(hello: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let body = &hello[5..];
    let with = |place: usize, byte: u8| {
        let mut changed = hello.to_vec();
        changed[place] = byte;
        changed
    };
    let mut cases: Vec<(&'static str, Vec<u8>)> = vec![
        ("a record of another kind", record(23, [3, 1], body)),
        ("a record of no kind", record(0, [3, 1], body)),
        ("a record of another no kind", record(200, [3, 1], body)),
        ("a record of version 2.0", record(22, [2, 0], body)),
        ("a record of version 9.9", record(22, [9, 9], body)),
        ("a record over all bounds", vec![22, 3, 1, 0xff, 0xff]),
        (
            "a record just over them",
            [&[22, 3, 1, 0x48, 0x01][..], &[0; 18_433]].concat(),
        ),
        ("an empty handshake record", record(22, [3, 1], b"")),
        (
            "a message of 16 MiB",
            record(22, [3, 1], &[1, 0xff, 0xff, 0xff, 3, 3]),
        ),
        ("another message first", record(22, [3, 3], &[14, 0, 0, 0])),
        (
            "a finished message first",
            record(
                22,
                [3, 3],
                &[20, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ),
        ("the hello twice", hello.repeat(2)),
        ("the hello fifty times", hello.repeat(50)),
        (
            "the hello, then noise",
            [hello, &pseudo_random(30, 5000)].concat(),
        ),
        (
            "the hello, then plain data",
            [hello, &record(23, [3, 3], b"GET / HTTP/1.1\r\n\r\n")].concat(),
        ),
        (
            "warnings without end",
            record(21, [3, 3], &[1, 90]).repeat(20_000),
        ),
        (
            "the hello, then warnings",
            [hello, &record(21, [3, 3], &[1, 90]).repeat(20_000)].concat(),
        ),
        ("a fatal alert", record(21, [3, 3], &[2, 40])),
        ("an end before the beginning", record(21, [3, 3], &[1, 0])),
        ("half an alert", record(21, [3, 3], &[1])),
        (
            "cipher changes without end",
            record(20, [3, 3], &[1]).repeat(20_000),
        ),
        (
            "empty records without end",
            record(22, [3, 3], b"").repeat(20_000),
        ),
        (
            "empty data without end",
            record(23, [3, 3], b"").repeat(20_000),
        ),
        (
            "a hello in records of a byte",
            body.iter()
                .flat_map(|byte| record(22, [3, 1], &[*byte]))
                .collect(),
        ),
        ("a heartbeat", record(24, [3, 3], &[1, 0xff, 0xff])),
        (
            "noise in a record",
            record(22, [3, 3], &pseudo_random(31, 16_000)),
        ),
    ];
    for seed in 0..60 {
        let noise = pseudo_random(40 + seed, 300);
        let place = usize::from(noise[0]) * usize::from(noise[1]) % hello.len();
        cases.push((
            "a changed hello",
            with(place, hello[place] ^ noise[2].max(1)),
        ));
        // The first byte is not a letter, which would start a plain request.
        cases.push(("noise", [&[noise[3] | 0x80][..], &noise].concat()));
    }
    for length in 0..hello.len() {
        cases.push(("a cut hello", hello[..length].to_vec()));
    }
    cases
}

fn check_malformed_hellos(site: &Site, cases: &[(&str, Vec<u8>)]) {
    for (what, bytes) in cases {
        for resets in [false, true] {
            let mut client = Client::over(TcpStream::connect(site.http).unwrap());
            // The program may close at any byte.
            let _ = client.try_send(bytes);
            if resets {
                client.reset();
                continue;
            }
            // The connection may be closed already.
            let _ = client.writer().shutdown(Shutdown::Write);
            let answer = client.drain();
            // TLS records or nothing, never plain text.
            let kind = answer.first().copied().unwrap_or(22);
            assert!(matches!(kind, 20..=23), "{what}: {kind}");
        }
    }
}

/// Silent connections are closed by their timeout in every state; all in parallel.
fn check_silent_handshakes(site: &Site, hello: &[u8], cases: &[(&str, Vec<u8>)]) {
    let mut silent: Vec<(&str, Client)> = cases
        .iter()
        .step_by(11)
        .map(|(what, bytes)| {
            let mut client = Client::over(TcpStream::connect(site.http).unwrap());
            let _ = client.try_send(bytes);
            (*what, client)
        })
        .collect();
    for name in ["a whole hello", "once more"] {
        let mut client = Client::over(TcpStream::connect(site.http).unwrap());
        client.send(hello);
        silent.push((name, client));
    }
    site.program.assert_idle("handshakes that stall");
    for (_, client) in &mut silent {
        client.drain();
    }
}

/// Invalid data after a handshake is answered with an alert.
fn check_malformed_records(site: &Site, certificate: &CertificateDer<'static>, hello: &[u8]) {
    for (what, bytes) in [
        ("noise", pseudo_random(32, 5000)),
        ("plain text", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (
            "data that was never encrypted",
            record(23, [3, 3], &pseudo_random(33, 500)),
        ),
        ("a plain alert", record(21, [3, 3], &[1, 0])),
        ("another hello", hello.to_vec()),
        ("a record over all bounds", vec![23, 3, 3, 0xff, 0xff]),
        (
            "cipher changes without end",
            record(20, [3, 3], &[1]).repeat(20_000),
        ),
    ] {
        for versions in [&BOTH[..1], &BOTH[1..]] {
            let config = Arc::new(trusting(&[certificate], versions));
            let mut stream = after_handshake(site, &config);
            let _ = stream.sock.write_all(&bytes);
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer);
            assert!(answer.is_empty(), "{what}: {answer:?}");
            // An alert, or the reset that follows it where more was sent than was read.
            let end = end.map_err(|error| error.to_string());
            let alert =
                matches!(&end, Err(text) if text.contains("lert") || text.contains("reset"));
            assert!(alert || end == Ok(0), "{what}: {end:?}");
        }
    }
}

#[test]
fn malformed_handshakes() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = tls::plan(
        Plan::alone()
            .set("header_timeout", 3)
            .set("idle_timeout", 3),
    );
    let site = plan.seed(&path, b"0123456789").start();
    let target = format!("/files/{path}");
    let config = Arc::new(trusting(&[&certificate], BOTH));
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(&config), HOST.try_into().unwrap())
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut warm = Client::tls(site.http, &config, HOST);
    warm.get(&target).is(200);
    drop(warm);
    let sockets = site.program.sockets();
    let memory = site.program.memory("VmHWM:");

    let cases = malformed_hellos(&hello);
    check_malformed_hellos(&site, &cases);
    check_silent_handshakes(&site, &hello, &cases);
    // A client that does not trust the certificate aborts the handshake.
    let distrusting = Arc::new(trusting(&[], BOTH));
    assert!(Client::try_tls(site.http, &distrusting, HOST).is_err());
    // After a handshake: an idle connection ends with close_notify, invalid data with an alert.
    let mut mute = Client::tls(site.http, &config, HOST);
    mute.ends();
    check_malformed_records(&site, &certificate, &hello);
    eventually("all connections to be closed", || {
        site.program.sockets() <= sockets
    });
    let grown = site.program.memory("VmHWM:").saturating_sub(memory);
    assert!(grown < 4096, "broken handshakes cost {grown} KiB");
    site.program.assert_idle("after broken handshakes");
    Client::tls(site.http, &config, HOST).get(&target).is(200);
}
