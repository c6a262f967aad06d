//! What is expected of `channels`, as tests.

use thinlane_model::Wall;
use thinlane_wire::Applied;

use super::*;

fn hello(boot: u8, number: u64) -> Hello {
    Hello {
        protocol: 1,
        capabilities: vec![],
        agent_version: String::new(),
        boot: BootId([boot; 16]),
        connection: number,
        applied: Applied::default(),
        backend: String::new(),
        wall: Wall::default(),
    }
}

fn at(secs: u64) -> Now {
    Now { mono: Boot(0) + Span::from_secs(secs), ..Now::default() }
}

fn effects(channels: &mut SiteChannels) -> Vec<ChannelEffect> {
    std::iter::from_fn(|| channels.poll_effect()).collect()
}

fn accept(conn: u64) -> ChannelEffect {
    ChannelEffect::Accept { conn: ConnId(conn), known: None }
}

fn closes(effects: &[ChannelEffect]) -> Vec<(u64, GoodbyeReason)> {
    let close = |effect: &ChannelEffect| match effect {
        ChannelEffect::Close { conn, reason, .. } => Some((conn.0, *reason)),
        _ => None,
    };
    effects.iter().filter_map(close).collect()
}

#[test]
fn twenty_abrupt_reconnects_freeze_nothing_and_each_counts_at_once() {
    let mut channels = SiteChannels::new();
    for number in 1..=20 {
        // The old TCP connection is half open: the controller has not heard of its end.
        channels.handle_hello(ConnId(number), &hello(1, number * 1000), at(number));
        let effects = effects(&mut channels);
        assert!(effects.contains(&accept(number)), "{effects:?}");
        assert_eq!(channels.current(), Some(ConnId(number)));
        assert!(!channels.is_frozen());
    }
}

#[test]
fn a_copied_key_freezes_both_once_both_have_answered() {
    for (boot, number) in [(2, 1), (2, 99), (1, 10), (1, 3)] {
        let mut channels = SiteChannels::new();
        channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
        channels.handle_hello(ConnId(2), &hello(boot, number), at(1));
        let asked = effects(&mut channels);
        let probe = |conn| ChannelEffect::Probe { conn: ConnId(conn) };
        assert_eq!(asked, [accept(1), probe(1), probe(2)]);
        channels.handle_probing(ConnId(1), 77);
        channels.handle_probing(ConnId(2), 1);
        channels.handle_answered(ConnId(2), 1, at(2));
        channels.handle_answered(ConnId(1), 76, at(2));
        assert!(!channels.is_frozen(), "an older answer proves nothing");
        channels.handle_answered(ConnId(1), 77, at(2));
        let effects_after = effects(&mut channels);
        assert_eq!(closes(&effects_after), [(1, GoodbyeReason::Frozen), (2, GoodbyeReason::Frozen)]);
        assert!(effects_after.contains(&ChannelEffect::Clone));
        channels.handle_hello(ConnId(3), &hello(1, 11), at(3));
        assert_eq!(closes(&effects(&mut channels)), [(3, GoodbyeReason::Frozen)]);
        channels.handle_thaw(at(4));
        channels.handle_hello(ConnId(4), &hello(1, 12), at(5));
        assert_eq!(effects(&mut channels), [accept(4)]);
    }
}

#[test]
fn a_gateway_that_rebooted_takes_over_when_the_old_connection_stays_silent() {
    let mut channels = SiteChannels::new();
    channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
    channels.handle_hello(ConnId(2), &hello(2, 1), at(1));
    effects(&mut channels);
    channels.handle_probing(ConnId(1), 5);
    assert_eq!(channels.poll_timeout(), Some(at(6).mono));
    channels.handle_timeout(at(5));
    assert_eq!(effects(&mut channels), []);
    channels.handle_timeout(at(6));
    let after = effects(&mut channels);
    assert_eq!(closes(&after), [(1, GoodbyeReason::Replaced)]);
    assert!(after.contains(&accept(2)));
    channels.handle_answered(ConnId(1), 5, at(7));
    assert!(!channels.is_frozen(), "too late to matter");
}

#[test]
fn a_hello_that_was_held_up_on_its_way_freezes_nothing_and_takes_nothing_over() {
    for (boot, number) in [(1, 9), (7, 9)] {
        let mut channels = SiteChannels::new();
        channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
        channels.handle_hello(ConnId(2), &hello(boot, number), at(1));
        channels.handle_probing(ConnId(1), 5);
        channels.handle_probing(ConnId(2), 1);
        channels.handle_answered(ConnId(1), 5, at(2));
        assert!(!channels.is_frozen());
        effects(&mut channels);
        channels.handle_timeout(at(6));
        assert_eq!(closes(&effects(&mut channels)), [(2, GoodbyeReason::Replaced)]);
        assert_eq!(channels.current(), Some(ConnId(1)));
        assert_eq!(channels.poll_timeout(), None);
    }
}

#[test]
fn a_gateway_that_rebooted_takes_over_at_once_when_the_old_connection_ends() {
    let mut channels = SiteChannels::new();
    channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
    channels.handle_hello(ConnId(2), &hello(2, 1), at(1));
    effects(&mut channels);
    channels.handle_closed(ConnId(1), at(2));
    assert_eq!(effects(&mut channels), [accept(2)]);
    assert_eq!(channels.current(), Some(ConnId(2)));
}

#[test]
fn the_one_that_waits_may_dial_again_and_a_third_is_sent_away() {
    let mut channels = SiteChannels::new();
    channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
    channels.handle_hello(ConnId(2), &hello(2, 1), at(1));
    channels.handle_hello(ConnId(3), &hello(2, 2), at(2));
    channels.handle_hello(ConnId(4), &hello(3, 1), at(2));
    assert_eq!(closes(&effects(&mut channels)), [(2, GoodbyeReason::Replaced), (4, GoodbyeReason::Replaced)]);
    channels.handle_closed(ConnId(2), at(3));
    channels.handle_timeout(at(6));
    assert!(effects(&mut channels).contains(&accept(3)));
}

#[test]
fn the_end_of_a_connection_that_no_longer_counts_changes_nothing() {
    let mut channels = SiteChannels::new();
    channels.handle_hello(ConnId(1), &hello(1, 10), at(0));
    channels.handle_hello(ConnId(2), &hello(1, 11), at(1));
    channels.handle_closed(ConnId(1), at(2));
    assert_eq!(channels.current(), Some(ConnId(2)));
}
