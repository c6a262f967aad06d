//! What is refused, with which exit code, and what to do next: inventories, empty words, files that are none.

mod support;

use serde_json::json;
use support::views;
use support::{Asked, Controller, Person, Reply};

fn at(handler: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> (Controller, Person) {
    let controller = Controller::start(move |asked| {
        handler(asked).unwrap_or_else(|| match asked.path.as_str() {
            "/status" => Reply::ok(views::status()),
            "/login" => Reply::ok(views::token()),
            _ => Reply::error(404, "not-found", "there is no such thing"),
        })
    });
    let person = Person::new();
    person.log_in(&controller);
    (controller, person)
}

/// Writes a file into the person's home; its path.
fn file(person: &Person, name: &str, bytes: &[u8]) -> String {
    let path = person.home().join(name);
    std::fs::write(&path, bytes).expect("written");
    path.to_string_lossy().into_owned()
}

const MISTAKES: &str = "asset,site,address,type,criticality\n\
                        plc-1,north,192.168.1.10,plc,urgent\n\
                        plc-2,nowhere,192.168.1.11,plc,low\n\
                        plc-3,north,ten,plc,low\n";

#[test]
fn whoever_may_not_import_is_told_that_and_not_what_is_wrong_with_the_file() {
    let (controller, person) = at(|asked| match asked.path.as_str() {
        "/assets/import" => {
            Some(Reply::error(403, "forbidden", "importing assets needs one of the roles site-tech, admin"))
        }
        _ => None,
    });
    let files = [
        file(&person, "bad.csv", MISTAKES.as_bytes()),
        file(&person, "photo.csv", &[0xff, 0xd8, 0, 1]),
        person.home().join("none.csv").to_string_lossy().into_owned(),
    ];
    for csv in files {
        let (code, _, stderr) = person.says(&["asset", "import", &csv]);
        assert_eq!(code, 3, "{csv}: {stderr}");
        assert!(stderr.contains("site-tech") && stderr.contains("\nnext: ") && !stderr.contains("line"), "{stderr}");
    }
    assert!(
        controller.bodies("POST", "/assets/import").iter().all(|body| body["check"] == true),
        "nothing is imported"
    );
}

#[test]
fn all_mistakes_of_an_inventory_are_told_at_once_ours_and_the_controllers() {
    let (controller, person) = at(|asked| match asked.path.as_str() {
        "/assets/import" => {
            Some(Reply::error(400, "invalid", "plc-2: no site nowhere\nplc-1: there is an asset plc-1 already"))
        }
        _ => None,
    });
    let csv = file(&person, "plant.csv", MISTAKES.as_bytes());
    let (code, _, stderr) = person.says(&["asset", "import", &csv]);
    assert_eq!(code, 1, "{stderr}");
    let places: Vec<usize> =
        ["plant.csv:2: criticality", "plant.csv:2: plc-1", "plant.csv:3: plc-2", "plant.csv:4: address"]
            .iter()
            .map(|place| stderr.find(place).unwrap_or_else(|| panic!("{place} is missing: {stderr}")))
            .collect();
    assert!(places.is_sorted() && stderr.contains("\nnext: correct "), "{stderr}");
    let asked = controller.bodies("POST", "/assets/import");
    assert_eq!((asked.len(), &asked[0]["check"]), (1, &json!(true)), "{asked:?}");
    assert_eq!(asked[0]["assets"].as_array().map(Vec::len), Some(2), "what can be read is judged: {asked:?}");
}

#[test]
fn an_empty_reason_is_a_mistake_of_the_command_line() {
    let (controller, person) = at(|_| None);
    let before = controller.asked().len();
    let request = views::REQUEST;
    let lines: [&[&str]; 5] = [
        &["request", "create", "rtu-7", "--task", "x", "--reason", " "],
        &["request", "deny", request, "--reason", ""],
        &["session", "kill", views::SESSION, "--reason", ""],
        &["lock", "user", "bob", "--reason", ""],
        &["connect", "rtu-7", "--task", "x", "--reason", ""],
    ];
    for line in lines {
        let (code, _, stderr) = person.says(line);
        assert_eq!(code, 2, "{line:?}: {stderr}");
        assert!(stderr.contains("--reason") && stderr.contains("a few words"), "{stderr}");
    }
    assert_eq!(controller.asked().len(), before, "nobody is asked");
}

#[test]
fn a_file_that_is_none_is_told_with_the_flag_and_the_next_step() {
    let (controller, person) = at(|_| None);
    let home = person.home().to_string_lossy().into_owned();
    let setup = |code: &str| {
        let url = controller.url();
        let print = controller.authority.fingerprint();
        let line =
            ["setup", &url, "--ca-fingerprint", &print, "--user", "eve", "--password-stdin", "--code-file", code];
        person.says(&line)
    };
    let empty = file(&person, "empty", b"");
    let cases = [
        (home.as_str(), "is a directory"),
        ("/nowhere/code", "does not exist"),
        (&empty, "is empty"),
        ("env://SURELY_NOT_SET", "is not set"),
    ];
    for (code, expected) in cases {
        let (exit, _, stderr) = setup(code);
        assert_eq!(exit, 1, "{code}: {stderr}");
        let told = stderr.contains("--code-file: ") && stderr.contains(expected) && stderr.contains("\nnext: ");
        assert!(told && !stderr.contains("os error"), "{code}: {stderr}");
    }
    let (exit, _, stderr) = person.says(&["asset", "import", &home]);
    assert!(exit == 1 && stderr.contains("is a directory") && stderr.contains("\nnext: "), "{stderr}");
}

#[test]
fn lanes_that_the_controller_does_not_close_are_each_told_and_stay_known_and_one_that_is_over_is_not_among_them() {
    const OVER: &str = "ses_bbbbbbbb";
    let (_controller, person) = at(|asked| {
        let over = asked.path.contains(OVER);
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", path) if path.ends_with("/release") && over => {
                Some(Reply::error(410, "ended", "the session is over"))
            }
            ("POST", path) if path.ends_with("/release") => {
                Some(Reply::error(403, "forbidden", "this needs the role requester"))
            }
            ("GET", path) if path.starts_with("/sessions/") => Some(Reply::ok(match over {
                true => views::session("ended", Some("expired"), 0),
                false => views::session("active", None, 60_000),
            })),
            _ => None,
        }
    });
    let lanes = person.home().join("lanes");
    std::fs::create_dir(&lanes).expect("a directory");
    for (request, session) in
        [("req_aaaaaaaa", views::SESSION), ("req_bbbbbbbb", OVER), ("req_cccccccc", "ses_cccccccc")]
    {
        let config = person.home().join(format!("{session}.conf"));
        let lane = json!({
            "request": request, "asset": "rtu-7", "session": session, "ends_at": "2099-01-01T00:00:00.000Z",
            "config": config, "holder": {"pid": 1, "started": 0, "boot": ""},
        });
        std::fs::write(lanes.join(format!("{request}.json")), lane.to_string()).expect("written");
    }
    let (code, stdout, stderr) = person.says(&["down"]);
    assert_eq!(code, 3, "{stderr}");
    for session in [views::SESSION, "ses_cccccccc"] {
        let told = format!("error: {session}: this needs the role requester\nnext: thinlane whoami");
        assert_eq!(stderr.matches(&told).count(), 1, "{stderr}");
    }
    assert!(!stderr.contains(OVER) && stdout.contains("expired"), "{stdout}{stderr}");
    assert_eq!(person.lane_files().len(), 2, "what is still open stays known");
}
