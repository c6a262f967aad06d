//! What a lane passes and what not, with traffic in network namespaces.

mod common;

use common::*;
use std::net::Ipv4Addr;
use std::time::Duration;
use thinlane_model::{Limits, Protocol};
use thinlane_nft::{Lane, NftError};

#[test]
fn without_a_lane_nothing_crosses_in_either_direction() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    serve(&lab.engineer, PORT);
    for to in [OVERLAY, DEVICE, GATEWAY] {
        assert_ne!(tcp(&lab.engineer, ENGINEER, to, PORT), Outcome::Answered, "{to}");
        assert_eq!(udp(&lab.engineer, ENGINEER, to, PORT), Outcome::Silence, "{to}");
        assert!(!ping(&lab.engineer, &ENGINEER.to_string(), &to.to_string()), "{to}");
    }
    assert!(!ping(&lab.engineer, "fd00::1", "fd01::10"));
    assert!(!ping(&lab.engineer, "fd00::1", "fd00::2"));
    assert_ne!(tcp(&lab.device, DEVICE, ENGINEER, PORT), Outcome::Answered);
    assert_eq!(udp(&lab.device, DEVICE, ENGINEER, PORT), Outcome::Silence);
    assert!(!ping(&lab.router, "tl0", &ENGINEER.to_string()));
    let base = nft.base_state().expect("counters");
    assert!(base.refused_packets >= 12, "{base:?}");
    assert!(base.gateway_packets >= 1, "{base:?}");
}

#[test]
fn the_lab_itself_would_let_everything_through() {
    let lab = Lab::new();
    serve(&lab.device, PORT);
    assert_eq!(tcp(&lab.engineer, ENGINEER, DEVICE, PORT), Outcome::Answered);
    assert_eq!(udp(&lab.engineer, ENGINEER, DEVICE, PORT), Outcome::Answered);
    assert!(ping(&lab.engineer, "fd00::1", "fd01::10"));
    assert!(ping(&lab.device, &DEVICE.to_string(), &ENGINEER.to_string()));
}

#[test]
fn a_tcp_lane_passes_its_tuple_and_nothing_else() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    for port in [PORT, 80] {
        serve(&lab.device, port);
        serve(&lab.router, port);
    }
    nft.open_lane(&lane(Protocol::Tcp)).expect("the lane");
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    let open = nft.lanes().expect("state")[0];
    assert!(open.up_packets >= 4 && open.down_packets >= 3 && open.up_bytes > 160, "{open:?}");
    assert_eq!(open.denied_packets, 0, "{open:?}");

    count_strangers(&lab.device);
    let mut denied = 0;
    for (to, port) in
        [(OVERLAY, 80), (DEVICE, PORT), (NEIGHBOUR, PORT), (GATEWAY, PORT), (Ipv4Addr::new(10, 9, 8, 7), PORT)]
    {
        assert_eq!(tcp(&lab.engineer, ENGINEER, to, port), Outcome::Reset, "{to}:{port}");
        denied += 1;
    }
    for to in [OVERLAY, DEVICE, GATEWAY] {
        assert_eq!(udp(&lab.engineer, ENGINEER, to, PORT), Outcome::Silence, "{to}");
        assert!(!ping(&lab.engineer, &ENGINEER.to_string(), &to.to_string()), "{to}");
        denied += 2;
    }
    assert!(!ping(&lab.engineer, "fd00::1", "fd01::10"));
    assert_ne!(tcp(&lab.engineer, OTHER_ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(strangers(&lab.device), 0, "something else reached the device's LAN");
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, denied);
    nft.remove().expect("remove");
    assert_eq!(udp(&lab.engineer, ENGINEER, DEVICE, PORT), Outcome::Answered);
    assert!(strangers(&lab.device) > 0, "the counter counts");
}

#[test]
fn a_udp_lane_passes_udp_alone_and_the_asset_sees_the_gateway() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&lane(Protocol::Udp)).expect("the lane");
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Reset);
    let flows = nft.flows(ENGINEER).expect("flows");
    let flow = flows.iter().find(|flow| flow.protocol == 17).expect("the lane's flow");
    assert_eq!((flow.destination, flow.reply_source, flow.reply_destination), (OVERLAY, DEVICE, GATEWAY));
}

