//! What would mislead somebody at three in the morning: whom an action hits, what was done, what is not known.

mod common;

use common::{POOR, RICH, at, event, hello, id, overview, picture, request, session, site, small, write};
use serde_json::json;
use thinlane_tui::act::Deed;
use thinlane_tui::table::RowId;
use thinlane_tui::{Answer, App, Effect, Input, Key, View};

const SIZES: [(u16, u16); 3] = [(60, 15), (80, 24), (250, 60)];

/// What the screen says, without borders and line ends.
fn says(app: &mut App, (width, height): (u16, u16), millis: u64) -> String {
    let lines = picture(app, width, height, at(millis)).join("\n");
    lines.replace(['│', '|', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn press(app: &mut App, keys: &[Key]) -> Vec<Effect> {
    keys.iter().flat_map(|key| app.press(*key, at(0))).collect()
}

fn reason(effects: Vec<Effect>) -> String {
    match effects.into_iter().next() {
        Some(Effect::Act { deed: Deed::Kill { reason, .. } | Deed::Lock { reason, .. }, .. }) => reason,
        other => panic!("no deed: {other:?}"),
    }
}

#[test]
fn a_question_that_a_smaller_window_took_away_is_not_answered() {
    for size in [(49, 24), (80, 11), (20, 3)] {
        let mut app = small(RICH);
        press(&mut app, &[Key::Down, Key::Char('x')]);
        assert!(says(&mut app, (80, 24), 0).contains("Kill ses_"));
        assert!(says(&mut app, size, 0).contains("too small"));
        assert!(app.press(Key::Enter, at(0)).is_empty(), "nobody can read it at {size:?}");
        assert!(says(&mut app, (80, 24), 0).contains("Kill ses_"), "it is asked again");
        assert_eq!(app.press(Key::Enter, at(0)).len(), 1);
    }
}

#[test]
fn nothing_is_asked_about_a_row_that_the_filter_hides() {
    for size in SIZES {
        let mut app = small(RICH);
        press(&mut app, &[Key::Down]);
        assert!(app.list(View::Sessions).selected.is_some());
        write(&mut app, "/rtu2", at(0));
        press(&mut app, &[Key::Enter]);
        for key in ['x', 'l', 'e'] {
            assert!(app.press(Key::Char(key), at(0)).is_empty());
            assert!(app.over.is_none(), "{key}: it is asked about a session that nobody sees");
            let seen = says(&mut app, size, 0);
            assert!(seen.contains(&format!("{} is not in the list: the filter hides it", id("ses", 1))), "{seen}");
        }
        assert!(app.press(Key::Enter, at(0)).is_empty() && app.page.is_none(), "and its page is not opened");
        // Dropped, the same key asks about the same session.
        press(&mut app, &[Key::Esc, Key::Char('x')]);
        assert!(says(&mut app, size, 0).contains(&format!("Kill {}", id("ses", 1))));
    }
    let mut app = small(RICH);
    press(&mut app, &[Key::Char('2'), Key::Down]);
    write(&mut app, "/nobody", at(0));
    press(&mut app, &[Key::Enter, Key::Char('a')]);
    assert!(app.over.is_none() && says(&mut app, (80, 24), 0).contains("the filter hides it"));
    press(&mut app, &[Key::Char('3'), Key::Down]);
    write(&mut app, "/west", at(0));
    press(&mut app, &[Key::Enter, Key::Char('l')]);
    assert!(app.over.is_none() && says(&mut app, (80, 24), 0).contains("north is not in the list"));
}

#[test]
fn a_row_out_of_sight_comes_into_it_when_it_is_asked_about() {
    let mut app = common::crowd(RICH);
    press(&mut app, &[Key::Char('f'), Key::Down]);
    picture(&mut app, 80, 24, at(0));
    let mut later = session(1, 3_000_000, 1, 1);
    later["remaining_ms"] = json!(3_000_000);
    app.take(event("session", later), at(0));
    let seen = says(&mut app, (120, 24), 0);
    assert!(seen.contains("the selected row is out of sight"), "{seen}");
    press(&mut app, &[Key::Char('x')]);
    let lines = picture(&mut app, 80, 24, at(0));
    assert!(lines.iter().any(|line| line.starts_with('▶')), "{lines:#?}");
}

#[test]
fn the_chosen_target_of_a_lock_is_in_sight_however_narrow_the_window() {
    for size in [(50, 12), (60, 15), (80, 24), (250, 60)] {
        for glyphs in [RICH, POOR] {
            let mut app = small(glyphs);
            press(&mut app, &[Key::Down, Key::Down, Key::Char('l')]);
            for chosen in ["[person bert]", "[organisation acme]", "[asset west-rtu2]", "[site west]"] {
                let lines = picture(&mut app, size.0, size.1, at(0));
                let seen = lines.join("\n");
                assert!(seen.contains(chosen), "{size:?}: {seen}");
                assert!(seen.contains("reason: locked by") && seen.contains("for:"), "{size:?}: {seen}");
                let end = lines.iter().position(|line| line.contains(['└']) || line.matches('+').count() == 2);
                let field = lines.iter().position(|line| line.contains("for:"));
                assert!(glyphs == POOR || field < end, "{size:?}: a field stands outside of its box: {seen}");
                press(&mut app, &[Key::Right]);
            }
        }
    }
}

#[test]
fn a_question_that_does_not_fit_is_not_answered() {
    let mut app = small(RICH);
    let mut long = session(1, 60_000, 1, 1);
    for (key, letter) in [("user", "u"), ("org", "o"), ("asset", "a"), ("site", "s"), ("task", "t")] {
        long[key] = json!(letter.repeat(60));
    }
    let mut all = json!([]);
    all.as_array_mut().expect("a list").push(long);
    app.take(overview(all.as_array().expect("a list").clone(), Vec::new(), vec![site(1, "north", "online", 1)]), at(0));
    press(&mut app, &[Key::Down, Key::Char('x')]);
    let seen = says(&mut app, (50, 12), 0);
    assert!(seen.contains("does not fit here"), "{seen}");
    assert!(app.press(Key::Enter, at(0)).is_empty(), "half of it cannot be read: {seen}");
    picture(&mut app, 120, 40, at(0));
    assert_eq!(app.press(Key::Enter, at(0)).len(), 1);
}

#[test]
fn what_has_just_been_stopped_does_not_take_the_window_with_it() {
    for size in SIZES {
        let mut app = common::crowd(RICH);
        for _ in 0..3 {
            press(&mut app, &[Key::Down]);
        }
        let before = picture(&mut app, size.0, size.1, at(0));
        let third = app.ids(at(0))[3].clone();
        let mut ended = session(3, 0, 1, 1);
        (ended["state"], ended["end_reason"]) = (json!("ended"), json!("killed"));
        app.take(event("session", ended), at(0));
        let after = picture(&mut app, size.0, size.1, at(0));
        assert_eq!(before[2..4], after[2..4], "{size:?}: the others stay where they were: {after:#?}");
        let killed = app.list(View::Sessions).selected.clone();
        assert_eq!(killed, Some(RowId::Session(id("ses", 3).parse().expect("an id"))), "nothing takes its place");
        if size.1 < 40 {
            press(&mut app, &[Key::Down]);
            assert_eq!(app.list(View::Sessions).selected, Some(third), "{size:?}: one goes on where one was");
        }
    }
}

#[test]
fn a_reason_that_is_too_long_is_said_to_be_and_not_cut_in_silence() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Down, Key::Char('x')]);
    picture(&mut app, 80, 24, at(0));
    write(&mut app, &"a".repeat(200), at(0));
    assert!(!says(&mut app, (80, 24), 0).contains("200 letters"));
    write(&mut app, "bc", at(0));
    let seen = says(&mut app, (80, 24), 0);
    assert!(seen.contains("it takes 200 letters: what came after is not in it"), "{seen}");
    // Pasted, it is told as well, and lines are not glued together.
    press(&mut app, &[Key::Ctrl('u')]);
    app.paste("first line\r\nsecond\tline\u{7}\n");
    picture(&mut app, 80, 24, at(0));
    assert_eq!(reason(app.press(Key::Enter, at(0))), "first line second line");
    press(&mut app, &[Key::Char('x')]);
    picture(&mut app, 80, 24, at(0));
    app.paste(&"word ".repeat(100));
    assert!(says(&mut app, (80, 24), 0).contains("it takes 200 letters"));
}

