//! What is expected of `switch`, as tests.

use std::net::Ipv4Addr;

use thinlane_model::{Protocol, Secret, Span, Tuple, Wall};

use super::*;
use crate::clock;
use crate::device::{Event, LaneRole};
use crate::key::{key_pair, preshared_key};
use crate::packet::sample::{tcp, udp};

mod ways;

const ME: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 2404;

/// Takes down what a switch wants done.
#[derive(Debug)]
struct Wire {
    space: Vec<u8>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
    /// How many of them are to stay alone.
    alone: usize,
    events: Vec<Event>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { space: vec![0; ROOM], datagrams: Vec::new(), packets: Vec::new(), alone: 0, events: Vec::new() }
    }
}

impl Output for Wire {
    fn space(&mut self) -> &mut [u8] {
        &mut self.space
    }
    fn send(&mut self, to: SocketAddr, length: usize) {
        self.datagrams.push((to, self.space[..length].to_vec()));
    }
    fn interface(&mut self, packet: &[u8]) {
        self.packets.push(packet.to_vec());
    }
    fn interface_alone(&mut self, packet: &[u8]) {
        self.alone += 1;
        self.interface(packet);
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 7443))
}

fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 5])
}

fn now() -> Now {
    clock::now().expect("a clock")
}

/// Two ends without anything in between, and what crossed so far.
struct Ends {
    gateway: Switch,
    engineer: Switch,
    at_gateway: Wire,
    at_engineer: Wire,
    /// Every datagram that the gateway was given.
    to_gateway: Vec<Vec<u8>>,
    private: Secret,
    now: Now,
}

fn random() -> impl FnMut() -> u32 {
    || getrandom::u32().expect("randomness")
}

impl Ends {
    fn open(gateway_initiates: bool) -> Self {
        Self::of(Protocol::Udp, gateway_initiates)
    }

    fn of(protocol: Protocol, gateway_initiates: bool) -> Self {
        Self::between(protocol, gateway_initiates, None)
    }

    /// The gateway, which keeps its path open, may also be reached elsewhere.
    fn with_fallback(fallback: Option<SocketAddr>) -> Self {
        Self::between(Protocol::Udp, false, fallback)
    }

    fn between(protocol: Protocol, gateway_initiates: bool, fallback: Option<SocketAddr>) -> Self {
        let (mine, theirs) = (key_pair().expect("randomness"), key_pair().expect("randomness"));
        let preshared = preshared_key().expect("randomness");
        let now = now();
        let tuple = Tuple { engineer: ME, destination: ASSET, address: ASSET, protocol, port: PORT };
        let spec = LaneSpec {
            session: session(1),
            private: mine.0.clone(),
            peer: theirs.1,
            preshared: Some(preshared),
            endpoint: gateway_initiates.then(|| place(1)),
            fallback,
            keepalive: fallback.map(|_| 25),
            initiate: gateway_initiates,
            role: LaneRole::Gateway { tuple, deadline: now.mono + Span::from_secs(600) },
        };
        let other = LaneSpec {
            private: theirs.0,
            peer: mine.1,
            endpoint: Some(place(2)),
            fallback: None,
            keepalive: Some(25),
            initiate: true,
            role: LaneRole::Engineer { address: ME, allowed: ASSET },
            ..spec.clone()
        };
        let mut ends = Self {
            gateway: Switch::new(1420),
            engineer: Switch::new(1420),
            at_gateway: Wire::default(),
            at_engineer: Wire::default(),
            to_gateway: Vec::new(),
            private: mine.0,
            now,
        };
        ends.gateway.open(spec, &mut random(), now, &mut ends.at_gateway).expect("a lane opens");
        ends.engineer.open(other, &mut random(), now, &mut ends.at_engineer).expect("a lane opens");
        ends
    }

    fn up() -> Self {
        let mut ends = Self::open(false);
        ends.settle();
        assert_eq!(ends.at_engineer.events, [Event::Handshake(session(1))]);
        assert_eq!(ends.at_gateway.events, [Event::Handshake(session(1))]);
        ends
    }

