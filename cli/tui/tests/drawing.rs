//! The picture, at three sizes, rich and poor, with everything that may come into it.

mod common;

use common::{POOR, RICH, at, buffer, event, id, overview, picture, request, session, site, small, write};
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::json;
use thinlane_tui::{Answer, App, Input, Key, View};
use unicode_width::UnicodeWidthStr;

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (220, 60)];

#[test]
fn every_view_fills_every_size_and_names_its_keys() {
    for (width, height) in SIZES {
        for view in View::LISTS {
            let mut app = small(RICH);
            app.view = view;
            let lines = picture(&mut app, width, height, at(0));
            assert!(lines[0].contains("1 Sessions 7") && lines[0].contains("2 Requests 1!"), "{lines:#?}");
            assert!(lines[0].ends_with("live 03:00:00"), "{lines:#?}");
            let last = &lines[usize::from(height) - 1];
            assert!(last.contains("? help"), "{view:?} at {width}x{height}: {last}");
            assert!(lines.iter().all(|line| line.width() <= usize::from(width)));
        }
    }
}

#[test]
fn a_narrow_screen_shows_who_and_how_long_a_wide_one_everything() {
    let mut app = small(RICH);
    let narrow = picture(&mut app, 80, 24, at(0)).join("\n");
    for word in ["who", "org", "asset", "site", "task", "time left", "up/s", "down/s", "denied"] {
        assert!(narrow.lines().nth(1).is_some_and(|line| line.contains(word)), "{word}:\n{narrow}");
    }
    assert!(narrow.contains("anna") && narrow.contains("acme") && narrow.contains("5:00"), "{narrow}");
    let wide = picture(&mut app, 220, 60, at(0)).join("\n");
    for word in
        ["last minute", "shake", "endpoint", "path", "backend", "203.0.113.1:8064", "relay", "userspace", "ses_0000000"]
    {
        assert!(wide.contains(word), "{word}:\n{wide}");
    }
}

#[test]
fn time_left_goes_down_without_a_word_from_the_controller() {
    let mut app = small(RICH);
    app.take(Input::Alive, at(60_000));
    let lines = picture(&mut app, 80, 24, at(61_000));
    assert!(lines[2].contains(" 3:59"), "{lines:#?}");
}

#[test]
fn a_poor_terminal_gets_ascii_and_no_colour_and_the_same_words() {
    for view in View::LISTS {
        let mut app = small(POOR);
        app.view = view;
        app.press(Key::Down, at(0));
        for key in [None, Some(Key::Char('l')), Some(Key::Char('?')), Some(Key::Char('c'))] {
            if let Some(key) = key {
                app.press(key, at(0));
            }
            let picture = buffer(&mut app, 120, 40, at(0));
            for cell in picture.content() {
                assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
                assert!(cell.fg == Color::Reset && cell.bg == Color::Reset, "{cell:?}");
            }
            app.press(Key::Esc, at(0));
        }
    }
}

#[test]
fn nothing_is_said_by_colour_alone() {
    let mut app = small(RICH);
    let mut ending = session(3, 900_000, 1, 1);
    ending["state"] = json!("ending");
    ending["counters"]["spoofed_packets"] = json!(4);
    app.take(event("session", ending), at(0));
    app.take(event("site", site(1, "north", "offline", 3)), at(0));
    app.press(Key::Down, at(0));
    let rich = picture(&mut app, 120, 40, at(0));
    app.glyphs = thinlane_tui::Glyphs { unicode: true, colour: false };
    assert_eq!(rich, picture(&mut app, 120, 40, at(0)), "the words are the same without colour");
    let words = rich.join("\n");
    for word in ["▶ ", "ending", "!4", "NOW: north lost its link 42 s ago with 3 lanes open", "3 -1"] {
        assert!(words.contains(word), "{word}:\n{words}");
    }
}

