//! What is said of other programs' tables, and the trial that changes nothing.

mod common;

use common::*;
use thinlane_nft::{BaseConfig, ForeignChain, Hook, Lanes, Passes, Side};

const FW4: &str = include_str!("rulesets/fw4.nft");
const DOCKER: &str = include_str!("rulesets/docker.nft");
const UFW: &str = include_str!("rulesets/ufw.nft");

fn lanes(lan: &[&str]) -> Lanes {
    let side = |name: &&str| Side { name: (*name).to_owned(), networks: vec![(GATEWAY, 24)] };
    Lanes {
        device: "tl0".into(),
        lan: lan.iter().map(side).collect(),
        lan_is_certain: true,
        engineers: vec![(ENGINEER, 16)],
        uplink: Some("wwan0".into()),
        indices: vec![("tl0".into(), 77)],
    }
}

/// A namespace whose rules are replaced for each question.
struct Asked(Namespace);

impl Asked {
    fn new() -> Self {
        Self(Namespace::new("foreign"))
    }

    fn all(&self, rules: &str, lanes: &Lanes) -> Vec<ForeignChain> {
        self.0.nft(&format!("flush ruleset\n{rules}"));
        self.0.open().foreign(lanes).expect("the tables")
    }

    /// The worst of all chains, and the rule that is quoted.
    fn of(&self, rules: &str, lanes: &Lanes) -> (Passes, String) {
        let all = self.all(rules, lanes);
        assert!(!all.is_empty(), "{rules}");
        for one in &all {
            // What is quoted is found where it is said to be.
            let Some(rule) = &one.rule else { continue };
            let list = format!("nft -a list chain {} {} {}", one.family_word(), one.table, rule.chain);
            let listed = self.0.exec(&list);
            assert!(listed.contains(&format!("# handle {}\n", rule.handle)), "{rule:?} in {listed}");
        }
        let worst = all.into_iter().max_by_key(|one| one.passes).expect("a chain");
        (worst.passes, worst.rule.map(|rule| rule.text).unwrap_or_default())
    }

    /// Of a chain that accepts what it does not know.
    fn open(&self, rules: &str) -> (Passes, String) {
        let table = format!(
            "table inet fw4 {{ set feed {{ type ipv4_addr; flags interval; elements = {{ 198.18.0.0/15, 203.0.113.0/24 }}; }}\n chain forward {{ type filter hook forward priority 0; counter; {rules} }}; }}"
        );
        self.of(&table, &lanes(&["lan"]))
    }
}

fn dropping(rules: &str) -> String {
    format!("table inet fw {{ chain forward {{ type filter hook forward priority 0; policy drop; {rules} }}; }}")
}

#[test]
fn a_rule_that_surely_drops_a_lane_is_found_and_quoted_though_the_policy_accepts() {
    let asked = Asked::new();
    for rule in [
        "iifname \"tl0\" drop",
        "iifname \"tl*\" drop",
        "iifname { \"eth7\", \"tl0\" } drop",
        "iifname != \"lan\" ip daddr 192.168.1.0/24 drop",
        "iifname != { \"lan\", \"wwan0\" } reject",
        "ct state new drop",
        "ct state established,related drop",
        "ct direction reply drop",
        "iifname \"lan\" oifname != \"wwan0\" drop",
        "oifname \"lan\" ip saddr 198.19.0.0/16 drop",
        "ip saddr 198.18.0.0/15 drop comment \"bogons\"",
        "ip saddr @feed drop",
        "ip saddr 198.19.0.0-198.20.1.0 drop",
        "meta l4proto { tcp, udp } drop",
        "iif != 1 drop",
        "ip daddr 192.168.1.0/24 ct state new drop",
        "iifname . oifname { \"tl0\" . \"lan\" } drop",
        "ct state vmap { invalid : drop, new : drop }",
        "iifname vmap { \"eth0\" : accept, \"tl0\" : drop }",
    ] {
        let (passes, quoted) = asked.open(&format!("{rule};"));
        assert_eq!(passes, Passes::No, "{rule}: {quoted}");
        let normal = |text: &str| text.replace(' ', "").replace("198.19.0.0-198.20.1.0", "");
        let same = normal(&quoted) == normal(rule)
            || ["{", "-", "established,related"].iter().any(|special| rule.contains(special));
        assert!(same, "{rule} is quoted as {quoted}");
    }
    // The kernel keeps what is in a set in an order of its own.
    let (_, quoted) = asked.open("iifname { \"eth7\", \"tl0\" } drop;");
    assert!(
        ["{ \"eth7\", \"tl0\" }", "{ \"tl0\", \"eth7\" }"].iter().any(|set| quoted == format!("iifname {set} drop")),
        "{quoted}"
    );
    let (_, quoted) = asked.open("ct state vmap { new : drop };");
    assert_eq!(quoted, "ct state vmap { new : drop }");
    let (_, quoted) = asked.open("iifname \"tl0\" tcp sport 1-65535 ip daddr 192.168.0.0/20 drop;");
    assert_eq!(quoted, "iifname \"tl0\" tcp sport >= 1 ip daddr 192.168.0.0/20 drop");
}

