//! T4, T14, T17, T18, T27, T29: clocks, clones, dead controllers, ceilings, flushed rulesets, dead channels.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Background, Lab, Lane, now_ms, wait_until};

/// The agent of south under another wall clock, in place of the ordinary one.
fn agent_at(lab: &Lab, clock: &str) -> Result<Background> {
    let dir = lab.root().join("agent-south").to_string_lossy().into_owned();
    let run = lab.root().join("run-south").to_string_lossy().into_owned();
    let agent = lab.bin().join("thinlane-agent").to_string_lossy().into_owned();
    lab.agent_process("south", "stop")?;
    // What faketime leaves in shared memory when it is ended bears its process id, and whoever has that id next does not
    // start: so it has shared memory of its own, which goes with it.
    let own = ["unshare", "-m", "sh", "-ec", "mount -t tmpfs tmpfs /dev/shm; exec faketime \"$@\"", "sh"];
    let words = [clock, &agent, "run", "--dir", &dir, "--run-dir", &run, "--lan", "lan"];
    Background::start(lab.on("south", &[&own[..], &words].concat()))
}

pub fn t04_a_clock_jump_moves_no_end(lab: &Lab) -> Result<()> {
    for clock in ["-10 days", "1970-01-02 00:00:00", "+400 days"] {
        let agent = agent_at(lab, clock)?;
        lab.wait_ready("south").with_context(|| format!("the channel at {clock}"))?;
        let lane = lab.lane("south-plc1", "echo-udp", "3s").with_context(|| clock.to_owned())?;
        let start = now_ms();
        let echo = lane.echo("udp", "20ms", "6s")?;
        wait_until(8_000, "the session has ended", || Ok(lane.show()?["state"] == "ended"))?;
        let ran = lab.device("south-1").last_since(start)? - start;
        ensure!((1_000.0..5_000.0).contains(&ran), "at {clock} a lane of 3 s carried packets for {ran:.0} ms");
        drop((echo, lane));
        agent.signal("TERM")?;
        agent.finish(5_000)?;
        // The launcher has ended; the agent itself takes its interface away first.
        wait_until(5_000, "the agent has ended", || {
            Ok(lab.agent("south", &["status"]).run()?.code != 0
                && !lab.on("south", &["ip", "-br", "link"]).run()?.good()?.stdout.contains("tl0"))
        })?;
    }
    lab.agent_process("south", "start")
}

pub fn t14_a_cloned_gateway_freezes_both(lab: &Lab) -> Result<()> {
    for _ in 0..5 {
        lab.agent_process("south", "kill")?;
        lab.agent_process("south", "start")?;
        lab.wait_ready("south")?;
    }
    let shown = lab.json("olga", &["site", "show", "south"])?;
    ensure!(shown["state"] == "online", "abrupt reconnects froze the site: {shown}");
    let copy = lab.root().join("agent-clone");
    thinlane_lab::Shell::new("cp")
        .args(&["-a", &lab.root().join("agent-south").to_string_lossy(), &copy.to_string_lossy()])
        .run()?
        .good()?;
    let agent = lab.bin().join("thinlane-agent").to_string_lossy().into_owned();
    let run = lab.root().join("run-clone").to_string_lossy().into_owned();
    // Another machine has another boot: the clone is given one of its own.
    let script = format!(
        "printf '11111111-2222-3333-4444-555555555555\\n' >{run}.boot; mount --bind {run}.boot /proc/sys/kernel/random/boot_id; exec {agent} run --dir {} --run-dir {run} --lan lan",
        copy.display()
    );
    let clone = Background::start(lab.on("north", &["unshare", "-n", "-m", "true"]))?;
    drop(clone);
    let clone =
        Background::start(lab.on("hq", &["unshare", "-m", "sh", "-c", &script.replace("--lan lan", "--lan wan")]))?;
    let frozen = wait_until(20_000, "the site is frozen", || {
        Ok(lab.json("olga", &["site", "show", "south"])?["state"] == "frozen")
    });
    drop(clone);
    let _ = std::fs::remove_dir_all(&copy);
    frozen?;
    let request = lab.approved("south-plc1", "echo-tcp", "1m")?;
    ensure!(lab.thinlane("erik", &["connect", &request, "--", "true"]).run()?.code != 0, "a frozen site opened a lane");
    lab.on("hq", &["sh", "-c", "nft delete table inet thinlane; ip link del tl0; true"]).run()?;
    unfreeze(lab)?;
    wait_until(30_000, "the site is online again", || {
        Ok(lab.json("olga", &["site", "show", "south"])?["state"] == "online")
    })
}

