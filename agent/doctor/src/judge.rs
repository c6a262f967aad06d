//! What the facts mean, for whoever stands in front of the machine.

use crate::facts::{Contact, Name, NetworkFacts, RelayFact, Validity};
use crate::finding::Finding;
use crate::interfaces::Interface;
use crate::relay::{FULL_V4, FULL_V6};

/// On which machine this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Certificates are judged by a clock of the agent's own; the machine forwards.
    Gateway,
    /// One-time codes and certificates go by the machine's clock.
    Laptop,
}

/// A gateway's clock may be off by so much before logs become hard to read, in milliseconds.
const GATEWAY_CLOCK: i64 = 60_000;
/// One-time codes fail beyond this.
const LAPTOP_CLOCK: i64 = 25_000;

impl Place {
    fn word(self) -> &'static str {
        match self {
            Place::Gateway => "gateway",
            Place::Laptop => "machine",
        }
    }
}

/// What is wrong with the network. `ours` says which interfaces are the product's own.
pub fn network_findings(facts: &NetworkFacts, place: Place, ours: &dyn Fn(&Interface) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let out = facts.way.is_some();
    if !facts.default_route && !out {
        findings.push(no_default_route(facts, place, ours));
    } else if let Name::Unknown { why, servers } = &facts.name {
        findings.push(no_dns(facts, why, servers));
    } else if !out {
        findings.push(
            Finding::problem("no-route", format!("No route of this {} leads to {}.", place.word(), facts.controller))
                .why("Without it neither the controller nor a lane can be reached.")
                .next("Look at the routes: ip route; a VPN or a private APN may need one of its own."),
        );
    }
    findings.extend(contact(facts, place));
    findings.extend(clock(facts, place));
    findings.extend(relay(facts, place));
    findings.extend(clashes(facts, ours));
    findings
}

fn no_default_route(facts: &NetworkFacts, place: Place, ours: &dyn Fn(&Interface) -> bool) -> Finding {
    let dead: Vec<&str> = facts
        .interfaces
        .iter()
        .filter(|interface| !ours(interface) && (!interface.up || !interface.running))
        .map(|interface| interface.name.as_str())
        .collect();
    let hint = match dead.as_slice() {
        [] => String::new(),
        names => format!(" Without a link now: {}.", names.join(", ")),
    };
    let next = match place {
        Place::Gateway => {
            "Check modem, SIM, antenna and APN, or the uplink's cable and DHCP; ip route must show a line that begins with `default`."
        }
        Place::Laptop => "Connect to a network (cable, Wi-Fi, phone), then run this again.",
    };
    Finding::problem(
        "no-default-route",
        format!(
            "This {} has no way out: there is no default route, and none to {}.{hint}",
            place.word(),
            facts.controller
        ),
    )
    .why("Nothing outside can be reached, the controller least of all.")
    .next(next)
}

fn no_dns(facts: &NetworkFacts, why: &str, servers: &[String]) -> Finding {
    let asked = match servers {
        [] => "/etc/resolv.conf names no name server".to_owned(),
        servers => format!("asked: {}", servers.join(", ")),
    };
    Finding::problem(
        "no-dns",
        format!("The name of the controller, {}, cannot be looked up: {why} ({asked}).", facts.controller.host()),
    )
    .why("The controller was given as a name; without a name server nobody knows its address.")
    .next(format!(
        "Set a name server that works from here (from the provider or the APN), then try: getent hosts {}",
        facts.controller.host()
    ))
}

