//! One session's entries as sentences that need no knowledge of the program.

use serde_json::Value;
use thinlane_model::Wall;
use thinlane_wire::api::{AuditProblem, LogEntry};

use crate::out::{clean, text, time};

/// The whole story, a paragraph per entry, in the log's order; `doubts` are what a verification found.
pub fn tell(entries: &[LogEntry], doubts: &[AuditProblem]) -> String {
    let mut told = String::new();
    if let Some(first) = doubts.first() {
        let found = text::count(doubts.len() as u64, "finding");
        let warning = format!("THIS IS NOT WHAT WAS SIGNED ({found}). The first: {}.", first.message);
        told = wrapped(&clean(&warning).replace('\n', " ")).join("\n") + "\n\n";
    }
    told.push_str(&title(entries));
    for entry in entries {
        let sentence = clean(&sentence(entry)).replace('\n', " ");
        let doubt = doubts.iter().find(|doubt| doubt.index == Some(entry.index));
        let doubt = doubt.map(|doubt| format!(": {}!", clean(&doubt.kind).to_uppercase())).unwrap_or_default();
        told.push_str(&format!("\n{}  (entry {}{doubt})\n", time::with_zone(entry.time), entry.index));
        for line in wrapped(&sentence) {
            told.push_str(&format!("    {line}\n"));
        }
    }
    told
}

/// Whom, what and when all of it is about, from the entry that says most.
fn title(entries: &[LogEntry]) -> String {
    let grant = entries.iter().find(|entry| entry.kind == "grant.issued").map(|entry| &entry.entry["session"]);
    let asked = entries.iter().find(|entry| entry.kind == "request.created").map(|entry| &entry.entry["request"]);
    let Some(about) = grant.or(asked) else { return String::new() };
    let what = match grant {
        Some(_) => format!("Session {}", word(about, "id")),
        None => format!("Request {}, which led to no session", word(about, "id")),
    };
    let org = about["org"].as_str().map(|org| format!(" of {org}")).unwrap_or_default();
    let line = format!(
        "{what}: {}{org} on {} at site {}, for {}",
        word(about, "user"),
        word(about, "asset"),
        word(about, "site_name"),
        word(about, "task"),
    );
    clean(&line).replace('\n', " ") + "\n"
}