    /// Carries datagrams to and fro until there are none.
    fn settle(&mut self) {
        for _ in 0..100 {
            let (up, down) =
                (std::mem::take(&mut self.at_engineer.datagrams), std::mem::take(&mut self.at_gateway.datagrams));
            if up.is_empty() && down.is_empty() {
                return;
            }
            for (_, datagram) in up {
                self.gateway.take_datagrams(&datagram, usize::MAX, place(1), self.now, &mut self.at_gateway);
                self.to_gateway.push(datagram);
            }
            for (_, datagram) in down {
                self.engineer.take_datagrams(&datagram, usize::MAX, place(2), self.now, &mut self.at_engineer);
            }
        }
        panic!("the ends talk for ever");
    }

    /// Lets time pass and the engineer's end act on it.
    fn pass(&mut self, span: Span) {
        self.now.mono = self.now.mono + span;
        self.engineer.on_time(self.now, &mut self.at_engineer);
    }

    fn ask(&mut self, payload: &[u8]) {
        let mut packet = udp((ME, 9000), (ASSET, PORT), payload);
        self.engineer.take_parcel(&mut Parcel::whole(&mut packet), self.now, &mut self.at_engineer);
        self.settle();
    }

    fn report(&mut self) -> LaneReport {
        self.gateway.report(session(1)).expect("it is open")
    }
}

#[test]
fn packets_cross_both_ways_under_one_handshake() {
    let mut ends = Ends::up();
    ends.ask(b"question");
    assert_eq!(ends.at_gateway.packets, [udp((ME, 9000), (ASSET, PORT), b"question")]);
    let mut answer = udp((ASSET, PORT), (ME, 9000), b"answer");
    ends.gateway.take_parcel(&mut Parcel::whole(&mut answer), ends.now, &mut ends.at_gateway);
    ends.settle();
    assert_eq!(ends.at_engineer.packets, [answer]);
    let report = ends.report();
    assert_eq!((report.endpoint, report.rekeys), (Some(place(1)), 0));
    assert_eq!(report.last_handshake, Some(ends.now.wall));
    assert!(report.last_handshake > Some(Wall::from_millis(0)));
}

#[test]
fn a_lane_whose_packets_are_counted_elsewhere_hands_them_over_one_by_one() {
    let mut ends = Ends::up();
    ends.ask(b"question");
    assert_eq!((ends.at_gateway.packets.len(), ends.at_gateway.alone), (1, 0));
    ends.gateway.keep_apart(session(1), ends.now, &mut ends.at_gateway).expect("it is open");
    ends.ask(b"question");
    assert_eq!((ends.at_gateway.packets.len(), ends.at_gateway.alone), (2, 1));
}

#[test]
fn ends_that_begin_at_the_same_moment_agree() {
    let mut ends = Ends::open(true);
    ends.settle();
    ends.ask(b"question");
    assert_eq!(ends.at_gateway.packets.len(), 1);
}

#[test]
fn what_is_sent_before_the_handshake_arrives_after_it() {
    let mut ends = Ends::open(false);
    let mut packet = udp((ME, 9000), (ASSET, PORT), b"early");
    ends.engineer.take_parcel(&mut Parcel::whole(&mut packet), ends.now, &mut ends.at_engineer);
    ends.settle();
    assert_eq!(ends.at_gateway.packets, [packet]);
}

#[test]
fn a_replayed_datagram_is_delivered_once_and_moves_nothing() {
    let mut ends = Ends::up();
    ends.ask(b"question");
    ends.at_gateway = Wire::default();
    let recorded = ends.to_gateway.clone();
    assert!(recorded.len() >= 3);
    for datagram in recorded.iter().rev().chain(&recorded) {
        ends.gateway.take_datagrams(datagram, usize::MAX, place(66), ends.now, &mut ends.at_gateway);
    }
    assert!(ends.at_gateway.packets.is_empty() && ends.at_gateway.events.is_empty());
    assert!(ends.at_gateway.datagrams.is_empty(), "a replayed initiation is not answered");
    assert_eq!(ends.report().endpoint, Some(place(1)));
}

