//! What is expected of `contact`, as tests: servers on loopback that go wrong in one way each.

use std::net::{Ipv4Addr, TcpListener};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConnection;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).expect("a certificate").der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

/// Serves one connection with a certificate for `name` that is good from and to so many days from now.
fn serve(authority: &Authority, name: &str, days: (i64, i64), answer: &'static str) -> SocketAddr {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let at = |days: i64| {
        let span = Duration::from_secs(86_400 * days.unsigned_abs());
        if days < 0 { SystemTime::now() - span } else { SystemTime::now() + span }
    };
    params.not_before = at(days.0).into();
    params.not_after = at(days.1).into();
    let own = params.signed_by(&key, &authority.issuer).expect("signed").der().clone();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(
            vec![own, authority.der.clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a certificate");
    accept(move |tcp| {
        let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut stream = StreamOwned::new(connection, tcp);
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok() {
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

fn accept(act: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        if let Ok((tcp, _)) = listener.accept() {
            act(tcp);
        }
    });
    at
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 67\r\n\r\n{\"schema\":1,\"version\":\"0.1.0\",\"time\":\"2020-01-01T00:00:00.000Z\"}";

fn asked(authority: &Authority, at: SocketAddr) -> Contact {
    let to = format!("localhost:{}", at.port()).parse().expect("an endpoint");
    contact(&to, &[at], &authority.der, Instant::now() + Duration::from_secs(5))
}

#[test]
fn the_controllers_clock_is_read_also_where_ours_makes_its_certificate_look_wrong() {
    let authority = authority();
    for (days, expected) in [((-1, 1), Validity::Good), ((-20, -10), Validity::Expired), ((10, 20), Validity::NotYet)] {
        let at = serve(&authority, "localhost", days, GOOD);
        let Contact::Answers { version, offset_ms, validity, .. } = asked(&authority, at) else {
            panic!("no answer with {days:?}");
        };
        assert_eq!((version.as_str(), validity), ("0.1.0", expected));
        assert!(offset_ms > 86_400_000, "2020 is long ago: {offset_ms}");
    }
}

#[test]
fn a_stranger_another_name_and_no_tls_at_all_are_told_apart() {
    let (ours, other) = (authority(), authority());
    assert_eq!(asked(&ours, serve(&other, "localhost", (-1, 1), GOOD)), Contact::Stranger);
    let named = asked(&ours, serve(&ours, "elsewhere.example", (-1, 1), GOOD));
    assert_eq!(named, Contact::OtherName("localhost".into()));
    let portal = accept(|mut tcp| {
        let _ = tcp.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n");
        let _ = tcp.read(&mut [0; 1024]);
    });
    assert!(matches!(asked(&ours, portal), Contact::NotTls(_)));
    let odd = asked(&ours, serve(&ours, "localhost", (-1, 1), "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    assert!(matches!(&odd, Contact::Odd(why) if why.contains("503")), "{odd:?}");
}

#[test]
fn a_closed_port_refuses_and_a_mute_one_does_not_answer_in_time() {
    let ours = authority();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("bound");
    assert_eq!(asked(&ours, closed), Contact::Refused);
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = mute.local_addr().expect("bound");
    let to = "localhost:1".parse().expect("an endpoint");
    let found = contact(&to, &[at], &ours.der, Instant::now() + Duration::from_millis(200));
    assert_eq!(found, Contact::NotTls("no answer in time".into()));
    assert_eq!(contact(&to, &[], &ours.der, Instant::now()), Contact::NotTried);
}

/// A controller's channel port that asks for a certificate of `clients`, and then says something or nothing.
fn channel(own: &Authority, clients: &Authority, says: Option<FromController>) -> SocketAddr {
    let (chain, key) = certified(own, "localhost");
    let mut roots = RootCertStore::empty();
    roots.add(clients.der.clone()).expect("a root");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a certificate");
    accept(move |tcp| {
        let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                // The alert that says why is on its way.
                let _ = stream.conn.write_tls(&mut stream.sock);
                return;
            }
        }
        if let Some(message) = says {
            let _ = stream.write_all(&message.encode().expect("short"));
            let _ = stream.flush();
        }
        // Holds the connection until the other end lets it go.
        let _ = stream.read(&mut [0; 64]);
    })
}

fn certified(authority: &Authority, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let der = params.signed_by(&key, &authority.issuer).expect("signed").der().clone();
    (vec![der], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

fn shown(controller: &Authority, gateway: &Authority, at: SocketAddr) -> Admission {
    let (chain, key) = certified(gateway, "gateway");
    let mut roots = RootCertStore::empty();
    roots.add(controller.der.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a certificate");
    let to = format!("localhost:{}", at.port()).parse().expect("an endpoint");
    admission(&to, &[at], Arc::new(config), Instant::now() + Duration::from_secs(5))
}

#[test]
fn a_certificate_is_taken_refused_by_tls_or_turned_away_with_a_word() {
    let (ours, other) = (authority(), authority());
    assert_eq!(shown(&ours, &ours, channel(&ours, &ours, None)), Admission::Taken);
    let refused = shown(&ours, &other, channel(&ours, &ours, None));
    assert!(matches!(refused, Admission::TurnedAway { reason: None, .. }), "{refused:?}");
    let goodbye = thinlane_wire::Goodbye { reason: GoodbyeReason::Revoked, detail: "no longer good".into() };
    let revoked = shown(&ours, &ours, channel(&ours, &ours, Some(FromController::Goodbye(goodbye))));
    let word = Admission::TurnedAway { reason: Some(GoodbyeReason::Revoked), detail: "no longer good".into() };
    assert_eq!(revoked, word);
}
