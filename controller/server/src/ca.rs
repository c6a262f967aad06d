//! The controller's own certificate authority: its certificate, the server's, and those of the gateways.
//!
//! Certificates are ECDSA P-256 (the CA and the server) and carry whatever Ed25519 key a gateway made. A gateway is
//! known by its certificate's serial number and by the site id in its common name; nothing that it asks for in
//! its request is taken over but the key.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::{BASE64, HEXLOWER};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thinlane_model::{SiteId, Span, Wall};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::dir::{Dir, read_text, write_private, write_public};

/// How long each kind of certificate lasts.
const CA_LIFE: Span = Span::from_secs(20 * 365 * 86_400);
const SERVER_LIFE: Span = Span::from_secs(397 * 86_400);
const AGENT_LIFE: Span = Span::from_secs(90 * 86_400);
/// A server certificate with less left than this is made anew.
const SERVER_RENEW: Span = Span::from_secs(90 * 86_400);
/// Certificates begin this long before now: clocks differ.
const EARLY: Span = Span::from_secs(86_400);
/// A certificate request is at most this long.
pub const MOST_CSR: usize = 4096;

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A gateway's new certificate.
pub struct Issued {
    /// Its own, then the CA's.
    pub chain: Vec<CertificateDer<'static>>,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub not_after: Wall,
}

/// What the server shows: its chain (the CA's certificate last) and key.
pub struct ServerIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Why no certificate was made for a gateway.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("the certificate request is no base 64")]
    Base64,
    #[error("the certificate request is longer than {MOST_CSR} bytes")]
    Long,
    #[error("the certificate request cannot be read or its signature is wrong")]
    Malformed,
    #[error("the key in the certificate request is no Ed25519 key")]
    Algorithm,
    #[error("the certificate cannot be made: {0}")]
    Sign(rcgen::Error),
}

/// What a gateway's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    pub site: SiteId,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub not_after: Wall,
    /// The key that the gateway signs closing records with.
    pub key: [u8; 32],
}

impl Ca {
    /// Makes a new authority and writes it into the directory.
    pub fn create(dir: &Dir, name: &str, now: Wall) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(now, CA_LIFE, &random_serial()?);
        params.distinguished_name.push(DnType::CommonName, format!("Thinlane CA of {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        write_private(&dir.ca_key(), key.serialize_pem().as_bytes())?;
        write_public(&dir.ca(), certificate.pem().as_bytes())?;
        let der = certificate.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), der })
    }

    /// Reads the authority from the directory.
    pub fn load(dir: &Dir) -> Result<Self> {
        let key = KeyPair::from_pem(&read_text(&dir.ca_key())?)
            .with_context(|| format!("{} is no private key", dir.ca_key().display()))?;
        let der = read_chain(&dir.ca())?.into_iter().next().context("ca.pem holds no certificate")?;
        let issuer = Issuer::from_ca_cert_der(&der, key).context("ca.pem cannot be read")?;
        Ok(Self { issuer, der })
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// `sha256:` and the SHA-256 of the CA certificate's DER in hexadecimal: all that a stranger needs to trust it.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(&self.der)))
    }

    /// The server's certificate from the directory; made anew when it is missing, near its end, or for other names.
    pub fn server(&self, dir: &Dir, names: &[String], now: Wall) -> Result<ServerIdentity> {
        if let Some(found) = self.saved_server(dir, names, now) {
            return Ok(found);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(now, SERVER_LIFE, &random_serial()?);
        let sans = CertificateParams::new(names.to_vec()).context("a host name cannot stand in a certificate")?;
        params.subject_alt_names = sans.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("thinlane", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_private(&dir.server_key(), key.serialize_pem().as_bytes())?;
        write_public(&dir.server(), certificate.pem().as_bytes())?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!(error))?;
        Ok(ServerIdentity { chain: vec![certificate.der().clone(), self.der.clone()], key })
    }

    fn saved_server(&self, dir: &Dir, names: &[String], now: Wall) -> Option<ServerIdentity> {
        let der = read_chain(&dir.server()).ok()?.into_iter().next()?;
        let key = KeyPair::from_pem(&read_text(&dir.server_key()).ok()?).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let fresh = now + SERVER_RENEW < not_after(&certificate);
        let ours = certificate.issuer() == X509Certificate::from_der(&self.der).ok()?.1.subject();
        let fits = certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
        let mut wanted: Vec<String> = names.to_vec();
        wanted.sort();
        if !(fresh && ours && fits && saved_names(&certificate) == wanted) {
            return None;
        }
        let key = PrivateKeyDer::try_from(key.serialize_der()).ok()?;
        Some(ServerIdentity { chain: vec![der.clone(), self.der.clone()], key })
    }

    /// Makes a gateway's certificate from its request (PKCS#10 DER in base 64).
    pub fn agent_from_base64(&self, csr: &str, site: SiteId, now: Wall) -> Result<Issued, CsrError> {
        if csr.len() > 2 * MOST_CSR {
            return Err(CsrError::Long);
        }
        let der = BASE64.decode(csr.trim().as_bytes()).map_err(|_| CsrError::Base64)?;
        self.agent(&der, site, now)
    }

    /// Makes a gateway's certificate from its request (PKCS#10 DER), whose signature proves that it has the key.
    pub fn agent(&self, csr: &[u8], site: SiteId, now: Wall) -> Result<Issued, CsrError> {
        if csr.len() > MOST_CSR {
            return Err(CsrError::Long);
        }
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|_| CsrError::Malformed)?;
        if request.public_key.algorithm() != &rcgen::PKCS_ED25519 {
            return Err(CsrError::Algorithm);
        }
        let serial = random_serial().map_err(|_| CsrError::Sign(rcgen::Error::RingUnspecified))?;
        let mut params = params(now, AGENT_LIFE, &serial);
        params.distinguished_name.push(DnType::CommonName, site.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        request.params = params;
        let certificate = request.signed_by(&self.issuer).map_err(CsrError::Sign)?;
        let chain = vec![certificate.der().clone(), self.der.clone()];
        let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(|_| CsrError::Malformed)?;
        let (serial, not_after) = (serial_of(&parsed), not_after(&parsed));
        Ok(Issued { chain, serial, not_after })
    }
}

