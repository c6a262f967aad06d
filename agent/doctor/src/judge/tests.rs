//! What is expected of `judge`, as tests.

use std::net::Ipv4Addr;

use super::*;
use crate::facts::Way;
use crate::finding::Severity;

fn interface(name: &str, address: [u8; 4], length: u8) -> Interface {
    Interface {
        name: name.into(),
        up: true,
        running: true,
        addresses: vec![(Ipv4Addr::from(address), length)],
        addresses_v6: Vec::new(),
        mtu: Some(1500),
    }
}

fn answers(offset_ms: i64, validity: Validity) -> Contact {
    Contact::Answers { version: "0.1.0".into(), offset_ms, round_trip_ms: 30, validity }
}

fn passes(largest: u16, fragments: Option<bool>) -> RelayFact {
    RelayFact::Answers {
        relay: "192.0.2.1:7443".parse().expect("an address"),
        round_trip_ms: 30,
        seen_from: "203.0.113.20:4711".parse().expect("an address"),
        largest,
        tried: 1500,
        fragments,
    }
}

/// A machine on which all is well.
fn well() -> NetworkFacts {
    NetworkFacts {
        controller: "hq.example:7443".parse().expect("an endpoint"),
        default_route: true,
        interfaces: vec![interface("wwan0", [100, 64, 1, 2], 24), interface("lan", [192, 168, 1, 1], 24)],
        name: Name::Known(vec![[192, 0, 2, 1].into()]),
        way: Some(Way { interface: Some("wwan0".into()), source: [100, 64, 1, 2].into(), mtu: Some(1500) }),
        contact: answers(20, Validity::Good),
        relay: passes(1500, None),
        pools: vec!["198.18.0.0/16".parse().expect("a pool"), "198.19.0.0/16".parse().expect("a pool")],
    }
}

fn ours(interface: &Interface) -> bool {
    interface.name == "tl0"
}

fn found(facts: &NetworkFacts, place: Place) -> Vec<(Severity, &'static str)> {
    network_findings(facts, place, &ours).into_iter().map(|finding| (finding.severity, finding.code)).collect()
}

use Severity::{Note, Problem, Warning};

#[test]
fn where_all_is_well_nothing_is_said() {
    assert_eq!(found(&well(), Place::Gateway), []);
    assert_eq!(found(&well(), Place::Laptop), []);
}

#[test]
fn the_first_thing_that_is_missing_is_named_and_what_follows_from_it_is_not() {
    let cut = NetworkFacts {
        way: None,
        contact: Contact::NotTried,
        relay: RelayFact::NotTried("the channel is not up".into()),
        ..well()
    };
    let unknown = Name::Unknown { why: "no name server answered".into(), servers: vec!["10.0.0.1".into()] };
    let no_route = NetworkFacts { default_route: false, name: unknown.clone(), ..cut.clone() };
    assert_eq!(found(&no_route, Place::Gateway), [(Problem, "no-default-route"), (Note, "udp-not-tested")]);
    let no_dns = NetworkFacts { name: unknown, ..cut.clone() };
    assert_eq!(found(&no_dns, Place::Gateway), [(Problem, "no-dns"), (Note, "udp-not-tested")]);
    assert_eq!(found(&cut, Place::Gateway), [(Problem, "no-route"), (Note, "udp-not-tested")]);
}

#[test]
fn a_private_network_without_a_default_route_is_fine_as_long_as_it_leads_to_the_controller() {
    assert_eq!(found(&NetworkFacts { default_route: false, ..well() }, Place::Gateway), []);
}

#[test]
fn how_far_the_connection_gets_is_told_apart() {
    for (contact, code) in [
        (Contact::Unreachable("no answer".into()), "controller-unreachable"),
        (Contact::Refused, "controller-refused"),
        (Contact::NotTls("it closed".into()), "controller-not-tls"),
        (Contact::Stranger, "controller-not-trusted"),
        (Contact::OtherName("hq.example".into()), "controller-other-name"),
        (Contact::Odd("503".into()), "controller-odd"),
        (answers(0, Validity::Expired), "controller-certificate-expired"),
    ] {
        assert_eq!(found(&NetworkFacts { contact, ..well() }, Place::Gateway), [(Problem, code)]);
    }
}