#[test]
fn no_changed_bit_or_cut_of_any_datagram_has_an_effect() {
    let recorded = {
        let mut ends = Ends::up();
        ends.ask(b"question");
        ends.to_gateway
    };
    let mut ends = Ends::up();
    ends.ask(b"question");
    let mut samples = ends.to_gateway.clone();
    // The same of another lane's keys.
    samples.extend(recorded);
    ends.at_gateway = Wire::default();
    for sample in &samples {
        for at in 0..sample.len() {
            ends.gateway.take_datagrams(&sample[..at], usize::MAX, place(66), ends.now, &mut ends.at_gateway);
            for bit in 0..8 {
                let mut datagram = sample.clone();
                datagram[at] ^= 1 << bit;
                ends.gateway.take_datagrams(&datagram, usize::MAX, place(66), ends.now, &mut ends.at_gateway);
            }
        }
    }
    assert!(ends.at_gateway.packets.is_empty());
    assert_eq!(ends.report().endpoint, Some(place(1)));
    ends.ask(b"still there");
    assert_eq!(ends.at_gateway.packets.len(), 1);
}

#[test]
fn a_lane_that_is_over_makes_no_new_keys_and_counts_what_comes_late() {
    let mut ends = Ends::up();
    ends.ask(b"question");
    ends.gateway.shut(session(1), ends.now, &mut ends.at_gateway).expect("it is open");
    ends.at_gateway = Wire::default();
    ends.ask(b"late");
    assert!(ends.at_gateway.packets.is_empty());
    assert_eq!(ends.report().late_packets, 1);
    ends.pass(Span::from_secs(121));
    assert_eq!(ends.at_engineer.datagrams.len(), 1, "the engineer asks for a new key");
    ends.settle();
    assert!(ends.at_gateway.datagrams.is_empty() && ends.at_gateway.events.is_empty());
}

#[test]
fn a_lane_closes_with_resets_under_a_living_key_and_without_any_under_a_dead_one() {
    for (silence, resets) in [(Span::from_secs(1), 1), (Span::from_secs(181), 0)] {
        let mut ends = Ends::of(Protocol::Tcp, false);
        ends.settle();
        let mut syn = tcp((ME, 9000), (ASSET, PORT), 5, 0, 2, b"");
        ends.engineer.take_parcel(&mut Parcel::whole(&mut syn), ends.now, &mut ends.at_engineer);
        ends.settle();
        assert_eq!(ends.at_gateway.packets, [syn]);
        ends.now.mono = ends.now.mono + silence;
        ends.gateway.close(session(1), ends.now, &mut ends.at_gateway).expect("it is open");
        assert_eq!(ends.at_gateway.datagrams.len(), resets, "to the engineer");
        assert_eq!(ends.at_gateway.packets.len(), 2, "the asset is let go either way");
    }
}

#[test]
fn no_input_breaks_a_device() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..400)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect();
        fuzz_device(&bytes, &mut |_| {});
    }
}

#[test]
fn a_key_is_renewed_after_two_minutes_while_nobody_speaks() {
    let mut ends = Ends::up();
    ends.pass(Span::from_secs(119));
    ends.settle();
    assert_eq!(ends.report().rekeys, 0);
    ends.pass(Span::from_secs(1));
    ends.settle();
    assert_eq!(ends.report().rekeys, 1);
    ends.ask(b"question");
    assert_eq!(ends.at_gateway.packets.len(), 1);
}

#[test]
fn a_device_handshakes_again_at_once_when_told_to() {
    let mut ends = Ends::up();
    ends.engineer.handshake(ends.now, &mut ends.at_engineer);
    ends.settle();
    assert_eq!(ends.report().rekeys, 1);
    let mut unreachable = Ends::open(false);
    unreachable.gateway.handshake(unreachable.now, &mut unreachable.at_gateway);
    assert!(unreachable.at_gateway.datagrams.is_empty(), "there is nowhere to send to");
    ends.ask(b"question");
    assert_eq!(ends.at_gateway.packets.len(), 1);
}

#[test]
fn a_deadline_ends_a_lane_when_its_time_comes_and_says_so() {
    let mut ends = Ends::up();
    let due = ends.now.mono + Span::from_millis(500);
    ends.gateway.extend(session(1), due, ends.now, &mut ends.at_gateway).expect("it is running");
    ends.at_gateway.events.clear();
    let next = ends.gateway.next_due().expect("the deadline");
    assert!(next < due && next > ends.now.mono);
    ends.now.mono = next;
    ends.gateway.on_time(ends.now, &mut ends.at_gateway);
    assert_eq!(ends.at_gateway.events, [Event::Expired(session(1))]);
    ends.ask(b"late");
    assert!(ends.at_gateway.packets.is_empty());
    assert_eq!(ends.gateway.next_due().filter(|next| *next <= due), None, "nothing is left to do");
}

