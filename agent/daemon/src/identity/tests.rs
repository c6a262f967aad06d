//! What is expected of `identity`, as tests.

use std::os::unix::fs::MetadataExt;

use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};

use super::*;

/// A certificate authority as a controller has one.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
}

pub fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    Authority { issuer: Issuer::new(params, key), certificate }
}

impl Authority {
    /// A certificate for the key of a request, good for `days` days from the start of 2026.
    pub fn certify(&self, request: &[u8], days: u32) -> CertificateDer<'static> {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).expect("a request");
        let start = rcgen::date_time_ymd(2026, 1, 1);
        request.params.not_before = start;
        request.params.not_after = start + std::time::Duration::from_secs(u64::from(days) * 86_400);
        request.signed_by(&self.issuer).expect("signed").der().clone()
    }
}

pub fn enrolled(chain: &[&CertificateDer<'_>]) -> Enrolled {
    let grant = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let log = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
    Enrolled {
        schema: Schema,
        site: SiteId::from_random([1; 5]),
        site_name: "north".parse().expect("a name"),
        chain: chain.iter().map(|der| BASE64.encode(der)).collect(),
        grant_keys: vec![BASE64.encode(grant.verifying_key().as_bytes())],
        log_key: thinlane_tlog::Verifier::new("log.example", log.verifying_key()).expect("a name").to_string(),
    }
}

pub fn identity(authority: &Authority, days: u32) -> Identity {
    let key = IdentityKey::generate().expect("a key");
    let certificate = authority.certify(&key.request().expect("a request"), days);
    let answer = enrolled(&[&certificate, &authority.certificate]);
    let controller = "localhost:7443".parse().expect("an endpoint");
    Identity::from_enrolled(controller, authority.certificate.clone(), key, &answer).expect("an identity")
}

#[test]
fn an_identity_reads_back_as_itself_from_a_private_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("identity.json");
    assert!(Identity::load(&path).expect("no error").is_none());
    let made = identity(&authority(), 90);
    made.store(&path).expect("written");
    assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    let read = Identity::load(&path).expect("reads").expect("is there");
    assert_eq!((read.site, &read.certificate, &read.ca), (made.site, &made.certificate, &made.ca));
    assert_eq!(read.key.sign(b"x"), made.key.sign(b"x"));
}

#[test]
fn the_private_key_is_in_no_debug_text() {
    let made = identity(&authority(), 90);
    let text = format!("{made:?}");
    let raw = made.key.pkcs8.iter().map(|byte| format!("{byte}, ")).collect::<String>();
    assert!(!text.contains(&raw) && text.contains("(secret)"));
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let authority = authority();
    let key = IdentityKey::generate().expect("a key");
    let other = IdentityKey::generate().expect("a key");
    let certificate = authority.certify(&other.request().expect("a request"), 90);
    let answer = enrolled(&[&certificate]);
    let made = Identity::from_enrolled("c:1".parse().expect("ok"), authority.certificate.clone(), key, &answer);
    assert!(made.is_err());
}

#[test]
fn an_answer_without_grant_keys_or_with_garbage_is_refused() {
    let authority = authority();
    let spoil: [fn(&mut Enrolled); 5] = [
        |answer| answer.grant_keys.clear(),
        |answer| answer.grant_keys[0] = "AAAA".into(),
        |answer| answer.chain.clear(),
        |answer| answer.chain[0] = "AAAA".into(),
        |answer| answer.log_key = "no key".into(),
    ];
    for spoil in spoil {
        let key = IdentityKey::generate().expect("a key");
        let certificate = authority.certify(&key.request().expect("a request"), 90);
        let mut answer = enrolled(&[&certificate]);
        spoil(&mut answer);
        let made = Identity::from_enrolled("c:1".parse().expect("ok"), authority.certificate.clone(), key, &answer);
        assert!(made.is_err());
    }
}

#[test]
fn a_renewed_certificate_must_be_for_the_same_key_and_last_longer() {
    let authority = authority();
    let mut made = identity(&authority, 90);
    let request = made.key.request().expect("a request");
    let stranger = IdentityKey::generate().expect("a key").request().expect("a request");
    assert!(made.renew(authority.certify(&stranger, 180)).is_err());
    assert!(made.renew(authority.certify(&request, 60)).is_err());
    made.renew(authority.certify(&request, 180)).expect("taken");
    let validity = Validity::of(&made.certificate).expect("a certificate");
    assert_eq!(validity.renew_at(), validity.not_before + thinlane_model::Span::from_secs(120 * 86_400));
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("identity.json");
    std::fs::write(&path, "{}").expect("written");
    let error = format!("{:#}", Identity::load(&path).expect_err("damaged"));
    assert!(error.contains("identity.json"), "{error}");
}