impl AgentIdentity {
    /// Reads a certificate that has been verified already; `None`: it is no gateway's.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let site = names.next()?.as_str().ok()?.parse().ok()?;
        let key = certificate.public_key();
        let ed25519 = key.algorithm.algorithm.to_id_string() == "1.3.101.112";
        let key = key.subject_public_key.data.as_ref().try_into().ok().filter(|_| ed25519)?;
        Some(Self { site, serial: serial_of(&certificate), not_after: not_after(&certificate), key })
    }
}

/// When a certificate ends, where it can be read.
pub fn end_of(der: &CertificateDer<'_>) -> Option<Wall> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| not_after(&certificate))
}

/// The names for the server's certificate: the hosts handed out and bound, and this machine itself.
pub fn server_names(hosts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = hosts.into_iter().collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.retain(|name| !name.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn params(now: Wall, life: Span, serial: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let at = |wall: Wall| date_time_ymd(1970, 1, 1) + Duration::from_secs(wall.as_secs().max(0) as u64);
    params.not_before = at(now - EARLY);
    params.not_after = at(now + life);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// 16 random bytes, the first neither zero nor with its high bit set: a positive number of full length.
fn random_serial() -> Result<[u8; 16]> {
    let mut serial: [u8; 16] = crate::random::bytes()?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

fn serial_of(certificate: &X509Certificate<'_>) -> String {
    HEXLOWER.encode(certificate.raw_serial())
}

fn not_after(certificate: &X509Certificate<'_>) -> Wall {
    Wall::from_millis(certificate.validity().not_after.timestamp().saturating_mul(1000))
}

fn saved_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut found: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(four) => Some(IpAddr::from(four).to_string()),
                Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string()),
            },
            _ => None,
        })
        .collect();
    found.sort();
    found
}

fn read_chain(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    use rustls_pki_types::pem::PemObject;
    let found = CertificateDer::pem_file_iter(path)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (tempfile::TempDir, Dir, Ca) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = Dir::new(place.path());
        let ca = Ca::create(&dir, "test", now()).expect("an authority");
        (place, dir, ca)
    }

    fn now() -> Wall {
        Wall::from_millis(1_795_317_223_000)
    }

    fn csr(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).expect("params");
        params.distinguished_name.push(DnType::CommonName, "site_zzzzzzzz");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serialize_request(key).expect("a request").der().to_vec()
    }

    #[test]
    fn a_gateway_gets_its_key_certified_and_nothing_else_that_it_asked_for() {
        let (_place, _dir, ca) = authority();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let site = SiteId::from_random([7; 5]);
        let issued = ca.agent(&csr(&key), site, now()).expect("a certificate");
        let identity = AgentIdentity::read(&issued.chain[0]).expect("a gateway's");
        assert_eq!((identity.site, &identity.serial), (site, &issued.serial));
        assert_eq!(identity.key.as_slice(), key.public_key_raw());
        assert_eq!(identity.not_after, now() + AGENT_LIFE);
        let (_, parsed) = X509Certificate::from_der(&issued.chain[0]).expect("X.509");
        assert!(!parsed.is_ca() && parsed.subject_alternative_name() == Ok(None));
    }

    #[test]
    fn a_request_with_a_wrong_signature_or_another_kind_of_key_is_refused() {
        let (_place, _dir, ca) = authority();
        let site = SiteId::from_random([7; 5]);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let mut bytes = csr(&key);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(ca.agent(&bytes, site, now()), Err(CsrError::Malformed)));
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        assert!(matches!(ca.agent(&csr(&other), site, now()), Err(CsrError::Algorithm)));
        assert!(matches!(ca.agent_from_base64("no base 64", site, now()), Err(CsrError::Base64)));
        assert!(matches!(ca.agent(&[0x30; MOST_CSR + 1], site, now()), Err(CsrError::Long)));
    }

    #[test]
    fn the_server_keeps_its_certificate_until_it_is_old_or_the_names_change() {
        let (_place, dir, ca) = authority();
        let names = server_names(["ctl.example".to_owned(), "0.0.0.0".to_owned()]);
        let first = ca.server(&dir, &names, now()).expect("a certificate");
        let reloaded = Ca::load(&dir).expect("the same authority");
        assert_eq!(reloaded.fingerprint(), ca.fingerprint());
        let again = reloaded.server(&dir, &names, now() + Span::from_secs(86_400)).expect("the same");
        assert_eq!(first.chain, again.chain);
        let renamed = reloaded.server(&dir, &server_names(["other.example".to_owned()]), now()).expect("a new one");
        assert_ne!(first.chain, renamed.chain);
        let names = server_names(["other.example".to_owned()]);
        let late = reloaded.server(&dir, &names, now() + SERVER_LIFE).expect("a new one");
        assert_ne!(renamed.chain, late.chain);
    }
}
