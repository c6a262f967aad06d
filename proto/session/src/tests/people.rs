//! Who may do what, own requests, approvals, locks and ends of accounts.

use super::*;

#[test]
fn every_command_is_for_its_roles_and_refused_attempts_are_entries() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let request = lab.request("adam", "plc-1", None);
    let lock = || Command::Lock { target: LockTarget::User(name("adam")), time: None, reason: "r".to_owned() };
    let new = |login: &str| {
        Command::AddPerson(NewPerson {
            login: name(login),
            name: "N".to_owned(),
            org: None,
            sponsor: None,
            roles: Roles::from([Role::Requester]),
            until: None,
        })
    };
    let everyone = ["root", "adam", "bob", "otto", "tina", "rita"];
    let table: [(Command, &[&str]); 11] = [
        (new("nora"), &["root"]),
        (Command::ResetPerson { login: login("adam") }, &["root"]),
        (Command::AddSite { name: name("west"), endpoint: None }, &["root", "tina"]),
        (Command::IssueCode { site: name("north"), code_hash: "b".repeat(64) }, &["root", "tina", "otto"]),
        (Command::AddAsset(spec("plc-9", "north", "192.168.1.99", "plc")), &["root", "tina"]),
        (Command::RemoveAsset { asset: name("meter-1") }, &["root", "tina"]),
        (Command::CreateRequest(wish("plc-1", None)), &["adam"]),
        (Command::ApproveRequest { request, note: None }, &["bob"]),
        (Command::Kill { session: id, reason: "r".to_owned() }, &["root", "otto"]),
        (lock(), &["root", "otto"]),
        (Command::PolicyChanged, &[]),
    ];
    for (command, allowed) in table {
        for who in everyone {
            // Each tries in the same world.
            let (world, log, stored) = (lab.world.clone(), lab.log.clone(), lab.stored.clone());
            let result = lab.run(person(who), command.clone());
            match &result {
                Ok(_) => assert!(allowed.contains(&who), "{who} could {}", command.name()),
                Err(refusal) => {
                    assert!(!allowed.contains(&who), "{who} could not {}: {refusal}", command.name());
                    assert_eq!(refusal.code(), ErrorCode::Forbidden, "{who} {}: {refusal}", command.name());
                    let last = lab.log.last().expect("an entry");
                    assert_eq!((kind(last), last.actor.clone()), ("attempt.refused".to_owned(), person(who)));
                }
            }
            (lab.world, lab.log, lab.stored) = (world, log, stored);
        }
    }
}

#[test]
fn an_agent_may_do_nothing_that_people_do_and_people_nothing_that_agents_do() {
    let mut lab = Lab::new();
    let id = lab.open(600);
    let site = lab.site("north");
    lab.refuse(Actor::Agent(site), Command::Kill { session: id, reason: "r".to_owned() }, ErrorCode::Forbidden);
    lab.refuse(Actor::Agent(site), Command::CreateRequest(wish("plc-1", None)), ErrorCode::Forbidden);
    let closing = lab.closing(id, EndReason::Expired);
    lab.refuse(person("root"), Command::Close(closing), ErrorCode::Forbidden);
    let stranger = SiteId::from_random([1; 5]);
    lab.refuse(
        Actor::Agent(stranger),
        Command::Hello { boot: BOOT, version: String::new(), backend: None },
        ErrorCode::NotFound,
    );
    lab.refuse(person("nobody"), Command::CreateRequest(wish("plc-1", None)), ErrorCode::NotFound);
}

#[test]
fn nobody_decides_an_own_request() {
    let mut lab = Lab::new();
    lab.add_person("dora", &[Role::Requester, Role::Approver, Role::Ops, Role::Admin], None);
    let request = lab.request("dora", "plc-1", None);
    let refusal = lab.refuse(person("dora"), Command::ApproveRequest { request, note: None }, ErrorCode::Forbidden);
    assert_eq!(refusal, Refusal::OwnRequest);
    lab.refuse(person("dora"), Command::DenyRequest { request, reason: "r".to_owned() }, ErrorCode::Forbidden);
    assert_eq!(lab.request_state(request), RequestState::Pending);
    assert_eq!(lab.kinds().last().map(String::as_str), Some("attempt.refused"));
}

