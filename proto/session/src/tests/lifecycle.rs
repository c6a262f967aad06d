//! From a request to its evidence, and each way in which a session ends.

use thinlane_model::RefuseReason;

use super::*;

#[test]
fn a_lane_is_asked_for_approved_opened_used_released_and_closed() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let start = lab.log.len();
    let request = lab.request("alice", "plc-1", Some(900));
    assert_eq!(lab.request_state(request), RequestState::Pending);
    lab.take(person("bob"), Command::ApproveRequest { request, note: Some("call me".to_owned()) });
    assert_eq!(lab.request_state(request), RequestState::Approved);

    lab.effects.clear();
    let id = lab.activate("alice", request, 1);
    assert_eq!((lab.request_state(request), lab.session(id).state), (RequestState::Used, SessionState::Arming));
    let desired = lab.world.desired(&site);
    let grant = desired.grants.first().expect("one grant").clone();
    assert_eq!(grant.deadline, lab.clock().time + secs(900));
    assert_eq!(grant.tuple.destination, "198.18.0.1".parse::<std::net::Ipv4Addr>().expect("an address"));
    assert_eq!((grant.tuple.port, grant.policy.id.as_str()), (502, "requesters"));
    assert_eq!(lab.world.desired(&site), desired, "the same until something changes");
    let until = lab.now.mono + secs(900);
    let open = Effect::RelayOpen { session: id, engineer: key(1), gateway: None, until };
    let at = |effect: &Effect| lab.effects.iter().position(|it| it == effect);
    assert!(at(&open).expect("the relay opens") < at(&Effect::Push { site }).expect("the gateway is told"));

    lab.arm(id, 101);
    assert!(lab.effects.contains(&Effect::RelaySetGateway { session: id, gateway: key(101) }));
    assert_eq!(lab.session(id).opened_at, Some(lab.now.wall));
    lab.wait(secs(100));
    lab.effects.clear();
    lab.take(person("alice"), Command::Release { session: id });
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Released)));
    assert_eq!(lab.effects.first(), Some(&Effect::SessionChanged { session: id }));
    let at = |effect: &Effect| lab.effects.iter().position(|it| it == effect);
    assert!(at(&Effect::RelayClose { session: id }) < at(&Effect::Push { site }), "first the relay, then the gateway");
    let after = lab.world.desired(&site);
    assert!(after.grants.is_empty() && after.generation > desired.generation);
    assert_eq!(after.ending.get(&id), Some(&EndReason::Released));

    lab.close(id, EndReason::Failed);
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Released)), "what was begun stands");
    assert_eq!((lab.session(id).counters.up_packets, lab.session(id).counters_final), (9, true));
    let kinds = lab.kinds();
    assert_eq!(
        kinds[start..],
        [
            "request.created",
            "request.approval",
            "request.approved",
            "grant.issued",
            "session.active",
            "session.ending",
            "session.ended"
        ]
    );
    lab.check_replay();
}

#[test]
fn entries_tell_auditors_who_what_where_and_under_which_policy() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    lab.take(person("otto"), Command::Kill { session: id, reason: "wrong device".to_owned() });
    lab.close(id, EndReason::Killed);
    let json = |wanted: &str| {
        let entry = lab.log.iter().rev().find(|entry| kind(entry) == wanted).expect(wanted);
        serde_json::to_value(entry).expect("JSON")
    };
    let issued = json("grant.issued");
    assert_eq!((issued["actor"].as_str(), issued["schema"].as_u64()), (Some("person:alice"), Some(1)));
    let session = &issued["session"];
    for (key, value) in [("user", "alice"), ("asset", "plc-1"), ("task", "modbus"), ("site_name", "north")] {
        assert_eq!(session[key].as_str(), Some(value), "{key}");
    }
    assert_eq!(session["policy"]["hash"].as_str(), lab.world.policy_hash());
    assert_eq!(session["approvals"][0]["by"].as_str(), Some("bob"));
    let ended = json("session.ended");
    assert_eq!(ended["ended"]["counters"]["up_bytes"].as_u64(), Some(900));
    assert_eq!(ended["ended"]["reason"].as_str(), Some("killed"));
    assert!(ended["actor"].as_str().is_some_and(|actor| actor.starts_with("agent:site_")));
    assert_eq!(json("session.ending")["detail"].as_str(), Some("wrong device (by otto)"));
    assert_eq!(json("request.created")["request"]["decision"]["rules"][0].as_str(), Some("requesters"));
}