#[test]
fn a_rule_that_may_drop_a_lane_is_named_as_such() {
    let asked = Asked::new();
    for rule in [
        "tcp dport 7 drop",
        "udp drop",
        "iifname \"tl0\" udp dport 53 drop",
        "iifname \"tl0\" limit rate over 10/second drop",
        "meta mark 7 drop",
        "ip daddr 192.168.1.10 drop",
        "ip saddr 198.19.4.0/24 drop",
        "tcp dport { 1-1023, 3389 } reject",
        "ip daddr . tcp dport { 192.168.1.7 . 22 } drop",
        "meta hour \"17:00\"-\"19:00\" drop",
    ] {
        let (passes, quoted) = asked.open(&format!("{};", rule.replace("udp drop", "meta l4proto udp drop")));
        assert_eq!(passes, Passes::MayDrop, "{rule}: {quoted}");
        assert!(quoted.ends_with("drop") || quoted.ends_with("reject"), "{rule} is quoted as {quoted}");
    }
    assert_eq!(asked.open("tcp dport 7 drop;").1, "tcp dport 7 drop");
    // What lets some through and drops the rest.
    let half = "ct state established accept; iifname \"tl0\" tcp dport 502 accept;";
    assert_eq!(asked.of(&dropping(half), &lanes(&["lan"])), (Passes::MayDrop, String::new()));
    let marked = "ct state established accept; iifname \"tl0\" ct mark 7 accept; drop;";
    assert_eq!(asked.of(&dropping(marked), &lanes(&["lan"])), (Passes::MayDrop, "drop".into()));
}

#[test]
fn a_rule_that_cannot_meet_a_lane_is_no_reason_to_worry() {
    let asked = Asked::new();
    for rules in [
        "ct state invalid drop;",
        "ct state established,related accept; iifname \"wwan0\" drop;",
        "ip6 daddr fe80::/10 drop; meta nfproto ipv6 drop; icmp type redirect drop;",
        "iifname \"lan\" oifname \"wwan0\" tcp dport 25 drop;",
        "iifname \"tl0\" accept; oifname \"tl0\" accept; tcp dport 7 drop;",
        "iifname \"guest\" drop; oifname { \"guest\", \"docker0\" } drop; iif lo drop;",
        "iifname != { \"lan\", \"tl0\" } drop;",
        "iifname != \"docker0\" ip daddr 172.17.0.0/16 drop;",
        "ip saddr 198.18.0.0/16 drop; ip saddr { 10.0.0.0/8, 172.16.0.0/12 } drop;",
        "meta l4proto { icmp, esp } drop; ip protocol gre drop;",
        "ct state vmap { invalid : drop, established : accept, related : accept }; iifname \"wwan0\" drop;",
        "tcp flags syn tcp option maxseg size set rt mtu; meta mark set 7; limit rate 1/second counter;",
        "iifname \"tl-*\" drop; iifname \"tl\" drop; iifname \"tl01\" drop;",
        "ip saddr @feed iifname \"wwan0\" drop;",
        "ct state untracked drop; iifname . ip daddr { \"lan\" . 192.168.1.0/24 } drop;",
    ] {
        assert_eq!(asked.open(rules), (Passes::Yes, String::new()), "{rules}");
    }
}

