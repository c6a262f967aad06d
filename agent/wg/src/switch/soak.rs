//! Hours of traffic in seconds: lanes between whole devices, on a clock that is moved, over ways that lose, double,
//! reorder, forget and fall silent. `Tunn`'s own clock is moved along, so that keys age as they do in the world.
//!
//! `scripts/bench wg --soak` runs the long one by itself; `THINLANE_SOAK_HOURS` and `THINLANE_SOAK_SEED` change it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};

use thinlane_model::{Boot, Now, Protocol, SessionId, Span, Tuple};

use super::{ROOM, Switch};
use crate::device::{Event, LaneRole, LaneSpec};
use crate::key::{key_pair, preshared_key};
use crate::lane::Output;
use crate::offload::parcel::Parcel;
use crate::packet::{self, sample::udp};

pub(super) mod clock;
mod talk;
use talk::Talk;

const LANES: u8 = 8;
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 2404;
const TOOL: u16 = 9000;
const GATEWAY: ([u8; 4], u16) = ([192, 0, 2, 1], 51820);
/// How long something that was said may wait while the way is open. Both ends doubt after 5 s and then try every 5 s,
/// of which the foulest weather here lets less than one in three be in vain.
const STUCK: Span = Span::from_secs(60);

/// Numbers that are the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most.max(1)
    }

    fn between(&mut self, least: u64, most: u64) -> Span {
        Span::from_millis(least + self.below(most - least))
    }
}

/// What a switch has said since it was last looked at.
struct Said {
    space: Vec<u8>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
    handshakes: u64,
}

impl Said {
    fn new() -> Self {
        Self { space: vec![0; ROOM], datagrams: Vec::new(), packets: Vec::new(), handshakes: 0 }
    }
}

impl Output for Said {
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
        self.interface(packet);
    }
    fn event(&mut self, event: Event) {
        self.handshakes += u64::from(matches!(event, Event::Handshake(_)));
    }
}

/// What the way of one lane does to its datagrams, and when it does something else.
struct Weather {
    /// Of a thousand.
    lost: u64,
    delay: Span,
    dark_until: Boot,
    next_dark: Boot,
    next_night: Boot,
    next_rebind: Boot,
    next_change: Boot,
    next_work: Boot,
}

/// One lane: the engineer's whole device, the programs at both ends, and the way in between.
struct Lane {
    number: u8,
    spec: LaneSpec,
    engineer: Switch,
    said: Said,
    near: Talk,
    far: Talk,
    /// Where the gateway sees the engineer; what goes to an earlier place is lost.
    place: SocketAddr,
    places: u16,
    weather: Weather,
    longest_wait: Span,
}

impl Lane {
    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, 0, self.number)
    }

    fn seeds(&self) -> [u64; 2] {
        [u64::from(self.number) * 2, u64::from(self.number) * 2 + 1]
    }

    fn due(&self, now: Boot) -> Option<Boot> {
        let weather = &self.weather;
        let script =
            [weather.next_dark, weather.next_night, weather.next_rebind, weather.next_change, weather.next_work];
        // The device speaks to whom it has heard.
        let far = if self.far.has_heard() { self.far.due(now) } else { None };
        let talks = [self.near.due(now), far, self.engineer.next_due()];
        script.into_iter().chain(talks.into_iter().flatten()).min()
    }
}

/// A datagram under way: when it arrives, its number, for which lane, and from or to where.
type Flight = Reverse<(Boot, u64, usize, bool, SocketAddr, Vec<u8>)>;

struct World {
    now: Now,
    dice: Dice,
    gateway: Switch,
    said: Said,
    lanes: Vec<Lane>,
    by_place: BTreeMap<SocketAddr, usize>,
    flights: BinaryHeap<Flight>,
    flown: u64,
    next_restart: Boot,
    rebinds: u64,
    restarts: u64,
    most_under_way: usize,
}

fn random() -> impl FnMut() -> u32 {
    || getrandom::u32().expect("randomness")
}

