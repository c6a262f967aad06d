//! The HTTPS API against a real process: log-in, roles, requests, errors.

mod common;

use std::time::{Duration, Instant};

use common::{Controller, PASSWORD, totp};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_first_log_in_takes_two_calls_and_every_code_is_good_once() {
    let (controller, ada) = Controller::start().await;
    let (status, code) =
        controller.post(&ada, "/users", json!({"user": "erik", "name": "Erik", "roles": ["requester"]})).await;
    assert_eq!(status, 201, "{code}");
    let code = code["code"].as_str().expect("a code").to_owned();

    let wrong = json!({"user": "erik", "code": "00000-00000-00000-00000", "password": PASSWORD});
    let (status, body) = controller.call(Method::POST, "/setup", None, Some(wrong)).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("authentication-failed")), "{body}");
    let short = json!({"user": "erik", "code": code, "password": "short"});
    let (status, body) = controller.call(Method::POST, "/setup", None, Some(short)).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid")), "{body}");

    // Typed in capitals and without dashes it is the same code.
    let erik = controller.set_up("erik", &code.to_uppercase().replace('-', "")).await;
    let (status, me) = controller.get(&erik, "/whoami").await;
    assert_eq!((status, &me["user"], &me["roles"]), (200, &json!("erik"), &json!(["requester"])));

    let again = json!({"user": "erik", "code": code, "password": PASSWORD});
    let (status, body) = controller.call(Method::POST, "/setup", None, Some(again)).await;
    assert_eq!(status, 401, "a set-up code is good once: {body}");

    let log_in = |code: String| json!({"user": "erik", "password": PASSWORD, "totp": code});
    let used = controller.call(Method::POST, "/login", None, Some(log_in(totp(&erik.secret, 0)))).await;
    assert_eq!(used.0, 401, "the set-up used this code: {}", used.1);
    assert!(used.1["error"]["message"].as_str().is_some_and(|text| text.contains("used")), "{}", used.1);
    let wait = used.1["error"]["retry_after"].as_u64().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let next = totp(&erik.secret, 1);
    let (status, token) = controller.call(Method::POST, "/login", None, Some(log_in(next.clone()))).await;
    assert_eq!(status, 200, "{token}");
    let (status, body) = controller.call(Method::POST, "/login", None, Some(log_in(next))).await;
    assert_eq!(status, 401, "{body}");
}

#[tokio::test]
async fn a_recovery_code_stands_in_for_the_second_factor_once() {
    let (controller, ada) = Controller::start().await;
    let (_, code) = controller.post(&ada, "/users", json!({"user": "erik", "name": "E", "roles": ["requester"]})).await;
    let mut body = json!({"user": "erik", "code": code["code"], "password": PASSWORD});
    let (_, started) = controller.call(Method::POST, "/setup", None, Some(body.clone())).await;
    body["totp"] = json!(totp(started["totp_secret"].as_str().expect("a secret"), 0));
    assert_eq!(controller.call(Method::POST, "/setup", None, Some(body)).await.0, 200);
    let codes = started["recovery_codes"].as_array().expect("codes");
    assert_eq!(codes.len(), 10);
    for (turn, expected) in [(0, 200), (0, 401), (1, 200)] {
        let body = json!({"user": "erik", "password": PASSWORD, "totp": codes[turn]});
        let (status, answer) = controller.call(Method::POST, "/login", None, Some(body)).await;
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test]
async fn five_wrong_tries_lock_an_account_out_and_tell_nobody_whether_it_exists() {
    let (controller, ada) = Controller::start().await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let mut said = Vec::new();
    for login in ["erik", "nobody"] {
        for _ in 0..5 {
            let body = json!({"user": login, "password": "wrong", "totp": "000000"});
            let (status, answer) = controller.call(Method::POST, "/login", None, Some(body)).await;
            assert_eq!(status, 401, "{answer}");
            said.push(answer["error"]["message"].clone());
        }
        // Now even the right password has to wait.
        let body = json!({"user": login, "password": PASSWORD, "totp": totp(&erik.secret, 1)});
        let (status, answer) = controller.call(Method::POST, "/login", None, Some(body)).await;
        assert_eq!(status, 401, "{answer}");
        let wait = answer["error"]["retry_after"].as_u64().expect("seconds");
        assert!((1..=15).contains(&wait), "{answer}");
        said.push(answer["error"]["message"].clone());
    }
    assert_eq!(said[..6], said[6..], "the same words for a known and an unknown login");
    let (status, _) = controller.get(&erik, "/whoami").await;
    assert_eq!(status, 200, "who is logged in stays so");
    let kinds = controller.kinds(&ada).await;
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("auth.failed"), count("auth.locked-out")), (10, 2), "{kinds:?}");
}

