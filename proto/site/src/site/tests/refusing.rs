//! What opens nothing, and disturbs nothing.

use std::net::Ipv4Addr;

use ed25519_dalek::SigningKey;
use thinlane_model::{Boot, BootId, EndReason, Grant, RefuseReason, Span, Tuple};
use thinlane_wire::*;

use super::bench::*;
use crate::*;

/// Asks for `bad` beside a running lane: one report with this reason, and the lane goes on.
fn refused_beside_a_lane(config: SiteConfig, bad: SignedGrant, reason: RefuseReason) {
    let mut bench = Bench::with(config);
    bench.want(&[grant(1, 5)]);
    assert!(bench.is_open(1));
    bench.clear();
    for _ in 0..3 {
        bench.want_signed(vec![sign(&grant(1, 5)), bad.clone()]);
    }
    let reasons: Vec<_> = bench.refused().iter().map(|refused| refused.2).collect();
    assert_eq!(reasons, [reason], "once");
    assert!(bench.is_open(1));
    assert!(bench.lanes.len() == 1 && bench.devices.len() == 1 && bench.routes.len() == 1);
    assert_eq!(bench.records(), []);
}

#[test]
fn each_check_refuses_with_its_own_reason_once_and_disturbs_no_lane() {
    let plain = |change: fn(&mut Grant), reason| {
        let mut bad = grant(2, 9);
        change(&mut bad);
        refused_beside_a_lane(site_config(), sign(&bad), reason);
    };
    plain(|bad| bad.site = "site_00000002".parse().expect("an id"), RefuseReason::Site);
    plain(|bad| bad.boot = BootId([2; 16]), RefuseReason::Boot);
    plain(|bad| bad.deadline = Boot(100 * MINUTE), RefuseReason::Deadline);
    plain(|bad| bad.deadline = Boot(100 * MINUTE) + Span::from_secs(31 * 86_400 + 1), RefuseReason::Deadline);
    plain(|bad| bad.tuple.engineer = grant(1, 5).tuple.engineer, RefuseReason::Address);
    plain(|bad| bad.tuple.engineer = grant(1, 5).tuple.address, RefuseReason::Undecodable);
    plain(|bad| bad.tuple.address = grant(1, 5).tuple.engineer, RefuseReason::Address);
    plain(|bad| bad.tuple.destination = grant(1, 5).tuple.engineer, RefuseReason::Address);
    plain(|bad| bad.tuple.port = 0, RefuseReason::Undecodable);

    let stranger = GrantSigner::new(SigningKey::from_bytes(&[8; 32]));
    refused_beside_a_lane(site_config(), stranger.sign(&grant(2, 9), None), RefuseReason::Signature);
    refused_beside_a_lane(site_config(), signer().sign(&grant(2, 9), None), RefuseReason::Preshared);
    let full = SiteConfig { most_lanes: 1, ..site_config() };
    refused_beside_a_lane(full, sign(&grant(2, 9)), RefuseReason::Full);
}

#[test]
fn nothing_opens_towards_the_gateways_own_addresses() {
    let mut bench = Bench::with(site_config());
    let grant = grant(1, 5);
    bench.site.handle_lan(vec![grant.tuple.address]);
    bench.want(&[grant]);
    assert_eq!(bench.refused()[0].2, RefuseReason::Address);
    assert!(bench.lanes.is_empty() && bench.devices.is_empty());
}