#[test]
fn lanes_with_interfaces_of_their_own_are_followed_by_what_their_names_begin_with() {
    let asked = Asked::new();
    let own = Lanes { device: "tl-".into(), ..lanes(&["lan"]) };
    let zone = |device: &str| dropping(&format!("ct state established accept; iifname \"{device}\" accept;"));
    assert_eq!(asked.of(&zone("tl*"), &own).0, Passes::Yes);
    assert_eq!(asked.of(&zone("tl-*"), &own).0, Passes::Yes);
    assert_eq!(asked.of(&zone("tl0"), &own).0, Passes::No, "a zone of the shared device is not theirs");
    assert_eq!(asked.of(&zone("tl-a"), &own).0, Passes::MayDrop);
    assert_eq!(asked.of(&zone("tl0"), &lanes(&["lan"])).0, Passes::Yes);
}

#[test]
fn a_policy_that_drops_what_it_does_not_know_is_found() {
    let asked = Asked::new();
    let judged = |rules: &str| asked.of(&dropping(rules), &lanes(&["lan"])).0;
    assert_eq!(judged(""), Passes::No);
    assert_eq!(judged("ct state established,related accept; iifname \"lan\" oifname \"wan\" accept;"), Passes::No);
    assert_eq!(judged("ct state vmap { established : accept, related : accept };"), Passes::No);
    assert_eq!(judged("iifname \"tl0\" accept;"), Passes::No, "the answers");
    assert_eq!(judged("iifname \"tl0\" ct state new accept; oifname \"tl0\" accept;"), Passes::No, "what follows");
    let back = "ct state established accept;";
    assert_eq!(judged(&format!("{back} iifname \"tl0\" oifname \"lan\" accept;")), Passes::Yes);
    assert_eq!(judged(&format!("{back} iifname {{ \"tl0\", \"br0\" }} accept;")), Passes::Yes);
    assert_eq!(judged(&format!("{back} ip saddr 198.19.0.0/16 accept;")), Passes::Yes);
    assert_eq!(judged(&format!("{back} meta l4proto tcp accept; meta l4proto udp accept;")), Passes::Yes);
    assert_eq!(judged("iifname != \"wan\" accept;"), Passes::Yes);
}

#[test]
fn the_ruleset_of_openwrt_is_well_with_our_zone_and_is_blamed_without() {
    let asked = Asked::new();
    for flows in [
        "ct state established,related accept comment \"!fw4: Allow forwarded established and related flows\"",
        "ct state vmap { established : accept, related : accept } comment \"!fw4: Handle forwarded flows\"",
        "ct state vmap { invalid : drop, established : accept, related : accept }",
    ] {
        let fw4 = FW4.replace("FIRST", "").replace("FLOWS", flows);
        for device in ["tl0", "tl-"] {
            let lanes = Lanes { device: device.into(), ..lanes(&["br-lan"]) };
            assert_eq!(asked.of(&fw4, &lanes), (Passes::Yes, String::new()));
            // Nobody said which interface the devices are behind.
            let lanes = Lanes { lan_is_certain: false, ..lanes };
            let guests = ["guest", "br-lan"].map(|name| Side { name: name.into(), networks: Vec::new() });
            let any = Lanes { lan: guests.into(), ..lanes.clone() };
            assert_eq!(asked.of(&fw4, &any), (Passes::Yes, String::new()));
            let none = Lanes { lan: Vec::new(), ..lanes };
            assert_eq!(asked.of(&fw4, &none), (Passes::Yes, String::new()));
        }
        let bare: Vec<_> = fw4.lines().filter(|line| !line.contains("iifname \"tl*\" jump forward")).collect();
        let bare = bare.join("\n");
        let all = asked.all(&bare, &lanes(&["br-lan"]));
        let bad: Vec<_> = all.iter().filter(|one| one.passes != Passes::Yes).collect();
        assert_eq!(bad.len(), 1, "{all:?}");
        assert_eq!((bad[0].chain.as_str(), bad[0].hook, bad[0].passes), ("forward", Hook::Forward, Passes::No));
        let rule = bad[0].rule.as_ref().expect("a rule");
        assert_eq!(rule.chain, "handle_reject");
        assert!(rule.text.starts_with("meta l4proto tcp reject"), "{rule:?}");
    }
    // Somebody's include before all of it, and one behind.
    let with = |first: &str| FW4.replace("FIRST", first).replace("FLOWS", "ct state established,related accept");
    assert_eq!(asked.of(&with("iifname \"tl0\" drop"), &lanes(&["br-lan"])).0, Passes::No);
    assert_eq!(asked.of(&with("ct state new jump handle_reject"), &lanes(&["br-lan"])).0, Passes::No);
    assert_eq!(asked.of(&with("iifname \"br-lan\" jump forward_thinlane"), &lanes(&["br-lan"])).0, Passes::No);
    assert_eq!(asked.of(&with("tcp dport 7 drop"), &lanes(&["br-lan"])).0, Passes::MayDrop);
    // A zone that is let through to a LAN that is not the lanes'.
    assert_eq!(asked.of(&with(""), &lanes(&["br-plant"])).0, Passes::No);
}