#[tokio::test]
async fn a_restart_of_the_controller_forgets_no_wrong_try() {
    let (mut controller, ada) = Controller::start().await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let try_as = |login: &str, password: &str, totp: String| json!({"user": login, "password": password, "totp": totp});
    for login in ["erik", "nobody"] {
        for _ in 0..5 {
            let body = try_as(login, "wrong", "000000".to_owned());
            assert_eq!(controller.call(Method::POST, "/login", None, Some(body)).await.0, 401);
        }
    }
    controller.kill();
    controller.run().await;
    for login in ["erik", "nobody"] {
        let body = try_as(login, PASSWORD, totp(&erik.secret, 1));
        let (status, answer) = controller.call(Method::POST, "/login", None, Some(body)).await;
        assert_eq!(status, 401, "{login}: {answer}");
        assert!(answer["error"]["retry_after"].as_u64().is_some_and(|wait| (1..=15).contains(&wait)), "{answer}");
    }
    let olga = controller.person(&ada, "olga", &["ops"]).await;
    assert_eq!(controller.get(&olga, "/whoami").await.0, 200, "others are let in");
}

#[tokio::test]
async fn a_known_and_an_unknown_login_take_the_same_time() {
    let (controller, ada) = Controller::start().await;
    controller.person(&ada, "erik", &["requester"]).await;
    let mut times = [Duration::MAX; 2];
    for round in 0..4 {
        for (at, login) in ["erik", &format!("nobody{round}")].into_iter().enumerate() {
            let began = Instant::now();
            let body = json!({"user": login, "password": "wrong", "totp": "000000"});
            controller.call(Method::POST, "/login", None, Some(body)).await;
            times[at] = times[at].min(began.elapsed());
        }
    }
    let (known, unknown) = (times[0].as_secs_f64(), times[1].as_secs_f64());
    assert!(unknown > 0.6 * known && known > 0.6 * unknown, "known {known:.4} s, unknown {unknown:.4} s");
}

