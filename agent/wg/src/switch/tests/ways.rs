//! Two ways between the ends, the gateway's own address and the relay, one of which dies.

use super::*;
use crate::switch::soak::clock;

const DIRECT: u8 = 2;
const RELAY: u8 = 9;
const STEP: Span = Span::from_millis(100);

/// What gets through.
#[derive(Clone, Copy)]
struct Open {
    /// To the gateway's own address.
    up: bool,
    /// From there.
    down: bool,
    /// From the relay to the gateway: its carrier lets in what the gateway has asked for.
    pinhole: bool,
    /// The relay knows where the engineer is.
    engineer: bool,
    /// The relay carries anything at all.
    relay: bool,
}

struct Ways {
    ends: Ends,
    open: Open,
    begun: Boot,
}

impl Ways {
    /// A lane that goes directly; the gateway began at the relay, which has forgotten both ends since.
    fn direct() -> Self {
        let mut ends = Ends::with_fallback(Some(place(RELAY)));
        clock::set(ends.now);
        ends.settle();
        let open = Open { up: true, down: true, pinhole: false, engineer: false, relay: true };
        let mut ways = Self { begun: ends.now.mono, ends, open };
        ways.ask();
        // The engineer's end says in 3 s that it has the answer.
        ways.pass(Span::from_secs(4));
        assert_eq!(ways.at(), [Some(place(1)), Some(place(DIRECT))]);
        ways.begun = ways.ends.now.mono;
        ways
    }

    fn carry(&mut self) {
        for _ in 0..100 {
            let up = std::mem::take(&mut self.ends.at_engineer.datagrams);
            let down = std::mem::take(&mut self.ends.at_gateway.datagrams);
            if up.is_empty() && down.is_empty() {
                return;
            }
            let (now, ends) = (self.ends.now, &mut self.ends);
            for (to, datagram) in up {
                let relayed = to == place(RELAY);
                self.open.engineer |= relayed;
                let (from, passes) =
                    if relayed { (to, self.open.relay && self.open.pinhole) } else { (place(1), self.open.up) };
                if passes {
                    ends.gateway.take_datagrams(&datagram, usize::MAX, from, now, &mut ends.at_gateway);
                }
            }
            for (to, datagram) in down {
                let relayed = to == place(RELAY);
                self.open.pinhole |= relayed;
                let (from, passes) =
                    if relayed { (to, self.open.relay && self.open.engineer) } else { (place(DIRECT), self.open.down) };
                if passes {
                    ends.engineer.take_datagrams(&datagram, usize::MAX, from, now, &mut ends.at_engineer);
                }
            }
        }
        panic!("the ends talk for ever");
    }

    fn pass(&mut self, span: Span) {
        let until = self.ends.now.mono + span;
        while self.ends.now.mono < until {
            let ends = &mut self.ends;
            ends.now = Now { mono: ends.now.mono + STEP, wall: ends.now.wall + STEP };
            clock::set(ends.now);
            ends.engineer.on_time(ends.now, &mut ends.at_engineer);
            ends.gateway.on_time(ends.now, &mut ends.at_gateway);
            self.carry();
        }
    }

