//! What a screen asks for: traffic over a session's life, denials that nobody watched, the log about one thing.

mod common;

use std::net::Ipv4Addr;

use common::gateway::{self, Gateway, Identity};
use common::{Controller, Person};
use serde_json::{Value, json};
use thinlane_model::{Counters, EndReason, SessionId};
use thinlane_wire::{DeniedFlow, DeniedReport, Direction, FromAgent, SessionCounters};

struct World {
    controller: Controller,
    olga: Person,
    erik: Person,
    identity: Identity,
    gateway: Gateway,
    session: SessionId,
    grant: thinlane_model::Grant,
}

/// A session of Erik's that is active.
async fn world() -> World {
    let (controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let olga = controller.person(&ada, "olga", &["ops", "approver"]).await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let identity = gateway::enrol(&controller, &ada, "north").await;
    let mut gateway = identity.online(&controller, 1, 1).await;
    let request = controller.approved(&erik, &olga).await;
    let key = |byte: u8| data_encoding::BASE64.encode(&[byte; 32]);
    let body = json!({"public_key": key(1), "preshared_key": key(42)});
    let path = format!("/requests/{request}/activate");
    let (answer, grant) = tokio::join!(controller.post(&erik, &path, body), async {
        let (grant, _) = gateway.grant().await;
        gateway.arm(&grant, 101).await;
        grant
    });
    assert_eq!(answer.0, 200, "{}", answer.1);
    World { controller, olga, erik, identity, gateway, session: grant.session, grant }
}

impl World {
    /// Asks until the answer fits: reports are taken in their own time.
    async fn until(&self, who: &Person, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..200 {
            let (status, answer) = self.controller.get(who, path).await;
            assert_eq!(status, 200, "{answer}");
            if fits(&answer) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{path} never answered as it should");
    }
}

#[tokio::test]
async fn a_sessions_traffic_is_remembered_until_after_its_end() {
    let mut world = world().await;
    let path = format!("/sessions/{}/history", world.session);
    let counters = |up_bytes| Counters { up_bytes, up_packets: 1, ..Counters::default() };
    let report = SessionCounters { counters: counters(1_500), ..SessionCounters::none(world.session) };
    world.gateway.say(FromAgent::Counters(vec![report])).await;
    let last = |answer: &Value| answer["samples"].as_array().and_then(|all| all.last()?["up_bytes"].as_u64());
    let answer = world.until(&world.olga, &path, |answer| last(answer) == Some(1_500)).await;
    assert_eq!(answer["session"], world.session.to_string());

    world.gateway.close(&world.grant, EndReason::Released, counters(2_000), false).await;
    world.until(&world.erik, &path, |answer| last(answer) == Some(2_000)).await;

    let (status, _) = world.controller.get(&world.olga, "/sessions/ses_00000000/history").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn whoever_watches_is_told_that_a_site_has_a_lane_less() {
    let mut world = world().await;
    let url = world.controller.url("/api/v1/events");
    let mut stream = world.controller.http().get(url).bearer_auth(&world.olga.token).send().await.expect("a stream");
    world.gateway.close(&world.grant, EndReason::Released, Counters::default(), false).await;
    let without = |line: &str| {
        let told: Value =
            line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        told["site"]["site"] == "north" && told["site"]["lanes"] == 0
    };
    let mut text = String::new();
    while !text.lines().any(without) {
        let more = tokio::time::timeout(std::time::Duration::from_secs(20), stream.chunk()).await.expect("it is told");
        text.push_str(&String::from_utf8_lossy(&more.expect("a stream").expect("more of it")));
    }
}

/// So many packets to port 22 that a gateway let nowhere.
fn denied(session: SessionId, packets: u64) -> FromAgent {
    let flow = DeniedFlow {
        session: Some(session),
        direction: Direction::Up,
        source: Ipv4Addr::new(198, 19, 0, 1).into(),
        destination: Ipv4Addr::new(198, 18, 0, 1).into(),
        protocol: 6,
        port: Some(22),
        packets,
    };
    FromAgent::Denied(DeniedReport { flows: vec![flow], not_reported: 0 })
}

#[tokio::test]
async fn denials_that_nobody_watched_are_in_the_first_picture_of_those_who_may_see_them() {
    let mut world = world().await;
    world.gateway.say(denied(world.session, 3)).await;
    let told = |answer: &Value| answer["denied"].as_array().is_some_and(|all| !all.is_empty());
    let answer = world.until(&world.olga, "/overview", told).await;
    assert_eq!(answer["denied"][0]["session"], world.session.to_string());
    assert_eq!((&answer["denied"][0]["port"], &answer["denied"][0]["packets"]), (&json!(22), &json!(3)));
    let (_, answer) = world.controller.get(&world.erik, "/overview").await;
    assert_eq!(answer["denied"], json!([]), "others' packets are not for requesters");
}

#[tokio::test]
async fn a_controller_that_was_killed_remembers_what_it_had_been_told() {
    let mut world = world().await;
    let history = format!("/sessions/{}/history", world.session);
    let counters = |up_bytes| Counters { up_bytes, up_packets: 1, denied_packets: 6, ..Counters::default() };
    let report = |bytes| SessionCounters { counters: counters(bytes), ..SessionCounters::none(world.session) };
    world.gateway.say(FromAgent::Counters(vec![report(1_500)])).await;
    world.gateway.say(denied(world.session, 6)).await;
    let kept = world.controller.dir().join("lately.json");
    let mut told = Value::Null;
    for _ in 0..400 {
        told = std::fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if told["denied"][0]["packets"] == 6 && told["observed"][0][1]["counters"]["up_bytes"] == 1_500 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(told["denied"][0]["packets"], 6, "{told}");
    world.controller.kill();
    // Here no engineer's packets came to the relay: where they would have come from.
    told["observed"][0][1]["endpoint"] = json!("203.0.113.9:40000");
    std::fs::write(&kept, told.to_string()).expect("written");
    world.controller.run().await;

    let (_, answer) = world.controller.get(&world.olga, "/overview").await;
    let session = &answer["sessions"][0];
    assert_eq!((&session["counters"]["denied_packets"], &session["counters"]["up_bytes"]), (&json!(6), &json!(1_500)));
    assert_eq!(session["endpoint"], "203.0.113.9:40000");
    assert_eq!((&answer["denied"][0]["port"], &answer["denied"][0]["packets"]), (&json!(22), &json!(6)));
    let (_, answer) = world.controller.get(&world.olga, &history).await;
    assert_eq!(
        (answer["samples"].as_array().map(Vec::len), &answer["samples"][0]["up_bytes"]),
        (Some(1), &json!(1_500))
    );

    // What passed meanwhile is counted, but nobody can say when.
    let mut gateway = world.identity.online(&world.controller, 1, 2).await;
    gateway.say(FromAgent::Counters(vec![report(9_000)])).await;
    let last = |answer: &Value| answer["samples"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
    let answer = world.until(&world.olga, &history, |answer| last(answer)["up_bytes"] == 9_000).await;
    assert_eq!(last(&answer)["gap"], true, "{answer}");
}

#[tokio::test]
async fn the_log_about_one_session_is_found_without_reading_all_of_it() {
    let world = world().await;
    let path = format!("/audit/entries?about={}", world.session);
    let (status, answer) = world.controller.get(&world.olga, &path).await;
    assert_eq!(status, 200, "{answer}");
    let kinds: Vec<&str> =
        answer["items"].as_array().expect("items").iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds, ["grant.issued", "session.active"]);
    let (_, answer) = world.controller.get(&world.olga, &format!("{path}&limit=1")).await;
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(1));
    for wrong in ["ses_", "%22", "ses_7K2M9Q4X", "user.added%22%7D"] {
        let (status, _) = world.controller.get(&world.olga, &format!("/audit/entries?about={wrong}")).await;
        assert_eq!(status, 400, "{wrong}");
    }
    let (status, _) = world.controller.get(&world.erik, &path).await;
    assert_eq!(status, 403);
}