#[test]
fn a_site_that_lost_its_link_with_open_lanes_is_in_the_banner_and_leaves_it_when_it_is_back() {
    let mut app = small(RICH);
    app.take(event("site", site(1, "north", "offline", 3)), at(0));
    assert!(picture(&mut app, 80, 24, at(0))[1].starts_with(" NOW: north lost its link"));
    app.take(event("site", site(1, "north", "online", 3)), at(0));
    assert!(picture(&mut app, 80, 24, at(0))[1].contains("who"));
}

#[test]
fn a_flushed_ruleset_and_a_clock_jump_are_in_the_banner_until_they_are_marked_as_seen() {
    let mut app = small(RICH);
    let entry = |index: u64, alarm: &str| {
        serde_json::from_value(json!({"schema": 1, "index": index, "time": "2026-11-22T03:00:00Z", "actor": "agent:north", "kind": "alarm.raised",
            "leaf_hash": "", "entry": {"alarm": alarm, "detail": "moved by 3600000 ms", "site": id("site", 1)}}))
        .expect("an entry")
    };
    app.take(Input::Entries(vec![entry(1, "ruleset-flushed"), entry(2, "clock-jump"), entry(3, "ready")]), at(0));
    let lines = picture(&mut app, 120, 40, at(0)).join("\n");
    assert!(lines.contains("north: the firewall rules were flushed by another program"), "{lines}");
    assert!(lines.contains("north: the gateway's clock jumped"), "{lines}");
    assert!(!lines.contains("NOW: north: ready"), "{lines}");
    // An entry that comes again after an interruption is not told twice.
    app.take(Input::Entries(vec![entry(2, "clock-jump")]), at(0));
    assert_eq!(app.model.notices.len(), 3);
    app.press(Key::Char('m'), at(0));
    assert!(!picture(&mut app, 120, 40, at(0)).join("\n").contains("NOW:"));
    app.press(Key::Char('4'), at(0));
    assert!(
        picture(&mut app, 120, 40, at(0)).join("\n").contains("clock jumped: moved by 3600000 ms"),
        "it stays in its list"
    );
}

#[test]
fn a_lost_connection_says_how_old_the_picture_is_and_when_it_is_tried_again() {
    let mut app = small(RICH);
    app.take(Input::Alive, at(10_000));
    let retry_at = at(42_000).mono;
    app.take(Input::Lost { why: "no route to host".into(), retry_at }, at(40_000));
    let lines = picture(&mut app, 100, 24, at(40_000));
    assert!(lines[0].ends_with("STALE 30 s"), "{lines:#?}");
    assert!(lines[1].contains("NOT LIVE: this is as of 30 s ago; next try in 2 s: no route to host"), "{lines:#?}");
    let why = "WRONG CERTIFICATE: 198.51.100.2:7443 is not the controller you trust: its CA has sha256:aa, expected sha256:bb";
    app.take(Input::Lost { why: why.into(), retry_at }, at(41_000));
    let lines = picture(&mut app, 80, 24, at(41_000)).join("\n");
    assert!(lines.contains("WRONG CERTIFICATE") && lines.contains("is not the controller you trust"), "{lines}");
    // Half a minute of silence on an open stream is told as well.
    app.take(overview(Vec::new(), Vec::new(), Vec::new()), at(50_000));
    assert!(picture(&mut app, 100, 24, at(50_000))[0].ends_with("live 03:00:50"));
    assert!(picture(&mut app, 100, 24, at(80_000))[0].ends_with("STALE 30 s"));
}

#[test]
fn texts_from_outside_cannot_steer_the_terminal() {
    let mut app = small(RICH);
    let mut evil = session(1, 300_000, 1, 1);
    evil["reason"] = json!("\u{1b}]0;owned\u{7}\u{202e}lla llik\r\n\u{1b}[2J");
    evil["endpoint"] = json!("\u{9b}31m1.2.3.4");
    app.take(event("session", evil), at(0));
    app.press(Key::Down, at(0));
    for keys in ["", "\n", "x"] {
        for key in keys.chars() {
            app.press(if key == '\n' { Key::Enter } else { Key::Char(key) }, at(0));
        }
        for cell in buffer(&mut app, 220, 60, at(0)).content() {
            let bad = |letter: char| letter.is_control() || ('\u{202a}'..='\u{202e}').contains(&letter);
            assert!(!cell.symbol().chars().any(bad), "{:?}", cell.symbol());
        }
    }
}

