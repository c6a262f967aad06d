//! One end is ours, the other is `wireguard-go` set up with `wg`: both directions.
//!
//! `THINLANE_INTEROP="NAME=COMMAND LINE;.."` lets the same tests run with other programs, too: `scripts/bench wg --interop`
//! does so with boringtun-cli and gotatun, and in an emulated machine with the kernel.

mod lab;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use lab::hop::Hop;
use lab::stock::{Far, Flood, Program, Stock, programs};
use lab::*;
use thinlane_model::{Protocol, Span};
use thinlane_wg::{Device, Event};

const LONG: Span = Span::from_secs(600);
/// Where the stock end listens, and the hop in front of whoever listens.
const STOCK_PORT: u16 = 51_820;
const HOP_PORT: u16 = 40_000;
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

fn wan(port: u16) -> SocketAddr {
    SocketAddr::from((GATEWAY_WAN, port))
}

fn behind_the_hop(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `letter` tells the tests apart: control sockets are shared by all namespaces.
fn name(letter: char, lab: &Lab) -> String {
    format!("t{letter}{}", lab.tag.replace('-', "x"))
}

/// A stock engineer, a gateway of ours, and a hop between them.
struct StockEngineer {
    stock: Stock,
    gateway: End,
    hop: Hop,
    far: Far,
    keys: Keys,
    lab: Lab,
}

impl StockEngineer {
    fn up(program: &Program, letter: char) -> Self {
        let (lab, keys) = (Lab::new(), Keys::new());
        let mut gateway = End::start(&lab.gateway, "tl0", 0);
        gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("a lane opens");
        lead(&lab.gateway, "tl0", None, ENGINEER);
        let hop = Hop::start(&lab.gateway, wan(HOP_PORT), behind_the_hop(gateway.port()));
        let mut stock = Stock::start(program, &lab.engineer, name(letter, &lab), &keys.engineer.0, &keys.preshared);
        let far = Far { key: keys.gateway.1, allowed: DEVICE, endpoint: Some(hop.address), keepalive: None };
        stock.configure(None, Some(ENGINEER), &far);
        Self { stock, gateway, hop, far, keys, lab }
    }
}

/// An engineer of ours, a stock gateway, and a hop between them.
struct StockGateway {
    stock: Stock,
    engineer: End,
    hop: Hop,
    far: Far,
    keys: Keys,
    lab: Lab,
}

impl StockGateway {
    fn up(program: &Program, letter: char) -> Self {
        let (lab, keys) = (Lab::new(), Keys::new());
        let mut stock = Stock::start(program, &lab.gateway, name(letter, &lab), &keys.gateway.0, &keys.preshared);
        let far = Far { key: keys.engineer.1, allowed: ENGINEER, endpoint: None, keepalive: None };
        stock.configure(Some(STOCK_PORT), None, &far);
        let hop = Hop::start(&lab.gateway, wan(HOP_PORT), behind_the_hop(STOCK_PORT));
        let mut engineer = End::start(&lab.engineer, "tl-one", 0);
        engineer.device.open(engineer_spec(&keys, 1, hop.address, ENGINEER)).expect("a lane opens");
        lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
        engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(8));
        Self { stock, engineer, hop, far, keys, lab }
    }
}

/// Asks until an answer comes; `most` is how long a lost one may take to be made good.
fn echoes(lab: &Lab, most: Duration) {
    let socket = udp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)));
    let end = Instant::now() + most;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        socket.send(&[5; 1300]).expect("sent");
        if socket.recv(&mut buffer).is_ok_and(|length| length == 1300) {
            return;
        }
    }
    panic!("no echo in {most:?}");
}

const SOON: Duration = Duration::from_secs(3);
/// A stock end handshakes again after 15 s without an answer, and up to 5 s more pass until it tries a second time.
const STOCK_PATIENCE: Duration = Duration::from_secs(24);

/// Does it with every program, each of them in the failure's text.
fn with_each(act: impl Fn(&Program)) {
    for program in programs() {
        eprintln!("with {}", program.name);
        let begun = Instant::now();
        act(&program);
        told(&program, "", begun);
    }
}

/// A line for whoever asked for the whole table (`--nocapture`).
fn told(program: &Program, which: &str, begun: Instant) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    println!("interop: {}: {test}{which}: good after {:.1} s", program.name, begun.elapsed().as_secs_f32());
}