fn contact(facts: &NetworkFacts, place: Place) -> Option<Finding> {
    let to = &facts.controller;
    let firewall = match place {
        Place::Gateway => "a firewall, or a private APN that does not let",
        Place::Laptop => "a firewall or proxy of this network that does not let",
    };
    Some(match &facts.contact {
        Contact::NotTried | Contact::Answers { validity: Validity::Good, .. } => return None,
        Contact::Unreachable(why) => {
            Finding::problem("controller-unreachable", format!("The controller at {to} cannot be reached: {why}."))
                .why("Lanes can only be opened while the controller is in reach; open ones end at their deadline.")
                .next(format!(
                    "Nothing refuses, nothing answers: look for {firewall} TCP to port {} pass, and whether the controller's host is up.",
                    to.port()
                ))
        }
        Contact::Refused => {
            Finding::problem("controller-refused", format!("The host of the controller answers, but refuses TCP to {to}."))
                .why("The way there works; the controller itself does not run, or on another port, or a firewall rejects.")
                .next("Ask whoever runs the controller whether it is up, and compare the port.")
        }
        Contact::NotTls(why) => Finding::problem(
            "controller-not-tls",
            format!("Something answers at {to}, but it is not the controller: TLS does not come about ({why})."),
        )
        .why("A captive portal, a proxy or another service stands in the way.")
        .next("Log in to the network's portal, or have TLS to this port let through untouched; then run this again."),
        Contact::Stranger => Finding::problem(
            "controller-not-trusted",
            format!("What answers at {to} has a certificate of another authority than the controller's."),
        )
        .why("Either the controller was set up anew, or something intercepts TLS on the way; nothing was told to it.")
        .next(match place {
            Place::Gateway => "Have TLS to the controller exempted from inspection; only if it was set up anew: thinlane-agent enroll --force.",
            Place::Laptop => "Have TLS to the controller exempted from inspection; only if it was set up anew: thinlane login URL --ca-fingerprint sha256:HEX",
        }),
        Contact::OtherName(name) => Finding::problem(
            "controller-other-name",
            format!("The controller at {to} does not call itself {name}: its certificate names other hosts."),
        )
        .why("A certificate is good for the names in it only.")
        .next("Use the name that the controller was told with --public, or have that name added in controller.toml."),
        Contact::Odd(why) => Finding::problem("controller-odd", format!("The controller at {to} answers oddly: {why}."))
            .why("It is the right one by its certificate; it may be overloaded, stopping, or of another version.")
            .next("Run this again in a minute; if it stays, tell whoever runs the controller."),
        Contact::Answers { validity: Validity::Expired, offset_ms, .. } if offset_ms.abs() < 86_400_000 => {
            Finding::problem("controller-certificate-expired", format!("The certificate of the controller at {to} has expired."))
                .why("Nobody believes it any more, and this machine's clock is right.")
                .next("Tell whoever runs the controller: it renews its own certificate when it is running.")
        }
        // The clock's fault, and said there.
        Contact::Answers { .. } => return None,
    })
}

fn clock(facts: &NetworkFacts, place: Place) -> Option<Finding> {
    let Contact::Answers { offset_ms, validity, .. } = &facts.contact else { return None };
    let (limit, why, next) = match place {
        Place::Gateway => (
            GATEWAY_CLOCK,
            "Lanes do not go by it, they run on the time since the start; but the router's own logs tell wrong times.",
            "Switch on NTP (OpenWrt: uci set system.ntp.enabled=1; else timedatectl set-ntp true), or: date -s",
        ),
        Place::Laptop => {
            (LAPTOP_CLOCK, "One-time codes go by the clock and are refused.", "Set the clock: timedatectl set-ntp true")
        }
    };
    if offset_ms.abs() <= limit {
        return None;
    }
    let way = if *offset_ms < 0 { "behind" } else { "ahead of" };
    let message = format!("This {}'s clock is {} {way} the controller's.", place.word(), length(*offset_ms));
    Some(if *validity != Validity::Good && place == Place::Laptop {
        Finding::problem("wrong-clock", message)
            .why("By this clock the controller's certificate is not valid, and so every command refuses it.")
            .next(next)
    } else {
        Finding::warning("wrong-clock", message).why(why).next(next)
    })
}