#[test]
fn coming_back_to_a_field_does_not_wipe_what_was_written_there() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Down, Key::Char('l')]);
    picture(&mut app, 80, 24, at(0));
    write(&mut app, "wrong valv", at(0));
    press(&mut app, &[Key::Tab]);
    write(&mut app, "1h", at(0));
    press(&mut app, &[Key::BackTab]);
    write(&mut app, "e", at(0));
    picture(&mut app, 80, 24, at(0));
    assert_eq!(reason(app.press(Key::Enter, at(0))), "wrong valve");
    press(&mut app, &[Key::Char('x')]);
    assert!(says(&mut app, (80, 24), 0).contains("type to replace the text"));
    write(&mut app, "w", at(0));
    assert!(!says(&mut app, (80, 24), 0).contains("type to replace the text"), "it is replaced");
}

#[test]
fn scripts_get_what_their_filter_passes_and_nothing_else() {
    let mut app = small(RICH);
    app.set_filter(View::Sessions, "site:north");
    let whole = thinlane_tui::once::object(&app, at(0));
    let sites: Vec<_> = whole["sessions"].as_array().expect("a list").iter().map(|one| one["site"].clone()).collect();
    assert_eq!(sites, ["north", "north"], "{whole}");
    assert_eq!(whole["sites"].as_array().map(Vec::len), Some(3), "the filter is of the sessions");
    app.set_filter(View::Sessions, "");
    app.view = View::Requests;
    app.set_filter(View::Requests, "nobody");
    let whole = thinlane_tui::once::object(&app, at(0));
    assert_eq!(whole["requests"], json!([]));
    assert_eq!(whole["sessions"].as_array().map(Vec::len), Some(7));
}