fn tcp_echo(lab: &Lab) {
    let mut stream =
        tcp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)), Duration::from_secs(8)).expect("a connection");
    let mut buffer = vec![0; 50_000];
    stream.write_all(&vec![3; 50_000]).expect("sent");
    stream.read_exact(&mut buffer).expect("an answer");
}

#[test]
fn a_stock_engineer_uses_our_gateway_by_tcp() {
    with_each(|program| {
        let (lab, keys) = (Lab::new(), Keys::new());
        let _echo = echo(&lab.device, PORT);
        let mut gateway = End::start(&lab.gateway, "tl0", 0);
        gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
        lead(&lab.gateway, "tl0", None, ENGINEER);
        let mut stock = Stock::start(program, &lab.engineer, name('a', &lab), &keys.engineer.0, &keys.preshared);
        let endpoint = Some(wan(gateway.port()));
        stock.configure(None, Some(ENGINEER), &Far { key: keys.gateway.1, allowed: DEVICE, endpoint, keepalive: None });
        tcp_echo(&lab);
        gateway.wait_for(Event::Handshake(session(1)), Duration::from_secs(1));
        let report = gateway.device.close(session(1)).expect("it is open");
        assert_eq!((report.counters.denied_packets, report.counters.spoofed_packets), (0, 0));
        assert!(report.counters.up_bytes > 50_000 && report.counters.down_bytes > 50_000);
        assert!(!stock.stamps() || stock.handshake() != 0, "{} knows of no handshake", program.name);
    });
}

#[test]
fn our_engineer_uses_a_stock_gateway_that_initiates() {
    with_each(|program| {
        let (lab, keys) = (Lab::new(), Keys::new());
        let _echo = echo(&lab.device, PORT);
        let mut engineer = End::start(&lab.engineer, "tl-one", 0);
        let mut spec = engineer_spec(&keys, 1, wan(9), ENGINEER);
        (spec.endpoint, spec.keepalive) = (None, None);
        engineer.device.open(spec).expect("a lane opens");
        lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
        let mut stock = Stock::start(program, &lab.gateway, name('b', &lab), &keys.gateway.0, &keys.preshared);
        let endpoint = Some(SocketAddr::from(([10, 77, 0, 1], engineer.port())));
        stock.configure(None, None, &Far { key: keys.engineer.1, allowed: ENGINEER, endpoint, keepalive: Some(5) });
        engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(8));
        echoes(&lab, SOON);
        tcp_echo(&lab);
        let report = engineer.device.close(session(1)).expect("it is open");
        assert_eq!((report.counters.denied_packets, report.counters.spoofed_packets), (0, 0));
    });
}

#[test]
fn another_preshared_key_makes_no_handshake() {
    with_each(|program| {
        let (lab, keys) = (Lab::new(), Keys::new());
        let mut engineer = End::start(&lab.engineer, "tl-one", 0);
        let other = thinlane_wg::key::preshared_key().expect("randomness");
        let mut stock = Stock::start(program, &lab.gateway, name('p', &lab), &keys.gateway.0, &other);
        let far = Far { key: keys.engineer.1, allowed: ENGINEER, endpoint: None, keepalive: None };
        stock.configure(Some(STOCK_PORT), None, &far);
        engineer.device.open(engineer_spec(&keys, 1, wan(STOCK_PORT), ENGINEER)).expect("a lane opens");
        assert!(engineer.events.recv_timeout(Duration::from_secs(2)).is_err(), "a handshake with the wrong key");
        assert!(engineer.device.report(session(1)).expect("it is open").tx_bytes >= 148, "it tried");
    });
}

#[test]
fn new_keys_are_made_whoever_asks_for_them() {
    with_each(|program| {
        let mut one = StockGateway::up(program, 'c');
        let _echo = echo(&one.lab.device, PORT);
        echoes(&one.lab, SOON);
        // Handshakes are stamped with whole seconds there.
        std::thread::sleep(Duration::from_millis(1100));
        let before = one.stock.handshake();
        one.engineer.device.handshake();
        one.engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(7));
        echoes(&one.lab, SOON);
        assert!(!one.stock.stamps() || one.stock.handshake() > before, "{} does not know of it", program.name);

        let mut other = StockEngineer::up(program, 'd');
        let _echo = echo(&other.lab.device, PORT);
        echoes(&other.lab, Duration::from_secs(8));
        other.gateway.wait_for(Event::Handshake(session(1)), SOON);
        other.stock.forget(&other.far);
        echoes(&other.lab, STOCK_PATIENCE);
        other.gateway.wait_for(Event::Handshake(session(1)), SOON);
        assert_eq!(other.gateway.device.report(session(1)).expect("it is open").rekeys, 1);
    });
}