fn length(ms: i64) -> String {
    match ms.unsigned_abs() / 1000 {
        secs @ 0..=119 => format!("{secs} s"),
        secs @ 120..=7199 => format!("{} min", secs / 60),
        secs @ 7200..=172_799 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

fn relay(facts: &NetworkFacts, place: Place) -> Vec<Finding> {
    let lanes = "Lanes are WireGuard over UDP: without it nobody gets a lane here.";
    match &facts.relay {
        RelayFact::NotTried(why) => vec![
            Finding::note("udp-not-tested", format!("Whether UDP reaches the relay was not tested: {why}."))
                .why("The controller gives the ticket for that test, to those it knows.")
                .next(match place {
                    Place::Gateway => "Start the agent, let its channel come up, then run this again.",
                    Place::Laptop => "Log in (thinlane login), then run this again.",
                }),
        ],
        RelayFact::NoName(relay) => vec![
            Finding::problem("no-dns", format!("The name of the relay, {}, cannot be looked up.", relay.host()))
                .why(lanes)
                .next("Set a name server that knows it, or have the controller hand out an address (relay_public)."),
        ],
        RelayFact::NoWay { relay, why } => vec![
            Finding::problem("udp-blocked", format!("Nothing can be sent over UDP to the relay at {relay}: {why}."))
                .why(lanes)
                .next(format!("Look at the routes (ip route get {}) and at this machine's own firewall.", relay.ip())),
        ],
        RelayFact::Refused(relay) => vec![
            Finding::problem("relay-refused", format!("The host of the relay answers, but nobody takes UDP at {relay}."))
                .why(lanes)
                .next("Ask whoever runs the controller: the relay is not running, or --relay-public names another port."),
        ],
        RelayFact::Silent { relay, sent } => vec![
            Finding::problem(
                "udp-blocked",
                format!("UDP is blocked: {sent} probes went to the relay at {relay}, no answer came back."),
            )
            .why(lanes)
            .next(format!(
                "Have UDP to {} port {} let through, outbound, with its answers: by the site's firewall, the APN or the provider.",
                relay.ip(),
                relay.port()
            )),
        ],
        RelayFact::Answers { relay, largest, fragments, .. } => {
            let full = if relay.is_ipv4() { FULL_V4 } else { FULL_V6 };
            mtu(*largest, full, *fragments, facts).into_iter().collect()
        }
    }
}

fn mtu(largest: u16, full: u16, fragments: Option<bool>, facts: &NetworkFacts) -> Option<Finding> {
    if largest >= full {
        return None;
    }
    let size = match largest {
        0 => "not even packets of 1280 bytes pass whole".to_owned(),
        largest => format!("packets of {largest} bytes pass whole, larger ones do not"),
    };
    let local = facts.way.as_ref().and_then(|way| Some((way.interface.as_ref()?, way.mtu?)));
    let culprit = match local {
        Some((name, mtu)) if mtu < u32::from(full) => format!(" ({name} itself has an MTU of {mtu})"),
        _ => String::new(),
    };
    let message = format!("The way to the relay is narrow: {size}{culprit}; a lane's largest need {full}.");
    let code = "mtu-too-small";
    Some(if fragments == Some(true) {
        Finding::warning(code, message)
            .why("Full packets go in two fragments, which works here, but is slower and suffers twice from loss.")
            .next("Raise the MTU of the uplink if it is set too low; where the carrier's is that small, nothing need be done.")
    } else {
        Finding::problem(code, message)
            .why("Fragments do not pass either: small exchanges work, and large transfers hang.")
            .next("Raise the uplink's MTU, or have fragments and ICMP `fragmentation needed` let through.")
    })
}

/// Networks of this machine that the overlay uses, and networks that are here twice.
fn clashes(facts: &NetworkFacts, ours: &dyn Fn(&Interface) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let theirs: Vec<&Interface> = facts.interfaces.iter().filter(|interface| !ours(interface)).collect();
    for interface in &theirs {
        for network in interface.networks() {
            let Some(pool) = facts.pools.iter().find(|pool| pool.overlaps(&network)) else { continue };
            findings.push(
                Finding::problem(
                    "pool-clash",
                    format!("{} is in {network}, and the overlay gives out addresses of {pool}.", interface.name),
                )
                .why("Packets of a lane and of that network would take each other's way.")
                .next(format!(
                    "Renumber {}, or have the controller use another pool ([pools] in controller.toml).",
                    interface.name
                )),
            );
        }
    }
    for (at, one) in theirs.iter().enumerate() {
        for other in &theirs[at + 1..] {
            let same = one.networks().find(|network| {
                network.length < 32 && other.networks().any(|another| another.length < 32 && another.overlaps(network))
            });
            if let Some(network) = same {
                findings.push(
                    Finding::warning(
                        "networks-overlap",
                        format!("{} and {} are both in {network}.", one.name, other.name),
                    )
                    .why("Packets to an address of it leave by one of the two only: devices behind the other are out of reach.")
                    .next(format!("Renumber one of them; ip route get ADDRESS shows which of {} and {} wins.", one.name, other.name)),
                );
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests;