impl World {
    fn new(seed: u64, life: Span) -> Self {
        let now = crate::clock::now().expect("a clock");
        clock::set(now);
        let mut dice = Dice(seed | 1);
        let (mut gateway, mut said) = (Switch::new(1420), Said::new());
        let mut lanes = Vec::new();
        for number in 1..=LANES {
            let (mine, theirs) = (key_pair().expect("randomness"), key_pair().expect("randomness"));
            let engineer = Ipv4Addr::new(198, 19, 0, number);
            let tuple = Tuple { engineer, destination: ASSET, address: ASSET, protocol: Protocol::Udp, port: PORT };
            let spec = LaneSpec {
                session: SessionId::from_random([number; 5]),
                private: mine.0,
                peer: theirs.1,
                preshared: Some(preshared_key().expect("randomness")),
                endpoint: None,
                fallback: None,
                keepalive: Some(25),
                initiate: false,
                role: LaneRole::Gateway { tuple, deadline: now.mono + life + life },
            };
            let other = LaneSpec {
                private: theirs.0,
                peer: mine.1,
                endpoint: Some(SocketAddr::from(GATEWAY)),
                initiate: true,
                role: LaneRole::Engineer { address: engineer, allowed: ASSET },
                ..spec.clone()
            };
            gateway.open(spec.clone(), &mut random(), now, &mut said).expect("a lane opens");
            let (mut device, mut heard) = (Switch::new(1420), Said::new());
            device.open(other, &mut random(), now, &mut heard).expect("a lane opens");
            let after = |dice: &mut Dice, secs: u64| now.mono + dice.between(secs * 300, secs * 1700);
            lanes.push(Lane {
                number,
                spec,
                engineer: device,
                said: heard,
                near: Talk::new(u64::from(number) * 2, now.mono),
                far: Talk::new(u64::from(number) * 2 + 1, now.mono),
                place: SocketAddr::from(([198, 51, 100, number], 1000)),
                places: 1000,
                weather: Weather {
                    lost: 0,
                    delay: Span::from_millis(30),
                    dark_until: now.mono,
                    next_dark: after(&mut dice, 600),
                    next_night: after(&mut dice, 5400),
                    next_rebind: after(&mut dice, 240),
                    next_change: now.mono,
                    next_work: now.mono,
                },
                longest_wait: Span::from_millis(0),
            });
        }
        let by_place = lanes.iter().enumerate().map(|(at, lane): (usize, &Lane)| (lane.place, at)).collect();
        let next_restart = now.mono + Span::from_secs(3000);
        let mut world = Self {
            now,
            dice,
            gateway,
            said,
            lanes,
            by_place,
            flights: BinaryHeap::new(),
            flown: 0,
            next_restart,
            rebinds: 0,
            restarts: 0,
            most_under_way: 0,
        };
        world.ship();
        world
    }

    /// Lives until `end`; with `work`, the programs have things to say now and then.
    fn live(&mut self, end: Boot, work: bool) {
        while self.now.mono < end && (work || self.lanes.iter().any(|lane| lane.near.waits() || lane.far.waits())) {
            let now = self.now.mono;
            let flight = self.flights.peek().map(|Reverse(flight)| flight.0);
            let lanes = self.lanes.iter().filter_map(|lane| lane.due(now)).min();
            let next = [flight, lanes, self.gateway.next_due(), Some(self.next_restart), Some(end)];
            let next = next.into_iter().flatten().min().unwrap_or(end).max(now);
            self.now = Now { mono: next, wall: self.now.wall + now.until(next) };
            clock::set(self.now);
            self.land();
            if self.gateway.next_due().is_some_and(|due| due <= next) {
                self.gateway.on_time(self.now, &mut self.said);
            }
            for at in 0..self.lanes.len() {
                if self.lanes[at].due(next).is_some_and(|due| due <= next) {
                    self.turn(at, work);
                }
            }
            if self.next_restart <= next {
                self.restart();
            }
            self.ship();
            self.judge();
        }
    }

    /// Hands over what arrives now.
    fn land(&mut self) {
        while let Some(Reverse((at, ..))) = self.flights.peek()
            && *at <= self.now.mono
        {
            let Some(Reverse((_, _, lane, up, place, bytes))) = self.flights.pop() else { break };
            if up {
                self.gateway.take_datagrams(&bytes, usize::MAX, place, self.now, &mut self.said);
            } else if place == self.lanes[lane].place {
                let lane = &mut self.lanes[lane];
                lane.engineer.take_datagrams(&bytes, usize::MAX, GATEWAY.into(), self.now, &mut lane.said);
            }
        }
    }

