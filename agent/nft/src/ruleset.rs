//! What the table says: the base that refuses everything, and one lane in it.
//!
//! A packet from a lane interface is judged once, in `prerouting` right after connection tracking and before any NAT,
//! so that whatever it is aimed at it dies, or is accepted, by its lane's own chain and is counted there. What passes
//! carries our mark; `forward` lets nothing else out of a lane interface. A packet to a lane interface is judged in
//! `forward`, where connection tracking has given it its engineer's address back.

use std::net::Ipv4Addr;

use thinlane_model::{Protocol, SessionId, Span};

use crate::expr::{self, Direction, Rule, State, Verdict};
use crate::object::{Base, Chain, Counter, Data, Element, Key, Maps, Set, Type};
use crate::{BaseConfig, Lane};

/// The userspace device that carries every lane.
pub const SHARED_INTERFACE: &str = "tl0";
/// What the names of kernel WireGuard interfaces begin with.
pub const LANE_INTERFACES: &str = "tl-";

/// The mark of a packet that a lane has passed, in [`MARK_MASK`], and of one to the engineer of a kernel lane: their
/// interfaces route nothing else.
pub const MARK: u32 = 0x5400_0000;
/// The mark of a TCP segment from a kernel lane that goes on to `forward` for no more than being answered with a reset:
/// before routing its own route back would need a mark that a reset has not.
pub const MARK_REFUSED: u32 = 0x5500_0000;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xff00_0000;

pub const UP: &str = "up";
pub const DOWN: &str = "down";
pub const LATE: &str = "late";
pub const DENIED: &str = "denied";
pub const TO_ASSET: &str = "to-asset";
pub const AS_GATEWAY: &str = "as-gateway";
pub const ALLOWED: &str = "allowed";
pub const ENGINEERS: &str = "engineers";
const LAN: &str = "lan";
const ICMP_ERRORS: &str = "icmp-errors";

/// Packets of a lane interface that belong to no live session.
pub const REFUSED: &str = "refused";
/// Packets of the gateway's own towards a lane interface.
pub const GATEWAY: &str = "gateway";
/// Packets that were not forwarded from or to the LAN before the agent came.
pub const GUARDED: &str = "guarded";

/// Destination unreachable, time exceeded, parameter problem: what a path needs to say (RFC 792).
const ICMP_ERROR_TYPES: [u8; 3] = [3, 11, 12];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const TCP_RST: u8 = 0x04;
const TCP_SYN: u8 = 0x02;

const LOGGED_PER_SECOND: u32 = 10;
const LOGGED_AT_ONCE: u32 = 20;
const RESETS_PER_SECOND: u32 = 20;
const ICMP_ERRORS_PER_SECOND: u32 = 10;
/// An IPv4 header with options and the ports behind it, or an IPv6 one.
const LOGGED_BYTES: u32 = 96;

/// How often the kernel looks for expired elements: until then an expired one pins its chain.
const COLLECT: Span = Span::from_secs(1);

const SETS: &[Set] = &[
    Set { name: LAN, key: &[Type::Interface], maps: Maps::Nothing, expires: None },
    Set { name: ICMP_ERRORS, key: &[Type::Icmp], maps: Maps::Nothing, expires: None },
    Set { name: UP, key: &[Type::Interface, Type::Address], maps: Maps::Verdict, expires: Some(COLLECT) },
    Set { name: DOWN, key: &[Type::Interface, Type::Address], maps: Maps::Verdict, expires: Some(COLLECT) },
    Set { name: LATE, key: &[Type::Address], maps: Maps::Counter, expires: None },
    Set { name: DENIED, key: &[Type::Address], maps: Maps::Counter, expires: None },
    Set { name: TO_ASSET, key: FLOW, maps: Maps::Address, expires: None },
    Set { name: ALLOWED, key: FLOW, maps: Maps::Nothing, expires: None },
    Set { name: AS_GATEWAY, key: &[Type::Address], maps: Maps::Nothing, expires: None },
    Set { name: ENGINEERS, key: &[Type::Address], maps: Maps::Nothing, expires: None },
];
const FLOW: &[Type] = &[Type::Address, Type::Address, Type::Protocol, Type::Port];

/// Objects of one table, or of one lane in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub sets: &'static [Set],
    pub counters: Vec<Counter>,
    pub chains: Vec<Chain>,
    pub elements: Vec<Element>,
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

fn filter(hook: u32, priority: i32) -> Option<Base> {
    Some(Base { kind: "filter", hook, priority })
}

fn nat(hook: u32, priority: i32) -> Option<Base> {
    Some(Base { kind: "nat", hook, priority })
}