#[test]
fn an_external_needs_the_permits_approver_and_ops() {
    let mut lab = Lab::new();
    let request = lab.request("vera", "plc-1", Some(60));
    lab.take(person("bob"), Command::ApproveRequest { request, note: None });
    assert_eq!(lab.request_state(request), RequestState::Pending);
    lab.refuse(person("bob"), Command::ApproveRequest { request, note: None }, ErrorCode::Conflict);
    lab.take(person("carol"), Command::ApproveRequest { request, note: None });
    assert_eq!(lab.request_state(request), RequestState::Pending, "a second approver is no ops");
    let missing: Vec<u32> = lab
        .world
        .request_view(&request)
        .expect("a view")
        .decision
        .obligations
        .approvers
        .iter()
        .map(|it| it.missing)
        .collect();
    assert_eq!(missing, [0, 1]);
    lab.take(person("otto"), Command::ApproveRequest { request, note: None });
    assert_eq!(lab.request_state(request), RequestState::Approved);
    lab.activate("vera", request, 1);
}

#[test]
fn one_person_with_both_roles_meets_both_needs_but_never_counts_twice_for_one() {
    let mut lab = Lab::new();
    lab.add_person("dora", &[Role::Approver, Role::Ops], None);
    let request = lab.request("vera", "plc-1", Some(60));
    lab.take(person("dora"), Command::ApproveRequest { request, note: None });
    assert_eq!(lab.request_state(request), RequestState::Approved);

    lab.policy = PolicyState::load(&[("t", TASKS), ("r", "[[permit]]\nid = \"two\"\napprovals = 2\n")]);
    lab.take(Actor::System, Command::PolicyChanged);
    let request = lab.request("alice", "plc-1", None);
    lab.take(person("dora"), Command::ApproveRequest { request, note: None });
    lab.refuse(person("dora"), Command::ApproveRequest { request, note: None }, ErrorCode::Conflict);
    assert_eq!(lab.request_state(request), RequestState::Pending);
    lab.take(person("bob"), Command::ApproveRequest { request, note: None });
    assert_eq!(lab.request_state(request), RequestState::Approved);
}

#[test]
fn a_denied_request_opens_nothing_and_says_who_denied_it() {
    let mut lab = Lab::new();
    let request = lab.request("alice", "plc-1", None);
    lab.take(person("bob"), Command::DenyRequest { request, reason: "not today".to_owned() });
    let command = Command::Activate { request, engineer_key: key(1), native: false, clock: lab.clock() };
    let refusal = lab.refuse(person("alice"), command, ErrorCode::Denied);
    assert!(refusal.to_string().contains("not today by bob"), "{refusal}");
    lab.refuse(person("carol"), Command::ApproveRequest { request, note: None }, ErrorCode::Denied);
}

#[test]
fn the_policys_own_no_is_a_denied_request_with_its_reasons() {
    let mut lab = Lab::new();
    lab.policy = PolicyState::load(&[("t", TASKS), ("r", "[[forbid]]\nid = \"closed\"\n")]);
    let request = lab.request("alice", "plc-1", None);
    let view = lab.world.request_view(&request).expect("a view");
    assert_eq!((view.state, view.decision.verdict.as_str()), (RequestState::Denied, "deny"));
    assert_eq!(view.decision.rules, ["closed"]);
    assert_eq!(view.decided_at, Some(lab.now.wall));
    let kinds = lab.kinds();
    assert_eq!(kinds[kinds.len() - 2..], ["request.created", "request.denied"]);
}

#[test]
fn only_the_requester_uses_releases_and_withdraws() {
    let mut lab = Lab::new();
    let request = lab.approved("alice", "plc-1", 60);
    for who in ["adam", "root", "otto"] {
        let command = Command::Activate { request, engineer_key: key(5), native: false, clock: lab.clock() };
        lab.refuse(person(who), command, ErrorCode::Forbidden);
        lab.refuse(person(who), Command::WithdrawRequest { request }, ErrorCode::Forbidden);
    }
    let id = lab.activate("alice", request, 1);
    lab.arm(id, 101);
    lab.refuse(person("adam"), Command::Release { session: id }, ErrorCode::Forbidden);
    lab.refuse(
        person("adam"),
        Command::Extend { session: id, seconds: 1, reason: "r".to_owned() },
        ErrorCode::Forbidden,
    );
    let again = Command::Activate { request, engineer_key: key(6), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), again, ErrorCode::Ended);
    let other = lab.approved("alice", "plc-1", 60);
    lab.take(person("alice"), Command::WithdrawRequest { request: other });
    assert_eq!(lab.request_state(other), RequestState::Withdrawn);
}

