//! What keys make of the screen, above all: that what is confirmed is what was meant.

mod common;

use common::{RICH, at, entry, event, hello_as, id, overview, picture, request, session, site, small, write};
use serde_json::json;
use thinlane_model::Span;
use thinlane_tui::act::Deed;
use thinlane_tui::table::RowId;
use thinlane_tui::{Answer, App, Effect, Input, Key, View};
use thinlane_wire::api::LockKind;

fn deed(effects: Vec<Effect>) -> Deed {
    match effects.into_iter().next() {
        Some(Effect::Act { deed, .. }) => deed,
        other => panic!("no deed: {other:?}"),
    }
}

fn selected(app: &App) -> String {
    match &app.list(View::Sessions).selected {
        Some(RowId::Session(id)) => id.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Draws, so that what is asked has been seen.
fn look(app: &mut App) -> String {
    picture(app, 80, 24, at(0)).join("\n")
}

#[test]
fn a_kill_names_the_peer_and_hits_it() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('x'), at(0));
    let seen = look(&mut app).replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        seen.contains(&format!("Kill {}: anna on south-rtu1 at south, iec104, 5 min left", id("ses", 1))),
        "{seen}"
    );
    let done = deed(app.press(Key::Enter, at(0)));
    let session = id("ses", 1).parse().expect("an id");
    assert_eq!(done, Deed::Kill { session, reason: "stopped by the operator".into() });
    app.told(Answer::Done("closed".into()), at(0));
    assert!(look(&mut app).contains("closed"));
}

#[test]
fn another_order_between_the_key_and_the_confirmation_changes_nothing() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Down, at(0));
    let meant = selected(&app);
    assert_eq!(meant, id("ses", 2));
    app.press(Key::Char('x'), at(0));
    look(&mut app);
    // Everybody else is about to end, and new ones come in above.
    for number in [3, 4, 5, 6, 7, 20, 21, 22] {
        app.take(event("session", session(number, 60_000 + number, 1, 1)), at(0));
    }
    app.take(
        event("session", {
            let mut one = session(1, 0, 1, 1);
            one["state"] = json!("ended");
            one
        }),
        at(0),
    );
    look(&mut app);
    match deed(app.press(Key::Enter, at(0))) {
        Deed::Kill { session, .. } => assert_eq!(session.to_string(), meant),
        other => panic!("{other:?}"),
    }
    assert_eq!(selected(&app), meant, "and it is still the selected one");
}

#[test]
fn a_selected_row_that_leaves_is_not_replaced_by_its_neighbour() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    look(&mut app);
    write(&mut app, "/south", at(0));
    app.press(Key::Enter, at(0));
    let sessions = (2..=7).map(|number| session(number, number * 300_000, 1, 1)).collect();
    app.take(overview(sessions, Vec::new(), Vec::new()), at(0));
    // Long enough for the ended one to leave the screen.
    app.take(Input::Alive, at(200_000));
    app.tick(at(200_000));
    let seen = picture(&mut app, 120, 24, at(200_000)).join("\n");
    assert!(seen.contains("the selected row has left the list"), "{seen}");
    assert!(app.press(Key::Char('x'), at(200_000)).is_empty());
    assert!(app.over.is_none(), "nobody is asked about the neighbour");
    assert!(picture(&mut app, 120, 24, at(200_000)).join("\n").contains("not open any more"));
}

#[test]
fn nothing_selected_means_nothing_is_asked() {
    for (view, key) in [('1', 'x'), ('1', 'l'), ('1', 'e'), ('2', 'a'), ('2', 'd'), ('3', 't'), ('3', 'u'), ('3', 'l')]
    {
        let mut app = small(RICH);
        app.press(Key::Char(view), at(0));
        assert!(app.press(Key::Char(key), at(0)).is_empty());
        assert!(app.over.is_none(), "{key} in view {view}");
    }
}

#[test]
fn enter_that_was_typed_ahead_confirms_nothing() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('x'), at(0));
    assert!(app.press(Key::Enter, at(0)).is_empty(), "the question was not on the screen yet");
    look(&mut app);
    assert_eq!(app.press(Key::Enter, at(0)).len(), 1);
}