#[test]
fn a_gateways_own_word_ends_a_session_unless_something_else_had_begun() {
    for (said, noted) in [
        (EndReason::Expired, EndReason::Expired),
        (EndReason::Idle, EndReason::Idle),
        (EndReason::Isolated, EndReason::Isolated),
        (EndReason::Offline, EndReason::Offline),
        (EndReason::Failed, EndReason::Failed),
        (EndReason::Killed, EndReason::Failed),
        (EndReason::Policy, EndReason::Failed),
    ] {
        let mut lab = Lab::new();
        let id = lab.open(600);
        lab.close(id, said);
        assert_eq!(lab.end(id), (SessionState::Ended, Some(noted)), "{said}");
    }
    let mut lab = Lab::new();
    let id = lab.open(600);
    lab.take(person("otto"), Command::Kill { session: id, reason: "stop".to_owned() });
    lab.close(id, EndReason::Expired);
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Killed)));
}

#[test]
fn a_closing_record_counts_once_and_only_from_its_own_site() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let other = lab.add_site("south");
    let closing = lab.closing(id, EndReason::Expired);
    lab.refuse(Actor::Agent(other), Command::Close(closing), ErrorCode::NotFound);
    lab.close(id, EndReason::Expired);
    let length = lab.log.len();
    lab.close(id, EndReason::Expired);
    assert_eq!(lab.log.len(), length, "sent again, noted once");
}

#[test]
fn a_killed_session_out_of_reach_is_ending_until_its_deadline_and_takes_its_counters_later() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    lab.take(person("otto"), Command::Kill { session: id, reason: "stop".to_owned() });
    lab.wait(secs(599));
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Killed)));
    lab.wait(secs(4));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Killed)));
    assert!(!lab.session(id).counters_final);
    lab.wait(secs(3600));
    lab.close(id, EndReason::Expired);
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Killed)), "late, and the reason stands");
    assert!(lab.session(id).counters_final);
    assert_eq!(lab.kinds().last().map(String::as_str), Some("session.closed-late"));
    let length = lab.log.len();
    lab.close(id, EndReason::Expired);
    assert_eq!(lab.log.len(), length);
    lab.check_replay();
}

#[test]
fn an_open_session_whose_gateway_is_away_expires_with_the_last_counters_seen() {
    let mut lab = Lab::new();
    let id = lab.open(60);
    let site = lab.site("north");
    let seen =
        |up_packets| Observation { counters: Counters { up_packets, ..Counters::default() }, ..Observation::default() };
    assert!(lab.world.observe(&site, id, seen(40)));
    assert!(lab.world.observe(&site, id, seen(30)), "an older report takes nothing back");
    assert_eq!(lab.world.session_view(&id, lab.now).expect("a view").counters.up_packets, 40);
    lab.wait(secs(63));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Expired)));
    assert_eq!((lab.session(id).counters.up_packets, lab.session(id).counters_final), (40, false));
    assert!(!lab.world.observe(&site, id, seen(50)), "it is over");
}

#[test]
fn arming_that_takes_too_long_fails_and_a_late_answer_opens_nothing() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 600);
    let id = lab.activate("alice", request, 1);
    lab.wait(secs(29));
    assert_eq!(lab.session(id).state, SessionState::Arming);
    lab.wait(secs(1));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)));
    lab.arm(id, 101);
    assert_eq!((lab.session(id).state, lab.session(id).gateway_key), (SessionState::Ended, None));
    assert!(lab.world.desired(&lab.site("north")).grants.is_empty());
}

