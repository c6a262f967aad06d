//! What is expected of `enroll`, as tests.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::identity::tests::{Authority, authority, enrolled};

/// A controller that takes the code `right` and refuses all others.
async fn controller() -> (Endpoint, Fingerprint) {
    let authority = authority();
    let fingerprint = Fingerprint::of(&authority.certificate);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let chain =
        vec![params.signed_by(&key, &authority.issuer).expect("signed").der().clone(), authority.certificate.clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let answer = answer(&authority, &request(&mut stream).await);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (format!("localhost:{port}").parse().expect("an endpoint"), fingerprint)
}

async fn request<S: AsyncReadExt + Unpin>(stream: &mut S) -> Enrol {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.expect("a request");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.is_empty() || text.starts_with("POST /api/v1/enrol HTTP/1.1\r\n"), "{text}");
        if let Some(end) = text.find("\r\n\r\n")
            && let Ok(request) = serde_json::from_slice(&bytes[end + 4..])
        {
            return request;
        }
    }
}

fn answer(authority: &Authority, request: &Enrol) -> String {
    let (status, body) = if request.code == "right" {
        let csr = BASE64.decode(request.csr.as_bytes()).expect("base 64");
        let certificate = authority.certify(&csr, 90);
        (200, serde_json::to_string(&enrolled(&[&certificate, &authority.certificate])))
    } else {
        (410, serde_json::to_string(&ErrorBody::new(ErrorCode::Ended, "the code was used already")))
    };
    let body = body.expect("written");
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_right_code_at_the_right_controller_makes_an_identity() {
    let (controller, fingerprint) = controller().await;
    let identity = exchange(&controller, fingerprint, "right").await.expect("enrolled");
    assert_eq!(Fingerprint::of(&identity.ca), fingerprint);
    assert_eq!(identity.site_name.as_str(), "north");
}

#[tokio::test]
async fn a_used_code_is_a_denial_with_a_next_step() {
    let (controller, fingerprint) = controller().await;
    let failure = exchange(&controller, fingerprint, "wrong").await.expect_err("denied");
    assert_eq!(failure.code, exit::DENIED);
    assert!(failure.next.is_some_and(|next| next.contains("site token")));
}

#[tokio::test]
async fn another_fingerprint_fails_verification_and_shows_both() {
    let (controller, fingerprint) = controller().await;
    let expected = Fingerprint::of(b"another");
    let failure = exchange(&controller, expected, "right").await.expect_err("not believed");
    assert_eq!(failure.code, exit::VERIFICATION);
    assert!(failure.what.contains(&expected.to_string()) && failure.what.contains(&fingerprint.to_string()));
}

#[tokio::test]
async fn nobody_at_that_address_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let controller = format!("127.0.0.1:{port}").parse().expect("an endpoint");
    let failure = exchange(&controller, Fingerprint::of(b"x"), "right").await.expect_err("nobody");
    assert_eq!(failure.code, exit::UNREACHABLE);
}

#[test]
fn a_code_is_read_as_text_as_the_json_that_made_it_or_as_its_qr_code_says_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = |text: &str| {
        let token_file = dir.path().join("code");
        std::fs::write(&token_file, text).expect("written");
        Enroll { controller: None, ca_fingerprint: None, token_file, force: false }
    };
    let read = |text: &str| read_told(&args(text)).map(|told| (told.code.to_string(), told.controller, told.ca));
    assert_eq!(read("abc-def\n").expect("a code"), ("abc-def".to_owned(), None, None));
    assert_eq!(read(r#"{"code":"abc","expires_at":"x"}"#).expect("a code"), ("abc".to_owned(), None, None));
    let (controller, ca) = ("c.example:7443".parse().expect("an endpoint"), Fingerprint::of(b"x"));
    let whole = ("abc-def".to_owned(), Some(controller), Some(ca));
    let json = format!(r#"{{"code":"abc-def","controller":"c.example:7443","ca_fingerprint":"{ca}"}}"#);
    assert_eq!(read(&json).expect("a code"), whole);
    let line = format!("THINLANE://ENROL/C.EXAMPLE:7443/{}/ABC-DEF\n", ca.to_string()[7..].to_uppercase());
    assert_eq!(read(&line).expect("a code"), whole);
    for wrong in [" \n", &line[..60], r#"{"code":"abc","controller":"nowhere"}"#, &"x".repeat(5000)] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