fn unfreeze(lab: &Lab) -> Result<()> {
    lab.thinlane("olga", &["site", "unfreeze", "south", "--reason", "the clone was found"]).run()?.good()?;
    lab.agent_process("south", "stop")?;
    lab.agent_process("south", "start")
}

pub fn t17_a_dead_controller_leaves_lanes_to_end(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "4s")?;
    let start = now_ms();
    let echo = lane.echo("udp", "20ms", "8s")?;
    lab.device("north-1").wait_for(10, start)?;
    lab.script(&["controller", "kill"]).run()?.good()?;
    sleep(Duration::from_millis(5_500));
    let late = lab.device("north-1").last_since(start)? - start;
    ensure!(late < 5_000.0, "payload for {late:.0} ms of a lane of 4 s");
    lab.script(&["controller", "start"]).run()?.good()?;
    wait_until(20_000, "the controller answers", || Ok(lab.thinlane("erik", &["whoami"]).run()?.code == 0))?;
    lab.wait_ready("north")?;
    wait_until(10_000, "the closing record has arrived", || Ok(lane.show()?["counters_final"] == true))?;
    drop(echo);
    let closings = lab.json("olga", &["session", "show", &lane.session])?;
    ensure!(closings["counters"]["up_packets"].as_u64() > Some(10), "{closings}");
    Ok(())
}

pub fn t17_a_restored_old_database_is_noticed(lab: &Lab) -> Result<()> {
    let dir = lab.root().join("controller").to_string_lossy().into_owned();
    let file = lab.root().join("old").to_string_lossy().into_owned();
    let kept = lab.root().join("controller-kept").to_string_lossy().into_owned();
    lab.on("hq", &["thinlane-controller", "backup", "--dir", &dir, "--to", &file]).run()?.good()?;
    lab.lane("north-plc1", "echo-udp", "1m")?.exchange("udp")?.good()?;
    sleep(Duration::from_millis(500));
    lab.script(&["controller", "stop"]).run()?.good()?;
    std::fs::rename(&dir, &kept)?;
    lab.on("hq", &["thinlane-controller", "restore", "--from", &file, "--dir", &dir]).run()?.good()?;
    lab.script(&["controller", "start"]).run()?.good()?;
    let noticed = wait_until(30_000, "a rollback is reported", || {
        let tail = lab.thinlane("ada", &["audit", "tail"]).run()?;
        Ok(tail.stdout.contains("rolled-back") || tail.stdout.contains("rollback"))
    });
    lab.script(&["controller", "stop"]).run()?.good()?;
    std::fs::remove_dir_all(&dir)?;
    std::fs::rename(&kept, &dir)?;
    std::fs::remove_file(&file)?;
    lab.script(&["controller", "start"]).run()?.good()?;
    for site in ["north", "south"] {
        // The gateways remember the true log; they come back by themselves.
        lab.wait_ready(site)?;
    }
    wait_until(20_000, "the controller answers", || Ok(lab.thinlane("erik", &["whoami"]).run()?.code == 0))?;
    noticed
}