/// One more lane between the two, which its engineer begins at once.
fn one_more(ends: &mut Ends, number: u8) {
    let (mine, theirs) = (key_pair().expect("randomness"), key_pair().expect("randomness"));
    let [engineer, asset] = [ME, ASSET].map(|first| Ipv4Addr::from_bits(first.to_bits() + u32::from(number)));
    let tuple = Tuple { engineer, destination: asset, address: asset, protocol: Protocol::Udp, port: PORT };
    let spec = LaneSpec {
        session: session(number),
        private: mine.0,
        peer: theirs.1,
        preshared: None,
        endpoint: None,
        fallback: None,
        keepalive: None,
        initiate: false,
        role: LaneRole::Gateway { tuple, deadline: ends.now.mono + Span::from_secs(600) },
    };
    let other = LaneSpec {
        private: theirs.0,
        peer: mine.1,
        endpoint: Some(place(2)),
        initiate: true,
        role: LaneRole::Engineer { address: engineer, allowed: asset },
        ..spec.clone()
    };
    ends.gateway.open(spec, &mut random(), ends.now, &mut ends.at_gateway).expect("a lane opens");
    ends.engineer.open(other, &mut random(), ends.now, &mut ends.at_engineer).expect("a lane opens");
}

#[test]
fn many_lanes_that_begin_in_one_moment_are_all_up_after_two_repetitions() {
    const LANES: u8 = 200;
    let mut ends = Ends::open(false);
    (2..=LANES).for_each(|number| one_more(&mut ends, number));
    ends.settle();
    for _ in 0..2 {
        ends.pass(Span::from_millis(1_200));
        ends.settle();
    }
    assert_eq!(ends.at_engineer.events.len(), usize::from(LANES));
}

#[test]
fn a_flood_of_initiations_for_nobody_keeps_no_new_engineer_out_of_a_busy_gateway() {
    let mut ends = Ends::up();
    for number in 2..=64 {
        one_more(&mut ends, number);
        ends.settle();
        ends.pass(Span::from_millis(100));
    }
    assert_eq!(ends.at_gateway.events.len(), 64);
    let mut nobodys = vec![0x5a; 148];
    nobodys[..4].copy_from_slice(&[1, 0, 0, 0]);
    // 5 000 a second.
    for _ in 0..5_000 {
        ends.gateway.take_datagrams(&nobodys, usize::MAX, place(66), ends.now, &mut ends.at_gateway);
    }
    one_more(&mut ends, 65);
    // From where nobody else is.
    let initiation = ends.at_engineer.datagrams.pop().expect("it begins").1;
    ends.gateway.take_datagrams(&initiation, usize::MAX, place(3), ends.now, &mut ends.at_gateway);
    assert_eq!(ends.at_gateway.datagrams.last().map(|(to, _)| *to), Some(place(3)), "it is answered");
}