fn chain(name: impl Into<String>, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base, rules }
}

fn goto(name: &str) -> Rule {
    expr::verdict(Verdict::Goto(name.to_owned()))
}

fn accept() -> Rule {
    expr::verdict(Verdict::Accept)
}

fn drop() -> Rule {
    expr::verdict(Verdict::Drop)
}

/// Everything that comes in by a lane interface.
fn from_lanes(then: fn(&str) -> Rule, to: &str) -> [Rule; 2] {
    [[expr::iif(SHARED_INTERFACE), then(to)].concat(), [expr::iif_prefix(LANE_INTERFACES), then(to)].concat()]
}

/// Everything that goes out by a lane interface.
fn to_lanes(to: &str) -> [Rule; 2] {
    [[expr::oif(SHARED_INTERFACE), goto(to)].concat(), [expr::oif_prefix(LANE_INTERFACES), goto(to)].concat()]
}

/// The end of a chain that refuses: log, answer TCP with a reset so that both ends let go, drop.
fn refuse(prefix: &str, group: u16) -> [Rule; 3] {
    [
        [expr::limit(LOGGED_PER_SECOND, LOGGED_AT_ONCE, false), expr::log(prefix, group, LOGGED_BYTES)].concat(),
        [expr::l4proto(TCP), expr::limit(RESETS_PER_SECOND, RESETS_PER_SECOND, false), expr::reset()].concat(),
        drop(),
    ]
}

/// The same before routing, for an interface that routes by marks: the reset is made in `forward`.
fn refuse_early(prefix: &str, group: u16) -> [Rule; 3] {
    let [log, _, drop] = refuse(prefix, group);
    let limit = expr::limit(RESETS_PER_SECOND, RESETS_PER_SECOND, false);
    [log, [expr::l4proto(TCP), limit, expr::set_mark(MARK_REFUSED), accept()].concat(), drop]
}

fn icmp_error() -> Rule {
    [expr::ipv4(), expr::l4proto(ICMP), expr::icmp_type_in(ICMP_ERRORS), expr::state(State::Related)].concat()
}

fn clamp(mss: u16) -> Rule {
    [expr::l4proto(TCP), expr::tcp_flags(TCP_SYN | TCP_RST, TCP_SYN), expr::clamp_mss(mss)].concat()
}

/// The base: without a lane nothing crosses a lane interface.
pub fn base(config: &BaseConfig) -> Ruleset {
    let mut elements: Vec<_> =
        ICMP_ERROR_TYPES.into_iter().map(|number| member(ICMP_ERRORS, Key::icmp_type(number))).collect();
    elements.extend(config.lan.iter().map(|name| member(LAN, Key::interface(name))));
    let refusing = |name: &str, direction: &str| {
        let rules =
            [expr::counter(REFUSED)].into_iter().chain(refuse(&log_prefix(None, direction), config.nflog_group));
        chain(name, None, rules.collect())
    };
    let chains = vec![
        refusing("refuse-up", "up"),
        refusing("refuse-down", "down"),
        chain(
            "refuse-early",
            None,
            [expr::counter(REFUSED)]
                .into_iter()
                .chain(refuse_early(&log_prefix(None, "up"), config.nflog_group))
                .collect(),
        ),
        chain(
            "from-lane",
            None,
            vec![
                [expr::ipv4(), expr::iif_source_verdict(UP)].concat(),
                [expr::ipv4(), expr::counter_by_source(LATE)].concat(),
                [expr::iif_prefix(LANE_INTERFACES), goto("refuse-early")].concat(),
                goto("refuse-up"),
            ],
        ),
        chain(
            "denied-up",
            None,
            vec![
                // It was counted before.
                [expr::mark(MARK_MASK, MARK_REFUSED, false), expr::l4proto(TCP), expr::reset()].concat(),
                [expr::ipv4(), expr::counter_by_source(DENIED)].concat(),
                goto("refuse-up"),
            ],
        ),
        chain("forward-up", None, forward_up(config)),
        chain("forward-down", None, forward_down(config)),
        chain("to-lane", None, to_lane()),
        // After connection tracking (-200), before anybody's mangling (-150) and NAT (-100).
        chain("prerouting", filter(PREROUTING, -190), from_lanes(goto, "from-lane").to_vec()),
        chain(
            "to-asset",
            nat(PREROUTING, -101),
            from_lanes(|map| [expr::ipv4(), expr::dnat_by_flow(map)].concat(), TO_ASSET).to_vec(),
        ),
        // After NAT, where an answer has its engineer's address back.
        chain(
            "to-engineer",
            filter(PREROUTING, -99),
            vec![[expr::ipv4(), expr::destination_in(ENGINEERS), expr::set_mark(MARK)].concat()],
        ),
        chain("input", filter(INPUT, -10), from_lanes(goto, "denied-up").to_vec()),
        chain("forward", filter(FORWARD, -10), forward(config)),
        chain("output", filter(OUTPUT, -10), to_lanes("to-lane").to_vec()),
        chain(
            "as-gateway",
            nat(POSTROUTING, 99),
            vec![
                [expr::mark(MARK_MASK, MARK, false), expr::ipv4(), expr::source_in(AS_GATEWAY), expr::masquerade()]
                    .concat(),
            ],
        ),
    ];
    let counters = [GATEWAY, GUARDED, REFUSED].map(Counter::new).to_vec();
    Ruleset { sets: SETS, counters, chains, elements }
}

