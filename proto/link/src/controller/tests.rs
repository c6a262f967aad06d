//! What is expected of `controller`, as tests.

use thinlane_model::{BootId, Span, Wall};
use thinlane_wire::SiteStatus;

use super::*;
use crate::pair::{Pair, desired, link_config, session};

fn hello(protocol: u32, applied: Applied) -> AgentFrame {
    AgentFrame {
        boot: Boot(5),
        message: FromAgent::Hello(Hello {
            protocol,
            capabilities: vec![],
            agent_version: "9".into(),
            boot: BootId([1; 16]),
            connection: 1,
            applied,
            backend: "userspace".into(),
            wall: Wall::default(),
        }),
    }
}

fn say(link: &mut ControllerLink, message: FromAgent) {
    let frame = AgentFrame { boot: Boot(9), message };
    link.handle_bytes(&frame.encode().expect("short"), Now::default());
}

fn sent(link: &mut ControllerLink) -> Vec<FromController> {
    let bytes = |effect| match effect {
        LinkEffect::Send(bytes) => FromController::decode(&bytes[4..]).expect("our own"),
        LinkEffect::Disconnect => None,
    };
    std::iter::from_fn(|| link.poll_effect()).filter_map(bytes).collect()
}

fn accepted(applied: Applied, want: Desired, known: Option<Known>) -> (ControllerLink, Vec<FromController>) {
    let mut link = ControllerLink::new(link_config(Access::Full), Now::default());
    link.handle_bytes(&hello(1, applied).encode().expect("short"), Now::default());
    link.handle_accept(want, known, Now::default());
    let mut sent = sent(&mut link);
    assert!(matches!(sent.remove(0), FromController::Welcome(_)));
    (link, sent)
}

fn applied(want: &Desired) -> Applied {
    Applied { generation: want.generation, digest: thinlane_wire::state_digest(&want.known().state) }
}

#[test]
fn a_gateway_that_has_the_state_already_is_sent_nothing() {
    let want = desired(4, &[(1, 1), (2, 7)], &[]);
    let (link, sent) = accepted(applied(&want), want.clone(), None);
    assert_eq!(sent, []);
    assert_eq!(link.known(), Some(&want.known()));
}

