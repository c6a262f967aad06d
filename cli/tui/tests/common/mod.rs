//! A world to draw: sessions, requests, sites, alarms, with a clock of its own.
#![allow(dead_code)]

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::{Value, json};
use thinlane_model::{Boot, Now, Wall};
use thinlane_tui::{App, Config, Glyphs, Input, Key};
use thinlane_wire::api::{LiveEvent, LogEntry, Overview};

/// 2026-11-22T03:00:00Z, a night shift.
pub const NIGHT: i64 = 1_795_316_400_000;

pub const RICH: Glyphs = Glyphs { unicode: true, colour: true };
pub const POOR: Glyphs = Glyphs { unicode: false, colour: false };

/// So many milliseconds into the shift.
pub fn at(millis: u64) -> Now {
    Now { mono: Boot(1_000_000 + millis), wall: Wall::from_millis(NIGHT + millis as i64) }
}

fn moment(millis: i64) -> String {
    Wall::from_millis(NIGHT + millis).to_string()
}

/// `ses_` and eight letters that grow with the number.
pub fn id(kind: &str, number: u64) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let letters = (0..8).rev().map(|place| char::from(LETTERS[(number >> (5 * place) & 31) as usize]));
    format!("{kind}_{}", letters.collect::<String>())
}

pub const PEOPLE: [&str; 5] = ["erik", "anna", "bert", "carla", "dmitri"];

/// A session that is open, of 30 minutes, with so much left.
pub fn session(number: u64, left: u64, up: u64, down: u64) -> Value {
    let site = ["north", "south", "west"][number as usize % 3];
    json!({
        "schema": 1, "id": id("ses", number), "request": id("req", number), "user": PEOPLE[number as usize % 5],
        "org": if number.is_multiple_of(2) { json!("acme") } else { Value::Null }, "site": site, "asset": format!("{site}-rtu{}", number % 40),
        "task": "iec104", "protocol": "tcp", "port": 2404, "state": "active", "address": "198.19.0.1",
        "asset_address": "198.18.0.1", "opened_at": moment(left as i64 - 1_800_000), "ends_at": moment(left as i64),
        "endpoint": format!("203.0.113.{}:8064", number % 250), "path": "relay", "backend": "userspace",
        "policy": {"id": "policy", "hash": "8957cb4a1352bcf0e0050c079835598d"}, "approvals": [],
        "counters": {"up_packets": up / 100, "up_bytes": up, "down_packets": down / 100, "down_bytes": down, "denied_packets": 0, "spoofed_packets": 0},
        "last_handshake_at": moment(-40_000), "reason": "replace the CT", "remaining_ms": left,
    })
}

pub fn request(number: u64, state: &str) -> Value {
    json!({
        "schema": 1, "id": id("req", number), "state": state, "user": "erik", "org": "acme", "asset": "north-rtu7", "site": "north",
        "task": "iec104", "seconds": 1800, "reason": "the pump stutters", "ticket": "CHG-12", "created_at": moment(-60_000),
        "decision": {"verdict": "permit", "rules": ["requesters"], "reasons": ["permitted by requesters (by role)"], "policy_hash": "89",
            "obligations": {"approvals": 1, "seconds": 1800, "approvers": [{"rule": "requesters", "approvals": 1, "roles": ["approver"], "missing": 1}]}},
        "approvals": [],
    })
}

pub fn site(number: u64, name: &str, state: &str, lanes: u32) -> Value {
    json!({
        "schema": 1, "id": id("site", number), "site": name, "state": state, "last_seen_at": moment(-42_000), "agent_version": "0.1.0",
        "backend": "userspace", "ready": state == "online", "isolated": false, "locked": false, "generation": 17, "lanes": lanes,
        "clock_offset_ms": 12,
    })
}