#[test]
fn pasted_text_is_letters_and_never_keys() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.paste("x\r\nq");
    assert!(app.over.is_none());
    app.press(Key::Char('x'), at(0));
    look(&mut app);
    app.paste("maintenance over\n");
    match deed(app.press(Key::Enter, at(0))) {
        Deed::Kill { reason, .. } => assert_eq!(reason, "maintenance over"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn escape_leaves_without_a_deed() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    for key in ['x', 'l', 'e'] {
        app.press(Key::Char(key), at(0));
        look(&mut app);
        assert!(app.press(Key::Esc, at(0)).is_empty());
        assert!(app.over.is_none());
    }
}

#[test]
fn a_reason_is_needed_and_typing_replaces_the_default() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('x'), at(0));
    look(&mut app);
    app.press(Key::Ctrl('u'), at(0));
    assert!(app.press(Key::Enter, at(0)).is_empty());
    assert!(look(&mut app).contains("a reason is needed"));
    write(&mut app, "wrong valve", at(0));
    app.press(Key::Backspace, at(0));
    match deed(app.press(Key::Enter, at(0))) {
        Deed::Kill { reason, .. } => assert_eq!(reason, "wrong valv"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_says_whose_sessions_it_ends_and_another_choice_must_be_read_first() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Down, at(0));
    app.press(Key::Char('l'), at(0));
    let seen = look(&mut app).replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(seen.contains("Lock person bert: ends 2 open sessions"), "{seen}");
    app.press(Key::Right, at(0));
    assert!(app.press(Key::Enter, at(0)).is_empty(), "the organisation was not on the screen yet");
    let seen = look(&mut app);
    assert!(seen.contains("Lock organisation acme: ends 3 open sessions"), "{seen}");
    app.press(Key::Tab, at(0));
    write(&mut app, "1h", at(0));
    let expected = Deed::Lock {
        kind: LockKind::Org,
        name: "acme".into(),
        time: Some(Span::from_secs(3600)),
        reason: "locked by the operator".into(),
    };
    assert_eq!(deed(app.press(Key::Enter, at(0))), expected);
}

#[test]
fn an_extension_takes_a_time_and_refuses_nonsense() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('e'), at(0));
    look(&mut app);
    write(&mut app, "soon", at(0));
    assert!(app.press(Key::Enter, at(0)).is_empty());
    assert!(look(&mut app).contains("a duration is written like"));
    app.press(Key::Ctrl('u'), at(0));
    write(&mut app, "20m", at(0));
    match deed(app.press(Key::Enter, at(0))) {
        Deed::Extend { time, .. } => assert_eq!(time, Span::from_secs(1200)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_decided_in_sight_of_what_the_policy_said() {
    let mut app = small(RICH);
    app.press(Key::Char('2'), at(0));
    app.press(Key::Down, at(0));
    assert!(look(&mut app).contains("requesters asks for 1 approval of approver, 1 missing"));
    app.press(Key::Char('a'), at(0));
    let seen = look(&mut app).replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(seen.contains("erik (acme) wants iec104 on north-rtu7 at north for 30 min"), "{seen}");
    assert!(seen.contains("Why: the pump stutters (ticket CHG-12). Policy: permit by requesters."), "{seen}");
    write(&mut app, "called him", at(0));
    let request = id("req", 90).parse().expect("an id");
    assert_eq!(deed(app.press(Key::Enter, at(0))), Deed::Approve { request, note: Some("called him".into()) });
    app.press(Key::Char('d'), at(0));
    look(&mut app);
    assert!(app.press(Key::Enter, at(0)).is_empty(), "a no needs a reason");
}

#[test]
fn a_frozen_picture_stands_still_says_how_far_behind_it_is_and_acts_on_the_world_as_it_is() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char(' '), at(0));
    let before: Vec<String> = picture(&mut app, 120, 24, at(0))[1..20].to_vec();
    let mut later = session(1, 132_000, 99_000, 1);
    later["remaining_ms"] = json!(120_000);
    app.take(event("session", later), at(12_000));
    let lines = picture(&mut app, 120, 24, at(12_000));
    assert_eq!(before, lines[1..20].to_vec());
    assert!(lines[0].ends_with("FROZEN 12 s behind, 1 change"), "{lines:#?}");
    app.press(Key::Char('x'), at(12_000));
    let seen = picture(&mut app, 120, 24, at(12_000)).join("\n");
    assert!(seen.contains("2 min left"), "what would be done is told of the world as it is: {seen}");
    app.press(Key::Esc, at(12_000));
    app.press(Key::Char(' '), at(12_000));
    assert!(picture(&mut app, 120, 24, at(12_000))[0].ends_with("live 03:00:12"));
}

