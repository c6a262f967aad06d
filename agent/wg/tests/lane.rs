//! Lanes between two of our devices in network namespaces, without nftables: the second lock alone.

mod lab;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::capture::{Capture, Seen};
use lab::hostile::{self, Hostile};
use lab::*;
use thinlane_model::{Protocol, Span};
use thinlane_wg::packet::{self, flag, number};
use thinlane_wg::{Device, DeviceError, Direction, Event};

fn target() -> SocketAddr {
    SocketAddr::from((DEVICE, PORT))
}

const LONG: Span = Span::from_secs(600);

#[test]
fn a_tcp_lane_carries_its_flow_and_both_ends_count_the_same() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Tcp, LONG);
    let mut stream = tcp_to(&lab.engineer, target(), Duration::from_secs(2)).expect("a connection");
    let sent: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    let mut writer = stream.try_clone().expect("a clone");
    let text = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&text));
    let mut got = vec![0; sent.len()];
    stream.read_exact(&mut got).expect("everything comes back");
    writing.join().expect("no panic").expect("written");
    assert!(got == sent, "the bytes came back changed");
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    let gateway = pair.gateway.device.close(session(1)).expect("it is open");
    let engineer = pair.engineer.device.close(session(1)).expect("it is open");
    assert_eq!(gateway.counters, engineer.counters);
    assert!(gateway.counters.up_bytes > 1_000_000 && gateway.counters.down_bytes > 1_000_000, "{gateway:?}");
    assert_eq!((gateway.counters.denied_packets, gateway.counters.spoofed_packets), (0, 0));
    assert!(gateway.last_handshake.is_some());
    assert!(matches!(pair.gateway.device.close(session(1)), Err(DeviceError::Unknown(_))));
}

#[test]
fn a_udp_lane_carries_its_datagrams_from_the_first() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    let socket = udp_to(&lab.engineer, target());
    let mut buffer = [0; 2048];
    for length in [1, 700, 1392] {
        socket.send(&vec![7; length]).expect("sent");
        assert_eq!(socket.recv(&mut buffer).expect("the first datagram is answered"), length);
    }
    let counters = pair.gateway.device.report(session(1)).expect("it is open").counters;
    assert_eq!((counters.up_packets, counters.down_packets), (3, 3));
    let bytes = 3 * 28 + 1 + 700 + 1392;
    assert_eq!((counters.up_bytes, counters.down_bytes), (bytes, bytes));
}

#[test]
fn a_datagram_longer_than_the_path_crosses_in_fragments() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, LONG);
    let socket = udp_to(&lab.engineer, target());
    let sent = [9; 1900];
    socket.send(&sent).expect("sent");
    let mut buffer = [0; 4096];
    assert_eq!(socket.recv(&mut buffer).expect("it comes back"), sent.len());
    let counters = pair.gateway.device.report(session(1)).expect("it is open").counters;
    // The device cuts for 1 500, and the gateway cuts the first piece again for 1 420.
    assert_eq!((counters.up_packets, counters.down_packets, counters.denied_packets), (2, 3, 0));
}

