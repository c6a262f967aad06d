//! What it means for lanes that somebody else's table drops packets.

use thinlane_doctor::Finding;
use thinlane_nft::{ForeignChain, Hook, Passes};

use super::judge::sentence;

/// What somebody else's chain does to lanes, where that is worth saying.
pub fn firewall(one: &ForeignChain) -> Option<Finding> {
    let ForeignChain { table, chain, hook, .. } = one;
    let family = one.family_word();
    let (rule, look) = match &one.rule {
        Some(rule) => (
            format!("rule {} of chain {}{}: {}", rule.handle, rule.chain, reached(&rule.chain, chain), rule.text),
            format!("Look at it: nft -a list chain {family} {table} {}.", rule.chain),
        ),
        None => {
            (format!("the policy of chain {chain}"), format!("Look at it: nft list chain {family} {table} {chain}."))
        }
    };
    match (one.passes, hook) {
        (Passes::Yes, _) => None,
        (Passes::Unclear, _) => {
            Some(unread(format!("Chain {chain} of the firewall table {family} {table} cannot be followed to its end")))
        }
        (Passes::MayDrop, _) => Some(
            Finding::warning("firewall-may-drop", format!("The firewall table {family} {table} may drop what a lane forwards, by {rule}."))
                .why("A drop of any table is final. Which packets meet that rule cannot be foreseen; some lanes may open with nothing passing.")
                .next(format!("{look} If it can meet the devices' ports, have it leave out the lanes' interface (tl0, tl-*), in both directions.")),
        ),
        (Passes::No, Hook::Input) => Some(
            Finding::problem("firewall-drops", format!("The firewall table {family} {table} drops what the relay answers, by {rule}."))
                .why("Lanes are carried by the relay: what it sends must reach this gateway, as answers to what was sent there.")
                .next(format!("{look} Accept answers before it: ct state established accept.")),
        ),
        (Passes::No, Hook::Forward) => Some(
            Finding::problem("firewall-drops", format!("The firewall table {family} {table} drops what a lane forwards, by {rule}."))
                .why("A drop of any table is final: lanes open, and nothing passes.")
                .next(format!("{look} {}", way_out(table))),
        ),
    }
}

fn reached(from: &str, base: &str) -> String {
    if from == base { String::new() } else { format!(" (reached from chain {base})") }
}

fn way_out(table: &str) -> &'static str {
    if table.starts_with("fw4") {
        "Lanes need the firewall zone that the package brings (device tl+ in a zone that may forward to lan; then: fw4 reload), and no rule before it that drops them."
    } else {
        "Add rules before it that accept: iifname \"tl0\" accept, and oifname \"tl0\" ct state established accept (tl-* where the kernel's WireGuard carries lanes)."
    }
}

/// Some of it is not known.
pub fn unread(what: String) -> Finding {
    Finding::note("firewall-unread", sentence(&what))
        .why("If a rule of it drops what is forwarded from tl0, lanes open and nothing passes.")
        .next("If a lane opens and nothing passes, look yourself: nft list ruleset")
}