#[test]
fn a_native_lane_that_keeps_its_source_is_not_translated() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    let mut lane = lane(Protocol::Tcp);
    lane.tuple.destination = DEVICE;
    lane.keep_source = true;
    nft.open_lane(&lane).expect("the lane");
    assert_eq!(tcp(&lab.engineer, ENGINEER, DEVICE, PORT), Outcome::Answered);
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Reset);
    let flow = nft.flows(ENGINEER).expect("flows")[0];
    assert_eq!((flow.destination, flow.reply_destination), (DEVICE, ENGINEER));
}

#[test]
fn the_device_opens_nothing_towards_the_engineer_even_from_the_lanes_port() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.engineer, 9000);
    let mut lane = lane(Protocol::Tcp);
    lane.keep_source = true;
    nft.open_lane(&lane).expect("the lane");
    let before = received(&lab.engineer, "wg0");
    let outcome = lab.device.within(|| tcp_here(DEVICE, PORT, ENGINEER, 9000));
    assert_eq!(outcome, Outcome::Reset);
    assert_eq!(udp(&lab.device, DEVICE, ENGINEER, 9000), Outcome::Silence);
    assert!(!ping(&lab.device, &DEVICE.to_string(), &ENGINEER.to_string()));
    assert_eq!(received(&lab.engineer, "wg0"), before, "something reached the engineer");
    assert!(nft.lanes().expect("state")[0].denied_packets >= 3);
}

#[test]
fn a_lane_to_the_gateways_own_address_reaches_nothing_and_is_counted() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.router, PORT);
    let mut lane = lane(Protocol::Tcp);
    lane.tuple.address = GATEWAY;
    nft.open_lane(&lane).expect("the lane");
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Reset);
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 1);
}

#[test]
fn a_lane_leads_to_the_lan_only_when_the_asset_is_routed_elsewhere() {
    let lab = Lab::new();
    let mut config = config();
    config.lan = vec!["lan9".to_owned()];
    let mut nft = lab.router.open();
    nft.install_base(&config, &[lane(Protocol::Udp)]).expect("the base");
    serve(&lab.device, PORT);
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Silence);
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 1);
    config.lan = Vec::new();
    nft.install_base(&config, &[lane(Protocol::Udp)]).expect("the base");
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 1, "a new table goes on counting");
}

#[test]
fn a_second_lane_does_not_let_one_engineer_into_the_others() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    serve(&lab.device, 80);
    nft.open_lane(&lane(Protocol::Tcp)).expect("the first");
    let mut second = lane(Protocol::Tcp);
    second.session = session(2);
    second.tuple.port = 80;
    let refused = nft.open_lane(&second).expect_err("one address has one lane");
    assert_eq!(refused.errno(), Some(libc::EEXIST), "{refused}");
    second.tuple.engineer = OTHER_ENGINEER;
    second.tuple.destination = Ipv4Addr::new(198, 18, 0, 11);
    second.tuple.address = NEIGHBOUR;
    nft.open_lane(&second).expect("the second");
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(tcp(&lab.engineer, OTHER_ENGINEER, second.tuple.destination, 80), Outcome::Answered);
    assert_eq!(tcp(&lab.engineer, ENGINEER, second.tuple.destination, 80), Outcome::Reset);
    assert_eq!(tcp(&lab.engineer, OTHER_ENGINEER, OVERLAY, PORT), Outcome::Reset);
    let denied: Vec<_> = nft.lanes().expect("state").iter().map(|lane| lane.denied_packets).collect();
    assert_eq!(denied, [1, 1]);
}