#[tokio::test]
async fn log_out_lock_and_reset_end_tokens_at_once() {
    let (controller, ada) = Controller::start().await;
    let olga = controller.person(&ada, "olga", &["ops"]).await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let log_in = |totp: String| json!({"user": "erik", "password": PASSWORD, "totp": totp});

    assert_eq!(controller.post(&erik, "/logout", json!({})).await.0, 200);
    assert_eq!(controller.get(&erik, "/whoami").await.0, 401);

    let (status, token) = controller.call(Method::POST, "/login", None, Some(log_in(totp(&erik.secret, 1)))).await;
    assert_eq!(status, 200, "{token}");
    let erik = common::Person { token: token["token"].as_str().expect("a token").to_owned(), ..erik };
    let (status, lock) = controller.post(&olga, "/users/erik/lock", json!({"reason": "left his laptop"})).await;
    assert_eq!(status, 201, "{lock}");
    let (status, told) = controller.get(&erik, "/whoami").await;
    assert_eq!((status, &told["error"]["code"]), (403, &json!("locked")), "{told}");
    let words = told["error"]["message"].as_str().expect("a sentence");
    assert!(words.contains("user erik") && words.contains("olga") && words.contains("left his laptop"), "{words}");
    let next = told["error"]["next"].as_str().expect("a step");
    assert!(next.contains("ops") && next.contains("thinlane unlock user erik"), "{next}");
    let stranger =
        common::Person { token: "tlt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(), ..erik.clone() };
    let (status, told) = controller.get(&stranger, "/whoami").await;
    assert!(status == 401 && !told.to_string().contains("erik"), "a stranger learns nothing: {told}");
    assert_eq!(controller.get(&olga, "/users/erik").await.1["state"], "locked");
    assert_eq!(controller.post(&olga, "/users/erik/unlock", json!({})).await.0, 200);
    let (status, told) = controller.get(&erik, "/whoami").await;
    assert_eq!(status, 401, "an unlock brings no token back");
    assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("locked no longer")), "{told}");

    let (status, code) = controller.post(&ada, "/users/erik/reset", json!({})).await;
    assert_eq!(status, 200, "{code}");
    let own = controller.post(&olga, "/users/olga/lock", json!({"reason": "holiday"})).await;
    assert_eq!((own.0, &own.1["error"]["code"]), (403, &json!("forbidden")), "{}", own.1);
    assert!(own.1["error"]["message"].as_str().is_some_and(|text| text.contains("your own account")), "{}", own.1);
    let (status, body) = controller.call(Method::POST, "/login", None, Some(log_in(totp(&erik.secret, 2)))).await;
    assert_eq!(status, 401, "the old password is void: {body}");
    let erik = controller.set_up("erik", code["code"].as_str().expect("a code")).await;
    assert_eq!(controller.get(&erik, "/whoami").await.0, 200);
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_no_more() {
    let (controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let roles = ["requester", "approver", "ops", "site-tech", "auditor", "admin"];
    // Everybody who may, in the order of `roles`; 403 for the others.
    let table: [(Method, &str, serde_json::Value, [bool; 6]); 13] = [
        (
            Method::POST,
            "/users",
            json!({"user": "USER", "name": "n", "roles": ["requester"]}),
            [false, false, false, false, false, true],
        ),
        (Method::POST, "/users/ada/reset-of-nobody", json!({}), [false; 6]),
        (Method::POST, "/sites", json!({"site": "USER"}), [false, false, false, true, false, true]),
        (
            Method::POST,
            "/assets",
            json!({"asset": "USER", "site": "north", "address": "192.168.1.HOST", "type": "plc"}),
            [false, false, false, true, false, true],
        ),
        (Method::POST, "/sites/north/token", json!({}), [false, false, true, true, false, true]),
        (
            Method::POST,
            "/requests",
            json!({"asset": "plc-1", "task": "modbus", "reason": "r"}),
            [true, false, false, false, false, false],
        ),
        (
            Method::POST,
            "/locks",
            json!({"kind": "org", "name": "USER", "reason": "r"}),
            [false, false, true, false, false, true],
        ),
        (Method::GET, "/locks", json!(null), [false, true, true, false, true, true]),
        (Method::GET, "/audit/entries", json!(null), [false, false, true, false, true, true]),
        (Method::GET, "/audit/verify", json!(null), [false, false, true, false, true, true]),
        (Method::GET, "/sites", json!(null), [true; 6]),
        (Method::GET, "/tasks", json!(null), [true; 6]),
        (Method::GET, "/overview", json!(null), [true; 6]),
    ];
    for (number, role) in roles.into_iter().enumerate() {
        let login = format!("u-{role}");
        let person = controller.person(&ada, &login, &[role]).await;
        for (turn, (method, path, body, may)) in table.iter().enumerate() {
            let text = body
                .to_string()
                .replace("USER", &format!("{login}-x{turn}"))
                .replace("HOST", &(100 + number).to_string());
            let body: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let body = (!body.is_null()).then_some(body);
            let (status, answer) = controller.call(method.clone(), path, Some(&person.token), body).await;
            if path.contains("nobody") {
                assert_eq!(status, 404, "{answer}");
            } else if may[number] {
                assert!(status < 300, "{role} may {method} {path}: {status} {answer}");
            } else {
                assert_eq!(
                    (status, &answer["error"]["code"]),
                    (403, &json!("forbidden")),
                    "{role} {method} {path}: {answer}"
                );
            }
        }
        let (status, _) = controller.get(&person, "/users/ada").await;
        assert_eq!(status, if matches!(role, "requester" | "site-tech") { 403 } else { 200 }, "{role}");
    }
    for (method, path, body, _) in &table {
        let body = (!body.is_null()).then(|| body.clone());
        let (status, answer) = controller.call(method.clone(), path, None, body).await;
        assert!(matches!(status, 401 | 404), "{method} {path} without a token: {status} {answer}");
    }
}

#[tokio::test]
async fn a_request_is_decided_by_somebody_else_and_waiting_for_it_takes_no_longer_than_that() {
    let (controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let erik = controller.person(&ada, "erik", &["requester", "approver"]).await;
    let olga = controller.person(&ada, "olga", &["approver"]).await;
    let nils = controller.person(&ada, "nils", &["requester"]).await;
    let body = json!({"asset": "plc-1", "task": "modbus", "reason": "pump 3", "ticket": "CHG-1", "seconds": 900});
    let (status, request) = controller.post(&erik, "/requests", body).await;
    assert_eq!((status, &request["state"]), (201, &json!("pending")), "{request}");
    let id = request["id"].as_str().expect("an id");
    let path = format!("/requests/{id}");

    let (status, body) = controller.post(&erik, &format!("{path}/approve"), json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("forbidden")), "nobody approves an own request: {body}");
    let (status, body) = controller.get(&nils, &path).await;
    assert_eq!(status, 404, "other people's requests are not shown to a requester: {body}");
    let (_, pending) = controller.get(&olga, "/requests?pending=true").await;
    assert_eq!(pending["items"].as_array().map(Vec::len), Some(1), "{pending}");

    let began = Instant::now();
    let waiting = format!("{path}?wait=30");
    let (seen, approved) = tokio::join!(controller.get(&erik, &waiting), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // A unique beginning names it as well, with and without the prefix.
        controller.post(&olga, &format!("/requests/{}/approve", &id[4..10]), json!({"note": "ok"})).await
    });
    assert_eq!(approved.0, 200, "{}", approved.1);
    assert_eq!((seen.0, &seen.1["state"]), (200, &json!("approved")), "{}", seen.1);
    assert!(began.elapsed() > Duration::from_millis(250) && began.elapsed() < Duration::from_secs(5));

    let began = Instant::now();
    let (_, still) = controller.get(&erik, &format!("{path}?wait=1&state=approved")).await;
    assert_eq!(still["state"], "approved");
    assert!(began.elapsed() > Duration::from_millis(950), "it waits for a change");

    let (status, gone) = controller.post(&erik, &format!("{path}/withdraw"), json!({})).await;
    assert_eq!((status, &gone["state"]), (200, &json!("withdrawn")), "{gone}");
    let (status, over) = controller.post(&olga, &format!("{path}/approve"), json!({})).await;
    assert_eq!((status, &over["error"]["code"]), (410, &json!("ended")), "{over}");
}

