//! `thinlane-agent check` and `thinlane doctor`: each thing that can be wrong with a gateway or a laptop is done to
//! one, must be named, and is undone; what is not wrong must not be named with it.

#[path = "doctor/bench.rs"]
mod bench;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use bench::{Bench, Named};
use thinlane_lab::{Case, Lab, main as run, wait_until};

const CASES: &[Case] = &[
    ("what_is_wrong_with_the_uplink_is_named", what_is_wrong_with_the_uplink),
    ("what_is_wrong_with_the_lan_is_named", what_is_wrong_with_the_lan),
    ("what_is_wrong_with_the_gateway_itself_is_named", what_is_wrong_with_the_gateway),
    ("what_the_controller_has_against_a_gateway_is_named", what_the_controller_has_against_it),
    ("what_is_wrong_with_a_laptop_is_named", what_is_wrong_with_a_laptop),
    ("what_the_relay_gives_away_to_strangers_is_nothing", what_the_relay_gives_away),
];

fn main() -> ExitCode {
    run("tdoc", CASES)
}

const DROP_UDP: &str =
    "add table ip t; add chain ip t f { type filter hook forward priority -5; }; add rule ip t f udp dport 7443 drop";
const DROP_TCP: &str =
    "add table ip t; add chain ip t f { type filter hook forward priority -5; }; add rule ip t f tcp dport 7443 drop";
const REJECT_UDP: &str =
    "add table ip t; add chain ip t i { type filter hook input priority -5; }; add rule ip t i udp dport 7443 reject";
const REJECT_TCP: &str = "add table ip t; add chain ip t i { type filter hook input priority -5; }; add rule ip t i tcp dport 7443 reject with tcp reset";
const DROP_FRAGMENTS: &str = "add table ip t; add chain ip t p { type filter hook prerouting priority -450; }; add rule ip t p ip frag-off & 0x3fff != 0 drop";
const UNDO: &str = "delete table ip t";

fn what_is_wrong_with_the_uplink(lab: &Lab) -> Result<()> {
    let bench = Bench::gateway(lab)?;
    bench.while_so("carrier", &["nft", DROP_UDP], &["nft", UNDO], |found| {
        found.are(&["PROBLEM udp-blocked"]).map(drop)
    })?;
    bench.while_so("hq", &["nft", REJECT_UDP], &["nft", UNDO], |found| {
        found.are(&["PROBLEM relay-refused"]).map(drop)
    })?;
    let mtu =
        |mtu: u32| format!("ip link set dev wan mtu {mtu}; ip -n {}-net link set dev carrier mtu {mtu}", lab.name());
    bench.while_so("carrier", &["sh", "-c", &mtu(1400)], &["sh", "-c", &mtu(1500)], |found| {
        ensure!(found.report["facts"]["path_mtu"] == 1400, "{}", found.report);
        found.are(&["warning mtu-too-small"]).map(drop)
    })?;
    let lost = format!("{}; ip netns exec {}-net nft '{DROP_FRAGMENTS}'", mtu(1400), lab.name());
    let found = format!("{}; ip netns exec {}-net nft '{UNDO}'", mtu(1500), lab.name());
    bench.while_so("carrier", &["sh", "-c", &lost], &["sh", "-c", &found], |found| {
        found.are(&["PROBLEM mtu-too-small"]).map(drop)
    })?;
    // The name, not the address: the identity of a copy is changed, and no agent runs on it.
    let named = bench.copy("named")?;
    named.rewrite("identity.json", "198.51.100.2:7443", "hq.example:7443")?;
    named.check(&[])?.has("PROBLEM no-dns")?.lacks("controller-unreachable")?;
    bench.copy("clock")?.check(&["faketime", "-f", "-3h"])?.has("warning wrong-clock")?;
    Ok(())
}

