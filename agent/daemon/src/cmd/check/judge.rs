//! What the facts mean for the technician at the cabinet. Asks nobody, so that every finding can be tested.

use thinlane_doctor::{Admission, Contact, Finding, Interface, Place, network_findings};
use thinlane_model::{Span, Wall};
use thinlane_wire::GoodbyeReason;

use super::facts::{Certificate, Daemon, Disk, Enrolment, Facts, Kernel, Lan};
use super::firewall::{firewall, unread};
use crate::control::Status;
use crate::failure::Failure;
use crate::kernel::INTERFACE;

/// Free space below this is a problem, below that a warning, in bytes: an identity, a clock floor and a checkpoint
/// are rewritten whole.
const FULL: u64 = 64 * 1024;
const NEARLY_FULL: u64 = 1024 * 1024;
/// A certificate that renews itself with a third of its life left has less than this only when renewal fails.
const NEAR_END: u64 = 6;

/// What `scripts/bench wg` measured on two x86-64 cores, a single TCP flow, medians of five: 4.1 processor seconds per GB
/// for both ends together, where boringtun-cli takes 25.9. The gateway is one of the two.
const COST: &str = "Lanes work the same and are counted more exactly. It costs processor time, since each packet passes through the agent: about 2 s of one core per GB on a PC (a sixth of what boringtun takes), several times that on a small router.";

/// Everything that is worth saying.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    enrolment(facts, &mut findings);
    if let Some(missing) = &facts.privilege {
        findings.push(
            Finding::problem("no-privilege", sentence(&missing.what))
                .why("Without it neither lanes can be made nor can it be proven that none is open.")
                .next(sentence(&missing.next)),
        );
    }
    daemon(facts, &mut findings);
    if let Some(network) = &facts.network {
        findings.extend(network_findings(network, Place::Gateway, &is_ours));
    }
    admission(facts, &mut findings);
    if let Some(certificate) = facts.certificate {
        findings.extend(certificate_age(certificate));
    }
    for lan in &facts.lan {
        findings.extend(lan_interface(lan));
    }
    if facts.lan.is_empty() && !facts.lan_named {
        findings.push(
            Finding::note(
                "lan-not-named",
                "No LAN interface is named; for each asset the one that its address is routed by is taken.",
            )
            .why("A named one keeps lanes away from every other interface.")
            .next("Name it in agent.toml: lan = [\"br-lan\"]."),
        );
    }
    kernel(facts, &mut findings);
    findings.extend(facts.disks.iter().flat_map(disk));
    findings
}

/// The kernel could not be read; what keeps it from that is a finding of its own.
pub fn not_proven(failure: &Failure) -> Finding {
    Finding::problem("not-proven", sentence(&format!("It could not be proven that nothing is open: {}", failure.what)))
        .why("The kernel does not show its table, interfaces or connections to this program.")
        .next(failure.next.as_deref().map_or("See the other findings, then run this again as root.".into(), sentence))
}

fn is_ours(interface: &Interface) -> bool {
    interface.name == INTERFACE || interface.name.starts_with("tl-")
}