#[test]
fn a_filter_takes_words_excludes_and_columns() {
    let passing = |filter: &str| {
        let mut app = small(RICH);
        app.press(Key::Char('/'), at(0));
        write(&mut app, filter, at(0));
        app.ids(at(0)).len()
    };
    assert_eq!(passing(""), 7);
    assert_eq!(passing("acme"), 3);
    assert_eq!(passing("acme !bert"), 2);
    assert_eq!(passing("site:north"), 2);
    assert_eq!(passing("NORTH"), 2);
    assert_eq!(passing("203.0.113.3:8064"), 1);
    assert_eq!(passing("nobody"), 0);
    assert_eq!(passing("site:"), 7, "a word that is still being written");
    let mut app = small(RICH);
    write(&mut app, "/acme", at(0));
    app.press(Key::Esc, at(0));
    assert_eq!(app.ids(at(0)).len(), 7, "Esc leaves it as it was");
}

#[test]
fn every_column_sorts_and_turns_round_and_equal_rows_keep_their_order() {
    let mut app = small(RICH);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        app.press(Key::Char('>'), at(0));
        let up = app.ids(at(0));
        assert_eq!(up, app.ids(at(0)));
        app.press(Key::Char('r'), at(0));
        assert_eq!(app.ids(at(0)).len(), up.len());
        seen.insert(app.list(View::Sessions).sort);
    }
    assert_eq!(seen.len(), app.list(View::Sessions).columns.len());
    app.list_mut(View::Sessions).sort = "left";
    app.list_mut(View::Sessions).reverse = true;
    assert_eq!(app.ids(at(0)).first(), Some(&RowId::Session(id("ses", 7).parse().expect("an id"))));
}

#[test]
fn chosen_columns_are_shown_at_once_kept_in_the_file_and_read_back() {
    let mut app = small(RICH);
    app.press(Key::Char('c'), at(0));
    app.press(Key::Down, at(0));
    app.press(Key::Char(' '), at(0));
    app.press(Key::Char('-'), at(0));
    let seen = look(&mut app);
    assert!(seen.lines().nth(1).is_some_and(|line| line.contains("who") && !line.contains(" org ")), "{seen}");
    let text = match app.press(Key::Enter, at(0)).into_iter().next() {
        Some(Effect::Save(text)) => text,
        other => panic!("{other:?}"),
    };
    let config = thinlane_tui::Config::parse(&text).expect("our own file");
    let again = App::new(config, RICH, jiff::tz::TimeZone::UTC).expect("a screen");
    assert_eq!(again.list(View::Sessions).columns, app.list(View::Sessions).columns);
    assert!(!again.list(View::Sessions).columns.contains(&"org"));
    let wrong = thinlane_tui::Config::parse("[sites]\ncolumns = [\"lnik\"]").expect("TOML");
    let error = App::new(wrong, RICH, jiff::tz::TimeZone::UTC).err().expect("refused").to_string();
    assert!(error.contains("lnik") && error.contains("generation"), "{error}");
}

