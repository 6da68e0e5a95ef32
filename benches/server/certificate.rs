//! The certificate that every server shows, made anew for each run, and what the client makes of it: it trusts nothing
//! else, offers one key exchange and one cipher suite, so that all servers do the same arithmetic, and resumes nothing,
//! so that every handshake is a full one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::crypto::{CryptoProvider, ring::cipher_suite, ring::kx_group};
use rustls::{ClientConfig, RootCertStore, version};

use crate::Outcome;

/// Whom the certificate is for.
pub const NAME: &str = "localhost";

/// What the handshakes consist of, for the user.
pub const SHOWN: &str =
    "TLS 1.3, ECDSA P-256, X25519, AES-256-GCM; the client resumes nothing and checks it";

#[derive(Debug)]
pub struct Certificate {
    /// PEM files.
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Key and chain in one, as lighttpd wants it.
    pub both: PathBuf,
    /// The client that trusts it.
    pub client: Arc<ClientConfig>,
}

impl Certificate {
    pub fn new(folder: &Path) -> Outcome<Certificate> {
        let made = |e: rcgen::Error| format!("The certificate: {e}");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])
            .and_then(|parameters| parameters.self_signed(&key))
            .map_err(made)?;
        let save = |name: &str, text: &str| {
            let path = folder.join(name);
            match fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(e) => Err(format!("{}: {e}", path.display())),
            }
        };
        let (chain, key) = (certificate.pem(), key.serialize_pem());
        let trusted = |e: rustls::Error| format!("The client's TLS: {e}");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).map_err(trusted)?;
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519],
            ..ring::default_provider()
        };
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(trusted)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Certificate {
            chain: save("chain.pem", &chain)?,
            key: save("key.pem", &key)?,
            both: save("both.pem", &format!("{key}{chain}"))?,
            client: Arc::new(client),
        })
    }
}
