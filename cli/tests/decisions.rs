//! Exit codes and JSON of requests, sessions, locks and the audit, against a controller that says what the test wants.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use support::views::{self, REQUEST, SESSION};
use support::{Asked, Controller, Person, Reply, objects};

/// A logged-in person at a controller that answers what `handler` does not with log-in and 404.
fn at(handler: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> (Controller, Person) {
    let controller = Controller::start(move |asked| {
        handler(asked).unwrap_or_else(|| match asked.path.as_str() {
            "/status" => Reply::ok(views::status()),
            "/login" => Reply::ok(views::token()),
            "/whoami" => Reply::ok(views::whoami()),
            _ => Reply::error(404, "not-found", "there is no such thing"),
        })
    });
    let person = Person::new();
    person.log_in(&controller);
    (controller, person)
}

const CREATE: [&str; 8] = ["request", "create", "rtu-7", "--task", "echo-tcp", "--reason", "test", "--json"];

/// Answers a new request with `first`, and every later look at it with `then`.
fn deciding(first: Value, then: Value) -> (Controller, Person) {
    at(move |asked| match (asked.method.as_str(), asked.path.split('?').next()?) {
        ("POST", "/requests") => Some(Reply::Json(201, first.clone())),
        ("GET", path) if path == format!("/requests/{REQUEST}") => Some(Reply::ok(then.clone())),
        _ => None,
    })
}

#[test]
fn a_request_is_waited_for_until_it_is_approved() {
    let (controller, person) = deciding(views::request("pending"), views::request("approved"));
    let (code, stdout, stderr) = person.says(&CREATE);
    assert_eq!(code, 0, "{stderr}");
    let request = &objects(&stdout)[0];
    assert_eq!(
        (&request["id"], &request["state"], &request["schema"]),
        (&json!(REQUEST), &json!("approved"), &json!(1))
    );
    assert!(request["decision"]["rules"].is_array());
    assert!(stderr.contains("1 approval by approver"), "{stderr}");
    assert_eq!(controller.bodies("POST", "/requests")[0]["reason"], "test");
}

#[test]
fn an_approvers_no_is_exit_3_with_name_and_reason() {
    let (_controller, person) = deciding(views::request("pending"), views::denied("bob", "not today"));
    let (code, stdout, stderr) = person.says(&CREATE);
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(objects(&stdout)[0]["state"], "denied");
    assert!(stderr.contains("bob") && stderr.contains("not today"), "{stderr}");
}

#[test]
fn nobody_deciding_in_time_is_exit_4_and_the_id_is_told() {
    let (_controller, person) = deciding(views::request("pending"), views::request("pending"));
    let started = Instant::now();
    let (code, stdout, stderr) = person.says(&[&CREATE[..], &["--wait", "2s"]].concat());
    assert_eq!(code, 4, "{stderr}");
    let took = started.elapsed().as_millis();
    assert!((1900..8000).contains(&took), "{took} ms");
    assert_eq!((&objects(&stdout)[0]["id"], &objects(&stdout)[0]["state"]), (&json!(REQUEST), &json!("pending")));
}

#[test]
fn nowait_answers_at_once_with_the_pending_request() {
    let (controller, person) = deciding(views::request("pending"), views::request("approved"));
    let (code, stdout, _) = person.says(&[&CREATE[..], &["--nowait"]].concat());
    assert_eq!((code, &objects(&stdout)[0]["state"]), (0, &json!("pending")));
    assert!(!controller.asked().iter().any(|asked| asked.starts_with("GET /requests/")));
}

#[test]
fn the_policys_no_is_exit_3_and_shows_the_kept_request() {
    let (_controller, person) = at(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/requests") => {
            Some(Reply::error(403, "policy-denied", &format!("rule high-means-no forbids this ({REQUEST})")))
        }
        ("GET", path) if path == format!("/requests/{REQUEST}") => Some(Reply::ok(views::request("denied"))),
        _ => None,
    });
    let (code, stdout, stderr) = person.says(&CREATE);
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(objects(&stdout)[0]["id"], REQUEST);
    let error = &objects(&stderr)[0]["error"];
    assert_eq!((&error["code"], &error["exit"]), (&json!("policy-denied"), &json!(3)), "{stderr}");
}