    /// Lets one lane's ends, and its weather, do what is due.
    fn turn(&mut self, at: usize, work: bool) {
        let (now, dice) = (self.now, &mut self.dice);
        let lane = &mut self.lanes[at];
        if lane.engineer.next_due().is_some_and(|due| due <= now.mono) {
            lane.engineer.on_time(now, &mut lane.said);
        }
        let weather = &mut lane.weather;
        if weather.next_change <= now.mono {
            weather.lost = [0, 0, 10, 50, 150][dice.below(5) as usize];
            weather.delay = dice.between(5, 300);
            weather.next_change = now.mono + dice.between(60_000, 1_800_000);
        }
        for (next, often, least, most) in [
            // The 5 s that a train takes through a tunnel; and a night in which every key dies, and is wiped.
            (&mut weather.next_dark, 600_000, 1_000, 9_000),
            (&mut weather.next_night, 7_200_000, 200_000, 700_000),
        ] {
            if *next <= now.mono {
                *next = now.mono + dice.between(often / 2, often * 3 / 2);
                weather.dark_until = weather.dark_until.max(now.mono + dice.between(least, most));
            }
        }
        if weather.next_rebind <= now.mono {
            weather.next_rebind = now.mono + dice.between(20_000, 480_000);
            lane.places += 1;
            self.by_place.remove(&lane.place);
            lane.place.set_port(lane.places);
            self.by_place.insert(lane.place, at);
            self.rebinds += 1;
        }
        if weather.next_work <= now.mono {
            weather.next_work = now.mono + dice.between(1_000, 240_000);
            if work {
                lane.near.write(dice.below(120) as u32 + 1, now.mono);
                lane.far.write(dice.below(60) as u32, now.mono);
            }
        }
        for message in lane.near.speak(now.mono) {
            let mut packet = udp((lane.address(), TOOL), (ASSET, PORT), &message);
            lane.engineer.take_parcel(&mut Parcel::whole(&mut packet), now, &mut lane.said);
        }
        if lane.far.has_heard() {
            for message in lane.far.speak(now.mono) {
                let mut packet = udp((ASSET, PORT), (lane.address(), TOOL), &message);
                self.gateway.take_parcel(&mut Parcel::whole(&mut packet), now, &mut self.said);
            }
        }
    }

    /// The gateway's agent ends and comes back: the same lanes, nothing else known.
    fn restart(&mut self) {
        self.next_restart = self.now.mono + self.dice.between(3_600_000, 9_000_000);
        self.restarts += 1;
        for lane in &self.lanes {
            let report = self.gateway.suspend(lane.spec.session).expect("it is open");
            assert_eq!(report.counters.spoofed_packets, 0);
            let spec = LaneSpec { endpoint: report.endpoint, initiate: true, ..lane.spec.clone() };
            self.gateway.open(spec, &mut random(), self.now, &mut self.said).expect("it opens again");
            let ports = [TOOL];
            self.gateway.recall(lane.spec.session, &ports, self.now, &mut self.said).expect("it is open");
        }
    }

