//! Trust in one CA and nothing else: the pinned one, or on first contact the one with a given fingerprint.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};

/// SHA-256 of a certificate's DER; in text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub fn of(der: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "sha256:{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl FromStr for Fingerprint {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let shape = || "a fingerprint is written sha256: and 64 hexadecimal digits".to_owned();
        let lower = text.trim().to_ascii_lowercase();
        let digits: String =
            lower.strip_prefix("sha256:").unwrap_or(&lower).chars().filter(|letter| *letter != ':').collect();
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).map_err(|_| shape())?;
        bytes.try_into().map(Fingerprint).map_err(|_| shape())
    }
}

/// Whom to believe.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The pinned CA.
    Ca(CertificateDer<'static>),
    /// The CA with this fingerprint, which the server sends in its chain.
    Fingerprint(Fingerprint),
    /// Nobody yet: every connection fails, and its CA is remembered so that a person can be asked.
    Nobody,
}

/// The CA that a server showed.
#[derive(Debug, Clone)]
pub struct SeenCa {
    pub certificate: CertificateDer<'static>,
    pub fingerprint: Fingerprint,
}

/// Why the last connection was refused.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// Another CA than the one that is trusted.
    Fingerprint { wanted: Fingerprint, shown: Fingerprint },
    /// No CA is trusted yet.
    Unknown { shown: Fingerprint },
    /// The right CA, but not a valid certificate of this host.
    Certificate(String),
}

/// Checks a server against `Trust`, and remembers what it saw.
pub struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    seen: Option<SeenCa>,
    rejection: Option<Rejection>,
}

impl Verifier {
    pub fn new(trust: Trust) -> Self {
        Self { trust, provider: Arc::new(rustls::crypto::ring::default_provider()), memory: Mutex::default() }
    }

    /// The CA of the last connection.
    pub fn seen(&self) -> Option<SeenCa> {
        self.lock().seen.clone()
    }

    /// Why the last connection was refused, once.
    pub fn take_rejection(&self) -> Option<Rejection> {
        self.lock().rejection.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject(&self, rejection: Rejection) -> rustls::Error {
        self.lock().rejection = Some(rejection);
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    }

    /// The CA to check against: the trusted one, if the chain leads there.
    fn anchor(&self, chain: &[&CertificateDer<'_>]) -> std::result::Result<CertificateDer<'static>, rustls::Error> {
        let last = chain.last().expect("a chain begins with the server's certificate");
        let shown = Fingerprint::of(last);
        let seen = SeenCa { certificate: (*last).clone().into_owned(), fingerprint: shown };
        self.lock().seen = Some(seen);
        let wanted = match &self.trust {
            Trust::Ca(ca) => Fingerprint::of(ca),
            Trust::Fingerprint(wanted) => *wanted,
            Trust::Nobody => return Err(self.reject(Rejection::Unknown { shown })),
        };
        let found = chain.iter().find(|certificate| Fingerprint::of(certificate) == wanted);
        match (found, &self.trust) {
            (Some(ca), _) => {
                let ca = (*ca).clone().into_owned();
                self.lock().seen = Some(SeenCa { certificate: ca.clone(), fingerprint: wanted });
                Ok(ca)
            }
            // A pinned CA need not be sent: then the signature decides, unless another CA was shown.
            (None, Trust::Ca(ca)) if chain.len() == 1 => Ok(ca.clone()),
            (None, _) => Err(self.reject(Rejection::Fingerprint { wanted, shown })),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Verifier").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).collect();
        let anchor = self.anchor(&chain)?;
        let mut roots = RootCertStore::empty();
        roots.add(anchor).map_err(|error| self.reject(Rejection::Certificate(explain(&error))))?;
        let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| self.reject(Rejection::Certificate(error.to_string())))?;
        web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| self.reject(Rejection::Certificate(explain(&error))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 or 1.3 with `verifier` as the only judge.
pub fn client_config(verifier: Arc<Verifier>) -> Result<rustls::ClientConfig> {
    let provider = verifier.provider.clone();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "it has expired, or this machine's clock is ahead".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "it is not valid yet, or this machine's clock is behind".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "it names other hosts than the one in the URL".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the pinned CA has not signed it".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_write_it() {
        let plain = "ab".repeat(32);
        let wanted: Fingerprint = format!("sha256:{plain}").parse().expect("a fingerprint");
        assert_eq!(wanted.to_string(), format!("sha256:{plain}"));
        let colons: Vec<&str> = std::iter::repeat_n("AB", 32).collect();
        for text in [plain.clone(), plain.to_uppercase(), format!("SHA256:{}", colons.join(":")), format!(" {plain}\n")]
        {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in ["", "sha256:", "sha1:abcd", &plain[..62], &format!("{plain}ab")] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