#[test]
fn any_size_is_drawn_and_a_window_that_is_too_small_confirms_nothing() {
    for (width, height) in [(1, 1), (3, 2), (49, 30), (80, 11), (50, 12), (300, 13), (51, 100)] {
        for keys in ["", "x", "l", "?", "c", "/acme", "5", "4", "3", "2"] {
            let mut app = small(RICH);
            app.press(Key::Down, at(0));
            write(&mut app, keys, at(0));
            picture(&mut app, width, height, at(0));
        }
    }
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('x'), at(0));
    picture(&mut app, 40, 10, at(0));
    assert!(app.press(Key::Enter, at(0)).is_empty(), "nobody could read what it would do");
    picture(&mut app, 80, 24, at(0));
    assert_eq!(app.press(Key::Enter, at(0)).len(), 1);
}

#[test]
fn the_help_holds_every_key_of_the_table() {
    let mut app = small(RICH);
    app.press(Key::Char('?'), at(0));
    let mut seen = picture(&mut app, 80, 24, at(0)).join("\n");
    for _ in 0..12 {
        app.press(Key::PageDown, at(0));
        seen.push_str(&picture(&mut app, 80, 24, at(0)).join("\n"));
    }
    let seen: String = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in thinlane_tui::keys::TABLE {
        let begin: String = line.help.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        assert!(seen.contains(&begin), "{begin:?} is not in the help");
        assert!(line.keys.iter().all(|key| seen.contains(&key.to_string())), "{}", line.help);
    }
}

#[test]
fn the_page_of_a_session_shows_its_life_and_why_it_was_permitted() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Enter, at(0));
    let page_id = app.page.as_ref().expect("a page").id;
    let found = thinlane_tui::page::Found {
        session: serde_json::from_value(session(1, 300_000, 1000, 500)).expect("a session"),
        request: Some(serde_json::from_value(common::request(1, "used")).expect("a request")),
        history: serde_json::from_value(json!([
            {"at": "2026-11-22T02:40:00Z", "up_bytes": 0, "down_bytes": 0},
            {"at": "2026-11-22T02:50:00Z", "up_bytes": 900, "down_bytes": 100},
            {"at": "2026-11-22T03:00:00Z", "up_bytes": 1000, "down_bytes": 500}
        ]))
        .expect("samples"),
        timeline: vec![
            serde_json::from_value(
                json!({"schema": 1, "index": 7, "time": "2026-11-22T02:35:00Z", "actor": "agent:north",
                "kind": "session.active", "leaf_hash": "", "entry": {"backend": "userspace"}}),
            )
            .expect("an entry"),
        ],
        missing: Vec::new(),
    };
    app.found(page_id, Ok(found));
    for (width, height) in SIZES {
        let mut seen = picture(&mut app, width, height, at(0)).join("\n");
        app.press(Key::End, at(0));
        seen.push_str(&picture(&mut app, width, height, at(0)).join("\n"));
        app.press(Key::Home, at(0));
        for word in [
            "5:00 left",
            "Traffic, since",
            "permit by requesters",
            "Denied flows",
            "session.active",
            "replace the CT",
            "█",
        ] {
            assert!(seen.contains(word), "{word} at {width}x{height}:\n{seen}");
        }
    }
}

