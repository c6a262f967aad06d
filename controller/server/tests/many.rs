//! Many gateways and engineers at once: nobody waits for anybody else, nothing is handed out twice, a crash loses nothing.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Controller;
use common::gateway::{self, Gateway, Identity};
use futures_util::future::join_all;
use serde_json::json;

const SITES: usize = 150;
const RULES: &str = r#"
[task.modbus]
title = "Modbus"
protocol = "tcp"
port = 502
[[permit]]
id = "all"
approvals = 0
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_fifty_sites_activate_at_once_and_come_back_after_a_crash() {
    let (controller, ada) = Controller::start_with(|dir| {
        std::fs::write(dir.join("policies/rules.toml"), RULES).expect("written");
        std::fs::remove_file(dir.join("policies/tasks.toml")).expect("removed");
    })
    .await;
    let erik = controller.person(&ada, "erik", &["requester"]).await;
    let olga = controller.person(&ada, "olga", &["ops"]).await;
    let mut identities: Vec<Identity> = Vec::new();
    let mut requests = Vec::new();
    for number in 0..SITES {
        let (site, asset) = (format!("site-{number}"), format!("plc-{number}"));
        assert_eq!(controller.post(&ada, "/sites", json!({"site": site})).await.0, 201);
        let body = json!({"asset": asset, "site": site, "address": "192.168.1.10", "type": "plc"});
        assert_eq!(controller.post(&ada, "/assets", body).await.0, 201);
        identities.push(gateway::enrol(&controller, &ada, &site).await);
        let body = json!({"asset": asset, "task": "modbus", "reason": "load"});
        let (status, request) = controller.post(&erik, "/requests", body).await;
        assert_eq!((status, &request["state"]), (201, &json!("approved")), "{request}");
        requests.push(request["id"].as_str().expect("an id").to_owned());
    }
    let gateways: Vec<Gateway> = join_all(identities.iter().map(|one| one.online(&controller, 1, 1))).await;

    // Each gateway arms whatever it is granted, until told to stop.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let armed = gateways.into_iter().enumerate().map(|(number, mut gateway)| {
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    (grant, _) = gateway.grant() => gateway.arm(&grant, u8::try_from(number % 100 + 100).expect("small")).await,
                    _ = stopped.changed() => return,
                }
                // The played key need only differ from session to session.
                gateway.idle(Duration::from_millis(1)).await;
            }
        })
    });
    let armed: Vec<_> = armed.collect();
    let controller = Arc::new(tokio::sync::RwLock::new(controller));
    let began = Instant::now();
    let activations = requests.iter().enumerate().map(|(number, request)| {
        let (controller, erik) = (controller.clone(), erik.clone());
        async move {
            let mut key = [7; 32];
            key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            let body = json!({
                "public_key": data_encoding::BASE64.encode(&key),
                "preshared_key": data_encoding::BASE64.encode(&[42; 32]),
            });
            let began = Instant::now();
            let answer = controller.read().await.post(&erik, &format!("/requests/{request}/activate"), body).await;
            (answer, began.elapsed())
        }
    });
    let answers = join_all(activations).await;
    let took = began.elapsed();
    let mut addresses = BTreeSet::new();
    let mut refused = 0;
    let mut times: Vec<Duration> = Vec::new();
    for ((status, body), time) in answers {
        // Two gateways that made the same key: the second is refused, never mixed up.
        if status == 502 && body["error"]["message"].as_str().is_some_and(|text| text.contains("in use")) {
            refused += 1;
            continue;
        }
        assert_eq!(status, 200, "{body}");
        assert!(addresses.insert(body["address"].as_str().expect("an address").to_owned()), "{body}");
        times.push(time);
    }
    assert_eq!(refused, SITES - 100, "a hundred different keys were played");
    times.sort();
    eprintln!("{SITES} activations in {took:.0?}, slowest {:.0?}", times.last().expect("some"));
    assert!(took < Duration::from_secs(15), "{took:?}");
    stop.send_replace(true);
    join_all(armed).await;

    let mut controller = Arc::into_inner(controller).expect("everybody is done").into_inner();
    controller.kill();
    controller.run().await;
    let back: Vec<Gateway> = join_all(identities.iter().map(|one| one.online(&controller, 1, 2))).await;
    let open = back.iter().filter(|gateway| !gateway.applied.is_empty()).count();
    assert_eq!(open, addresses.len(), "every session that was answered is still desired");
    let (_, live) = controller.get(&olga, "/sessions?active=true").await;
    assert_eq!(live["items"].as_array().map(Vec::len), Some(addresses.len()));
    let (_, report) = controller.get(&ada, "/audit/verify").await;
    assert_eq!(report["ok"], json!(true), "{report}");
}