/// As a sentence: words of others begin small, end without a stop, and carry numbers that say nothing to a person.
pub(super) fn sentence(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(begin) = text.find(" (os error ") {
        let length = text[begin..].find(')').map_or(text.len() - begin, |length| length + 1);
        text.replace_range(begin..begin + length, "");
    }
    let mut letters = text.trim_end_matches(['.', ' ']).chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

fn enrolment(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.enrolment {
        Enrolment::Yes { .. } => {}
        Enrolment::No => findings.push(
            Finding::problem("not-enrolled", "This gateway is not enrolled: it has no identity yet.")
                .why("No controller knows it, so nobody can open a lane here.")
                .next("Have an enrolment code made (thinlane site token SITE), then: thinlane-agent enroll --controller HOST:7443 --ca-fingerprint sha256:HEX --token-file FILE"),
        ),
        Enrolment::Damaged(why) => findings.push(
            Finding::problem("identity-damaged", sentence(&format!("The identity file cannot be used: {why}")))
                .why("Without its key and certificate the gateway cannot log in.")
                .next("Enrol it again with a new code: thinlane-agent enroll --force ..."),
        ),
    }
    if let Some(why) = &facts.config_problem {
        findings.push(
            Finding::problem(
                "configuration-wrong",
                sentence(&format!("The configuration is not taken: {}", why.trim())),
            )
            .why("The agent does not start with a configuration that it does not understand.")
            .next("Mend the line that is named; docs/operations.md shows every key."),
        );
    }
    if facts.isolated {
        findings.push(
            Finding::warning("isolated", "The site is isolated by its own switch: no lane can be opened.")
                .why("Somebody at the site has closed it; nothing remote can override that.")
                .next("If that is no longer meant: thinlane-agent isolate off, or turn the key switch back."),
        );
    }
}

fn daemon(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.daemon {
        Daemon::Stopped if matches!(facts.enrolment, Enrolment::Yes { .. }) => findings.push(
            Finding::warning("agent-not-running", "No agent is running on this gateway.")
                .why("Lanes can neither be opened nor reported on.")
                .next("Start it: systemctl start thinlane-agent, /etc/init.d/thinlane-agent start, or thinlane-agent run."),
        ),
        Daemon::Stopped => {}
        Daemon::Mute(why) => findings.push(
            Finding::problem("agent-mute", sentence(&format!("The agent runs, but does not answer: {why}")))
                .why("It may hang; open lanes end at their deadline by the kernel's own clock.")
                .next("Restart it; its lanes go on where their time is not over."),
        ),
        Daemon::Runs(status) => of_status(facts, status, findings),
    }
}

fn of_status(facts: &Facts, status: &Status, findings: &mut Vec<Finding>) {
    if let Some(why) = status.why_not_ready.as_deref().filter(|_| !status.isolated) {
        let offload = why.contains("flow offload");
        // Said below, with the table's name.
        if !offload || facts.kernel.flowtables.is_empty() {
            let code = if offload { "flow-offload" } else { "not-ready" };
            findings.push(
                Finding::problem(code, sentence(&format!("The agent opens no lanes: {why}")))
                    .why("It arms nothing while it cannot be sure that a lane's rules hold.")
                    .next("Mend what is named; the agent notices by itself. Its log says more."),
            );
        }
    }
    if let Some(problem) = &status.log_problem {
        findings.push(
            Finding::warning(
                "log-contradicts",
                sentence(&format!("The controller's log contradicts what this gateway remembers: {problem}")),
            )
            .why("Either the controller was restored from an older backup, or somebody altered its log.")
            .next("Tell whoever runs the controller; the gateway keeps what it has seen as evidence."),
        );
    }
    if status.channel == "up" {
        return;
    }
    let told = status.goodbye.as_deref().and_then(goodbye_finding);
    let reached = facts.network.as_ref().is_some_and(|network| matches!(network.contact, Contact::Answers { .. }));
    match told {
        Some(finding) => findings.push(finding),
        // What keeps it from the controller is a finding of its own.
        None if reached && !matches!(facts.admission, Some(Admission::TurnedAway { .. })) => {
            let why = status.channel_problem.as_deref().unwrap_or("it has only just begun");
            findings.push(
                Finding::warning("channel-down", sentence(&format!("The agent is not connected to the controller at the moment: {why}")))
                    .why("The controller answers, so the agent will be back by itself; until then nothing new can be opened.")
                    .next("Wait a minute and run this again; if it stays, look into the agent's log."),
            );
        }
        None => {}
    }
}

/// What it means that the controller hung up with this word.
fn goodbye_finding(word: &str) -> Option<Finding> {
    use GoodbyeReason::{Frozen, Protocol, Replaced, Revoked};
    let reason = [Frozen, Revoked, Replaced, Protocol].into_iter().find(|reason| reason.as_str() == word)?;
    Some(match reason {
        Frozen => Finding::problem("clone-alarm", "Clone alarm: two machines use this gateway's key, and the controller has frozen both.")
            .why("A copied key could answer in this gateway's place; no lane opens until a person has looked.")
            .next("Find the copy and switch it off, enrol the right gateway anew if the key was stolen, then ops: thinlane site unfreeze SITE --reason .."),
        Revoked => Finding::problem("certificate-revoked", "The controller refuses this gateway: its certificate was revoked.")
            .why("The site was enrolled again since, on this or on another machine, or the site was removed.")
            .next("If this is the right gateway, enrol it with a new code: thinlane-agent enroll --force ..."),
        Replaced => Finding::warning("channel-replaced", "Another connection of this gateway has taken the place of this agent's.")
            .why("That happens at a restart; if it goes on, another machine uses this gateway's key.")
            .next("Run this again in a minute; if it stays, look for a second agent with the same identity."),
        _ => Finding::problem("protocol-refused", "The controller hung up because of the protocol: its version and this agent's do not fit.")
            .why("A controller serves agents one version older and newer, and no others.")
            .next("Upgrade the older of the two; `thinlane-agent version` and this page name both versions."),
    })
}

fn admission(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(Admission::TurnedAway { reason, detail }) = &facts.admission else { return };
    let told = reason.and_then(|reason| goodbye_finding(reason.as_str()));
    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    match told {
        Some(finding) if codes.contains(&finding.code) => {}
        Some(finding) => findings.push(finding),
        None if *reason == Some(GoodbyeReason::ShuttingDown) => {}
        None => findings.push(
            Finding::problem(
                "certificate-refused",
                sentence(&format!("The controller does not take this gateway's certificate: {detail}")),
            )
            .why("It was made by another authority, or is damaged; the channel cannot come up.")
            .next("Enrol the gateway again with a new code: thinlane-agent enroll --force ..."),
        ),
    }
}

fn certificate_age(certificate: Certificate) -> Option<Finding> {
    let Certificate { not_before, not_after, now } = certificate;
    if now >= not_after {
        return Some(
            Finding::problem("certificate-expired", format!("This gateway's certificate ended at {not_after}."))
                .why("With an expired one the gateway may only ask for a new one, which a person approves.")
                .next("Ops: thinlane site renew SITE; then restart the agent, which asks again."),
        );
    }
    let left = now.until(not_after);
    (left < Span::from_millis(not_before.until(not_after).as_millis() / NEAR_END)).then(|| {
        Finding::warning("certificate-near-end", format!("This gateway's certificate ends in {} days, at {not_after}.", days(now, not_after)))
            .why("It renews itself when a third of its life is left; that has not worked, so the gateway was cut off, or is refused.")
            .next("See that the channel comes up (the other findings say what keeps it), and leave the agent running for an hour.")
    })
}

fn days(from: Wall, to: Wall) -> u64 {
    from.until(to).as_secs() / 86_400
}

fn lan_interface(lan: &Lan) -> Option<Finding> {
    let devices = "The devices behind it cannot be reached by any lane.";
    let Some(interface) = &lan.interface else {
        return Some(
            Finding::problem("lan-missing", format!("There is no LAN interface {}.", lan.name))
                .why(devices)
                .next("Compare the name with `ip link`, and mend `lan` in agent.toml (or --lan)."),
        );
    };
    if !interface.up || !interface.running {
        let how = if interface.up {
            "has no link: nothing is plugged in or switched on at its other end"
        } else {
            "is switched off"
        };
        return Some(
            Finding::problem("lan-down", format!("The LAN interface {} {how}.", lan.name))
                .why(devices)
                .next(format!("Check cable, switch and power; then: ip link set {} up", lan.name)),
        );
    }
    if interface.addresses.is_empty() {
        return Some(
            Finding::problem("lan-no-address", format!("The LAN interface {} has no IPv4 address.", lan.name))
                .why("The gateway speaks to the devices with its own LAN address; without one there is no way to them.")
                .next(format!("Give it one in the devices' network: ip addr add 192.168.1.1/24 dev {} (and in the router's configuration).", lan.name)),
        );
    }
    (lan.forwards == Some(false)).then(|| forwarding_off(&lan.name))
}

fn forwarding_off(name: &str) -> Finding {
    Finding::problem("forwarding-off", format!("Forwarding was switched off on {name} after the agent had switched it on."))
        .why("Packets of a lane are no longer handed on between the overlay and the LAN.")
        .next(format!("Find what did it (sysctl.conf, a firewall script), then: sysctl -w net.ipv4.conf.{name}.forwarding=1, or restart the agent."))
}

fn kernel(facts: &Facts, findings: &mut Vec<Finding>) {
    let Kernel {
        lacks, conntrack, tun, wireguard, flowtables, fast_paths, foreign, foreign_unread, legacy_rules, ..
    } = &facts.kernel;
    let feature = |what: String, next: &str| {
        Finding::problem("kernel-feature-missing", sentence(&what))
            .why("Lanes are made of nf_tables, conntrack and a TUN device; without them the agent does not start.")
            .next(next)
    };
    if let Some(why) = lacks
        .as_ref()
        .filter(|_| facts.privilege.as_ref().is_none_or(|missing| !missing.what.contains("CAP_NET_ADMIN")))
    {
        findings.push(feature(
            format!("This kernel lacks something that lanes need: {why}"),
            "Install the modules (OpenWrt: opkg install kmod-nft-core kmod-nft-nat kmod-nf-conntrack-netlink kmod-nfnetlink-log; Debian: the full kernel package).",
        ));
    }
    if !conntrack && lacks.is_none() && facts.privilege.is_none() {
        findings.push(feature(
            "This kernel does not show its connections".into(),
            "Load it: modprobe nf_conntrack_netlink (OpenWrt: opkg install kmod-nf-conntrack-netlink).",
        ));
    }
    if !tun && facts.privilege.is_none() && facts.status().is_none_or(|status| status.backend != "kernel") {
        findings.push(feature(
            "There is no /dev/net/tun".into(),
            "Load it: modprobe tun (OpenWrt: opkg install kmod-tun). Where the kernel has WireGuard, --backend kernel does without.",
        ));
    }
    if !wireguard && facts.status().is_none_or(|status| status.backend != "kernel") {
        findings.push(
            Finding::note("no-wireguard-module", "The kernel has no WireGuard module: the agent's own WireGuard carries the lanes.")
                .why(COST)
                .next("Nothing need be done for field protocols; for bulk transfers install the module (OpenWrt: opkg install kmod-wireguard)."),
        );
    }
    offload(facts, flowtables, fast_paths, findings);
    findings.extend(foreign.iter().filter_map(firewall));
    if let Some(why) = foreign_unread.as_ref().filter(|_| facts.privilege.is_none()) {
        findings.push(unread(format!("The firewall tables of others could not be read: {why}")));
    }
    if *legacy_rules {
        findings.push(
            Finding::note("legacy-firewall", "Rules of the old iptables are in force, which this program cannot read.")
                .why("If one of them drops what is forwarded from tl0, lanes open and nothing passes.")
                .next("Look yourself: iptables-legacy -L FORWARD -v -n"),
        );
    }
    if facts.kernel.lanes_do_not_forward {
        findings.push(forwarding_off(INTERFACE));
    }
}

fn offload(facts: &Facts, flowtables: &[thinlane_nft::Flowtable], fast_paths: &[&str], findings: &mut Vec<Finding>) {
    let lan: Vec<&str> = facts.lan.iter().map(|lan| lan.name.as_str()).collect();
    let touches = |device: &String| {
        device == INTERFACE
            || device.starts_with("tl-")
            || lan.contains(&device.as_str())
            || facts.kernel.lan_parts.contains(device)
    };
    for table in flowtables.iter().filter(|table| lan.is_empty() || table.devices.iter().any(touches)) {
        findings.push(
            Finding::problem(
                "flow-offload",
                format!("Flow offload is on: flowtable {} of table {} takes connections of {} past every rule.", table.name, table.table, table.devices.join(", ")),
            )
            .why("A running connection would go on after its lane's end; the agent opens no lanes while it is so.")
            .next("Switch it off (OpenWrt: uci set firewall.@defaults[0].flow_offloading=0, also flow_offloading_hw; uci commit; fw4 reload), or leave the LAN out of it."),
        );
    }
    if !fast_paths.is_empty() {
        findings.push(
            Finding::warning("vendor-offload", format!("A vendor's fast path is loaded: {}.", fast_paths.join(", ")))
                .why("If it takes connections of the LAN, it carries them past the rules, also after a lane's end.")
                .next("Switch it off for the LAN in the router's own settings (hardware NAT, acceleration), or unload the module."),
        );
    }
}

fn disk(disk: &Disk) -> Vec<Finding> {
    let path = disk.path.display();
    let kept = if disk.run {
        "Open lanes are written there, to survive a restart of the agent."
    } else {
        "A renewed certificate and the clock floor are written there."
    };
    let full = |free: u64| free < FULL;
    let mut findings = Vec::new();
    match (&disk.unwritable, disk.free) {
        (Some(why), _) if why.to_lowercase().contains("read-only") => findings.push(
            Finding::problem("disk-read-only", format!("{path} is read-only."))
                .why(kept)
                .next("Mount it writable, or name another directory with --dir and --run-dir."),
        ),
        (Some(why), free) if why.contains("No space") || free.is_some_and(full) => findings.push(disk_full(disk, kept)),
        (Some(why), _) => findings.push(
            Finding::problem("disk-not-writable", sentence(&format!("{path} cannot be written to: {why}")))
                .why(kept)
                .next("Run it as the user that the agent runs as, or mend owner and rights of the directory."),
        ),
        (None, Some(free)) if full(free) => findings.push(disk_full(disk, kept)),
        (None, Some(free)) if free < NEARLY_FULL => findings.push(
            Finding::warning("disk-nearly-full", format!("{path} has only {} kB left.", free / 1024))
                .why(kept)
                .next("Make room: old logs, packages and backups first."),
        ),
        (None, _) => {}
    }
    if disk.run && !disk.in_memory {
        findings.push(
            Finding::note("run-dir-on-disk", format!("The run directory {path} is not in memory."))
                .why("The keys of open lanes are kept there; in memory they vanish with the power.")
                .next("Use a directory on a tmpfs, as /run is: --run-dir /run/thinlane"),
        );
    }
    findings
}

fn disk_full(disk: &Disk, kept: &str) -> Finding {
    let left = disk.free.map(|free| format!(" ({} kB left)", free / 1024)).unwrap_or_default();
    Finding::problem("disk-full", format!("The disk is full: {} takes nothing any more{left}.", disk.path.display()))
        .why(kept)
        .next("Make room: old logs, packages and backups first; df shows which file system it is.")
}

#[cfg(test)]
mod tests;