#[test]
fn the_sessions_of_a_site_are_not_those_of_another_with_a_longer_name() {
    let mut app = small(RICH);
    let mut near = session(9, 600_000, 1, 1);
    (near["site"], near["asset"]) = (json!("north2"), json!("north2-rtu1"));
    app.take(event("session", near), at(0));
    press(&mut app, &[Key::Char('3'), Key::Down, Key::Enter]);
    let seen = says(&mut app, (120, 40), 0);
    assert!(seen.contains("passes 2 of 8") && !seen.contains("north2"), "{seen}");
    app.set_filter(View::Sessions, "!site:=north");
    assert_eq!(app.ids(at(0)).len(), 6);
}

#[test]
fn an_alarm_that_was_never_shown_is_not_marked_as_seen() {
    let mut app = small(RICH);
    let alarm = |index: u64, kind: &str| {
        let entry = json!({"alarm": kind, "detail": "", "site": id("site", index)});
        serde_json::from_value(
            json!({"schema": 1, "index": index, "time": "2026-11-22T03:00:00Z", "actor": "agent:north",
            "kind": "alarm.raised", "leaf_hash": "", "entry": entry}),
        )
        .expect("an entry")
    };
    app.take(
        Input::Entries(vec![alarm(1, "ruleset-flushed"), alarm(2, "clock-jump"), alarm(3, "foreign-change")]),
        at(0),
    );
    let seen = says(&mut app, (80, 24), 0);
    assert!(seen.contains("NOW (1 of 3): west: another program changed"), "{seen}");
    press(&mut app, &[Key::Char('m')]);
    let seen = says(&mut app, (80, 24), 0);
    assert!(seen.contains("1 alarm marked as seen"), "{seen}");
    assert!(seen.contains("NOW (1 of 2): south: the gateway's clock jumped"), "the next one: {seen}");
    // In their own list all that it shows are marked.
    press(&mut app, &[Key::Char('4'), Key::Char('m')]);
    let seen = says(&mut app, (80, 24), 0);
    assert!(!seen.contains("NOW") && seen.contains("2 alarms marked as seen"), "{seen}");
    press(&mut app, &[Key::Char('m')]);
    assert!(says(&mut app, (80, 24), 0).contains("no alarm to mark"));
}