pub fn overview(sessions: Vec<Value>, requests: Vec<Value>, sites: Vec<Value>) -> Input {
    let overview = json!({"schema": 1, "sessions": sessions, "requests": requests, "sites": sites});
    Input::Snapshot(Box::new(serde_json::from_value::<Overview>(overview).expect("an overview")))
}

pub fn event(kind: &str, view: Value) -> Input {
    let event = json!({"event": kind, kind: view});
    Input::Event(Box::new(serde_json::from_value::<LiveEvent>(event).expect("an event")))
}

pub fn hello() -> Input {
    hello_as(&["ops", "approver"], None)
}

/// Olga with these roles, logged in until so many milliseconds into the shift.
pub fn hello_as(roles: &[&str], until: Option<i64>) -> Input {
    Input::Hello {
        login: "olga".parse().expect("a login"),
        roles: roles.iter().map(ToString::to_string).collect(),
        controller: "hq:7443".into(),
        until: until.map(|millis| Wall::from_millis(NIGHT + millis)),
    }
}

/// A screen with a small world on it: seven sessions with 5, 10, 15 ... minutes left.
pub fn small(glyphs: Glyphs) -> App {
    let mut app = App::new(Config::default(), glyphs, TimeZone::UTC).expect("a screen");
    app.take(hello(), at(0));
    let sessions = (1..=7).map(|number| session(number, number * 300_000, 1000 * number, 500)).collect();
    let sites = vec![site(1, "north", "online", 3), site(2, "south", "online", 2), site(3, "west", "online", 2)];
    app.take(overview(sessions, vec![request(90, "pending")], sites), at(0));
    app
}

/// A screen with an ordinary night on it: 40 sessions, 12 requests, 15 sites, and a log with some alarms in it.
pub fn crowd(glyphs: Glyphs) -> App {
    let mut app = App::new(Config::default(), glyphs, TimeZone::UTC).expect("a screen");
    app.take(hello(), at(0));
    let sessions = (1..=40).map(|number| session(number, number * 40_000, 9_000 * number, 70_000 * number)).collect();
    let requests = (0..12).map(|number| request(number, if number < 4 { "pending" } else { "approved" })).collect();
    let sites = (0..15).map(|number| site(number, &format!("station-{number}"), "online", number as u32 % 4)).collect();
    app.take(overview(sessions, requests, sites), at(0));
    let entries = (0..120).map(|index| entry(index, index as i64 * 1_000 - 3_600_000)).collect();
    app.take(Input::Entries(entries), at(0));
    app
}

/// An entry of the log: now a refused log-in, now an alarm, now somebody at work.
pub fn entry(index: u64, millis: i64) -> LogEntry {
    let (kind, entry) = match index % 3 {
        0 => ("auth.failed", json!({"login": "erik", "address": "203.0.113.7", "why": "wrong password"})),
        1 => (
            "alarm.raised",
            json!({"site": "site_00000001", "alarm": "isolated", "detail": "the key switch at the cabinet"}),
        ),
        _ => ("session.opened", json!({"session": id("ses", index), "asset": "north-rtu7", "user": "erik"})),
    };
    let entry = json!({
        "schema": 1, "index": index, "time": moment(millis), "actor": "person:erik", "kind": kind, "entry": entry, "leaf_hash": "",
    });
    serde_json::from_value(entry).expect("an entry")
}

/// The picture, line by line, without spaces at the ends.
pub fn picture(app: &mut App, width: u16, height: u16, now: Now) -> Vec<String> {
    let buffer = buffer(app, width, height, now);
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

pub fn buffer(app: &mut App, width: u16, height: u16, now: Now) -> Buffer {
    let area = Rect { x: 0, y: 0, width, height };
    let mut buffer = Buffer::empty(area);
    thinlane_tui::draw(app, &mut buffer, area, now);
    app.arrived();
    buffer
}

/// Presses keys: letters as they are.
pub fn write(app: &mut App, text: &str, now: Now) {
    for letter in text.chars() {
        app.press(Key::Char(letter), now);
    }
}
