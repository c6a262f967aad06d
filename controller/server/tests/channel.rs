//! The agent channel against a real process, with a played gateway: enrolment, activation, ends, clones, crashes.

mod common;

use std::time::{Duration, Instant};

use common::gateway::{self, Identity};
use common::{Controller, Person};
use reqwest::Method;
use serde_json::{Value, json};
use thinlane_model::{Counters, EndReason, RefuseReason};
use thinlane_tlog::tree::verify_consistency;
use thinlane_tlog::{SignedCheckpoint, Verifier};
use thinlane_wire::{Alarm, FromAgent, FromController, Refused, RenewAnswer, WitnessReport};

struct World {
    controller: Controller,
    ada: Person,
    olga: Person,
    erik: Person,
    north: Identity,
}

async fn world() -> World {
    let (controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let olga = controller.person(&ada, "olga", &["ops", "approver"]).await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let north = gateway::enrol(&controller, &ada, "north").await;
    World { controller, ada, olga, erik, north }
}

impl World {
    async fn request(&self) -> String {
        self.controller.approved(&self.erik, &self.olga).await
    }

    async fn activate(&self, request: &str, key: u8) -> (u16, Value) {
        let key = data_encoding::BASE64.encode(&[key; 32]);
        let body = json!({"public_key": key, "preshared_key": data_encoding::BASE64.encode(&[42; 32])});
        self.controller.post(&self.erik, &format!("/requests/{request}/activate"), body).await
    }

    /// A session that is active at this gateway.
    async fn session(&self, gateway: &mut gateway::Gateway, key: u8) -> (String, thinlane_model::Grant) {
        let request = self.request().await;
        let (answer, grant) = tokio::join!(self.activate(&request, key), async {
            let (grant, preshared) = gateway.grant().await;
            assert!(preshared, "the preshared key comes with the first grant");
            gateway.arm(&grant, key + 100).await;
            grant
        });
        assert_eq!(answer.0, 200, "{}", answer.1);
        (answer.1["session"]["id"].as_str().expect("an id").to_owned(), grant)
    }
}

#[tokio::test]
async fn an_activation_ends_in_an_armed_lane_with_all_that_a_wireguard_needs() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let request = world.request().await;
    let began = Instant::now();
    let (answer, grant) = tokio::join!(world.activate(&request, 1), async {
        let (grant, preshared) = north.grant().await;
        assert!(preshared);
        north.arm(&grant, 9).await;
        grant
    });
    let took = began.elapsed();
    let (status, activated) = answer;
    assert_eq!(status, 200, "{activated}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(grant.site, world.north.site);
    assert_eq!((grant.tuple.port, grant.tuple.address), (502, [192, 168, 1, 10].into()));
    // The deadline stands on the gateway's own boot clock, 600 s after its last word.
    let left = grant.deadline.0 - north.time;
    assert!((590_000..=600_000).contains(&left), "{left}");
    let session = &activated["session"];
    assert_eq!((&session["state"], &session["request"]), (&json!("active"), &json!(request)), "{session}");
    assert_eq!(activated["address"], json!(grant.tuple.engineer.to_string()));
    assert_eq!(activated["asset_address"], json!(grant.tuple.destination.to_string()));
    assert_eq!(activated["gateway_key"], json!(data_encoding::BASE64.encode(&[9; 32])));
    assert_eq!(activated["endpoint"], json!(world.controller.address.to_string()));
    assert!(activated["remaining_ms"].as_u64().is_some_and(|left| (590_000..=600_500).contains(&left)), "{activated}");
    let (status, again) = world.activate(&request, 2).await;
    assert_eq!((status, &again["error"]["code"]), (410, &json!("ended")), "a request opens one session: {again}");
    // The key has been forgotten: a snapshot for a new connection comes without it.
    let mut again = world.north.connect(&world.controller, 1, 2).await;
    let (same, preshared) = again.grant().await;
    assert_eq!((same, preshared), (grant, false));
    assert_eq!(north.until_the_end().await.as_deref(), Some("replaced"));
}

#[tokio::test]
async fn a_kill_answers_with_the_closing_record_and_its_exact_counters() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let (session, grant) = world.session(&mut north, 1).await;
    let counters = Counters { up_packets: 3, up_bytes: 300, down_packets: 2, down_bytes: 200, ..Counters::default() };
    let path = format!("/sessions/{session}/kill");
    let (status, body) = world.controller.post(&world.erik, &path, json!({"reason": "r"})).await;
    assert_eq!(status, 403, "a requester kills nothing: {body}");
    let (answer, ()) = tokio::join!(world.controller.post(&world.olga, &path, json!({"reason": "strange"})), async {
        let told =
            north.until(|frame| matches!(frame, FromController::Delta(delta) if !delta.withdrawn.is_empty())).await;
        let FromController::Delta(delta) = told else { panic!("a delta") };
        assert_eq!(delta.withdrawn[0].reason, EndReason::Killed);
        // Somebody else's signature is not believed, and ends nothing.
        north.close(&grant, EndReason::Killed, Counters::default(), true).await;
        north.close(&grant, EndReason::Killed, counters, false).await;
        north.until(|frame| matches!(frame, FromController::ClosingAck(_))).await;
    });
    let (status, ended) = answer;
    assert_eq!((status, &ended["state"], &ended["end_reason"]), (200, &json!("ended"), &json!("killed")), "{ended}");
    assert_eq!((&ended["counters"]["up_packets"], &ended["counters_final"]), (&json!(3), &json!(true)), "{ended}");
    let kinds = world.controller.kinds(&world.ada).await;
    for kind in [
        "request.created",
        "request.approved",
        "grant.issued",
        "session.active",
        "session.ending",
        "session.ended",
        "alarm.raised",
    ] {
        assert!(kinds.iter().any(|one| one == kind), "no {kind} in {kinds:?}");
    }
    let (_, report) = world.controller.get(&world.ada, "/audit/verify").await;
    assert_eq!(report["ok"], json!(true), "{report}");
}

