//! Stock WireGuard ends (wireguard-go), each in a network namespace of its own and knowing only the relay's address.
//!
//! Needs root, `ip`, `ping`, `wg` and `wireguard-go`; without them it fails.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use thinlane_model::{PublicKey, SessionId, Span};
use thinlane_relay::{Shell, boot_now};

/// A stock end: a namespace, a link to the relay's, and a WireGuard interface in it.
struct Stock {
    space: String,
    iface: String,
    device: Child,
    key: PublicKey,
    port: u16,
}

fn run(command: &str, input: &str) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().expect("a program"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command}: {error}"))?;
    child.stdin.take().expect("piped").write_all(input.as_bytes()).map_err(|error| format!("{command}: {error}"))?;
    let done = child.wait_with_output().map_err(|error| format!("{command}: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(out.trim().to_owned()) } else { Err(format!("{command}: {out}{err}")) }
}

fn must(command: &str) -> String {
    run(command, "").expect("the test's own set-up")
}

impl Stock {
    /// `letter` tells the ends of one test apart; `number` is the inner address's last byte.
    fn new(letter: char, number: u8) -> (Self, String) {
        let pid = std::process::id();
        let space = format!("tlt-{pid}-{letter}");
        let iface = format!("tl{letter}{pid}");
        let (outer, inner) = (format!("v{letter}{pid}"), format!("w{letter}{pid}"));
        let net = format!("10.213.{}", (pid % 120) * 2 + u32::from(number % 2));
        must(&format!("ip netns add {space}"));
        let private = must("wg genkey");
        let key = run("wg pubkey", &private).expect("wg").parse().expect("a key");
        // From here on dropping it cleans up.
        let device = Command::new("ip")
            .args(["netns", "exec", &space, "wireguard-go", "-f", &iface])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("wireguard-go");
        let stock = Self { space, iface, device, key, port: 20_000 + u16::from(number) };
        must(&format!("ip link add {outer} type veth peer name {inner} netns {}", stock.space));
        must(&format!("ip addr add {net}.1/30 dev {outer}"));
        must(&format!("ip link set {outer} up"));
        stock.inside(&format!("ip addr add {net}.2/30 dev {inner}"));
        stock.inside(&format!("ip link set {inner} up"));
        let start = Instant::now();
        while let Err(why) = run(&format!("ip netns exec {} wg show {}", stock.space, stock.iface), "") {
            assert!(start.elapsed() < Duration::from_secs(10), "{why}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let set = format!("wg set {} listen-port {} private-key /dev/stdin", stock.iface, stock.port);
        run(&format!("ip netns exec {} {set}", stock.space), &private).expect("wg");
        stock.inside(&format!("ip addr add 198.18.213.{number}/24 dev {}", stock.iface));
        stock.inside(&format!("ip link set {} up", stock.iface));
        (stock, format!("{net}.1"))
    }

    fn inside(&self, command: &str) -> String {
        must(&format!("ip netns exec {} {command}", self.space))
    }

    fn meet(&self, other: &Stock, relay: &str, port: u16, keepalive: u16) {
        let (iface, key) = (&self.iface, other.key);
        let peer = format!("wg set {iface} peer {key} allowed-ips 198.18.213.0/24 endpoint {relay}:{port}");
        self.inside(&format!("{peer} persistent-keepalive {keepalive}"));
    }

    /// Sends from another port from now on, as behind a NAT that forgot the first.
    fn rebind(&mut self) {
        self.port += 100;
        self.inside(&format!("wg set {} listen-port {}", self.iface, self.port));
    }

    /// How many of `count` pings, five a second, were answered.
    fn ping(&self, number: u8, count: u32) -> u32 {
        let ping = format!("ping -q -i 0.2 -c {count} -W 1 198.18.213.{number}");
        let said = match run(&format!("ip netns exec {} {ping}", self.space), "") {
            Ok(said) | Err(said) => said,
        };
        let received = said.split(", ").find_map(|part| part.strip_suffix(" received"));
        received.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("ping said {said}"))
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.device.kill();
        let _ = self.device.wait();
        // The link's other half goes with the namespace.
        let _ = run(&format!("ip netns del {}", self.space), "");
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.iface));
    }
}

#[test]
fn stock_ends_talk_rebind_and_are_cut_off() {
    let shell = Shell::bind(SocketAddr::from(([0, 0, 0, 0], 0))).expect("a socket");
    let handle = shell.handle();
    let port = shell.local_addr().port();
    let (mut engineer, engineers_relay) = Stock::new('e', 1);
    let (mut gateway, gateways_relay) = Stock::new('g', 2);
    let session = SessionId::from_random([1; 5]);
    handle.open(session, engineer.key, Some(gateway.key), boot_now() + Span::from_secs(600)).expect("room");

    // The gateway first, as when a lane is armed: its keepalive makes it initiate by itself.
    gateway.meet(&engineer, &gateways_relay, port, 5);
    let start = Instant::now();
    while handle.stats(session).expect("open").gateway.is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "the gateway never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    engineer.meet(&gateway, &engineers_relay, port, 0);
    assert!(engineer.ping(2, 10) >= 9, "{:?}", handle.stats(session));
    let met = handle.stats(session).expect("open");
    assert!(met.last_handshake.is_some());

    // Neither stalls when the port changes in mid-flow: data from the new one is served at once.
    engineer.rebind();
    assert!(engineer.ping(2, 25) >= 24, "{:?}", handle.stats(session));
    gateway.rebind();
    assert!(gateway.ping(1, 25) >= 24, "{:?}", handle.stats(session));
    let after = handle.stats(session).expect("open");
    assert_eq!((after.engineer, after.gateway), (met.engineer, met.gateway), "no handshake, no move");

    // The end of the session ends it for both, whatever they try.
    let closed = handle.close(session).expect("was open");
    assert!(closed.up_packets > 50 && closed.down_packets > 50, "{closed:?}");
    assert_eq!(engineer.ping(2, 5), 0);
    assert_eq!(gateway.ping(1, 5), 0);
}