#[test]
fn without_nftables_nothing_but_the_tuple_reaches_the_site() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let mut hostile = Hostile::connect(&lab.engineer, &keys, SocketAddr::from((GATEWAY_WAN, gateway.port())));
    let capture = Capture::start(&lab.device);
    let gateway_lan = Ipv4Addr::new(192, 168, 1, 1);
    let me = (ENGINEER, 40_000);
    let mut denied = 0;
    for port in (1..200).filter(|port| *port != PORT) {
        hostile.send(&hostile::tcp(me, (DEVICE, port), 1, 0, flag::SYN, b""));
        hostile.send(&hostile::udp(me, (DEVICE, port), b"x"));
        denied += 2;
    }
    for host in
        [OTHER, gateway_lan, GATEWAY_WAN, Ipv4Addr::new(192, 168, 1, 255), Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST]
    {
        hostile.send(&hostile::tcp(me, (host, PORT), 1, 0, flag::SYN, b""));
        denied += 1;
    }
    let echo_request = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    hostile.send(&hostile::udp(me, (DEVICE, PORT), b"x"));
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, number::ICMP, 1, 0, &echo_request));
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, 132, 1, 0, &[0; 40]));
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, 4, 1, 0, &hostile::tcp(me, (DEVICE, PORT), 1, 0, flag::SYN, b"")));
    // Fragments: a later one alone, and a first one too short to show what it is.
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, number::TCP, 7, 0x0001, &[0; 16]));
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, number::TCP, 7, 0x0003, &[0; 16]));
    hostile.send(&hostile::ipv4(ENGINEER, DEVICE, number::TCP, 8, 0x2000, &[0; 16]));
    denied += 7;
    let spoofed = [DEVICE, OTHER, gateway_lan, Ipv4Addr::new(198, 19, 0, 2), Ipv4Addr::LOCALHOST];
    for source in spoofed {
        hostile.send(&hostile::tcp((source, 40_000), (DEVICE, PORT), 1, 0, flag::SYN, b""));
    }
    let ipv6: Vec<u8> = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0xfe; 32][..]].concat();
    hostile.send(&ipv6);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(capture.packets(), vec![], "something reached the site");
    let report = gateway.device.report(session(1)).expect("it is open");
    assert_eq!(report.counters.denied_packets, denied);
    assert_eq!(report.counters.spoofed_packets, spoofed.len() as u64 + 1);
    assert_eq!((report.counters.up_packets, report.counters.down_packets), (0, 0));
    let listed: u64 = report.denied.iter().map(|flow| flow.packets).sum();
    assert_eq!(listed + report.denied_unlisted, denied + spoofed.len() as u64 + 1);
    assert!(report.denied.len() <= 64);

    // The control: the same hand can open what the lane is for.
    let _echo = echo(&lab.device, PORT);
    hostile.receive(Duration::from_millis(100));
    hostile.send(&hostile::tcp(me, (DEVICE, PORT), 1, 0, flag::SYN, b""));
    let back = hostile.receive(Duration::from_millis(300));
    assert!(back.iter().any(|packet| packet[33] == flag::SYN | flag::ACK), "{back:?}");
    assert!(capture.packets().contains(&(number::TCP, PORT, 40)));
}

#[test]
fn a_denied_connection_is_refused_at_once_and_not_left_to_time_out() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
    let mut engineer = End::start(&lab.engineer, "tl-one", 0);
    let endpoint = SocketAddr::from((GATEWAY_WAN, gateway.port()));
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(5));
    let error = tcp_to(&lab.engineer, SocketAddr::from((DEVICE, 22)), Duration::from_secs(3)).expect_err("denied");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let report = gateway.device.report(session(1)).expect("it is open");
    let [flow] = report.denied.as_slice() else { panic!("{report:?}") };
    assert_eq!((flow.direction, flow.port, flow.packets), (Direction::Up, Some(22), 1));
}

#[test]
fn the_device_cannot_open_anything_towards_the_engineer() {
    let lab = Lab::new();
    let mut pair = Pair::up(&lab, Protocol::Tcp, LONG);
    let _listening = echo(&lab.engineer, PORT);
    let error = within(&lab.device, || {
        // From the lane's own service port, too.
        let from: SocketAddr = (DEVICE, PORT).into();
        let scan = "nc -z -w 1 -s 192.168.1.10 -p 7 198.19.0.1 7";
        let reached = std::process::Command::new("sh").args(["-c", scan]).status().expect("nc runs").success();
        let plain = std::net::TcpStream::connect_timeout(&(ENGINEER, PORT).into(), Duration::from_secs(1));
        let socket = std::net::UdpSocket::bind(from).expect("a free port");
        socket.send_to(b"x", (ENGINEER, 7)).expect("sent");
        (reached, plain.map(|_| ()).map_err(|error| error.kind()))
    });
    assert_eq!(error, (false, Err(std::io::ErrorKind::TimedOut)));
    // A device that is asked answers before it looks at the packet that just came.
    until(Duration::from_secs(2), "all of it is denied", || {
        let report = pair.gateway.device.report(session(1)).expect("it is open");
        assert_eq!((report.counters.down_packets, report.counters.up_packets), (0, 0));
        assert!(report.denied.iter().all(|flow| flow.direction == Direction::Down), "{report:?}");
        report.counters.denied_packets >= 3
    });
    assert_eq!(pair.engineer.device.report(session(1)).expect("it is open").counters.down_packets, 0);
}