#[test]
fn a_kill_that_nobody_has_confirmed_is_ending_at_every_width_and_stands_first() {
    let mut app = small(RICH);
    let mut one = session(7, 2_000_000, 1, 1);
    one["state"] = json!("ending");
    one["end_reason"] = json!("killed");
    one.as_object_mut().expect("an object").remove("remaining_ms");
    app.take(event("session", one.clone()), at(0));
    app.take(event("site", site(2, "south", "offline", 1)), at(0));
    for (width, height) in SIZES {
        let lines = picture(&mut app, width, height, at(0));
        let first = lines.iter().position(|line| line.contains("who")).expect("a head") + 1;
        assert!(lines[first].contains("ending"), "{width}: {lines:#?}");
        let killed = lines[first].matches("killed").count();
        assert!(width > 80 || killed == 0, "{width}: it is not over: {}", lines[first]);
    }
    let all = picture(&mut app, 120, 40, at(0)).join("\n");
    assert!(all.contains("is ending, and south has not confirmed it"), "{all}");
    one["state"] = json!("ended");
    app.take(event("session", one), at(0));
    let lines = picture(&mut app, 80, 24, at(0));
    assert!(lines.iter().any(|line| line.contains("killed")), "{lines:#?}");
}

#[test]
fn what_a_narrow_screen_cuts_can_be_read_of_the_selected_row() {
    let long =
        "the gateway of that site said so, and it said a great deal more than fits into a column of eighty letters";
    let entry = json!({"schema": 1, "index": 9, "time": "2026-11-22T03:00:00Z", "actor": "agent:x", "kind": "alarm.raised",
        "leaf_hash": "", "entry": {"alarm": "teardown", "detail": long, "site": id("site", 1)}});
    let mut sites = site(1, "north", "online", 3);
    sites["ready"] = json!(false);
    sites["why_not_ready"] = json!(long);
    for (width, height) in SIZES {
        for key in ['3', '4', '5'] {
            let mut app = small(RICH);
            app.take(event("site", sites.clone()), at(0));
            app.take(Input::Entries(vec![serde_json::from_value(entry.clone()).expect("an entry")]), at(0));
            app.press(Key::Char(key), at(0));
            app.press(Key::Home, at(0));
            let lines = picture(&mut app, width, height, at(0));
            let rest = lines.iter().skip_while(|line| !line.starts_with('─')).map(|line| line.trim());
            let told = rest.collect::<Vec<_>>().join(" ");
            let wanted = if key == '5' { &long[..60] } else { long };
            assert!(told.contains(wanted), "{key} at {width}: {lines:#?}");
        }
    }
}

#[test]
fn a_long_outcome_is_read_whole_on_a_narrow_screen() {
    let mut app = small(RICH);
    let told = "not done: killing a session needs one of the roles ops, admin (ask somebody who is ops or admin)";
    app.told(Answer::Failed(told.into()), at(0));
    let lines = picture(&mut app, 80, 24, at(0));
    assert_eq!(format!("{} {}", lines[21], lines[22]), told, "{lines:#?}");
    assert!(lines[23].contains("? help"));
    // Later it stands beside a world that has moved on: when it was said is said.
    let lines = picture(&mut app, 80, 24, at(20_000));
    assert!(lines[21].starts_with("03:00:00: not done: killing"), "{lines:#?}");
    assert!(!picture(&mut app, 80, 24, at(61_000)).join("\n").contains("not done"));
}