#[tokio::test]
async fn what_the_policy_denies_is_said_with_the_rule_and_kept() {
    let rules = r#"
        [task.modbus]
        title = "Modbus"
        protocol = "tcp"
        port = 502
        [[permit]]
        id = "all"
        approvals = 0
        [[forbid]]
        id = "high-means-no"
        asset = { criticality = ["high"] }
    "#;
    let (controller, ada) = Controller::start_with(|dir| {
        std::fs::write(dir.join("policies/rules.toml"), rules).expect("written");
        std::fs::remove_file(dir.join("policies/tasks.toml")).expect("removed");
    })
    .await;
    controller.inventory(&ada).await;
    let risky =
        json!({"asset": "plc-2", "site": "north", "address": "192.168.1.11", "type": "plc", "criticality": "high"});
    assert_eq!(controller.post(&ada, "/assets", risky).await.0, 201);
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let ask = |asset: &str| json!({"asset": asset, "task": "modbus", "reason": "r"});
    let (status, request) = controller.post(&erik, "/requests", ask("plc-1")).await;
    assert_eq!((status, &request["state"]), (201, &json!("approved")), "{request}");
    let (status, body) = controller.post(&erik, "/requests", ask("plc-2")).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("policy-denied")), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("high-means-no")), "{body}");
    let (_, denied) = controller.get(&erik, "/requests?state=denied").await;
    assert_eq!(denied["items"][0]["asset"], "plc-2", "{denied}");
    let (status, explained) = controller.get(&erik, "/policy/explain?asset=plc-2&task=modbus").await;
    assert_eq!((status, &explained["verdict"]), (200, &json!("deny")), "{explained}");
    let (status, body) = controller.get(&erik, "/policy/explain?who=ada&asset=plc-2&task=modbus").await;
    assert_eq!(status, 403, "{body}");

    // An invalid policy denies everything new, loudly; a valid one is back with the next reload.
    let path = controller.dir().join("policies/rules.toml");
    std::fs::write(&path, format!("{rules}\n[[permit]]\nid = \"x\"\ncolour = \"red\"\n")).expect("written");
    controller.signal(nix::sys::signal::Signal::SIGHUP);
    let broken = until(&controller, &erik, "invalid").await;
    let errors = broken["errors"].to_string();
    assert!(errors.contains("rules.toml") && errors.contains("colour"), "{broken}");
    let (status, body) = controller.post(&erik, "/requests", ask("plc-1")).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("policy-invalid")), "{body}");
    std::fs::write(&path, rules).expect("written");
    controller.signal(nix::sys::signal::Signal::SIGHUP);
    until(&controller, &erik, "valid").await;
    assert_eq!(controller.post(&erik, "/requests", ask("plc-1")).await.0, 201);
    let kinds = controller.kinds(&ada).await;
    assert!(kinds.contains(&"policy.invalid".to_owned()), "{kinds:?}");
}

