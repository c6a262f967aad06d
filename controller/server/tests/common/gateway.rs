//! A gateway that does what the test says: enrols, connects, reads frames, answers or stays silent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use thinlane_model::{Boot, BootId, Counters, EndReason, Grant, PublicKey, SessionId, SiteId, Wall};
use thinlane_wire::{
    AgentFrame, Applied, Armed, ClosingRecord, FrameDecoder, FromAgent, FromController, GrantVerifier, Hello,
    SessionCounters, SignedClosing, closing_message, state_digest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Controller, Person, trusting};

const PATIENCE: Duration = Duration::from_secs(15);

/// What a gateway keeps after its enrolment.
#[derive(Clone)]
pub struct Identity {
    pub site: SiteId,
    key: Arc<KeyPair>,
    signing: SigningKey,
    chain: Vec<CertificateDer<'static>>,
    verifier: GrantVerifier,
}

/// One connection.
pub struct Gateway {
    pub identity: Identity,
    stream: TlsStream<TcpStream>,
    decoder: FrameDecoder,
    frames: VecDeque<FromController>,
    pub boot: BootId,
    pub time: u64,
    pub generation: u64,
    pub applied: BTreeMap<SessionId, u64>,
}

pub struct Csr {
    key: KeyPair,
    pub der: String,
}

pub fn csr() -> Csr {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let request = CertificateParams::default().serialize_request(&key).expect("a request");
    Csr { der: BASE64.encode(request.der()), key }
}

/// Makes a code, and enrols with it.
pub async fn enrol(controller: &Controller, tech: &Person, site: &str) -> Identity {
    let (status, code) = controller.post(tech, &format!("/sites/{site}/token"), json!({})).await;
    assert_eq!(status, 201, "{code}");
    let csr = csr();
    let body = json!({"code": code["code"], "csr": csr.der, "agent_version": "0.0.1-test"});
    let (status, enrolled) = controller.call(reqwest::Method::POST, "/enrol", None, Some(body)).await;
    assert_eq!(status, 200, "{enrolled}");
    identity(csr, &enrolled)
}