#[test]
fn limits_hold_back_what_is_too_much_and_nothing_else() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    let mut limited = lane(Protocol::Tcp);
    limited.limits = Limits { packets_per_second: None, connections: Some(2) };
    nft.open_lane(&limited).expect("the lane");
    let outcome = lab.engineer.within(|| {
        let mut held: Vec<_> = (0..2).map(|_| connect(ENGINEER, 0, OVERLAY, PORT).expect("within the limit")).collect();
        held.iter_mut().for_each(|stream| _ = exchange(stream).expect("an answer"));
        tcp_here(ENGINEER, 0, OVERLAY, PORT)
    });
    assert_eq!(outcome, Outcome::Silence);
    let state = nft.close_lane(limited.session).expect("close");
    assert!(state.dropped_packets >= 1 && state.denied_packets == 0, "{state:?}");

    let mut slow = lane(Protocol::Udp);
    slow.limits = Limits { packets_per_second: Some(10), connections: None };
    nft.open_lane(&slow).expect("the lane");
    lab.engineer.within(|| {
        let socket = std::net::UdpSocket::bind((ENGINEER, 0)).expect("bind");
        for _ in 0..50 {
            socket.send_to(b"x", (OVERLAY, PORT)).expect("send");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let state = nft.lanes().expect("state")[0];
    assert!((8..=16).contains(&state.up_packets), "{state:?}");
    assert_eq!(state.up_packets + state.dropped_packets, 50, "{state:?}");
}

#[test]
fn an_icmp_error_about_the_lanes_own_flow_comes_back_and_no_other() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    nft.open_lane(&lane(Protocol::Udp)).expect("the lane");
    // Nobody listens: the device says so, and a connected UDP socket hears it.
    let refused = lab.engineer.within(|| {
        let socket = std::net::UdpSocket::bind((ENGINEER, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
        socket.connect((OVERLAY, PORT)).expect("connect");
        socket.send(b"ping").expect("send");
        socket.recv(&mut [0; 64]).map_err(|error| error.kind())
    });
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 0);

    let before = received(&lab.engineer, "wg0");
    lab.device.within(|| {
        use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).expect("a raw socket");
        // "Port unreachable" about a datagram that the engineer never sent: 198.19.0.1:4660 to 192.168.1.10:2405.
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        error.extend(ENGINEER.octets());
        error.extend(DEVICE.octets());
        error.extend([0x12, 0x34, 0x09, 0x65, 0, 8, 0, 0]);
        let sum: u32 = error.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
        error[2..4].copy_from_slice(&check.to_be_bytes());
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(ENGINEER, 0));
        sendto(std::os::fd::AsRawFd::as_raw_fd(&raw), &error, &to, MsgFlags::empty()).expect("send");
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(received(&lab.engineer, "wg0"), before, "an invented error reached the engineer");
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 1);
}

#[test]
fn fragments_pass_whole_on_the_lane_and_not_at_all_beside_it() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    count_strangers(&lab.device);
    nft.open_lane(&lane(Protocol::Udp)).expect("the lane");
    let large = |to_port: u16| {
        lab.engineer.within(move || {
            let socket = std::net::UdpSocket::bind((ENGINEER, 0)).expect("bind");
            socket.set_read_timeout(Some(Duration::from_millis(400))).expect("timeout");
            socket.send_to(&[7; 4000], (OVERLAY, to_port)).expect("send");
            socket.recv(&mut [0; 5000]).ok()
        })
    };
    assert_eq!(large(PORT), Some(4000));
    let seen = strangers(&lab.device);
    assert_eq!(large(PORT + 1), None);
    assert_eq!(strangers(&lab.device), seen, "a fragment crossed");
    let state = nft.lanes().expect("state")[0];
    assert_eq!((state.up_packets, state.denied_packets), (1, 1), "whole packets are judged: {state:?}");
}

#[test]
fn one_overlong_path_does_not_stop_a_transfer() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&lane(Protocol::Udp)).expect("the lane");
    // The router's own "fragmentation needed" must reach the engineer, or large datagrams vanish.
    lab.router.ip("link set lan0 mtu 1280");
    lab.device.ip("link set eth0 mtu 1280");
    let size = lab.engineer.within(|| {
        let socket = std::net::UdpSocket::bind((ENGINEER, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(400))).expect("timeout");
        socket.connect((OVERLAY, PORT)).expect("connect");
        (0..4).find_map(|_| {
            let _ = socket.send(&[7; 1400]);
            socket.recv(&mut [0; 2000]).ok()
        })
    });
    assert_eq!(size, Some(1400));
}

#[test]
fn what_cannot_be_a_lane_is_refused_by_name() {
    let lab = Lab::new();
    let mut nft = lab.router.open();
    assert!(matches!(nft.open_lane(&lane(Protocol::Tcp)), Err(NftError::NoBase)));
    nft.install_base(&config(), &[]).expect("the base");
    for name in ["eth0", "lo", "tl1", ""] {
        let wrong = Lane { iface: name.to_owned(), ..lane(Protocol::Tcp) };
        assert!(nft.open_lane(&wrong).is_err(), "{name:?}");
    }
    for millis in [0, 1, 49, u64::MAX] {
        let wrong = Lane { remaining: thinlane_model::Span::from_millis(millis), ..lane(Protocol::Tcp) };
        assert!(matches!(nft.open_lane(&wrong), Err(NftError::Remaining(_))), "{millis}");
    }
    assert_eq!(nft.lanes().expect("state"), []);
}