fn sentence(entry: &LogEntry) -> String {
    let it = &entry.entry;
    let who = actor(&entry.actor);
    match entry.kind.as_str() {
        "request.created" => asked(&it["request"]),
        "request.approval" => {
            let roles: Vec<&str> = it["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            format!("{} approves it, being {}{}.", word(it, "by"), roles.join(" and "), quoted(it, "note", ": "))
        }
        "request.approved" => {
            format!("The request is approved as a whole. It may be used until {}.", moment(it, "lapses_at"))
        }
        "request.denied" => {
            let by = it["by"].as_str().unwrap_or("The policy");
            format!("{by} denies it{}.", quoted(it, "reason", ": "))
        }
        "request.withdrawn" => format!("{who} takes the request back."),
        "request.lapsed" => format!("The request lapses without having been used ({}).", word(it, "why")),
        "grant.issued" => granted(&it["session"], &who),
        "grant.refused" => {
            format!("The gateway refuses to open the way ({}): {}.", word(it, "reason"), word(it, "detail"))
        }
        "session.active" => "The gateway has opened the way, and has confirmed that it is as it was signed.".to_owned(),
        "session.way" => match it["path"].as_str() {
            Some("direct") => "The two ends have met at the gateway's own address.".to_owned(),
            _ => "The two ends have met at the controller's relay, which passes on what it cannot read.".to_owned(),
        },
        "session.extended" => format!(
            "{who} extends the session by {}{}. It ends at {} at the latest.",
            length(&it["added_seconds"]),
            quoted(it, "reason", ": "),
            moment(it, "ends_at")
        ),
        "session.extension-armed" => "The gateway has confirmed the later end.".to_owned(),
        "session.extension-refused" => format!(
            "The gateway refuses the later end ({}): {}. The earlier one stands.",
            word(it, "reason"),
            word(it, "detail")
        ),
        "session.ending" => ending(it, &who),
        "session.ended" => ended(&it["ended"]),
        "session.closed-late" => format!("The gateway's record arrives late. {}", ended(&it["ended"])),
        "attempt.refused" => {
            let (command, subject) = (word(it, "command"), word(it, "subject"));
            format!("{who} tries {command} on {subject}, and is refused: {}.", word(it, "message"))
        }
        other => format!("{other}: {}", thinlane_tui::facts(it)),
    }
}

fn asked(request: &Value) -> String {
    let mut told = format!(
        "{} asks for {} on {} at site {} for {}{}{}.",
        word(request, "user"),
        word(request, "task"),
        word(request, "asset"),
        word(request, "site_name"),
        length(&request["seconds"]),
        quoted(request, "reason", ", giving as the reason "),
        request["ticket"].as_str().map(|ticket| format!(" and as the work order {ticket}")).unwrap_or_default(),
    );
    let decision = &request["decision"];
    let rules: Vec<&str> = decision["rules"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let policy: String = word(request, "policy_hash").chars().take(12).collect();
    let rules = if rules.is_empty() { "no rule".to_owned() } else { format!("the rules {}", rules.join(", ")) };
    let verdict = if decision["verdict"] == "permit" { "allows" } else { "forbids" };
    told.push_str(&format!(" The policy {policy} {verdict} this by {rules}."));
    match decision["obligations"]["approvals"].as_u64() {
        Some(approvals @ 1..) if verdict == "allows" => {
            told.push_str(&format!(" It asks for {}.", text::count(approvals, "approval")));
        }
        _ => {}
    }
    told
}

fn granted(session: &Value, who: &str) -> String {
    let names = |name: &str| {
        session["approvals"].as_array().into_iter().flatten().map(|it| word(it, name)).collect::<Vec<_>>().join(", ")
    };
    let approved = match names("by") {
        none if none.is_empty() => String::new(),
        by => format!(", approved by {by}"),
    };
    format!(
        "{who} uses the request{approved}. A grant is signed: from the address {} of {who}'s machine to the device at \
         {}, {} port {}, and to nothing else, until {} at the latest.",
        word(session, "engineer"),
        word(session, "address"),
        word(session, "protocol").to_uppercase(),
        session["port"],
        moment(session, "ends_at"),
    )
}

fn ending(it: &Value, who: &str) -> String {
    let detail = quoted(it, "detail", ": ");
    match it["reason"].as_str().unwrap_or_default() {
        "released" => format!("{who} ends the session{detail}."),
        "killed" => format!("{who} kills the session{detail}."),
        "expired" => "The time is over.".to_owned(),
        reason => format!("The session is being ended by {who} ({reason}){detail}."),
    }
}

fn ended(it: &Value) -> String {
    let counters = &it["counters"];
    let count = |name: &str| counters[name].as_u64().unwrap_or(0);
    let source = match it["counters_final"].as_bool() {
        Some(true) => "By the gateway's signed record",
        _ => "No record of the gateway is there; by its last report",
    };
    let mut told = format!(
        "The session is over ({}{}). {source}, {} ({}) went to the device and {} ({}) came back; {} aimed elsewhere or \
         were of another kind and were stopped, {} bore a false sender and were stopped.",
        word(it, "reason"),
        quoted(it, "detail", ": "),
        text::count(count("up_packets"), "packet"),
        text::bytes(count("up_bytes")),
        count("down_packets"),
        text::bytes(count("down_bytes")),
        count("denied_packets"),
        count("spoofed_packets"),
    );
    if let Some(endpoint) = it["endpoint"].as_str() {
        told.push_str(&format!(" The engineer's machine was last seen at {endpoint}."));
    }
    match it["path"].as_str() {
        Some("direct") => told.push_str(" In the end the lane led to the gateway's own address."),
        Some("relay") => told.push_str(" In the end the lane led through the relay."),
        _ => {}
    }
    told
}

/// Who did it, in a word.
fn actor(actor: &str) -> String {
    match actor.split_once(':') {
        Some(("person", login)) => login.to_owned(),
        Some(("agent", _)) => "the gateway".to_owned(),
        _ => "the controller".to_owned(),
    }
}

fn word(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or("-").to_owned()
}

/// A text that a person wrote, where there is one, in quotation marks after `before`.
fn quoted(value: &Value, name: &str, before: &str) -> String {
    value[name].as_str().filter(|text| !text.is_empty()).map(|text| format!("{before}\"{text}\"")).unwrap_or_default()
}

fn moment(value: &Value, name: &str) -> String {
    value[name].as_str().and_then(|text| text.parse::<Wall>().ok()).map_or_else(|| "-".to_owned(), time::with_zone)
}

fn length(seconds: &Value) -> String {
    time::duration(seconds.as_u64().unwrap_or(0))
}

/// Lines of a length that is read easily.
fn wrapped(text: &str) -> Vec<String> {
    const LINE: usize = 96;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= LINE {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use thinlane_wire::api::Schema;

    use super::*;

    fn entry(index: u64, actor: &str, kind: &str, mut value: Value) -> LogEntry {
        value["kind"] = kind.into();
        let (time, leaf_hash) = (Wall::from_millis(1_795_350_275_335), "00".to_owned());
        LogEntry { schema: Schema, index, time, actor: actor.into(), kind: kind.into(), entry: value, leaf_hash }
    }

    #[test]
    fn a_session_is_told_in_sentences_with_everybodys_part_in_it() {
        let request = json!({"id": "req_1", "user": "erik", "org": "acme", "asset": "plc-1", "site_name": "north",
            "task": "modbus", "seconds": 600, "reason": "pump 3", "ticket": "CHG-1", "policy_hash": "8957cb4a1352bcf0",
            "decision": {"verdict": "permit", "rules": ["requesters"], "obligations": {"approvals": 1}}});
        let session = json!({"id": "ses_1", "user": "erik", "org": "acme", "asset": "plc-1", "site_name": "north",
            "task": "modbus", "engineer": "198.19.0.1", "address": "192.168.1.10", "protocol": "tcp", "port": 502,
            "ends_at": "2026-11-22T12:34:37.133Z", "approvals": [{"by": "olga"}]});
        let counters = json!({"up_packets": 13, "up_bytes": 734, "down_packets": 9, "down_bytes": 492,
            "denied_packets": 2, "spoofed_packets": 0});
        let over = json!({"ended": {"reason": "killed", "detail": "wrong pump", "counters": counters,
            "counters_final": true, "endpoint": "203.0.113.10:25750", "path": "relay"}});
        let entries = [
            entry(21, "person:erik", "request.created", json!({ "request": request })),
            entry(22, "person:olga", "request.approval", json!({"by": "olga", "roles": ["approver"], "note": "go"})),
            entry(24, "person:erik", "grant.issued", json!({ "session": session })),
            entry(25, "agent:site_1", "session.active", json!({"session": "ses_1"})),
            entry(33, "person:bert", "session.ending", json!({"reason": "killed", "detail": "wrong pump"})),
            entry(34, "agent:site_1", "session.ended", over),
            entry(35, "system", "something.newer", json!({"detail": "a\nb\u{1b}[2J"})),
        ];
        let told = tell(&entries, &[]);
        assert!(!told.contains("NOT WHAT WAS SIGNED"), "{told}");
        let doubt = AuditProblem { kind: "edited".into(), index: Some(33), message: "entry 33 was edited".into() };
        let doubted = tell(&entries, &[doubt]);
        assert!(doubted.starts_with("THIS IS NOT WHAT WAS SIGNED (1 finding). The first: entry 33"), "{doubted}");
        assert!(doubted.contains("(entry 33: EDITED!)"), "{doubted}");
        let flat = told.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "Session ses_1: erik of acme on plc-1 at site north, for modbus",
            "erik asks for modbus on plc-1 at site north for 10m, giving as the reason \"pump 3\" and as the work order CHG-1.",
            "The policy 8957cb4a1352 allows this by the rules requesters. It asks for 1 approval.",
            "olga approves it, being approver: \"go\".",
            "erik uses the request, approved by olga.",
            "to the device at 192.168.1.10, TCP port 502, and to nothing else",
            "bert kills the session: \"wrong pump\".",
            "13 packets (734 B) went to the device and 9 (492 B) came back; 2 aimed elsewhere",
            "last seen at 203.0.113.10:25750",
            "In the end the lane led through the relay.",
            "(entry 34)",
        ] {
            assert!(flat.contains(part), "{part} is missing:\n{told}");
        }
        assert!(!told.contains('\u{1b}') && told.lines().all(|line| line.chars().count() <= 100), "{told}");
    }

    #[test]
    fn a_request_that_led_nowhere_is_told_too_and_garbage_does_not_panic() {
        let request = json!({"id": "req_1", "user": "erik", "asset": "plc-1", "site_name": "north", "task": "modbus"});
        let entries = [
            entry(1, "person:erik", "request.created", json!({ "request": request })),
            entry(2, "system", "request.denied", json!({"reason": "not at night"})),
        ];
        let told = tell(&entries, &[]);
        assert!(told.starts_with("Request req_1, which led to no session: erik on plc-1"), "{told}");
        assert!(told.contains("The policy denies it: \"not at night\"."), "{told}");
        for kind in [
            "request.created",
            "grant.issued",
            "session.ended",
            "session.ending",
            "session.extended",
            "session.way",
            "",
        ] {
            assert!(!tell(&[entry(1, "", kind, json!({}))], &[]).is_empty());
        }
    }
}
