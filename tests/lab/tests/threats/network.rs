//! T6, T7, T10, T11, T12, T15: nothing but the lane's tuple crosses, seen with foreign tools and a capture at the site.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use thinlane_lab::{Background, Lab, now_ms};

/// Captures on the site's LAN while something happens; gives the packets as tcpdump prints them.
fn capture(lab: &Lab, site: &str, filter: &str, what: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    let dump = Background::start(lab.on(site, &["tcpdump", "-i", "lan", "-nn", "-l", "--immediate-mode", filter]))?;
    sleep(Duration::from_millis(700));
    let outcome = what();
    sleep(Duration::from_millis(700));
    dump.signal("INT")?;
    let out = dump.finish(5_000)?;
    outcome?;
    Ok(out.stdout.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// Everything on the LAN that is not the lane's own port, ARP left out.
const NOT_THE_PORT: &str = "not arp and not port 7 and not icmp6 and not port 5353";

pub fn t06_a_full_scan_sees_one_open_port(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "5m")?;
    let neighbour =
        lab.json("olga", &["asset", "show", "north-plc2"])?["overlay_address"].as_str().unwrap_or("").to_owned();
    let seen = capture(lab, "north", NOT_THE_PORT, || {
        let fast = ["-n", "-Pn", "--max-retries", "1", "-T5", "--min-rate", "4000"];
        let open = lab
            .on("erik", &[&["nmap", "-sS", "-p-"], &fast[..], &[&lane.address, "-oG", "-"]].concat())
            .run()?
            .good()?;
        let ports: Vec<&str> = open
            .stdout
            .split("Ports: ")
            .nth(1)
            .unwrap_or("")
            .split(", ")
            .filter(|port| port.contains("/open/"))
            .collect();
        ensure!(ports.len() == 1 && ports[0].starts_with("7/open/tcp"), "open ports: {ports:?}\n{}", open.stdout);
        let scans: [&[&str]; 3] = [&["-sU", "-p1-1024"], &["-sO"], &["-sA", "-p1-1024"]];
        for scan in scans {
            let out = lab
                .on(
                    "erik",
                    &[&["nmap"], scan, &fast[..], &["--host-timeout", "20s", &lane.address, "-oG", "-"]].concat(),
                )
                .run()?
                .good()?;
            // The scan of IP protocols finds the one that the lane carries.
            ensure!(!out.stdout.replace(" 6/open/tcp/", "").contains("/open/"), "{scan:?}: {}", out.stdout);
        }
        let out = lab
            .on(
                "erik",
                &[&["nmap", "-sS", "-p1-1024"], &fast[..], &["--host-timeout", "10s", &neighbour, "-oG", "-"]].concat(),
            )
            .run()?
            .good()?;
        ensure!(!out.stdout.contains("/open/"), "the neighbour: {}", out.stdout);
        lane.exchange("tcp")?.good()?;
        Ok(())
    })?;
    ensure!(seen.is_empty(), "{} foreign packets at the site, such as {:?}", seen.len(), &seen[..seen.len().min(3)]);
    let denied = lane.show()?["counters"]["denied_packets"].as_u64().unwrap_or(0);
    ensure!(denied > 60_000, "only {denied} denied packets were counted");
    Ok(())
}

pub fn t07_a_spoofed_source_reaches_nothing(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    let start = now_ms();
    let script = format!(
        "ip addr add 198.19.250.250/32 dev {0}; hping3 -2 -p 7 -a 198.19.250.250 -I {0} -c 20 -i u20000 {1} >/dev/null 2>&1; ip addr del 198.19.250.250/32 dev {0}; true",
        lane.iface, lane.address
    );
    let seen = capture(lab, "north", "not arp and not icmp6 and not port 5353", || {
        lab.on("erik", &["sh", "-c", &script]).run()?.good()?;
        sleep(Duration::from_millis(1_500));
        Ok(())
    })?;
    ensure!(seen.is_empty(), "spoofed packets arrived: {seen:?}");
    lab.device("north-1").quiet_after(start)?;
    lane.exchange("udp")?.good()?;
    Ok(())
}

pub fn t10_fragments_pass_only_where_the_port_is_allowed(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    let seen = capture(lab, "north", NOT_THE_PORT, || {
        lab.on("erik", &["sh", "-c", &format!("hping3 -2 -f -p 9 -d 64 -c 5 -i u50000 {} >/dev/null 2>&1; hping3 -S -f -p 502 -c 5 -i u50000 {} >/dev/null 2>&1; true", lane.address, lane.address)])
            .run()?
            .good()?;
        Ok(())
    })?;
    ensure!(seen.is_empty(), "fragments of a denied port arrived: {seen:?}");
    let start = now_ms();
    // A datagram longer than the path carries is fragmented by the sender and must arrive whole.
    let to = format!("{}:7", lane.address);
    lab.on(
        "erik",
        &[
            "thinlane-sim",
            "echo",
            "udp",
            &to,
            "--size",
            "4000",
            "--every",
            "50ms",
            "--for",
            "500ms",
            "--patience",
            "3s",
        ],
    )
    .run()?
    .good()?;
    let whole = lab.device("north-1").payloads_since(start)?.iter().filter(|payload| payload.bytes == 4000).count();
    ensure!(whole >= 3, "only {whole} whole datagrams arrived");
    Ok(())
}

pub fn t11_icmp_and_ipv6_carry_nothing(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "1m")?;
    let seen = capture(lab, "north", "icmp or ip6", || {
        let script = format!(
            "ping -c 5 -i 0.2 -W 1 -p 6c65616b -s 1000 {}; ping -6 -c 2 -W 1 ff02::1%{}; true",
            lane.address, lane.iface
        );
        lab.on("erik", &["sh", "-c", &script]).run()?.good()?;
        Ok(())
    })?;
    let leaked: Vec<&String> = seen.iter().filter(|line| line.contains("echo request")).collect();
    ensure!(leaked.is_empty(), "{leaked:?}");
    lane.exchange("tcp")?.good()?;
    Ok(())
}