#[test]
fn stopping_a_session_that_is_still_arming_ends_it_at_once() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 600);
    let id = lab.activate("alice", request, 1);
    lab.take(person("alice"), Command::Release { session: id });
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Released)));
    lab.take(person("alice"), Command::Release { session: id });
}

#[test]
fn a_refused_grant_ends_its_session_and_names_the_reason() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 600);
    let id = lab.activate("alice", request, 1);
    let (site, serial) = (lab.site("north"), lab.session(id).serial);
    let refuse = |serial| Command::Refuse {
        session: id,
        serial,
        reason: RefuseReason::CeilingPort,
        detail: "502 is not allowed\n\u{1b}[2J".to_owned(),
    };
    lab.take(Actor::Agent(site), refuse(serial + 1));
    assert_eq!(lab.session(id).state, SessionState::Arming, "another serial's refusal is not this one's");
    lab.take(Actor::Agent(site), refuse(serial));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)));
    let detail = lab.session(id).end_detail.clone().expect("a reason");
    assert!(detail.contains("ceiling-port") && !detail.contains('\u{1b}'), "{detail:?}");
    assert!(lab.kinds().contains(&"grant.refused".to_owned()));
    lab.refuse(
        person("alice"),
        Command::Activate { request, engineer_key: key(3), native: false, clock: lab.clock() },
        ErrorCode::Ended,
    );
}

#[test]
fn a_reboot_of_the_gateway_ends_its_sessions_and_old_clocks_open_nothing() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let id = lab.open(600);
    let request = lab.approved("alice", "meter-1", 60);
    lab.hello(&site, BOOT);
    assert_eq!(lab.session(id).state, SessionState::Active, "a reconnect is no reboot");
    lab.hello(&site, BootId([8; 16]));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)));
    let command = Command::Activate { request, engineer_key: key(2), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), command, ErrorCode::SiteUnreachable);
    lab.check_replay();
}

#[test]
fn an_isolated_site_closes_its_sessions_and_opens_none() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let id = lab.open(600);
    let request = lab.approved("alice", "meter-1", 60);
    let status = |isolated| Command::Status { isolated, why_not_ready: None, backend: None, lan: Vec::new() };
    lab.take(Actor::Agent(site), status(true));
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Isolated)));
    let activate = |lab: &Lab| Command::Activate { request, engineer_key: key(2), native: false, clock: lab.clock() };
    let command = activate(&lab);
    lab.refuse(person("alice"), command, ErrorCode::Isolated);
    lab.take(Actor::Agent(site), status(false));
    let command = activate(&lab);
    lab.take(person("alice"), command);
}

#[test]
fn a_gateway_that_is_not_ready_arms_nothing() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let request = lab.approved("alice", "meter-1", 60);
    let why = Some("a flowtable touches br-lan".to_owned());
    lab.take(
        Actor::Agent(site),
        Command::Status { isolated: false, why_not_ready: why, backend: None, lan: Vec::new() },
    );
    let command = Command::Activate { request, engineer_key: key(2), native: false, clock: lab.clock() };
    let refusal = lab.refuse(person("alice"), command, ErrorCode::SiteRefused);
    assert!(refusal.to_string().contains("flowtable"));
}

#[test]
fn two_gateways_with_one_identity_freeze_the_site_until_ops_unlock_it() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let id = lab.open(600);
    lab.effects.clear();
    lab.take(Actor::System, Command::FreezeSite { site, reason: "two connections".to_owned() });
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Failed)));
    assert!(lab.effects.contains(&Effect::DropAgent { site }));
    assert!(lab.effects.iter().any(|effect| matches!(effect, Effect::Alarm { .. })));
    let request = lab.approved("alice", "meter-1", 60);
    let activate = |lab: &Lab| Command::Activate { request, engineer_key: key(2), native: false, clock: lab.clock() };
    let command = activate(&lab);
    lab.refuse(person("alice"), command, ErrorCode::Locked);
    lab.take(person("otto"), Command::Unlock { target: LockTarget::Site(name("north")) });
    let command = activate(&lab);
    lab.take(person("alice"), command);
    lab.check_replay();
}