fn what_is_wrong_with_the_lan(lab: &Lab) -> Result<()> {
    let bench = Bench::gateway(lab)?;
    let ip = |words: &str| ["sh", "-c", words].map(str::to_owned);
    for (act, undo, named) in [
        ("ip link set lan down", "ip link set lan up", "PROBLEM lan-down"),
        ("ip addr del 192.168.1.1/24 dev lan", "ip addr add 192.168.1.1/24 dev lan", "PROBLEM lan-no-address"),
        (
            "ip link set lan down; ip link set lan name elsewhere; ip link set elsewhere up",
            "ip link set elsewhere down; ip link set elsewhere name lan; ip link set lan up; sysctl -qw net.ipv4.conf.lan.forwarding=1",
            "PROBLEM lan-missing",
        ),
        (
            "sysctl -qw net.ipv4.conf.lan.forwarding=0",
            "sysctl -qw net.ipv4.conf.lan.forwarding=1",
            "PROBLEM forwarding-off",
        ),
        ("ip addr add 198.18.7.1/24 dev lan", "ip addr del 198.18.7.1/24 dev lan", "PROBLEM pool-clash"),
        ("ip addr add 198.19.7.1/24 dev wwan0", "ip addr del 198.19.7.1/24 dev wwan0", "PROBLEM pool-clash"),
        ("ip addr add 100.64.1.77/24 dev lan", "ip addr del 100.64.1.77/24 dev lan", "warning networks-overlap"),
    ] {
        let (act, undo) = (ip(act), ip(undo));
        let words = |words: &[String; 3]| -> Vec<String> { words.to_vec() };
        bench.while_so("north", &words(&act), &words(&undo), |found| found.are(&[named]).map(drop))?;
    }
    Ok(())
}

fn what_is_wrong_with_the_gateway(lab: &Lab) -> Result<()> {
    let bench = Bench::gateway(lab)?;
    let fw4 = "add table inet fw4; add chain inet fw4 forward { type filter hook forward priority 0; policy drop; }; add rule inet fw4 forward ct state established,related accept; add rule inet fw4 forward iifname lan oifname wwan0 accept";
    bench.while_so("north", &["nft", fw4], &["nft", "delete table inet fw4"], |found| {
        found.are(&["PROBLEM firewall-drops"]).map(drop)
    })?;
    let zone = format!("{fw4}; add rule inet fw4 forward iifname tl0 accept");
    bench.while_so("north", &["nft", &zone], &["nft", "delete table inet fw4"], |found| found.are(&[]).map(drop))?;
    // A policy that accepts, and rules that surely drop lanes, there or back, or of which nobody can know.
    for (rule, named) in [
        ("iifname \"tl0\" drop", "PROBLEM firewall-drops"),
        ("iifname \"lan\" oifname != \"wwan0\" drop", "PROBLEM firewall-drops"),
        ("iifname != \"lan\" ip daddr 192.168.1.0/24 drop", "PROBLEM firewall-drops"),
        ("tcp dport 7 drop", "warning firewall-may-drop"),
    ] {
        let open =
            "add table inet fw4; add chain inet fw4 forward { type filter hook forward priority 0; policy accept; }";
        let rules = format!("{open}; add rule inet fw4 forward {rule}");
        bench.while_so("north", &["nft", &rules], &["nft", "delete table inet fw4"], |found| {
            found.are(&[named])?.says(&rule.replace('"', "\\\""))?;
            Ok(())
        })?;
    }
    // Hidden from one call alone, in a mount namespace of its own.
    let hidden = |what: &str| format!("{what}; exec \"$@\"");
    let unshared = |what: &str| bench.check_within(&["unshare", "-m", "sh", "-c", &hidden(what), "sh"]);
    unshared("mount -t tmpfs none /dev/net")?.has("PROBLEM kernel-feature-missing")?;
    unshared("mount -t tmpfs none /sys/module && mkdir /sys/module/shortcut_fe")?.are(&["warning vendor-offload"])?;
    unshared("mount -t tmpfs none /sys/module && mkdir /sys/module/wireguard")?.lacks("no-wireguard-module")?;
    let dir = lab.root().join("agent-north");
    let dir = dir.display();
    let small = format!(
        "cp {dir}/identity.json /tmp/i.$$ && mount -t tmpfs -o size=24k none {dir} && mv /tmp/i.$$ {dir}/identity.json && head -c 100000 /dev/zero >{dir}/fill"
    );
    unshared(&format!("({small}) 2>/dev/null || true"))?.are(&["PROBLEM disk-full"])?;
    unshared(&format!("mount --bind -o ro {dir} {dir} && mount -o remount,bind,ro {dir}"))?
        .are(&["PROBLEM disk-read-only"])?;
    std::fs::write(lab.root().join("agent-north/agent.toml"), "[ceiling]\nport = [502]\n")?;
    let wrong = bench.check();
    std::fs::remove_file(lab.root().join("agent-north/agent.toml"))?;
    wrong?.are(&["PROBLEM configuration-wrong"])?.says("line 2")?;
    lab.agent("north", &["isolate", "on"]).run()?.good()?;
    let isolated = bench.check();
    lab.agent("north", &["isolate", "off"]).run()?.good()?;
    isolated?.are(&["warning isolated"])?.exits(0)?;
    lab.agent_process("north", "stop")?;
    let stopped = bench.check();
    lab.agent_process("north", "start")?;
    stopped?.has("warning agent-not-running")?.has("note udp-not-tested")?;
    lab.wait_ready("north")?;
    lab.agent_process("north", "pause")?;
    let mute = bench.check();
    lab.agent_process("north", "resume")?;
    mute?.has("PROBLEM agent-mute")?;
    // A pager that is left early is no reason to panic.
    let words = format!("thinlane-agent check --dir {dir} --run-dir {} | true", lab.root().join("run-north").display());
    let left = lab.on("north", &["sh", "-c", &words]).run()?.good()?;
    ensure!(left.stderr.is_empty(), "{left:?}");
    let nobody = bench.empty("nobody")?.check(&[])?;
    nobody.has("PROBLEM not-enrolled")?.lacks("agent-not-running")?;
    Ok(())
}

