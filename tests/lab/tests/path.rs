//! Which way a lane takes: a gateway's own endpoint first, the relay otherwise.
//!
//! Site `west` is the gateway of `south` under another name and with an endpoint: its carrier passes on one port.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use thinlane_lab::{Background, Case, Lab, Lane, Shell, main as run, now_ms, wait_until};

const CASES: &[Case] = &[("a_gateways_own_endpoint_is_tried_first_and_the_relay_otherwise", own_endpoint_first)];

fn main() -> ExitCode {
    run("tpath", CASES)
}

const ENDPOINT: &str = "203.0.113.20:51820";

fn west(lab: &Lab, command: &str) -> Shell {
    let (dir, run) = (lab.root().join("agent-west"), lab.root().join("run-west"));
    let words = format!("exec thinlane-agent {command} --dir {} --run-dir {}", dir.display(), run.display());
    lab.on("south", &["sh", "-c", &words])
}

/// Enrols the gateway of south as site west, and starts its agent there in place of south's.
fn enrol(lab: &Lab) -> Result<Background> {
    let code = lab.root().join("west.code").display().to_string();
    lab.thinlane("ada", &["site", "add", "west", "--endpoint", ENDPOINT]).run()?.good()?;
    lab.thinlane("ada", &["site", "token", "west", "--out", &code]).run()?.good()?;
    for (asset, address) in [("west-plc1", "192.168.1.10"), ("west-plc2", "192.168.1.11")] {
        let words = ["asset", "add", asset, "--site", "west", "--address", address, "--type", "plc"];
        lab.thinlane("ada", &words).run()?.good()?;
    }
    lab.agent_process("south", "stop")?;
    let fingerprint = std::fs::read_to_string(lab.root().join("fingerprint"))?;
    let enrol =
        format!("enroll --controller 198.51.100.2:7443 --ca-fingerprint {} --token-file {code}", fingerprint.trim());
    west(lab, &enrol).run()?.good()?;
    start(lab)
}

fn start(lab: &Lab) -> Result<Background> {
    let agent = Background::start(west(lab, "run --lan lan"))?;
    wait_until(20_000, "west is ready", || Ok(west(lab, "status --check ready").run()?.code == 0))?;
    Ok(agent)
}

/// What a person sees of the lane's way, once the gateway has told of the handshake.
fn way(lane: &Lane<'_>) -> Result<(String, String)> {
    let word = |shown: &Value, key: &str| shown[key].as_str().unwrap_or_default().to_owned();
    wait_until(8_000, "the handshake is known", || Ok(lane.show()?["last_handshake_at"].is_string()))?;
    let shown = lane.show()?;
    Ok((word(&shown, "path"), word(&shown, "path_reason")))
}

/// 5 MB to the device and back, compared there by the reader.
fn transfer(lab: &Lab, lane: &Lane<'_>) -> Result<()> {
    let script = format!(
        "import socket, threading, hashlib\n\
         s = socket.create_connection(('{}', {}), 10); s.settimeout(30)\n\
         data = bytes((i * 31 + i // 256) & 255 for i in range(1 << 20)) * 5\n\
         threading.Thread(target=s.sendall, args=(data,)).start()\n\
         got = bytearray()\n\
         while len(got) < len(data): got += s.recv(1 << 16) or exit('cut after %d' % len(got))\n\
         print('same' if got == data else 'changed')",
        lane.address, lane.port
    );
    lab.on("erik", &["/usr/bin/python3", "-c", &script]).run()?.good()?.says("same")?;
    Ok(())
}

/// The gateway's last link takes so many bytes from now on.
fn narrow(lab: &Lab, bytes: &str) -> Result<()> {
    for (host, device) in [("carrier", "south"), ("south", "wwan0")] {
        lab.on(host, &["ip", "link", "set", device, "mtu", bytes]).run()?.good()?;
    }
    Ok(())
}

/// Nor does the gateway's carrier say so any more when it drops what is longer.
fn hush(lab: &Lab) -> Result<()> {
    let chain = "type filter hook output priority filter; icmp type destination-unreachable drop;";
    lab.on("carrier", &["nft", &format!("table ip quiet {{ chain out {{ {chain} }}; }}")]).run()?.good().map(|_| ())
}

/// Datagrams of 1 350 bytes to the device and back, through a lane without an interface.
fn datagrams(lab: &Lab, asset: &str) -> Result<()> {
    let request = lab.approved(asset, "echo-udp", "2m")?;
    let script = "import os, socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); got = 0\n\
        s.connect((os.environ['THINLANE_ASSET_ADDRESS'], int(os.environ['THINLANE_ASSET_PORT'])))\n\
        for n in range(10):\n\
        \x20   s.send(bytes([n]) * 1350)\n\
        \x20   try: got += s.recv(2000) == bytes([n]) * 1350\n\
        \x20   except TimeoutError: pass\n\
        print(got, 'of 10')";
    let words = ["connect", &request, "--forward", "--", "/usr/bin/python3", "-c", script];
    let out = lab.thinlane("erik", &words).run()?.good()?;
    out.says(&format!("directly to {ENDPOINT}"))?.says("10 of 10")?;
    Ok(())
}