#[test]
fn a_key_that_a_live_session_uses_is_refused_at_either_end() {
    let mut lab = Lab::new();
    lab.open(600);
    let request = lab.approved("adam", "meter-1", 60);
    for used in [1, 101] {
        let command = Command::Activate { request, engineer_key: key(used), native: false, clock: lab.clock() };
        lab.refuse(person("adam"), command, ErrorCode::Conflict);
    }
    let id = lab.activate("adam", request, 2);
    lab.arm(id, 101);
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)), "a gateway key of another session");
}

#[test]
fn an_extension_is_a_later_grant_of_the_same_lane() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let (before, ends_at) = (lab.session(id).grant(), lab.session(id).ends_at);
    lab.effects.clear();
    let extend = |seconds| Command::Extend { session: id, seconds, reason: "CODE-7".to_owned() };
    lab.take(person("alice"), extend(900));
    let after = lab.session(id).grant();
    assert!(before.extends_to(&after), "{after:?}");
    assert_eq!((after.deadline, lab.session(id).ends_at), (before.deadline + secs(900), ends_at + secs(900)));
    let until = lab.now.mono + secs(1500);
    assert!(lab.effects.contains(&Effect::RelayExtend { session: id, until }));
    lab.refuse(person("alice"), extend(1), ErrorCode::Conflict);
    lab.arm(id, 101);
    lab.wait(secs(1400));
    assert_eq!(lab.session(id).state, SessionState::Active);
    // 60 minutes are the task's longest; 25 are used up.
    let refusal = lab.refuse(person("alice"), extend(36 * 60), ErrorCode::PolicyDenied);
    assert!(refusal.to_string().contains("1h"), "{refusal}");
    lab.take(person("alice"), extend(35 * 60));
    lab.check_replay();
}

#[test]
fn the_policy_may_leave_extensions_to_ops() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let extend = |seconds| Command::Extend { session: id, seconds, reason: "CODE-7".to_owned() };
    for (most, alone) in [("10m", 600), ("0s", 0)] {
        let rules = format!("{RULES}\n[[require]]\nid = \"ops-extend\"\nextend = \"{most}\"\n");
        lab.policy = PolicyState::load(&[("t", TASKS), ("r", &rules)]);
        if alone > 0 {
            lab.take(person("alice"), extend(alone));
            lab.arm(id, 101);
        }
        let refusal = lab.refuse(person("alice"), extend(1), ErrorCode::PolicyDenied);
        assert!(refusal.next().is_some_and(|next| next.contains("ask ops")), "{refusal}");
    }
    lab.take(person("otto"), extend(900));
    assert_eq!(lab.session(id).seconds, 600 + 600 + 900);
    lab.check_replay();
}

#[test]
fn ops_extend_an_engineers_session_within_what_the_policy_permits_the_engineer() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let extend = |seconds| Command::Extend { session: id, seconds, reason: "on the phone".to_owned() };
    for who in ["adam", "bob"] {
        lab.refuse(person(who), extend(60), ErrorCode::Forbidden);
    }
    lab.refuse(person("otto"), extend(51 * 60), ErrorCode::PolicyDenied);
    lab.take(person("otto"), extend(900));
    assert_eq!(lab.session(id).seconds, 1500);
    lab.arm(id, 101);
    lab.take(
        person("otto"),
        Command::Lock { target: LockTarget::User(name("alice")), time: None, reason: "r".to_owned() },
    );
    lab.refuse(person("otto"), extend(60), ErrorCode::Locked);
    lab.check_replay();
}

