//! What is said of other programs' tables, and the trial that changes nothing.

mod common;

use common::*;
use thinlane_nft::{BaseConfig, Passes};

fn passes(namespace: &Namespace, lan: Option<&str>) -> Vec<(String, Passes)> {
    let mut nft = namespace.open();
    let found = nft.foreign_forward(lan).expect("the tables");
    found.into_iter().map(|one| (one.table, one.passes)).collect()
}

fn judged(rules: &str) -> Passes {
    let namespace = Namespace::new("foreign");
    namespace.nft(rules);
    let found = passes(&namespace, Some("lan"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].1
}

#[test]
fn a_policy_that_drops_what_it_does_not_know_is_found() {
    let table = |rules: &str| {
        format!("table inet fw {{ chain forward {{ type filter hook forward priority 0; policy drop; {rules} }}; }}")
    };
    assert_eq!(judged(&table("")), Passes::No);
    assert_eq!(
        judged(&table("ct state established,related accept; iifname \"lan\" oifname \"wan\" accept;")),
        Passes::No
    );
    assert_eq!(judged(&table("ct state vmap { established : accept, related : accept };")), Passes::No);
    assert_eq!(judged(&table("tcp dport 22 drop; iifname \"tl0\" drop;")), Passes::Unclear, "somebody meant it");
    assert_eq!(judged(&table("iifname \"tl0\" oifname \"lan\" accept;")), Passes::Yes);
    assert_eq!(judged(&table("iifname \"tl*\" accept;")), Passes::Yes);
    assert_eq!(judged(&table("iifname != \"wan\" accept;")), Passes::Yes);
    assert_eq!(judged(&table("iifname { \"tl0\", \"br0\" } accept;")), Passes::Unclear);
    assert_eq!(judged(&table("ip saddr 198.19.0.0/16 accept;")), Passes::Unclear);
}

#[test]
fn a_chain_that_ends_in_a_reject_is_followed_to_it() {
    let fw4 = "table inet fw4 {
        chain forward { type filter hook forward priority 0; policy ACT
            ct state vmap { established : accept, related : accept }
            iifname \"br-lan\" jump forward_lan
            jump handle_reject
        }
        chain forward_lan { oifname \"wan\" accept
            ZONE
        }
        chain handle_reject { meta l4proto tcp reject with tcp reset
            reject
        }
    }";
    assert_eq!(judged(&fw4.replace("ACT", "accept;").replace("ZONE", "")), Passes::No);
    assert_eq!(judged(&fw4.replace("ACT", "drop;").replace("ZONE", "accept")), Passes::No);
    let zoned = fw4.replace("ACT", "drop;").replace("\"br-lan\"", "\"tl0\"").replace("ZONE", "oifname \"lan\" accept");
    assert_eq!(judged(&zoned), Passes::Yes);
}

#[test]
fn an_open_forward_chain_is_no_reason_to_worry_and_our_own_table_is_not_looked_at() {
    let lab = Lab::new();
    let mut nft = lab.router.open();
    nft.install_base(&config(), &[]).expect("the base");
    assert!(passes(&lab.router, Some("lan")).is_empty());
    lab.router.nft("table ip a { chain f { type filter hook forward priority 0; tcp dport 1 drop; }; }");
    lab.router.nft("table ip6 b { chain f { type filter hook forward priority 0; policy drop; }; }");
    lab.router.nft("table inet c { chain f { type filter hook input priority 0; policy drop; }; }");
    assert_eq!(passes(&lab.router, Some("lan")), [("a".to_owned(), Passes::Yes)]);
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