/// Nothing reaches a UDP port any more, while what comes from there still passes.
fn swallow(lab: &Lab, address: &str, port: u16) -> Result<()> {
    let chain = "type filter hook forward priority filter; policy accept;";
    let table = format!("table ip hole {{ chain pass {{ {chain} ip daddr {address} udp dport {port} drop; }}; }}");
    lab.on("net", &["nft", &table]).run()?.good().map(|_| ())
}

/// A lane that asks twenty times a second, in the foreground, so that what it says can be read in the end.
struct Asking {
    held: Background,
    session: String,
    device: &'static str,
}

impl Asking {
    fn begin(lab: &Lab, asset: &str, device: &'static str, words: &[&str]) -> Result<Self> {
        let request = lab.approved(asset, "echo-udp", "5m")?;
        let echo = "exec thinlane-sim echo udp $THINLANE_ASSET_ADDRESS:$THINLANE_ASSET_PORT --every 50ms --for 4m --patience 4m";
        let words = [&["connect", &request], words, &["--", "sh", "-c", echo]].concat();
        let held = Background::start(lab.thinlane("erik", &words))?;
        let begun = now_ms();
        wait_until(30_000, "the lane is asked through", || Ok(!lab.device(device).payloads_since(begun)?.is_empty()))?;
        let shown = lab.json("olga", &["request", "show", &request])?;
        let session = shown["session"].as_str().context("a session")?.to_owned();
        Ok(Self { held, session, device })
    }

    /// Waits until its bytes flow again, and until it is told that they take this way; says how long that took.
    fn flows(&self, lab: &Lab, since: f64, path: &str, why: &str) -> Result<()> {
        let device = lab.device(self.device);
        // What was under way at that moment may still arrive.
        let again = || Ok(device.payloads_since(since + 2000.0)?.first().map(|first| first.at_ms));
        wait_until(60_000, "bytes flow again", || again().map(|at: Option<f64>| at.is_some()))?;
        let gap = again()?.unwrap_or(since) - since;
        let mut shown = Value::Null;
        let told = wait_until(8_000, "the way is told", || {
            shown = lab.session(&self.session)?;
            Ok(shown["path"] == path && shown["path_reason"].as_str().is_some_and(|said| said.contains(why)))
        });
        told.with_context(|| shown.to_string())?;
        println!("{} after {:.1} s: {path}, {}", self.device, gap / 1000.0, shown["path_reason"]);
        // Eleven seconds of doubt, six before them where the gateway is heard all the while; the rest is a busy machine's.
        ensure!(gap < 30_000.0, "it took {gap:.0} ms");
        Ok(())
    }

    fn end(self) -> Result<thinlane_lab::Output> {
        self.held.signal("INT")?;
        self.held.finish(15_000)?.exits(130)
    }
}

fn running_lanes_change_their_way(lab: &Lab) -> Result<()> {
    let told = Asking::begin(lab, "west-plc1", "south-1", &["--json"])?;
    let read = Asking::begin(lab, "west-plc2", "south-2", &[])?;
    for lane in [&told, &read] {
        lane.flows(lab, now_ms() - 2000.0, "direct", "the gateway answered at")?;
    }
    // The way there dies, the way back does not; and the carrier has long forgotten that the gateway was at the relay.
    lab.on("carrier", &["conntrack", "-D", "-p", "udp", "--orig-dst", "198.51.100.2"]).run()?;
    swallow(lab, "203.0.113.20", 51820)?;
    let died = now_ms();
    for lane in [&told, &read] {
        lane.flows(lab, died, "relay", &format!("the gateway's own address {ENDPOINT} stopped answering"))?;
    }
    // Then the relay's does, and the gateway answers again where it did at first.
    lab.on("net", &["nft", "delete", "table", "ip", "hole"]).run()?.good()?;
    swallow(lab, "198.51.100.2", 7443)?;
    let died = now_ms();
    for lane in [&told, &read] {
        lane.flows(lab, died, "direct", "answers again")?;
    }
    lab.on("net", &["nft", "delete", "table", "ip", "hole"]).run()?.good()?;
    let events = told.end()?.lines_json();
    let moved: Vec<(&str, bool)> = events
        .iter()
        .filter(|line| line["event"] == "moved")
        .filter_map(|line| Some((line["path"].as_str()?, line["answers"].as_bool()?)))
        .collect();
    // First where it is looked for, then that it is there.
    let once = [("relay", false), ("relay", true), ("direct", false), ("direct", true)];
    ensure!(moved == once, "each change is told once, not {moved:?}");
    let said = read.end()?.stderr;
    let sentences = [
        format!("the gateway's own address {ENDPOINT} stopped answering; trying the relay"),
        "the gateway answers through the relay".to_owned(),
        format!("the relay stopped answering; trying {ENDPOINT}"),
        format!("the gateway answers at {ENDPOINT}"),
    ];
    let of_ways = |line: &&str| line.contains("stopped answering") || line.contains("the gateway answers");
    let told: Vec<&str> = said.lines().filter(of_ways).collect();
    ensure!(told == sentences, "in this order and once: {said}");
    Ok(())
}

