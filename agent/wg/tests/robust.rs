//! Devices under trouble: floods, strangers, moving ends, vanishing interfaces.

mod lab;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::*;
use thinlane_model::{Protocol, Span};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, DeviceError, Event};

const LONG: Span = Span::from_secs(600);

fn target() -> SocketAddr {
    SocketAddr::from((DEVICE, PORT))
}

/// The slower half of echo times through a lane.
fn median(socket: &std::net::UdpSocket, rounds: usize) -> Duration {
    let mut buffer = [0; 64];
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            socket.send(b"are you there").expect("sent");
            socket.recv(&mut buffer).map_or(Duration::from_millis(500), |_| begun.elapsed())
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn floods_of_garbage_and_of_bogus_initiations_leave_a_lane_alone() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    let socket = udp_to(&lab.engineer, target());
    let quiet = median(&socket, 50);
    let flood = udp_to(&lab.engineer, SocketAddr::from((GATEWAY_WAN, pair.gateway.port())));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let flooding = std::thread::spawn(move || {
        let mut sent = 0u32;
        let (mut initiation, mut data) = ([7u8; 148], [9u8; 200]);
        initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
        data[..4].copy_from_slice(&[4, 0, 0, 0]);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) && sent < 200_000 {
            sent += 1;
            initiation[4..8].copy_from_slice(&sent.to_le_bytes());
            data[4..8].copy_from_slice(&sent.to_le_bytes());
            let _ = flood.send(&initiation);
            let _ = flood.send(&data);
            let _ = flood.send(&data[..(sent % 100) as usize]);
            if sent.is_multiple_of(8) {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        sent
    });
    std::thread::sleep(Duration::from_millis(300));
    let busy = median(&socket, 2000);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent = flooding.join().expect("no panic");
    assert!(sent > 2000, "{sent}");
    assert!(busy < quiet * 4 + Duration::from_millis(10), "{quiet:?} became {busy:?}");
    let report = pair.gateway.device.report(session(1)).expect("it is open");
    assert_eq!(report.endpoint.map(|from| from.ip()), Some([10, 77, 0, 1].into()));
    assert_eq!(report.counters.denied_packets, 0);
}

#[test]
fn a_gateway_follows_an_engineer_who_moves() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    let socket = udp_to(&lab.engineer, target());
    let mut buffer = [0; 8];
    socket.send(b"one").expect("sent");
    socket.recv(&mut buffer).expect("an answer");
    run(&format!(
        "ip -n {} addr del 10.77.0.1/24 dev wan; ip -n {} addr add 10.77.0.9/24 dev wan",
        lab.engineer, lab.engineer
    ));
    socket.send(b"two").expect("sent");
    socket.recv(&mut buffer).expect("an answer at the new place");
    let report = pair.gateway.device.report(session(1)).expect("it is open");
    let at = report.endpoint.expect("it was heard").ip();
    assert_ne!(at, std::net::IpAddr::from([10, 77, 0, 1]));
    assert_eq!(report.rekeys, 0);
}

#[test]
fn an_end_without_an_answer_handshakes_again_within_six_seconds() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    let socket = udp_to(&lab.engineer, target());
    let mut buffer = [0; 8];
    // The gateway forgets everything, as after a restart, and resumes the lane with the same keys.
    pair.gateway.device.close(session(1)).expect("it is open");
    pair.gateway.device.open(gateway_spec(&pair.keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("it opens again");
    socket.send(b"lost").expect("sent");
    let begun = Instant::now();
    pair.engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(8));
    assert!((4..7).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    socket.send(b"again").expect("sent");
    socket.recv(&mut buffer).expect("an answer");
}

#[test]
fn a_lane_waits_for_an_endpoint_and_then_handshakes_at_once() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("a lane opens");
    let mut engineer = End::start(&lab.engineer, "tl-one", 0);
    let endpoint = SocketAddr::from((GATEWAY_WAN, gateway.port()));
    let mut spec = engineer_spec(&keys, 1, endpoint, ENGINEER);
    spec.endpoint = None;
    engineer.device.open(spec).expect("a lane opens");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(engineer.device.report(session(1)).expect("it is open").tx_bytes, 0);
    engineer.device.set_endpoint(session(1), endpoint).expect("it is open");
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(1));
    gateway.wait_for(Event::Handshake(session(1)), Duration::from_secs(1));
}

