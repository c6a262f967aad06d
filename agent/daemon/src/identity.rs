//! Who this gateway is: its key, its certificate, and whom it obeys. Made by `enroll`, one file, 0600.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use data_encoding::BASE64;
use ed25519_dalek::VerifyingKey;
use rcgen::{CertificateParams, PKCS_ED25519};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use thinlane_model::{Endpoint, SiteId, SiteName, Wall};
use thinlane_wire::api::{Enrolled, Schema};
use zeroize::{Zeroize, Zeroizing};

use crate::files;

/// The longest identity file that is read, in bytes.
const MOST: u64 = 256 * 1024;

/// All that the agent needs to know of its controller, and to prove who it is.
#[derive(Debug)]
pub struct Identity {
    pub controller: Endpoint,
    pub site: SiteId,
    pub site_name: SiteName,
    /// The one certificate that the controller's must descend from.
    pub ca: CertificateDer<'static>,
    /// The gateway's own.
    pub certificate: CertificateDer<'static>,
    pub key: Arc<IdentityKey>,
    /// Ed25519 keys that grants are signed with.
    pub grant_keys: Vec<VerifyingKey>,
    /// Signs the log's checkpoints.
    pub log_key: thinlane_tlog::Verifier,
}

/// The gateway's private key; it never leaves this machine.
pub struct IdentityKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("(secret)")
    }
}

impl IdentityKey {
    /// Makes an Ed25519 key from the operating system's randomness.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate_for(&PKCS_ED25519).context("cannot make a key")?;
        Self::from_pkcs8(Zeroizing::new(pair.serialize_der()))
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| anyhow!("not an Ed25519 private key"))?;
        Ok(Self { pkcs8, pair })
    }

    /// The public half.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Ed25519 over exactly these bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(bytes);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// A certificate signing request (PKCS#10, DER). The controller ignores its subject.
    pub fn request(&self) -> anyhow::Result<Vec<u8>> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).context("the identity key")?;
        let params = CertificateParams::new(Vec::new()).context("a certificate request")?;
        Ok(params.serialize_request(&pair).context("a certificate request")?.der().to_vec())
    }

    /// The key as the TLS library takes it.
    pub fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    schema: Schema,
    controller: Endpoint,
    site: SiteId,
    site_name: SiteName,
    ca: String,
    certificate: String,
    key: String,
    grant_keys: Vec<String>,
    log_key: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Identity {
    /// Checks what the controller answered to an enrolment.
    ///
    /// # Errors
    /// A certificate of another key, no grant key, or anything that does not read as what it should be.
    pub fn from_enrolled(
        controller: Endpoint,
        ca: CertificateDer<'static>,
        key: IdentityKey,
        enrolled: &Enrolled,
    ) -> anyhow::Result<Self> {
        let certificate = enrolled.chain.first().context("the controller sent no certificate")?;
        let certificate = der(certificate).context("the certificate")?;
        ensure!(public_of(&certificate)? == key.public(), "the controller certified another key than this gateway's");
        Ok(Self {
            controller,
            site: enrolled.site,
            site_name: enrolled.site_name.clone(),
            ca,
            certificate,
            key: Arc::new(key),
            grant_keys: grant_keys(&enrolled.grant_keys)?,
            log_key: enrolled.log_key.parse().context("the log's key")?,
        })
    }

    /// Reads the identity; `None` where this gateway was never enrolled.
    pub fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let read = files::read_bounded(path, MOST).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(bytes) = read.map(Zeroizing::new) else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        Self::from_kept(&kept).with_context(|| format!("{} is damaged", path.display())).map(Some)
    }

    fn from_kept(kept: &Kept) -> anyhow::Result<Self> {
        let pkcs8 = Zeroizing::new(BASE64.decode(kept.key.as_bytes()).map_err(|_| anyhow!("the key is not base 64"))?);
        let identity = Self {
            controller: kept.controller.clone(),
            site: kept.site,
            site_name: kept.site_name.clone(),
            ca: der(&kept.ca).context("the authority's certificate")?,
            certificate: der(&kept.certificate).context("the certificate")?,
            key: Arc::new(IdentityKey::from_pkcs8(pkcs8)?),
            grant_keys: grant_keys(&kept.grant_keys)?,
            log_key: kept.log_key.parse().context("the log's key")?,
        };
        ensure!(
            public_of(&identity.certificate)? == identity.key.public(),
            "certificate and key do not belong together"
        );
        Ok(identity)
    }

    /// Writes the identity as one file.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        let kept = Kept {
            schema: Schema,
            controller: self.controller.clone(),
            site: self.site,
            site_name: self.site_name.clone(),
            ca: BASE64.encode(&self.ca),
            certificate: BASE64.encode(&self.certificate),
            key: BASE64.encode(&self.key.pkcs8),
            grant_keys: self.grant_keys.iter().map(|key| BASE64.encode(key.as_bytes())).collect(),
            log_key: self.log_key.to_string(),
        };
        let bytes = Zeroizing::new(serde_json::to_vec_pretty(&kept).context("the identity")?);
        files::write_atomic(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes a renewed certificate, after checking that it is for this key and lasts longer.
    pub fn renew(&mut self, certificate: CertificateDer<'static>) -> anyhow::Result<()> {
        ensure!(public_of(&certificate)? == self.key.public(), "the renewed certificate is for another key");
        let (old, new) = (Validity::of(&self.certificate)?, Validity::of(&certificate)?);
        ensure!(new.not_after > old.not_after, "the renewed certificate ends no later than the old one");
        self.certificate = certificate;
        Ok(())
    }
}

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Wall,
    pub not_after: Wall,
}

impl Validity {
    /// Reads it from the certificate's DER.
    pub fn of(certificate: &[u8]) -> anyhow::Result<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("not a certificate")?;
        let wall = |time: x509_parser::time::ASN1Time| Wall::from_millis(time.timestamp().saturating_mul(1000));
        let validity = parsed.validity();
        Ok(Self { not_before: wall(validity.not_before), not_after: wall(validity.not_after) })
    }

    /// When two thirds of its life have passed: the time to ask for a new one.
    pub fn renew_at(&self) -> Wall {
        self.not_before + thinlane_model::Span::from_millis(self.not_before.until(self.not_after).as_millis() / 3 * 2)
    }
}

fn der(base64: &str) -> anyhow::Result<CertificateDer<'static>> {
    let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| anyhow!("not base 64"))?;
    Validity::of(&bytes)?;
    Ok(CertificateDer::from(bytes))
}

fn grant_keys(keys: &[String]) -> anyhow::Result<Vec<VerifyingKey>> {
    if keys.is_empty() || keys.len() > 16 {
        bail!("{} grant-signing keys: 1 to 16 are needed", keys.len());
    }
    let key = |text: &String| -> anyhow::Result<VerifyingKey> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| anyhow!("a grant key is not base 64"))?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| anyhow!("a grant key has 32 bytes"))?;
        VerifyingKey::from_bytes(&bytes).context("a grant key")
    };
    keys.iter().map(key).collect()
}

/// The raw public key that a certificate is for.
fn public_of(certificate: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("not a certificate")?;
    Ok(parsed.public_key().subject_public_key.data.to_vec())
}

#[cfg(test)]
pub mod tests;