#[test]
fn a_snapshot_after_a_gap_ends_what_ended_meanwhile_and_invents_no_traffic() {
    let mut app = small(RICH);
    app.take(Input::Lost { why: "gone".into(), retry_at: at(5_000).mono }, at(1_000));
    let later = session(2, 500_000, 50_000_000, 7);
    app.take(overview(vec![later], vec![request(91, "pending")], vec![site(1, "north", "online", 1)]), at(60_000));
    assert_eq!(app.model.live().count(), 1);
    let ended = app.model.sessions.values().filter(|peer| !peer.is_live()).count();
    assert_eq!(ended, 6, "their end is seen");
    let peer = app.model.live().next().expect("one");
    assert_eq!(peer.up.rate(at(62_000).mono), 0, "50 MB in the gap are no burst");
    assert_eq!(app.model.sites.len(), 1);
    assert_eq!(app.model.stale(at(61_000)), None);
}

#[test]
fn the_newest_alarm_is_followed_until_one_looks_at_an_older_one() {
    let mut app = small(RICH);
    let denied = |number: u64| {
        event(
            "denied",
            json!({"schema": 1, "at": thinlane_model::Wall::from_millis(common::NIGHT + number as i64), "site": "north", "session": id("ses", 1),
            "direction": "up", "source": "198.19.0.1", "destination": format!("198.18.0.{number}"), "protocol": "tcp", "port": 22, "packets": 1}),
        )
    };
    (0..60).for_each(|number| app.take(denied(number), at(0)));
    app.press(Key::Char('4'), at(0));
    assert!(look(&mut app).contains("198.18.0.59:22"));
    app.press(Key::PageUp, at(0));
    look(&mut app);
    (60..80).for_each(|number| app.take(denied(number), at(0)));
    assert!(!look(&mut app).contains("198.18.0.79:22"), "the window stays");
    app.press(Key::End, at(0));
    assert!(look(&mut app).contains("198.18.0.79:22"));
    // The same flow again is one line that counts; what was told before is not counted twice.
    let rows = app.model.notices.len();
    app.take(denied(79), at(0));
    assert_eq!(app.model.notices.len(), rows);
    assert_eq!(app.model.notices.back().map(|notice| notice.packets), Some(1));
}

#[test]
fn what_ones_roles_do_not_permit_is_said_before_anything_is_asked() {
    let mut app = small(RICH);
    app.take(hello_as(&["auditor"], None), at(0));
    for (view, key, says) in [
        (View::Sessions, 'x', "killing a session is for ops or admin, and you are auditor"),
        (View::Sessions, 'l', "locking is for ops or admin"),
        (View::Sessions, 'e', "giving more time is for ops or admin or requester"),
        (View::Requests, 'a', "is decided by approver, and you are auditor"),
        (View::Requests, 'd', "is decided by approver"),
        (View::Sites, 't', "an enrolment code is for site-tech or ops or admin"),
        (View::Sites, 'u', "unlocking is for ops or admin"),
    ] {
        app.view = view;
        app.press(Key::Down, at(0));
        app.press(Key::Char(key), at(0));
        assert!(app.over.is_none(), "{key} asked");
        let seen = look(&mut app);
        assert!(seen.contains(says), "{key}: {seen}");
    }
    let seen = look(&mut app);
    assert!(!seen.lines().last().is_some_and(|keys| keys.contains("code")), "what is refused is not offered: {seen}");
    app.press(Key::Char('?'), at(0));
    let help = picture(&mut app, 120, 200, at(0)).join(" ");
    assert!(help.contains("(for ops or admin, not for you) stop the selected session now"), "{help}");
    assert!(help.contains("What a filter understands") && help.contains("site:north"), "{help}");
}

#[test]
fn ones_own_request_and_one_that_is_approved_already_are_not_asked_about() {
    let mut app = small(RICH);
    let mut own = request(91, "pending");
    own["user"] = json!("olga");
    let mut half = request(92, "pending");
    half["approvals"] = json!([{"by": "olga", "roles": ["approver"], "at": "2026-11-22T02:59:00Z"}]);
    for (one, says) in
        [(own, "your own request"), (half, "is in already"), (request(93, "approved"), "approved already")]
    {
        app.take(overview(Vec::new(), vec![one], Vec::new()), at(0));
        app.view = View::Requests;
        app.list_mut(View::Requests).selected = None;
        app.press(Key::Down, at(0));
        app.press(Key::Char('a'), at(0));
        let seen = look(&mut app);
        assert!(app.over.is_none() && seen.contains(says), "{seen}");
    }
}

