//! `upslot health`: a health check for service managers and containers without a shell or an HTTP client.
//!
//! It requests `/health` of the local API, which covers the link and the store. Without an API, or if the API does not
//! accept this host, it requests the public page `/`, which only shows that the loop runs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::config::{Config, Listen};
use crate::setup;

/// Time limit of the whole check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of connecting to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest response that is read; bytes.
const MAX_RESPONSE: u64 = 16 * 1024;

/// A word in the public page `/` that other programs' pages do not contain.
pub(crate) const PAGE_MARK: &str = "upslot";

/// Checks the upslot that runs with this configuration. One line, healthy or not; more if the configuration is invalid.
pub fn ask(config_path: &Path) -> Result<String, String> {
    // The secrets and the certificate that the configuration names are not needed.
    let reading = setup::read_text(config_path).map_err(|failure| {
        let errors = failure.errors.iter().map(|error| format!("error: {error}"));
        errors.collect::<Vec<_>>().join("\n")
    })?;
    let config = reading.config;
    let (sender, receiver) = mpsc::channel();
    // On a separate thread, because not every step has a timeout; it ends with the process.
    let check = move || {
        let _ = sender.send(ask_listeners(&config));
    };
    thread::Builder::new()
        .spawn(check)
        .map_err(|error| format!("unhealthy: cannot start the check: {error}"))?;
    receiver.recv_timeout(TIMEOUT).unwrap_or_else(|_| {
        Err(format!(
            "unhealthy: no answer within {} s",
            TIMEOUT.as_secs()
        ))
    })
}

/// A request, and the listeners to send it to.
struct Probe<'a> {
    listeners: &'a [Listen],
    page: &'a str,
    tls: bool,
    token: Option<&'a str>,
}

/// The response of a listener.
struct HealthResponse {
    from: String,
    status: u16,
    body: String,
}

fn ask_listeners(config: &Config) -> Result<String, String> {
    let public = Probe {
        listeners: &config.listen,
        page: "/",
        tls: config.tls.is_some(),
        token: None,
    };
    let Some(api) = &config.api else {
        return check_page(&public.ask()?, "");
    };
    let local = Probe {
        listeners: &api.listen,
        page: "/health",
        tls: false,
        token: api.token.as_ref().map(|token| token.expose()),
    };
    let answer = local.ask()?;
    match answer.status {
        200 => Ok(format!("healthy: {answer}")),
        403 => check_page(
            &public.ask()?,
            ", but /health was not checked, because api.allow does not include this host",
        ),
        _ => Err(format!("unhealthy: {answer}")),
    }
}

/// Evaluates the public page.
fn check_page(answer: &HealthResponse, but: &str) -> Result<String, String> {
    match answer.status {
        200 if answer.body.contains(PAGE_MARK) => {
            Ok(format!("healthy: {} answers{but}", answer.from))
        }
        200 => Err(format!("unhealthy: {} is another program", answer.from)),
        _ => Err(format!("unhealthy: {answer}")),
    }
}

impl std::fmt::Display for HealthResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HealthResponse { from, status, body } = self;
        // One readable line, also if another program answers.
        let body: String = body
            .trim()
            .replace('\n', ", ")
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        write!(f, "{from} says {status}: {body}")
    }
}

impl Probe<'_> {
    /// Tries one listener after the other until one responds.
    fn ask(&self) -> Result<HealthResponse, String> {
        let mut failures = Vec::new();
        for listen in self.listeners {
            if matches!(listen, Listen::Tcp(address) if address.port() == 0) {
                failures.push(format!("the port of {listen} is not known"));
                continue;
            }
            match self.ask_at(listen) {
                Ok((status, body)) => {
                    return Ok(HealthResponse {
                        from: format!("{listen}{}", self.page),
                        status,
                        body,
                    });
                }
                Err(error) => failures.push(format!("{listen}: {error}")),
            }
        }
        Err(format!("unhealthy: no answer: {}", failures.join("; ")))
    }

    fn ask_at(&self, listen: &Listen) -> io::Result<(u16, String)> {
        let address = match listen {
            Listen::Unix(path) => return self.exchange(UnixStream::connect(path)?),
            Listen::Tcp(address) => *address,
        };
        let mut connected = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in reachable(address) {
            connected = connected
                .or_else(|_: io::Error| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT));
        }
        match self.tls {
            true => self.exchange(encrypted(connected?)?),
            false => self.exchange(connected?),
        }
    }

    fn exchange(&self, mut stream: impl Read + Write) -> io::Result<(u16, String)> {
        let token = self
            .token
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\r\n",
            self.page
        );
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let mut bytes = Vec::new();
        stream.take(MAX_RESPONSE).read_to_end(&mut bytes)?;
        parse(&bytes).ok_or_else(|| io::Error::other("no HTTP answer"))
    }
}

/// The status and the body of a response that ends with the connection.
fn parse(bytes: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let rest = head.strip_prefix("HTTP/1.")?;
    let status = rest.split(' ').nth(1)?;
    let digits = status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit());
    Some((status.parse().ok().filter(|_| digits)?, body.to_owned()))
}

/// The addresses at which this host reaches a listener: loopback for an unspecified address.
pub(crate) fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let port = address.port();
    let v4 = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port);
    let v6 = SocketAddr::new(IpAddr::from(Ipv6Addr::LOCALHOST), port);
    match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => vec![v4],
        SocketAddr::V6(address) if address.ip().is_unspecified() => vec![v4, v6],
        other => vec![other],
    }
}

fn encrypted(stream: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// Accepts any certificate: the check is whether the service responds, the certificate is issued for its public name, and
/// nothing secret is sent.
#[derive(Debug)]
pub(crate) struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_responses() {
        let body = |text: &str| Some((200, text.to_owned()));
        for (bytes, expected) in [
            (
                &b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nlink up\n"[..],
                body("link up\n"),
            ),
            (b"HTTP/1.0 200\r\n\r\n", body("")),
            (b"HTTP/1.1 503 No\r\n\r\nx", Some((503, "x".to_owned()))),
            (b"HTTP/1.1 2000 OK\r\n\r\n", None),
            (b"HTTP/1.1 +20 OK\r\n\r\n", None),
            (b"HTTP/2 200\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"SSH-2.0-x\r\n\r\n", None),
            (b"", None),
            (b"\xff\xfe\r\n\r\n", None),
        ] {
            assert_eq!(
                parse(bytes),
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn the_host_itself_reaches_every_listener() {
        for (listens, reached) in [
            ("127.0.0.1:1", &["127.0.0.1:1"][..]),
            ("192.0.2.7:1", &["192.0.2.7:1"]),
            ("0.0.0.0:1", &["127.0.0.1:1"]),
            ("[::]:1", &["127.0.0.1:1", "[::1]:1"]),
            ("[2001:db8::1]:1", &["[2001:db8::1]:1"]),
        ] {
            let found = reachable(listens.parse().unwrap());
            let reached: Vec<SocketAddr> = reached.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(found, reached, "{listens}");
        }
    }

    #[test]
    fn a_response_is_one_line() {
        let answer = HealthResponse {
            from: "127.0.0.1:1/health".into(),
            status: 503,
            body: format!("link down\nstore\x1b[31m good\n{}", "x".repeat(1000)),
        };
        let text = answer.to_string();
        assert!(text.starts_with("127.0.0.1:1/health says 503: link down, store[31m good, xxx"));
        assert!(text.len() < 300 && !text.contains(['\n', '\x1b']));
    }
}
