//! The OpenAPI document, and what it does not promise: malformed calls of every route it lists.

mod common;

use std::collections::BTreeSet;

use common::Controller;
use reqwest::Method;
use serde_json::{Value, json};

/// Every route; adding one means adding it here and to the document, which is made from the same list as the router.
const ROUTES: &str = "
    get /status, post /setup, post /login, post /logout, get /whoami, post /enrol,
    post /probe,
    get /users, post /users, get /users/{login}, post /users/{login}/lock, post /users/{login}/unlock,
    post /users/{login}/reset,
    get /sites, post /sites, get /sites/{site}, post /sites/{site}/token, post /sites/{site}/unfreeze,
    post /sites/{site}/renew,
    get /assets, post /assets, post /assets/import, get /assets/{asset}, delete /assets/{asset},
    get /tasks, get /tasks/{task}, get /policy, get /policy/explain,
    get /requests, post /requests, get /requests/{id}, post /requests/{id}/approve, post /requests/{id}/deny,
    post /requests/{id}/withdraw, post /requests/{id}/activate,
    get /sessions, get /sessions/{id}, post /sessions/{id}/kill, post /sessions/{id}/release,
    post /sessions/{id}/extend, get /sessions/{id}/events, get /sessions/{id}/history, get /events, get /overview,
    get /locks, post /locks, delete /locks/{id}, delete /locks/{kind}/{name},
    get /audit/entries, get /audit/checkpoint, get /audit/verify";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn document(controller: &Controller) -> Value {
    let text = controller.http().get(controller.url("/openapi.json")).send().await.expect("an answer");
    assert_eq!(text.status().as_u16(), 200);
    serde_json::from_str(&text.text().await.expect("text")).expect("JSON")
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                found.push((method.to_owned(), path.clone(), operation.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_document_lists_every_route_with_its_parameters_bodies_and_errors() {
    let (controller, _ada) = Controller::start().await;
    let document = document(&controller).await;
    let listed: BTreeSet<String> =
        operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let known: BTreeSet<String> = ROUTES
        .split(',')
        .map(|route| {
            let (method, path) = route.trim().split_once(' ').expect("a method and a path");
            format!("{method} /api/v1{path}")
        })
        .collect();
    assert_eq!(listed, known);
    for (method, path, operation) in operations(&document) {
        let named: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .map(|all| all.iter().filter(|one| one["in"] == "path").filter_map(|one| one["name"].as_str()).collect())
            .unwrap_or_default();
        let wanted: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, wanted, "{method} {path}");
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        for status in ["400", "401", "403", "404", "429", "503"] {
            let schema = &responses[status]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/ErrorBody", "{method} {path} {status}");
        }
        assert!(
            operation["description"].is_string() || operation["summary"].is_string(),
            "{method} {path} says nothing"
        );
    }
    references(&document, &document);
}

/// Every reference leads somewhere.
fn references(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|field| references(field, document));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, document)),
        _ => {}
    }
}

#[tokio::test]
async fn malformed_calls_of_every_route_get_an_error_in_the_one_shape() {
    let (controller, ada) = Controller::start().await;
    let document = document(&controller).await;
    let bodies: [&[u8]; 12] = [
        b"{",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"unknown\": 1}",
        b"{\"user\": 7, \"site\": [], \"asset\": {}, \"reason\": null}",
        b"{\"user\": \"\", \"site\": \"\", \"asset\": \"..\", \"reason\": \"\"}",
        b"{\"seconds\": -1, \"reason\": \"r\"}",
        b"{\"seconds\": 1e400, \"reason\": \"r\"}",
        b"\xff\xfe\x00",
        b"{\"user\": \"\xed\xa0\x80\"}",
        &[b'['; 20_000],
    ];
    let names = ["x", "%00", "..%2f..", "req_", "ses_zzzzzzzz", "%ff", "%E2%80%AE", &"a".repeat(3000)];
    for (method, path, _) in operations(&document) {
        // These end what the test needs, or never end.
        if path.ends_with("/logout") || path == "/api/v1/events" {
            continue;
        }
        for turn in 0..bodies.len() {
            let name = names[turn % names.len()];
            let filled: Vec<&str> =
                path.split('/').map(|part| if part.starts_with('{') { name } else { part }).collect();
            let query = ["", "?", "?wait=x", "?limit=-1&limit=2", "?%ff=%ff", "?state=none&after=99999999999999999999"];
            let url = controller.url(&format!("{}{}", filled.join("/"), query[turn % query.len()]));
            let method: Method = method.to_uppercase().parse().expect("a method");
            let request = controller.http().request(method.clone(), &url).bearer_auth(&ada.token);
            let request = if method == Method::GET { request } else { request.body(bodies[turn]) };
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            let text = answer.text().await.expect("text");
            assert!(status < 500, "{method} {url} {turn}: {status} {text}");
            if status >= 400 {
                let body: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {url}: {status} {text}"));
                assert!(body["schema"] == 1 && body["error"]["code"].is_string(), "{method} {url}: {text}");
                assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{text}");
                assert!(status != 400 || body["error"]["next"].is_string(), "{method} {url}: {text}");
            }
        }
    }
    let (status, report) = controller.get(&ada, "/audit/verify").await;
    assert_eq!((status, &report["ok"]), (200, &json!(true)), "{report}");
}

#[tokio::test]
async fn wrong_paths_methods_and_sizes_are_told_in_the_same_shape() {
    let (controller, ada) = Controller::start().await;
    let error = |body: &Value, field: &str| body["error"][field].as_str().is_some_and(|text| !text.is_empty());
    let shape =
        |body: &Value| body["schema"] == 1 && ["code", "message", "next"].iter().all(|field| error(body, field));
    for (method, path, expected) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/users/a/b/c", 404),
        (Method::DELETE, "/users", 405),
        (Method::PATCH, "/status", 405),
    ] {
        let (status, body) = controller.call(method, path, Some(&ada.token), None).await;
        assert!(status == expected && shape(&body), "{path}: {status} {body}");
    }
    let large = json!({"site": "x".repeat(2 << 20)});
    let (status, body) = controller.post(&ada, "/sites", large).await;
    assert!(status == 413 && shape(&body), "{status} {body}");
    for token in ["", "x", "tlt_", &"t".repeat(5000), "Bearer Bearer"] {
        let (status, body) = controller.call(Method::GET, "/users", Some(token), None).await;
        assert!(status == 401 && shape(&body), "{token}: {status} {body}");
    }
}