#[test]
fn a_gateway_at_a_state_that_is_remembered_is_sent_the_difference() {
    let before = desired(4, &[(1, 1), (2, 7)], &[]);
    let want = desired(6, &[(1, 1), (3, 8)], &[2]);
    let (_, sent) = accepted(applied(&before), want, Some(before.known()));
    let [FromController::Delta(delta)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((delta.from_generation, delta.generation), (4, 6));
    assert_eq!(delta.grants.iter().map(SignedGrant::peek).collect::<Vec<_>>(), [Some((session(3), 8))]);
    assert_eq!(delta.withdrawn.len(), 1);
    assert_eq!(delta.withdrawn[0].reason, thinlane_model::EndReason::Killed);
}

use thinlane_wire::SignedGrant;

#[test]
fn a_gateway_at_any_other_state_is_sent_the_whole() {
    let before = desired(4, &[(1, 1)], &[]);
    let want = desired(6, &[(1, 1), (3, 8)], &[]);
    let odd = Applied { generation: 4, digest: [9; 32] };
    let same_number = Applied { generation: 6, digest: [9; 32] };
    for (at, known) in [
        (Applied::default(), None),
        (Applied::default(), Some(before.known())),
        (applied(&before), None),
        (odd, Some(before.known())),
        (same_number, None),
    ] {
        let (_, sent) = accepted(at, want.clone(), known);
        let [FromController::Snapshot(snapshot)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((snapshot.generation, snapshot.grants.len()), (6, 2));
    }
}

#[test]
fn a_kill_that_overtakes_its_grant_is_told_although_the_gateway_never_had_it() {
    let mut pair = Pair::up();
    pair.messages();
    pair.want(desired(3, &[], &[5]));
    let messages = pair.messages();
    let [FromController::Delta(delta)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(delta.withdrawn[0].session, session(5));
    // And not told again with each later change.
    pair.want(desired(4, &[(6, 1)], &[5]));
    let messages = pair.messages();
    let [FromController::Delta(delta)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(delta.withdrawn, []);
}

#[test]
fn the_same_desired_state_twice_says_nothing_the_second_time() {
    let mut pair = Pair::up();
    pair.want(desired(2, &[(1, 1)], &[]));
    assert_eq!(pair.messages().len(), 2, "the empty snapshot at log-in and the delta");
    pair.want(desired(2, &[(1, 1)], &[]));
    pair.want(desired(3, &[(1, 1)], &[]));
    let messages = pair.messages();
    let [FromController::Delta(delta)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((delta.grants.len(), delta.withdrawn.len()), (0, 0));
}

#[test]
fn a_controller_restored_from_a_backup_sends_the_whole() {
    let mut pair = Pair::up();
    pair.want(desired(20, &[(1, 1)], &[]));
    pair.messages();
    pair.want(desired(5, &[], &[]));
    let messages = pair.messages();
    assert!(matches!(messages.as_slice(), [FromController::Snapshot(one)] if one.generation == 5), "{messages:?}");
}

#[test]
fn a_state_taken_over_is_remembered_and_a_wrong_digest_is_repaired_once() {
    let want = desired(2, &[(1, 1)], &[]);
    let (mut link, sent_first) = accepted(Applied::default(), want.clone(), None);
    assert_eq!(sent_first.len(), 1);
    say(&mut link, FromAgent::Applied(Applied { generation: 2, digest: [7; 32] }));
    assert!(matches!(sent(&mut link).as_slice(), [FromController::Snapshot(_)]));
    for _ in 0..10 {
        say(&mut link, FromAgent::Applied(Applied { generation: 2, digest: [7; 32] }));
        assert_eq!(sent(&mut link), [], "no loop of snapshots");
    }
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    assert_eq!(events.iter().filter(|event| matches!(event, LinkEvent::Diverged { .. })).count(), 1);
}

#[test]
fn a_gateway_that_says_again_what_it_had_gets_the_whole() {
    let before = desired(1, &[], &[]);
    let (mut link, _) = accepted(applied(&before), before.clone(), None);
    link.handle_desired(desired(2, &[(1, 1)], &[]), Now::default());
    link.handle_desired(desired(3, &[(1, 1), (2, 2)], &[]), Now::default());
    assert_eq!(sent(&mut link).len(), 2);
    say(&mut link, FromAgent::Applied(applied(&before)));
    let sent = sent(&mut link);
    assert!(matches!(sent.as_slice(), [FromController::Snapshot(one)] if one.generation == 3), "{sent:?}");
}

#[test]
fn acknowledging_one_of_two_deltas_under_way_is_no_request_for_the_whole() {
    let first = desired(2, &[(1, 1)], &[]);
    let (mut link, _) = accepted(applied(&first), first.clone(), None);
    let second = desired(3, &[(1, 2)], &[]);
    let third = desired(4, &[(1, 3)], &[]);
    link.handle_desired(second.clone(), Now::default());
    link.handle_desired(third.clone(), Now::default());
    sent(&mut link);
    say(&mut link, FromAgent::Applied(applied(&second)));
    assert_eq!(sent(&mut link), []);
    assert_eq!(link.known().map(Known::generation), Some(3));
    say(&mut link, FromAgent::Applied(applied(&third)));
    assert_eq!(link.known().map(Known::generation), Some(4));
}

#[test]
fn gateways_one_version_older_and_newer_are_served_and_others_told_why_not() {
    for (protocol, served) in [(PROTOCOL, true), (PROTOCOL + 1, true), (PROTOCOL + 2, false), (u32::MAX, false)] {
        let mut link = ControllerLink::new(link_config(Access::Full), Now::default());
        link.handle_bytes(&hello(protocol, Applied::default()).encode().expect("short"), Now::default());
        link.handle_accept(desired(1, &[], &[]), None, Now::default());
        let sent = sent(&mut link);
        match sent.first() {
            Some(FromController::Welcome(welcome)) => assert!(served && welcome.protocol == PROTOCOL),
            Some(FromController::Goodbye(goodbye)) => {
                assert!(!served && goodbye.reason == GoodbyeReason::Protocol);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_expired_certificate_may_ask_for_a_new_one_and_nothing_else() {
    let mut link = ControllerLink::new(link_config(Access::RenewOnly), Now::default());
    link.handle_bytes(&hello(1, Applied::default()).encode().expect("short"), Now::default());
    link.handle_accept(desired(3, &[(1, 1)], &[]), None, Now::default());
    assert!(matches!(sent(&mut link).as_slice(), [FromController::Welcome(_)]), "no state for it");
    link.handle_desired(desired(4, &[(1, 1), (2, 2)], &[]), Now::default());
    say(&mut link, FromAgent::Applied(Applied { generation: 4, digest: [0; 32] }));
    let status = SiteStatus { why_not: None, isolated: false, lanes: 0, backend: String::new(), lan: Vec::new() };
    say(&mut link, FromAgent::Status(status));
    say(&mut link, FromAgent::Renew(vec![1]));
    assert_eq!(sent(&mut link), []);
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).skip(1).collect();
    assert!(
        matches!(events.as_slice(), [LinkEvent::Message(AgentFrame { message: FromAgent::Renew(_), .. })]),
        "{events:?}"
    );
}

#[test]
fn a_connection_without_hello_or_verdict_ends_in_time() {
    let later = |secs| Now { mono: Boot(0) + Span::from_secs(secs), ..Now::default() };
    let mut link = ControllerLink::new(link_config(Access::Full), Now::default());
    link.handle_timeout(later(9));
    assert_eq!(link.poll_event(), None);
    link.handle_timeout(later(10));
    assert!(matches!(link.poll_event(), Some(LinkEvent::Down { .. })));
    let mut link = ControllerLink::new(link_config(Access::Full), Now::default());
    link.handle_bytes(&hello(1, Applied::default()).encode().expect("short"), later(9));
    link.handle_timeout(later(24));
    assert_eq!(link.poll_effect(), Some(LinkEffect::Disconnect));
    assert_eq!(link.poll_timeout(), None);
}

#[test]
fn a_message_before_the_welcome_ends_the_connection() {
    let mut link = ControllerLink::new(link_config(Access::Full), Now::default());
    say(&mut link, FromAgent::Ping(1));
    assert!(matches!(sent(&mut link).as_slice(), [FromController::Goodbye(_)]));
    assert!(matches!(link.poll_event(), Some(LinkEvent::Down { .. })));
}

#[test]
fn a_gateway_that_waits_for_the_verdict_answers_for_its_life() {
    let mut pair = Pair::new();
    pair.agent.handle_start(pair.now);
    assert_eq!(pair.agent.poll_effect(), Some(crate::AgentEffect::Connect));
    pair.agent.handle_connected(pair.now);
    let mut link = ControllerLink::new(link_config(Access::Full), pair.now);
    let Some(crate::AgentEffect::Send(hello)) = pair.agent.poll_effect() else { panic!("it says hello") };
    link.handle_bytes(&hello, pair.now);
    let nonce = link.handle_probe(pair.now);
    let Some(LinkEffect::Send(ping)) = link.poll_effect() else { panic!("it asks") };
    pair.agent.handle_bytes(&ping, pair.now);
    let Some(crate::AgentEffect::Send(pong)) = pair.agent.poll_effect() else { panic!("it answers") };
    link.handle_bytes(&pong, pair.now);
    assert!(matches!(link.poll_event(), Some(LinkEvent::Hello(_))));
    assert_eq!(link.poll_event(), Some(LinkEvent::Probed { nonce }));
    link.handle_accept(desired(1, &[], &[]), None, pair.now);
    assert!(link.is_up());
}

#[test]
fn a_probe_brings_the_gateways_clock_up_to_date() {
    let mut pair = Pair::up();
    pair.pass(Span::from_secs(50));
    let before = pair.controller.as_ref().and_then(ControllerLink::clock).expect("said hello");
    let nonce = pair.controller.as_mut().expect("up").handle_probe(pair.now);
    pair.link_events.clear();
    pair.run();
    assert_eq!(pair.link_events, [LinkEvent::Probed { nonce }]);
    let clock = pair.controller.as_ref().and_then(ControllerLink::clock).expect("said hello");
    assert!(clock.at > before.at && clock.at == pair.now.mono && clock.heard == pair.now.mono);
}

#[test]
fn a_gateway_that_reads_nothing_is_dropped_and_costs_bounded_memory() {
    let want = desired(1, &[], &[]);
    let (mut link, _) = accepted(applied(&want), want, None);
    for generation in 2..10_000 {
        link.handle_desired(desired(generation, &[(1, generation)], &[]), Now::default());
    }
    let effects = std::iter::from_fn(|| link.poll_effect()).count();
    assert!(effects < 4096, "{effects}");
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    assert!(events.iter().any(|event| matches!(event, LinkEvent::Down { .. })));
}