#[tokio::test]
async fn a_kill_at_a_site_out_of_reach_answers_at_once_that_it_is_ending() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let (session, grant) = world.session(&mut north, 1).await;
    drop(north);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let (status, body) = world.controller.post(&world.olga, &format!("/sessions/{session}/kill"), json!({})).await;
    assert_eq!(status, 400, "a kill wants a reason: {body}");
    let (status, body) =
        world.controller.post(&world.olga, &format!("/sessions/{session}/kill"), json!({"reason": "lost"})).await;
    assert_eq!((status, &body["state"]), (202, &json!("ending")), "{body}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Back again, the gateway learns it and delivers its record.
    let mut north = world.north.online(&world.controller, 1, 2).await;
    assert!(north.applied.is_empty());
    north.close(&grant, EndReason::Killed, Counters::default(), false).await;
    north.until(|frame| matches!(frame, FromController::ClosingAck(_))).await;
    let (_, ended) = world.controller.get(&world.olga, &format!("/sessions/{session}")).await;
    assert_eq!(ended["state"], "ended", "{ended}");
}

#[tokio::test]
async fn without_a_gateway_an_activation_says_so_and_the_request_stays_good() {
    let world = world().await;
    let request = world.request().await;
    let began = Instant::now();
    let (status, body) = world.activate(&request, 1).await;
    assert_eq!((status, &body["error"]["code"]), (504, &json!("site-unreachable")), "{body}");
    assert!(began.elapsed() < Duration::from_secs(30));
    let (_, still) = world.controller.get(&world.erik, &format!("/requests/{request}")).await;
    assert_eq!(still["state"], "approved", "{still}");
    // A gateway that comes back within the grace is waited for.
    let (answer, ()) = tokio::join!(world.activate(&request, 1), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let mut north = world.north.online(&world.controller, 1, 1).await;
        let (grant, _) = north.grant().await;
        north.arm(&grant, 9).await;
        north.idle(Duration::from_millis(500)).await;
    });
    assert_eq!(answer.0, 200, "{}", answer.1);
}