#[test]
fn a_refused_extension_leaves_the_end_where_it_was() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let (site, ends_at, before) = (lab.site("north"), lab.session(id).ends_at, lab.session(id).grant());
    lab.take(person("alice"), Command::Extend { session: id, seconds: 900, reason: "more".to_owned() });
    let serial = lab.session(id).serial;
    let reason = RefuseReason::CeilingLongest;
    lab.take(Actor::Agent(site), Command::Refuse { session: id, serial, reason, detail: String::new() });
    assert_eq!((lab.session(id).ends_at, lab.session(id).grant()), (ends_at, before), "the grant that stands there");
    assert_eq!(lab.session(id).state, SessionState::Active);
    lab.wait(secs(603));
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Expired)));
    lab.check_replay();
}

#[test]
fn a_free_sessions_extension_that_needs_an_approval_is_denied() {
    let mut lab = Lab::new();
    // Ten minutes on a meter are free; the policy takes that offer for more as well, cut to ten minutes.
    let request = lab.request("alice", "meter-1", Some(1200));
    assert_eq!(
        (lab.request_state(request), lab.world.request(&request).map(|it| it.seconds)),
        (RequestState::Approved, Some(600))
    );
    let id = lab.activate("alice", request, 1);
    lab.arm(id, 101);
    let command = Command::Extend { session: id, seconds: 1, reason: "more".to_owned() };
    lab.refuse(person("alice"), command, ErrorCode::PolicyDenied);
}

#[test]
fn a_policy_that_forbids_ends_what_runs_and_one_that_merely_stops_permitting_does_not() {
    let load = |lab: &mut Lab, rules: &str| {
        lab.policy = PolicyState::load(&[("t", TASKS), ("r", rules)]);
        lab.take(Actor::System, Command::PolicyChanged);
    };
    let mut lab = Lab::new();
    let id = lab.open(600);
    let waiting = lab.approved("alice", "plc-1", 60);
    load(&mut lab, "");
    assert_eq!(lab.session(id).state, SessionState::Active);
    let command = Command::Activate { request: waiting, engineer_key: key(2), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), command.clone(), ErrorCode::PolicyDenied);
    load(&mut lab, "[[");
    assert_eq!((lab.session(id).state, lab.world.policy_hash()), (SessionState::Active, None));
    lab.refuse(person("alice"), command.clone(), ErrorCode::PolicyInvalid);
    lab.refuse(person("alice"), Command::CreateRequest(wish("plc-1", None)), ErrorCode::PolicyInvalid);
    load(&mut lab, &format!("{RULES}\n[[require]]\nid = \"two\"\napprovals = 2\n"));
    lab.refuse(person("alice"), command, ErrorCode::PolicyDenied);
    load(&mut lab, &format!("{RULES}\n[[forbid]]\nid = \"no-alice\"\nuser = [\"alice\"]\n"));
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Policy)));
    assert!(lab.session(id).ending.as_ref().and_then(|it| it.detail.clone()).is_some_and(|it| it.contains("no-alice")));
    let length = lab.log.len();
    lab.take(Actor::System, Command::PolicyChanged);
    assert_eq!(lab.log.len(), length, "the same policy again is no news");
    lab.check_replay();
}

#[test]
fn a_task_that_is_gone_ends_its_sessions() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let tasks = TASKS.replace("[task.modbus]", "[task.modbus-new]");
    lab.policy = PolicyState::load(&[("t", tasks.as_str()), ("r", RULES)]);
    lab.take(Actor::System, Command::PolicyChanged);
    assert_eq!(lab.end(id), (SessionState::Ending, Some(EndReason::Policy)));
}

#[test]
fn hostile_numbers_from_a_gateway_stay_within_what_json_holds() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let site = lab.site("north");
    let most = u64::MAX;
    let counters = Counters {
        up_packets: most,
        up_bytes: most,
        down_packets: most,
        down_bytes: most,
        denied_packets: most,
        spoofed_packets: most,
    };
    lab.world.observe(&site, id, Observation { counters, ..Observation::default() });
    let closing = Closing {
        counters,
        late_packets: most,
        last_handshake_at: Some(Wall::from_millis(i64::MIN)),
        record: "x".repeat(1 << 20),
        verified: false,
        ..lab.closing(id, EndReason::Expired)
    };
    lab.take(Actor::Agent(site), Command::Close(closing));
    lab.take(
        Actor::Agent(site),
        Command::AgentAlarm { number: most, boot: BOOT, kind: "x".repeat(5000), detail: "y".repeat(5000) },
    );
    let request = lab.approved("alice", "plc-1", 60);
    let clock = AgentClock { boot: BOOT, time: Boot(most) };
    lab.refuse(
        person("alice"),
        Command::Activate { request, engineer_key: key(9), native: false, clock },
        ErrorCode::SiteUnreachable,
    );
    assert!(lab.log.iter().all(|entry| serde_json::to_string(entry).expect("JSON").len() < 8_000));
    lab.check_replay();
}

