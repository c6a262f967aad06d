//! Large packets and datagrams that leave together, between two of our devices in network namespaces: at every level
//! of offload the same bytes arrive, and the same packets are counted.

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use lab::capture::Capture;
use lab::*;
use nix::sys::socket::{setsockopt, sockopt};
use thinlane_model::{Counters, Protocol, Span};
use thinlane_wg::packet::number;
use thinlane_wg::{Device, Event, Offload, Userspace, UserspaceConfig};

const LONG: Span = Span::from_secs(600);

fn target() -> SocketAddr {
    SocketAddr::from((DEVICE, PORT))
}

fn end(ns: &str, name: &str, offload: Offload) -> End {
    let (sender, events) = channel();
    let mut config = UserspaceConfig::new(name, "thinlane test");
    config.offload = offload;
    config.events = Some(Box::new(move |event| {
        let _ = sender.send(event);
    }));
    let device = within(ns, move || Userspace::start(config)).expect("a device starts");
    End { device, events }
}

/// A lane whose ends may use so much.
fn pair(lab: &Lab, protocol: Protocol, gateway: Offload, engineer: Offload) -> Pair {
    pair_at(lab, protocol, gateway, engineer, GATEWAY_WAN.into())
}

/// The same, whose engineer dials `at`.
fn pair_at(lab: &Lab, protocol: Protocol, gateway: Offload, engineer: Offload, at: IpAddr) -> Pair {
    let keys = Keys::new();
    let deadline = boot_in(LONG);
    let mut gateway = end(&lab.gateway, "tl0", gateway);
    gateway.device.open(gateway_spec(&keys, 1, tuple(protocol), deadline)).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let mut engineer = end(&lab.engineer, "tl-one", engineer);
    let endpoint = SocketAddr::from((at, gateway.port()));
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(5));
    Pair { gateway, engineer, keys, deadline }
}

/// What a device gets that may have all. Linux 6.2 and later have all of it, 5.0 and later all but UDP through the
/// interface.
fn kernel_has(pair: &Pair) -> Offload {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let has = if version >= (6, 2) { Offload::ALL } else { Offload::TSO };
    let used = pair.engineer.device.offload();
    assert_eq!(used.and(has), used, "more than Linux {release} has");
    has
}

/// Sends two megabytes to the echo and back, and insists that they are the same.
fn transfer(lab: &Lab) {
    let stream = tcp_to(&lab.engineer, target(), Duration::from_secs(2)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let sent: Vec<u8> = (0..2_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut reader, mut writer) = (stream.try_clone().expect("a clone"), stream);
    let text = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&text).map(|()| writer));
    let mut got = vec![0; sent.len()];
    reader.read_exact(&mut got).expect("everything comes back");
    writing.join().expect("no panic").expect("written");
    assert!(got == sent, "the bytes came back changed");
}

/// What both ends have counted once nothing is under way.
fn settled(pair: &mut Pair) -> Counters {
    let mut counters = || {
        let of = |end: &mut End| end.device.report(session(1)).expect("it is open").counters;
        (of(&mut pair.gateway), of(&mut pair.engineer))
    };
    until(Duration::from_secs(5), "both ends count the same", || {
        let (gateway, engineer) = counters();
        gateway == engineer
    });
    counters().0
}

#[test]
fn at_every_level_the_same_bytes_cross_and_both_ends_count_the_same_packets() {
    for (gateway, engineer) in [
        (Offload::ALL, Offload::ALL),
        (Offload::NONE, Offload::ALL),
        (Offload::TSO, Offload::UDP),
        (Offload::NONE, Offload::NONE),
    ] {
        let lab = Lab::new();
        let _echo = echo(&lab.device, PORT);
        let mut pair = pair(&lab, Protocol::Tcp, gateway, engineer);
        // What was not allowed is not used, and what was is used as far as the kernel has it.
        let has = kernel_has(&pair);
        assert_eq!(
            (pair.gateway.device.offload(), pair.engineer.device.offload()),
            (gateway.and(has), engineer.and(has))
        );
        transfer(&lab);
        let counters = settled(&mut pair);
        assert_eq!((counters.denied_packets, counters.spoofed_packets), (0, 0));
        // Segments, not what one call moved: none is longer than the MTU.
        for (packets, bytes) in [(counters.up_packets, counters.up_bytes), (counters.down_packets, counters.down_bytes)]
        {
            assert!(bytes >= 2_000_000 && packets >= bytes / 1420, "{packets} packets, {bytes} bytes");
        }
    }
}

/// A UDP socket that hands the kernel many datagrams of 500 bytes as one.
fn together(ns: &str, from: (Ipv4Addr, u16), to: SocketAddr) -> UdpSocket {
    let socket = within(ns, move || {
        let socket = UdpSocket::bind(from).expect("a free port");
        socket.connect(to).expect("a route");
        socket
    });
    setsockopt(&socket, sockopt::UdpGsoSegment, &500).expect("Linux 4.18");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket
}

