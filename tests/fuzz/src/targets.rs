//! The targets, one function each.

use ed25519_dalek::SigningKey;
use thinlane_model::{PublicKey, SessionId, Span, Wall};
use thinlane_wg::packet::sample::Reach;
use thinlane_wire::{AgentFrame, FrameDecoder, FromController, GrantVerifier, SignedGrant, api, pb};

mod kernel;
mod packets;
mod probe;
mod relay;
mod sealed;
mod tunnel;

/// One parser under test.
pub struct Target {
    pub name: &'static str,
    /// Reads the bytes, and tells of the places that they got to.
    pub run: fn(&[u8], Reach<'_>),
    /// Inputs that it is known to read.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations that are tried whenever the tests run: some hundred milliseconds.
    pub replayed: usize,
    /// Of the places that `run` tells of, those that mutations of the seeds must get to: else it tests little.
    pub deepest: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    plain("frame", |bytes, _| frame(bytes), none),
    plain("agent-message", |bytes, _| agent_message(bytes), none),
    plain("controller-message", |bytes, _| controller_message(bytes), none),
    plain("grant", |bytes, _| grant(bytes), grants),
    plain("policy", |bytes, _| policy(bytes), none),
    plain("policy-cases", |bytes, _| policy_cases(bytes), none),
    plain("canonical-json", |bytes, _| canonical_json(bytes), none),
    plain("note", |bytes, _| note(bytes), none),
    plain("api-json", |bytes, _| api_json(bytes), none),
    plain("words", |bytes, _| words(bytes), none),
    relay::RELAY,
    probe::ANSWER,
    packets::PACKET,
    packets::GATE,
    packets::HEADER,
    packets::SEGMENT,
    packets::COALESCE,
    packets::DEVICE,
    packets::FORWARD,
    tunnel::TUNNEL,
    packets::KERNEL_ANSWER,
    kernel::LOGGED,
    kernel::FOREIGN,
    kernel::ROUTES,
    kernel::DEVICES,
];

/// Those that read what strangers and peers send: headers, segments and messages of lanes.
pub const OF_STRANGERS: &[&str] =
    &["relay", "packet", "gate", "wg-header", "wg-segment", "wg-coalesce", "wg-device", "forward", "forward-tunnel"];

/// Those of them that read what the kernel and the other end of a lane say, packet by packet.
pub const OF_PACKETS: &[&str] = &[
    "relay",
    "probe-answer",
    "packet",
    "gate",
    "wg-header",
    "wg-segment",
    "wg-coalesce",
    "wg-device",
    "forward",
    "forward-tunnel",
    "kernel-answer",
    "kernel-log",
    "kernel-foreign",
    "kernel-routes",
    "kernel-devices",
];

/// What a parser that needs some microseconds for an input may have of them in a test.
const USUAL: usize = 20_000;

const fn plain(name: &'static str, run: fn(&[u8], Reach<'_>), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds, replayed: USUAL, deepest: &[] }
}

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
