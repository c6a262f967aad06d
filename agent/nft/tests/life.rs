//! The life of a lane: expiry by the kernel alone, extension, close, and what is left.

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::*;
use thinlane_model::{Protocol, Span};
use thinlane_nft::{Lane, NftError};

/// Echoes every 5 ms until `stop`, and remembers the moment before which the last answer had not yet come: on a busy
/// machine the moment at which we get to look says nothing.
struct Prober {
    stop: mpsc::Sender<()>,
    engineer: std::thread::JoinHandle<Option<Instant>>,
}

impl Prober {
    fn udp(lab: &Lab) -> Self {
        let (stop, stopped) = mpsc::channel();
        let engineer = lab.engineer.enter(move || {
            let socket = UdpSocket::bind((ENGINEER, 0)).expect("bind");
            socket.connect((OVERLAY, PORT)).expect("connect");
            socket.set_nonblocking(true).expect("flags");
            let (mut last, mut looked) = (None, Instant::now());
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = socket.send(b"ping");
                while socket.recv(&mut [0; 64]).is_ok() {
                    last = Some(looked);
                }
                looked = Instant::now();
            }
            last
        });
        Self { stop, engineer }
    }

    fn tcp(lab: &Lab) -> Self {
        let (stop, stopped) = mpsc::channel();
        let engineer = lab.engineer.enter(move || {
            let mut stream = connect(ENGINEER, 0, OVERLAY, PORT).expect("connect");
            stream.set_nonblocking(true).expect("flags");
            let (mut last, mut looked) = (None, Instant::now());
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = stream.write(b"ping");
                while matches!(stream.read(&mut [0; 64]), Ok(1..)) {
                    last = Some(looked);
                }
                looked = Instant::now();
            }
            last
        });
        Self { stop, engineer }
    }

    fn last(self) -> Instant {
        self.stop.send(()).expect("it runs");
        self.engineer.join().expect("it ends").expect("an answer")
    }
}

/// How late an answer may be noted. A machine that is emulated needs more than one that is not.
fn slack() -> i128 {
    std::env::var("THINLANE_TEST_SLACK_MS").map_or(20, |text| text.parse().expect("milliseconds"))
}

fn millis_after(last: Instant, moment: Instant) -> i128 {
    match last.checked_duration_since(moment) {
        Some(after) => after.as_millis() as i128,
        None => -(moment.duration_since(last).as_millis() as i128),
    }
}

#[test]
fn running_flows_stop_at_expiry_with_nobody_acting() {
    for (protocol, start) in [(Protocol::Udp, Prober::udp as fn(&Lab) -> Prober), (Protocol::Tcp, Prober::tcp)] {
        let lab = Lab::new();
        let mut nft = lab.nft();
        serve(&lab.device, PORT);
        nft.open_lane(&Lane { remaining: Span::from_millis(1500), ..lane(protocol) }).expect("the lane");
        let deadline = Instant::now() + Duration::from_millis(1500);
        // Nobody is there to act.
        drop(nft);
        let prober = start(&lab);
        std::thread::sleep(Duration::from_millis(2300));
        let after = millis_after(prober.last(), deadline);
        assert!((-250..=slack()).contains(&after), "{protocol}: the last answer came {after} ms after the deadline");
    }
}