fn member(set: &'static str, key: Key) -> Element {
    Element { set, key, data: Data::Nothing, timeout: None }
}

fn forward(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = from_lanes(goto, "forward-up").to_vec();
    rules.extend(to_lanes("forward-down"));
    if config.guard_lan_forwarding {
        // Within one LAN a bridge may show its frames to this hook; that was possible before.
        rules.extend(config.lan.iter().map(|name| [expr::iif(name), expr::oif(name), accept()].concat()));
        rules.push([expr::iif_in(LAN, false), expr::counter(GUARDED), drop()].concat());
        rules.push([expr::oif_in(LAN, false), expr::counter(GUARDED), drop()].concat());
    }
    rules
}

/// What its lane has passed goes to the LAN and to the asset, whatever other tables did to it on the way.
fn forward_up(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = vec![[expr::mark(MARK_MASK, MARK, true), goto("denied-up")].concat()];
    rules.extend(to_lanes("denied-up"));
    if !config.lan.is_empty() {
        rules.push([expr::oif_in(LAN, true), goto("denied-up")].concat());
    }
    rules.push(clamp(config.mss));
    rules.push([expr::ipv4(), expr::flow_in(ALLOWED), accept()].concat());
    rules.push([icmp_error(), accept()].concat());
    rules.push(goto("denied-up"));
    rules
}

fn forward_down(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !config.lan.is_empty() {
        rules.push([expr::iif_in(LAN, true), goto("refuse-down")].concat());
    }
    rules.push(clamp(config.mss));
    rules.push([expr::ipv4(), expr::oif_destination_verdict(DOWN)].concat());
    rules.push([expr::ipv4(), expr::counter_by_destination(LATE)].concat());
    rules.push(goto("refuse-down"));
    rules
}

/// Of the gateway's own packets only the resets of our rules and ICMP errors about a lane's flow go to a lane.
fn to_lane() -> Vec<Rule> {
    vec![
        [expr::l4proto(TCP), expr::tcp_flags(TCP_RST, TCP_RST), accept()].concat(),
        [icmp_error(), expr::limit(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_PER_SECOND, false), accept()].concat(),
        [expr::counter(GATEWAY), drop()].concat(),
    ]
}

/// The names of one session's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(pub SessionId);

impl Names {
    pub fn up(self) -> String {
        format!("lane-{}-up", self.0.short())
    }

    pub fn down(self) -> String {
        format!("lane-{}-down", self.0.short())
    }

    /// Packets of the session's /32 that were not its flow.
    pub fn denied(self) -> String {
        format!("lane-{}-denied", self.0.short())
    }

    /// Packets of the session's /32 after its end.
    pub fn late(self) -> String {
        format!("lane-{}-late", self.0.short())
    }

    /// Packets of its flow beyond its limits, or no valid part of a connection.
    pub fn dropped(self) -> String {
        format!("lane-{}-dropped", self.0.short())
    }

    pub fn chains(self) -> [String; 2] {
        [self.up(), self.down()]
    }

    pub fn counters(self) -> [String; 5] {
        [self.up(), self.down(), self.denied(), self.late(), self.dropped()]
    }

    /// The session of a chain or counter, and what it is of the session's.
    pub fn read(name: &str) -> Option<(Names, &str)> {
        let (short, role) = name.strip_prefix("lane-")?.split_once('-')?;
        let session = format!("{}{short}", SessionId::PREFIX).parse().ok()?;
        Some((Names(session), role))
    }
}

/// What the log says before a packet: who and which way.
pub fn log_prefix(session: Option<SessionId>, direction: &str) -> String {
    match session {
        Some(session) => format!("thinlane {session} {direction}"),
        None => format!("thinlane - {direction}"),
    }
}

