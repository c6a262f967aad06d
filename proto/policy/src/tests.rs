//! What is expected of `src`, as tests.

use std::collections::BTreeMap;

use proptest::prelude::*;
use thinlane_model::{AssetName, AssetType, Criticality, Login, OrgName, Role, Roles, SiteName, Span, TaskName, Wall};

use super::*;

const TASKS: &str = r#"
[task.modbus-read]
title = "Modbus diagnostics"
protocol = "tcp"
port = 502
default = "30m"
max = "60m"
offline = "15m"

[task.ssh]
title = "SSH"
protocol = "tcp"
port = 22
idle = "5m"
limits = { packets_per_second = 200, connections = 2 }
"#;

/// The example of the interface document.
const EXAMPLE: &str = r#"
[[permit]]
id = "contractors-pumps"
role = ["requester"]
task = ["modbus-read"]
asset = { type = ["plc"], site = ["north"], criticality = ["low", "medium"], label = { owner = "acme" } }
max = "45m"
approvals = 1
approver_role = ["approver"]

[[require]]
id = "externals-are-approved"
external = true
approvals = 1
approver_role = ["ops"]

[[forbid]]
id = "high-means-no"
external = true
asset = { criticality = ["high"] }
"#;

/// Somebody and something to ask about; the defaults match the example's permit.
#[derive(Debug, Clone)]
struct Asked {
    login: Login,
    roles: Roles,
    org: Option<OrgName>,
    name: AssetName,
    kind: AssetType,
    site: SiteName,
    criticality: Criticality,
    labels: BTreeMap<String, String>,
    task: TaskName,
    time: Option<Span>,
}

fn asked() -> Asked {
    Asked {
        login: "alice".parse().expect("a name"),
        roles: Roles::from([Role::Requester]),
        org: None,
        name: "plc-1".parse().expect("a name"),
        kind: "plc".parse().expect("a name"),
        site: "north".parse().expect("a name"),
        criticality: Criticality::Low,
        labels: BTreeMap::from([("owner".to_owned(), "acme".to_owned())]),
        task: "modbus-read".parse().expect("a name"),
        time: Some(Span::from_secs(1800)),
    }
}

impl Asked {
    fn ask(&self) -> Ask<'_> {
        Ask {
            login: &self.login,
            roles: &self.roles,
            org: self.org.as_ref(),
            external: self.org.is_some(),
            asset: AssetFacts {
                name: &self.name,
                kind: &self.kind,
                criticality: self.criticality,
                labels: &self.labels,
                site: &self.site,
            },
            task: &self.task,
            time: self.time,
            now: Wall::from_millis(0),
        }
    }
}

