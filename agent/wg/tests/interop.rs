//! The other end is `wireguard-go`, set up with `wg`: both directions.

mod lab;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lab::*;
use thinlane_model::{Protocol, Secret, Span};
use thinlane_wg::{Device, Event};

const LONG: Span = Span::from_secs(600);

/// Starts `wireguard-go` in a namespace. Its control sockets are shared by all namespaces, so the name must be unique.
fn wireguard_go(ns: &str, interface: &str) -> Process {
    let process = Process::start(ns, &["wireguard-go", "-f", interface]);
    let socket = format!("/var/run/wireguard/{interface}.sock");
    until(Duration::from_secs(5), "wireguard-go is up", || Path::new(&socket).exists());
    process
}

/// Writes keys for `wg` into a directory that goes with the test.
fn key_file(directory: &Path, name: &str, secret: &Secret) -> String {
    let path = directory.join(name);
    std::fs::write(&path, secret.to_base64().as_str()).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    path.display().to_string()
}

fn echo_through(lab: &Lab, protocol: Protocol) {
    let target = SocketAddr::from((DEVICE, PORT));
    match protocol {
        Protocol::Udp => {
            let socket = udp_to(&lab.engineer, target);
            socket.set_read_timeout(Some(Duration::from_secs(8))).expect("a timeout");
            let mut buffer = [0; 2048];
            socket.send(&[5; 1300]).expect("sent");
            assert_eq!(socket.recv(&mut buffer).expect("an answer"), 1300);
        }
        Protocol::Tcp => {
            use std::io::{Read, Write};
            let mut stream = tcp_to(&lab.engineer, target, Duration::from_secs(8)).expect("a connection");
            let mut buffer = vec![0; 50_000];
            stream.write_all(&vec![3; 50_000]).expect("sent");
            stream.read_exact(&mut buffer).expect("an answer");
        }
    }
}

#[test]
fn a_stock_engineer_uses_our_gateway() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let name = format!("ta{}", lab.tag.replace('-', "x"));
    let _stock = wireguard_go(&lab.engineer, &name);
    let files = tempfile::tempdir().expect("a directory");
    let private = key_file(files.path(), "private", &keys.engineer.0);
    let preshared = key_file(files.path(), "preshared", &keys.preshared);
    run(&format!(
        "ip netns exec {ns} wg set {name} private-key {private} peer {peer} preshared-key {preshared} \
         allowed-ips {DEVICE}/32 endpoint {GATEWAY_WAN}:{port}
         ip -n {ns} addr add {ENGINEER}/32 dev {name}; ip -n {ns} link set {name} up mtu 1420
         ip -n {ns} route add {DEVICE}/32 dev {name}",
        ns = lab.engineer,
        peer = keys.gateway.1,
        port = gateway.port(),
    ));
    echo_through(&lab, Protocol::Tcp);
    gateway.wait_for(Event::Handshake(session(1)), Duration::from_secs(1));
    let report = gateway.device.close(session(1)).expect("it is open");
    assert_eq!((report.counters.denied_packets, report.counters.spoofed_packets), (0, 0));
    assert!(report.counters.up_bytes > 50_000 && report.counters.down_bytes > 50_000);
    let shown = run(&format!("ip netns exec {} wg show {name} latest-handshakes", lab.engineer));
    assert!(!shown.trim().ends_with("\t0"), "{shown}");
}

#[test]
fn our_engineer_uses_a_stock_gateway_that_initiates() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let keys = Keys::new();
    let mut engineer = End::start(&lab.engineer, "tl-one", 0);
    let name = format!("tb{}", lab.tag.replace('-', "x"));
    let _stock = wireguard_go(&lab.gateway, &name);
    let files = tempfile::tempdir().expect("a directory");
    let private = key_file(files.path(), "private", &keys.gateway.0);
    let preshared = key_file(files.path(), "preshared", &keys.preshared);
    let nowhere = SocketAddr::from((GATEWAY_WAN, 9));
    let mut spec = engineer_spec(&keys, 1, nowhere, ENGINEER);
    spec.endpoint = None;
    spec.keepalive = None;
    engineer.device.open(spec).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    run(&format!(
        "ip netns exec {ns} wg set {name} private-key {private} peer {peer} preshared-key {preshared} \
         allowed-ips {ENGINEER}/32 endpoint 10.77.0.1:{port} persistent-keepalive 5
         ip -n {ns} link set {name} up mtu 1420; ip -n {ns} route add {ENGINEER}/32 dev {name}",
        ns = lab.gateway,
        peer = keys.engineer.1,
        port = engineer.port(),
    ));
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(8));
    echo_through(&lab, Protocol::Udp);
    echo_through(&lab, Protocol::Tcp);
    let report = engineer.device.close(session(1)).expect("it is open");
    assert_eq!((report.counters.denied_packets, report.counters.spoofed_packets), (0, 0));
}