#[test]
fn a_refused_port_and_a_missing_route_do_not_stop_a_device() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut engineer = End::start(&lab.engineer, "tl-one", 0);
    // Nobody listens there yet: the kernel answers with port unreachable.
    let endpoint = SocketAddr::from((GATEWAY_WAN, 51_777));
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    engineer.device.set_endpoint(session(1), SocketAddr::from(([203, 0, 113, 9], 9))).expect("no route, no error");
    engineer.device.set_endpoint(session(1), endpoint).expect("it is open");
    let mut gateway = End::start(&lab.gateway, "tl0", 51_777);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("a lane opens");
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(7));
}

#[test]
fn an_interface_that_somebody_deletes_is_reported_and_the_device_still_answers() {
    let lab = Lab::new();
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    run(&format!("ip -n {} link del tl0", lab.gateway));
    pair.gateway.wait_for(Event::InterfaceGone, Duration::from_secs(2));
    assert!(pair.gateway.device.report(session(1)).is_some());
    let spec = gateway_spec(&Keys::new(), 2, tuple(Protocol::Udp), boot_in(LONG));
    assert!(matches!(pair.gateway.device.open(spec), Err(DeviceError::InterfaceGone)));
    assert_eq!(pair.gateway.device.close_all().len(), 1);
}

#[test]
fn a_dropped_device_leaves_no_interface_and_no_route() {
    let lab = Lab::new();
    let pair = Pair::up(&lab, Protocol::Udp, LONG);
    let ours = |ns: &str| within(ns, || Link::open().and_then(|mut link| link.ours()).expect("rtnetlink").len());
    assert_eq!((ours(&lab.gateway), ours(&lab.engineer)), (1, 1));
    drop(pair);
    assert_eq!((ours(&lab.gateway), ours(&lab.engineer)), (0, 0));
    assert_eq!(run(&format!("ip -n {} route show 198.19.0.1", lab.gateway)), "");
}

#[test]
fn what_one_session_holds_another_does_not_get() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    let spec = |keys: &Keys, number| gateway_spec(keys, number, tuple(Protocol::Udp), boot_in(LONG));
    gateway.device.open(spec(&keys, 1)).expect("a lane opens");
    assert!(matches!(gateway.device.open(spec(&Keys::new(), 1)), Err(DeviceError::Open(_))));
    assert!(matches!(gateway.device.open(spec(&Keys::new(), 2)), Err(DeviceError::AddressTaken { .. })));
    let mut same_key = spec(&keys, 3);
    let mut other = tuple(Protocol::Udp);
    other.engineer = [198, 19, 0, 3].into();
    same_key.role = thinlane_wg::LaneRole::Gateway { tuple: other, deadline: boot_in(LONG) };
    assert!(matches!(gateway.device.open(same_key.clone()), Err(DeviceError::KeyTaken(_))));
    same_key.private = thinlane_wg::key::key_pair().expect("randomness").0;
    same_key.role = thinlane_wg::LaneRole::Gateway { tuple: other, deadline: thinlane_wg::boot().expect("a clock") };
    assert!(matches!(gateway.device.open(same_key), Err(DeviceError::Ended(_))));
    assert_eq!(gateway.device.reports().len(), 1);
}

/// Voluntary context switches of a thread: how often it waited and was woken.
fn wakes(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let of = |task: std::fs::DirEntry| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        (comm.trim() == name).then(|| count.trim().parse::<u64>().ok())?
    };
    tasks.flatten().filter_map(of).sum()
}

#[test]
fn an_idle_device_sleeps() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl-idle-a", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("a lane opens");
    let mut engineer = End::start(&lab.engineer, "tl-idle-b", 0);
    let endpoint = SocketAddr::from((GATEWAY_WAN, gateway.port()));
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(5));
    std::thread::sleep(Duration::from_secs(4));
    let before = (wakes("wg-tl-idle-a"), wakes("wg-tl-idle-b"));
    assert!(before.0 > 0 && before.1 > 0, "{before:?}");
    std::thread::sleep(Duration::from_secs(6));
    let after = (wakes("wg-tl-idle-a"), wakes("wg-tl-idle-b"));
    assert!(after.0 - before.0 <= 1 && after.1 - before.1 <= 1, "{before:?} {after:?}");
}
