//! TLS: versions, names, the end of a connection, handshakes that are none, and certificates that change or expire.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, IsCa, KeyPair,
    date_time_ymd, generate_simple_self_signed,
};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::harness::http::HOST;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{
    Client, PATIENCE, Plan, Site, Slot, eventually, pseudo_random, request, unix_now,
};

/// Writes a new certificate and its key; the certificate.
fn certify(dir: &Path) -> CertificateDer<'static> {
    let names = [HOST, "other.example", "127.0.0.1"].map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

pub fn trusting(
    certificates: &[&CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add((*certificate).clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// A plan that speaks TLS, and its certificate.
pub fn plan(plan: Plan) -> (Plan, CertificateDer<'static>) {
    let certificate = certify(plan.dir());
    let (cert, key) = (plan.dir().join("cert.pem"), plan.dir().join("key.pem"));
    (
        plan.set("http_certfile", cert.display())
            .set("http_keyfile", key.display()),
        certificate,
    )
}

/// A site with a file of ten digits, a client's configuration, and the target of the file.
fn digits() -> (Site, Arc<ClientConfig>, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = plan(Plan::new());
    let site = plan.seed(&path, b"0123456789").start();
    (
        site,
        Arc::new(trusting(&[&certificate], BOTH)),
        format!("/files/{path}"),
    )
}

#[test]
fn both_versions_upload_and_download() {
    let (plan, certificate) = plan(Plan::new());
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
fn application_protocol_and_names() {
    let (site, config, target) = digits();
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
    // A client without ALPN is as welcome; one that speaks only HTTP/2 never gets it.
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
fn the_end_is_announced() {
    let (site, config, target) = digits();
    // rustls reports an end without close_notify as an error, which `ends` would show.
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
    // A half close by the client's alert: its answer still comes.
    let mut client = Client::tls(site.http, &config, HOST);
    client.send(&request("GET", &target, &[], b""));
    client.shut_write();
    assert_eq!(client.reply().is(200).body, b"0123456789");
    client.ends();
}

#[test]
fn idle_tls_ends_with_its_alert() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = plan(Plan::alone().set("idle_timeout", 1));
    let site = plan.seed(&path, b"0123456789").start();
    let mut client = Client::tls(site.http, &Arc::new(trusting(&[&certificate], BOTH)), HOST);
    client.get(&format!("/files/{path}")).is(200);
    client.ends();
}

#[test]
fn many_requests_in_one_record() {
    let (site, config, target) = digits();
    let mut client = Client::tls(site.http, &config, HOST);
    // What was decrypted already is announced by no event of the socket.
    client.send(&request("GET", &target, &[], b"").repeat(40));
    for _ in 0..40 {
        assert_eq!(client.reply().is(200).body, b"0123456789");
    }
}

#[test]
fn refusals_linger_over_tls() {
    let (site, config, _) = digits();
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
fn a_new_certificate_on_reload() {
    let (plan, old) = plan(Plan::alone());
    let mut site = plan.start();
    let old_config = Arc::new(trusting(&[&old], BOTH));
    let mut kept = Client::tls(site.http, &old_config, HOST);
    kept.get("/").is(200);

    let new = certify(site.dir.path());
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let new_config = Arc::new(trusting(&[&new], BOTH));
    Client::tls(site.http, &new_config, HOST).get("/").is(200);
    assert!(
        Client::try_tls(site.http, &old_config, HOST).is_err(),
        "the old certificate is still shown"
    );
    // Nothing was dropped.
    kept.get("/").is(200);

    // A faulty one is reported, and the last good one stays.
    site.program.allow("config not reloaded");
    fs::write(site.dir.path().join("cert.pem"), "no certificate at all").unwrap();
    site.program.signal(Signal::HUP);
    site.program
        .wait_line(&["ERROR", "config not reloaded ", "why="]);
    Client::tls(site.http, &new_config, HOST).get("/").is(200);
    kept.get("/").is(200);
}

#[test]
fn no_early_data() {
    let (site, config, target) = digits();
    let mut config = (*config).clone();
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        // The second time the session may be resumed.
        let mut client = Client::tls(site.http, &config, HOST);
        assert!(!client.session().is_early_data_accepted());
        client.get(&target).is(200);
    }
}

#[test]
fn returning_clients_resume() {
    let (plan, certificate) = plan(Plan::alone());
    let site = plan.start();
    let kind = |config: &Arc<ClientConfig>| {
        let mut client = Client::tls(site.http, config, HOST);
        client.get("/").is(200);
        client.session().handshake_kind()
    };
    let stranger = |versions| {
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
        // However many others came meanwhile, and without memory for them.
        let stranger = stranger(versions);
        kind(&stranger);
        let before = site.program.memory("VmRSS:");
        for _ in 0..300 {
            assert_eq!(kind(&stranger), Some(HandshakeKind::Full));
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
    let (plan, certificate) = plan(Plan::new());
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
    let (plan, certificate) = plan(Plan::new());
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
    // Several parts: heads and files take turns.
    let fields = [("Range", "bytes=0-9,20000-59999,16000000-16999999")];
    let parts = client.ask("GET", &slot.get, &fields, b"").is(206).body;
    for range in [0..10, 20_000..60_000, 16_000_000..17_000_000] {
        let part = &body[range.clone()];
        let there = parts.windows(part.len()).any(|window| window == part);
        assert!(there, "{range:?}");
    }
}

#[test]
fn an_end_without_its_alert() {
    let (plan, certificate) = plan(Plan::new());
    let mut site = plan.start();
    let config = Arc::new(trusting(&[&certificate], BOTH));
    let connect = || {
        let session = ClientConnection::new(Arc::clone(&config), HOST.try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(site.http).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(session, socket)
    };
    // After a whole request: it is answered.
    let mut stream = connect();
    stream.write_all(&request("GET", "/", &[], b"")).unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    // Within a body: what came of it is dropped, and the slot is as good as before.
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
    site.program.wait_line(&["upload broken off"]);
    let mut client = Client::tls(site.http, &config, HOST);
    client.ask("PUT", &slot.put, &[], b"hello").is(201);
    assert_eq!(client.get(&slot.get).is(200).body, b"hello");
}

#[test]
fn who_does_not_read_costs_little() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(14, 30_000_000);
    let (plan, certificate) = plan(Plan::alone());
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
    // Others are served meanwhile, over and over, until the sockets are full for sure.
    for _ in 0..200 {
        warm.get("/").is(200);
    }
    let grown = site.program.memory("VmRSS:").saturating_sub(before);
    assert!(grown < 20 * 150, "20 slow readers cost {grown} KiB");
    // Nothing is lost for those who read after all.
    let mut client = clients.pop().unwrap();
    let mut came = Vec::new();
    while came.len() < body.len() {
        let more = client.read(64 * 1024).unwrap();
        assert!(!more.is_empty(), "the end after {} bytes", came.len());
        came.extend(more);
    }
    assert!(came == body);
}

/// Who forgets the `s` of https is told so, in plain text, and can read it.
#[test]
fn plain_http_is_told() {
    let (site, config, target) = digits();
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
            // All of it can be sent before the answer is read.
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
    // In segments of one byte: one answer all the same.
    let client = Client::over(TcpStream::connect(site.http).unwrap());
    let mut writer = client.writer();
    for byte in &cases[0] {
        writer.write_all(&[*byte]).unwrap();
        thread::yield_now();
    }
    let mut client = client;
    client.reply().is(400);
    client.ends();
    // Within TLS, nothing of it counts.
    let mut client = Client::tls(site.http, &config, HOST);
    client.get(&target).is(200);
    let told = site.program.lines();
    let told = told.iter().filter(|line| line.contains("speaks HTTPS"));
    assert_eq!(told.count(), cases.len() + 1);
}

/// A record of TLS.
fn record(kind: u8, version: [u8; 2], content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, version[0], version[1]][..], &length, content].concat()
}

/// A ClientHello as clients sent it that knew no later version than this one.
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
    let (site, config, target) = digits();
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
    // SSL 2.0: 46 bytes that begin in another way.
    let mut client = Client::over(TcpStream::connect(site.http).unwrap());
    let mut hello = vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10];
    hello.extend([
        1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80, 4, 0, 0x80, 5, 0, 0x80, 6, 0, 0x40, 7, 0, 0xc0,
    ]);
    hello.extend([7; 16]);
    client.send(&hello);
    let answer = client.drain();
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    // The hello is sound but for its version: with that of TLS 1.2 it is answered.
    let mut client = Client::over(TcpStream::connect(site.http).unwrap());
    client.send(&old_hello([3, 3]));
    client.shut_write();
    assert_eq!(client.drain()[..3], [22, 3, 3]);
    Client::tls(site.http, &config, HOST).get(&target).is(200);
}

/// A connection with its handshake done, whose socket can be written to behind its back.
fn shaken(site: &Site, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
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

#[test]
fn handshakes_that_are_none() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = plan(
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

    let body = &hello[5..];
    let with = |place: usize, byte: u8| {
        let mut changed = hello.clone();
        changed[place] = byte;
        changed
    };
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
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
            [&hello[..], &pseudo_random(30, 5000)].concat(),
        ),
        (
            "the hello, then plain data",
            [&hello[..], &record(23, [3, 3], b"GET / HTTP/1.1\r\n\r\n")].concat(),
        ),
        (
            "warnings without end",
            record(21, [3, 3], &[1, 90]).repeat(20_000),
        ),
        (
            "the hello, then warnings",
            [&hello[..], &record(21, [3, 3], &[1, 90]).repeat(20_000)].concat(),
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
        // A first byte that is no letter, or it would be a plain request.
        cases.push(("noise", [&[noise[3] | 0x80][..], &noise].concat()));
    }
    for length in 0..hello.len() {
        cases.push(("a cut hello", hello[..length].to_vec()));
    }
    for (what, bytes) in &cases {
        for resets in [false, true] {
            let mut client = Client::over(TcpStream::connect(site.http).unwrap());
            // It may hang up at any byte.
            let _ = client.try_send(bytes);
            if resets {
                client.reset();
                continue;
            }
            // It may be gone already.
            let _ = client.writer().shutdown(Shutdown::Write);
            let answer = client.drain();
            // Records, or nothing; never plain text.
            let kind = answer.first().copied().unwrap_or(22);
            assert!(matches!(kind, 20..=23), "{what}: {kind}");
        }
    }
    // Those that fall silent are left when their time is over, in every state; all at the same time.
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
        client.send(&hello);
        silent.push((name, client));
    }
    site.program.rests("handshakes that stall");
    for (_, client) in &mut silent {
        client.drain();
    }
    drop(silent);
    // A client that does not trust the certificate says so and goes.
    let stranger = Arc::new(trusting(&[], BOTH));
    assert!(Client::try_tls(site.http, &stranger, HOST).is_err());
    // After a good handshake: silence ends in order, anything but records with an alert.
    let mut mute = Client::tls(site.http, &config, HOST);
    mute.ends();
    for (what, bytes) in [
        ("noise", pseudo_random(32, 5000)),
        ("plain text", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (
            "data that was never encrypted",
            record(23, [3, 3], &pseudo_random(33, 500)),
        ),
        ("a plain alert", record(21, [3, 3], &[1, 0])),
        ("another hello", hello.clone()),
        ("a record over all bounds", vec![23, 3, 3, 0xff, 0xff]),
        (
            "cipher changes without end",
            record(20, [3, 3], &[1]).repeat(20_000),
        ),
    ] {
        for versions in [&BOTH[..1], &BOTH[1..]] {
            let config = Arc::new(trusting(&[&certificate], versions));
            let mut stream = shaken(&site, &config);
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
    eventually("all of them to be gone", || {
        site.program.sockets() <= sockets
    });
    let grown = site.program.memory("VmHWM:").saturating_sub(memory);
    assert!(grown < 4096, "broken handshakes cost {grown} KiB");
    site.program.rests("after broken handshakes");
    Client::tls(site.http, &config, HOST).get(&target).is(200);
}

/// Certificates come and go under load: no connection is dropped and no request fails, and who comes after the reload
/// sees the new one.
#[test]
fn reloads_under_load() {
    const ROUNDS: usize = 10;
    let certificates: Vec<CertifiedKey<KeyPair>> = (0..=ROUNDS)
        .map(|_| generate_simple_self_signed([HOST.to_owned()]).unwrap())
        .collect();
    let ders: Vec<_> = certificates.iter().map(|made| made.cert.der()).collect();
    let config = trusting(&ders, BOTH);
    let (plan, _) = plan(Plan::new());
    let install = |dir: &Path, made: &CertifiedKey<KeyPair>| {
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    install(plan.dir(), &certificates[0]);
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let large = pseudo_random(34, 8_000_000);
    let mut site = plan.seed(&path, &large).start();
    let target = format!("/files/{path}");
    let slots: Vec<Vec<Slot>> = (0..3)
        .map(|_| {
            (0..40)
                .map(|i| site.slot(ROMEO, &format!("{i}.bin"), 70_000, None))
                .collect()
        })
        .collect();
    let upload = pseudo_random(35, 70_000);

    let over = AtomicBool::new(false);
    let requests = AtomicUsize::new(0);
    let http = site.http;
    let is_over = || over.load(Ordering::Relaxed);
    let one_more = || requests.fetch_add(1, Ordering::Relaxed);
    let connect = || Client::tls(http, &Arc::new(config.clone()), HOST);
    thread::scope(|scope| {
        // One that stays, and one after the other, with uploads and downloads.
        for slots in &slots {
            let (connect, upload, is_over, one_more) = (&connect, &upload, &is_over, &one_more);
            scope.spawn(move || {
                let mut kept = connect();
                let mut slots = slots.iter();
                while !is_over() {
                    kept.get("/").is(200);
                    if let Some(slot) = slots.next() {
                        let mut fresh = connect();
                        fresh.ask("PUT", &slot.put, &[], upload).is(201);
                        assert!(kept.get(&slot.get).is(200).body == *upload);
                    } else {
                        connect().get("/").is(200);
                    }
                    one_more();
                }
            });
        }
        // A download that lasts through all of it.
        scope.spawn(|| {
            let mut slow = connect();
            slow.send(&request("GET", &target, &[], b""));
            assert_eq!(slow.reply_head().is(200).body_length, large.len());
            let mut came = Vec::new();
            while came.len() < large.len() {
                let most = if is_over() { 1 << 20 } else { 2000 };
                let piece = slow.read(most).unwrap();
                assert!(!piece.is_empty(), "dropped after {} bytes", came.len());
                came.extend(piece);
                if !is_over() {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            assert!(came == large);
        });
        // The end comes in any case, or the others would go on for ever.
        let reloaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (round, made) in certificates.iter().enumerate().skip(1) {
                let before = requests.load(Ordering::Relaxed);
                install(site.dir.path(), made);
                site.program.signal(Signal::HUP);
                site.program.wait_lines(&["config reloaded"], round);
                let mut fresh = connect();
                let shown = fresh.session().peer_certificates().unwrap();
                assert!(
                    shown[0] == *made.cert.der(),
                    "an old certificate in round {round}"
                );
                fresh.get("/").is(200);
                eventually("requests between two reloads", || {
                    requests.load(Ordering::Relaxed) > before + 3
                });
            }
        }));
        over.store(true, Ordering::Relaxed);
        reloaded.unwrap();
    });
    // No connection was given up by the program either.
    let lines = site.program.lines();
    assert!(
        !lines.iter().any(|line| line.contains("broken off")),
        "{}",
        lines.join("\n")
    );
}

/// Writes a certificate that expires so many seconds from now, with the issuer's behind it if there is one.
fn expiring(
    dir: &Path,
    seconds: i64,
    issuer: Option<&CertifiedIssuer<'_, KeyPair>>,
) -> CertificateDer<'static> {
    let end = unix_now().checked_add_signed(seconds).unwrap();
    let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        None => params.self_signed(&key).unwrap(),
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
    };
    let chain = made.pem() + &issuer.map(|issuer| issuer.pem()).unwrap_or_default();
    fs::write(dir.join("cert.pem"), chain).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    made.der().clone()
}

const SOON: &str = "certificate expires soon at=";
const OVER: &str = "certificate has expired at=";

#[test]
fn the_end_of_a_certificate_is_told_ahead() {
    const DAY: i64 = 86_400;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2090, 1, 1);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (days, issuer, expected) in [
        (15, None, None),
        (13, None, Some(("WARN", SOON))),
        (1, Some(&issuer), Some(("WARN", SOON))),
        (400, Some(&issuer), None),
        (-1, None, Some(("ERROR", OVER))),
        (-400, Some(&issuer), Some(("ERROR", OVER))),
    ] {
        let (plan, _) = plan(Plan::alone());
        expiring(plan.dir(), days * DAY, issuer);
        let mut site = plan.start();
        // Whatever it says about it, it serves: what a client makes of the certificate is up to the client.
        let stranger = Arc::new(trusting(&[], BOTH));
        let refused = Client::try_tls(site.http, &stranger, HOST).unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        site.program.wait_line(&["ready "]);
        if let Some((level, text)) = expected {
            site.program.allow(text);
            site.program.wait_line(&[level, text]);
        }
        // At a reload it is said again; and a new certificate ends it.
        site.program.signal(Signal::HUP);
        site.program.wait_line(&["config reloaded"]);
        if let Some((level, text)) = expected {
            site.program.wait_lines(&[level, text], 2);
        }
        let new = expiring(site.dir.path(), 90 * DAY, None);
        site.program.signal(Signal::HUP);
        site.program.wait_lines(&["config reloaded"], 2);
        let config = Arc::new(trusting(&[&new], BOTH));
        Client::tls(site.http, &config, HOST).get("/").is(200);
        let lines = site.program.lines();
        let told = lines
            .iter()
            .filter(|line| line.contains("certificate"))
            .count();
        assert_eq!(
            told,
            if expected.is_some() { 2 } else { 0 },
            "{}",
            lines.join("\n")
        );
    }
}

/// The running program says it, too, at the moment when there is something to say.
#[test]
fn a_certificate_expires_while_it_is_served() {
    const FORTNIGHT: i64 = 14 * 86_400;
    thread::scope(|scope| {
        for (seconds, before, then) in [
            (FORTNIGHT + 4, None, ("WARN", SOON)),
            (4, Some(SOON), ("ERROR", OVER)),
        ] {
            scope.spawn(move || {
                // Nothing else is to wake it meanwhile.
                let (plan, _) = plan(Plan::alone().set("header_timeout", 60));
                let certificate = expiring(plan.dir(), seconds, None);
                let mut site = plan.start();
                let config = Arc::new(trusting(&[&certificate], BOTH));
                let mut kept = Client::tls(site.http, &config, HOST);
                kept.get("/").is(200);
                let (level, text) = then;
                for part in before.into_iter().chain([text]) {
                    site.program.allow(part);
                    site.program.wait_line(&[part]);
                }
                let line = site.program.wait_line(&[level, text]);
                let at = line.split("at=").nth(1).unwrap().to_owned();
                assert!(
                    at.ends_with('Z') && at.len() == "2026-01-01T00:00:00Z".len(),
                    "{line}"
                );
                // It goes on.
                kept.get("/").is(200);
                site.program.rests("a certificate near its end");
                let lines = site.program.lines();
                let told = lines.iter().filter(|line| line.contains(text)).count();
                assert_eq!(told, 1, "{}", lines.join("\n"));
            });
        }
    });
}
