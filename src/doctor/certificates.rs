//! TLS: the certificate chain, its name and expiry, and the protocol versions.
//!
//! Handshakes accept any certificate, so that a wrong one does not hide other problems; the chain is verified afterwards.
//! Nothing secret is sent: the links to test files are valid once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, Error, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::certificate::{self, Names};
use crate::client::{Connection, Limits, Route, describe};
use crate::doctor::judge::{Problem, Verdict, finding};
use crate::doctor::report::{Finding, quoted};
use crate::health::AnyCertificate;
use crate::now;
use crate::tls;

/// A certificate that expires sooner than this is a notice.
const WARNING_DAYS: u64 = 14;

const DAY: u64 = 86_400;

/// The roots that certificates are verified against.
#[derive(Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// Where they come from.
    path: PathBuf,
}

impl Roots {
    /// Reads the bundle that `--ca-file` or `SSL_CERT_FILE` names, or that of the system.
    pub fn load(given: Option<&Path>) -> Result<Roots, String> {
        let Some(path) = given.map(Path::to_owned).or_else(tls::system_bundle) else {
            return Err(
                "this system has no root certificates: install ca-certificates, or use --ca-file"
                    .to_owned(),
            );
        };
        let store = tls::read_roots("--ca-file", &path);
        let store = store.map_err(|error| error.why.trim_end_matches('.').to_owned())?;
        Ok(Roots {
            store: Arc::new(store),
            path,
        })
    }

    /// Whether a root has this subject.
    fn have(&self, subject: &[u8]) -> bool {
        let mut roots = self.store.roots.iter();
        roots.any(|root| *root.subject == *subject)
    }
}

