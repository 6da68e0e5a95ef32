//! Over TLS.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Configurations of a server for a name, and of a client that trusts it.
fn configs(name: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn tls_script(config: &Arc<ServerConfig>, then: impl FnOnce(&mut Tls) + Send + 'static) -> Script {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    script(move |stream| {
        let mut tls = StreamOwned::new(connection, stream);
        then(&mut tls);
    })
}

fn speak(tls: &mut Tls, text: impl AsRef<[u8]>) {
    tls.write_all(text.as_ref()).unwrap();
    tls.flush().unwrap();
}

fn harness(port: u16, config: &Arc<ClientConfig>) -> Harness {
    let url = format!("https://localhost:{port}/");
    Harness::new(&url, Some(Arc::clone(config)))
}

#[test]
fn requests_and_streams_pass_over_tls() {
    let (server_config, config) = configs("localhost");
    let body = pattern(3_000_000);
    let expected = body.clone();
    let (port, server) = serve(vec![tls_script(&server_config, move |tls| {
        read_head(tls);
        speak(tls, response(200, "small"));
        read_head(tls);
        speak(tls, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(read_exactly(tls, expected.len()) == expected);
        speak(tls, response(200, ""));
        read_head(tls);
        speak(
            tls,
            format!(
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n",
                expected.len()
            ),
        );
        speak(tls, &expected);
        read_head(tls);
        speak(tls, response(200, "last"));
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        wait_for_end(tls);
    })]);
    let mut harness = harness(port, &config);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"small");
    let id = harness.begin(put(body.len() as u64));
    assert_eq!(harness.send(id, &body), Ok(body.len()));
    assert_eq!(harness.head(id).unwrap().status, 200);
    assert_eq!(harness.read(id, 10).unwrap(), b"");
    harness.upstream.end_stream(id);
    let id = harness.begin(get("/"));
    harness.head(id).unwrap();
    assert!(harness.read(id, 30_000).unwrap() == body);
    harness.upstream.end_stream(id);
    harness.submit(get("/"));
    assert_eq!(harness.result().unwrap().body, b"last");
    assert_eq!(harness.upstream.counts().connections, 1);
    harness.until(|upstream| (upstream.open_connections() == 0).then_some(()));
    server.join().unwrap();
}

#[test]
fn a_body_that_ends_with_tls_needs_its_end() {
    let (server_config, config) = configs("localhost");
    let answer = |closes: bool| {
        tls_script(&server_config, move |tls| {
            read_head(tls);
            speak(tls, "HTTP/1.1 200 X\r\n\r\nbody");
            if closes {
                tls.conn.send_close_notify();
                tls.flush().unwrap();
            }
        })
    };
    let (port, server) = serve(vec![answer(true), answer(false)]);
    let mut harness = harness(port, &config);
    harness.submit(once("/"));
    assert_eq!(harness.result().unwrap().body, b"body");
    harness.submit(once("/"));
    let failure = harness.result().unwrap_err();
    assert_eq!(failure.message, "the response was cut off");
    server.join().unwrap();
}

#[test]
fn tls_that_fails_is_an_outage() {
    let (server_config, _) = configs("localhost");
    let (other_config, config) = configs("localhost");
    let (wrong_name, wrong_name_client) = configs("other.example");
    let handshake = |config: &Arc<ServerConfig>| tls_script(config, wait_for_end);
    let plain = |text: &'static [u8]| {
        script(move |mut stream| {
            read_exactly(&mut stream, 5);
            let _ = stream.write_all(text);
            wait_for_end(&mut stream);
        })
    };
    for (script, config, expected) in [
        (handshake(&server_config), &config, "certificate"),
        (handshake(&wrong_name), &wrong_name_client, "certificate"),
        (
            plain(b"HTTP/1.1 400 X\r\n\r\n"),
            &config,
            "does not speak TLS",
        ),
        (plain(&[21, 3, 3, 0, 2, 2, 40]), &config, "HandshakeFailure"),
        (plain(&[0xff; 100]), &config, "127.0.0.1"),
        (
            script(|mut stream| {
                read_exactly(&mut stream, 5);
                stream.shutdown(Shutdown::Write).unwrap();
                wait_for_end(&mut stream);
            }),
            &config,
            "closed in the TLS handshake",
        ),
    ] {
        let (port, server) = serve(vec![script]);
        let mut harness = harness(port, config);
        harness.submit(get("/"));
        let failure = harness.result().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains(expected), "{failure:?}");
        harness.submit(get("/"));
        assert!(harness.upstream.take_finished().is_some());
        server.join().unwrap();
    }
    drop(other_config);
}

#[test]
fn a_handshake_has_a_deadline() {
    let (_, config) = configs("localhost");
    let (port, server) = serve(vec![script(|mut stream| wait_for_end(&mut stream))]);
    let mut harness = harness(port, &config);
    harness.submit(get("/"));
    let (seconds, (_, result)) = harness.later(Upstream::take_finished);
    assert!((4..=6).contains(&seconds), "{seconds}");
    assert!(result.unwrap_err().message.contains("took too long"));
    drop(harness);
    server.join().unwrap();
}
