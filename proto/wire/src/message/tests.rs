//! What is expected of `message`, as tests.

use thinlane_model::{Boot, BootId, Counters, EndReason, Path, PublicKey, RefuseReason, SessionId, Span, Wall};

use super::*;
use crate::{FrameDecoder, pb};
use prost::Message;

fn session(byte: u8) -> SessionId {
    SessionId::from_random([byte; 5])
}

fn from_agent() -> Vec<FromAgent> {
    let counters = SessionCounters {
        session: session(1),
        counters: Counters {
            up_packets: 1,
            up_bytes: 2,
            down_packets: 3,
            down_bytes: 4,
            denied_packets: 5,
            spoofed_packets: 6,
        },
        handshake_age: Some(Span::ZERO),
        endpoint: Some("192.0.2.1:5".into()),
        path: Some(Path::Direct),
        merged: true,
    };
    let flow = DeniedFlow {
        session: None,
        direction: Direction::Down,
        source: "192.0.2.1".parse().expect("an address"),
        destination: "2001:db8::1".parse().expect("an address"),
        protocol: 6,
        port: Some(22),
        packets: 9,
    };
    vec![
        FromAgent::Hello(Hello {
            protocol: 1,
            capabilities: vec!["a".into()],
            agent_version: "0.1.0".into(),
            boot: BootId([1; 16]),
            connection: 3,
            applied: Applied { generation: 4, digest: [5; 32] },
            backend: "userspace".into(),
            wall: Wall::from_millis(-5),
        }),
        FromAgent::Applied(Applied::default()),
        FromAgent::Armed(Armed {
            session: session(1),
            serial: 2,
            gateway_key: PublicKey::new([3; 32]).expect("not zero"),
            deadline: Boot(4),
            backend: "userspace".into(),
        }),
        FromAgent::Refused(Refused { session: None, serial: 0, reason: RefuseReason::Signature, detail: "x".into() }),
        FromAgent::Counters(vec![counters, SessionCounters::none(session(2))]),
        FromAgent::Alarm(Alarm { number: 1, boot: BootId([1; 16]), kind: "not-ready".into(), detail: String::new() }),
        FromAgent::Ping(0),
        FromAgent::Pong(u64::MAX),
        FromAgent::Renew(vec![1, 2, 3]),
        FromAgent::Status(SiteStatus {
            why_not: Some("a flowtable".into()),
            isolated: false,
            lanes: 2,
            backend: "userspace".into(),
            lan: vec![[192, 168, 1, 1].into()],
        }),
        FromAgent::Denied(DeniedReport { flows: vec![flow], not_reported: 4 }),
        FromAgent::Witness(WitnessReport { size: 3, root: Some([1; 32]), problem: None }),
        FromAgent::Witness(WitnessReport { size: 0, root: None, problem: Some("forked".into()) }),
        FromAgent::Probe,
    ]
}

fn from_controller() -> Vec<FromController> {
    let withdrawn = vec![Withdrawn { session: session(4), reason: EndReason::Killed }];
    vec![
        FromController::Welcome(Welcome {
            protocol: 1,
            wall: Wall::from_millis(7),
            keepalive_idle: Span::from_secs(240),
            keepalive_armed: Span::from_secs(5),
            direct_port: Some(51820),
        }),
        FromController::Snapshot(Snapshot { generation: 1, grants: vec![], withdrawn: withdrawn.clone() }),
        FromController::Delta(Delta { from_generation: 1, generation: 2, grants: vec![], withdrawn }),
        FromController::Ping(1),
        FromController::Pong(2),
        FromController::ClosingAck(session(1)),
        FromController::Renewed(RenewAnswer::Chain(vec![vec![1], vec![2]])),
        FromController::Renewed(RenewAnswer::Refused("waiting for ops".into())),
        FromController::Checkpoint(Checkpoint { note: "n".into(), consistency: vec![[1; 32]], from_size: 2 }),
        FromController::Goodbye(Goodbye { reason: GoodbyeReason::Frozen, detail: "x".into() }),
        FromController::AlarmAck(8),
        FromController::Ticket(crate::ProbeTicket {
            ticket: [1; 16],
            secret: thinlane_model::Secret::new([2; 32]),
            relay: "relay.example:7443".parse().expect("an endpoint"),
            life: Span::from_secs(600),
            pools: vec!["198.18.0.0/16".into()],
        }),
    ]
}

fn unframe(bytes: &[u8]) -> bytes::Bytes {
    FrameDecoder::new().read(&mut &bytes[..]).expect("a frame").expect("whole")
}

#[test]
fn every_message_reads_back_as_itself() {
    for message in from_agent() {
        let frame = AgentFrame { boot: Boot(11), message };
        assert_eq!(AgentFrame::decode(&unframe(&frame.encode().expect("short"))), Ok(Some(frame)));
    }
    for message in from_controller() {
        assert_eq!(FromController::decode(&unframe(&message.encode().expect("short"))), Ok(Some(message)));
    }
}

#[test]
fn a_kind_that_only_a_newer_peer_knows_is_left_out() {
    // Field 100, two bytes long, in both directions.
    assert_eq!(AgentFrame::decode(&[0x08, 0x05, 0xa2, 0x06, 0x02, 0x01, 0x02]), Ok(None));
    assert_eq!(FromController::decode(&[0xa2, 0x06, 0x02, 0x01, 0x02]), Ok(None));
}