#[test]
fn datagrams_handed_over_as_one_arrive_each_as_it_was() {
    for offload in [Offload::ALL, Offload::TSO, Offload::NONE] {
        let lab = Lab::new();
        let _echo = echo(&lab.device, PORT);
        let mut pair = pair(&lab, Protocol::Udp, offload, offload);
        let socket = together(&lab.engineer, (ENGINEER, 9000), target());
        let mut buffer = [0; 2048];
        for round in 0..10u8 {
            let sent: Vec<u8> = (0..30u8).flat_map(|at| [at ^ round; 500]).chain([round; 77]).collect();
            socket.send(&sent).expect("sent");
            let mut got = Vec::new();
            while got.len() < sent.len() {
                let length = socket.recv(&mut buffer).expect("every datagram is answered");
                got.push(buffer[..length].to_vec());
                if got.len() == 31 {
                    break;
                }
            }
            assert!(got.concat() == sent, "round {round}");
            assert_eq!(got.last().map(Vec::len), Some(77));
        }
        let counters = settled(&mut pair);
        let bytes = 10 * (30 * 528 + 105);
        assert_eq!((counters.up_packets, counters.up_bytes), (310, bytes));
        assert_eq!((counters.down_packets, counters.down_bytes), (310, bytes));
        assert_eq!(counters.denied_packets, 0);
    }
}

#[test]
fn over_ipv6_datagrams_leave_and_arrive_together_too() {
    let at: IpAddr = "fd77::2".parse().expect("an address");
    // All of them at both ends; and one end that sends each alone, the other that takes each alone.
    let alone = Offload { udp_send: false, ..Offload::ALL };
    let apart = Offload { udp_receive: false, ..Offload::ALL };
    for (gateway, engineer, together) in [(Offload::ALL, Offload::ALL, true), (apart, alone, false)] {
        let lab = Lab::new();
        let _echo = echo(&lab.device, PORT);
        for (ns, address) in [(&lab.engineer, "fd77::1/64"), (&lab.gateway, "fd77::2/64")] {
            run(&format!("ip -n {ns} addr add {address} dev wan nodad"));
        }
        let mut pair = pair_at(&lab, Protocol::Tcp, gateway, engineer, at);
        let capture = Capture::start(&lab.gateway);
        transfer(&lab);
        let counters = settled(&mut pair);
        assert!(counters.up_bytes >= 2_000_000 && counters.denied_packets == 0, "{counters:?}");
        // No path was found on the way that does not carry it.
        let has = kernel_has(&pair);
        assert_eq!(pair.engineer.device.offload(), engineer.and(has));
        assert_eq!(pair.gateway.device.offload(), gateway.and(has));
        let longest = capture.seen().iter().filter(|seen| seen.bytes[0] >> 4 == 6).map(|seen| seen.bytes.len()).max();
        let longest = longest.expect("the outer packets are IPv6");
        assert_eq!(longest > 10_000, together, "the longest outer packet had {longest} bytes");
    }
}

#[test]
fn what_is_denied_is_counted_packet_by_packet() {
    let lab = Lab::new();
    let mut pair = pair(&lab, Protocol::Udp, Offload::ALL, Offload::ALL);
    let gateway_lan = Ipv4Addr::new(192, 168, 1, 1);
    // From the lane's own port, but not an answer; and from the engineer to a port that is not the lane's.
    let unasked = together(&lab.device, (DEVICE, PORT), SocketAddr::from((ENGINEER, 9000)));
    unasked.send(&[1; 20_000]).expect("sent");
    let elsewhere = together(&lab.engineer, (ENGINEER, 9000), SocketAddr::from((DEVICE, 8)));
    elsewhere.send(&[1; 15_000]).expect("sent");
    let mut report = None;
    until(Duration::from_secs(5), "40 and 30 packets are denied", || {
        let now = pair.gateway.device.report(session(1)).expect("it is open");
        let all = now.counters.denied_packets == 70;
        report.get_or_insert_with(Vec::new).extend(now.denied);
        all
    });
    let listed: u64 = report.into_iter().flatten().map(|flow| flow.packets).sum();
    assert_eq!(listed, 70);
    let counters = pair.gateway.device.report(session(1)).expect("it is open").counters;
    assert_eq!((counters.up_packets, counters.down_packets), (0, 0), "{gateway_lan} sees nothing");
}

