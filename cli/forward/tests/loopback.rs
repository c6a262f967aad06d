//! A whole lane on 127.0.0.1: local programs, the shell, and a gateway stand-in with an echo behind it. Needs no right.

mod gateway;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::Gateway;
use thinlane_forward::{Door, Event, Forward, Hint, News};
use thinlane_model::Protocol;

/// Opens a lane to a gateway and waits for the first handshake.
async fn open(gateway: &Gateway, protocol: Protocol) -> Forward {
    let door = Door::like(protocol, 502).expect("a port");
    let mut forward = Forward::start(gateway.config(), door).await.expect("a lane");
    let first = tokio::time::timeout(Duration::from_secs(20), forward.event()).await;
    assert_eq!(first.expect("in time"), Some(Event::Handshake));
    forward
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the door");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// What a program does, away from the runtime's threads.
async fn program<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_talks_to_the_asset_through_the_local_port() {
    let gateway = Gateway::start(Protocol::Tcp);
    let forward = open(&gateway, Protocol::Tcp).await;
    let to = forward.local_addr();
    assert!(to.ip().is_loopback());
    program(move || {
        let data: Vec<u8> = (0..200_000u64).map(|at| ((at * at) >> 7) as u8).collect();
        let mut stream = connect(to);
        let mut writer = stream.try_clone().expect("a clone");
        let sent = data.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("room");
            writer.shutdown(Shutdown::Write).expect("open");
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("an orderly end");
        writing.join().expect("no panic");
        assert!(got == data, "{} of {} bytes came back", got.len(), data.len());
    })
    .await;
    let counters = forward.counters();
    assert!(counters.up_bytes > 200_000 && counters.down_bytes > 200_000, "{counters:?}");
    assert_eq!((counters.denied_packets, counters.spoofed_packets), (0, 0));
}

/// A connection that has had an answer.
fn talking(to: SocketAddr) -> TcpStream {
    let mut stream = connect(to);
    stream.write_all(b"x").expect("room");
    stream.read_exact(&mut [0]).expect("an echo");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_lane_resets_programs_and_the_asset() {
    for open_still in [true, false] {
        let gateway = Gateway::start(Protocol::Tcp);
        let forward = open(&gateway, Protocol::Tcp).await;
        let to = forward.local_addr();
        let mut stream = program(move || talking(to)).await;
        assert_eq!(gateway.connections(), 1);
        forward.close(open_still).await;
        let end = program(move || stream.read(&mut [0])).await;
        assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        assert!(TcpStream::connect(to).is_err(), "the port is open still");
        if open_still {
            gateway.wait(|| gateway.connections() == 0, "the asset has its place back");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_lane_takes_its_port_and_programs_along() {
    let gateway = Gateway::start(Protocol::Tcp);
    let forward = open(&gateway, Protocol::Tcp).await;
    let to = forward.local_addr();
    let mut stream = program(move || talking(to)).await;
    drop(forward);
    let end = program(move || stream.read(&mut [0])).await;
    assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_gets_its_own_datagrams() {
    let gateway = Gateway::start(Protocol::Udp);
    let forward = open(&gateway, Protocol::Udp).await;
    let to = forward.local_addr();
    program(move || {
        let programs: Vec<UdpSocket> = (0..20)
            .map(|number: u8| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
                socket.send_to(&vec![number; 1 + 150 * usize::from(number)], to).expect("sent");
                socket
            })
            .collect();
        for (number, socket) in programs.iter().enumerate() {
            let mut room = [0; 4096];
            let (length, from) = socket.recv_from(&mut room).expect("an answer");
            assert_eq!((length, from), (1 + 150 * number, to));
            assert!(room[..length].iter().all(|byte| usize::from(*byte) == number));
        }
    })
    .await;
}

/// As after a change of network, or of a router's mind: what was sent from one port goes nowhere any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_has_died_is_left_for_a_fresh_one_and_connections_live_on() {
    let gateway = Gateway::start(Protocol::Tcp);
    let mut forward = open(&gateway, Protocol::Tcp).await;
    let to = forward.local_addr();
    let mut stream = program(move || {
        let mut stream = connect(to);
        stream.write_all(b"before").expect("room");
        stream.read_exact(&mut [0; 6]).expect("an echo");
        stream
    })
    .await;
    gateway.forsake();
    let waiting = program(move || {
        let begun = Instant::now();
        stream.write_all(b"after!").expect("room");
        let mut got = [0; 6];
        stream.read_exact(&mut got).expect("an echo");
        assert_eq!(&got, b"after!");
        begun.elapsed()
    });
    let mut hints = Vec::new();
    let took = tokio::select! {
        took = waiting => took,
        () = async {
            while let Some(event) = forward.event().await {
                hints.push(event);
            }
        } => panic!("the lane ended"),
    };
    assert!(took > Duration::from_secs(9), "{took:?}: the old way was not dead");
    assert!(hints.contains(&Event::Hint(Hint::Away)), "{hints:?}");
}

/// A gateway with an address of its own that cannot be reached from here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_way_that_leads_nowhere_gives_way_to_the_second() {
    let gateway = Gateway::start(Protocol::Tcp);
    let nowhere = UdpSocket::bind("127.0.0.1:0").expect("a port that nobody answers on");
    let mut config = gateway.config();
    config.fallback = Some(config.endpoint);
    config.endpoint = nowhere.local_addr().expect("an address").into();
    let door = Door::like(Protocol::Tcp, 502).expect("a port");
    let mut forward = Forward::start(config, door).await.expect("a lane");
    assert_eq!(forward.way(), 0, "it is tried first");
    let first = tokio::time::timeout(Duration::from_secs(20), forward.event()).await;
    assert_eq!(first.expect("in time"), Some(Event::Handshake));
    assert_eq!(forward.way(), 1);
}

/// Another address that leads to a gateway, until it is told not to.
struct Detour {
    address: SocketAddr,
    dead: Arc<AtomicBool>,
}

impl Detour {
    fn to(gateway: SocketAddr) -> Detour {
        let near = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let far = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = near.local_addr().expect("an address");
        let dead = Arc::new(AtomicBool::new(false));
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
        }
        let told = dead.clone();
        std::thread::spawn(move || {
            let (mut room, mut tool) = (vec![0; 65_536], None);
            let alive = || !told.load(Ordering::Relaxed);
            while alive() {
                if let Ok((length, from)) = near.recv_from(&mut room)
                    && alive()
                {
                    tool = Some(from);
                    let _ = far.send_to(&room[..length], gateway);
                }
                if let (Ok((length, _)), Some(tool)) = (far.recv_from(&mut room), tool)
                    && alive()
                {
                    let _ = near.send_to(&room[..length], tool);
                }
            }
            // Still there, so that nobody is told that it is not.
            std::thread::sleep(Duration::from_secs(60));
        });
        Detour { address, dead }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_leaves_a_dead_way_for_the_other_says_which_is_which() {
    let gateway = Gateway::start(Protocol::Tcp);
    let mut config = gateway.config();
    let own = config.endpoint.as_socket_addr().expect("an address");
    let detour = Detour::to(own);
    config.fallback = Some(config.endpoint);
    config.endpoint = detour.address.into();
    let door = Door::like(Protocol::Tcp, 502).expect("a port");
    let mut forward = Forward::start(config, door).await.expect("a lane");
    let first = tokio::time::timeout(Duration::from_secs(20), forward.event()).await;
    assert_eq!(first.expect("in time"), Some(Event::Handshake));
    assert_eq!(forward.way(), 0);
    let to = forward.local_addr();
    let mut stream = program(move || talking(to)).await;
    detour.dead.store(true, Ordering::Relaxed);
    let waiting = program(move || {
        stream.write_all(b"!").expect("room");
        stream.read_exact(&mut [0]).expect("an echo");
    });
    let mut events = Vec::new();
    tokio::select! {
        () = waiting => {}
        () = async {
            while let Some(event) = forward.event().await {
                events.push(event);
            }
        } => panic!("the lane ended"),
    }
    let ways: Vec<&Event> = events.iter().filter(|event| matches!(event, Event::Way(_))).collect();
    assert_eq!(ways, [&Event::Way(News::Left { from: 0, to: 1 }), &Event::Way(News::Reached(1))], "{events:?}");
    assert!(!events.contains(&Event::Hint(Hint::Away)), "it was there at the first attempt: {events:?}");
    assert_eq!(forward.way(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes: scripts/bench wg --interop runs it"]
async fn a_key_that_is_two_minutes_old_is_renewed_under_a_running_connection() {
    let gateway = Gateway::start(Protocol::Tcp);
    let mut forward = open(&gateway, Protocol::Tcp).await;
    let to = forward.local_addr();
    let talking = program(move || {
        let mut stream = talking(to);
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(128) {
            let asked = Instant::now();
            stream.write_all(&[9; 3000]).expect("room");
            let mut got = [0; 3000];
            stream.read_exact(&mut got).expect("an echo");
            assert!(got == [9; 3000]);
            slowest = slowest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(200));
        }
        slowest
    });
    let mut events = Vec::new();
    let slowest = tokio::select! {
        slowest = talking => slowest,
        () = async {
            while let Some(event) = forward.event().await {
                events.push(event);
            }
        } => panic!("the lane ended"),
    };
    assert_eq!(events, [Event::Handshake], "one new key, and nothing that a person should know");
    println!("interop: --forward: a key renewed under a connection, slowest answer {slowest:?}");
}
