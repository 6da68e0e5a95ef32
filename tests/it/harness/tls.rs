//! Certificates, and clients that speak TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::harness::http::HOST;
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Plan, Site};

/// Writes a new certificate and its key; returns the certificate.
pub fn certify(dir: &Path) -> CertificateDer<'static> {
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

/// A plan with TLS, and its certificate.
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
pub fn digits() -> (Site, Arc<ClientConfig>, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let (plan, certificate) = plan(Plan::new());
    let site = plan.seed(&path, b"0123456789").start();
    (
        site,
        Arc::new(trusting(&[&certificate], BOTH)),
        format!("/files/{path}"),
    )
}

/// The configuration of a server with the certificate that [`certify`] wrote.
pub fn server(dir: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(BOTH)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    Arc::new(config)
}