#[test]
fn a_validly_signed_grant_beyond_the_sites_own_ceilings_is_refused() {
    let net = (Ipv4Addr::new(192, 168, 1, 0), 24);
    let ceilings = Ceilings {
        assets: Some(vec![net]),
        ports: Some(vec![2404]),
        tasks: Some(vec!["iec104".parse().expect("a name")]),
        longest: Some(Span::from_secs(600)),
    };
    let config = SiteConfig { ceilings, ..site_config() };
    let mut bad = grant(2, 9);
    bad.tuple.address = Ipv4Addr::new(192, 168, 2, 10);
    refused_beside_a_lane(config.clone(), sign(&bad), RefuseReason::CeilingAsset);
    let bad = Grant { tuple: Tuple { port: 22, ..grant(2, 9).tuple }, ..grant(2, 9) };
    refused_beside_a_lane(config.clone(), sign(&bad), RefuseReason::CeilingPort);
    let bad = Grant { task: "ssh".parse().expect("a name"), ..grant(2, 9) };
    refused_beside_a_lane(config.clone(), sign(&bad), RefuseReason::CeilingTask);
    let bad = Grant { deadline: grant(2, 9).deadline + Span::from_millis(1), ..grant(2, 9) };
    refused_beside_a_lane(config.clone(), sign(&bad), RefuseReason::CeilingLongest);

    // Extensions cannot add up to more than the longest.
    let mut bench = Bench::with(config);
    bench.want(&[grant(1, 5)]);
    bench.pass(Span::from_secs(300));
    let later = Grant { serial: 6, deadline: grant(1, 5).deadline + Span::from_secs(1), ..grant(1, 5) };
    bench.delta(&[later], &[]);
    assert_eq!(bench.refused(), [(Some(session(1)), 6, RefuseReason::CeilingLongest)]);
    assert!(bench.is_open(1));
    let nothing = Ceilings { assets: Some(vec![]), ..Ceilings::default() };
    let mut bench = Bench::with(SiteConfig { ceilings: nothing, ..site_config() });
    bench.want(&[grant(1, 5)]);
    assert_eq!(bench.refused()[0].2, RefuseReason::CeilingAsset, "an empty list is nothing at all");
}

#[test]
fn a_session_that_ended_opens_no_second_time_while_its_grant_would_still_be_good() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.delta(&[], &[(1, EndReason::Released)]);
    bench.message(FromController::ClosingAck(session(1)));
    bench.clear();
    for serial in [5, 6, 4] {
        bench.want(&[Grant { serial, ..grant(1, 5) }]);
    }
    assert_eq!(bench.lanes.len(), 0);
    let reasons: Vec<_> = bench.refused().iter().map(|refused| (refused.1, refused.2)).collect();
    assert_eq!(reasons, [(5, RefuseReason::Replayed), (6, RefuseReason::Replayed), (4, RefuseReason::Replayed)]);
    bench.restart(site_config().boot);
    bench.site.handle_channel(true, bench.now);
    bench.want(&[grant(1, 5)]);
    assert!(bench.is_clean(), "also after a restart of the agent");
    bench.pass(Span::from_secs(700));
    bench.clear();
    bench.want(&[grant(1, 8)]);
    assert_eq!(bench.refused()[0].2, RefuseReason::Deadline);
}

#[test]
fn a_forged_or_old_copy_of_a_running_sessions_grant_is_not_reported_as_that_session() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    let forged = GrantSigner::new(SigningKey::from_bytes(&[8; 32]));
    let later = Grant { serial: 50, ..grant(1, 5) };
    let changed = Grant { tuple: Tuple { port: 22, ..grant(1, 5).tuple }, ..grant(1, 5) };
    for (bad, named, serial, reason) in [
        (forged.sign(&grant(1, 5), None), None, 0, RefuseReason::Signature),
        (sign(&Grant { serial: 4, ..grant(1, 5) }), None, 0, RefuseReason::Replayed),
        (sign(&changed), None, 0, RefuseReason::Replayed),
        // A serial that does not stand here concerns only the extension that it claims to be.
        (forged.sign(&later, None), Some(session(1)), 50, RefuseReason::Signature),
    ] {
        bench.clear();
        bench.want_signed(vec![bad]);
        assert_eq!(bench.refused(), [(named, serial, reason)]);
        assert!(bench.is_open(1));
        assert_eq!(bench.lanes[&session(1)], grant(1, 5).deadline);
    }
}