#[test]
fn what_containers_and_ufw_write_is_blamed_for_its_policy_alone() {
    let asked = Asked::new();
    let hooks =
        ["input", "forward", "output"].map(|hook| format!("chain {hook} {{ type filter hook {hook} priority 0; }};"));
    let debian = format!("table inet filter {{ {} }}", hooks.concat());
    assert_eq!(asked.of(&debian, &lanes(&["lan"])), (Passes::Yes, String::new()));
    let docker = |policy: &str| asked.of(&DOCKER.replace("POLICY", policy), &lanes(&["lan"]));
    assert_eq!(docker("accept"), (Passes::Yes, String::new()));
    assert_eq!(docker("drop"), (Passes::No, String::new()));
    let ufw =
        |policy: &str, user: &str| asked.of(&UFW.replace("POLICY", policy).replace("USER", user), &lanes(&["lan"]));
    assert_eq!(ufw("accept", ""), (Passes::Yes, String::new()));
    assert_eq!(ufw("drop", ""), (Passes::No, String::new()));
    assert_eq!(ufw("drop", "iifname \"tl0\" oifname \"lan\" counter accept;"), (Passes::Yes, String::new()));
    assert_eq!(ufw("drop", "iifname \"tl0\" tcp dport 2404 counter accept;").0, Passes::MayDrop);
}

#[test]
fn what_keeps_the_relay_from_answering_is_found() {
    let asked = Asked::new();
    let input = |rules: &str| {
        let table =
            format!("table inet t {{ chain in {{ type filter hook input priority 0; policy drop; {rules} }}; }}");
        let found = asked.all(&table, &lanes(&["lan"])).remove(0);
        assert_eq!(found.hook, Hook::Input);
        found.passes
    };
    assert_eq!(input("tcp dport 22 accept;"), Passes::No);
    assert_eq!(input("iifname \"lo\" accept; ct state established,related accept;"), Passes::Yes);
    assert_eq!(input("iifname \"wwan0\" drop; ct state established accept;"), Passes::No);
    assert_eq!(input("udp sport 7443 accept;"), Passes::Yes, "it is tried with packets of its own");
}

#[test]
fn an_open_forward_chain_is_no_reason_to_worry_and_our_own_table_is_not_looked_at() {
    let lab = Lab::new();
    let mut nft = lab.router.open();
    nft.install_base(&config(), &[]).expect("the base");
    let found = || lab.router.open().foreign(&lanes(&["lan"])).expect("the tables");
    assert_eq!(found(), []);
    lab.router.nft("table ip a { chain f { type filter hook forward priority 0; tcp dport 1 counter; }; }");
    lab.router.nft("table ip6 b { chain f { type filter hook forward priority 0; policy drop; }; }");
    lab.router.nft("table inet c { chain f { type filter hook postrouting priority 0; policy drop; }; }");
    let found: Vec<_> = found().into_iter().map(|one| (one.table, one.passes)).collect();
    assert_eq!(found, [("a".to_owned(), Passes::Yes)]);
}

