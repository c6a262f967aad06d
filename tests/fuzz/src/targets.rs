//! The targets, one function each.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use thinlane_model::{Boot, PublicKey, SessionId, Span, Wall};
use thinlane_relay::{Relay, Verdict};
use thinlane_wire::{
    AgentFrame, FrameDecoder, FromController, GrantVerifier, ProbeKey, ProbeTicket, SignedGrant, api, pb,
};

/// One parser under test.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that it is known to read.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame, seeds: none },
    Target { name: "agent-message", run: agent_message, seeds: none },
    Target { name: "controller-message", run: controller_message, seeds: none },
    Target { name: "grant", run: grant, seeds: grants },
    Target { name: "policy", run: policy, seeds: none },
    Target { name: "policy-cases", run: policy_cases, seeds: none },
    Target { name: "canonical-json", run: canonical_json, seeds: none },
    Target { name: "note", run: note, seeds: none },
    Target { name: "api-json", run: api_json, seeds: none },
    Target { name: "words", run: words, seeds: none },
    Target { name: "relay", run: relay, seeds: datagrams },
    Target { name: "packet", run: packet, seeds: packets },
    Target { name: "gate", run: thinlane_wg::gate::fuzz_gate, seeds: packets },
    Target { name: "wg-header", run: thinlane_wg::offload::fuzz_header, seeds: large_packets },
    Target { name: "wg-segment", run: thinlane_wg::offload::fuzz_segment, seeds: large_packets },
    Target { name: "wg-coalesce", run: thinlane_wg::offload::fuzz_coalesce, seeds: streams },
    Target { name: "wg-device", run: thinlane_wg::fuzz_device, seeds: device_input },
    Target { name: "kernel-answer", run: kernel_answer, seeds: kernel_answers },
    Target { name: "forward", run: thinlane_forward::fuzz_inner, seeds: thinlane_forward::fuzz_seeds },
];

fn none() -> Vec<Vec<u8>> {
    vec![Vec::new()]
}

/// However a stream is cut, the decoder finds the same frames.
fn frame(bytes: &[u8]) {
    let whole = frames(&[bytes]);
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    assert_eq!(whole, frames(&[head, tail]));
}

fn frames(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = FrameDecoder::new();
    let mut found = Vec::new();
    for chunk in chunks {
        let mut rest = *chunk;
        loop {
            match decoder.read(&mut rest) {
                Ok(Some(frame)) => found.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

fn agent_message(bytes: &[u8]) {
    let _ = AgentFrame::decode(bytes);
}

fn controller_message(bytes: &[u8]) {
    let _ = FromController::decode(bytes);
}

/// Without the controller's key nothing is a grant; the bytes may say what they like.
fn grant(bytes: &[u8]) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let verifier = GrantVerifier::new([key.verifying_key()]);
    let id = thinlane_model::KeyId::of(key.verifying_key().as_bytes());
    let (body, signature) = bytes.split_at(bytes.len().saturating_sub(64));
    let signed = SignedGrant::from(pb::SignedGrant {
        body: body.to_vec(),
        key_id: id.0.to_vec(),
        signature: signature.to_vec(),
        preshared: vec![1; 32],
    });
    let _ = signed.peek();
    assert!(verifier.open(&signed).is_err(), "a grant nobody signed was taken");
}

fn grants() -> Vec<Vec<u8>> {
    vec![vec![0; 64], [&[0x08, 0x01, 0x12, 0x0d][..], b"site_00000000", &[0; 64]].concat()]
}

fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match thinlane_policy::Policy::load(&[("fuzz.toml", text)]) {
        Ok(policy) => assert_eq!(
            policy.hash(),
            thinlane_policy::Policy::load(&[("other.toml", text)]).expect("it was valid").hash()
        ),
        Err(errors) => assert!(!errors.is_empty() && errors.iter().all(|error| !error.to_string().is_empty())),
    }
}

fn policy_cases(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = thinlane_policy::Cases::parse(text);
    }
}

/// What is read as canonical is written as the same bytes.
fn canonical_json(bytes: &[u8]) {
    if let Ok(value) = thinlane_tlog::canonical::parse(bytes) {
        assert_eq!(thinlane_tlog::canonical::value_to_vec(&value).expect("it was read"), bytes);
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes)
        && let Ok(written) = thinlane_tlog::canonical::value_to_vec(&value)
    {
        assert!(thinlane_tlog::canonical::is_canonical(&written));
    }
}

fn note(bytes: &[u8]) {
    if let Ok(note) = thinlane_tlog::Note::parse(bytes) {
        let _ = thinlane_tlog::Checkpoint::parse(note.text());
    }
}

fn api_json(bytes: &[u8]) {
    let _ = serde_json::from_slice::<api::LogIn>(bytes);
    let _ = serde_json::from_slice::<api::NewRequest>(bytes);
    let _ = serde_json::from_slice::<api::Activate>(bytes);
    let _ = serde_json::from_slice::<api::ImportAssets>(bytes);
    let _ = serde_json::from_slice::<api::Enrol>(bytes);
    let _ = serde_json::from_slice::<api::SessionView>(bytes);
}

/// A checked word that was read prints as something that reads back the same.
fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    macro_rules! same {
        ($($type:ty),+) => { $(if let Ok(value) = text.parse::<$type>() {
            assert_eq!(value.to_string().parse::<$type>().ok().as_ref(), Some(&value));
        })+ };
    }
    same!(
        Span,
        Wall,
        SessionId,
        PublicKey,
        thinlane_model::Endpoint,
        thinlane_model::AssetName,
        thinlane_model::BootId
    );
}

