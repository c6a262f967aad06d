//! What a kernel could say of the tables of others: for fuzzing.

use std::collections::BTreeMap;

use super::{FORWARD, Follow, ForeignChain, Rules, act, contains_ours, foreign_chain, foreign_rule, holds};
use crate::message::{Content, Messages, SUBSYS_TABLES};
use crate::object::kind;

/// Reads chains, rules and elements, and follows them from every base chain: it ends, and says the same of a packet
/// however often it is asked. Tells `reach` what it got to.
pub fn fuzz_foreign(bytes: &[u8], reach: &mut dyn FnMut(&'static str)) {
    let (mut chains, mut rules) = (Vec::<(u8, ForeignChain)>::new(), BTreeMap::<_, Vec<_>>::new());
    for message in Messages::new(bytes).take(64) {
        let Ok(Content::Netfilter { subsys: SUBSYS_TABLES, family, attrs, kind, .. }) =
            message.and_then(|message| message.content())
        else {
            continue;
        };
        match kind {
            kind::NEW_CHAIN => {
                if let Ok(Some(chain)) = foreign_chain(&attrs) {
                    chains.push((family, chain));
                }
            }
            kind::NEW_RULE => {
                if let Ok(Some((table, chain, rule))) = foreign_rule(&attrs) {
                    rules.entry((family, table, chain)).or_default().push(rule);
                }
            }
            _ => {
                if attrs.find(3).is_some_and(|list| contains_ours(list.value)) {
                    reach("an interface of ours in a set");
                }
            }
        }
    }
    let rules = Rules(rules);
    for (family, chain) in chains.iter().filter(|(_, chain)| chain.hook == Some(FORWARD)) {
        reach("a chain on the forward hook");
        let table = (*family, chain.table.clone());
        for lan in [None, Some("lan"), Some("an interface with a name that is too long")] {
            let follow = rules.follow(&table, &chain.name, lan);
            assert_eq!(follow, rules.follow(&table, &chain.name, lan));
            reach(match follow {
                Follow::Accepted => "accepted",
                Follow::Dropped => "dropped",
                Follow::Back => "left to the policy",
                Follow::Unclear => "unclear",
            });
            let own = rules.0.get(&(table.0, table.1.clone(), chain.name.clone()));
            // Where each rule surely holds and does one thing, that is what becomes of the packet.
            if let Some(first) = own.and_then(|own| own.first())
                && holds(first, lan) == Some(true)
            {
                match (act(first), follow) {
                    (super::Act::Accept, follow) => assert_eq!(follow, Follow::Accepted),
                    (super::Act::Drop, follow) => assert_eq!(follow, Follow::Dropped),
                    _ => {}
                }
            }
        }
        if rules.names_ours(&table) {
            reach("a rule that names ours");
        }
    }
}
