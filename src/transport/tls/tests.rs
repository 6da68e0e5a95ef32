use std::io::{Read, Write};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConnection, HandshakeKind, RootCertStore, ServerConnection, SupportedProtocolVersion,
};

use super::*;

const PLAIN: usize = 64 * 1024;

/// The configurations of both sides; the client limits its records to `fragment` bytes.
fn configs(
    version: &'static SupportedProtocolVersion,
    fragment: Option<usize>,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.ticketer = ring::Ticketer::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.max_fragment_size = fragment;
    (Arc::new(server), Arc::new(client))
}

/// One side, with the buffers that the reactor would provide.
struct Peer {
    tls: Tls,
    wire: Vec<u8>,
    buffer: Vec<u8>,
}

impl Peer {
    fn new(config: Arc<ServerConfig>) -> Peer {
        Peer::of(Tls::new(config).unwrap())
    }

    fn of(tls: Tls) -> Peer {
        Peer {
            tls,
            wire: vec![0; wire_size(PLAIN)],
            buffer: vec![0; PLAIN],
        }
    }

    /// Receives bytes in pieces of at most `piece`, for a reader of `wanted` bytes at a time; returns the plaintext.
    fn receive(
        &mut self,
        mut bytes: &[u8],
        piece: usize,
        wanted: usize,
    ) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            let room = self.tls.room(wanted, &mut self.wire).expect("room");
            let n = room.len().min(piece).min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            let buffer = &mut self.buffer[..wanted];
            let mut filled = self.tls.received(n, &mut self.wire, buffer)?;
            assert!(
                self.tls.buffers.partial.len() <= MAX_RECORD,
                "a partial record"
            );
            assert!(
                self.tls.buffers.plain.len() <= MAX_RECORD,
                "unread plaintext"
            );
            while filled > 0 {
                plain.extend_from_slice(&buffer[..filled]);
                filled = self.tls.take_plain(buffer);
            }
        }
        Ok(plain)
    }

    /// Takes the bytes that must be sent now.
    fn must_flush(&mut self) -> Vec<u8> {
        let bytes = self.tls.must_flush().to_vec();
        self.tls.sent(bytes.len());
        bytes
    }

    fn send(&mut self, plain: &[u8]) -> Vec<u8> {
        let n = self.tls.encrypt(plain, &mut self.wire).unwrap();
        self.wire[..n].to_vec()
    }

    /// Whether the connection buffers nothing.
    fn has_empty_buffers(&self) -> bool {
        let tls = &self.tls.buffers;
        [&tls.partial, &tls.plain, &tls.unsent]
            .iter()
            .all(|kept| kept.capacity() == 0)
    }
}

fn client_output(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Passes the bytes to the client and returns the plaintext.
fn client_receives(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let readable = client
            .process_new_packets()
            .unwrap()
            .plaintext_bytes_to_read();
        let at = plain.len();
        plain.resize(at + readable, 0);
        client.reader().read_exact(&mut plain[at..]).unwrap();
    }
    plain
}

/// Both sides after the handshake; the server received the client's bytes in pieces of `piece`.
fn established(
    version: &'static SupportedProtocolVersion,
    fragment: Option<usize>,
    piece: usize,
) -> (Peer, ClientConnection) {
    let (server, client) = configs(version, fragment);
    let mut side = Peer::new(server);
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    client.set_buffer_limit(None);
    while client.is_handshaking() || side.tls.is_handshaking() {
        assert_eq!(
            side.receive(&client_output(&mut client), piece, 100)
                .unwrap(),
            b""
        );
        assert_eq!(client_receives(&mut client, &side.must_flush()), b"");
    }
    (side, client)
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The body lengths of the records in a byte stream.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        bytes = &rest[length..];
    }
    lengths
}

#[test]
fn plaintext_is_received_in_pieces_of_any_size() {
    let body = random_bytes(50_000);
    for version in [&TLS12, &TLS13] {
        for (fragment, piece) in [
            (None, 1),
            (None, 4096),
            (None, usize::MAX),
            (Some(100), 7),
            (Some(100), usize::MAX),
        ] {
            let (mut side, mut client) = established(version, fragment, piece);
            for wanted in [1, 100, 16 * 1024, PLAIN] {
                client.writer().write_all(&body).unwrap();
                let bytes = client_output(&mut client);
                let came = side.receive(&bytes, piece, wanted).unwrap();
                assert!(came == body, "{version:?} {fragment:?} {piece} {wanted}");
            }
            let answer = side.send(b"done");
            assert_eq!(client_receives(&mut client, &answer), b"done");
            assert!(
                side.has_empty_buffers(),
                "an idle connection buffers {:?}",
                side.tls
            );
        }
    }
}