fn what_the_controller_has_against_it(lab: &Lab) -> Result<()> {
    let bench = Bench::gateway(lab)?;
    bench.while_so(
        "north",
        &["ip", "route", "del", "default"],
        &["ip", "route", "add", "default", "via", "100.64.1.1"],
        |found| {
            found.has("PROBLEM no-default-route")?.lacks("controller-unreachable")?;
            Ok(())
        },
    )?;
    bench.while_so("carrier", &["nft", DROP_TCP], &["nft", UNDO], |found| {
        found.has("PROBLEM controller-unreachable").map(drop)
    })?;
    bench.while_so("hq", &["nft", REJECT_TCP], &["nft", UNDO], |found| {
        found.has("PROBLEM controller-refused").map(drop)
    })?;
    // Another authority's word, in a copy that no agent runs on.
    let stranger = bench.copy("stranger")?;
    stranger.trust_another_authority()?;
    stranger.check(&[])?.has("PROBLEM controller-not-trusted")?;
    // A site that is enrolled twice: the first certificate is revoked by the second.
    let first = bench.enrolled("east", "first")?;
    first.check(&[])?.lacks("certificate-revoked")?.lacks("certificate-refused")?;
    let second = bench.enrolled("east", "second")?;
    first.check(&[])?.has("PROBLEM certificate-revoked")?;
    second.check(&[])?.lacks("certificate-revoked")?;
    // The controller vouched for a time near its end, or behind it.
    second.vouch_for_days_ahead(80)?;
    second.check(&[])?.has("warning certificate-near-end")?;
    second.vouch_for_days_ahead(91)?;
    second.check(&[])?.has("PROBLEM certificate-expired")?;
    clone_alarm(lab, &bench)
}