#[tokio::test]
async fn what_a_gateway_refuses_is_told_to_the_engineer() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let request = world.request().await;
    let (answer, ()) = tokio::join!(world.activate(&request, 1), async {
        let (grant, _) = north.grant().await;
        let refused = Refused {
            session: Some(grant.session),
            serial: grant.serial,
            reason: RefuseReason::CeilingPort,
            detail: "port 502 is not in agent.toml".to_owned(),
        };
        north.say(FromAgent::Refused(refused)).await;
        north.until(|frame| matches!(frame, FromController::Delta(_))).await;
    });
    let (status, body) = answer;
    assert_eq!((status, &body["error"]["code"]), (502, &json!("site-refused")), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("ceiling-port")), "{body}");
}

#[tokio::test]
async fn an_enrolment_code_is_good_once_and_a_new_enrolment_revokes_the_old_certificate() {
    let world = world().await;
    let (status, code) = world.controller.post(&world.ada, "/sites/north/token", json!({})).await;
    assert_eq!(status, 201, "{code}");
    let csr = gateway::csr();
    let enrol = |csr: &str| json!({"code": code["code"], "csr": csr, "agent_version": "1"});
    let call = |body: Value| world.controller.call(Method::POST, "/enrol", None, Some(body));
    for garbage in ["", "AAAA", "no base 64", &"A".repeat(20_000)] {
        let (status, body) = call(enrol(garbage)).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid")), "{body}");
    }
    let mut old = world.north.online(&world.controller, 1, 1).await;
    let (status, enrolled) = call(enrol(&csr.der)).await;
    assert_eq!(status, 200, "a malformed request does not use the code up: {enrolled}");
    assert_eq!(old.until_the_end().await.as_deref(), Some("revoked"));
    let (status, body) = call(enrol(&gateway::csr().der)).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("authentication-failed")), "{body}");
    let mut again = world.north.connect(&world.controller, 1, 2).await;
    assert_eq!(again.until_the_end().await.as_deref(), Some("revoked"));
    let new = gateway::identity(csr, &enrolled);
    assert_eq!(new.site, world.north.site);
    new.online(&world.controller, 2, 1).await;
}

#[tokio::test]
async fn a_copied_key_freezes_the_site_until_ops_thaw_it_and_a_reconnect_does_not() {
    let world = world().await;
    // Twenty abrupt reconnects of one gateway: the newest always counts.
    for number in 1..=20 {
        let gateway = world.north.online(&world.controller, 1, number).await;
        drop(gateway);
    }
    let mut first = world.north.online(&world.controller, 1, 21).await;
    let mut second = world.north.connect(&world.controller, 2, 1).await;
    let (one, two) = tokio::join!(first.until_the_end(), second.until_the_end());
    assert_eq!((one.as_deref(), two.as_deref()), (Some("frozen"), Some("frozen")));
    let (_, site) = world.controller.get(&world.olga, "/sites/north").await;
    assert_eq!(site["state"], "frozen", "{site}");
    let mut third = world.north.connect(&world.controller, 1, 22).await;
    assert_eq!(third.until_the_end().await.as_deref(), Some("frozen"));
    let (status, body) = world.controller.post(&world.erik, "/sites/north/unfreeze", json!({"reason": "r"})).await;
    assert_eq!(status, 403, "{body}");
    let (status, body) =
        world.controller.post(&world.olga, "/sites/north/unfreeze", json!({"reason": "found it"})).await;
    assert_eq!(status, 200, "{body}");
    world.north.online(&world.controller, 1, 23).await;
    let kinds = world.controller.kinds(&world.ada).await;
    assert!(kinds.contains(&"site.frozen".to_owned()) && kinds.contains(&"site.unfrozen".to_owned()), "{kinds:?}");
}