async fn until(controller: &Controller, who: &common::Person, state: &str) -> serde_json::Value {
    for _ in 0..100 {
        let (_, policy) = controller.get(who, "/policy").await;
        if policy["state"] == state {
            return policy;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the policy does not become {state}");
}

#[tokio::test]
async fn the_log_is_paged_signed_and_verified_and_outlives_a_crash() {
    let (mut controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let (_, all) = controller.get(&ada, "/audit/entries").await;
    let count = all["items"].as_array().expect("entries").len() as u64;
    assert!(count >= 5, "{all}");
    let (_, page) = controller.get(&ada, "/audit/entries?after=1&limit=2").await;
    assert_eq!((&page["items"][0]["index"], &page["next"]), (&json!(2), &json!("3")), "{page}");
    let (_, last) = controller.get(&ada, "/audit/entries?last=1").await;
    assert_eq!(last["items"][0]["index"], json!(count - 1), "{last}");

    controller.kill();
    controller.run().await;
    let (status, again) = controller.get(&ada, "/audit/entries").await;
    assert_eq!(status, 200, "the token is still good: {again}");
    let (before, after) = (all["items"].as_array().expect("entries"), again["items"].as_array().expect("entries"));
    assert_eq!(before[..], after[..before.len()], "what was answered is there");
    let (_, report) = controller.get(&ada, "/audit/verify").await;
    assert_eq!((&report["ok"], &report["problems"]), (&json!(true), &json!([])), "{report}");
    let (_, checkpoint) = controller.get(&ada, "/audit/checkpoint").await;
    let key: thinlane_tlog::Verifier = checkpoint["key"].as_str().expect("a key").parse().expect("a vkey");
    let note = checkpoint["note"].as_str().expect("a note");
    let signed = thinlane_tlog::SignedCheckpoint::open(note.as_bytes(), &key).expect("signed by the log");
    assert_eq!(json!(signed.checkpoint().size()), checkpoint["size"]);

    // A long poll for the next entry ends with it.
    let size = checkpoint["size"].as_u64().expect("a size");
    let path = format!("/audit/entries?after={}&wait=20", size - 1);
    let began = Instant::now();
    let (next, _) = tokio::join!(controller.get(&ada, &path), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        controller.post(&ada, "/sites", json!({"site": "south"})).await
    });
    assert_eq!(next.1["items"][0]["kind"], "site.added", "{}", next.1);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(controller.stop().await, "SIGTERM ends it well");
}

#[tokio::test]
async fn one_person_has_at_most_a_thousand_open_requests_and_others_do_not_notice() {
    let (controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let nils = controller.person(&ada, "nils", &["requester"]).await;
    let ask = || json!({"asset": "plc-1", "task": "modbus", "reason": "again"});
    let mut answers = Vec::new();
    for _ in 0..11 {
        let some = (0..100).map(|_| controller.post(&erik, "/requests", ask()));
        answers.extend(futures_util::future::join_all(some).await);
    }
    let count = |status: u16| answers.iter().filter(|answer| answer.0 == status).count();
    assert_eq!((count(201), count(429)), (1000, 100));
    let refused = answers.iter().find(|answer| answer.0 == 429).expect("one");
    assert_eq!(refused.1["error"]["code"], "limit", "{}", refused.1);
    let began = Instant::now();
    assert_eq!(controller.post(&nils, "/requests", ask()).await.0, 201);
    assert!(began.elapsed() < Duration::from_secs(1));
}