pub fn identity(csr: Csr, enrolled: &Value) -> Identity {
    let bytes = |text: &Value| BASE64.decode(text.as_str().expect("text").as_bytes()).expect("base 64");
    let chain = enrolled["chain"].as_array().expect("a chain").iter().map(|one| bytes(one).into()).collect();
    let keys = enrolled["grant_keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|one| VerifyingKey::from_bytes(&bytes(one).try_into().expect("32 bytes")).expect("a key"));
    let signing = seed(&csr.key);
    Identity {
        site: enrolled["site"].as_str().expect("a site").parse().expect("an id"),
        key: Arc::new(csr.key),
        signing,
        chain,
        verifier: GrantVerifier::new(keys),
    }
}

/// An Ed25519 key in PKCS#8 ends in its seed, or in its seed and public half; ring writes the latter.
fn seed(key: &KeyPair) -> SigningKey {
    let der = key.serialize_der();
    let at = der.windows(4).position(|four| four == [0x04, 0x22, 0x04, 0x20]).expect("a seed") + 4;
    let signing = SigningKey::from_bytes(der[at..at + 32].try_into().expect("32 bytes"));
    assert_eq!(signing.verifying_key().as_bytes().as_slice(), key.public_key_raw());
    signing
}

impl Identity {
    /// The same gateway with a new key and certificate.
    pub fn renewed(&self, csr: Csr, chain: Vec<Vec<u8>>) -> Identity {
        let signing = seed(&csr.key);
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Identity { key: Arc::new(csr.key), signing, chain, ..self.clone() }
    }

    /// Connects as far as TLS goes.
    pub async fn dial(&self, controller: &Controller) -> std::io::Result<TlsStream<TcpStream>> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let mut config = trusting(&controller.dir())
            .with_client_auth_cert(self.chain.clone(), key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"thinlane/1".to_vec()];
        let tcp = TcpStream::connect(controller.address).await?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// Connects and says hello; Welcome is not awaited.
    pub async fn connect(&self, controller: &Controller, boot: u8, number: u64) -> Gateway {
        let stream = self.dial(controller).await.expect("TLS");
        let mut gateway = Gateway {
            identity: self.clone(),
            stream,
            decoder: FrameDecoder::new(),
            frames: VecDeque::new(),
            boot: BootId([boot; 16]),
            time: 1_000_000,
            generation: 0,
            applied: BTreeMap::new(),
        };
        let hello = Hello {
            protocol: 1,
            capabilities: Vec::new(),
            agent_version: "0.0.1-test".to_owned(),
            boot: gateway.boot,
            connection: number,
            applied: Applied::default(),
            backend: "userspace".to_owned(),
            wall: Wall::from_millis(0),
        };
        gateway.say(FromAgent::Hello(hello)).await;
        gateway
    }

    /// Connects, is welcomed, and has taken the first state over.
    pub async fn online(&self, controller: &Controller, boot: u8, number: u64) -> Gateway {
        let mut gateway = self.connect(controller, boot, number).await;
        gateway.until(|frame| matches!(frame, FromController::Welcome(_))).await;
        gateway.until(|frame| matches!(frame, FromController::Snapshot(_) | FromController::Delta(_))).await;
        gateway
    }
}

impl Gateway {
    pub async fn say(&mut self, message: FromAgent) {
        self.time += 1;
        let bytes = AgentFrame { boot: Boot(self.time), message }.encode().expect("short");
        // A controller that has hung up meanwhile is found when reading.
        let _ = self.stream.write_all(&bytes).await;
        let _ = self.stream.flush().await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next frame but pings, which are answered; `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<FromController> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                match &frame {
                    FromController::Ping(nonce) => self.say(FromAgent::Pong(*nonce)).await,
                    FromController::Snapshot(snapshot) => {
                        self.applied.clear();
                        self.take(snapshot.generation, &snapshot.grants, &[]).await;
                        return Some(frame);
                    }
                    FromController::Delta(delta) => {
                        let gone: Vec<_> = delta.withdrawn.iter().map(|one| one.session).collect();
                        self.take(delta.generation, &delta.grants, &gone).await;
                        return Some(frame);
                    }
                    _ => return Some(frame),
                }
                continue;
            }
            let mut chunk = [0; 4096];
            let length = self.stream.read(&mut chunk).await.unwrap_or(0);
            if length == 0 {
                return None;
            }
            let mut rest = &chunk[..length];
            while let Some(frame) = self.decoder.read(&mut rest).expect("frames") {
                self.frames.extend(FromController::decode(&frame).expect("a message"));
            }
        }
    }

    async fn take(&mut self, generation: u64, grants: &[thinlane_wire::SignedGrant], gone: &[SessionId]) {
        for grant in grants {
            let (grant, _) = self.identity.verifier.open(grant).expect("a grant of our controller");
            self.applied.insert(grant.session, grant.serial);
        }
        for session in gone {
            self.applied.remove(session);
        }
        self.generation = generation;
        let applied = Applied { generation, digest: state_digest(&self.applied) };
        self.say(FromAgent::Applied(applied)).await;
    }

    /// Reads on until a frame fits, and answers it; panics when none comes in time.
    pub async fn until(&mut self, fits: impl Fn(&FromController) -> bool) -> FromController {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.next().await {
                    Some(frame) if fits(&frame) => return Some(frame),
                    Some(_) => {}
                    None => return None,
                }
            }
        });
        found.await.expect("the frame comes in time").expect("the connection stays")
    }

    /// Reads on until the connection ends; answers the last Goodbye's reason.
    pub async fn until_the_end(&mut self) -> Option<String> {
        let end = tokio::time::timeout(PATIENCE, async {
            let mut reason = None;
            while let Some(frame) = self.next().await {
                if let FromController::Goodbye(goodbye) = frame {
                    reason = Some(goodbye.reason.as_str().to_owned());
                }
            }
            reason
        });
        end.await.expect("it ends in time")
    }

    /// Keeps the connection alive for a while without doing anything.
    pub async fn idle(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async { while self.next().await.is_some() {} }).await;
    }

    /// Waits for a grant; answers it and whether a preshared key came along.
    pub async fn grant(&mut self) -> (Grant, bool) {
        loop {
            let frame =
                self.until(|frame| matches!(frame, FromController::Snapshot(_) | FromController::Delta(_))).await;
            let grants = match &frame {
                FromController::Snapshot(snapshot) => &snapshot.grants,
                FromController::Delta(delta) => &delta.grants,
                _ => continue,
            };
            if let Some(signed) = grants.first() {
                let (grant, preshared) = self.identity.verifier.open(signed).expect("a grant");
                return (grant, preshared.is_some());
            }
        }
    }

    pub async fn arm(&mut self, grant: &Grant, key: u8) {
        let armed = Armed {
            session: grant.session,
            serial: grant.serial,
            gateway_key: PublicKey::new([key; 32]).expect("a key"),
            deadline: grant.deadline,
            backend: "userspace".to_owned(),
        };
        self.say(FromAgent::Armed(armed)).await;
    }

    /// A closing record, signed by this gateway's key or by another one.
    pub async fn close(&mut self, grant: &Grant, reason: EndReason, counters: Counters, forged: bool) {
        let record = ClosingRecord {
            site: self.identity.site,
            boot: self.boot,
            session: grant.session,
            serial: grant.serial,
            reason,
            opened: Some(Boot(self.time)),
            closed: Boot(self.time + 1),
            counters: SessionCounters { counters, ..SessionCounters::none(grant.session) },
            verified: true,
            late_packets: 0,
        }
        .encode();
        let key = if forged { SigningKey::from_bytes(&[1; 32]) } else { self.identity.signing.clone() };
        let signature = key.sign(&closing_message(&record)).to_bytes();
        self.say(FromAgent::Closing(SignedClosing::new(record, signature))).await;
    }
}