#[test]
fn a_picture_that_stands_still_hides_neither_the_views_nor_what_needs_somebody_now() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Char(' ')]);
    app.take(event("site", site(1, "north", "offline", 3)), at(5_000));
    for number in 0..40 {
        app.take(event("session", session(number, 600_000, 1, 1)), at(6_000));
    }
    app.take(Input::Alive, at(699_000));
    let lines = picture(&mut app, 80, 24, at(700_000));
    assert!(lines[0].contains("5 Log") && lines[0].ends_with("FROZEN 11 min behind"), "{lines:#?}");
    assert!(lines[1].starts_with(" NOW: north lost its link"), "{lines:#?}");
    assert!(picture(&mut app, 120, 24, at(700_000))[0].ends_with("FROZEN 11 min behind, 41 changes"));
}

#[test]
fn a_screen_that_hears_nothing_shows_no_silence_of_the_lanes() {
    for (glyphs, size) in [(RICH, (80, 24)), (POOR, (120, 40)), (RICH, (250, 60))] {
        let mut app = small(glyphs);
        for second in 1..20 {
            app.take(event("session", session(1, 300_000, 1000 * second, 90_000 * second)), at(second * 1_000));
        }
        let row = |app: &mut App, millis| {
            let lines = picture(app, size.0, size.1, at(millis));
            lines.into_iter().find(|line| line.contains("south-rtu1")).expect("a row")
        };
        assert!(row(&mut app, 20_000).contains("90 k"));
        app.take(Input::Lost { why: "no route to host".into(), retry_at: at(90_000).mono }, at(40_000));
        let lost = row(&mut app, 60_000);
        assert!(lost.matches(" ? ").count() == 2, "nobody knows how fast it is: {lost}");
        app.press(Key::Down, at(60_000));
        app.press(Key::Enter, at(60_000));
        let page = says(&mut app, size, 60_000);
        assert!(!page.contains("quiet") && page.contains("not known how fast"), "{page}");
        app.press(Key::Esc, at(60_000));
        // Back again, what passed meanwhile is no burst, and the time without a word is marked.
        app.take(overview(vec![session(1, 200_000, 99_000, 9_000_000)], Vec::new(), Vec::new()), at(64_000));
        let back = row(&mut app, 66_000);
        assert!(!back.contains(" M "), "no burst: {back}");
        if size.0 > 100 {
            assert!(back.contains("???????"), "{back}");
        }
    }
}

#[test]
fn a_stream_that_was_silent_and_speaks_again_invents_no_burst() {
    let mut app = small(RICH);
    app.take(event("session", session(1, 300_000, 1000, 90_000)), at(1_000));
    // The controller stood still: the stream lives on, and what was held back comes at once.
    for part in 1..=20 {
        app.take(event("session", session(1, 280_000, 1000, 90_000 + 500_000 * part)), at(21_000));
    }
    let row =
        picture(&mut app, 80, 24, at(23_000)).into_iter().find(|line| line.contains("south-rtu1")).expect("a row");
    assert!(!row.contains(" M ") && !row.contains("00 k"), "{row}");
}

#[test]
fn rows_that_end_together_do_not_change_places_with_every_word_about_them() {
    let mut app = small(RICH);
    for number in [1, 2, 3] {
        app.take(event("session", session(number, 300_000 + number, 1, 1)), at(0));
    }
    let before = app.ids(at(0));
    // Words about the same end that took their time on the way.
    for (number, late) in [(2, 40), (1, 90), (3, 10)] {
        let mut same = session(number, 300_000 + number, 2, 2);
        same["remaining_ms"] = json!(299_000 + number + late);
        app.take(event("session", same), at(1_000));
    }
    assert_eq!(app.ids(at(1_100)), before);
}