#[test]
fn full_records_are_received_whole() {
    let (mut side, mut client) = established(&TLS13, None, usize::MAX);
    client.writer().write_all(&random_bytes(4 * PLAIN)).unwrap();
    let bytes = client_output(&mut client);
    let mut at = 0;
    while at < bytes.len() {
        let room = side.tls.room(PLAIN, &mut side.wire).unwrap();
        let n = room.len().min(bytes.len() - at);
        room[..n].copy_from_slice(&bytes[at..at + n]);
        at += n;
        let filled = side.tls.received(n, &mut side.wire, &mut side.buffer);
        assert_eq!(filled, Ok(PLAIN));
        assert!(side.tls.buffers.plain.is_empty());
    }
}

#[test]
fn plaintext_is_sent_in_full_records() {
    for (version, overhead) in [(&TLS12, 24), (&TLS13, 17)] {
        let (mut side, mut client) = established(version, None, usize::MAX);
        // Session tickets are sent with the first response.
        let first = side.send(b"first");
        assert_eq!(client_receives(&mut client, &first), b"first");
        for length in [1, MAX_FRAGMENT, MAX_FRAGMENT + 1, PLAIN] {
            let body = random_bytes(length);
            let bytes = side.send(&body);
            assert!(client_receives(&mut client, &bytes) == body);
            let expected: Vec<usize> = body
                .chunks(MAX_FRAGMENT)
                .map(|c| c.len() + overhead)
                .collect();
            assert_eq!(records(&bytes), expected);
        }
        // Bytes that the socket does not accept are buffered.
        let bytes = side.send(b"slow");
        side.tls.buffer_unsent(&bytes);
        assert_eq!(side.tls.must_flush(), bytes);
        side.tls.sent(3);
        assert_eq!(side.tls.must_flush(), &bytes[3..]);
        side.tls.sent(bytes.len() - 3);
        assert!(side.has_empty_buffers());
    }
}

#[test]
fn tickets_wait_for_the_first_response() {
    let (mut side, mut client) = established(&TLS13, None, usize::MAX);
    assert!(side.tls.must_flush().is_empty());
    assert_eq!(client.tls13_tickets_received(), 0);
    let answer = side.send(b"answer");
    assert_eq!(client_receives(&mut client, &answer), b"answer");
    assert_eq!(client.tls13_tickets_received(), 2);
    assert!(side.has_empty_buffers());
    // Or for the end of the connection.
    let (mut side, mut client) = established(&TLS13, None, usize::MAX);
    side.tls.close().unwrap();
    assert_eq!(client_receives(&mut client, &side.must_flush()), b"");
    assert_eq!(client.tls13_tickets_received(), 2);
}

#[test]
fn key_updates_are_followed() {
    let (mut side, mut client) = established(&TLS13, None, usize::MAX);
    for round in 0..100 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 10]).unwrap();
        let bytes = client_output(&mut client);
        assert_eq!(side.receive(&bytes, 11, 100).unwrap(), [round; 10]);
        let answer = side.send(&[round; 20]);
        assert_eq!(client_receives(&mut client, &answer), [round; 20]);
    }
    assert!(side.has_empty_buffers());
    // A flood of key updates without data is an error.
    let mut updates = Vec::new();
    for _ in 0..100 {
        client.refresh_traffic_keys().unwrap();
        updates.extend(client_output(&mut client));
    }
    assert!(side.receive(&updates, usize::MAX, 100).is_err());
}

#[test]
fn close_notify_is_sent_and_received() {
    for version in [&TLS12, &TLS13] {
        let (mut side, mut client) = established(version, None, usize::MAX);
        client.writer().write_all(b"last").unwrap();
        client.send_close_notify();
        let mut bytes = client_output(&mut client);
        bytes.extend_from_slice(b"whatever follows is ignored");
        assert_eq!(side.receive(&bytes, usize::MAX, 100).unwrap(), b"last");
        assert!(side.tls.is_closed());
        // The other direction is still open.
        let answer = side.send(b"answer");
        assert_eq!(client_receives(&mut client, &answer), b"answer");
        side.tls.close().unwrap();
        let end = side.must_flush();
        assert_eq!(client_receives(&mut client, &end), b"");
        assert!(client.process_new_packets().unwrap().peer_has_closed());
        side.tls.close().unwrap();
        assert!(
            side.tls.must_flush().is_empty(),
            "close_notify is sent once"
        );
        assert!(side.has_empty_buffers());
    }
}