    /// The engineer asks, the asset answers what it hears.
    fn ask(&mut self) {
        let ends = &mut self.ends;
        let heard = ends.at_gateway.packets.len();
        let mut packet = udp((ME, 9000), (ASSET, PORT), b"question");
        ends.engineer.take_parcel(&mut Parcel::whole(&mut packet), ends.now, &mut ends.at_engineer);
        self.carry();
        if self.ends.at_gateway.packets.len() > heard {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let ends = &mut self.ends;
        let mut packet = udp((ASSET, PORT), (ME, 9000), b"answer");
        ends.gateway.take_parcel(&mut Parcel::whole(&mut packet), ends.now, &mut ends.at_gateway);
        self.carry();
    }

    fn answers(&self) -> usize {
        self.ends.at_engineer.packets.len()
    }

    /// The engineer's end changes its way.
    fn change_to(&mut self, way: u8) {
        let ends = &mut self.ends;
        ends.engineer.set_endpoint(session(1), place(way), ends.now, &mut ends.at_engineer).expect("it is open");
        self.carry();
    }

    fn engineers(&mut self) -> LaneReport {
        self.ends.engineer.report(session(1)).expect("it is open")
    }

    /// Where the gateway sees the engineer, and the engineer the gateway.
    fn at(&mut self) -> [Option<SocketAddr>; 2] {
        [self.ends.report().endpoint, self.engineers().endpoint]
    }

    fn secs(&self) -> u64 {
        self.begun.until(self.ends.now.mono).as_secs()
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        clock::release();
    }
}

#[test]
fn a_gateway_that_is_heard_but_does_not_hear_makes_handshakes_in_vain_and_the_other_way_is_kept_to() {
    let mut ways = Ways::direct();
    ways.open.up = false;
    ways.answer();
    let heard = ways.engineers().rx_bytes;
    while ways.engineers().in_vain < Span::from_secs(11) {
        ways.ask();
        ways.pass(Span::from_secs(1));
        assert!(ways.secs() < 30, "{:?}", ways.engineers());
    }
    assert!(ways.engineers().rx_bytes > heard, "it is heard all the while");
    // What the gateway still says directly does not draw the engineer back.
    ways.open.pinhole = false;
    ways.change_to(RELAY);
    ways.answer();
    assert_eq!(ways.at()[1], Some(place(RELAY)));
    ways.open.pinhole = true;
    let before = ways.answers();
    ways.pass(Span::from_secs(2));
    ways.ask();
    assert_eq!(ways.answers(), before + 1);
    assert_eq!(ways.at(), [Some(place(RELAY)); 2]);
    assert_eq!(ways.engineers().in_vain, Span::ZERO);
}

#[test]
fn a_gateway_that_hears_nothing_any_more_asks_at_the_relay_which_then_reaches_it() {
    let mut ways = Ways::direct();
    (ways.open.up, ways.open.down) = (false, false);
    // Nothing of the gateway's is unanswered: it does not doubt for as long as the engineer may be silent.
    while ways.answers() < 2 {
        if ways.secs() == 11 {
            ways.change_to(RELAY);
        }
        ways.ask();
        ways.pass(Span::from_secs(1));
        assert!(ways.secs() < 40, "{:?}", ways.at());
    }
    assert!(ways.secs() >= 34, "sooner than the engineer's next keepalive may come");
    assert_eq!(ways.at(), [Some(place(RELAY)); 2]);
}

#[test]
fn a_gateway_whose_answers_are_lost_is_at_the_relay_before_the_engineer_comes_there() {
    let mut ways = Ways::direct();
    (ways.open.up, ways.open.down) = (false, false);
    ways.answer();
    ways.pass(Span::from_secs(11));
    assert!(ways.open.pinhole);
    ways.change_to(RELAY);
    let before = ways.answers();
    ways.ask();
    assert_eq!(ways.answers(), before + 1);
    assert_eq!(ways.at(), [Some(place(RELAY)); 2]);
}

#[test]
fn a_silent_engineer_who_is_still_there_is_found_there_and_loses_nothing() {
    let mut ways = Ways::direct();
    // Its keepalives are lost, all else is well.
    ways.open.up = false;
    ways.pass(Span::from_secs(33));
    ways.open.up = true;
    assert_eq!(ways.ends.report().rekeys, 0);
    ways.pass(Span::from_secs(3));
    assert_eq!(ways.ends.report().rekeys, 1);
    ways.ask();
    assert_eq!(ways.answers(), 2);
    assert_eq!(ways.at(), [Some(place(1)), Some(place(DIRECT))]);
}

#[test]
fn a_way_that_is_tried_in_vain_is_left_where_a_handshake_succeeds_elsewhere() {
    let mut ways = Ways::direct();
    ways.change_to(RELAY);
    ways.ask();
    assert_eq!(ways.answers(), 1, "nobody is there");
    // The gateway's own next handshake comes directly, and is answered there.
    let ends = &mut ways.ends;
    ends.gateway.handshake(ends.now, &mut ends.at_gateway);
    ways.carry();
    ways.ask();
    assert_eq!(ways.answers(), 2);
    assert_eq!(ways.at(), [Some(place(1)), Some(place(DIRECT))]);
}

#[test]
fn where_both_ways_were_dead_the_lane_is_where_the_gateway_is_heard_again_at_once() {
    for tried in [DIRECT, RELAY] {
        let mut ways = Ways::direct();
        (ways.open.up, ways.open.down, ways.open.relay) = (false, false, false);
        ways.ask();
        ways.pass(Span::from_secs(11));
        ways.change_to(tried);
        // Between two attempts of either end.
        ways.pass(Span::from_millis(9_500));
        assert_eq!(ways.at()[1], Some(place(tried)));
        assert!(ways.engineers().in_vain > Span::ZERO);
        (ways.open.up, ways.open.down) = (true, true);
        let before = ways.answers();
        ways.answer();
        assert_eq!(ways.engineers().in_vain, Span::ZERO, "it was not asked whether it hears");
        assert_eq!(ways.at(), [Some(place(1)), Some(place(DIRECT))]);
        ways.ask();
        assert_eq!(ways.answers(), before + 2, "the gateway's own word, and the answer");
    }
}

#[test]
fn a_gateway_that_only_speaks_is_asked_now_and_then_whether_it_hears() {
    let mut ways = Ways::direct();
    ways.open.up = false;
    ways.answer();
    ways.pass(Span::from_secs(16));
    let before = ways.engineers().tx_bytes;
    for _ in 0..100 {
        ways.answer();
        ways.pass(STEP);
    }
    let initiations = (ways.engineers().tx_bytes - before) / 148;
    assert!((2..=12).contains(&initiations), "{initiations} in ten seconds");
}