#[test]
fn what_is_incomplete_is_refused_and_not_filled_in() {
    use pb::agent_frame::Body;
    let refused = |body: Body| {
        let frame = pb::AgentFrame { boot_ms: 1, body: Some(body) };
        assert!(AgentFrame::decode(&frame.encode_to_vec()).is_err(), "{frame:?}");
    };
    refused(Body::Hello(pb::Hello::default()));
    refused(Body::Hello(pb::Hello { protocol: 1, boot_id: vec![1; 15], ..Default::default() }));
    refused(Body::Applied(pb::Applied { generation: 1, digest: vec![1; 31] }));
    refused(Body::Armed(pb::Armed::default()));
    refused(Body::Armed(pb::Armed {
        session: session(1).to_string(),
        serial: 1,
        gateway_key: vec![0; 32],
        deadline_boot_ms: 1,
        ..Default::default()
    }));
    refused(Body::Closing(pb::Closing { record: vec![1], signature: vec![1; 63] }));
    refused(Body::Alarm(pb::Alarm { boot_id: vec![1; 16], ..Default::default() }));
    refused(Body::Renew(pb::RenewRequest::default()));
    refused(Body::Counters(pb::CountersReport { sessions: vec![pb::SessionCounters::default()] }));
    refused(Body::Counters(pb::CountersReport { sessions: vec![SessionCounters::none(session(1)).to_pb(); 257] }));
    refused(Body::Denied(pb::DeniedReport { flows: vec![pb::DeniedFlow::default()], not_reported: 0 }));
    refused(Body::Witness(pb::WitnessReport { size: 1, ..Default::default() }));

    use pb::controller_frame::Body as Down;
    let refused = |body: Down| {
        let frame = pb::ControllerFrame { body: Some(body) };
        assert!(FromController::decode(&frame.encode_to_vec()).is_err(), "{frame:?}");
    };
    refused(Down::Welcome(pb::Welcome::default()));
    refused(Down::Welcome(pb::Welcome { protocol: 1, keepalive_idle_s: 60, ..Default::default() }));
    refused(Down::Snapshot(pb::Snapshot::default()));
    refused(Down::Delta(pb::Delta { generation: 2, ..Default::default() }));
    refused(Down::ClosingAck(pb::ClosingAck::default()));
    refused(Down::Checkpoint(pb::Checkpoint { note: "n".into(), consistency: vec![vec![1; 31]], from_size: 1 }));
    refused(Down::Renewed(pb::RenewAnswer { chain_der: vec![vec![]], refusal: String::new() }));
}

#[test]
fn words_of_a_newer_peer_lose_neither_a_refusal_nor_a_withdrawal() {
    let body = pb::agent_frame::Body::Refused(pb::Refused {
        session: session(1).to_string(),
        serial: 1,
        reason: "moon".into(),
        detail: "full".into(),
    });
    let frame = pb::AgentFrame { boot_ms: 1, body: Some(body) }.encode_to_vec();
    let refused =
        Refused { session: Some(session(1)), serial: 1, reason: RefuseReason::NotReady, detail: "moon: full".into() };
    let read = AgentFrame::decode(&frame).expect("known kind").expect("known kind");
    assert_eq!(read.message, FromAgent::Refused(refused));

    let withdrawn = vec![pb::Withdrawn { session: session(1).to_string(), reason: "moon".into() }];
    let body = pb::controller_frame::Body::Snapshot(pb::Snapshot { generation: 1, grants: vec![], withdrawn });
    let read = FromController::decode(&pb::ControllerFrame { body: Some(body) }.encode_to_vec());
    let Ok(Some(FromController::Snapshot(snapshot))) = read else { panic!("{read:?}") };
    assert_eq!(snapshot.withdrawn, [Withdrawn { session: session(1), reason: EndReason::Failed }]);
}

#[test]
fn text_from_the_other_side_is_fit_for_a_terminal() {
    let goodbye = Goodbye { reason: GoodbyeReason::Protocol, detail: format!("\u{1b}[2J{}", "x".repeat(2000)) };
    let bytes = FromController::Goodbye(goodbye).encode().expect("cut to length");
    let Ok(Some(FromController::Goodbye(read))) = FromController::decode(&unframe(&bytes)) else { panic!("a goodbye") };
    assert_eq!(read.detail.chars().count(), 512);
    assert!(!read.detail.chars().any(char::is_control));
}

#[test]
fn hostile_bytes_are_refused_or_read_but_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).expect("31 bits")
    };
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for message in from_agent() {
        frames.push(unframe(&AgentFrame { boot: Boot(1), message }.encode().expect("short")).to_vec());
    }
    for message in from_controller() {
        frames.push(unframe(&message.encode().expect("short")).to_vec());
    }
    for _ in 0..20_000 {
        let mut bytes = frames[random() % frames.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % bytes.len();
            match random() % 3 {
                0 => bytes[at] = (random() & 0xff) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, (random() & 0xff) as u8),
            }
        }
        let _ = AgentFrame::decode(&bytes);
        let _ = FromController::decode(&bytes);
    }
}