#[test]
fn a_controller_that_breaks_off_is_waited_for() {
    let looks = AtomicU32::new(0);
    let (_controller, person) = at(move |asked| match (asked.method.as_str(), asked.path.split('?').next()?) {
        ("POST", "/requests") => Some(Reply::Json(201, views::request("pending"))),
        // A stream where an object was asked for breaks the connection off.
        ("GET", path) if path.starts_with("/requests/") && looks.fetch_add(1, Ordering::Relaxed) < 1 => {
            Some(Reply::Events(Box::new(|| None)))
        }
        ("GET", path) if path.starts_with("/requests/") => Some(Reply::ok(views::request("approved"))),
        _ => None,
    });
    let (code, _, stderr) = person.says(&CREATE);
    // The broken answer is no JSON: that is a failure and not an endless loop.
    assert!(code == 0 || code == 1, "{code} {stderr}");
}

#[test]
fn a_kill_is_0_with_the_closing_record_and_6_without() {
    let (_controller, person) = at(|asked| match asked.path.as_str() {
        path if path == format!("/sessions/{SESSION}/kill") => Some(match asked.body["reason"].as_str() {
            Some("near") => Reply::Json(200, views::session("ended", Some("killed"), 0)),
            _ => Reply::Json(202, views::session("ending", Some("killed"), 0)),
        }),
        _ => None,
    });
    let (code, stdout, stderr) = person.says(&["session", "kill", SESSION, "--reason", "near", "--json"]);
    assert_eq!((code, &objects(&stdout)[0]["end_reason"]), (0, &json!("killed")), "{stderr}");
    let (code, stdout, stderr) = person.says(&["session", "kill", SESSION, "--reason", "far", "--json"]);
    assert_eq!((code, &objects(&stdout)[0]["state"]), (6, &json!("ending")), "{stderr}");
}

#[test]
fn a_lock_that_leaves_a_session_ending_is_exit_6() {
    let (_controller, person) = at(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/locks") => Some(Reply::Json(
            202,
            json!({
                "schema": 1, "id": "lock_7k2m9q4x", "kind": asked.body["kind"], "name": asked.body["name"], "by": "ops",
                "reason": asked.body["reason"], "created_at": "2026-11-22T03:13:43.045Z", "ended_sessions": [],
                "ending_sessions": [SESSION],
            }),
        )),
        _ => None,
    });
    let (code, _, stderr) = person.says(&["lock", "site", "north", "--for", "1h", "--reason", "storm"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains(SESSION), "{stderr}");
}

#[test]
fn an_audit_that_finds_something_is_exit_7_and_names_it() {
    let report = |ok: bool| {
        let problems =
            if ok { json!([]) } else { json!([{"kind": "edited", "index": 5, "message": "entry 5 was edited"}]) };
        json!({"schema": 1, "ok": ok, "entries": 9, "root": "00", "checkpoints": 3, "problems": problems})
    };
    for (ok, expected) in [(true, 0), (false, 7)] {
        let (_controller, person) = at(move |asked| (asked.path == "/audit/verify").then(|| Reply::ok(report(ok))));
        let (code, stdout, stderr) = person.says(&["audit", "verify"]);
        assert_eq!(code, expected, "{stdout}{stderr}");
        assert_eq!(stdout.contains("entry 5 was edited"), !ok, "{stdout}");
    }
}