#[test]
fn a_running_echo_ends_at_the_deadline_with_nobody_acting() {
    let lab = Lab::new();
    let echoing = echo(&lab.device, PORT);
    let begun = Instant::now();
    let mut pair = Pair::up(&lab, Protocol::Tcp, Span::from_millis(1500));
    let mut stream = tcp_to(&lab.engineer, target(), Duration::from_secs(2)).expect("a connection");
    let capture = Capture::start(&lab.device);
    let mut answered = 0;
    let mut buffer = [0; 16];
    let error = loop {
        let exchange = stream.write_all(b"payload").and_then(|()| stream.read_exact(&mut buffer[..7]));
        match exchange {
            Ok(()) => answered += 1,
            Err(error) => break error,
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "the lane outlives its deadline");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the engineer's end is let go");
    assert!(answered > 20, "{answered}");
    pair.gateway.wait_for(Event::Expired(session(1)), Duration::from_secs(1));
    std::thread::sleep(Duration::from_millis(300));
    let speaks = |seen: &Seen| packet::parse_ipv4(&seen.bytes).and_then(|ip| ip.tcp()).is_ok_and(|tcp| tcp.payload > 0);
    let payloads = capture.seen().into_iter().filter(speaks);
    let last = payloads.map(|seen| seen.at).max().expect("there was an echo");
    let over = pair.deadline.until(last).as_millis();
    assert!(over <= 20, "payload {over} ms after the deadline");
    let early = last.until(pair.deadline).as_millis();
    assert!(early < 200, "the lane ended {early} ms before its deadline, after {answered} answers");
    until(Duration::from_secs(1), "the device's end is let go", || {
        echoing.ends.lock().expect("no panic").contains(&"ConnectionReset".to_owned())
    });
    let report = pair.gateway.device.close(session(1)).expect("it can still be closed");
    assert_eq!(report.counters.denied_packets, 0);
    assert!(matches!(pair.gateway.device.extend(session(1), boot_in(LONG)), Err(DeviceError::Unknown(_))));
}

#[test]
fn an_extended_lane_goes_on_and_an_ended_one_is_not_extended() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Udp, Span::from_millis(900));
    pair.gateway.device.extend(session(1), boot_in(Span::from_millis(1500))).expect("it is running");
    let socket = udp_to(&lab.engineer, target());
    let mut buffer = [0; 16];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1300) {
        socket.send(b"x").expect("sent");
        socket.recv(&mut buffer).expect("an answer after the first deadline");
        std::thread::sleep(Duration::from_millis(20));
    }
    pair.gateway.wait_for(Event::Expired(session(1)), Duration::from_secs(1));
    socket.send(b"x").expect("sent");
    assert!(socket.recv(&mut buffer).is_err(), "an answer after the deadline");
    assert!(matches!(pair.gateway.device.extend(session(1), boot_in(LONG)), Err(DeviceError::Ended(_))));
    assert_eq!(pair.gateway.device.report(session(1)).expect("it is open").late_packets, 1);
}

#[test]
fn closing_resets_both_ends_of_a_connection() {
    let lab = Lab::new();
    let echoing = echo(&lab.device, PORT);
    let mut pair = Pair::up(&lab, Protocol::Tcp, LONG);
    let mut stream = tcp_to(&lab.engineer, target(), Duration::from_secs(2)).expect("a connection");
    let mut buffer = [0; 5];
    stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut buffer)).expect("an echo");
    let report = pair.gateway.device.close(session(1)).expect("it is open");
    assert_eq!(report.counters.denied_packets, 0);
    let error = stream.read(&mut buffer).expect_err("the connection is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    until(Duration::from_secs(1), "the device's end is let go", || {
        echoing.ends.lock().expect("no panic").as_slice() == ["ConnectionReset"]
    });
}