#[test]
fn a_clock_is_wrong_where_it_hurts_and_says_by_how_much() {
    let at = |offset, validity| NetworkFacts { contact: answers(offset, validity), ..well() };
    assert_eq!(found(&at(50_000, Validity::Good), Place::Gateway), []);
    assert_eq!(found(&at(50_000, Validity::Good), Place::Laptop), [(Warning, "wrong-clock")]);
    assert_eq!(found(&at(-90_000, Validity::Good), Place::Gateway), [(Warning, "wrong-clock")]);
    let years = -20 * 365 * 86_400_000;
    assert_eq!(found(&at(years, Validity::NotYet), Place::Laptop), [(Problem, "wrong-clock")]);
    assert_eq!(found(&at(years, Validity::NotYet), Place::Gateway), [(Warning, "wrong-clock")]);
    assert_eq!(found(&at(-years, Validity::Expired), Place::Laptop), [(Problem, "wrong-clock")]);
    for (offset, words) in [(-90_000, "90 s behind"), (600_000, "10 min ahead of"), (years, "7300 days behind")] {
        let findings = network_findings(&at(offset, Validity::Good), Place::Laptop, &ours);
        assert!(findings[0].message.contains(words), "{}", findings[0].message);
    }
}

#[test]
fn blocked_udp_is_told_from_a_relay_that_is_not_there() {
    let relay = "192.0.2.1:7443".parse().expect("an address");
    for (fact, code) in [
        (RelayFact::Silent { relay, sent: 30 }, "udp-blocked"),
        (RelayFact::NoWay { relay, why: "network is unreachable".into() }, "udp-blocked"),
        (RelayFact::Refused(relay), "relay-refused"),
        (RelayFact::NoName("relay.example:7443".parse().expect("an endpoint")), "no-dns"),
    ] {
        assert_eq!(found(&NetworkFacts { relay: fact, ..well() }, Place::Gateway), [(Problem, code)]);
    }
}

#[test]
fn a_narrow_way_is_a_problem_only_where_fragments_are_lost() {
    let at = |largest, fragments| NetworkFacts { relay: passes(largest, fragments), ..well() };
    assert_eq!(found(&at(1480, None), Place::Gateway), []);
    assert_eq!(found(&at(1400, Some(true)), Place::Gateway), [(Warning, "mtu-too-small")]);
    assert_eq!(found(&at(1400, Some(false)), Place::Gateway), [(Problem, "mtu-too-small")]);
    assert_eq!(found(&at(0, Some(false)), Place::Gateway), [(Problem, "mtu-too-small")]);
}

#[test]
fn addresses_of_the_overlay_on_lan_or_wan_are_found_and_our_own_interface_is_not() {
    let mut facts = well();
    facts.interfaces.push(interface("tl0", [198, 19, 0, 9], 32));
    assert_eq!(found(&facts, Place::Gateway), []);
    facts.interfaces[1] = interface("lan", [198, 18, 7, 1], 24);
    assert_eq!(found(&facts, Place::Gateway), [(Problem, "pool-clash")]);
    facts.interfaces[1] = interface("lan", [100, 64, 0, 1], 16);
    assert_eq!(found(&facts, Place::Gateway), [(Warning, "networks-overlap")]);
}

#[test]
fn every_finding_says_why_and_what_next() {
    let facts = NetworkFacts {
        contact: Contact::Stranger,
        relay: RelayFact::Silent { relay: "192.0.2.1:1".parse().expect("an address"), sent: 3 },
        interfaces: vec![interface("a", [198, 18, 7, 1], 24), interface("b", [198, 18, 7, 2], 24)],
        ..well()
    };
    let findings = network_findings(&facts, Place::Laptop, &ours);
    assert_eq!(findings.len(), 5, "{findings:#?}");
    for finding in findings {
        assert!(!finding.why.is_empty() && !finding.next.is_empty() && finding.message.ends_with('.'), "{finding:?}");
    }
}