#[test]
fn what_failed_is_not_covered_by_the_next_answer() {
    let mut app = small(RICH);
    app.take(hello(), at(0));
    app.told(Answer::Failed("not done: ses_0 is on a gateway that says no".into()), at(0));
    app.told(Answer::Done("ses_1: erik on plc1 is closed (killed)".into()), at(400));
    let seen = says(&mut app, (80, 24), 500);
    assert!(seen.contains("ses_1: erik on plc1 is closed") && seen.contains("before that: not done: ses_0"), "{seen}");
    // Leaving another question says nothing over it either.
    app.told(Answer::Failed("not done: ses_2 cannot be".into()), at(30_000));
    press(&mut app, &[Key::Down, Key::Char('x')]);
    app.press(Key::Esc, at(31_000));
    let seen = says(&mut app, (80, 24), 31_000);
    assert!(seen.contains("not done: ses_2"), "{seen}");
    // What was long ago is over.
    app.told(Answer::Done("ses_3 is closed".into()), at(60_000));
    assert!(!says(&mut app, (80, 24), 60_000).contains("ses_2"));
}

#[test]
fn a_code_that_comes_while_something_is_asked_takes_the_question_not_away() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Down, Key::Char('x')]);
    picture(&mut app, 80, 24, at(0));
    write(&mut app, "wrong valve", at(0));
    let code = thinlane_tui::Code {
        line: "THINLANE://ENROL/HQ:7443/A7/7K2M".into(),
        site: "north".into(),
        code: "tl-abc".into(),
        until: "03:30".into(),
        command: "enroll".into(),
    };
    app.told(Answer::Code(code), at(0));
    assert!(says(&mut app, (80, 24), 0).contains("enrolment code for north"));
    assert!(app.press(Key::Esc, at(0)).is_empty());
    assert!(app.press(Key::Enter, at(0)).is_empty(), "the question must be read again first");
    assert!(says(&mut app, (80, 24), 0).contains("reason: wrong valve"));
    assert_eq!(reason(app.press(Key::Enter, at(0))), "wrong valve");
}

#[test]
fn a_decision_that_somebody_else_made_first_is_in_the_question() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Char('2'), Key::Down, Key::Char('a')]);
    picture(&mut app, 80, 24, at(0));
    let mut denied = request(90, "denied");
    denied["denial"] = json!({"by": "otto", "reason": "not tonight", "at": "2026-11-22T03:00:00Z"});
    app.take(event("request", denied), at(0));
    let seen = says(&mut app, (80, 24), 0);
    assert!(seen.contains("it is denied already, by otto: not tonight"), "{seen}");
}

#[test]
fn more_time_for_a_session_that_somebody_else_has_ended_is_not_left_standing() {
    let mut app = small(RICH);
    press(&mut app, &[Key::Down, Key::Char('e')]);
    picture(&mut app, 80, 24, at(0));
    let session_id = id("ses", 1).parse().expect("an id");
    app.told(Answer::Extended("ses_00000001 has 15m more, until 03:20:00".into(), session_id), at(100));
    assert!(says(&mut app, (80, 24), 200).contains("has 15m more"));
    let mut ended = session(1, 0, 1, 1);
    (ended["state"], ended["end_reason"]) = (json!("ended"), json!("killed"));
    ended["end_detail"] = json!("wrong valve, by otto");
    app.take(event("session", ended), at(300));
    let seen = says(&mut app, (80, 24), 400);
    assert!(!seen.contains("has 15m more"), "{seen}");
    assert!(seen.contains("anna on south-rtu1 was given more time and has ended since (killed)"), "{seen}");
    assert!(seen.contains("it has ended already") && seen.contains("(killed: wrong valve, by otto)"), "{seen}");
}
