//! A controller that enrols anybody with the code `right`, and on the channel says what the test says.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use thinlane_model::{BootId, SessionId, SiteId, Span, Wall};
use thinlane_wire::api::{Enrol, Enrolled, ErrorBody, ErrorCode, Schema};
use thinlane_wire::{
    AgentFrame, Armed, ClosingRecord, FrameDecoder, FromAgent, FromController, GrantSigner, Hello, RenewAnswer,
    SignedGrant, Snapshot, Welcome, Withdrawn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{DIRECT, Session};

pub struct Controller {
    pub port: u16,
    pub fingerprint: String,
    pub site: SiteId,
    pub signer: GrantSigner,
    /// What is desired; sent whole at each log-in and at each change.
    desired: Arc<Mutex<Desired>>,
    change: mpsc::UnboundedSender<()>,
    heard: Mutex<Receiver<FromAgent>>,
    hello: Arc<Mutex<Option<Hello>>>,
}

#[derive(Default)]
struct Desired {
    generation: u64,
    grants: Vec<SignedGrant>,
    withdrawn: Vec<Withdrawn>,
    /// Said once, to whoever is connected.
    extra: Vec<FromController>,
}

impl Controller {
    /// Starts on a loopback port of the namespace.
    pub fn start(ns: &str) -> Self {
        let site = SiteId::from_random([9; 5]);
        let authority = Arc::new(Authority::new(site));
        let desired = Arc::new(Mutex::new(Desired::default()));
        let hello = Arc::new(Mutex::new(None));
        let (tell, heard) = channel();
        let (change, changes) = mpsc::unbounded_channel();
        let (port_out, port_in) = channel();
        let shared = (authority.clone(), desired.clone(), hello.clone());
        let ns = ns.to_owned();
        std::thread::spawn(move || {
            super::within(&ns, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(shared, tell, changes, port_out));
            });
        });
        Self {
            port: port_in.recv().expect("it listens"),
            fingerprint: format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(&authority.certificate))),
            site,
            signer: GrantSigner::new(SigningKey::from_bytes(&[3; 32])),
            desired,
            change,
            heard: Mutex::new(heard),
            hello,
        }
    }

    /// The boot that the agent named.
    pub fn boot(&self) -> BootId {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(hello) = self.hello.lock().expect("no panic holds it").as_ref() {
                return hello.boot;
            }
            assert!(Instant::now() < end, "the agent does not connect");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Grants a session (again); a second time with a higher serial extends it.
    pub fn grant(&self, session: &Session) {
        let signed = self.signer.sign(&session.grant(self), Some(&session.preshared));
        self.grant_signed(session.id, signed);
    }

    /// Sends these very bytes.
    pub fn grant_signed(&self, session: SessionId, signed: SignedGrant) {
        self.change(|desired| {
            desired.grants.retain(|grant| grant.peek().is_none_or(|(other, _)| other != session));
            desired.grants.push(signed);
        });
    }

    /// Takes a session away.
    pub fn withdraw(&self, session: SessionId, reason: thinlane_model::EndReason) {
        self.change(|desired| {
            desired.grants.retain(|grant| grant.peek().is_none_or(|(other, _)| other != session));
            desired.withdrawn.push(Withdrawn { session, reason });
        });
    }

    /// Says something once.
    pub fn say(&self, message: FromController) {
        self.desired.lock().expect("no panic holds it").extra.push(message);
        let _ = self.change.send(());
    }

    fn change(&self, act: impl FnOnce(&mut Desired)) {
        let mut desired = self.desired.lock().expect("no panic holds it");
        desired.generation += 1;
        act(&mut desired);
        let _ = self.change.send(());
    }

    /// Waits for a message that `wanted` picks; others are passed over.
    pub fn wait<T>(&self, what: &str, most: Duration, mut wanted: impl FnMut(FromAgent) -> Option<T>) -> T {
        let end = Instant::now() + most;
        let heard = self.heard.lock().expect("no panic holds it");
        let mut others = Vec::new();
        loop {
            match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    others.push(format!("{message:?}").chars().take(200).collect::<String>());
                    if let Some(found) = wanted(message) {
                        return found;
                    }
                }
                Err(_) => panic!("no {what} in {most:?}; heard {others:#?}"),
            }
        }
    }

    pub fn armed(&self, session: SessionId) -> Armed {
        self.wait("armed", Duration::from_secs(10), |message| match message {
            FromAgent::Armed(armed) if armed.session == session => Some(armed),
            _ => None,
        })
    }

    pub fn closing(&self, session: SessionId) -> ClosingRecord {
        self.wait("closing record", Duration::from_secs(10), |message| match message {
            FromAgent::Closing(closing) => closing.peek().ok().filter(|record| record.session == session),
            _ => None,
        })
    }

    pub fn alarm(&self, kind: &str) -> String {
        self.wait(kind, Duration::from_secs(10), |message| match message {
            FromAgent::Alarm(alarm) if alarm.kind == kind => Some(alarm.detail),
            _ => None,
        })
    }
}

/// Signs the log.
pub fn log_key() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    site: SiteId,
}

