//! The controller's answers, as the API writes them.

use serde_json::{Value, json};

pub const REQUEST: &str = "req_7k2m9q4x";
pub const SESSION: &str = "ses_abcdefgh";

pub fn status() -> Value {
    json!({"schema": 1, "version": "0.1.0", "time": now()})
}

pub fn token() -> Value {
    json!({"schema": 1, "token": "t0ken", "user": "alice", "roles": ["requester"], "expires_at": "2099-01-01T00:00:00.000Z"})
}

pub fn whoami() -> Value {
    json!({
        "schema": 1, "user": "alice", "name": "Alice", "roles": ["requester"],
        "token_expires_at": "2099-01-01T00:00:00.000Z", "controller_version": "0.1.0",
    })
}

pub fn asset() -> Value {
    json!({
        "schema": 1, "asset": "rtu-7", "site": "north", "type": "rtu", "address": "192.168.1.10",
        "overlay_address": "198.18.0.9", "criticality": "medium", "labels": {}, "locked": false,
    })
}

/// What its request asks for.
pub fn task() -> Value {
    json!({
        "schema": 1, "task": "echo-tcp", "title": "Echo", "protocol": "tcp", "port": 7, "default_seconds": 60,
        "max_seconds": 600, "offline_seconds": 0, "limits": {},
    })
}

pub fn request(state: &str) -> Value {
    let missing = u32::from(state == "pending");
    json!({
        "schema": 1, "id": REQUEST, "state": state, "user": "alice", "asset": "rtu-7", "site": "north", "task": "echo-tcp",
        "seconds": 60, "reason": "test", "created_at": "2026-11-22T03:13:43.045Z", "approvals": [], "session": null,
        "decision": {
            "verdict": "permit", "rules": ["any"], "policy_hash": "00",
            "obligations": {
                "approvals": 1, "seconds": 60,
                "approvers": [{"rule": "any", "approvals": 1, "roles": ["approver"], "missing": missing}],
            },
        },
    })
}

pub fn denied(by: &str, reason: &str) -> Value {
    let mut view = request("denied");
    view["denial"] = json!({"by": by, "at": "2026-11-22T03:14:00.000Z", "reason": reason});
    view
}

pub fn session(state: &str, end_reason: Option<&str>, remaining_ms: u64) -> Value {
    json!({
        "schema": 1, "id": SESSION, "request": REQUEST, "user": "alice", "site": "north", "asset": "rtu-7",
        "task": "echo-tcp", "protocol": "tcp", "port": 7, "state": state, "address": "198.19.0.5",
        "asset_address": "198.18.0.9", "path": "direct", "policy": {"id": "any", "hash": "00"}, "approvals": [],
        "end_reason": end_reason, "reason": "test", "remaining_ms": remaining_ms, "ends_at": "2099-01-01T00:00:00.000Z",
        "counters": {
            "up_packets": 0, "up_bytes": 0, "down_packets": 0, "down_bytes": 0, "denied_packets": 0, "spoofed_packets": 0,
        },
    })
}

/// This machine's time in RFC 3339.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    thinlane_model::Wall::from_millis(i64::try_from(since.as_millis()).expect("a moment")).to_string()
}