#[test]
fn a_lock_on_person_org_site_or_asset_ends_sessions_and_blocks_new_ones_until_it_is_lifted() {
    for target in [
        LockTarget::User(name("vera")),
        LockTarget::Org(name("acme")),
        LockTarget::Site(name("north")),
        LockTarget::Asset(name("plc-1")),
    ] {
        let mut lab = Lab::new();
        let approve = |lab: &mut Lab, request| {
            lab.take(person("bob"), Command::ApproveRequest { request, note: None });
            lab.take(person("otto"), Command::ApproveRequest { request, note: None });
        };
        let request = lab.request("vera", "plc-1", Some(600));
        approve(&mut lab, request);
        let open = lab.activate("vera", request, 1);
        lab.arm(open, 101);
        let waiting = lab.request("vera", "plc-1", Some(600));
        approve(&mut lab, waiting);
        let request = lab.request("vera", "plc-1", Some(600));
        approve(&mut lab, request);
        let arming = lab.activate("vera", request, 2);

        let lock = Command::Lock { target: target.clone(), time: None, reason: "incident 4".to_owned() };
        let Answer::Lock { id, sessions } = lab.take(person("otto"), lock) else { panic!("a lock") };
        assert_eq!(sessions.len(), 2, "{target}");
        assert_eq!(lab.end(open), (SessionState::Ending, Some(EndReason::Locked)), "{target}");
        assert_eq!(lab.end(arming), (SessionState::Ended, Some(EndReason::Locked)), "{target}");
        let view = lab.world.lock_view(&id, &sessions).expect("a view");
        assert_eq!((view.ended_sessions.len(), view.ending_sessions.len()), (1, 1));
        let command = Command::Activate { request: waiting, engineer_key: key(3), native: false, clock: lab.clock() };
        let refusal = lab.refuse(person("vera"), command.clone(), ErrorCode::Locked);
        assert!(refusal.to_string().contains("incident 4"));
        lab.refuse(person("vera"), Command::CreateRequest(wish("plc-1", None)), ErrorCode::Locked);
        let logs_out = matches!(target, LockTarget::User(_) | LockTarget::Org(_));
        assert_eq!(lab.effects.contains(&Effect::LogOut { login: name("vera") }), logs_out, "{target}");

        lab.take(person("otto"), Command::Unlock { target: target.clone() });
        lab.refuse(person("otto"), Command::Unlock { target }, ErrorCode::NotFound);
        lab.take(person("vera"), command);
        lab.check_replay();
    }
}

#[test]
fn a_lock_for_a_time_lifts_itself_and_a_second_one_never_shortens_it() {
    let mut lab = Lab::new();
    let target = LockTarget::Asset(name("plc-1"));
    let lock = |time| Command::Lock { target: LockTarget::Asset(name("plc-1")), time, reason: "r".to_owned() };
    lab.take(person("otto"), lock(Some(secs(600))));
    lab.take(person("otto"), lock(Some(secs(60))));
    lab.wait(secs(599));
    lab.refuse(person("alice"), Command::CreateRequest(wish("plc-1", None)), ErrorCode::Locked);
    lab.wait(secs(1));
    lab.take(person("alice"), Command::CreateRequest(wish("plc-1", None)));
    lab.take(person("otto"), lock(Some(secs(60))));
    lab.take(person("otto"), lock(None));
    lab.take(person("otto"), lock(Some(secs(60))));
    lab.wait(days(400));
    assert!(lab.world.lock_of(&target).is_some(), "locked without an end stays locked");
    assert_eq!(lab.world.locks().count(), 1);
    lab.refuse(person("otto"), lock(Some(secs(u64::MAX))), ErrorCode::Invalid);
    lab.check_replay();
}

#[test]
fn nobody_locks_or_unlocks_an_own_account() {
    let mut lab = Lab::new();
    let target = LockTarget::User(name("otto"));
    let lock = Command::Lock { target: target.clone(), time: None, reason: "r".to_owned() };
    let refusal = lab.refuse(person("otto"), lock.clone(), ErrorCode::Forbidden);
    assert!(refusal.to_string().contains("own account"), "{refusal}");
    let unlock = Command::Unlock { target: target.clone() };
    assert_eq!(lab.refuse(person("otto"), unlock, ErrorCode::Forbidden), refusal);
    lab.take(person("root"), lock);
    lab.refuse(person("otto"), Command::Unlock { target }, ErrorCode::Locked);
}