fn policy(rules: &str) -> Policy {
    Policy::load(&[("tasks.toml", TASKS), ("rules.toml", rules)]).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn errors(rules: &str) -> Vec<String> {
    match Policy::load(&[("tasks.toml", TASKS), ("rules.toml", rules)]) {
        Ok(_) => panic!("it was taken: {rules}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn rules(decision: &Decision) -> Vec<&str> {
    decision.rules.iter().map(AsRef::as_ref).collect()
}

#[test]
fn the_example_permits_exactly_what_it_names() {
    let policy = policy(EXAMPLE);
    let decision = policy.decide(&asked().ask());
    assert_eq!(decision.verdict, Verdict::Permit);
    assert_eq!(rules(&decision), ["contractors-pumps"]);
    assert_eq!((decision.obligations.seconds, decision.obligations.approvals), (1800, 1));

    let other = |change: fn(&mut Asked)| {
        let mut it = asked();
        change(&mut it);
        policy.decide(&it.ask())
    };
    for (what, change) in [
        ("another role", (|it| it.roles = Roles::from([Role::Ops])) as fn(&mut Asked)),
        ("another task", |it| it.task = "ssh".parse().expect("a name")),
        ("another type", |it| it.kind = "rtu".parse().expect("a name")),
        ("another site", |it| it.site = "south".parse().expect("a name")),
        ("another criticality", |it| it.criticality = Criticality::High),
        ("another owner", |it| drop(it.labels.insert("owner".to_owned(), "other".to_owned()))),
        ("no owner", |it| it.labels.clear()),
        ("a task that is none", |it| it.task = "telnet".parse().expect("a name")),
    ] {
        let decision = other(change);
        assert_eq!(decision.verdict, Verdict::Deny, "{what}");
        assert!(decision.rules.is_empty() && decision.reasons.len() > 1, "{what}: {decision:?}");
        assert_eq!(decision.obligations, Obligations::default(), "{what}");
    }
}

#[test]
fn time_is_the_least_of_request_rule_and_task() {
    let policy = policy(EXAMPLE);
    let mut it = asked();
    for (time, seconds) in [(Some(60), 60), (Some(2700), 2700), (Some(2701), 2700), (Some(99_999), 2700), (None, 1800)]
    {
        it.time = time.map(Span::from_secs);
        assert_eq!(policy.decide(&it.ask()).obligations.seconds, seconds, "{time:?}");
    }
}

#[test]
fn a_require_adds_its_own_need_beside_the_permits() {
    let policy = policy(EXAMPLE);
    let mut it = asked();
    it.org = Some("acme".parse().expect("a name"));
    let decision = policy.decide(&it.ask());
    assert_eq!(rules(&decision), ["contractors-pumps", "externals-are-approved"]);
    let needs: Vec<_> = decision.obligations.needs.iter().map(|need| (need.approvals, need.roles.clone())).collect();
    assert_eq!(needs, [(1, Roles::from([Role::Approver])), (1, Roles::from([Role::Ops]))]);
    assert_eq!(decision.obligations.approver_roles, Roles::from([Role::Approver, Role::Ops]));
}

#[test]
fn a_forbid_denies_whatever_permits_and_is_named() {
    let text = format!("{EXAMPLE}\n[[permit]]\nid = \"all\"\napprovals = 0\n");
    let policy = policy(&text);
    let mut it = asked();
    it.org = Some("acme".parse().expect("a name"));
    it.criticality = Criticality::High;
    let decision = policy.decide(&it.ask());
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(rules(&decision), ["high-means-no"]);
    it.org = None;
    assert!(policy.decide(&it.ask()).is_permit(), "the forbid is for externals only");
}

#[test]
fn the_offer_that_asks_least_is_taken() {
    let permit = |id: &str, approvals: u32, max: &str| {
        format!("[[permit]]\nid = \"{id}\"\nmax = \"{max}\"\napprovals = {approvals}\n")
    };
    let decide = |rules: &[String]| {
        let mut it = asked();
        it.time = Some(Span::from_secs(3600));
        policy(&rules.concat()).decide(&it.ask())
    };
    let few = decide(&[permit("a", 2, "1h"), permit("b", 1, "10m"), permit("c", 1, "5m")]);
    assert_eq!((rules(&few), few.obligations.seconds), (vec!["b"], 600), "fewest approvals, then longest");
    let tie = decide(&[permit("z", 1, "10m"), permit("m", 1, "10m")]);
    assert_eq!(rules(&tie), ["m"], "then the id");
    let long = decide(&[permit("a", 1, "2h"), permit("b", 1, "90m")]);
    assert_eq!(rules(&long), ["a"], "both grant the hour that was asked for: no difference, so the id");
}

#[test]
fn approvals_are_one_unless_said_and_zero_must_be_said() {
    let one = policy("[[permit]]\nid = \"p\"\n").decide(&asked().ask());
    assert_eq!(one.obligations.approvals, 1);
    assert_eq!(one.obligations.approver_roles, Roles::from([Role::Approver]));
    let none = policy("[[permit]]\nid = \"p\"\napprovals = 0\n").decide(&asked().ask());
    assert!(none.obligations.needs.is_empty() && none.is_permit());
}

#[test]
fn external_may_be_asked_for_or_excluded() {
    let one = |external: bool| policy(&format!("[[permit]]\nid = \"p\"\nexternal = {external}\n"));
    let (inside, mut outside) = (asked(), asked());
    outside.org = Some("acme".parse().expect("a name"));
    for (wanted, it, permitted) in
        [(true, &inside, false), (true, &outside, true), (false, &inside, true), (false, &outside, false)]
    {
        assert_eq!(one(wanted).decide(&it.ask()).is_permit(), permitted, "external = {wanted} for {:?}", it.org);
    }
}

#[test]
fn a_require_may_shorten_and_then_asks_for_no_approval_besides() {
    let rules =
        "[[permit]]\nid = \"p\"\n[[require]]\nid = \"short\"\nmax = \"5m\"\n[[require]]\nid = \"long\"\nmax = \"2h\"\n";
    let decision = policy(rules).decide(&asked().ask());
    assert_eq!((decision.obligations.seconds, decision.obligations.needs.len()), (300, 1));
    assert_eq!(self::rules(&decision), ["p", "long", "short"]);
}

#[test]
fn what_an_engineer_may_add_alone_is_the_least_that_task_and_requires_say() {
    let tasks = |extend: &str| {
        format!(
            "[task.modbus-read]\ntitle = \"t\"\nprotocol = \"tcp\"\nport = 502\ndefault = \"30m\"\nmax = \"60m\"\n{extend}\n\
             [[permit]]\nid = \"p\"\n"
        )
    };
    let require = "[[require]]\nid = \"ops-extend\"\nextend = \"0s\"\n";
    for (text, extend, said) in [
        (tasks(""), None, "the engineer or ops may extend it, to 1h in all"),
        (tasks("extend = \"10m\""), Some(600), "the engineer may extend it to 40m in all, ops to 1h"),
        (tasks("extend = \"10m\"") + require, Some(0), "only ops may extend it, to 1h in all"),
        (tasks("") + require + "max = \"30m\"\n", Some(0), "nobody may extend it"),
    ] {
        let mut it = asked();
        it.time = Some(Span::from_secs(1800));
        let policy = Policy::load(&[("a.toml", &text)]).expect("a policy");
        let decision = policy.decide(&it.ask());
        assert_eq!((decision.obligations.extend, decision.obligations.seconds), (extend, 1800), "{text}");
        assert_eq!(decision.obligations.needs.len(), 1, "it asks for no approval of its own");
        assert!(decision.reasons.iter().any(|reason| reason == said), "{said}: {:?}", decision.reasons);
    }
}

#[test]
fn a_policy_without_rules_denies() {
    let decision = policy("").decide(&asked().ask());
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(PolicyState::load(&[("a.toml", "x")]).valid().is_none());
}

#[test]
fn errors_name_file_line_key_and_what_is_allowed() {
    for (text, wanted) in [
        ("[[permit]]\nid = \"p\"\nrolle = [\"ops\"]\n", ["rules.toml:3", "unknown field `rolle`", "`role`"]),
        ("[[permit]]\nid = \"p\"\nrole = [\n \"boss\"]\n", ["rules.toml:4", "permit p: role", "requester, approver"]),
        ("[[permit]]\nid = \"p\"\ntask = [\"modbus\"]\n", ["rules.toml:3", "no task \"modbus\"", "modbus-read, ssh"]),
        ("[[permit]]\nid = \"p\"\nmax = \"0s\"\n", ["rules.toml:3", "permit p: max", "at least one second"]),
        ("[[permit]]\nid = \"p\"\nmax = \"8d\"\n", ["rules.toml:3", "out of range", "7d"]),
        ("[[permit]]\nid = \"p\"\napprovals = -1\n", ["rules.toml:3", "approvals", "0 to 10"]),
        ("[[permit]]\nid = \"p\"\nrole = []\n", ["rules.toml:3", "permit p: role", "leave the key out"]),
        ("[[permit]]\nid = \"p\"\n[[forbid]]\nid = \"p\"\n", ["rules.toml:4", "is there twice", "rules.toml:2"]),
        ("[[permit]]\nid = \"p q\"\n", ["rules.toml:2", "no id for a rule", "ASCII letters"]),
        ("[[permit]]\nmax = \"1h\"\n", ["rules.toml:1", "missing field", "`id`"]),
        ("[[permit]]\nid = \"p\"\nasset = { sort = [\"plc\"] }\n", ["rules.toml:3", "unknown field `sort`", "`type`"]),
        (
            "[[permit]]\nid = \"p\"\nasset = { criticality = [\"huge\"] }\n",
            ["rules.toml:3", "asset.criticality", "low, medium or high"],
        ),
        (
            "[[permit]]\nid = \"p\"\nasset = { label = { a = [] } }\n",
            ["rules.toml:3", "asset.label", "matches nothing"],
        ),
        (
            "[[permit]]\nid = \"p\"\napprover_role = [\"auditor\"]\n",
            ["rules.toml:3", "approver_role", "approves nothing"],
        ),
        ("[[permit]]\nid = \"p\"\nexternal = \"yes\"\n", ["rules.toml:3", "invalid type", "boolean"]),
        (
            "[task.modbus-read]\ntitle = \"x\"\nprotocol = \"tcp\"\nport = 1\n",
            ["rules.toml:1", "task modbus-read", "tasks.toml:2"],
        ),
        (
            "[task.t]\ntitle = \"x\"\nprotocol = \"icmp\"\nport = 1\n",
            ["rules.toml:3", "task t: protocol", "tcp or udp"],
        ),
        ("[task.t]\ntitle = \"x\"\nprotocol = \"tcp\"\nport = 65536\n", ["rules.toml:4", "task t: port", "1 to 65535"]),
        (
            "[task.t]\ntitle = \"x\"\nprotocol = \"tcp\"\nport = 1\nmax = \"1h\"\ndefault = \"2h\"\n",
            ["rules.toml:6", "default", "longer than max"],
        ),
        (
            "[task.\"a b\"]\ntitle = \"x\"\nprotocol = \"tcp\"\nport = 1\n",
            ["rules.toml:1", "no name for a task", "ASCII letters"],
        ),
        ("[policy]\n", ["rules.toml:1", "unknown field `policy`", "`permit`"]),
        ("[[permit]\n", ["rules.toml:1", "", ""]),
    ] {
        let all = errors(text).join("\n");
        for part in wanted {
            assert!(all.contains(part), "{text}\ngave\n{all}\nwithout {part:?}");
        }
    }
}

#[test]
fn every_error_is_told_at_once() {
    let told =
        errors("[[permit]]\nid = \"p\"\nrole = [\"boss\"]\nmax = \"x\"\n[[forbid]]\nid = \"f\"\ntask = [\"none\"]\n");
    assert!(told.len() >= 2, "{told:?}");
}

#[test]
fn the_hash_sees_content_and_nothing_else() {
    let one = policy("[[permit]]\nid = \"a\"\n[[permit]]\nid = \"b\"\n");
    let other = Policy::load(&[
        ("z.toml", "# a comment\n[[permit]]\nid = \"b\"\napprovals = 1\n"),
        ("y.toml", "[[permit]]\nid = \"a\"\n"),
        ("x.toml", TASKS),
    ])
    .expect("valid");
    assert_eq!(one.hash(), other.hash());
    assert_eq!(one.hash().len(), 64);
    assert_ne!(one.hash(), policy("[[permit]]\nid = \"a\"\n[[permit]]\nid = \"b\"\napprovals = 2\n").hash());
    assert_ne!(one.hash(), policy("[[permit]]\nid = \"a\"\n[[forbid]]\nid = \"b\"\n").hash());
}

#[test]
fn files_beyond_the_bounds_are_refused() {
    let long = " ".repeat((1 << 20) + 1);
    assert!(Policy::load(&[("long.toml", long)]).is_err());
    let many: Vec<(String, &str)> = (0..300).map(|at| (format!("{at}.toml"), "")).collect();
    assert!(Policy::load(&many).is_err());
    let deep = format!("x = {}", "[".repeat(50_000));
    assert!(Policy::load(&[("deep.toml", deep)]).is_err());
}

fn shipped() -> Policy {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");
    Policy::load(&texts(dir)).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn texts(dir: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{dir}: {error}"))
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).expect("a readable file")))
        .collect();
    files.sort();
    files
}

#[test]
fn the_shipped_policy_is_valid_and_decides_every_case_as_written() {
    let policy = shipped();
    let cases = texts(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/cases"));
    assert!(!cases.is_empty());
    for (file, text) in cases {
        let cases = Cases::parse(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for outcome in cases.run(&policy) {
            assert!(
                outcome.failures.is_empty(),
                "{file}: {}: {:?}\n{:?}",
                outcome.name,
                outcome.failures,
                outcome.reasons
            );
        }
    }
}

#[test]
fn every_task_of_the_contract_is_shipped_on_its_port() {
    let policy = shipped();
    let ports: BTreeMap<String, u16> = policy.tasks().map(|(name, task)| (name.to_string(), task.port)).collect();
    let wanted = [
        ("dlms", 4059),
        ("dnp3", 20000),
        ("echo-tcp", 7),
        ("echo-udp", 7),
        ("https", 443),
        ("iec104", 2404),
        ("mms", 102),
        ("modbus", 502),
        ("mqtt", 1883),
        ("opcua", 4840),
        ("s7", 102),
        ("ssh", 22),
    ];
    assert_eq!(ports, wanted.into_iter().map(|(name, port)| (name.to_owned(), port)).collect());
}

#[test]
fn a_case_that_the_policy_does_not_meet_is_a_failure() {
    let text = "[[case]]\nname = \"n\"\nwho = { login = \"a\" }\nasset = { name = \"x\", type = \"plc\", site = \"s\" }\n\
                task = \"modbus\"\nexpect = \"deny\"\ntime = \"5m\"\napprovals = 7\n";
    let outcome = Cases::parse(text).expect("a case").run(&shipped()).remove(0);
    let failed: Vec<_> = outcome.failures.iter().map(|failure| failure.what).collect();
    assert_eq!(failed, ["expect", "time", "approvals"]);
    assert!(matches!(Cases::parse(""), Err(CasesError::Empty)));
    assert!(matches!(Cases::parse("[[case]]\nnme = 1\n"), Err(CasesError::Toml { line: 2, .. })));
}

/// One random rule as text; ids are unique by number.
fn rule(kind: &'static str) -> impl Strategy<Value = (&'static str, Vec<String>)> {
    let one_of = |key: &'static str, words: &'static [&'static str]| {
        prop_oneof![
            2 => Just(None),
            1 => proptest::sample::subsequence(words.to_vec(), 1..=words.len())
                .prop_map(move |some| Some(format!("{key} = {some:?}"))),
        ]
    };
    let asset = one_of("asset.type", &["plc", "rtu"]);
    (
        one_of("role", &["requester", "ops"]),
        one_of("task", &["modbus-read", "ssh"]),
        proptest::option::of(any::<bool>()),
        asset,
        proptest::option::of(1u32..120),
        0u32..4,
        one_of("approver_role", &["approver", "ops", "admin"]),
    )
        .prop_map(move |(role, task, external, asset, max, approvals, approvers)| {
            let mut keys: Vec<String> = [role, task, asset].into_iter().flatten().collect();
            keys.extend(external.map(|external| format!("external = {external}")));
            if kind != "forbid" {
                keys.extend(max.map(|max| format!("max = \"{max}m\"")));
                keys.push(format!("approvals = {approvals}"));
                keys.extend(approvers);
            }
            (kind, keys)
        })
}

fn text_of(rules: &[(&'static str, Vec<String>)]) -> String {
    let text = |(at, (kind, keys)): (usize, &(&str, Vec<String>))| {
        format!("[[{kind}]]\nid = \"r{at}\"\n{}\n", keys.join("\n"))
    };
    rules.iter().enumerate().map(text).collect()
}

fn anybody() -> impl Strategy<Value = Asked> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(1u64..10_000)).prop_map(
        |(ops, org, ssh, rtu, secs)| {
            let mut it = asked();
            if ops {
                it.roles = Roles::from([Role::Ops]);
            }
            it.org = org.then(|| "acme".parse().expect("a name"));
            if ssh {
                it.task = "ssh".parse().expect("a name");
            }
            if rtu {
                it.kind = "rtu".parse().expect("a name");
            }
            it.time = secs.map(Span::from_secs);
            it
        },
    )
}

/// What a decision gives: nothing, or so little asked, so long.
fn worth(decision: &Decision) -> Option<(Vec<Need>, u64)> {
    decision.is_permit().then(|| (decision.obligations.needs.clone(), decision.obligations.seconds))
}

fn any_rules() -> impl Strategy<Value = Vec<(&'static str, Vec<String>)>> {
    proptest::collection::vec(prop_oneof![3 => rule("permit"), 1 => rule("require"), 1 => rule("forbid")], 0..8)
}

proptest! {
    #[test]
    fn adding_a_permit_takes_nothing_away(before in any_rules(), added in rule("permit"), it in anybody()) {
        let old = policy(&text_of(&before)).decide(&it.ask());
        let mut after = before.clone();
        after.push(added);
        let new = policy(&text_of(&after)).decide(&it.ask());
        if let Some((old_needs, old_time)) = worth(&old) {
            let (new_needs, new_time) = worth(&new).expect("still permitted");
            let own = |needs: &[Need], decision: &Decision| {
                needs.iter().find(|need| need.rule == decision.rules[0]).map_or(0, |need| need.approvals)
            };
            let (old_own, new_own) = (own(&old_needs, &old), own(&new_needs, &new));
            prop_assert!(new_own < old_own || (new_own == old_own && new_time >= old_time));
            // What the requires add is the same.
            let added = |needs: &[Need], decision: &Decision| -> Vec<Need> {
                needs.iter().filter(|need| need.rule != decision.rules[0]).cloned().collect()
            };
            prop_assert_eq!(added(&old_needs, &old), added(&new_needs, &new));
        }
    }

    #[test]
    fn adding_a_require_or_a_forbid_gives_nothing(
        before in any_rules(), added in prop_oneof![rule("require"), rule("forbid")], it in anybody(),
    ) {
        let old = policy(&text_of(&before)).decide(&it.ask());
        let mut after = before.clone();
        after.push(added);
        let new = policy(&text_of(&after)).decide(&it.ask());
        if let Some((new_needs, new_time)) = worth(&new) {
            let (old_needs, old_time) = worth(&old).expect("it was permitted before");
            prop_assert!(new_time <= old_time);
            prop_assert!(old_needs.iter().all(|need| new_needs.contains(need)));
        }
    }

    #[test]
    fn the_order_of_rules_and_files_does_not_matter(rules in any_rules(), it in anybody(), at in 0usize..8) {
        let ids: Vec<String> = rules.iter().enumerate().map(|(at, rule)| {
            format!("[[{}]]\nid = \"r{at}\"\n{}\n", rule.0, rule.1.join("\n"))
        }).collect();
        let (head, tail) = ids.split_at(at.min(ids.len()));
        let one = policy(&ids.concat());
        let other = Policy::load(&[("b.toml", tail.concat()), ("t.toml", TASKS.to_owned()), ("a.toml", head.concat())]).expect("valid");
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one.decide(&it.ask()), other.decide(&it.ask()));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", at in 0usize..600) {
        let _ = Policy::load(&[("x.toml", &text)]);
        let _ = Cases::parse(&text);
        let mut broken = format!("{TASKS}{EXAMPLE}");
        let at = (0..=at.min(broken.len())).rev().find(|at| broken.is_char_boundary(*at)).unwrap_or(0);
        broken.insert_str(at, &text);
        let _ = Policy::load(&[("x.toml", &broken)]);
    }
}
