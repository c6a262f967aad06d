//! TLS on the one port: ALPN says who is there, and each gets its own configuration.
//!
//! Gateways (`thinlane/1`) speak TLS 1.3 and must show a certificate of our CA; everybody else gets HTTPS 1.1 with
//! TLS 1.2 or 1.3. Both see the CA's certificate in the chain, so that its fingerprint is enough to trust us.

use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::ca::{Ca, ServerIdentity, end_of};

/// The agent channel's protocol name.
pub const ALPN_AGENT: &[u8] = b"thinlane/1";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Who a connection claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Agent,
    Https,
}

/// The two configurations; replaced as one when the server's certificate is renewed.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Configs>>);

#[derive(Clone)]
struct Configs {
    agent: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(ca: &Ca, identity: ServerIdentity) -> Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Configs::new(ca, identity)?))))
    }

    /// Takes a renewed server certificate for all connections from now on.
    pub fn replace(&self, ca: &Ca, identity: ServerIdentity) -> Result<()> {
        let fresh = Configs::new(ca, identity)?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Chooses by the protocols that the client offers.
    pub fn choose(&self, hello: &ClientHello<'_>) -> (Kind, Arc<ServerConfig>) {
        let agent = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN_AGENT));
        let configs = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if agent { (Kind::Agent, configs.agent.clone()) } else { (Kind::Https, configs.https.clone()) }
    }
}

/// The cipher suites and curves of all our TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Configs {
    fn new(ca: &Ca, identity: ServerIdentity) -> Result<Self> {
        let ServerIdentity { chain, key } = identity;
        let verifier = Arc::new(AgentVerifier::new(ca)?);
        let mut agent = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .context("the server's certificate and key do not fit")?;
        agent.alpn_protocols = vec![ALPN_AGENT.to_vec()];
        // A resumed connection would skip the look at the certificate.
        agent.session_storage = Arc::new(NoServerSessionStorage {});
        agent.send_tls13_tickets = 0;
        let mut https = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("the server's certificate and key do not fit")?;
        https.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        Ok(Self { agent: Arc::new(agent), https: Arc::new(https) })
    }
}

/// Takes gateways' certificates of our CA, expired ones too: a spare from the shelf may ask for a new one, and the
/// channel lets it do nothing else. Revocation is the channel's as well: the serial must be a current one.
#[derive(Debug)]
struct AgentVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl AgentVerifier {
    fn new(ca: &Ca) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).context("ca.pem cannot be used")?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .context("ca.pem cannot be used")?;
        Ok(Self { inner })
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let end = end_of(end_entity).and_then(|end| u64::try_from(end.as_secs()).ok());
        let at = match end {
            Some(end) if end < now.as_secs() => UnixTime::since_unix_epoch(std::time::Duration::from_secs(end)),
            _ => now,
        };
        self.inner.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
