//! Which certificate is believed.

use reqwest::blocking::ClientBuilder;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What TLS asks of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// There is no TLS.
    None,
    /// A certificate of an authority that the system believes, for this name or address.
    System,
    /// The same, of an authority in this file alone.
    Authority(PathBuf),
    /// The very certificate with this SHA-256.
    Fingerprint([u8; 32]),
    /// Nothing.
    Insecure,
}

impl Tls {
    /// Sets up a client.
    ///
    /// # Errors
    /// What is wrong with the file of the authority.
    pub(crate) fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, String> {
        // A second call changes nothing.
        let _ = ring::default_provider().install_default();
        Ok(match self {
            // No authority at all: the system's are not even read.
            Tls::None => builder.tls_certs_only([]),
            Tls::System => builder,
            Tls::Authority(path) => builder.tls_certs_only(authority(path)?),
            Tls::Fingerprint(digest) => builder.tls_backend_preconfigured(pinned(*digest)?),
            Tls::Insecure => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
        })
    }
}

/// Reads a fingerprint: 64 hexadecimal digits, with colons between the bytes if need be.
///
/// # Errors
/// If it is something else.
pub(crate) fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let digits = text.replace(':', "");
    let wrong = || format!("{text:?} is not 64 hexadecimal digits");
    let is_hexadecimal = digits.len() == 64 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    if !is_hexadecimal {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

fn authority(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
    let found = reqwest::Certificate::from_pem_bundle(&bytes)
        .map_err(|_| cannot(&"it is not a PEM file of certificates"))?;
    if found.is_empty() { Err(cannot(&"no certificate is in it")) } else { Ok(found) }
}

fn pinned(digest: [u8; 32]) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { digest, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes one certificate, and whoever has its key.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if Sha256::digest(end_entity.as_ref()).as_slice() == self.digest {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("its certificate has another fingerprint".to_string()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&plain), Ok([0xab; 32]));
        assert_eq!(fingerprint(&colons), Ok([0xab; 32]));
        for wrong in ["", "ab", &"xy".repeat(32), &"é".repeat(32), &"ab".repeat(33)] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