#[test]
fn alarms_of_a_gateway_are_noted_once_each() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let alarm =
        |number, boot| Command::AgentAlarm { number, boot, kind: "ruleset-flushed".to_owned(), detail: String::new() };
    let count = |lab: &Lab| lab.kinds().iter().filter(|kind| *kind == "alarm.raised").count();
    for (number, boot, after) in [(1, BOOT, 1), (1, BOOT, 1), (2, BOOT, 2), (3, BootId([9; 16]), 2)] {
        lab.take(Actor::Agent(site), alarm(number, boot));
        assert_eq!(count(&lab), after);
    }
    lab.hello(&site, BootId([9; 16]));
    lab.take(Actor::Agent(site), alarm(1, BootId([9; 16])));
    assert_eq!(count(&lab), 3, "a new boot counts anew");
    lab.check_replay();
}

#[test]
fn a_gateway_that_takes_back_an_open_lane_ends_it_with_its_closing_record() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let (site, serial) = (lab.site("north"), lab.session(id).serial);
    let (reason, detail) = (RefuseReason::Signature, String::new());
    lab.take(Actor::Agent(site), Command::Refuse { session: id, serial, reason, detail });
    assert_eq!(
        lab.end(id),
        (SessionState::Ending, Some(EndReason::Failed)),
        "the lane may stand until it says otherwise"
    );
    lab.close(id, EndReason::Failed);
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)));
    assert!(lab.session(id).counters_final);
}

#[test]
fn a_policy_that_names_strangers_is_loaded_and_says_so() {
    let mut lab = Lab::new();
    let rules = "[[forbid]]\nid = \"f\"\nuser = [\"vera\", \"vear\"]\norg = [\"acme\", \"amce\"]\n\
                 asset = { site = [\"north\", \"nroth\"], name = [\"plc-1\", \"plc-l\"] }\n";
    lab.policy = PolicyState::load(&[("t", TASKS), ("r", rules)]);
    lab.take(Actor::System, Command::PolicyChanged);
    let Some(Entry { event: Event::PolicyLoaded { strangers, .. }, .. }) = lab.log.last() else { panic!("a load") };
    let named: Vec<&str> = strangers.iter().filter_map(|it| it.split(" names ").nth(1)?.split(',').next()).collect();
    assert_eq!(named, ["user vear", "org amce", "site nroth", "asset plc-l"]);
    lab.check_replay();
}

#[test]
fn an_answer_to_another_grant_arms_nothing_and_confirms_nothing() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 600);
    let id = lab.activate("alice", request, 1);
    let (site, serial, deadline) = (lab.site("north"), lab.session(id).serial, lab.session(id).deadline);
    let armed =
        |serial| Command::Armed { session: id, serial, gateway_key: key(101), deadline, backend: "kernel".to_owned() };
    lab.take(Actor::Agent(site), armed(serial + 1));
    lab.take(Actor::Agent(site), armed(0));
    assert_eq!(lab.session(id).state, SessionState::Arming);
    lab.take(Actor::Agent(site), armed(serial));
    lab.take(person("alice"), Command::Extend { session: id, seconds: 60, reason: "r".to_owned() });
    lab.take(Actor::Agent(site), armed(serial));
    assert!(lab.session(id).unextended.is_some(), "the gateway still works by the first grant");
    lab.arm(id, 101);
    assert!(lab.session(id).unextended.is_none());
}