#[tokio::test]
async fn nobody_without_a_certificate_of_this_controller_gets_into_the_channel() {
    let (one, two) = tokio::join!(world(), world());
    let foreign = two.north.dial(&one.controller).await;
    // The client's half of the handshake may be done before the refusal arrives: nothing may be answered.
    if let Ok(mut stream) = foreign {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.write_all(&[0, 0, 0, 1, 0]).await;
        let mut byte = [0; 1];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await.expect("it is closed");
        assert!(!matches!(read, Ok(length) if length > 0));
    }
    // Garbage instead of frames ends that connection and nothing else.
    let mut north = one.north.online(&one.controller, 1, 1).await;
    north.say_bytes(&[0xff; 64]).await;
    assert_eq!(north.until_the_end().await.as_deref(), Some("protocol"));
    one.north.online(&one.controller, 1, 2).await;
}

#[tokio::test]
async fn a_crash_of_the_controller_loses_no_session_and_what_was_asked_of_it_still_happens() {
    let mut world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let (session, grant) = world.session(&mut north, 1).await;
    world.controller.kill();
    assert_eq!(north.until_the_end().await, None);
    world.controller.run().await;
    let (_, view) = world.controller.get(&world.erik, &format!("/sessions/{session}")).await;
    assert_eq!(view["state"], "active", "{view}");
    let mut north = world.north.online(&world.controller, 1, 2).await;
    assert_eq!(north.applied.keys().collect::<Vec<_>>(), [&grant.session]);
    let path = format!("/sessions/{session}/release");
    let (answer, ()) = tokio::join!(world.controller.post(&world.erik, &path, json!({})), async {
        north.until(|frame| matches!(frame, FromController::Delta(delta) if !delta.withdrawn.is_empty())).await;
        north.close(&grant, EndReason::Released, Counters::default(), false).await;
        north.until(|frame| matches!(frame, FromController::ClosingAck(_))).await;
    });
    assert_eq!((answer.0, &answer.1["end_reason"]), (200, &json!("released")), "{}", answer.1);
}

#[tokio::test]
async fn a_lock_ends_sessions_blocks_new_ones_and_the_session_stream_says_so() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let (session, grant) = world.session(&mut north, 1).await;
    let stream = world
        .controller
        .http()
        .get(world.controller.url(&format!("/api/v1/sessions/{session}/events")))
        .bearer_auth(&world.olga.token)
        .send()
        .await
        .expect("a stream");
    assert_eq!(stream.status().as_u16(), 200);
    let lock = json!({"kind": "asset", "name": "plc-1", "reason": "maintenance"});
    let (answer, ()) = tokio::join!(world.controller.post(&world.olga, "/locks", lock), async {
        north.until(|frame| matches!(frame, FromController::Delta(delta) if !delta.withdrawn.is_empty())).await;
        north.close(&grant, EndReason::Locked, Counters::default(), false).await;
        north.until(|frame| matches!(frame, FromController::ClosingAck(_))).await;
    });
    assert_eq!((answer.0, &answer.1["ended_sessions"]), (201, &json!([session])), "{}", answer.1);
    // The stream ends by itself after the end.
    let text = tokio::time::timeout(Duration::from_secs(10), stream.text()).await.expect("it ends").expect("text");
    let states: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok())
        .filter_map(|event| event["session"]["state"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(
        (states.first().map(String::as_str), states.last().map(String::as_str)),
        (Some("active"), Some("ended")),
        "{text}"
    );
    let body = json!({"asset": "plc-1", "task": "modbus", "reason": "again"});
    let (status, body) = world.controller.post(&world.erik, "/requests", body).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("locked")), "{body}");
    let (status, body) = world.controller.delete(&world.olga, "/locks/asset/plc-1").await;
    assert_eq!(status, 200, "{body}");
    world.request().await;
}