pub fn t12_a_device_cannot_open_towards_the_engineer(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "1m")?;
    lane.exchange("tcp")?.good()?;
    let engineer = lane.show()?["address"].as_str().unwrap_or("").to_owned();
    let listen = Background::start(
        lab.on("erik", &["tcpdump", "-i", &lane.iface, "-nn", "-l", "--immediate-mode", "src", &lane.address]),
    )?;
    sleep(Duration::from_millis(700));
    let script = format!(
        "ip route add {engineer}/32 via 192.168.1.1; \
         for port in 22 80 7 50000; do hping3 -S -s 502 -k -p $port -c 2 -i u20000 {engineer}; hping3 -2 -s 7 -k -p $port -c 2 -i u20000 {engineer}; hping3 -A -s 7 -k -p $port -c 2 -i u20000 {engineer}; done >/dev/null 2>&1; \
         ping -c 2 -W 1 {engineer} >/dev/null; ip route del {engineer}/32; true"
    );
    lab.on("north-1", &["sh", "-c", &script]).run()?.good()?;
    sleep(Duration::from_millis(500));
    listen.signal("INT")?;
    let seen = listen.finish(5_000)?.stdout;
    ensure!(seen.trim().is_empty(), "the device reached the engineer: {seen}");
    lane.exchange("tcp")?.good()?;
    Ok(())
}

/// The home router forgets its mappings (the next packet has another source port), and loses one packet in ten.
pub fn t15_a_lane_survives_rebinding_loss_and_blackouts(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "3m")?;
    let start = now_ms();
    let to = format!("{}:{}", lane.address, lane.port);
    let words = ["thinlane-sim", "echo", "tcp", &to, "--every", "50ms", "--for", "55s", "--patience", "20s"];
    let echo = Background::start(lab.on("erik", &words))?;
    lab.device("north-1").wait_for(5, start)?;
    let lossy = "table ip lossy { chain pass { type filter hook forward priority -5; udp dport 7443 numgen random mod 10 0 drop; udp sport 7443 numgen random mod 10 0 drop; }; }";
    let outcome = (|| -> Result<()> {
        lab.on("home", &["nft", lossy]).run()?.good()?;
        for turn in 0..10 {
            lab.on("home", &["conntrack", "-F"]).run()?;
            if turn % 5 == 4 {
                lab.on("home", &["nft", "add rule ip lossy pass drop"]).run()?.good()?;
                sleep(Duration::from_secs(5));
                lab.on("home", &["nft", "delete table ip lossy"]).run()?.good()?;
                lab.on("home", &["nft", lossy]).run()?.good()?;
            }
            sleep(Duration::from_secs(3));
        }
        Ok(())
    })();
    lab.on("home", &["nft", "delete", "table", "ip", "lossy"]).run()?;
    outcome?;
    let out = echo.finish(60_000)?.good()?;
    let end = out.lines_json().pop().unwrap_or_default();
    let sent = end["sent"].as_u64().unwrap_or(0);
    // What is still on its way when the stream ends is all that may be missing.
    let missing = (sent * 32).saturating_sub(end["received_bytes"].as_u64().unwrap_or(0));
    ensure!(missing <= 32 * 40, "{missing} of {} bytes did not come back", sent * 32);
    Ok(())
}