/// A stranger who knows the gateway's public key, as the relay does, but no private one.
fn bogus_initiation(ends: &Ends, number: u32) -> Vec<u8> {
    use blake2::digest::{Digest, Mac};
    let public = crate::key::public_of(&ends.private).expect("a key");
    let key = blake2::Blake2s256::new().chain_update(b"mac1----").chain_update(public.as_bytes()).finalize();
    let mut initiation = vec![0x5a; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    initiation[4..8].copy_from_slice(&number.to_le_bytes());
    type Keyed = blake2::Blake2sMac<blake2::digest::consts::U16>;
    let keyed = <Keyed as blake2::digest::KeyInit>::new_from_slice(&key).expect("a key of 32 bytes");
    let mac = keyed.chain_update(&initiation[..116]).finalize().into_bytes();
    initiation[116..132].copy_from_slice(&mac);
    initiation
}

#[test]
fn bogus_initiations_cost_a_bounded_number_of_handshakes_and_get_cookies() {
    let mut ends = Ends::up();
    ends.at_gateway = Wire::default();
    for number in 0..5000 {
        let initiation = bogus_initiation(&ends, number);
        ends.gateway.take_datagrams(&initiation, usize::MAX, place(66), ends.now, &mut ends.at_gateway);
    }
    let answers = &ends.at_gateway.datagrams;
    assert!(!answers.is_empty() && answers.len() <= 10, "{}", answers.len());
    assert!(answers.iter().all(|(to, datagram)| *to == place(66) && datagram[0] == kind::COOKIE));
    assert_eq!(ends.report().endpoint, Some(place(1)));
    ends.at_gateway = Wire::default();
    ends.ask(b"still there");
    assert_eq!(ends.at_gateway.packets.len(), 1);
}

/// New keys by the engineer's wish; what both ends say of it.
fn new_keys(ends: &mut Ends) -> [Vec<Event>; 2] {
    (ends.at_gateway, ends.at_engineer) = (Wire::default(), Wire::default());
    ends.engineer.handshake(ends.now, &mut ends.at_engineer);
    ends.settle();
    [std::mem::take(&mut ends.at_gateway.events), std::mem::take(&mut ends.at_engineer.events)]
}

#[test]
fn garbage_that_names_a_lane_keeps_it_from_no_new_keys() {
    let mut ends = Ends::up();
    // It stands in the clear in every data message.
    let index = ends.engineer.by_session[&session(1)] << 8;
    for number in 0..1000u32 {
        let garbage = [&[2, 0, 0, 0][..], &number.to_le_bytes(), &index.to_le_bytes(), &[number as u8; 80]].concat();
        ends.engineer.take_datagrams(&garbage, usize::MAX, place(66), ends.now, &mut ends.at_engineer);
    }
    let both = [vec![Event::Handshake(session(1))], vec![Event::Handshake(session(1))]];
    assert_eq!(new_keys(&mut ends), both);
}

#[test]
fn copies_of_handshakes_get_no_answer_and_keep_nobody_from_new_keys() {
    let mut ends = Ends::up();
    let captured: Vec<Vec<u8>> = ends.to_gateway.iter().filter(|it| it[0] == kind::INITIATION).cloned().collect();
    assert!(!captured.is_empty());
    ends.at_gateway = Wire::default();
    for _ in 0..1000 {
        for copy in &captured {
            ends.gateway.take_datagrams(copy, usize::MAX, place(66), ends.now, &mut ends.at_gateway);
        }
    }
    assert!(ends.at_gateway.datagrams.is_empty(), "a copy was answered");
    let both = [vec![Event::Handshake(session(1))], vec![Event::Handshake(session(1))]];
    assert_eq!(new_keys(&mut ends), both);
    assert_eq!(ends.report().endpoint, Some(place(1)));
}

#[test]
fn a_closed_lane_forgets_its_index_address_and_time() {
    let mut ends = Ends::up();
    ends.ask(b"question");
    let datagram = ends.to_gateway.last().expect("data").clone();
    let report = ends.gateway.close(session(1), ends.now, &mut ends.at_gateway).expect("it is open");
    assert_eq!(report.counters.up_packets, 1);
    ends.at_gateway = Wire::default();
    ends.gateway.take_datagrams(&datagram, usize::MAX, place(1), ends.now, &mut ends.at_gateway);
    let mut answer = udp((ASSET, PORT), (ME, 9000), b"answer");
    ends.gateway.take_parcel(&mut Parcel::whole(&mut answer), ends.now, &mut ends.at_gateway);
    assert!(ends.at_gateway.packets.is_empty() && ends.at_gateway.datagrams.is_empty());
    assert_eq!(ends.gateway.next_due(), None);
    assert!(ends.gateway.by_address.is_empty() && ends.gateway.due_of.is_empty() && ends.gateway.lanes.is_empty());
}

#[test]
fn the_engineers_end_lets_nothing_else_in_or_out() {
    let mut ends = Ends::up();
    for mut packet in [
        udp((ME, 1), (Ipv4Addr::new(198, 18, 0, 2), PORT), b""),
        udp((Ipv4Addr::new(10, 0, 0, 1), 1), (ASSET, PORT), b""),
        tcp((ASSET, 1), (ASSET, PORT), 0, 0, 2, b""),
    ] {
        ends.engineer.take_parcel(&mut Parcel::whole(&mut packet), ends.now, &mut ends.at_engineer);
    }
    assert!(ends.at_engineer.datagrams.is_empty());
    let counters = ends.engineer.report(session(1)).expect("it is open").counters;
    assert_eq!((counters.up_packets, counters.spoofed_packets), (0, 2));
}