/// What came of questions that were asked for two minutes.
struct Talk {
    asked: u64,
    unanswered: Vec<u32>,
    /// The longest time that an answer took, and how long after the first question it came.
    slowest: (Duration, Duration),
}

/// Asks ten times a second until keys must have been renewed by age alone. Every question has a number, and its answer may
/// come whenever it likes: a slow machine delays, and only a lost packet leaves a question unanswered.
fn ask_for_two_minutes(lab: &Lab) -> Talk {
    let socket = udp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)));
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let (begun, mut asked, mut slowest) =
        (Instant::now(), BTreeMap::<u32, Instant>::new(), (Duration::ZERO, Duration::ZERO));
    let (mut number, mut buffer) = (0u32, [6; 1300]);
    let mut last = Instant::now();
    while begun.elapsed() < Duration::from_secs(128) || (!asked.is_empty() && last.elapsed() < Duration::from_secs(10))
    {
        if begun.elapsed() < Duration::from_secs(128) {
            buffer[..4].copy_from_slice(&number.to_be_bytes());
            socket.send(&buffer).expect("sent");
            asked.insert(number, Instant::now());
            (number, last) = (number + 1, Instant::now());
        }
        // Takes what has come until nothing came for a while.
        while let Ok(1300) = socket.recv(&mut buffer) {
            let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            let took = asked.remove(&number).map_or(Duration::ZERO, |asked| asked.elapsed());
            slowest = slowest.max((took, begun.elapsed()));
        }
    }
    Talk { asked: number.into(), unanswered: asked.into_keys().collect(), slowest }
}

/// Asks, and insists that keys were renewed and that no packet was lost over it, by either end: what our end counted says
/// which one it would have been.
fn renews_without_loss(program: &Program, which: &str, ours: &mut End, stock: &Stock, lab: &Lab) {
    let begun = Instant::now();
    let before = (ours.device.report(session(1)).expect("it is open"), stock.handshake());
    let talk = ask_for_two_minutes(lab);
    let after = ours.device.report(session(1)).expect("it is open");
    let up = after.counters.up_packets - before.0.counters.up_packets;
    let down = after.counters.down_packets - before.0.counters.down_packets;
    let seen = format!(
        "asked {}, we saw {up} up and {down} down, slowest {:?} after {:?}",
        talk.asked, talk.slowest.0, talk.slowest.1
    );
    assert!(talk.unanswered.is_empty(), "{}{which}: {:?} stay unanswered: {seen}", program.name, talk.unanswered);
    assert_eq!((up, down), (talk.asked, talk.asked), "{}{which}: {seen}", program.name);
    assert!(after.rekeys > before.0.rekeys, "{}{which}: no new key", program.name);
    assert!(!stock.stamps() || stock.handshake() > before.1, "{} does not know of it", program.name);
    told(program, &format!("{which}: {seen}"), begun);
}

#[test]
#[ignore = "takes two minutes: scripts/bench wg --interop runs it"]
fn a_key_that_is_two_minutes_old_is_renewed_while_it_is_used() {
    let programs = programs();
    std::thread::scope(|scope| {
        for program in &programs {
            scope.spawn(move || {
                let mut one = StockGateway::up(program, 'k');
                let _echo = echo(&one.lab.device, PORT);
                echoes(&one.lab, SOON);
                renews_without_loss(program, ", a key renewed by us", &mut one.engineer, &one.stock, &one.lab);
            });
            scope.spawn(move || {
                let mut other = StockEngineer::up(program, 'l');
                let _echo = echo(&other.lab.device, PORT);
                echoes(&other.lab, Duration::from_secs(8));
                renews_without_loss(program, ", a key renewed by it", &mut other.gateway, &other.stock, &other.lab);
            });
        }
    });
}

#[test]
fn an_end_that_was_restarted_is_met_again() {
    with_each(|program| {
        let mut one = StockGateway::up(program, 'e');
        let _echo = echo(&one.lab.device, PORT);
        echoes(&one.lab, SOON);
        one.stock.restart(&one.far);
        // Ours doubts after 5 s.
        echoes(&one.lab, Duration::from_secs(12));
        one.engineer.wait_for(Event::Handshake(session(1)), SOON);

        let mut other = StockEngineer::up(program, 'f');
        let _echo = echo(&other.lab.device, PORT);
        echoes(&other.lab, Duration::from_secs(8));
        other.gateway.device.close(session(1)).expect("it is open");
        let spec = gateway_spec(&other.keys, 1, tuple(Protocol::Udp), boot_in(LONG));
        other.gateway.device.open(spec).expect("it opens again");
        echoes(&other.lab, STOCK_PATIENCE);
    });
}

