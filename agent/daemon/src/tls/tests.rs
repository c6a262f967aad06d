//! What is expected of `tls`, as tests.

use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thinlane_model::{BootId, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::identity::tests::{Authority, authority, identity};

/// A controller's TLS side that greets whoever it accepts with one byte.
pub struct Controller {
    pub address: SocketAddr,
    pub authority: Authority,
}

/// Starts one whose certificate for `name` is good from 2026-01-01 for `days` days.
pub async fn controller(name: &str, days: u32) -> Controller {
    let authority = authority();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = params.not_before + Duration::from_secs(u64::from(days) * 86_400);
    let certificate = params.signed_by(&key, &authority.issuer).expect("signed").der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).expect("a root");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated();
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(
            vec![certificate, authority.certificate.clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a certificate");
    config.alpn_protocols = vec![ALPN_CHANNEL.to_vec(), ALPN_HTTP.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let known = stream.get_ref().1.peer_certificates().is_some();
                let _ = stream.write_all(&[u8::from(known)]).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    Controller { address, authority }
}

async fn dial(config: Arc<ClientConfig>, to: SocketAddr, name: &str) -> std::io::Result<u8> {
    let tcp = TcpStream::connect(to).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
    stream.read_u8().await
}

fn floor(at: Wall) -> Floor {
    let dir = tempfile::tempdir().expect("a directory");
    Floor::load(dir.path().join("clock.json"), BootId([1; 16]), at).expect("a floor")
}

/// 2026-01-01T00:00:00Z.
const START: Wall = Wall::from_millis(1_767_225_600_000);

#[test]
fn a_fingerprint_reads_back_and_takes_colons() {
    let of = Fingerprint::of(b"x");
    assert_eq!(of.to_string().parse(), Ok(of));
    let digits = of.to_string().split_off(7).to_uppercase();
    let pairs: Vec<&str> = (0..32).map(|at| &digits[2 * at..2 * at + 2]).collect();
    assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(of));
    for text in ["", "sha256:", "sha1:00", &of.to_string()[..70], &digits] {
        assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
    }
}

#[tokio::test]
async fn enrolment_believes_the_expected_fingerprint_and_shows_any_other() {
    let controller = controller("localhost", 3650).await;
    let (config, found) = enrol_config(Fingerprint::of(&controller.authority.certificate)).expect("a config");
    assert_eq!(dial(config, controller.address, "localhost").await.expect("believed"), 0);
    let authority = found.lock().expect("not poisoned").take();
    assert_eq!(authority, Some(Found::Authority(controller.authority.certificate.clone())));

    let (config, found) = enrol_config(Fingerprint::of(b"another")).expect("a config");
    assert!(dial(config, controller.address, "localhost").await.is_err());
    let Some(Found::Others(shown)) = found.lock().expect("not poisoned").take() else { panic!("nothing found") };
    assert_eq!(shown.last(), Some(&Fingerprint::of(&controller.authority.certificate)));
}

#[tokio::test]
async fn the_right_authority_does_not_make_up_for_the_wrong_name() {
    let controller = controller("elsewhere.example", 3650).await;
    let (config, found) = enrol_config(Fingerprint::of(&controller.authority.certificate)).expect("a config");
    assert!(dial(config, controller.address, "localhost").await.is_err());
    assert_eq!(found.lock().expect("not poisoned").take(), None);
}

#[tokio::test]
async fn the_channel_shows_its_certificate_and_believes_its_own_authority_only() {
    let (ours, theirs) = (controller("localhost", 90).await, controller("localhost", 90).await);
    let identity = identity(&ours.authority, 3650);
    let config = channel_config(&identity, floor(START)).expect("a config");
    assert_eq!(dial(config.clone(), ours.address, "localhost").await.expect("believed"), 1);
    assert!(dial(config, theirs.address, "localhost").await.is_err());
}

#[tokio::test]
async fn certificates_are_judged_by_the_floor_and_not_by_the_wall_clock() {
    let controller = controller("localhost", 90).await;
    let identity = identity(&controller.authority, 3650);
    let day = |days: u64| START + Span::from_secs(days * 86_400);
    for (at, believed) in [
        // A floor before the certificate begins: the shelf, or no clock at all. The wall clock of this machine
        // is not asked, whatever it says.
        (Wall::from_millis(0), true),
        (day(89), true),
        (day(91), false),
    ] {
        let config = channel_config(&identity, floor(at)).expect("a config");
        assert_eq!(dial(config, controller.address, "localhost").await.is_ok(), believed, "{at}");
    }
}