/// The client's configuration for these protocol versions.
pub fn config(versions: &[&'static SupportedProtocolVersion]) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Checks one address: handshake, chain and versions. The findings, and whether requests are possible.
pub fn check(
    route: &Route,
    roots: &Result<Roots, String>,
    limits: &Limits,
    now: SystemTime,
) -> (Vec<Finding>, bool) {
    let connection = match Connection::open(route, limits) {
        Ok(connection) => connection,
        Err(error) => return (vec![handshake_failure(route, &error)], false),
    };
    let chain = connection.tls().and_then(|tls| tls.peer_certificates());
    let chain = chain.unwrap_or_default();
    let certificate = match roots {
        Err(why) => Finding::skipped("tls-certificate", why.clone()),
        Ok(roots) => {
            let verdict = verify(roots, chain, &route.origin.host, now);
            finding("tls-certificate", at(route, verdict))
        }
    };
    let version = connection.tls().and_then(|tls| tls.protocol_version());
    let versions = at(route, versions(route, version, limits));
    (vec![certificate, finding("tls-versions", versions)], true)
}

/// Verifies the chain of one address as a client does; an error if that is not possible.
pub fn check_chain(
    route: &Route,
    roots: &Result<Roots, String>,
    limits: &Limits,
    now: SystemTime,
) -> Result<Verdict, String> {
    let roots = roots.as_ref().map_err(String::clone)?;
    let connection = Connection::open(route, limits).map_err(|error| describe(&error))?;
    let chain = connection.tls().and_then(|tls| tls.peer_certificates());
    let chain = chain.unwrap_or_default();
    Ok(verify(roots, chain, &route.origin.host, now))
}

/// A verdict with the address that it is about.
fn at(route: &Route, verdict: Verdict) -> Verdict {
    let prefix = |text: String| format!("{}: {text}", route.endpoint);
    verdict.map(prefix).map_err(|problem| Problem {
        found: prefix(problem.found),
        ..problem
    })
}

fn handshake_failure(route: &Route, error: &io::Error) -> Finding {
    let authority = &route.origin.authority;
    let text = format!("{authority}: no TLS handshake: {}", quoted(describe(error)));
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let remedy = match inner {
        Some(Error::InvalidMessage(_)) => {
            "this port does not speak TLS: let the web server do so (nginx: listen 443 ssl)"
        }
        Some(Error::AlertReceived(_)) => {
            "the web server refuses: it needs TLS 1.2 or 1.3, and a certificate for this name"
        }
        _ => "configure TLS 1.2 and 1.3 and a certificate for this name in the web server",
    };
    Finding::fail("tls-certificate", "tls-handshake", text, remedy)
}

/// Verifies a chain as a client does.
fn verify(roots: &Roots, chain: &[CertificateDer<'_>], host: &str, now: SystemTime) -> Verdict {
    let Some((own, intermediates)) = chain.split_first() else {
        return Err(Problem::new(
            "tls-chain",
            "the server sends no certificate",
            "configure one",
        ));
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.store), provider);
    let since_1970 = Duration::from_secs(now::unix(now));
    let verified = match (verifier.build(), ServerName::try_from(host)) {
        (Ok(verifier), Ok(name)) => {
            let time = UnixTime::since_unix_epoch(since_1970);
            verifier.verify_server_cert(own, intermediates, &name, &[], time)
        }
        (Err(error), _) => Err(Error::General(error.to_string())),
        (_, Err(error)) => Err(Error::General(error.to_string())),
    };
    match verified {
        Ok(_) => expiry(own, chain.len(), now),
        Err(Error::InvalidCertificate(error)) => Err(invalid(&error, chain, host, roots)),
        Err(error) => {
            let text = format!("the certificate cannot be verified: {error}");
            Err(Problem::new(
                "tls-chain",
                text,
                "use a certificate of a public authority",
            ))
        }
    }
}

/// Judges the remaining life of a valid certificate.
fn expiry(own: &CertificateDer<'_>, length: usize, now: SystemTime) -> Verdict {
    let end = certificate::not_after(own);
    let Some(left) = end.and_then(|end| end.duration_since(now).ok()) else {
        return Ok(format!("valid, chain of {length}"));
    };
    let days = left.as_secs() / DAY;
    let text = format!("valid for {days} days, chain of {length}");
    match days < WARNING_DAYS {
        true => Err(Problem::new("tls-expires-soon", text, "check the automatic renewal").minor()),
        false => Ok(text),
    }
}

/// What is wrong with an invalid chain.
fn invalid(
    error: &CertificateError,
    chain: &[CertificateDer<'_>],
    host: &str,
    roots: &Roots,
) -> Problem {
    use CertificateError as E;
    let own = chain.first().and_then(|own| certificate::names(own));
    match error {
        E::Expired | E::ExpiredContext { .. } => {
            let end = chain.first().and_then(|own| certificate::not_after(own));
            let text = match end {
                Some(end) => format!("the certificate expired at {}", now::date_time(end)),
                None => "the certificate has expired".to_owned(),
            };
            Problem::new(
                "tls-expired",
                text,
                "renew the certificate, and reload the web server",
            )
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            let text = "the certificate is not valid yet";
            Problem::new(
                "tls-not-yet-valid",
                text,
                "check the clocks of this machine and of the issuer",
            )
        }
        E::NotValidForName => wrong_name(host, &[]),
        E::NotValidForNameContext { presented, .. } => wrong_name(host, presented),
        E::UnknownIssuer => unknown_issuer(chain, own, roots),
        // A self-signed certificate is often that of an authority, too, which is another error.
        _ if own.is_some_and(|own| own.is_self_signed()) => unknown_issuer(chain, own, roots),
        other => {
            let text = format!("the certificate is not valid: {other}");
            Problem::new("tls-chain", text, "use a certificate of a public authority")
        }
    }
}

fn wrong_name(host: &str, presented: &[String]) -> Problem {
    let names = match presented {
        [] => String::new(),
        names => {
            // As in `DnsName("up.example")`.
            let name = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let names: Vec<String> = names.iter().map(name).collect();
            format!(", but for {}", quoted(names.join(" ")))
        }
    };
    let text = format!("the certificate is not for {host}{names}");
    let remedy =
        format!("get a certificate for {host}, and let the web server send it for this name");
    Problem::new("tls-wrong-name", text, remedy)
}

fn unknown_issuer(chain: &[CertificateDer<'_>], own: Option<Names<'_>>, roots: &Roots) -> Problem {
    if own.is_some_and(|own| own.is_self_signed()) {
        let text = "the certificate is self-signed, so that clients refuse it";
        return Problem::new(
            "tls-self-signed",
            text,
            "get a certificate of a public authority, such as Let's Encrypt",
        );
    }
    let last = chain.last().and_then(|last| certificate::names(last));
    let issuer = last.map_or(String::new(), |last| quoted(last.issuer_text()));
    let bundle = roots.path.display();
    if last.is_some_and(|last| last.is_self_signed() || roots.have(last.issuer)) {
        let text =
            format!("no authority in {bundle} signed the certificate (chain ends with {issuer})");
        return Problem::new(
            "tls-unknown-issuer",
            text,
            "use a certificate of a public authority, or for a private one --ca-file",
        );
    }
    let number = chain.len();
    let certificates = if number == 1 {
        "certificate"
    } else {
        "certificates"
    };
    let text = format!(
        "the chain is incomplete: the server sends {number} {certificates}, and that of {issuer} is missing"
    );
    let remedy = "let the web server send the whole chain (fullchain.pem instead of cert.pem), or for a private authority use --ca-file";
    Problem::new("tls-intermediate-missing", text, remedy)
}

/// Which versions the server speaks besides the one that it chose.
fn versions(route: &Route, chosen: Option<ProtocolVersion>, limits: &Limits) -> Verdict {
    let speaks = |version: &'static SupportedProtocolVersion| {
        if chosen == Some(version.version) {
            return Ok(());
        }
        let tls = config(&[version]).map_err(|error| error.to_string())?;
        let route = Route {
            tls: Some(tls),
            ..route.clone()
        };
        let opened = Connection::open(&route, limits);
        opened.map(|_| ()).map_err(|error| describe(&error))
    };
    let (old, new) = (
        speaks(&rustls::version::TLS12),
        speaks(&rustls::version::TLS13),
    );
    match (old, new) {
        (Ok(()), Ok(())) => Ok("TLS 1.2 and 1.3".to_owned()),
        (Ok(()), Err(_)) => {
            Err(Problem::new("tls-no-1.3", "TLS 1.2 only", "allow TLS 1.3 too").minor())
        }
        (Err(_), Ok(())) => {
            let remedy = "allow TLS 1.2 too: Android before version 10 needs it";
            Err(Problem::new("tls-no-1.2", "TLS 1.3 only", remedy).minor())
        }
        (Err(why), Err(_)) => Err(Problem::new("tls-handshake", why, "allow TLS 1.2 and 1.3")),
    }
}