    /// Sends on its way, or into programs, what the devices have said.
    fn ship(&mut self) {
        let packets = std::mem::take(&mut self.said.packets);
        for bytes in packets {
            let from = packet::parse_ipv4(&bytes).expect("a packet").source;
            let lane = &mut self.lanes[usize::from(from.octets()[3]) - 1];
            lane.far.hear(&bytes[28..], self.now.mono);
        }
        for (to, bytes) in std::mem::take(&mut self.said.datagrams) {
            if let Some(lane) = self.by_place.get(&to).copied() {
                self.fly(lane, false, to, bytes);
            }
        }
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            for bytes in std::mem::take(&mut lane.said.packets) {
                lane.near.hear(&bytes[28..], self.now.mono);
            }
            let place = lane.place;
            for (_, bytes) in std::mem::take(&mut lane.said.datagrams) {
                self.fly(at, true, place, bytes);
            }
        }
        self.most_under_way = self.most_under_way.max(self.flights.len());
    }

    fn fly(&mut self, at: usize, up: bool, place: SocketAddr, bytes: Vec<u8>) {
        let weather = &self.lanes[at].weather;
        if weather.dark_until > self.now.mono || self.dice.below(1000) < weather.lost {
            return;
        }
        let copies = if self.dice.below(1000) < 20 { 2 } else { 1 };
        for _ in 0..copies {
            // One in ten is overtaken by those behind it.
            let late = if self.dice.below(10) == 0 { self.dice.between(0, 200) } else { Span::from_millis(0) };
            let arrives = self.now.mono + self.lanes[at].weather.delay + late;
            self.flown += 1;
            self.flights.push(Reverse((arrives, self.flown, at, up, place, bytes.clone())));
        }
    }

    /// Nothing that was said waits for ever, and nothing grows.
    fn judge(&mut self) {
        let now = self.now.mono;
        for lane in &mut self.lanes {
            for talk in [&lane.near, &lane.far] {
                if talk.waits() {
                    let waited = talk.progress.max(lane.weather.dark_until).until(now);
                    lane.longest_wait = lane.longest_wait.max(waited);
                    assert!(
                        waited < STUCK,
                        "lane {} is stuck, {} rebinds, {:?}",
                        lane.number,
                        lane.places,
                        lane.engineer
                    );
                }
            }
        }
        assert_eq!(self.gateway.lanes.len(), usize::from(LANES));
        assert!(self.gateway.due.len() <= usize::from(LANES) && self.gateway.due_of.len() <= usize::from(LANES));
        assert!(self.flights.len() < 10_000, "datagrams breed");
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// So many hours; yields resident memory after a tenth of them and at the end, in KiB.
fn soak(seed: u64, hours: u64) -> [u64; 2] {
    let life = Span::from_secs(hours * 3600);
    let mut world = World::new(seed, life);
    let begun = world.now.mono;
    world.live(begun + Span::from_secs(hours * 360), true);
    let early = resident();
    world.live(begun + life, true);
    // What was said last still arrives.
    world.live(begun + life + life, false);
    let late = resident();
    let handshakes: Vec<u64> = world.lanes.iter().map(|lane| lane.said.handshakes).collect();
    let (mut bytes, mut denied) = (0, 0);
    for lane in &mut world.lanes {
        let [near, far] = lane.seeds();
        let [got, said] = lane.far.compare(near, lane.near.written());
        assert!(got == said, "lane {}: not what the engineer's program said", lane.number);
        let [got, said] = lane.near.compare(far, lane.far.written());
        assert!(got == said, "lane {}: not what the device said", lane.number);
        bytes += lane.near.bytes + lane.far.bytes;
        let report = world.gateway.close(lane.spec.session, world.now, &mut world.said).expect("it is open");
        assert_eq!(report.counters.spoofed_packets, 0);
        denied += report.counters.denied_packets;
        assert!(lane.engineer.close(lane.spec.session, world.now, &mut lane.said).is_ok());
        assert_eq!(lane.engineer.next_due(), None);
    }
    assert_eq!(world.gateway.next_due(), None);
    let waited = world.lanes.iter().map(|lane| lane.longest_wait).max().unwrap_or_default();
    println!(
        "{hours} h, {LANES} lanes, seed {seed}: {} datagrams, {bytes} bytes hashed equal, handshakes per lane {handshakes:?}, \
         {} rebindings, {} restarts, longest wait on an open way {} ms, {denied} denied since the last restart, at most \
         {} datagrams under way, resident {early} KiB after a tenth and {late} KiB at the end",
        world.flown,
        world.rebinds,
        world.restarts,
        waited.as_millis(),
        world.most_under_way
    );
    // A key lives for two minutes, thirty in an hour, of which a night of ten minutes takes five away.
    assert!(handshakes.iter().all(|count| *count >= hours * 25), "{handshakes:?}");
    clock::release();
    [early, late]
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn hours_of_foul_weather_lose_no_byte_and_leave_no_lane_stuck() {
    soak(1, 1);
}

/// Alone in its process, so that its memory is the soak's.
#[test]
#[ignore = "takes minutes, alone: scripts/bench wg --soak runs it"]
fn a_day_of_foul_weather_loses_no_byte_and_keeps_its_memory() {
    let [early, late] = soak(number("THINLANE_SOAK_SEED", 7), number("THINLANE_SOAK_HOURS", 24));
    assert!(late < early + 4096, "{early} KiB became {late} KiB");
}
