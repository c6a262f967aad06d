//! What an entry of the log says, in one line.

use serde_json::Value;

/// `name=value` of what is short in an entry, also up to two levels deeper; what people ask for first comes first.
pub fn facts(entry: &Value) -> String {
    const MOST: usize = 14;
    const FIRST: [&str; 16] = [
        "user", "login", "alarm", "kind", "name", "asset", "session", "id", "task", "reason", "detail", "why", "note",
        "command", "message", "request",
    ];
    let mut found = Vec::new();
    gather(entry, 0, &mut found);
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    found.sort_by_key(|(name, _)| place(name));
    found.truncate(MOST);
    found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn gather<'a>(value: &'a Value, depth: u32, found: &mut Vec<(&'a str, String)>) {
    /// Said in other columns, of the entry itself.
    const SAID: [&str; 5] = ["schema", "time", "actor", "kind", "index"];
    /// Of use to programs only.
    const DULL: [&str; 11] = [
        "record",
        "signature",
        "policy_hash",
        "arm_by",
        "boot",
        "deadline",
        "gateway_key",
        "engineer_key",
        "serial",
        "hash",
        "counters_final",
    ];
    let Value::Object(fields) = value else { return };
    let said = |name: &str| DULL.contains(&name) || depth == 0 && SAID.contains(&name);
    for (name, value) in fields.iter().filter(|(name, _)| !said(name)) {
        let shown = match value {
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.chars().take(80).collect(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Object(_) if depth < 2 => {
                gather(value, depth + 1, found);
                continue;
            }
            _ => continue,
        };
        found.push((name, shown));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_locked_is_said_and_what_only_programs_read_is_not() {
        let entry = json!({"kind": "lock.set", "actor": "person:olga", "signature": "x",
            "lock": {"id": "lock_1", "target": {"kind": "user", "name": "erik"}, "reason": "at night", "deep": {"er": {"x": 1}}}});
        assert_eq!(facts(&entry), "kind=user name=erik id=lock_1 reason=at night");
    }
}