fn relay(bytes: &[u8]) {
    let mut relay = Relay::new(1);
    let key = |byte: u8| PublicKey::new([byte; 32]).expect("not zero");
    relay.answer_probes(ProbeKey::new([5; 32]));
    let _ = relay.open(SessionId::from_random([1; 5]), key(1), Some(key(2)), Boot(60_000));
    let addresses: [SocketAddr; 2] =
        ["192.0.2.1:1000".parse().expect("an address"), "192.0.2.2:2000".parse().expect("an address")];
    for (turn, datagram) in bytes.chunks(148).enumerate() {
        if let Verdict::Answer(answer) = relay.handle_datagram(addresses[turn % 2], datagram, Boot(turn as u64)) {
            assert_eq!(answer.len(), datagram.len(), "nothing is multiplied");
        }
    }
}

fn datagrams() -> Vec<Vec<u8>> {
    let with = |kind: u8, length: usize| {
        let mut datagram = vec![0x11; length];
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        datagram
    };
    let (ticket, secret) = ProbeKey::new([5; 32]).issue([1; 8], Boot(0));
    let relay = "192.0.2.9:7443".parse().expect("an endpoint");
    let ticket = ProbeTicket { ticket, secret, relay, life: ProbeKey::LIFE, pools: Vec::new() };
    vec![with(1, 148), with(2, 92), with(3, 64), with(4, 32), with(4, 148), ticket.question(1, 100)]
}

fn packet(bytes: &[u8]) {
    let _ = thinlane_wg::packet::parse(bytes);
    let mut copy = bytes.to_vec();
    let _ = thinlane_wg::packet::clamp_mss(&mut copy, 1380);
    assert_eq!(copy.len(), bytes.len());
}

fn packets() -> Vec<Vec<u8>> {
    let ip = |protocol: u8, payload: &[u8]| {
        let length = (20 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 198, 19, 0, 1, 198, 18, 0, 1];
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    };
    let syn = [0xc3, 0x50, 0x01, 0xf6, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let udp = [0xc3, 0x50, 0, 7, 0, 12, 0, 0, 1, 2, 3, 4];
    let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0];
    error.extend(ip(6, &syn));
    vec![ip(6, &syn), ip(17, &udp), ip(1, &error), vec![0x60; 48]]
}

