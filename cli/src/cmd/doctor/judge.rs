//! What the facts mean for the engineer at this machine. Asks nobody.

use thinlane_doctor::{Contact, Finding, Interface, Place, network_findings};
use thinlane_model::Span;

use super::Facts;
use super::gather::was_probed;
use crate::failure::{Exit, Failure};
use crate::out::text;

/// A log-in that ends sooner than this should be renewed before work begins.
const ENDS_SOON: Span = Span::from_secs(1800);

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    files(facts, &mut findings);
    if let Some(failure) = &facts.no_controller {
        let code = if failure.exit == Exit::Verification { "no-ca-pinned" } else { "no-controller" };
        findings.push(
            told(Finding::problem(code, sentence(&failure.message)), failure)
                .why("Everything begins with a log-in, which also pins whom to trust."),
        );
    }
    if let Some(network) = &facts.network {
        let told = network_findings(network, Place::Laptop, &is_ours);
        // Without a log-in there is no ticket: that is said once.
        let quiet =
            |finding: &Finding| finding.code == "udp-not-tested" && !was_probed(network) && !is_logged_in(facts);
        findings.extend(told.into_iter().filter(|finding| !quiet(finding)));
    }
    log_in(facts, &mut findings);
    versions(facts, &mut findings);
    if let Some(failure) = &facts.no_privilege {
        findings.push(
            told(Finding::warning("no-privilege", sentence(&failure.message)), failure)
                .why("`connect` and `up` make a network interface; `connect --forward` and a stock WireGuard client need none from us."),
        );
    }
    lanes(facts, &mut findings);
    findings
}

fn is_ours(interface: &Interface) -> bool {
    interface.name.starts_with("tl-") || interface.name == "tl0"
}

fn is_logged_in(facts: &Facts) -> bool {
    matches!(facts.who, Some(Ok(_)))
}

fn told(finding: Finding, failure: &Failure) -> Finding {
    match &failure.next {
        Some(next) => finding.next(next.clone()),
        None => finding,
    }
}

/// As a sentence: messages begin small and end without a stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches(['.', ' ']).chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

fn files(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some((path, advice)) = &facts.exposed {
        findings.push(
            Finding::warning("files-exposed", format!("Others on this machine can look into {path}."))
                .why("Whoever reads your token is you, until it ends.")
                .next(advice.clone()),
        );
    }
    if let Some(why) = &facts.unwritable {
        let (code, next) = match why.contains("No space") {
            true => ("disk-full", "Make room; df shows which file system is full."),
            false => ("disk-not-writable", "Mend owner and rights of the directory, or name another one with --home."),
        };
        findings.push(
            Finding::problem(
                code,
                sentence(&format!("Nothing can be written where your log-in and lanes are kept: {why}")),
            )
            .why("A lane that cannot be written down is not opened, so that none is ever forgotten.")
            .next(next),
        );
    }
}

fn log_in(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.who {
        None => {}
        Some(Ok(me)) => {
            let left = facts.now.until(me.token_expires_at);
            if left < ENDS_SOON {
                findings.push(
                    Finding::note("log-in-ends-soon", format!("Your log-in ends in {} minutes.", left.as_secs() / 60))
                        .why("Open lanes go on without it, but nothing new can be asked for.")
                        .next("thinlane login"),
                );
            }
        }
        // What keeps us from the controller is a finding of its own.
        Some(Err(failure)) if matches!(failure.exit, Exit::Unreachable | Exit::Verification) => {}
        Some(Err(failure)) => {
            let code = if failure.code.is_none() { "not-logged-in" } else { "log-in-refused" };
            findings.push(
                told(Finding::problem(code, sentence(&failure.message)), failure)
                    .why("Without a log-in nothing can be asked for, and the way to the relay cannot be tested."),
            );
        }
    }
}

fn versions(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(Contact::Answers { version, .. }) = facts.network.as_ref().map(|network| &network.contact) else { return };
    let ours = env!("CARGO_PKG_VERSION");
    if version != ours {
        findings.push(
            Finding::note("versions-differ", format!("This program is version {ours}, the controller {version}."))
                .why("They understand each other one version apart; a newer one may offer more.")
                .next("Upgrade the older of the two when it suits."),
        );
    }
}

/// How to end these lanes and no other; an interface that nothing else is known of goes with the next call.
fn take_down(left_over: &[String]) -> String {
    let named = left_over.iter().filter(|name| name.starts_with("ses_") || name.starts_with("req_"));
    let calls: Vec<String> = named.map(|name| format!("thinlane down {name}")).collect();
    if calls.is_empty() {
        "sudo thinlane connect removes them before it opens a lane".to_owned()
    } else {
        calls.join("; ")
    }
}