fn own_endpoint_first(lab: &Lab) -> Result<()> {
    let pass = "table ip inward { chain in { type nat hook prerouting priority dstnat; iifname wan udp dport 51820 dnat to 100.64.2.2:51820; }; }";
    lab.on("carrier", &["nft", pass]).run()?.good()?;
    lab.on("carrier", &["nft", "insert rule ip fw pass ct status dnat accept"]).run()?.good()?;
    let agent = enrol(lab)?;
    let outcome = with_west(lab, agent);
    lab.on("carrier", &["nft", "delete", "table", "ip", "inward"]).run()?;
    lab.on("net", &["nft", "delete", "table", "ip", "hole"]).run()?;
    lab.on("carrier", &["nft", "delete", "table", "ip", "quiet"]).run()?;
    for host in ["carrier", "south"] {
        let device = if host == "carrier" { "south" } else { "wwan0" };
        lab.on(host, &["ip", "link", "set", device, "mtu", "1500"]).run()?;
    }
    outcome
}

fn with_west(lab: &Lab, agent: Background) -> Result<()> {
    // Answered there: the relay carries nothing.
    let direct = lab.lane("west-plc1", "echo-tcp", "5m")?;
    direct.exchange("tcp")?.good()?;
    let (path, why) = way(&direct)?;
    ensure!(path == "direct" && why.contains(ENDPOINT), "{path}: {why}");

    hush(lab)?;
    // What leaves without an interface never fills 1 280 bytes.
    narrow(lab, "1000")?;
    datagrams(lab, "west-plc2").context("without an interface, over a link of 1 000 bytes")?;
    narrow(lab, "1280")?;
    transfer(lab, &direct).context("over a link of 1 280 bytes")?;

    // A gateway that starts again goes on where the engineer was, not at the relay.
    let echo = direct.patient_echo("tcp", "50ms", "8s")?;
    sleep(Duration::from_secs(1));
    agent.signal("TERM")?;
    agent.finish(10_000)?;
    let again = start(lab)?;
    let restarted = now_ms();
    lab.device("south-1").wait_for(20, restarted)?;
    echo.finish(20_000)?.good()?;
    ensure!(way(&direct)?.0 == "direct", "{:?}", way(&direct)?);
    lab.thinlane("erik", &["down", &direct.session]).run()?.good()?;
    let ended = lab.session(&direct.session)?;
    ensure!(ended["path"] == "direct", "the way is kept: {ended}");
    drop(direct);

    running_lanes_change_their_way(lab)?;

    // Nobody answers there any more.
    lab.on("carrier", &["nft", "delete", "table", "ip", "inward"]).run()?.good()?;
    // Its memory of the lane before goes, too.
    lab.on("carrier", &["conntrack", "-D", "-p", "udp", "--orig-port-dst", "51820"]).run()?;
    let relayed = lab.lane("west-plc1", "echo-tcp", "5m")?;
    relayed.exchange("tcp")?.good()?;
    let (path, why) = way(&relayed)?;
    ensure!(path == "relay" && why.contains("did not answer"), "{path}: {why}");
    transfer(lab, &relayed).context("through the relay, over a link of 1 280 bytes")?;
    lab.thinlane("erik", &["down", &relayed.session]).run()?.good()?;
    ensure!(lab.session(&relayed.session)?["path"] == "relay", "the way is kept");
    drop(relayed);

    // Without an interface it is the same, and is said in the same words.
    let request = lab.approved("west-plc1", "echo-tcp", "5m")?;
    let to = "$THINLANE_ASSET_ADDRESS:$THINLANE_ASSET_PORT";
    let echo = format!("exec thinlane-sim echo tcp {to} --every 20ms --for 200ms --patience 1500ms");
    let words = ["connect", &request, "--json", "--forward", "--", "sh", "-c", &echo];
    let said = lab.thinlane("erik", &words).run()?.good()?;
    let events = said.lines_json();
    said.says(&format!("{ENDPOINT} does not answer; going through the relay"))?;
    let up = events.iter().find(|line| line["event"] == "up").context("an event")?;
    ensure!(up["path"] == "relay" && up["endpoint"] == "198.51.100.2:7443", "{up}");
    let session =
        lab.json("olga", &["request", "show", &request])?["session"].as_str().context("a session")?.to_owned();
    ensure!(lab.session(&session)?["path"] == "relay", "{}", lab.session(&session)?);
    again.signal("TERM")?;
    again.finish(10_000)?;
    Ok(())
}