#[test]
fn a_path_shorter_than_the_datagrams_is_crossed_all_the_same() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    run(&format!("ip -n {} link set wan mtu 1280; ip -n {} link set wan mtu 1280", lab.engineer, lab.gateway));
    let mut pair = pair(&lab, Protocol::Tcp, Offload::ALL, Offload::ALL);
    transfer(&lab);
    let counters = settled(&mut pair);
    assert!(counters.up_bytes >= 2_000_000, "{counters:?}");
    // Shorter ones still leave together.
    assert!(pair.engineer.device.offload().udp_send);
}

#[test]
fn a_lane_that_closes_in_the_middle_of_a_full_stream_lets_both_ends_go() {
    let lab = Lab::new();
    let echoing = echo(&lab.device, PORT);
    let mut pair = pair(&lab, Protocol::Tcp, Offload::ALL, Offload::ALL);
    let stream = tcp_to(&lab.engineer, target(), Duration::from_secs(2)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (mut reader, mut writer) = (stream.try_clone().expect("a clone"), stream);
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error.kind()),
            }
        }
    });
    let writing = std::thread::spawn(move || {
        loop {
            if let Err(error) = writer.write_all(&[7; 65536]) {
                return error.kind();
            }
        }
    });
    until(Duration::from_secs(5), "the stream is at full speed", || {
        pair.gateway.device.report(session(1)).expect("it is open").counters.down_bytes > 3_000_000
    });
    let report = pair.gateway.device.close(session(1)).expect("it is open");
    assert_eq!(report.counters.denied_packets, 0);
    // Whoever asks first is told of the reset, the other that the connection is gone.
    let told = [reading.join().expect("no panic"), Some(writing.join().expect("no panic"))];
    assert!(told.contains(&Some(std::io::ErrorKind::ConnectionReset)), "{told:?}");
    until(Duration::from_secs(5), "the device's end is let go", || {
        echoing.ends.lock().expect("no panic").iter().any(|end| end == "ConnectionReset" || end == "BrokenPipe")
    });
}

#[test]
fn a_link_slower_than_the_device_is_waited_for_and_nothing_is_lost() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    // Holds what the socket may have under way, and more: it is the socket that is full first.
    run(&format!("tc -n {} qdisc add dev wan root tbf rate 40mbit burst 100k limit 4m", lab.engineer));
    let mut pair = pair(&lab, Protocol::Tcp, Offload::ALL, Offload::ALL);
    transfer(&lab);
    let counters = settled(&mut pair);
    assert!(counters.up_bytes >= 2_000_000, "{counters:?}");
    let dropped = run(&format!("tc -n {} -s qdisc show dev wan", lab.engineer));
    assert!(dropped.contains("(dropped 0,"), "{dropped}");
}

#[test]
fn a_burst_that_the_socket_does_not_take_at_once_waits_and_arrives() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    run(&format!("tc -n {} qdisc add dev wan root tbf rate 8mbit burst 20k limit 8m", lab.engineer));
    let mut pair = pair(&lab, Protocol::Udp, Offload::ALL, Offload::ALL);
    let socket = udp_to(&lab.engineer, target());
    for number in 0..900u32 {
        socket.send(&[number as u8; 1300]).expect("sent");
    }
    // A megabyte and more, of which the socket may hold a quarter and the interface the rest.
    until(Duration::from_secs(10), "every datagram has crossed", || {
        pair.gateway.device.report(session(1)).expect("it is open").counters.up_packets == 900
    });
    let sent = pair.engineer.device.report(session(1)).expect("it is open").counters;
    assert_eq!((sent.up_packets, sent.up_bytes), (900, 900 * 1328));
}

#[test]
fn a_lane_whose_packets_a_rule_counts_hands_them_over_one_by_one() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut pair = pair(&lab, Protocol::Udp, Offload::ALL, Offload::ALL);
    let socket = together(&lab.engineer, (ENGINEER, 9000), target());
    let lengths = |capture: &Capture| -> Vec<usize> {
        let packets = capture.packets().into_iter().filter(|packet| packet.0 == number::UDP);
        packets.map(|packet| packet.2).collect()
    };
    // The control: thirty that came as one go on as one.
    let capture = Capture::start(&lab.device);
    socket.send(&[7; 15_000]).expect("sent");
    let large = kernel_has(&pair) == Offload::ALL;
    let wanted = if large { vec![15_028] } else { vec![528; 30] };
    until(Duration::from_secs(3), "one large packet, where there are such", || lengths(&capture) == wanted);
    pair.gateway.device.keep_apart(session(1)).expect("it is open");
    let capture = Capture::start(&lab.device);
    socket.send(&[7; 15_000]).expect("sent");
    until(Duration::from_secs(3), "thirty packets", || lengths(&capture) == [528; 30]);
    let counters = pair.gateway.device.report(session(1)).expect("it is open").counters;
    assert_eq!((counters.up_packets, counters.up_bytes), (60, 60 * 528));
}