#[test]
fn each_end_follows_the_other_to_a_new_port() {
    with_each(|program| {
        let one = StockGateway::up(program, 'g');
        let _echo = echo(&one.lab.device, PORT);
        echoes(&one.lab, SOON);
        let (before, handshake) = (one.stock.endpoint(), one.stock.handshake());
        one.hop.rebind();
        echoes(&one.lab, SOON);
        assert_ne!(one.stock.endpoint(), before, "{} did not follow", program.name);
        assert!(!one.stock.stamps() || one.stock.handshake() == handshake, "data alone moves an end");

        let mut other = StockEngineer::up(program, 'h');
        let _echo = echo(&other.lab.device, PORT);
        echoes(&other.lab, Duration::from_secs(8));
        let before = other.gateway.device.report(session(1)).expect("it is open");
        other.hop.rebind();
        echoes(&other.lab, SOON);
        let after = other.gateway.device.report(session(1)).expect("it is open");
        assert_ne!(after.endpoint, before.endpoint);
        assert_eq!(after.rekeys, before.rekeys);
    });
}

#[test]
fn our_end_shows_the_cookie_that_a_stock_end_under_load_asks_for() {
    with_each(|program| {
        let mut one = StockGateway::up(program, 'i');
        let _echo = echo(&one.lab.device, PORT);
        echoes(&one.lab, SOON);
        // Whoever counts each sender by itself is under load for ours only if the flood comes from where ours does.
        let (ns, from, to) = match program.counts_each_sender() {
            true => (&one.lab.gateway, Ipv4Addr::LOCALHOST, behind_the_hop(STOCK_PORT)),
            false => (&one.lab.engineer, STRANGER, wan(STOCK_PORT)),
        };
        let flood = Flood::start(ns, from, to, one.keys.gateway.1, 2_000, Duration::from_millis(150));
        let asked = |hop: &Hop| (hop.weather.cookies.load(Relaxed), hop.weather.with_cookie.load(Relaxed));
        // On a busy machine the flood comes in pieces, and it is not under load at every moment.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(1500));
            one.engineer.device.handshake();
            // The first try brings the cookie, the one 5 s later shows it; under such a load either may be lost.
            one.engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(28));
            if asked(&one.hop).1 > 0 {
                break;
            }
        }
        let (cookies, shown) = asked(&one.hop);
        drop(flood);
        assert!(cookies > 0, "{} was not under load", program.name);
        assert!(shown > 0, "no initiation of ours carried the cookie");
        echoes(&one.lab, SOON);
    });
}

#[test]
fn a_stock_end_shows_the_cookie_that_ours_under_load_asks_for() {
    with_each(|program| {
        let mut other = StockEngineer::up(program, 'j');
        let _echo = echo(&other.lab.device, PORT);
        echoes(&other.lab, Duration::from_secs(8));
        other.gateway.wait_for(Event::Handshake(session(1)), SOON);
        let to = wan(other.gateway.port());
        // More than a lane answers in a second, fewer than it looks at.
        let flood =
            Flood::start(&other.lab.engineer, STRANGER, to, other.keys.gateway.1, 1, Duration::from_millis(125));
        std::thread::sleep(Duration::from_millis(1500));
        let begun = Instant::now();
        let asked = |lab: &Hop| (lab.weather.cookies.load(Relaxed), lab.weather.with_cookie.load(Relaxed));
        // Until it met a second of ours in which strangers had used up the answers.
        while asked(&other.hop).1 == 0 && begun.elapsed() < Duration::from_secs(40) {
            other.stock.forget(&other.far);
            // Ours does not know the new way, so that it cannot come before the other's second try.
            other.hop.rebind();
            echoes(&other.lab, STOCK_PATIENCE);
        }
        let (cookies, shown) = asked(&other.hop);
        drop(flood);
        assert!(cookies > 0, "ours was not under load");
        assert!(shown > 0, "no initiation of {} carried the cookie", program.name);
        assert!(other.gateway.device.report(session(1)).expect("it is open").rekeys > 0);
        echoes(&other.lab, SOON);
    });
}