#[tokio::test]
async fn gateways_are_witnesses_of_the_log_and_what_does_not_fit_is_an_alarm() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let checkpoint = |frame: FromController| match frame {
        FromController::Checkpoint(checkpoint) => checkpoint,
        other => panic!("no checkpoint: {other:?}"),
    };
    let is_checkpoint = |frame: &FromController| matches!(frame, FromController::Checkpoint(_));
    let (_, told) = world.controller.get(&world.ada, "/audit/checkpoint").await;
    let key: Verifier = told["key"].as_str().expect("a key").parse().expect("a vkey");
    let open = |note: &str| SignedCheckpoint::open(note.as_bytes(), &key).expect("signed").checkpoint().clone();

    // The first one begins at nothing; the next one continues from what the gateway says it remembers.
    let first = checkpoint(north.until(is_checkpoint).await);
    let known = open(&first.note);
    assert_eq!((first.from_size, first.consistency.len()), (0, 0));
    let report =
        |size: u64, root: [u8; 32]| FromAgent::Witness(WitnessReport { size, root: Some(root), problem: None });
    north.say(report(known.size(), known.root().0)).await;
    for site in ["a", "b", "c"] {
        assert_eq!(world.controller.post(&world.ada, "/sites", json!({"site": site})).await.0, 201);
    }
    drop(north);
    let mut north = world.north.online(&world.controller, 1, 2).await;
    let again = checkpoint(north.until(is_checkpoint).await);
    assert_eq!(again.from_size, 0, "a new connection has said nothing yet");
    north.say(report(known.size(), known.root().0)).await;
    let next = checkpoint(north.until(is_checkpoint).await);
    let newest = open(&next.note);
    let proof: Vec<_> = next.consistency.iter().map(|hash| thinlane_tlog::Hash(*hash)).collect();
    assert_eq!(next.from_size, known.size());
    verify_consistency(known.size(), &known.root(), newest.size(), &newest.root(), &proof).expect("it continues");
    let (_, report_ok) = world.controller.get(&world.ada, "/audit/verify").await;
    assert_eq!(report_ok["ok"], json!(true), "{report_ok}");

    // Another root over the same entries: this is not the log that the gateway knew.
    north.say(report(known.size(), [7; 32])).await;
    wait_for_alarm(&world, "log-forked").await;
    let (_, forked) = world.controller.get(&world.ada, "/audit/verify").await;
    assert_eq!((&forked["ok"], &forked["problems"][0]["kind"]), (&json!(false), &json!("forked")), "{forked}");
    // A longer log than ours: we are the old copy.
    north.say(report(1_000_000, [7; 32])).await;
    wait_for_alarm(&world, "log-rolled-back").await;
    let (_, old) = world.controller.get(&world.ada, "/audit/verify").await;
    assert_eq!(old["problems"][0]["kind"], "rolled-back", "{old}");
}

