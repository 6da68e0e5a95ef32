//! The certificate of all servers, generated for each run, and the client's TLS configuration. The client trusts only
//! this certificate, offers one key exchange and one cipher suite, so that all servers do the same arithmetic, and does
//! not resume sessions, so that every handshake is a full one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme, version};

use crate::common::outcome::Outcome;

/// The host name in the certificate.
pub const NAME: &str = "localhost";

/// The handshakes, for the report.
pub const DESCRIPTION: &str =
    "TLS 1.3, ECDSA P-256, X25519, AES-256-GCM; no resumption (verified by the client)";

#[derive(Debug)]
pub struct Certificate {
    /// A PEM file.
    pub chain: PathBuf,
    /// A PEM file.
    pub key: PathBuf,
    /// A PEM file with key and chain, as lighttpd expects it.
    pub both: PathBuf,
    /// For clients that trust it.
    pub client: Arc<ClientConfig>,
}

impl Certificate {
    pub fn new(folder: &Path) -> Outcome<Certificate> {
        let failed = |e: rcgen::Error| format!("cannot generate a certificate: {e}");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])
            .and_then(|parameters| parameters.self_signed(&key))
            .map_err(failed)?;
        let save = |name: &str, text: &str| {
            let path = folder.join(name);
            match fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(e) => Err(format!("{}: {e}", path.display())),
            }
        };
        let (chain, key) = (certificate.pem(), key.serialize_pem());
        let tls_failed = |e: rustls::Error| format!("TLS of the client: {e}");
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519],
            ..ring::default_provider()
        };
        let provider = Arc::new(provider);
        let verifier = PinnedVerifier {
            certificate: certificate.der().clone(),
            provider: Arc::clone(&provider),
        };
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(tls_failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
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

/// Trusts one certificate by comparing its bytes. Verifying the chain would cost the client as much as the whole
/// handshake costs the server, and the server would wait for the client.
#[derive(Debug)]
struct PinnedVerifier {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