/// A packet, TCP or UDP, with `payload` bytes and a right header checksum.
fn packet_of(protocol: u8, id: u8, seq: u8, payload: usize) -> Vec<u8> {
    let transport = match protocol {
        17 => [0xc3, 0x50, 0, 7, 0, 8 + payload as u8, 0, 1].to_vec(),
        _ => [&[0xc3, 0x50, 0x01, 0xf6, 0, 0, 0, seq, 0, 0, 0, 9, 0x50, 0x10, 1, 0][..], &[0; 4]].concat(),
    };
    let length = 20 + transport.len() + payload;
    let mut bytes = vec![0x45, 0, 0, length as u8, 0, id, 0x40, 0, 64, protocol, 0, 0, 198, 19, 0, 1, 198, 18, 0, 1];
    let sum = thinlane_wg::packet::checksum(0, &bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(transport);
    bytes.resize(length, 0x5a);
    let pseudo = thinlane_wg::packet::sum(u32::from(protocol) + (length - 20) as u32, &bytes[12..20]);
    let at = if protocol == 17 { 26 } else { 36 };
    bytes[at..at + 2].fill(0);
    let sum = thinlane_wg::packet::checksum(pseudo.into(), &bytes[20..]);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What an interface with offload hands over: a header, and a packet to be cut, or a lone one.
fn large_packets() -> Vec<Vec<u8>> {
    use thinlane_wg::offload::header::{Header, Kind};
    let of = |kind, size, offset, packet: Vec<u8>| {
        let header =
            Header { kind, needs_checksum: true, headers: 40, size, checksum_start: 20, checksum_offset: offset };
        [&header.bytes()[..], &packet].concat()
    };
    vec![
        of(Kind::Tcp4, 30, 16, packet_of(6, 1, 0, 100)),
        of(Kind::Udp, 30, 6, packet_of(17, 1, 0, 100)),
        of(Kind::Whole, 0, 16, packet_of(6, 1, 0, 10)),
        of(Kind::Tcp6, 30, 16, vec![0x60; 100]),
    ]
}

/// Packets that follow each other, each behind its length.
fn streams() -> Vec<Vec<u8>> {
    let stream = |protocol: u8| {
        let packets = (0..4u8).map(|at| packet_of(protocol, at, at * 20, 20));
        packets.flat_map(|packet| [&[0, packet.len() as u8][..], &packet].concat()).collect()
    };
    vec![stream(6), stream(17)]
}

/// One of each kind of thing that a device is given, each behind its kind and length.
fn device_input() -> Vec<Vec<u8>> {
    let packet = packet_of(6, 1, 0, 20);
    let mut all = Vec::new();
    for what in 0..16u8 {
        all.extend([what, packet.len() as u8]);
        all.extend(&packet);
    }
    vec![all]
}

/// Whatever the kernel (or what claims to be it) sends.
fn kernel_answer(bytes: &[u8]) {
    use thinlane_nft::decode::{self, Content};
    for message in decode::Messages::new(bytes).take(64) {
        let Ok(message) = message else { break };
        let Ok(Content::Netfilter { family, attrs, .. }) = message.content() else { continue };
        let _ = decode::table(&attrs);
        let _ = decode::chain(&attrs);
        let _ = decode::set(&attrs);
        let _ = decode::elements(&attrs);
        let _ = decode::counter(&attrs);
        let _ = decode::rule(&attrs);
        let _ = decode::expressions(&attrs);
        let _ = decode::flowtable(family, &attrs);
        let _ = decode::flow(&attrs);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = decode::prefix(text);
    }
}

/// A message with the headers that the kernel writes, and attributes nested in one another.
fn kernel_answers() -> Vec<Vec<u8>> {
    let message = |kind: u16, attrs: &[u8]| {
        let mut bytes = ((20 + attrs.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([1, 0, 0, 0]);
        bytes.extend_from_slice(attrs);
        bytes
    };
    let attr = |kind: u16, payload: &[u8]| {
        let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let table = attr(1, b"thinlane\0");
    let nested =
        attr(0x8004, &attr(0x8001, &[attr(1, b"counter\0"), attr(0x8002, &attr(1, &7u64.to_be_bytes()))].concat()));
    let mut found: Vec<Vec<u8>> = (0..26)
        .map(|kind| {
            message(0x0a00 | kind, &[&table[..], &attr(2, b"lane-00000000-up\0"), &attr(3, b"x\0"), &nested].concat())
        })
        .collect();
    found.push(message(
        0x0100,
        &attr(0x8001, &attr(0x8001, &[attr(1, &[198, 19, 0, 1]), attr(2, &[198, 18, 0, 1])].concat())),
    ));
    found
}