/// A copied key on what looks like another machine: both connections answer, and the controller freezes both.
fn clone_alarm(lab: &Lab, bench: &Bench<'_>) -> Result<()> {
    let site = lab.root().join("agent-south");
    let copy = lab.root().join("agent-copy");
    thinlane_lab::Shell::new("cp").args(&["-a", &site.to_string_lossy(), &copy.to_string_lossy()]).run()?.good()?;
    let run = lab.root().join("run-copy").display().to_string();
    let agent = lab.bin().join("thinlane-agent").display().to_string();
    let script = format!(
        "printf '11111111-2222-3333-4444-555555555555\\n' >{run}.boot; mount --bind {run}.boot /proc/sys/kernel/random/boot_id; exec {agent} run --dir {} --run-dir {run} --lan wan",
        copy.display()
    );
    let clone = thinlane_lab::Background::start(lab.on("hq", &["unshare", "-m", "sh", "-c", &script]))?;
    let named = wait_until(20_000, "the clone alarm is told at the site", || {
        Ok(bench.of("south").check()?.codes().contains(&"PROBLEM clone-alarm".to_owned()))
    });
    drop(clone);
    let _ = std::fs::remove_dir_all(&copy);
    lab.on("hq", &["sh", "-c", "nft delete table inet thinlane; ip link del tl0; true"]).run()?;
    lab.thinlane("olga", &["site", "unfreeze", "south", "--reason", "the clone was found"]).run()?.good()?;
    lab.agent_process("south", "stop")?;
    lab.agent_process("south", "start")?;
    named
}

fn what_is_wrong_with_a_laptop(lab: &Lab) -> Result<()> {
    let bench = Bench::laptop(lab)?;
    bench
        .while_so("home", &["nft", DROP_UDP], &["nft", UNDO], |found| found.are(&["PROBLEM udp-blocked"]).map(drop))?;
    let mtu = |mtu: u32| format!("ip link set dev wan mtu {mtu}; ip -n {}-net link set dev home mtu {mtu}", lab.name());
    bench.while_so("home", &["sh", "-c", &mtu(1380)], &["sh", "-c", &mtu(1500)], |found| {
        found.are(&["warning mtu-too-small"]).map(drop)
    })?;
    bench.while_so(
        "erik",
        &["ip", "route", "del", "default"],
        &["ip", "route", "add", "default", "via", "192.168.178.1"],
        |found| {
            found.has("PROBLEM no-default-route")?.lacks("controller-unreachable")?;
            Ok(())
        },
    )?;
    bench.while_so("hq", &["nft", REJECT_TCP], &["nft", UNDO], |found| {
        found.has("PROBLEM controller-refused").map(drop)
    })?;
    bench.while_so(
        "erik",
        &["ip", "addr", "add", "198.18.3.1/24", "dev", "eth0"],
        &["ip", "addr", "del", "198.18.3.1/24", "dev", "eth0"],
        |found| found.has("PROBLEM pool-clash").map(drop),
    )?;
    bench.check_within(&["faketime", "-f", "+2m"])?.has("warning wrong-clock")?;
    bench.check_within(&["faketime", "-f", "-3y"])?.has("PROBLEM wrong-clock")?;
    let dir = lab.root().join("home-nobody").display().to_string();
    let stranger = Named::of(&lab.on("erik", &["thinlane", "--home", &dir, "doctor", "--json"]).run()?)?;
    stranger.has("PROBLEM no-controller")?.exits(1)?;
    let unprivileged = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"];
    bench.check_within(&unprivileged)?.has("warning no-privilege")?;
    Ok(())
}

/// A datagram that is no WireGuard message and shows no ticket: silence, not even a refusal.
fn what_the_relay_gives_away(lab: &Lab) -> Result<()> {
    let script = "import socket,os\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.connect(('198.51.100.2',7443))\ns.settimeout(0.5)\nfor d in (b'', b'TLp?'+os.urandom(60), b'TLp?'+bytes(1400), b'TLp!'+os.urandom(100), b'TLp?'):\n  s.send(d)\ntry:\n  print('answered', s.recv(2000))\nexcept TimeoutError:\n  print('silent')";
    lab.on("erik", &["/usr/bin/python3", "-c", script]).run()?.good()?.says("silent")?;
    Ok(())
}