#[test]
fn a_world_without_sessions_and_one_of_long_and_hostile_names_are_drawn() {
    let mut app = small(RICH);
    app.take(overview(Vec::new(), Vec::new(), Vec::new()), at(0));
    app.tick(at(200_000));
    for view in View::LISTS {
        app.view = view;
        for key in ['x', 'l', 'e', 'a', 'd', 't', 'u'] {
            app.press(Key::Char(key), at(200_000));
            assert!(app.over.is_none(), "{key} on {view:?}: there is nobody to do anything to");
        }
        picture(&mut app, 80, 24, at(200_000));
    }
    let mut evil = session(1, 300_000, 1, 1);
    evil["user"] = json!("a".repeat(60));
    evil["asset"] = json!("b".repeat(60));
    for reason in [
        "\u{200f}\u{202e}evil",
        "👩\u{200d}🔧🔥".repeat(40).as_str(),
        "日本語".repeat(60).as_str(),
        "عربى",
        "a\u{301}\u{301}",
    ] {
        evil["reason"] = json!(reason);
        app.take(event("session", evil.clone()), at(0));
        for (width, height) in SIZES {
            let lines = picture(&mut app, width, height, at(0));
            assert!(lines.iter().all(|line| line.width() <= usize::from(width)), "{reason}: {lines:#?}");
            app.press(Key::Down, at(0));
            app.press(Key::Enter, at(0));
            let lines = picture(&mut app, width, height, at(0));
            assert!(lines.iter().all(|line| line.width() <= usize::from(width)), "{reason}: {lines:#?}");
            app.press(Key::Esc, at(0));
        }
    }
}

#[test]
fn packets_that_a_kernel_has_merged_are_marked_as_such() {
    let page = |merged: bool| {
        let mut app = small(RICH);
        let mut one = session(1, 300_000, 10_000, 500);
        one["merged"] = json!(merged);
        one["backend"] = json!("kernel");
        app.take(event("session", one), at(0));
        app.open_session(id("ses", 1).parse().expect("an id"), at(0));
        picture(&mut app, 120, 40, at(0)).join("\n")
    };
    assert!(page(true).contains("100 packets (merged)"), "{}", page(true));
    assert!(page(true).contains("counts packets that travel together as one"), "{}", page(true));
    assert!(!page(false).contains("merged"), "{}", page(false));
}

/// What a phone reads from the screen: every cell is two squares, one above the other.
fn photograph(screen: &Buffer) -> Option<String> {
    const SIDE: usize = 4;
    let light = |x: usize, y: usize| {
        let cell = &screen[((x / SIDE) as u16, (y / SIDE / 2) as u16)];
        let ground = cell.modifier.contains(Modifier::REVERSED) || cell.bg == Color::Indexed(231);
        let ink = match cell.symbol() {
            "█" => true,
            "▀" => (y / SIDE).is_multiple_of(2),
            "▄" => !(y / SIDE).is_multiple_of(2),
            _ => false,
        };
        if ground && !ink { 255 } else { 0 }
    };
    let (width, height) = (usize::from(screen.area.width) * SIDE, usize::from(screen.area.height) * 2 * SIDE);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, light);
    image.detect_grids().first().map(|grid| grid.decode().expect("a code").1)
}

#[test]
fn an_enrolment_code_is_a_picture_where_it_fits_and_letters_everywhere() {
    let code = thinlane_tui::Code {
        site: "north".into(),
        code: "7K2M-9Q4X-ABCD-EFGH-JKMN".into(),
        line: format!("THINLANE://ENROL/CONTROLLER.EXAMPLE:7443/{}/7K2M-9Q4X-ABCD-EFGH-JKMN", "A7".repeat(32)),
        until: "04:00".into(),
        command: "thinlane-agent enroll --controller hq:7443".into(),
    };
    // All that the gateway needs where there is room for that, else the code alone.
    let (line, alone) = (Some(code.line.as_str()), Some(code.code.as_str()));
    for (glyphs, size, read) in [
        (RICH, (80, 24), alone),
        (RICH, (80, 30), line),
        (POOR, (80, 24), None),
        (POOR, (120, 45), alone),
        (POOR, (120, 50), line),
    ] {
        let drawn = read.is_some();
        let mut app = small(glyphs);
        app.told(Answer::Code(code.clone()), at(0));
        let lines = picture(&mut app, size.0, size.1, at(0)).join("\n");
        assert!(lines.contains("7K2M-9Q4X-ABCD-EFGH-JKMN"), "{lines}");
        assert_eq!(lines.contains("--png"), !drawn, "{lines}");
        let drawing = buffer(&mut app, size.0, size.1, at(0));
        let light = drawing.content().iter().filter(|cell| {
            cell.symbol() == " " && (cell.modifier.contains(Modifier::REVERSED) || cell.bg == Color::Indexed(231))
        });
        let (blocks, light) = (lines.matches('█').count(), light.count());
        assert_eq!(blocks > 50 || light > 300, drawn, "{blocks} {light}: {lines}");
        assert!(!lines.contains('#'), "a letter is no dark square to a phone: {lines}");
        assert_eq!(photograph(&drawing).as_deref(), read, "{size:?}");
        // It is gone with a key, and nothing keeps it.
        app.press(Key::Esc, at(0));
        assert!(!picture(&mut app, size.0, size.1, at(0)).join("\n").contains("7K2M"));
        assert!(!format!("{code:?}").contains("7K2M"));
    }
}