#[test]
fn rules_without_end_are_given_up_in_time() {
    let asked = Asked::new();
    // Each chain jumps to the next one twice: 2^15 ways through them.
    let chain = |number: usize| {
        let next = match number {
            15.. => String::new(),
            _ => format!("jump c{0}; tcp dport 1 jump c{0};", number + 1),
        };
        format!("chain c{number} {{ {next} tcp dport {number} counter; }}\n")
    };
    let chains: String = (1..=15).rev().map(chain).collect();
    let table = format!("table inet t {{ {chains} chain f {{ type filter hook forward priority 0; jump c1; }}; }}");
    let found = asked.all(&table, &lanes(&["lan"])).remove(0);
    assert_eq!((found.passes, found.lost), (Passes::Unclear, true));
    let many: String =
        (0..30_000).map(|number| format!("ip saddr 10.{}.{}.1 drop\n", number / 256, number % 256)).collect();
    let table = format!("table inet t {{ chain f {{ type filter hook forward priority 0; {many} }}; }}");
    let found = asked.all(&table, &lanes(&["lan"])).remove(0);
    assert_eq!((found.passes, found.lost), (Passes::Unclear, true));
}

#[test]
fn the_trial_takes_everything_and_leaves_nothing() {
    let namespace = Namespace::new("trial");
    let mut nft = namespace.open();
    let config = BaseConfig { guard_lan_forwarding: true, ..config() };
    nft.try_base(&config).expect("this kernel has all that is needed");
    assert_eq!(namespace.exec("nft list ruleset"), "");
    nft.install_base(&config, &[]).expect("the base");
    let before = namespace.exec("nft list ruleset");
    nft.try_base(&config).expect("also beside one that stands");
    assert_eq!(namespace.exec("nft list ruleset"), before);
}

#[test]
#[ignore = "writes tests/rulesets/fw4.bin anew; the crate's own tests read it"]
fn the_dump_of_fw4_is_recorded() {
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
    let asked = Asked::new();
    asked.0.nft(&FW4.replace("FIRST", "").replace("FLOWS", "ct state vmap { established : accept, related : accept }"));
    let all = asked.0.within(|| {
        let mut all = Vec::new();
        let socket = Socket::new(NETLINK_NETFILTER).expect("socket");
        let mut dump = |kind: u16, names: &[&str]| {
            let mut message = vec![0; 4];
            message.extend(kind.to_ne_bytes());
            message.extend(0x301u16.to_ne_bytes());
            message.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
            for (kind, name) in (1u16..).zip(names) {
                message.extend((u16::try_from(name.len()).expect("short") + 5).to_ne_bytes());
                message.extend(kind.to_ne_bytes());
                message.extend(name.bytes().chain([0]));
                message.resize(message.len().next_multiple_of(4), 0);
            }
            let length = u32::try_from(message.len()).expect("short").to_ne_bytes();
            message[..4].copy_from_slice(&length);
            socket.send_to(&message, &SocketAddr::new(0, 0), 0).expect("send");
            loop {
                let (answer, _) = socket.recv_from_full().expect("an answer");
                let mut at = 0;
                let mut kind = 0;
                while let Some(header) = answer.get(at..at + 6) {
                    kind = u16::from_ne_bytes([header[4], header[5]]);
                    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
                    at += usize::try_from(length).expect("short").next_multiple_of(4).max(4);
                }
                all.extend(answer);
                // NLMSG_ERROR: there is no such set. NLMSG_DONE: that was all.
                if [2, 3].contains(&kind) {
                    break;
                }
            }
        };
        dump(0xa04, &[]);
        dump(0xa07, &["fw4"]);
        dump(0xa0a, &["fw4"]);
        for number in 0..32 {
            for name in [format!("__set{number}"), format!("__map{number}")] {
                dump(0xa0d, &["fw4", &name]);
            }
        }
        all
    });
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rulesets/fw4.bin"), all).expect("write");
}
