//! TLS configuration: loads certificate and key; TLS 1.2 and 1.3, ALPN `http/1.1`, any server name, no early data.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};

use crate::certificate;

/// The supported cipher suites, all of them AEADs with forward secrecy. ChaCha20 comes first, because it is fast on
/// every processor; see [`cipher_suites`].
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// The cipher suites in order of preference for this processor. AES-128 is fastest where the processor has AES
/// instructions; a Raspberry Pi before the fifth generation has none.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    let mut suites = CIPHER_SUITES.to_vec();
    if has_aes() {
        let is_chacha = |suite: &SupportedCipherSuite| {
            matches!(
                suite.suite(),
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        };
        suites.sort_by_key(is_chacha);
    }
    suites
}

/// Whether the processor has instructions for AES and for the carry-less multiplication of GCM.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Why certificate and key cannot be used; a message for the operator.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The certificate and key of the server, ready for use.
#[derive(Clone, Debug)]
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// The end of the certificate's validity, if it could be parsed.
    pub not_after: Option<SystemTime>,
}

/// Reads a PEM chain, the own certificate first, and its key.
pub fn load(certfile: &Path, keyfile: &Path) -> Result<Identity, TlsError> {
    let unreadable = |path: &Path, what: &str, error: pem::Error| {
        let why = match error {
            pem::Error::NoItemsFound => format!("it holds no {what}"),
            pem::Error::Io(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        TlsError(format!(
            "{}: cannot read the {what}: {why}.",
            path.display()
        ))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certfile)
        .and_then(Iterator::collect)
        .map_err(|e| unreadable(certfile, "certificate", e))?;
    let Some(own) = chain.first() else {
        return Err(unreadable(
            certfile,
            "certificate",
            pem::Error::NoItemsFound,
        ));
    };
    let not_after = certificate::not_after(own);
    let key =
        PrivateKeyDer::from_pem_file(keyfile).map_err(|e| unreadable(keyfile, "private key", e))?;
    let unusable = |error: rustls::Error| {
        TlsError(format!(
            "{} and {}: cannot be used together: {error}.",
            certfile.display(),
            keyfile.display()
        ))
    };
    // Clients show no certificates here, so the code that would verify theirs can stay out of the program.
    let provider = CryptoProvider {
        cipher_suites: cipher_suites(),
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: &[],
            mapping: &[],
        },
        ..ring::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    // The order above holds, whatever the client's own is.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever comes back shows a ticket that holds the whole session under a key of ours, new every six hours: it
    // spares both sides the signature and the certificate, and nothing is stored here.
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Identity {
        config: Arc::new(config),
        not_after,
    })
}
