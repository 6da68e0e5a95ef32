//! TLS configuration: TLS 1.2 and 1.3, ALPN `http/1.1`, no early data. As a server, it loads certificate and key and
//! takes any server name; as a client of an object store, it loads the root certificates.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};

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

/// Why a file that the configuration names cannot be used; a message for the operator.
#[derive(Debug)]
pub struct FileError {
    /// The configuration key that names the file.
    pub about: &'static str,
    /// What is wrong with the file: a sentence in lower case.
    pub why: String,
}

/// The certificate and key of the server, ready for use.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    pub config: Arc<ServerConfig>,
    /// The end of the certificate's validity, if it could be parsed.
    pub not_after: Option<SystemTime>,
}

/// Maximum number of bytes of an unsuitable file that are examined to describe its contents.
const MAX_LOOKED_AT: u64 = 64 << 10;

/// The configuration keys of the two files.
const CERTFILE: &str = "http_certfile";
const KEYFILE: &str = "http_keyfile";

/// Loads a PEM certificate chain, the server's own certificate first, and its private key. Fails with what is wrong with either.
pub fn load(certfile: &Path, keyfile: &Path) -> Result<TlsIdentity, Vec<FileError>> {
    let chain = read_certificates(CERTFILE, certfile);
    let (chain, key) = match (chain, read_key(keyfile)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let not_after = chain.first().and_then(|own| certificate::not_after(own));
    let config = server_config(chain, key).map_err(|error| {
        vec![FileError {
            about: KEYFILE,
            why: format!(
                "{} does not match {CERTFILE} {}: {error}.",
                keyfile.display(),
                certfile.display()
            ),
        }]
    })?;
    Ok(TlsIdentity {
        config: Arc::new(config),
        not_after,
    })
}

fn read_certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unreadable(key, path, pem::Error::NoItemsFound)),
        Err(error) => Err(unreadable(key, path, error)),
    }
}

fn read_key(keyfile: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(keyfile).map_err(|error| unreadable(KEYFILE, keyfile, error))
}

fn unreadable(key: &'static str, path: &Path, error: pem::Error) -> FileError {
    let what = match key {
        KEYFILE => "a private key in PEM",
        _ => "a certificate in PEM",
    };
    let shown = path.display();
    let why = match error {
        pem::Error::Io(error) => format!("cannot read {shown}: {error}."),
        pem::Error::NoItemsFound => {
            let found = other_content(path);
            format!("found {found} in {shown}, expected {what}.")
        }
        _ if other_content(path) == LOCKED => {
            format!("found {LOCKED} in {shown}, expected {what}.")
        }
        other => format!("found broken PEM in {shown} ({other:?}), expected {what}."),
    };
    FileError { about: key, why }
}

const LOCKED: &str = "a key with a passphrase (openssl pkey writes it without one)";

/// Describes the contents of a file that does not hold the expected item.
fn other_content(path: &Path) -> &'static str {
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_LOOKED_AT).read_to_string(&mut text));
    match read {
        Err(_) => "no PEM",
        Ok(_) if text.contains("ENCRYPTED") => LOCKED,
        Ok(_) if text.contains("PRIVATE KEY-----") => "a private key alone",
        Ok(_) if text.contains("CERTIFICATE REQUEST-----") => "a certificate request",
        Ok(_) if text.contains("CERTIFICATE-----") => "a certificate alone",
        Ok(_) if text.trim().is_empty() => "nothing",
        Ok(_) => "no PEM",
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    // Client certificates are not requested, so the code to verify signatures can be left out of the binary.
    let provider = CryptoProvider {
        cipher_suites: cipher_suites(),
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: &[],
            mapping: &[],
        },
        ..ring::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // The server's order of preference applies.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Session tickets hold the whole session state, encrypted under a key that rotates every six hours. Resumption
    // saves both sides the signature and the certificate, without a session store on the server.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Bundles of root certificates, by system.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The root certificates of this system: the file that `SSL_CERT_FILE` names, or the system's bundle.
pub fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| {
        let mut bundles = BUNDLES.iter().map(PathBuf::from);
        bundles.find(|path| path.exists())
    })
}

/// Reads root certificates from a PEM file. Certificates in unknown formats are left out; there is at least one other.
/// `key` names the file in the configuration.
pub fn read_roots(key: &'static str, path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(read_certificates(key, path)?) {
        (0, _) => Err(FileError {
            about: key,
            why: format!(
                "found no usable certificate in {}, expected root certificates.",
                path.display()
            ),
        }),
        _ => Ok(roots),
    }
}

/// Sessions that a client keeps for resumption. Each stands for a host, and there is only that of the store.
const KEPT_SESSIONS: usize = 8;

/// The configuration of a client that trusts these roots.
pub fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = CryptoProvider {
        cipher_suites: cipher_suites(),
        ..ring::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
    Ok(Arc::new(config))
}