fn lanes(facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.left_over.is_empty() {
        findings.push(
            Finding::warning(
                "lanes-left-over",
                format!("Lanes are left over from killed processes: {}.", text::joined(&facts.left_over)),
            )
            .why("Their sessions are open until their deadline, unless the next connect or up, which removes them, comes first.")
            .next(take_down(&facts.left_over)),
        );
    }
    if let Some((address, interface)) = &facts.taken {
        findings.push(
            Finding::warning("overlay-route-taken", format!("{address}, an address of the overlay, is routed into {interface}."))
                .why("Another VPN claims the overlay's addresses; a lane takes its asset's back, but the other's firewall may still interfere.")
                .next(format!("See what made that route: ip route get {address}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use thinlane_doctor::{Name, NetworkFacts, RelayFact, Severity, Validity, Way};
    use thinlane_model::Wall;
    use thinlane_wire::api::{ErrorBody, ErrorCode, Schema, WhoAmI};

    use super::*;

    const NOW: Wall = Wall::from_millis(1_800_000_000_000);

    fn me(left: Span) -> WhoAmI {
        WhoAmI {
            schema: Schema,
            user: "erik".parse().expect("a login"),
            name: "Erik".into(),
            org: None,
            roles: Default::default(),
            token_expires_at: NOW + left,
            controller_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn well() -> Facts {
        Facts {
            now: NOW,
            exposed: None,
            unwritable: None,
            no_controller: None,
            network: Some(NetworkFacts {
                controller: "hq.example:7443".parse().expect("an endpoint"),
                default_route: true,
                interfaces: Vec::new(),
                name: Name::Known(vec![[192, 0, 2, 1].into()]),
                way: Some(Way { interface: None, source: [10, 0, 0, 2].into(), mtu: None }),
                contact: Contact::Answers {
                    version: env!("CARGO_PKG_VERSION").into(),
                    offset_ms: 0,
                    round_trip_ms: 9,
                    validity: Validity::Good,
                },
                relay: RelayFact::Answers {
                    relay: "192.0.2.1:7443".parse().expect("an address"),
                    round_trip_ms: 9,
                    seen_from: "203.0.113.9:99".parse().expect("an address"),
                    largest: 1500,
                    tried: 1500,
                    fragments: None,
                },
                pools: Vec::new(),
            }),
            who: Some(Ok(me(Span::from_secs(36_000)))),
            no_privilege: None,
            lanes: 0,
            left_over: Vec::new(),
            taken: None,
        }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Vec<(Severity, &'static str)> {
        let mut facts = well();
        change(&mut facts);
        let found = findings(&facts);
        for finding in &found {
            assert!(!finding.why.is_empty() && !finding.next.is_empty(), "{finding:?}");
            assert!(finding.message.ends_with('.'), "{finding:?}");
        }
        found.into_iter().map(|finding| (finding.severity, finding.code)).collect()
    }

    use Severity::{Note, Problem, Warning};

    #[test]
    fn a_machine_on_which_all_is_well_is_told_nothing() {
        assert_eq!(with(|_| ()), []);
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_own_name() {
        let failed = |text: &str| Failure::failed(text).next("do it");
        assert_eq!(with(|facts| facts.exposed = Some(("x".into(), "chmod".into()))), [(Warning, "files-exposed")]);
        assert_eq!(with(|facts| facts.unwritable = Some("No space left".into())), [(Problem, "disk-full")]);
        assert_eq!(with(|facts| facts.unwritable = Some("denied".into())), [(Problem, "disk-not-writable")]);
        assert_eq!(with(|facts| facts.no_privilege = Some(failed("x"))), [(Warning, "no-privilege")]);
        assert_eq!(with(|facts| facts.left_over = vec!["ses_x".into()]), [(Warning, "lanes-left-over")]);
        // Not a word that would close the lanes that are in use as well.
        let left = ["ses_x", "req_y", "tl-z"].map(str::to_owned);
        assert_eq!(take_down(&left), "thinlane down ses_x; thinlane down req_y");
        assert!(!take_down(&left[2..]).contains("down"));
        let taken = with(|facts| facts.taken = Some(([198, 18, 0, 1].into(), "tun0".into())));
        assert_eq!(taken, [(Warning, "overlay-route-taken")]);
        let alone = with(|facts| {
            (facts.network, facts.who) = (None, None);
            facts.no_controller = Some(failed("no controller is known yet"));
        });
        assert_eq!(alone, [(Problem, "no-controller")]);
    }

    #[test]
    fn a_log_in_that_is_missing_refused_or_about_to_end_is_told_apart() {
        let missing = || Failure::new(Exit::Denied, "you are not logged in").next("thinlane login");
        let not_tried = |facts: &mut Facts| {
            let network = facts.network.as_mut().expect("it is there");
            network.relay = RelayFact::NotTried("you are not logged in".into());
        };
        let none = with(|facts| {
            facts.who = Some(Err(missing()));
            not_tried(facts);
        });
        assert_eq!(none, [(Problem, "not-logged-in")], "that the relay was not tested follows from it");
        let refused: Failure = ErrorBody::new(ErrorCode::Unauthenticated, "the token has ended").into();
        assert_eq!(with(|facts| facts.who = Some(Err(refused))), [(Problem, "log-in-refused")]);
        let soon = with(|facts| facts.who = Some(Ok(me(Span::from_secs(600)))));
        assert_eq!(soon, [(Note, "log-in-ends-soon")]);
        let cut = Failure::new(Exit::Unreachable, "no answer");
        assert_eq!(with(|facts| facts.who = Some(Err(cut))), [], "said by how far the connection got");
        assert_eq!(with(not_tried), [(Note, "udp-not-tested")]);
    }

    #[test]
    fn another_version_of_the_controller_is_worth_a_note() {
        let other = with(|facts| {
            if let Some(NetworkFacts { contact: Contact::Answers { version, .. }, .. }) = &mut facts.network {
                *version = "9.9.9".into();
            }
        });
        assert_eq!(other, [(Note, "versions-differ")]);
    }
}
