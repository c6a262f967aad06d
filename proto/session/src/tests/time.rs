//! What happens by itself, restarts, and clocks that are set.

use super::*;

#[test]
fn an_approved_request_lapses_after_eight_hours_and_a_pending_one_after_thirty_days() {
    let mut lab = Lab::new();
    let pending = lab.request("alice", "plc-1", None);
    let approved = lab.approved("alice", "plc-1", 60);
    lab.wait(secs(8 * 3600 - 1));
    assert_eq!(lab.request_state(approved), RequestState::Approved);
    lab.wait(secs(1));
    assert_eq!(
        (lab.request_state(approved), lab.request_state(pending)),
        (RequestState::Lapsed, RequestState::Pending)
    );
    let command = Command::Activate { request: approved, engineer_key: key(1), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), command, ErrorCode::Ended);
    lab.wait(days(30));
    assert_eq!(lab.request_state(pending), RequestState::Lapsed);
    assert_eq!(lab.world.poll_timeout(), None, "nothing is left to wait for");
    lab.check_replay();
}

#[test]
fn a_request_for_later_is_usable_from_then_on() {
    let mut lab = Lab::new();
    let from = lab.now.wall + secs(10 * 3600);
    let new = NewRequest { not_before: Some(from), ..wish("plc-1", Some(60)) };
    let Answer::Request(request) = lab.take(person("alice"), Command::CreateRequest(new)) else { panic!("a request") };
    lab.take(person("bob"), Command::ApproveRequest { request, note: None });
    let command = |lab: &Lab| Command::Activate { request, engineer_key: key(1), native: false, clock: lab.clock() };
    let early = command(&lab);
    lab.refuse(person("alice"), early, ErrorCode::Conflict);
    lab.wait(secs(17 * 3600));
    assert_eq!(lab.request_state(request), RequestState::Approved);
    let then = command(&lab);
    lab.take(person("alice"), then);
}

#[test]
fn setting_the_wall_clock_moves_no_end() {
    for jump in [-days(10).as_millis().cast_signed(), days(10).as_millis().cast_signed()] {
        let mut lab = Lab::new();
        let id = lab.open(600);
        let waiting = lab.approved("alice", "plc-1", 60);
        lab.now.wall = Wall::from_millis(lab.now.wall.as_millis() + jump);
        lab.wait(secs(500));
        assert_eq!(lab.session(id).state, SessionState::Active, "jump {jump}");
        assert_eq!(lab.request_state(waiting), RequestState::Approved, "jump {jump}");
        let left = lab.world.session_view(&id, lab.now).and_then(|view| view.remaining_ms);
        assert_eq!(left, Some(100_000), "jump {jump}");
        lab.wait(secs(102));
        assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Expired)), "jump {jump}");
    }
}

#[test]
fn a_clock_set_between_grant_and_answer_moves_no_end_either() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 600);
    let id = lab.activate("alice", request, 1);
    lab.now.wall = lab.now.wall + days(10);
    lab.arm(id, 101);
    lab.take(person("alice"), Command::Extend { session: id, seconds: 60, reason: "r".to_owned() });
    lab.arm(id, 101);
    lab.wait(secs(661));
    assert_eq!(lab.session(id).state, SessionState::Active);
    lab.wait(secs(1));
    assert_eq!(lab.session(id).state, SessionState::Ended);
}

#[test]
fn after_a_restart_relay_and_gateways_are_put_where_the_rows_say() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let open = lab.open(600);
    let request = lab.approved("adam", "meter-1", 300);
    let ending = lab.activate("adam", request, 2);
    lab.arm(ending, 102);
    lab.take(person("adam"), Command::Release { session: ending });
    let waiting = lab.approved("alice", "plc-1", 60);

    // Another boot of the controller's machine, 100 s later.
    let now = Now { mono: Boot(77), wall: lab.now.wall + secs(100) };
    let rows = lab.world.rows().map(|(key, value)| (key.kind, key.id, value));
    let mut world = World::from_rows(rows).expect("its own rows");
    assert_eq!(world.poll_timeout(), None);
    let before = world.desired(&site);
    assert_eq!(before, lab.world.desired(&site), "the same grants with the same serials");
    world.effects_after_restart(now);
    let effects: Vec<Effect> = std::iter::from_fn(|| world.poll_effect()).collect();
    let until = Boot(77) + secs(500);
    assert_eq!(
        effects,
        [Effect::RelayOpen { session: open, engineer: key(1), gateway: Some(key(101)), until }, Effect::Push { site }]
    );
    assert_eq!(world.poll_timeout(), Some(Boot(77) + secs(202)), "the one that is ending, then the open one");
    lab.world = world;
    lab.now = now;
    lab.wait(secs(202));
    assert_eq!(lab.end(ending), (SessionState::Ended, Some(EndReason::Released)));
    lab.wait(secs(300));
    assert_eq!(lab.end(open), (SessionState::Ended, Some(EndReason::Expired)));
    lab.wait(secs(8 * 3600));
    assert_eq!(lab.request_state(waiting), RequestState::Lapsed);
}

#[test]
fn an_engineers_address_rests_ten_minutes_and_longer_while_a_lane_may_still_stand() {
    let mut lab = Lab::new();
    lab.pools.engineers = name("198.19.0.0/30");
    let open = |lab: &mut Lab, engineer: u8| {
        let request = lab.approved("alice", "meter-1", 60);
        lab.activate("alice", request, engineer)
    };
    let (one, two) = (open(&mut lab, 1), open(&mut lab, 2));
    lab.arm(one, 101);
    let request = lab.approved("alice", "meter-1", 60);
    let third = |lab: &Lab| Command::Activate { request, engineer_key: key(3), native: false, clock: lab.clock() };
    let command = third(&lab);
    lab.refuse(person("alice"), command, ErrorCode::Limit);
    lab.close(one, EndReason::Failed);
    lab.wait(secs(30));
    assert_eq!(lab.end(two), (SessionState::Ended, Some(EndReason::Failed)));
    lab.wait(secs(569));
    let command = third(&lab);
    lab.refuse(person("alice"), command, ErrorCode::Limit);
    lab.wait(secs(1));
    // The second was given up at 30 s, but its lane may stand until its deadline at 60 s: its address rests from then.
    let command = third(&lab);
    let Answer::Session(id) = lab.take(person("alice"), command) else { panic!("a session") };
    assert_eq!(lab.session(id).engineer, lab.session(one).engineer);
    let request = lab.approved("alice", "meter-1", 60);
    let fourth = |lab: &Lab| Command::Activate { request, engineer_key: key(4), native: false, clock: lab.clock() };
    lab.wait(secs(59));
    let command = fourth(&lab);
    lab.refuse(person("alice"), command, ErrorCode::Limit);
    lab.wait(secs(1));
    let command = fourth(&lab);
    lab.take(person("alice"), command);
}
