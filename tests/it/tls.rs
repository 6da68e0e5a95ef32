//! TLS: versions, names, resumption, bodies, and the end of a connection.

use std::io;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};

use crate::harness::http::HOST;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::tls::{BOTH, trusting};
use crate::harness::{Client, PATIENCE, Plan, pseudo_random, request, tls};

#[test]
fn both_versions_upload_and_download() {
    let (plan, certificate) = tls::plan(Plan::new());
    let mut site = plan.start();
    assert!(site.program.listening(1)[0].starts_with("https://127.0.0.1:"));
    let body = pseudo_random(10, 3_000_001);
    for (versions, expected) in [
        (&BOTH[..1], ProtocolVersion::TLSv1_2),
        (&BOTH[1..], ProtocolVersion::TLSv1_3),
        (BOTH, ProtocolVersion::TLSv1_3),
    ] {
        let config = Arc::new(trusting(&[&certificate], versions));
        let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
        let mut client = Client::tls(site.http, &config, HOST);
        assert_eq!(client.session().protocol_version(), Some(expected));
        client.ask("PUT", &slot.put, &[], &body).is(201);
        assert!(client.get(&slot.get).is(200).body == body);
        let part = client
            .ask("GET", &slot.get, &[("Range", "bytes=1000000-1999999")], b"")
            .is(206);
        assert!(part.body == body[1_000_000..2_000_000]);
        // In chunks, with an expectation, in small records.
        let slot = site.slot(ROMEO, "b.bin", 5, None);
        let fields = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
        client.send(&request("PUT", &slot.put, &fields, b""));
        client.reply().is(100);
        for byte in b"5\r\nhello\r\n0\r\n\r\n" {
            client.send(&[*byte]);
        }
        client.reply().is(201);
        assert_eq!(client.get(&slot.get).is(200).body, b"hello");
    }
}

#[test]
fn alpn_and_server_names() {
    let (site, config, target) = tls::digits();
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    for name in [HOST, "other.example", "127.0.0.1"] {
        let mut client = Client::tls(site.http, &config, name);
        assert_eq!(
            client.session().alpn_protocol(),
            Some(&b"http/1.1"[..]),
            "{name}"
        );
        assert_eq!(client.get(&target).is(200).body, b"0123456789");
    }
    // ALPN is optional; HTTP/2 is never negotiated.
    let mut plain = (*config).clone();
    plain.alpn_protocols.clear();
    Client::tls(site.http, &Arc::new(plain.clone()), HOST)
        .get(&target)
        .is(200);
    plain.alpn_protocols = vec![b"h2".to_vec()];
    if let Ok(client) = Client::try_tls(site.http, &Arc::new(plain), HOST) {
        assert_eq!(client.session().alpn_protocol(), None);
    }
}

#[test]
fn close_notify_ends_the_connection() {
    let (site, config, target) = tls::digits();
    // rustls reports an end without close_notify as an error, at which `ends` fails.
    for bytes in [
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET {target} HTTP/1.0\r\n\r\n"),
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let mut client = Client::tls(site.http, &config, HOST);
        client.send(bytes.as_bytes());
        client.reply();
        client.ends();
    }
    // A half close by the client's close_notify: the response still comes.
    let mut client = Client::tls(site.http, &config, HOST);
    client.send(&request("GET", &target, &[], b""));
    client.shut_write();
    assert_eq!(client.reply().is(200).body, b"0123456789");
    client.ends();
}

#[test]
fn idle_connections_end_with_close_notify() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = tls::plan(Plan::alone().set("idle_timeout", 1));
    let site = plan.seed(&path, b"0123456789").start();
    let mut client = Client::tls(site.http, &Arc::new(trusting(&[&certificate], BOTH)), HOST);
    client.get(&format!("/files/{path}")).is(200);
    client.ends();
}

#[test]
fn many_requests_in_one_record() {
    let (site, config, target) = tls::digits();
    let mut client = Client::tls(site.http, &config, HOST);
    // Decrypted data that is still buffered causes no socket event.
    client.send(&request("GET", &target, &[], b"").repeat(40));
    for _ in 0..40 {
        assert_eq!(client.reply().is(200).body, b"0123456789");
    }
}

#[test]
fn refusals_linger_over_tls() {
    let (site, config, _) = tls::digits();
    let body = vec![b'x'; 6 << 20];
    let length = body.len().to_string();
    for _ in 0..2 {
        let mut client = Client::tls(site.http, &config, HOST);
        client.send(&request(
            "PUT",
            "/files/none",
            &[("Content-Length", &length)],
            b"",
        ));
        for (number, piece) in body.chunks(64 * 1024).enumerate() {
            if let Err(error) = client.try_send(piece) {
                panic!("{error} in piece {number}");
            }
        }
        client.reply().is(403);
    }
}

#[test]
fn no_early_data() {
    let (site, config, target) = tls::digits();
    let mut config = (*config).clone();
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        // The second session may be resumed.
        let mut client = Client::tls(site.http, &config, HOST);
        assert!(!client.session().is_early_data_accepted());
        client.get(&target).is(200);
    }
}