impl Authority {
    fn new(site: SiteId) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate, site }
    }

    /// A certificate that began some days ago and ends in some.
    fn certify(&self, csr: &[u8], ago: u64, left: u64) -> CertificateDer<'static> {
        let day = Duration::from_secs(86_400);
        let now = std::time::SystemTime::now();
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).expect("a request");
        request.params.not_before = (now - day * u32::try_from(ago).expect("few")).into();
        request.params.not_after = (now + day * u32::try_from(left).expect("few")).into();
        request.signed_by(&self.issuer).expect("signed").der().clone()
    }

    fn enrolled(&self, request: &Enrol) -> Enrolled {
        let csr = BASE64.decode(request.csr.as_bytes()).expect("base 64");
        // Two thirds of its life are over, so that the agent renews it at its first log-in.
        let certificate = self.certify(&csr, 80, 20);
        let log = log_key().verifying_key();
        Enrolled {
            schema: Schema,
            site: self.site,
            site_name: "north".parse().expect("a name"),
            chain: vec![BASE64.encode(&certificate), BASE64.encode(&self.certificate)],
            grant_keys: vec![BASE64.encode(SigningKey::from_bytes(&[3; 32]).verifying_key().as_bytes())],
            log_key: thinlane_tlog::Verifier::new("log.example", log).expect("a name").to_string(),
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let own = params.signed_by(&key, &self.issuer).expect("signed").der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(clients.allow_unauthenticated().build().expect("a verifier"))
            .with_single_cert(
                vec![own, self.certificate.clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("a certificate");
        config.alpn_protocols = vec![b"thinlane/1".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

type Shared = (Arc<Authority>, Arc<Mutex<Desired>>, Arc<Mutex<Option<Hello>>>);

async fn serve(
    (authority, desired, hello): Shared,
    tell: Sender<FromAgent>,
    mut changes: mpsc::UnboundedReceiver<()>,
    port: Sender<u16>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    port.send(listener.local_addr().expect("bound").port()).expect("the test waits");
    let acceptor = authority.acceptor();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
        if stream.get_ref().1.alpn_protocol() == Some(b"http/1.1") {
            enrol(&mut stream, &authority).await;
        } else {
            // One connection at a time: a new one waits until the old one is gone.
            while changes.try_recv().is_ok() {}
            let _ = carry(stream, &desired, &hello, &tell, &mut changes, &authority).await;
        }
    }
}

async fn enrol(stream: &mut TlsStream<TcpStream>, authority: &Authority) {
    let mut bytes = Vec::new();
    let request: Enrol = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(request) = end.and_then(|end| serde_json::from_slice(&bytes[end + 4..]).ok()) {
            break request;
        }
    };
    let (status, body) = if request.code == "right" {
        (200, serde_json::to_string(&authority.enrolled(&request)))
    } else {
        (410, serde_json::to_string(&ErrorBody::new(ErrorCode::Ended, "the code was used already")))
    };
    let body = body.expect("written");
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn snapshot(desired: &Mutex<Desired>) -> FromController {
    let desired = desired.lock().expect("no panic holds it");
    FromController::Snapshot(Snapshot {
        generation: desired.generation.max(1),
        grants: desired.grants.clone(),
        withdrawn: desired.withdrawn.clone(),
    })
}

async fn carry(
    mut stream: TlsStream<TcpStream>,
    desired: &Mutex<Desired>,
    hello: &Mutex<Option<Hello>>,
    tell: &Sender<FromAgent>,
    changes: &mut mpsc::UnboundedReceiver<()>,
    authority: &Authority,
) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; 65536];
    loop {
        let mut say = Vec::new();
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                let mut chunk = &buffer[..read];
                while let Some(frame) = decoder.read(&mut chunk).expect("the agent frames rightly") {
                    let frame = AgentFrame::decode(&frame).expect("the agent speaks rightly").expect("a known kind");
                    say.extend(answers(&frame.message, desired, hello, authority));
                    let _ = tell.send(frame.message);
                }
            }
            Some(()) = changes.recv() => {
                say.push(snapshot(desired));
                say.append(&mut desired.lock().expect("no panic holds it").extra);
            }
        }
        for message in say {
            stream.write_all(&message.encode().expect("short")).await?;
        }
        stream.flush().await?;
    }
}

fn answers(
    message: &FromAgent,
    desired: &Mutex<Desired>,
    hello: &Mutex<Option<Hello>>,
    authority: &Authority,
) -> Vec<FromController> {
    match message {
        FromAgent::Hello(greeting) => {
            *hello.lock().expect("no panic holds it") = Some(greeting.clone());
            let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            let welcome = Welcome {
                protocol: 1,
                wall: Wall::from_millis(i64::try_from(wall.as_millis()).expect("before year 292 million")),
                keepalive_idle: Span::from_secs(240),
                keepalive_armed: Span::from_secs(5),
                direct_port: Some(DIRECT),
            };
            vec![FromController::Welcome(welcome), snapshot(desired)]
        }
        FromAgent::Ping(nonce) => vec![FromController::Pong(*nonce)],
        FromAgent::Closing(closing) => {
            let record = closing.peek().expect("a record");
            desired.lock().expect("no panic holds it").withdrawn.retain(|gone| gone.session != record.session);
            vec![FromController::ClosingAck(record.session)]
        }
        FromAgent::Renew(request) => {
            let renewed = authority.certify(request, 30, 400);
            vec![FromController::Renewed(RenewAnswer::Chain(vec![renewed.to_vec()]))]
        }
        FromAgent::Alarm(alarm) => vec![FromController::AlarmAck(alarm.number)],
        _ => Vec::new(),
    }
}