#[test]
fn one_picture_for_scripts_is_whole() {
    let mut app = small(RICH);
    let text = thinlane_tui::once::text(&mut app, 120, at(0));
    assert_eq!(text.lines().filter(|line| line.contains("iec104")).count(), 7, "{text}");
    let object = thinlane_tui::once::object(&app, at(0));
    assert_eq!(object["schema"], 1);
    assert_eq!(object["sessions"].as_array().map(Vec::len), Some(7));
    for key in ["at", "controller", "user", "attention", "requests", "sites", "alarms"] {
        assert!(object.get(key).is_some(), "{key}");
    }
}

#[test]
fn what_was_said_to_be_ending_is_said_to_be_closed_once_it_is() {
    let mut app = small(RICH);
    let mut one = session(7, 2_000_000, 1, 1);
    one["state"] = json!("ending");
    app.take(event("session", one.clone()), at(0));
    let told = format!("{}: bert on south-rtu7 is ending: the closing record is missing", id("ses", 7));
    app.told(Answer::Ending(told, vec![id("ses", 7).parse().expect("an id")]), at(0));
    assert!(picture(&mut app, 80, 24, at(1_000)).join("\n").contains("record is missing"));
    one["state"] = json!("ended");
    one["end_reason"] = json!("killed");
    app.take(event("session", one), at(2_000));
    let lines = picture(&mut app, 80, 24, at(2_000)).join("\n");
    assert!(!lines.contains("record is missing"), "{lines}");
    assert!(lines.contains(&format!("{}: bert on south-rtu7 is closed (killed)", id("ses", 7))), "{lines}");
}