#[test]
fn sessions_are_resumed() {
    let (plan, certificate) = tls::plan(Plan::alone());
    let site = plan.start();
    let kind = |config: &Arc<ClientConfig>| {
        let mut client = Client::tls(site.http, config, HOST);
        client.get("/").is(200);
        client.session().handshake_kind()
    };
    let new_client = |versions| {
        let mut config = trusting(&[&certificate], versions);
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    };
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let config = Arc::new(trusting(&[&certificate], versions));
        assert_eq!(kind(&config), Some(HandshakeKind::Full));
        for _ in 0..3 {
            assert_eq!(kind(&config), Some(HandshakeKind::Resumed));
        }
        // Regardless of other clients, and without memory per session.
        let new_client = new_client(versions);
        kind(&new_client);
        let before = site.program.memory("VmRSS:");
        for _ in 0..300 {
            assert_eq!(kind(&new_client), Some(HandshakeKind::Full));
        }
        let grown = site.program.memory("VmRSS:").saturating_sub(before);
        assert!(grown < 512, "300 sessions cost {grown} KiB");
        assert_eq!(kind(&config), Some(HandshakeKind::Resumed));
    }
}

/// A socket that takes one byte at a time.
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_byte_at_a_time() {
    let (plan, certificate) = tls::plan(Plan::new());
    let mut site = plan.start();
    let body = pseudo_random(12, 3000);
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
        let config = Arc::new(trusting(&[&certificate], versions));
        let session = ClientConnection::new(config, HOST.try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(site.http).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(session, Drip(socket));
        let mut bytes = request("PUT", &slot.put, &[], &body);
        bytes.extend(request("GET", &slot.get, &[("Connection", "close")], b""));
        stream.write_all(&bytes).unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        assert!(answers.starts_with(b"HTTP/1.1 201 "));
        assert!(answers.ends_with(&body));
    }
}

#[test]
fn large_bodies_in_pieces_of_all_sizes() {
    let (plan, certificate) = tls::plan(Plan::new());
    let mut site = plan.start();
    let config = Arc::new(trusting(&[&certificate], BOTH));
    let body = pseudo_random(13, 20_000_003);
    let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
    let mut client = Client::tls(site.http, &config, HOST);
    let length = body.len().to_string();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Content-Length", &length)],
        b"",
    ));
    let mut rest = &body[..];
    for size in (0..).map(|n: usize| n * n * 37 % 70_001 + 1) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        client.send(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    client.reply().is(201);
    assert!(client.get(&slot.get).is(200).body == body);
    for range in ["bytes=16383-16384", "bytes=0-16383", "bytes=65536-"] {
        let part = client
            .ask("GET", &slot.get, &[("Range", range)], b"")
            .is(206);
        let first: usize = range[6..range.find('-').unwrap()].parse().unwrap();
        assert!(part.body == body[first..first + part.body.len()], "{range}");
    }
    // Several parts: headers and file content alternate.
    let fields = [("Range", "bytes=0-9,20000-59999,16000000-16999999")];
    let parts = client.ask("GET", &slot.get, &fields, b"").is(206).body;
    for range in [0..10, 20_000..60_000, 16_000_000..17_000_000] {
        let part = &body[range.clone()];
        let there = parts.windows(part.len()).any(|window| window == part);
        assert!(there, "{range:?}");
    }
}

#[test]
fn truncated_streams() {
    let (plan, certificate) = tls::plan(Plan::new());
    let mut site = plan.start();
    let config = Arc::new(trusting(&[&certificate], BOTH));
    let connect = || {
        let session = ClientConnection::new(Arc::clone(&config), HOST.try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(site.http).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(session, socket)
    };
    // After a complete request: it is answered.
    let mut stream = connect();
    stream.write_all(&request("GET", "/", &[], b"")).unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    // Within a body: the partial upload is discarded, and the slot stays valid.
    let mut broken = connect();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    broken
        .write_all(&request(
            "PUT",
            &slot.put,
            &[("Content-Length", "5")],
            b"he",
        ))
        .unwrap();
    broken.sock.shutdown(Shutdown::Write).unwrap();
    site.program.wait_line(&["upload aborted"]);
    let mut client = Client::tls(site.http, &config, HOST);
    client.ask("PUT", &slot.put, &[], b"hello").is(201);
    assert_eq!(client.get(&slot.get).is(200).body, b"hello");
}

#[test]
fn slow_readers_use_little_memory() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(14, 30_000_000);
    let (plan, certificate) = tls::plan(Plan::alone());
    let site = plan.seed(&path, &body).start();
    let config = Arc::new(trusting(&[&certificate], BOTH));
    let target = format!("/files/{path}");
    let mut warm = Client::tls(site.http, &config, HOST);
    warm.get(&target).is(200);
    let before = site.program.memory("VmRSS:");
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::tls(site.http, &config, HOST);
            client.send(&request("GET", &target, &[], b""));
            client.reply_head();
            client
        })
        .collect();
    // Meanwhile other requests are served, until the socket buffers are certainly full.
    for _ in 0..200 {
        warm.get("/").is(200);
    }
    let grown = site.program.memory("VmRSS:").saturating_sub(before);
    assert!(grown < 20 * 150, "20 slow readers cost {grown} KiB");
    // A slow reader still gets the whole file.
    let mut client = clients.pop().unwrap();
    let mut came = Vec::new();
    while came.len() < body.len() {
        let more = client.read(64 * 1024).unwrap();
        assert!(!more.is_empty(), "the end after {} bytes", came.len());
        came.extend(more);
    }
    assert!(came == body);
}
