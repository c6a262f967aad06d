//! Whom the agent believes: at enrolment exactly one fingerprint, afterwards exactly one authority, judged by
//! the clock floor and never by the wall clock.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use thinlane_model::{Endpoint, Wall};

use crate::clock::{self, Floor};
use crate::identity::{Identity, Validity};

/// The agent channel's application protocol.
pub const ALPN_CHANNEL: &[u8] = b"thinlane/1";
/// The API's.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The SHA-256 of a certificate's DER, written `sha256:HEX`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is written sha256: and 64 hexadecimal digits; `thinlane-controller init` prints it")]
pub struct FingerprintError;

impl Fingerprint {
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(FingerprintError)?;
        // Tools such as openssl print colons.
        let digits: String = digits.chars().filter(|letter| *letter != ':').collect();
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| FingerprintError)?;
        bytes.try_into().map(Self).map_err(|_| FingerprintError)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(&format!("sha256:{}", HEXLOWER.encode(&self.0)))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

/// The channel's side of TLS: 1.3 only, our certificate, their authority, no resumption (so that each
/// connection is judged anew).
pub fn channel_config(identity: &Identity, floor: Floor) -> anyhow::Result<Arc<ClientConfig>> {
    let judge = Judge { known: authority(identity.ca.clone())?, time: Time::Floor(floor) };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.for_tls())
        .context("the gateway's certificate and key")?;
    config.alpn_protocols = vec![ALPN_CHANNEL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What the controller's chain was found to be during an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The authority with the expected fingerprint.
    Authority(CertificateDer<'static>),
    /// Others: these are their fingerprints, the last one most likely the authority's.
    Others(Vec<Fingerprint>),
}

/// Where [`enrol_config`]'s verifier leaves what it found.
pub type FoundCell = Arc<Mutex<Option<Found>>>;

/// TLS towards a controller of which only the fingerprint of its authority is known.
pub fn enrol_config(expected: Fingerprint) -> anyhow::Result<(Arc<ClientConfig>, FoundCell)> {
    let found = FoundCell::default();
    let pinned = Pinned { expected, found: found.clone() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), found))
}

/// The name that the controller's certificate must carry.
pub fn server_name(endpoint: &Endpoint) -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(endpoint.host().to_owned()).with_context(|| format!("{:?} is no host name", endpoint.host()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authority(certificate: CertificateDer<'static>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// By which clock a certificate is judged.
#[derive(Debug)]
enum Time {
    Floor(Floor),
    /// At enrolment nobody has vouched for a time yet, and a person is at hand.
    Wall,
}

/// The usual verification, at another time than the wall clock's.
#[derive(Debug)]
struct Judge {
    known: Arc<WebPkiServerVerifier>,
    time: Time,
}

impl Judge {
    /// The time to judge `certificate` by: a certificate that begins later than the clock is not refused for
    /// that, since the clock may be behind but the authority's word may not.
    fn time(&self, certificate: &[u8]) -> Result<UnixTime, Error> {
        let begins = Validity::of(certificate).map_err(|_| CertificateError::BadEncoding)?.not_before;
        let clock = match &self.time {
            Time::Floor(floor) => floor.time(clock::boot()),
            Time::Wall => clock::wall(),
        };
        Ok(unix(clock.max(begins)))
    }
}

fn unix(wall: Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(wall.as_millis()).unwrap_or(0)))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let time = self.time(end_entity)?;
        self.known.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.known.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.known.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_verify_schemes()
    }
}

/// Looks for one fingerprint in the chain, then verifies against that certificate alone.
#[derive(Debug)]
struct Pinned {
    expected: Fingerprint,
    found: FoundCell,
}

/// The chain holds no certificate with the expected fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("the controller shows another fingerprint")]
struct OtherFingerprint;

impl Pinned {
    fn leave(&self, found: Found) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = || std::iter::once(end_entity).chain(intermediates);
        let Some(ca) = shown().find(|der| Fingerprint::of(der) == self.expected) else {
            self.leave(Found::Others(shown().map(|der| Fingerprint::of(der)).collect()));
            return Err(CertificateError::Other(OtherError(Arc::new(OtherFingerprint))).into());
        };
        let ca = ca.clone().into_owned();
        let judge = Judge { known: authority(ca.clone())?, time: Time::Wall };
        let verified = judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.leave(Found::Authority(ca));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub mod tests;