async fn wait_for_alarm(world: &World, kind: &str) {
    for _ in 0..100 {
        let (_, entries) = world.controller.get(&world.ada, "/audit/entries?last=20").await;
        let found = entries["items"].as_array().expect("entries").iter().any(|one| one["entry"]["alarm"] == kind);
        if found {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no alarm {kind}");
}

#[tokio::test]
async fn an_expired_gateway_may_ask_for_a_new_certificate_and_nothing_else_until_ops_say_so() {
    let mut world = world().await;
    assert!(world.controller.stop().await);
    // A hundred days later, a spare gateway from the shelf.
    world.controller.run_under(&["faketime", "-f", "+100d"]).await;
    let log_in = |who: &Person| {
        let steps = 100 * 86_400 / 30;
        json!({"user": who.login, "password": common::PASSWORD, "totp": common::totp(&who.secret, steps)})
    };
    let mut people = Vec::new();
    for who in [&world.olga, &world.ada] {
        let (status, token) = world.controller.call(Method::POST, "/login", None, Some(log_in(who))).await;
        assert_eq!(status, 200, "{token}");
        people.push(Person { token: token["token"].as_str().expect("a token").to_owned(), ..who.clone() });
    }
    let mut spare = world.north.connect(&world.controller, 1, 1).await;
    spare.until(|frame| matches!(frame, FromController::Welcome(_))).await;
    let (_, site) = world.controller.get(&people[0], "/sites/north").await;
    assert_eq!(site["state"], "offline", "an expired gateway is not online: {site}");
    let csr = data_encoding::BASE64.decode(gateway::csr().der.as_bytes()).expect("base 64");
    spare.say(FromAgent::Renew(csr.clone())).await;
    let answer = spare.until(|frame| !matches!(frame, FromController::Ping(_))).await;
    assert!(matches!(&answer, FromController::Renewed(RenewAnswer::Refused(why)) if why.contains("ops")), "{answer:?}");
    let (status, body) = world.controller.post(&people[0], "/sites/north/renew", json!({})).await;
    assert_eq!(status, 200, "{body}");
    spare.say(FromAgent::Renew(csr.clone())).await;
    let answer = spare.until(|frame| matches!(frame, FromController::Renewed(_))).await;
    assert!(matches!(&answer, FromController::Renewed(RenewAnswer::Chain(chain)) if chain.len() == 2), "{answer:?}");
    spare.say(FromAgent::Renew(csr)).await;
    let answer = spare.until(|frame| matches!(frame, FromController::Renewed(_))).await;
    assert!(matches!(&answer, FromController::Renewed(RenewAnswer::Refused(_))), "one approval, one certificate");
    let kinds = world.controller.kinds(&people[1]).await;
    assert!(kinds.contains(&"agent.renewed".to_owned()), "{kinds:?}");
}

#[tokio::test]
async fn a_running_gateway_renews_its_certificate_by_itself() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let csr = gateway::csr();
    let der = data_encoding::BASE64.decode(csr.der.as_bytes()).expect("base 64");
    north.say(FromAgent::Renew(der)).await;
    let FromController::Renewed(RenewAnswer::Chain(chain)) =
        north.until(|frame| matches!(frame, FromController::Renewed(_))).await
    else {
        panic!("a certificate");
    };
    let renewed = world.north.renewed(csr, chain);
    renewed.online(&world.controller, 1, 2).await;
    north.say(FromAgent::Renew(vec![0x30; 20])).await;
}

#[tokio::test]
async fn a_gateway_cannot_fill_the_log_with_alarms() {
    let world = world().await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    for number in 1..=500 {
        let boot = north.boot;
        let alarm = Alarm { number, boot, kind: "noise".to_owned(), detail: "x".repeat(400) };
        north.say(FromAgent::Alarm(alarm)).await;
    }
    assert_eq!(north.until_the_end().await.as_deref(), Some("protocol"));
    let kinds = world.controller.kinds(&world.ada).await;
    let alarms = kinds.iter().filter(|kind| *kind == "alarm.raised").count();
    assert!((1..=121).contains(&alarms), "{alarms}");
}

#[tokio::test]
async fn live_events_show_each_role_what_it_may_see() {
    let world = world().await;
    let nils = world.controller.person(&world.ada, "nils", &["requester"]).await;
    let mut north = world.north.online(&world.controller, 1, 1).await;
    let mut streams = Vec::new();
    for who in [&world.olga, &world.erik, &nils] {
        let url = world.controller.url("/api/v1/events");
        let stream = world.controller.http().get(url).bearer_auth(&who.token).send().await.expect("a stream");
        assert_eq!(stream.status().as_u16(), 200);
        streams.push(stream);
    }
    world.session(&mut north, 1).await;
    let boot = north.boot;
    let alarm = Alarm { number: 1, boot, kind: "ruleset-flushed".to_owned(), detail: String::new() };
    north.say(FromAgent::Alarm(alarm)).await;
    north.until(|frame| matches!(frame, FromController::AlarmAck(1))).await;
    // Nils' own token ends, and with it his stream.
    assert_eq!(world.controller.post(&world.olga, "/users/nils/lock", json!({"reason": "test"})).await.0, 201);
    let mut seen = Vec::new();
    for mut stream in streams {
        let mut text = String::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_millis(700), stream.chunk()).await {
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        let kinds: std::collections::BTreeSet<String> =
            text.lines().filter_map(|line| line.strip_prefix("event: ").map(str::to_owned)).collect();
        seen.push(kinds);
    }
    let has = |at: usize, kind: &str| seen[at].contains(kind);
    assert!(has(0, "session") && has(0, "request") && has(0, "alarm"), "ops see all: {seen:?}");
    assert!(has(1, "session") && has(1, "request") && !has(1, "alarm"), "a requester sees the own: {seen:?}");
    assert!(!has(2, "session") && !has(2, "request") && !has(2, "alarm"), "and nothing else: {seen:?}");
}