/// The rules, counters and elements of one lane.
pub fn lane(config: &BaseConfig, lane: &Lane) -> Ruleset {
    let names = Names(lane.session);
    let tuple = lane.tuple;
    let engineer = tuple.engineer;
    let key = Key::interface_address(&lane.iface, engineer);
    let flow = |to: Ipv4Addr| Key::flow(engineer, to, tuple.protocol.number(), tuple.port);
    let timeout = Some(lane.remaining);
    let mut elements = vec![
        Element { set: DENIED, key: Key::address(engineer), data: Data::Counter(names.denied()), timeout: None },
        Element { set: LATE, key: Key::address(engineer), data: Data::Counter(names.late()), timeout: None },
        member(ALLOWED, flow(tuple.address)),
    ];
    if tuple.destination != tuple.address {
        let (key, data) = (flow(tuple.destination), Data::Address(tuple.address));
        elements.push(Element { set: TO_ASSET, key, data, timeout: None });
    }
    if !lane.keep_source {
        elements.push(member(AS_GATEWAY, Key::address(engineer)));
    }
    if lane.iface.starts_with(LANE_INTERFACES) {
        elements.push(member(ENGINEERS, Key::address(engineer)));
    }
    elements.push(Element { set: DOWN, key: key.clone(), data: Data::Goto(names.down()), timeout });
    elements.push(Element { set: UP, key, data: Data::Goto(names.up()), timeout });
    Ruleset {
        sets: &[],
        counters: names.counters().map(Counter::new).to_vec(),
        chains: vec![
            chain(names.up(), None, lane_up(config, lane)),
            chain(names.down(), None, lane_down(config, lane)),
        ],
        elements,
    }
}

fn transport(protocol: Protocol, port: Rule) -> Rule {
    [expr::l4proto(protocol.number()), port].concat()
}

fn lane_up(config: &BaseConfig, lane: &Lane) -> Vec<Rule> {
    let names = Names(lane.session);
    let tuple = lane.tuple;
    let to_asset = [expr::ipv4(), expr::destination(tuple.destination)].concat();
    let exact = [to_asset.clone(), transport(tuple.protocol, expr::destination_port(tuple.port))].concat();
    let flow = [exact.clone(), expr::direction(Direction::Original)].concat();
    let count_and_drop = [expr::counter(&names.dropped()), drop()].concat();
    let pass = [expr::counter(&names.up()), expr::set_mark(MARK), accept()].concat();
    let mut rules = vec![[exact, expr::state(State::Invalid), count_and_drop.clone()].concat()];
    if let Some(rate) = lane.limits.packets_per_second {
        let over = expr::limit(rate.max(1), burst(rate), true);
        rules.push([flow.clone(), over, count_and_drop.clone()].concat());
    }
    if let Some(connections) = lane.limits.connections {
        let over = [expr::state(State::New), expr::connections_over(connections)].concat();
        rules.push([flow.clone(), over, count_and_drop].concat());
    }
    rules.push([flow, pass.clone()].concat());
    rules.push([to_asset, lane_icmp_error(lane), pass].concat());
    rules.push(expr::counter(&names.denied()));
    let refuse = if lane.iface.starts_with(LANE_INTERFACES) { refuse_early } else { refuse };
    rules.extend(refuse(&log_prefix(Some(lane.session), "up"), config.nflog_group));
    rules
}

fn lane_down(config: &BaseConfig, lane: &Lane) -> Vec<Rule> {
    let names = Names(lane.session);
    let tuple = lane.tuple;
    let exact =
        [expr::ipv4(), expr::source(tuple.address), transport(tuple.protocol, expr::source_port(tuple.port))].concat();
    let pass = [expr::counter(&names.down()), accept()].concat();
    let mut rules = vec![
        [exact.clone(), expr::state(State::Invalid), expr::counter(&names.dropped()), drop()].concat(),
        [exact, expr::direction(Direction::Reply), pass.clone()].concat(),
        [expr::ipv4(), lane_icmp_error(lane), pass].concat(),
        expr::counter(&names.denied()),
    ];
    rules.extend(refuse(&log_prefix(Some(lane.session), "down"), config.nflog_group));
    rules
}

/// An ICMP error about a packet of this lane's flow; needs `ipv4` before it.
fn lane_icmp_error(lane: &Lane) -> Rule {
    [
        expr::l4proto(ICMP),
        expr::icmp_type_in(ICMP_ERRORS),
        expr::state(State::Related),
        expr::opened_to(lane.tuple.destination, lane.tuple.port),
        expr::limit(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_PER_SECOND, false),
    ]
    .concat()
}

/// Packets that may come at once: a tenth of a second's, and at least what a TCP handshake with a first request needs.
fn burst(rate: u32) -> u32 {
    (rate / 10).max(5).min(rate.max(1))
}