#[test]
fn a_later_grant_may_differ_in_its_deadline_only() {
    let changes: [fn(&mut Grant); 6] = [
        |bad| bad.tuple.port = 22,
        |bad| bad.tuple.address = Ipv4Addr::new(192, 168, 1, 11),
        |bad| bad.tuple.engineer = Ipv4Addr::new(198, 19, 0, 99),
        |bad| bad.engineer_key = thinlane_model::PublicKey::new([77; 32]).expect("not zero"),
        |bad| bad.offline = Span::from_secs(86_400),
        |bad| bad.keep_source = true,
    ];
    for change in changes {
        let mut bench = Bench::new();
        bench.want(&[grant(1, 5)]);
        bench.clear();
        let mut bad = Grant { serial: 6, deadline: grant(1, 5).deadline + Span::from_secs(60), ..grant(1, 5) };
        change(&mut bad);
        bench.delta(&[bad], &[]);
        assert_eq!(bench.refused(), [(Some(session(1)), 6, RefuseReason::Replayed)]);
        assert_eq!(bench.lanes[&session(1)], grant(1, 5).deadline);
    }
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    let sooner = Grant { serial: 6, deadline: grant(1, 5).deadline - Span::from_secs(60), ..grant(1, 5) };
    bench.delta(&[sooner], &[]);
    assert_eq!(bench.refused(), [(Some(session(1)), 6, RefuseReason::Deadline)]);
}

#[test]
fn every_flipped_bit_of_a_grant_opens_nothing_and_is_reported_once() {
    let good = serde_json::to_value(sign(&grant(1, 5))).expect("plain data");
    let body = data_encoding_decode(good["body"].as_str().expect("text"));
    let mut bench = Bench::new();
    for bit in 0..body.len() * 8 {
        let mut bad = body.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let signed = pb::SignedGrant {
            body: bad,
            key_id: signer().key_id().0.to_vec(),
            signature: data_encoding_decode(good["signature"].as_str().expect("text")),
            preshared: vec![9; 32],
        };
        bench.clear();
        bench.want_signed(vec![SignedGrant::from(signed)]);
        assert_eq!(bench.refused().len(), 1, "bit {bit}");
        assert_eq!(bench.refused()[0].2, RefuseReason::Signature);
        assert!(bench.lanes.is_empty() && bench.steps.iter().all(|step| *step == "persist"));
    }
}

/// Base 64 as the standard alphabet has it, for reading our own output in a test.
fn data_encoding_decode(text: &str) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextet = |letter: u8| LETTERS.iter().position(|one| *one == letter).expect("in the alphabet") as u32;
    let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').collect();
    let mut bytes = Vec::new();
    for chunk in letters.chunks(4) {
        let bits = chunk.iter().fold(0, |sum, letter| sum << 6 | sextet(*letter)) << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}

#[test]
fn a_gateway_that_is_not_ready_opens_nothing_and_keeps_what_runs() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.site.handle_not_ready(Some("a flowtable touches the LAN".into()), bench.now);
    bench.delta(&[grant(2, 6)], &[]);
    assert_eq!(bench.refused(), [(Some(session(2)), 6, RefuseReason::NotReady)]);
    assert!(bench.is_open(1));
    bench.site.handle_not_ready(None, bench.now);
    bench.delta(&[grant(3, 7)], &[]);
    assert!(bench.is_open(3));
    assert_eq!(bench.alarms(), ["not-ready", "ready"]);
}

#[test]
fn with_too_many_unacknowledged_records_nothing_new_opens_and_none_is_dropped() {
    let mut bench = Bench::new();
    bench.want(&[]);
    for round in 0..260_u64 {
        let byte = u8::try_from(round % 200 + 1).expect("small");
        let id = thinlane_model::SessionId::from_random([byte, (round / 200) as u8, 0, 0, 1]);
        let one = Grant { session: id, serial: round + 1, ..grant(byte, 1) };
        bench.want(&[one]);
    }
    bench.want(&[]);
    bench.clear();
    bench.pass(Span::from_secs(31));
    assert!(bench.records().len() >= 200 && bench.records().len() <= 256, "{}", bench.records().len());
}