#[test]
fn an_account_that_ended_does_nothing_and_cuts_its_last_session() {
    let mut lab = Lab::new();
    let until = lab.now.wall + secs(300);
    let new = NewPerson {
        login: name("tom"),
        name: "Tom".to_owned(),
        org: None,
        sponsor: None,
        roles: Roles::from([Role::Requester]),
        until: Some(until),
    };
    lab.take(person("root"), Command::AddPerson(new));
    let request = lab.approved("tom", "plc-1", 600);
    let waiting = lab.approved("tom", "plc-1", 600);
    let id = lab.activate("tom", request, 1);
    assert_eq!((lab.session(id).seconds, lab.session(id).ends_at), (300, until));
    lab.wait(secs(300));
    assert_eq!(lab.world.user_view(&login("tom"), lab.now.wall).expect("a view").state, "ended");
    let command = Command::Activate { request: waiting, engineer_key: key(2), native: false, clock: lab.clock() };
    lab.refuse(person("tom"), command, ErrorCode::Locked);
}

#[test]
fn an_external_needs_a_sponsor_who_is_one_of_our_own() {
    let mut lab = Lab::new();
    let new = |org: Option<&str>, sponsor: Option<&str>| {
        Command::AddPerson(NewPerson {
            login: name("eve"),
            name: "Eve".to_owned(),
            org: org.map(name),
            sponsor: sponsor.map(name),
            roles: Roles::from([Role::Requester]),
            until: None,
        })
    };
    lab.refuse(person("root"), new(Some("acme"), None), ErrorCode::Invalid);
    lab.refuse(person("root"), new(None, Some("alice")), ErrorCode::Invalid);
    lab.refuse(person("root"), new(Some("acme"), Some("vera")), ErrorCode::Invalid);
    lab.refuse(person("root"), new(Some("acme"), Some("nobody")), ErrorCode::NotFound);
    lab.take(person("root"), new(Some("acme"), Some("alice")));
    lab.refuse(person("root"), new(Some("acme"), Some("alice")), ErrorCode::Conflict);
}

#[test]
fn texts_that_could_forge_a_log_line_are_refused() {
    let mut lab = Lab::new();
    for reason in ["", "   ", "a\nb", "\u{1b}[2J", "a\u{202e}b", &"x".repeat(501)] {
        let new = NewRequest { reason: reason.to_owned(), ..wish("plc-1", None) };
        lab.refuse(person("alice"), Command::CreateRequest(new), ErrorCode::Invalid);
    }
    let new = NewRequest { reason: "Pumpe läuft nicht – Störung".to_owned(), ..wish("plc-1", None) };
    lab.take(person("alice"), Command::CreateRequest(new));
}

#[test]
fn a_person_has_only_so_many_open_requests() {
    let mut lab = Lab::new();
    let request = lab.request("alice", "plc-1", None);
    let set: BTreeSet<RequestId> = (0..1000u32)
        .map(|at| {
            let [a, b, c, d] = at.to_be_bytes();
            RequestId::from_random([a, b, c, d, 1])
        })
        .collect();
    lab.world.index.open_requests.insert(login("alice"), set);
    lab.refuse(person("alice"), Command::CreateRequest(wish("plc-1", None)), ErrorCode::Limit);
    lab.take(person("adam"), Command::CreateRequest(wish("plc-1", None)));
    assert_eq!(lab.request_state(request), RequestState::Pending);
}

#[test]
fn set_up_and_reset_show_in_the_persons_state() {
    let mut lab = Lab::new();
    let state = |lab: &Lab| lab.world.user_view(&login("alice"), lab.now.wall).expect("a view").state;
    assert_eq!(state(&lab), "invited");
    let note = Note::SetUp { login: login("alice"), address: "192.0.2.1".to_owned() };
    lab.refuse(person("adam"), Command::Note(note.clone()), ErrorCode::Forbidden);
    lab.take(Actor::System, Command::Note(note));
    assert_eq!(state(&lab), "active");
    lab.effects.clear();
    lab.take(person("root"), Command::ResetPerson { login: login("alice") });
    assert_eq!(state(&lab), "invited");
    assert!(lab.effects.contains(&Effect::LogOut { login: login("alice") }), "tokens end with the reset");
}