#[test]
fn invalid_input_is_answered_with_an_alert() {
    let (server, _) = configs(&TLS13, None);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &random_bytes(1000),
        &[22, 3, 1, 0xff, 0xff],
    ] {
        let mut side = Peer::new(Arc::clone(&server));
        assert!(side.receive(bytes, usize::MAX, 100).is_err());
        let alert = side.must_flush();
        assert_eq!(alert.first(), Some(&21));
        side.tls.close().unwrap();
        assert!(side.tls.must_flush().is_empty());
        assert!(side.has_empty_buffers());
    }
    // An altered record.
    for version in [&TLS12, &TLS13] {
        let (mut side, mut client) = established(version, None, usize::MAX);
        client.writer().write_all(b"hello").unwrap();
        let mut bytes = client_output(&mut client);
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        assert!(side.receive(&bytes, usize::MAX, 100).is_err());
        assert!(!side.tls.must_flush().is_empty());
    }
}

#[test]
fn an_endless_handshake_message_is_rejected() {
    let (server, _) = configs(&TLS13, None);
    let mut side = Peer::new(server);
    // A ClientHello of 60,000 bytes, one byte in each record.
    let hello = [&[1, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    for (number, byte) in hello.iter().enumerate() {
        let Some(room) = side.tls.room(100, &mut side.wire) else {
            assert!(number < MAX_RECORD);
            return;
        };
        let record = [22, 3, 1, 0, 1, *byte];
        let n = room.len().min(record.len());
        room[..n].copy_from_slice(&record[..n]);
        if side
            .tls
            .received(n, &mut side.wire, &mut side.buffer)
            .is_err()
        {
            return;
        }
        assert!(side.tls.buffers.partial.len() <= MAX_RECORD);
    }
    panic!("the message was accepted");
}

/// Moves what the server has to send to a client, in pieces; returns the plaintext.
fn server_sends(server: &mut ServerConnection, client: &mut Peer, piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes).unwrap();
    }
    client.receive(&bytes, piece, 100).unwrap()
}

/// Passes the bytes to the server and returns the plaintext.
fn server_receives(server: &mut ServerConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).unwrap();
        let state = server.process_new_packets().unwrap();
        let at = plain.len();
        plain.resize(at + state.plaintext_bytes_to_read(), 0);
        server.reader().read_exact(&mut plain[at..]).unwrap();
    }
    plain
}

fn client_of(config: &Arc<ClientConfig>, name: &str) -> Peer {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tls = Tls::client(Arc::clone(config), name).unwrap();
    assert!(tls.is_client() && tls.is_handshaking());
    Peer::of(tls)
}

#[test]
fn the_client_side_sends_and_receives() {
    for (version, piece) in [(&TLS12, 1), (&TLS12, 9999), (&TLS13, 1), (&TLS13, 9999)] {
        let (server_config, config) = configs(version, None);
        // The second connection resumes the session of the first one.
        for round in 0..2 {
            let mut server = ServerConnection::new(Arc::clone(&server_config)).unwrap();
            server.set_buffer_limit(None);
            let mut client = client_of(&config, "localhost");
            while client.tls.is_handshaking() {
                server_receives(&mut server, &client.must_flush());
                assert_eq!(server_sends(&mut server, &mut client, piece), b"");
            }
            // In TLS 1.3 the end of the handshake is sent with the request.
            let request = client.send(b"request");
            assert_eq!(server_receives(&mut server, &request), b"request");
            let resumed = server.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round == 1, "{version:?}");
            let body = random_bytes(50_000);
            server.writer().write_all(&body).unwrap();
            assert!(server_sends(&mut server, &mut client, piece) == body);
            assert!(client.has_empty_buffers());
            server.send_close_notify();
            server_sends(&mut server, &mut client, piece);
            assert!(client.tls.is_closed());
            client.tls.close().unwrap();
            let end = client.must_flush();
            assert_eq!(server_receives(&mut server, &end), b"");
            assert!(server.process_new_packets().unwrap().peer_has_closed());
        }
    }
}

#[test]
fn the_client_side_verifies_the_server() {
    for version in [&TLS12, &TLS13] {
        let (server_config, config) = configs(version, None);
        let mut server = ServerConnection::new(Arc::clone(&server_config)).unwrap();
        let mut client = client_of(&config, "127.0.0.1");
        server_receives(&mut server, &client.must_flush());
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        let error = client.receive(&bytes, usize::MAX, 100).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)));
        // The server is told.
        let alert = client.must_flush();
        server.read_tls(&mut &alert[..]).unwrap();
        assert!(server.process_new_packets().is_err());
        assert!(client.has_empty_buffers());
    }
}

#[test]
fn alerts_from_the_server_are_errors() {
    let (_, config) = configs(&TLS13, None);
    let mut client = client_of(&config, "localhost");
    let handshake_failure = [21, 3, 3, 0, 2, 2, 40];
    let error = client.receive(&handshake_failure, 1, 100).unwrap_err();
    assert!(matches!(error, rustls::Error::AlertReceived(_)));
    let client = client_of(&config, "localhost");
    assert!(client.tls.is_plain_text(b"HTTP/1.1 400 Bad Request\r\n"));
}