#[test]
fn a_device_that_talks_on_is_cut_off_at_expiry_too() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    let (send, went) = mpsc::channel();
    lab.device.enter(move || {
        let socket = UdpSocket::bind((DEVICE, PORT)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        send.send(()).expect("the test waits");
        let (_, peer) = socket.recv_from(&mut [0; 64]).expect("the first packet");
        for _ in 0..400 {
            let _ = socket.send_to(b"data", peer);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    went.recv_timeout(Duration::from_secs(5)).expect("ready");
    nft.open_lane(&Lane { remaining: Span::from_millis(800), ..lane(Protocol::Udp) }).expect("the lane");
    let opened = Instant::now();
    let last = lab.engineer.within(|| {
        let socket = UdpSocket::bind((ENGINEER, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(600))).expect("timeout");
        socket.send_to(b"go", (OVERLAY, PORT)).expect("send");
        let (mut last, mut looked) = (None, Instant::now());
        while socket.recv_from(&mut [0; 64]).is_ok() {
            last = Some(looked);
            looked = Instant::now();
        }
        last.expect("data")
    });
    let after = millis_after(last, opened + Duration::from_millis(800));
    assert!((-250..=slack()).contains(&after), "the last packet came {after} ms after the deadline");
    let state = nft.lanes().expect("state")[0];
    assert!(state.late_packets > 20 && !state.is_open() && state.chain_present, "{state:?}");
}

#[test]
fn late_tcp_is_answered_with_a_reset_so_that_both_ends_let_go() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&lane(Protocol::Tcp)).expect("the lane");
    let (to_test, from_engineer) = mpsc::channel();
    let (to_engineer, from_test) = mpsc::channel::<()>();
    let engineer = lab.engineer.enter(move || {
        let mut stream: TcpStream = connect(ENGINEER, 0, OVERLAY, PORT).expect("connect");
        exchange(&mut stream).expect("an answer");
        to_test.send(()).expect("the test waits");
        from_test.recv().expect("the lane is closed");
        exchange(&mut stream).expect_err("no answer any more").kind()
    });
    from_engineer.recv_timeout(Duration::from_secs(5)).expect("connected");
    nft.close_lane(session(1)).expect("close");
    assert!(nft.drop_flows(&tuple(Protocol::Tcp)).expect("flows") >= 1);
    to_engineer.send(()).expect("the engineer waits");
    assert_eq!(engineer.join().expect("the engineer ends"), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_extended_lane_outlives_its_first_deadline_and_ends_at_the_second() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&Lane { remaining: Span::from_millis(700), ..lane(Protocol::Udp) }).expect("the lane");
    let prober = Prober::udp(&lab);
    std::thread::sleep(Duration::from_millis(300));
    nft.extend_lane(session(1), Span::from_millis(1500)).expect("extend");
    let extended = Instant::now();
    let state = nft.lanes().expect("state")[0];
    for left in [state.up, state.down] {
        let left = left.expect("open").as_millis();
        assert!((1400..=1500).contains(&left), "{left}");
    }
    std::thread::sleep(Duration::from_millis(2200));
    let after = millis_after(prober.last(), extended + Duration::from_millis(1500));
    assert!((-250..=slack()).contains(&after), "the last answer came {after} ms after the second deadline");
    let error = nft.extend_lane(session(1), Span::from_secs(5)).expect_err("it has expired");
    assert!(matches!(error, NftError::NoLane(_)), "{error}");
    assert!(!nft.lanes().expect("state")[0].is_open());
}

#[test]
fn a_closed_lane_leaves_nothing_and_reports_exact_counters() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    let empty = lab.router.exec("nft -j list table inet thinlane");
    nft.open_lane(&lane(Protocol::Udp)).expect("the lane");
    for _ in 0..5 {
        assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    }
    let state = nft.close_lane(session(1)).expect("close");
    assert_eq!((state.up_packets, state.down_packets, state.up_bytes), (5, 5, 5 * 32), "{state:?}");
    assert!(!state.chain_present && !state.is_open());
    assert_eq!(nft.drop_flows(&tuple(Protocol::Udp)).expect("flows"), 5);
    assert_eq!(nft.flows(ENGINEER).expect("flows"), []);
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Silence);
    assert_eq!(nft.lanes().expect("state"), []);
    let names = |text: &str| {
        let table: serde_json::Value = serde_json::from_str(text).expect("JSON");
        table["nftables"].as_array().expect("a list").iter().map(|it| without_handles(it.clone())).collect::<Vec<_>>()
    };
    let after = lab.router.exec("nft -j list table inet thinlane");
    assert_eq!(names(&empty), names(&after));
    let error = nft.close_lane(session(1)).expect_err("closed already");
    assert!(matches!(error, NftError::NoLane(_)), "{error}");
}

fn without_handles(mut value: serde_json::Value) -> serde_json::Value {
    for object in value.as_object_mut().into_iter().flat_map(|it| it.values_mut()) {
        if let Some(fields) = object.as_object_mut() {
            for field in ["handle", "packets", "bytes"] {
                fields.remove(field);
            }
        }
    }
    value
}

#[test]
fn an_expired_lane_is_closed_with_its_counters_and_its_chains_are_swept_later() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&Lane { remaining: Span::from_millis(300), ..lane(Protocol::Udp) }).expect("the lane");
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    std::thread::sleep(Duration::from_millis(310));
    let state = nft.close_lane(session(1)).expect("close");
    assert_eq!((state.up_packets, state.up), (1, None), "{state:?}");
    let end = Instant::now() + Duration::from_secs(8);
    while !nft.sweep().expect("sweep").is_empty() {
        assert!(Instant::now() < end, "the chains stay");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(nft.lanes().expect("state"), []);
    // The same session's names are free again.
    nft.open_lane(&lane(Protocol::Udp)).expect("another lane");
}

#[test]
fn connections_of_other_engineers_are_left_alone() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&lane(Protocol::Udp)).expect("the first");
    let mut second = Lane { session: session(2), ..lane(Protocol::Udp) };
    second.tuple.engineer = OTHER_ENGINEER;
    nft.open_lane(&second).expect("the second");
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(udp(&lab.engineer, OTHER_ENGINEER, OVERLAY, PORT), Outcome::Answered);
    nft.close_lane(session(1)).expect("close");
    assert_eq!(nft.drop_flows(&tuple(Protocol::Udp)).expect("flows"), 1);
    assert_eq!(nft.flows(OTHER_ENGINEER).expect("flows").len(), 1);
    assert_eq!(udp(&lab.engineer, OTHER_ENGINEER, OVERLAY, PORT), Outcome::Answered);
}

#[test]
fn two_hundred_lanes_open_and_close_and_leave_nothing() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    let lanes: Vec<_> = (0..200u8)
        .map(|number| {
            let mut lane = Lane { session: session(number), ..lane(Protocol::Tcp) };
            lane.tuple.engineer = std::net::Ipv4Addr::new(198, 19, 1, number);
            lane.limits.connections = Some(2);
            lane
        })
        .collect();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for lane in &lanes {
        let began = Instant::now();
        nft.open_lane(lane).expect("open");
        slowest = slowest.max(began.elapsed());
    }
    println!("200 lanes open in {:?}, slowest {slowest:?}", began.elapsed());
    assert_eq!(nft.lanes().expect("state").len(), 200);
    assert_eq!(nft.verify(&config(), &lanes).expect("verify").findings, []);
    nft.install_base(&config(), &lanes).expect("all at once");
    let began = Instant::now();
    for lane in &lanes {
        assert!(!nft.close_lane(lane.session).expect("close").chain_present);
    }
    println!("200 lanes closed in {:?}", began.elapsed());
    assert_eq!(nft.lanes().expect("state"), []);
    assert_eq!(nft.verify(&config(), &[]).expect("verify").findings, []);
}
