//! What is expected of `grant`, as tests.

use super::*;

fn signer() -> GrantSigner {
    GrantSigner::new(SigningKey::from_bytes(&[9; 32]))
}

fn verifier() -> GrantVerifier {
    GrantVerifier::new([signer().verifying_key()])
}

fn grant() -> Grant {
    Grant {
        serial: 12,
        site: "site_00000001".parse().expect("an id"),
        boot: BootId([4; 16]),
        session: "ses_00000001".parse().expect("an id"),
        asset: "rtu-7".parse().expect("a name"),
        task: "iec104".parse().expect("a name"),
        engineer_key: PublicKey::new([5; 32]).expect("not zero"),
        tuple: Tuple {
            engineer: Ipv4Addr::new(198, 19, 0, 5),
            destination: Ipv4Addr::new(198, 18, 0, 7),
            address: Ipv4Addr::new(192, 168, 1, 10),
            protocol: Protocol::Tcp,
            port: 2404,
        },
        keep_source: false,
        limits: Limits { packets_per_second: Some(50), connections: None },
        deadline: Boot(1_800_000),
        offline: Span::from_secs(900),
        idle: Some(Span::from_secs(60)),
        policy: PolicyRef { id: "all".into(), hash: "ab".repeat(32) },
        relay: Some("relay.example:7443".parse().expect("an endpoint")),
    }
}

/// Signs a body as the controller would if it had gone mad.
fn sign_body(body: &pb::GrantBody) -> SignedGrant {
    let bytes = body.encode_to_vec();
    let signature = signer().key.sign(&message(&bytes)).to_bytes().to_vec();
    SignedGrant(pb::SignedGrant { body: bytes, key_id: signer().id.0.to_vec(), signature, preshared: Vec::new() })
}

#[test]
fn a_grant_opens_as_it_was_signed() {
    let preshared = Secret::new([6; 32]);
    let signed = signer().sign(&grant(), Some(&preshared));
    assert_eq!(signed.peek(), Some((grant().session, 12)));
    assert_eq!(verifier().open(&signed), Ok((grant(), Some(preshared))));
    assert_eq!(verifier().open(&signed.without_preshared()), Ok((grant(), None)));
    assert_eq!(signer().sign(&grant(), None), signed.without_preshared());
    let bare = Grant { limits: Limits::NONE, idle: None, relay: None, keep_source: true, ..grant() };
    assert_eq!(verifier().open(&signer().sign(&bare, None)), Ok((bare, None)));
}

#[test]
fn every_flipped_bit_of_body_signature_and_key_id_is_refused() {
    let signed = signer().sign(&grant(), None);
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at / 8] ^= 1 << (at % 8);
    for at in 0..signed.0.body.len() * 8 {
        let mut bad = signed.clone();
        flip(&mut bad.0.body, at);
        assert_eq!(verifier().open(&bad), Err(GrantError::Signature), "body bit {at}");
    }
    for at in 0..64 * 8 {
        let mut bad = signed.clone();
        flip(&mut bad.0.signature, at);
        assert_eq!(verifier().open(&bad), Err(GrantError::Signature), "signature bit {at}");
    }
    for at in 0..8 * 8 {
        let mut bad = signed.clone();
        flip(&mut bad.0.key_id, at);
        assert!(matches!(verifier().open(&bad), Err(GrantError::UnknownKey(_))), "key id bit {at}");
    }
    for len in 0..signed.0.body.len() {
        let mut bad = signed.clone();
        bad.0.body.truncate(len);
        assert_eq!(verifier().open(&bad), Err(GrantError::Signature), "cut at {len}");
    }
}

#[test]
fn a_signature_for_another_purpose_is_not_a_grants() {
    let mut signed = signer().sign(&grant(), None);
    signed.0.signature = signer().key.sign(&signed.0.body).to_bytes().to_vec();
    assert_eq!(verifier().open(&signed), Err(GrantError::Signature));
}

#[test]
fn a_stranger_with_the_right_key_id_is_refused() {
    let mut signed = GrantSigner::new(SigningKey::from_bytes(&[8; 32])).sign(&grant(), None);
    signed.0.key_id = signer().id.0.to_vec();
    assert_eq!(verifier().open(&signed), Err(GrantError::Signature));
}

#[test]
fn what_is_odd_is_refused_though_the_signature_is_good() {
    type Spoil = fn(&mut pb::GrantBody);
    let cases: &[(&str, Spoil)] = &[
        ("serial", |body| body.serial = 0),
        ("site", |body| body.site.clear()),
        ("boot id", |body| body.boot_id.truncate(15)),
        ("session", |body| body.session = "req_00000001".into()),
        ("asset", |body| body.asset = "a b".into()),
        ("task", |body| body.task.clear()),
        ("engineer key", |body| body.engineer_key = vec![0; 32]),
        ("engineer key", |body| body.engineer_key.push(1)),
        ("engineer address", |body| body.engineer = Ipv4Addr::new(127, 0, 0, 1).into()),
        ("engineer address", |body| body.engineer = body.destination),
        ("destination", |body| body.destination = Ipv4Addr::BROADCAST.into()),
        ("asset address", |body| body.address = Ipv4Addr::new(224, 0, 0, 1).into()),
        ("asset address", |body| body.address = 0),
        ("protocol", |body| body.protocol = 1),
        ("protocol", |body| body.protocol = 262),
        ("port", |body| body.port = 0),
        ("port", |body| body.port = 65_536),
        ("deadline", |body| body.deadline_boot_ms = 0),
        ("offline time", |body| body.offline_ms = 0),
        ("policy id", |body| body.policy_id = "a\nb".into()),
        ("policy hash", |body| body.policy_hash = "a".repeat(200)),
        ("relay", |body| body.relay = "nowhere".into()),
    ];
    assert!(verifier().open(&sign_body(&to_body(&grant()))).is_ok());
    for (name, spoil) in cases {
        let mut body = to_body(&grant());
        spoil(&mut body);
        assert_eq!(verifier().open(&sign_body(&body)), Err(GrantError::Field(name)));
    }
    let mut signed = signer().sign(&grant(), None);
    signed.0.preshared = vec![1; 31];
    assert_eq!(verifier().open(&signed), Err(GrantError::Field("preshared key")));
}

#[test]
fn a_limit_of_nothing_never_becomes_no_limit() {
    let none = Grant { limits: Limits { packets_per_second: Some(0), connections: Some(0) }, ..grant() };
    let (opened, _) = verifier().open(&signer().sign(&none, None)).expect("signed");
    assert_eq!(opened.limits, Limits { packets_per_second: Some(1), connections: Some(1) });
}

#[test]
fn neither_debug_nor_a_file_shows_the_preshared_key() {
    let signed = signer().sign(&grant(), Some(&Secret::new([0xA7; 32])));
    let text = serde_json::to_string(&signed).expect("plain data");
    for shown in [format!("{signed:?}"), format!("{:?}", signed.0), text.clone()] {
        let lower = shown.to_lowercase();
        assert!(!lower.contains("a7a7") && !lower.contains("167, 167") && !shown.contains("p6en"), "{shown}");
    }
    let read: SignedGrant = serde_json::from_str(&text).expect("its own output");
    assert_eq!(read, signed.without_preshared());
}