#[test]
fn a_log_in_that_ends_is_said_and_made_again_without_leaving_the_screen() {
    let mut app = small(RICH);
    app.take(hello_as(&["ops"], Some(12 * 60_000)), at(0));
    assert!(look(&mut app).contains("LOOK: your log-in ends in 12 min: L logs in again"));
    app.press(Key::Char('L'), at(0));
    write(&mut app, "correct horse", at(0));
    let seen = look(&mut app);
    assert!(seen.contains("Log in again as olga at hq:7443") && seen.contains("*************"), "{seen}");
    assert!(!seen.contains("correct"), "a password is on the screen: {seen}");
    assert!(!format!("{:?}", app.over).contains("correct"), "{:?}", app.over);
    assert!(app.press(Key::Enter, at(0)).is_empty(), "without a code");
    app.press(Key::Tab, at(0));
    write(&mut app, "123456", at(0));
    match deed(app.press(Key::Enter, at(0))) {
        Deed::LogIn { password, code } => assert_eq!((password.expose(), code.expose()), ("correct horse", "123456")),
        other => panic!("{other:?}"),
    }
    app.take(hello_as(&["ops"], Some(12 * 3_600_000)), at(0));
    assert!(!look(&mut app).contains("your log-in"));
    // Until somebody does, it is the first thing to be read.
    assert!(picture(&mut app, 80, 24, at(13 * 3_600_000)).join("\n").contains("NOW: your log-in has ended"));
}

#[test]
fn any_column_sorts_from_the_choice_of_columns_and_the_title_says_so() {
    let mut app = small(RICH);
    app.press(Key::Char('c'), at(0));
    for _ in 0..8 {
        app.press(Key::Down, at(0));
    }
    app.press(Key::Char('s'), at(0));
    app.press(Key::Char('s'), at(0));
    let sort = app.list(View::Sessions).sort;
    assert!(sort == "down" && app.list(View::Sessions).reverse, "{sort}");
    assert!(look(&mut app).lines().nth(1).is_some_and(|titles| titles.contains("down/▼")), "{}", look(&mut app));
    let effects = app.press(Key::Enter, at(0));
    assert!(
        matches!(&effects[..], [Effect::Save(text)] if text.contains("sort = \"down\"\nreverse = true")),
        "{effects:?}"
    );
    app.press(Key::Char('c'), at(0));
    app.press(Key::Char('s'), at(0));
    app.press(Key::Esc, at(0));
    assert_eq!(app.list(View::Sessions).sort, "down", "leaving changes nothing");
}

#[test]
fn a_whole_night_leaves_no_more_behind_than_an_hour() {
    let mut app = small(RICH);
    let mut most = (0, 0, 0, 0);
    for turn in 0..2_600u64 {
        let now = at(turn * 5_000);
        let mut over = session(100 + turn, 0, 1, 1);
        over["state"] = json!("ended");
        let mut decided = request(1_000 + turn, "denied");
        decided["id"] = json!(id("req", 1_000 + turn));
        let flow = json!({"schema": 1, "at": "2026-11-22T03:00:00Z", "site": "north", "session": id("ses", turn), "packets": 1, "direction": "up",
            "protocol": "tcp", "source": "198.19.0.1", "destination": "198.18.0.1", "port": turn});
        for input in [event("session", over), event("request", decided), event("denied", flow)] {
            app.take(input, now);
        }
        app.take(Input::Entries(vec![entry(turn, 0)]), now);
        app.tick(now);
        let model = &app.model;
        let size = (model.sessions.len(), model.requests.len(), model.notices.len(), model.entries.len());
        most = (most.0.max(size.0), most.1.max(size.1), most.2.max(size.2), most.3.max(size.3));
    }
    assert!(most.0 <= 7 + 201 && most.1 <= 200 && most.2 <= 2_000 && most.3 <= 2_000, "{most:?}");
    assert!(most.2 == 2_000 && most.3 == 2_000, "it was a long night: {most:?}");
}