#[test]
fn a_lock_for_a_time_names_its_end() {
    let mut app = small(RICH);
    app.press(Key::Down, at(0));
    app.press(Key::Char('l'), at(0));
    let words = |app: &mut App| {
        let lines = picture(app, 80, 24, at(0)).join(" ");
        lines.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(words(&mut app).contains("nothing new opens until it is unlocked"), "{}", words(&mut app));
    app.press(Key::Tab, at(0));
    write(&mut app, "1h", at(0));
    let seen = words(&mut app);
    assert!(seen.contains("nothing new opens until 04:00:00, 1 h from now"), "{seen}");
    assert!(!seen.contains("until it is unlocked"), "{seen}");
    write(&mut app, "x", at(0));
    assert!(words(&mut app).contains("for how long cannot be read"), "{}", words(&mut app));
}

#[test]
fn a_request_that_is_cut_says_so_and_enter_shows_all_of_it() {
    for glyphs in [RICH, POOR] {
        let mut app = small(glyphs);
        let mut asked = request(90, "pending");
        asked["decision"]["reasons"] = (0..30).map(|number| json!(format!("rule {number} had its say"))).collect();
        app.take(event("request", asked), at(0));
        app.press(Key::Char('2'), at(0));
        app.press(Key::Down, at(0));
        let seen = picture(&mut app, 80, 24, at(0)).join("\n");
        let mark = if glyphs.unicode { "…" } else { "~" };
        assert!(seen.contains(&format!("{mark} more: Enter shows all of it")), "{seen}");
        app.press(Key::Enter, at(0));
        let mut seen = picture(&mut app, 80, 24, at(0)).join("\n");
        assert!(seen.contains("more below") && seen.contains("erik (acme) wants iec104 on north-rtu7"), "{seen}");
        for _ in 0..3 {
            app.press(Key::PageDown, at(0));
            seen.push_str(&picture(&mut app, 80, 24, at(0)).join("\n"));
        }
        assert!((0..30).all(|number| seen.contains(&format!("rule {number} had its say"))), "{seen}");
        // Back on the list, with the same row selected.
        app.press(Key::Esc, at(0));
        app.press(Key::Char('a'), at(0));
        assert!(picture(&mut app, 80, 24, at(0)).join("\n").contains("Approve req_"));
    }
}

#[test]
fn the_banner_counts_the_lanes_that_it_does_not_name() {
    let mut app = small(RICH);
    app.take(event("site", site(1, "north", "offline", 3)), at(0));
    let banner = picture(&mut app, 120, 24, at(0))[1].clone();
    assert!(banner.contains("with 3 lanes open (") && banner.contains(" and 2 more)"), "{banner}");
}

#[test]
fn rows_below_alarms_are_counted_in_the_head_line_and_the_help_says_what_the_numbers_are() {
    let mut app = small(RICH);
    assert!(picture(&mut app, 80, 24, at(0))[0].contains("4 Alarms 0  5 Log"));
    let denied = |port: u16| {
        json!({"schema": 1, "at": "2026-11-22T03:00:00Z", "site": "north", "session": id("ses", 1), "direction": "up",
            "source": "198.19.0.1", "destination": "198.18.0.1", "protocol": "tcp", "port": port, "packets": 3})
    };
    app.take(event("denied", denied(22)), at(0));
    app.take(event("denied", denied(23)), at(0));
    let head = picture(&mut app, 80, 24, at(0))[0].clone();
    assert!(head.contains("4 Alarms 0 +2  5 Log"), "{head}");
    app.press(Key::Char('?'), at(0));
    app.press(Key::PageDown, at(0));
    let mut seen = String::new();
    for _ in 0..12 {
        seen.push_str(&picture(&mut app, 80, 24, at(0)).join("\n"));
        app.press(Key::PageDown, at(0));
    }
    assert!(seen.contains("Sites 6 -3") && seen.contains("Alarms 1! +7"), "{seen}");
}

#[test]
fn a_plot_keeps_what_the_controller_has_forgotten_and_marks_what_nobody_knows() {
    let mut app = small(RICH);
    let page_id = id("ses", 1).parse().expect("an id");
    app.open_session(page_id, at(0));
    let found = |history: serde_json::Value| thinlane_tui::page::Found {
        session: serde_json::from_value(session(1, 300_000, 1000, 500)).expect("a session"),
        request: None,
        history: serde_json::from_value(history).expect("samples"),
        timeline: Vec::new(),
        missing: Vec::new(),
    };
    let before = json!([
        {"at": "2026-11-22T02:35:10Z", "up_bytes": 10, "down_bytes": 0},
        {"at": "2026-11-22T02:40:00Z", "up_bytes": 900_000, "down_bytes": 0}
    ]);
    app.found(page_id, Ok(found(before)));
    assert!(!picture(&mut app, 80, 24, at(0)).join("\n").contains("?: not known"));
    let after = json!([{"at": "2026-11-22T02:59:00Z", "up_bytes": 907_000, "down_bytes": 0, "gap": true}]);
    app.found(page_id, Ok(found(after)));
    assert_eq!(app.page.as_ref().and_then(|page| page.found.as_ref()).map(|found| found.history.len()), Some(3));
    let lines = picture(&mut app, 80, 40, at(0)).join("\n");
    assert!(lines.contains("?: not known when, 7.0 k in all"), "{lines}");
    assert!(lines.contains("????????????") && lines.contains('█'), "{lines}");
}