#[test]
fn lists_are_one_object_a_line_and_pages_are_followed() {
    let (controller, person) = at(|asked| match asked.path.as_str() {
        "/sessions?active=true&site=north" => {
            Some(Reply::ok(json!({"schema": 1, "items": [views::session("active", None, 5000)], "next": "x y"})))
        }
        "/sessions?active=true&site=north&after=x%20y" => {
            Some(Reply::ok(json!({"schema": 1, "items": [views::session("arming", None, 5000)]})))
        }
        _ => None,
    });
    let (code, stdout, stderr) = person.says(&["session", "ls", "--active", "--site", "north", "--json"]);
    assert_eq!(code, 0, "{stderr} {:?}", controller.asked());
    let states: Vec<Value> = objects(&stdout).into_iter().map(|session| session["state"].clone()).collect();
    assert_eq!(states, ["active", "arming"]);
    let (_, table, _) = person.says(&["session", "ls", "--active", "--site", "north"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[test]
fn an_unknown_name_is_exit_1_and_an_ended_log_in_exit_3_with_the_next_step() {
    let (_controller, person) = at(|asked| match asked.path.as_str() {
        "/tasks" => Some(Reply::error(401, "unauthenticated", "your log-in has ended")),
        _ => None,
    });
    let (code, _, stderr) = person.says(&["asset", "show", "nothing"]);
    assert_eq!(code, 1, "{stderr}");
    let (code, _, stderr) = person.says(&["task", "ls"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("next: thinlane login"), "{stderr}");
}

#[test]
fn a_code_is_printed_once_or_written_0600() {
    use std::os::unix::fs::PermissionsExt;
    let (_controller, person) = at(|asked| match asked.path.as_str() {
        "/sites/north/token" => {
            Some(Reply::ok(json!({"schema": 1, "code": "c0de-c0de", "expires_at": "2099-01-01T00:00:00.000Z"})))
        }
        _ => None,
    });
    let (_, stdout, _) = person.says(&["site", "token", "north"]);
    assert_eq!(stdout, "c0de-c0de\n");
    let (_, stdout, _) = person.says(&["site", "token", "north", "--json"]);
    assert_eq!(objects(&stdout)[0]["code"], "c0de-c0de");
    let door = (objects(&stdout)[0]["controller"].clone(), objects(&stdout)[0]["ca_fingerprint"].clone());
    assert!(door.0.as_str().is_some_and(|at| at.contains(":")), "{stdout}");
    assert!(door.1.as_str().is_some_and(|print| print.starts_with("sha256:") && print.len() == 71), "{stdout}");
    // Its picture comes last, beside what was printed before; with --json or a file there is none.
    let (_, stdout, _) = person.says(&["site", "token", "north", "--qr"]);
    let picture: Vec<&str> = stdout.strip_prefix("c0de-c0de\n").expect("the code first").lines().collect();
    assert!((20..=23).contains(&picture.len()), "all of it fits 24 lines: {stdout}");
    assert_eq!(objects(&person.says(&["site", "token", "north", "--qr", "--json"]).1).len(), 1);
    let file = person.home().join("code");
    let (code, stdout, stderr) = person.says(&["site", "token", "north", "--out", file.to_str().expect("text")]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("c0de") && !stderr.contains("c0de"), "{stdout}{stderr}");
    assert_eq!(std::fs::read_to_string(&file).expect("the code"), "c0de-c0de\n");
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn garbage_from_the_controller_is_one_sentence_and_never_a_dump() {
    let (_controller, person) = at(|asked| match asked.path.as_str() {
        "/assets" => Some(Reply::ok(json!({"schema": 7, "items": "\u{1b}[2J"}))),
        "/sites" => Some(Reply::Json(500, json!(["what"]))),
        "/tasks" => Some(Reply::ok(Value::Null)),
        _ => None,
    });
    for list in ["asset", "site", "task"] {
        let (code, stdout, stderr) = person.says(&[list, "ls"]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stdout.is_empty() && stderr.starts_with("error: "), "{stdout}{stderr}");
        assert!(!stderr.contains('\u{1b}') && !stderr.contains("Error("), "{stderr}");
    }
}