pub fn t18_a_grant_beyond_the_ceiling_is_refused(lab: &Lab) -> Result<()> {
    let config = lab.root().join("agent-north/agent.toml");
    let ceilings = [
        ("[ceiling]\nports = [502]\n", "port"),
        ("[ceiling]\nassets = [\"192.168.1.11/32\"]\n", "asset"),
        ("[ceiling]\ntasks = [\"modbus\"]\n", "task"),
        ("[ceiling]\nlongest = \"30s\"\n", "longest"),
    ];
    for (text, what) in ceilings {
        std::fs::write(&config, text)?;
        lab.agent_process("north", "stop")?;
        lab.agent_process("north", "start")?;
        lab.wait_ready("north")?;
        let request = lab.approved("north-plc1", "echo-tcp", "1m")?;
        let out = lab.thinlane("erik", &["connect", &request, "--", "true"]).run()?;
        ensure!(out.code != 0 && out.stderr.contains("ceiling"), "{what}: {} {}", out.code, out.stderr);
        ensure!(
            !lab.nft("north", &["list", "table", "inet", "thinlane"])?.contains("chain lane-"),
            "{what}: a lane was made"
        );
    }
    std::fs::remove_file(&config)?;
    lab.agent_process("north", "stop")?;
    lab.agent_process("north", "start")?;
    lab.wait_ready("north")?;
    lab.lane("north-plc1", "echo-tcp", "1m")?.exchange("tcp")?.good()?;
    Ok(())
}

fn other_services_stay_closed(lab: &Lab, lane: &Lane) -> Result<()> {
    let start = now_ms();
    let script = format!(
        "for i in 1 2 3; do timeout 0.3 bash -c 'exec 3<>/dev/tcp/{0}/502; echo x >&3'; hping3 -2 -p 9 -c 2 -i u10000 {0}; done >/dev/null 2>&1; true",
        lane.address
    );
    lab.on("erik", &["sh", "-c", &script]).run()?.good()?;
    let device = lab.device("north-1");
    let foreign: Vec<_> =
        device.payloads_since(start)?.into_iter().filter(|payload| payload.service == "modbus").collect();
    ensure!(foreign.is_empty() && device.count_since("connected", start)? == 0, "{foreign:?}");
    Ok(())
}

pub fn t27_a_flushed_ruleset_opens_nothing(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    let start = now_ms();
    let echo = lane.patient_echo("udp", "20ms", "30s")?;
    lab.device("north-1").wait_for(10, start)?;
    lab.agent_process("north", "pause")?;
    lab.nft("north", &["flush", "ruleset"])?;
    other_services_stay_closed(lab, &lane).context("flushed while the agent is stopped")?;
    lab.agent_process("north", "resume")?;
    wait_until(5_000, "the table stands again", || {
        Ok(lab.nft("north", &["list", "table", "inet", "thinlane"])?.contains("chain"))
    })?;
    for _ in 0..3 {
        lab.nft("north", &["flush", "ruleset"])?;
        other_services_stay_closed(lab, &lane).context("flushed while the agent runs")?;
    }
    let flushed = now_ms();
    wait_until(15_000, "the session goes on", || {
        Ok(!lab.device("north-1").payloads_since(flushed + 500.0)?.is_empty())
    })?;
    wait_until(5_000, "the flush is reported", || {
        Ok(lab.thinlane("ada", &["audit", "tail"]).run()?.stdout.contains("flush"))
    })?;
    drop(echo);
    Ok(())
}

pub fn t29_a_kill_over_a_dead_channel_still_stops_packets(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "2m")?;
    let start = now_ms();
    let echo = lane.echo("udp", "20ms", "60s")?;
    lab.device("north-1").wait_for(10, start)?;
    // The carrier loses the agent's TCP, and only that.
    let hole = "nft add table ip hole; nft add chain ip hole pass '{ type filter hook forward priority -1; }'; nft add rule ip hole pass tcp dport 7443 drop; nft add rule ip hole pass tcp sport 7443 drop";
    lab.on("carrier", &["sh", "-c", hole]).run()?.good()?;
    let outcome = (|| -> Result<()> {
        let out = lab.thinlane("olga", &["session", "kill", &lane.session, "--reason", "test"]).run()?.exits(6)?;
        let bound = now_ms();
        sleep(Duration::from_millis(1_000));
        lab.device("north-1").quiet_after(bound + 80.0).context("after the kill had answered")?;
        ensure!(lane.show()?["state"] == "ending", "{out:?}");
        Ok(())
    })();
    lab.on("carrier", &["nft", "delete", "table", "ip", "hole"]).run()?;
    drop(echo);
    outcome?;
    wait_until(60_000, "the session has ended", || Ok(lane.show()?["state"] == "ended"))?;
    ensure!(lane.show()?["end_reason"] == "killed");
    Ok(())
}
