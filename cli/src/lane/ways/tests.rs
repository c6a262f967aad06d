//! Lanes whose ways die, come back, and lead in one direction only.

use super::*;

const NOTHING: Turn = Turn { go: None, said: None };

fn place(path: Path, port: u16) -> Place {
    let address = SocketAddr::from(([192, 0, 2, 1], port));
    Place { way: Way { path, endpoint: address.to_string().parse().expect("an endpoint") }, address }
}

fn both() -> (Ways, Place, Place) {
    let (direct, relay) = (place(Path::Direct, 1), place(Path::Relay, 2));
    (Ways::new(direct.clone(), Some(relay.clone())), direct, relay)
}

fn at(secs: u64) -> Boot {
    Boot(1_000_000 + secs * 1000)
}

fn crossed(received: u64, sent: u64) -> Outside {
    Outside { received, sent, ..Outside::default() }
}

/// The lane goes there; `left`: the way of which it is said that it stopped answering.
fn to(place: &Place, left: Option<&Place>) -> Turn {
    let said = left.map(|left| Moved { to: place.way.clone(), why: Why::Left(left.way.clone()) });
    Turn { go: Some(place.address), said }
}

fn said(place: &Place, why: Why) -> Turn {
    Turn { go: None, said: Some(Moved { to: place.way.clone(), why }) }
}

#[test]
fn a_way_that_stops_answering_is_left_after_eleven_seconds_and_that_is_said_once() {
    let (mut ways, direct, relay) = both();
    assert_eq!(ways.look(at(0), crossed(500, 500)), NOTHING);
    let mut turns = Vec::new();
    for sec in 1..40 {
        let turn = ways.look(at(sec), crossed(500, 500 + sec * 100));
        turns.extend((turn != NOTHING).then_some((sec, turn)));
    }
    assert_eq!(turns, [(12, to(&relay, Some(&direct))), (23, to(&direct, None)), (34, to(&relay, None))]);
    // It answers where it was said that it would be looked for.
    assert_eq!(ways.look(at(40), crossed(600, 9000)), said(&relay, Why::Reached));
    assert_eq!(ways.look(at(41), crossed(700, 9100)), NOTHING);
}

#[test]
fn whoever_answers_at_the_old_way_after_all_is_told_of() {
    let (mut ways, direct, _) = both();
    assert_eq!(ways.look(at(0), crossed(500, 500)), NOTHING);
    let turns = (1..30).filter(|sec| ways.look(at(*sec), crossed(500, 500 + sec * 100)) != NOTHING).count();
    assert_eq!(turns, 2, "to the relay and back");
    assert_eq!(ways.look(at(30), crossed(600, 9000)), said(&direct, Why::Again));
    assert_eq!(ways.look(at(31), crossed(700, 9100)), NOTHING);
}

#[test]
fn a_gateway_that_is_heard_and_does_not_hear_is_looked_for_elsewhere() {
    let (mut ways, direct, relay) = both();
    assert_eq!(ways.look(at(0), crossed(500, 500)), NOTHING);
    let in_vain = |sec: u64| Span::from_secs(sec.saturating_sub(5));
    let turns = (1..20).filter_map(|sec| {
        let (received, sent) = (500 + sec * 100, 500 + sec * 100);
        let seen = Outside { in_vain: in_vain(sec), ..crossed(received, sent) };
        let turn = ways.look(at(sec), seen);
        (turn != NOTHING).then_some((sec, turn))
    });
    let turns: Vec<_> = turns.collect();
    assert_eq!(turns, [(17, to(&relay, Some(&direct)))]);
}

#[test]
fn a_gateway_that_comes_by_another_way_unasked_is_said_to_have_done_so() {
    let (mut ways, direct, relay) = both();
    let heard = |received, place: &Place| Outside { from: Some(place.address), ..crossed(received, 500) };
    assert_eq!(ways.look(at(0), heard(500, &direct)), NOTHING);
    assert_eq!(ways.look(at(1), heard(600, &relay)), said(&relay, Why::Found(direct.way.clone())));
    assert_eq!(ways.look(at(2), heard(700, &relay)), NOTHING);
    let turns: Vec<Turn> =
        (3..20).map(|sec| ways.look(at(sec), crossed(700, 500 + sec * 100))).filter(|turn| *turn != NOTHING).collect();
    assert_eq!(turns, [to(&direct, Some(&relay))]);
}

/// What the device of a lane tells, where nothing but handshakes and the asset's repetitions cross. It begins a
/// handshake every 5 s, at once where it is sent elsewhere, and once more where it hears a gateway that was silent; an
/// answer takes a second.
struct Lane {
    ways: Ways,
    seen: Outside,
    /// Where the device sends.
    to: SocketAddr,
    /// Where datagrams pass, and in which directions: up, down.
    open: (SocketAddr, [bool; 2]),
    /// Since when handshakes have come to nothing.
    first: Option<u64>,
    due: u64,
    heard: u64,
    /// An answer is under way.
    answer: bool,
    told: Vec<Moved>,
}

impl Lane {
    fn new() -> (Self, Place, Place) {
        let (ways, direct, relay) = both();
        let (to, seen) = (direct.address, crossed(500, 500));
        let open = (direct.address, [false, false]);
        (Self { ways, seen, to, open, first: None, due: 5, heard: 0, answer: false, told: Vec::new() }, direct, relay)
    }

    /// One second; `says`: the gateway repeats something under the keys there are. Whether what the engineer's tool sent
    /// in it arrived.
    fn pass(&mut self, sec: u64, says: bool) -> bool {
        let (way, [up, down]) = self.open;
        let arrived = self.to == way && up;
        self.seen.sent += 100;
        if std::mem::take(&mut self.answer) {
            (self.to, self.first, self.due) = (way, None, u64::MAX);
            (self.seen.in_vain, self.seen.received) = (Span::ZERO, self.seen.received + 92);
        }
        let mut asked = (sec >= self.due).then_some(self.to);
        if down && (says || arrived) {
            self.seen.received += 100;
            if self.first.is_some() && self.heard + 5 <= sec {
                asked = Some(way);
                self.heard = sec;
            }
        }
        if let Some(place) = asked {
            let first = *self.first.get_or_insert(sec);
            self.seen.in_vain = Span::from_secs(sec - first);
            (self.seen.sent, self.due) = (self.seen.sent + 148, sec + 5);
            self.answer = place == way && up && down;
        }
        self.seen.from = Some(self.to);
        let turn = self.ways.look(at(sec), self.seen);
        self.told.extend(turn.said);
        if let Some(go) = turn.go {
            (self.to, self.due) = (go, sec);
        }
        arrived
    }
}

#[test]
fn where_both_ways_were_dead_the_one_that_comes_back_carries_within_a_retry_and_is_kept() {
    // Whenever it comes back, wherever the lane is then, and however often the gateway says something.
    for back in 15..60 {
        for every in [1, 3, 7] {
            let (mut lane, direct, _) = Lane::new();
            for sec in 1..back {
                assert!(!lane.pass(sec, false));
            }
            lane.open.1 = [true, true];
            let works = |lane: &mut Lane, sec: u64| lane.pass(sec, (sec - back).is_multiple_of(every));
            let first = (back..back + 30).find(|sec| works(&mut lane, *sec)).expect("it carries again");
            assert!(first - back <= 5, "back at {back}, said every {every}: used at {first}");
            for sec in first + 1..first + 60 {
                assert!(works(&mut lane, sec), "back at {back}, said every {every}: left at {sec}");
            }
            let last = lane.told.last().cloned();
            assert_eq!(last, Some(Moved { to: direct.way, why: Why::Again }), "{:?}", lane.told);
            assert_eq!(lane.told.len(), 2);
        }
    }
}

#[test]
fn a_way_that_leads_in_one_direction_is_left_though_the_gateway_is_heard_there_now_and_then() {
    for every in [1, 2, 4, 8] {
        let (mut lane, direct, relay) = Lane::new();
        lane.open.1 = [false, true];
        let turned = (1..40).find(|sec| {
            assert!(!lane.pass(*sec, sec.is_multiple_of(every)));
            lane.to == relay.address
        });
        assert!(turned.is_some_and(|sec| sec <= 20), "heard every {every} s: left at {turned:?}");
        assert_eq!(lane.told.first().map(|moved| moved.why.clone()), Some(Why::Left(direct.way)));
    }
}

#[test]
fn an_idle_lane_and_one_that_is_answered_stay_where_they_are() {
    let (mut ways, ..) = both();
    assert_eq!(ways.look(at(0), crossed(500, 500)), NOTHING);
    // Keepalives that cross each other's silence.
    for sec in 1..600 {
        assert_eq!(ways.look(at(sec), crossed(500, 500 + sec / 25 * KEEPALIVE)), NOTHING, "{sec}");
    }
    for sec in 600..700 {
        assert_eq!(ways.look(at(sec), crossed(500 + sec / 10, 9000 + sec * 100)), NOTHING, "{sec}");
    }
}

#[test]
fn a_machine_that_slept_gives_the_gateway_time_to_answer() {
    let (mut ways, ..) = both();
    assert_eq!(ways.look(at(0), crossed(500, 500)), NOTHING);
    assert_eq!(ways.look(at(1), crossed(500, 700)), NOTHING);
    assert_eq!(ways.look(at(3600), crossed(500, 900)), NOTHING);
    assert_eq!(ways.look(at(3601), crossed(500, 1100)), NOTHING);
}

#[test]
fn where_the_other_way_has_no_address_here_the_one_that_is_taken_is_named() {
    let relay = place(Path::Relay, 2);
    let mut ways = Ways::one_of_two(relay.clone());
    assert_eq!(ways.chosen(), Some(&relay.way));
    assert_eq!(ways.give_up(), None);
    assert!((0..100).all(|sec| ways.look(at(sec), crossed(500, 500 + sec * 100)) == NOTHING));
}

#[test]
fn where_there_is_one_way_only_it_is_kept() {
    let mut ways = Ways::new(place(Path::Relay, 2), None);
    assert!((0..100).all(|sec| ways.look(at(sec), crossed(500, 500 + sec * 100)) == NOTHING));
    assert_eq!((ways.give_up(), ways.chosen()), (None, None));
}
