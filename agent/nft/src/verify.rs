//! What in the kernel differs from what is meant.

use std::collections::{BTreeMap, BTreeSet};

use thinlane_model::SessionId;

use crate::decode::Canon;
use crate::error::NftError;
use crate::nft::canonical;
use crate::object::{Chain, Set};
use crate::ruleset::{self, Names};
use crate::{BaseConfig, Lane, Nft};

/// Everything that differs; empty: the kernel has what is meant and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drift {
    pub findings: Vec<Finding>,
}

/// One difference. Everything but an unknown lane can only be another program's doing, or a bug.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Finding {
    #[error("the table is missing")]
    TableMissing,
    #[error("the table is switched off or owned by another program (flags {0:#x})")]
    TableFlags(u32),
    #[error("chain {0} is missing")]
    ChainMissing(String),
    #[error("chain {0} is not ours")]
    ChainUnknown(String),
    #[error("chain {0} hangs elsewhere, or its policy is not accept")]
    ChainMoved(String),
    #[error("the rules of chain {0} are not those that were sent")]
    RulesChanged(String),
    #[error("set {0} is missing")]
    SetMissing(String),
    #[error("set {0} is not ours")]
    SetUnknown(String),
    #[error("set {0} is of another kind")]
    SetChanged(String),
    #[error("set {0} has elements that were not sent, or lacks some")]
    ElementsChanged(String),
    #[error("the lane of session {0} is missing")]
    LaneMissing(SessionId),
    #[error("the lane of session {0} has expired")]
    LaneExpired(SessionId),
    #[error("the lane of session {0} never expires")]
    LaneEndless(SessionId),
    /// Also: its chains wait for [`Nft::sweep`] if it is closed.
    #[error("session {0} has something in the kernel and should not")]
    LaneUnknown(SessionId),
}

impl Drift {
    pub fn is_none(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether a session that should have none has a lane, or a lane has no end.
    pub fn opens_more(&self) -> bool {
        self.findings.iter().any(|finding| {
            !matches!(finding, Finding::LaneMissing(_) | Finding::LaneExpired(_) | Finding::LaneUnknown(_))
        })
    }
}

impl Nft {
    /// Compares everything in our table with what `config` and `lanes` mean; their `remaining` does not matter.
    pub fn verify(&mut self, config: &BaseConfig, lanes: &[Lane]) -> Result<Drift, NftError> {
        let Some(table) = self.table()? else { return Ok(Drift { findings: vec![Finding::TableMissing] }) };
        let mut findings = BTreeSet::new();
        if table.flags != 0 {
            findings.insert(Finding::TableFlags(table.flags));
        }
        let base = ruleset::base(config);
        let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
        let mut elements = base.elements.clone();
        chains.extend(base.chains.into_iter().map(|chain| (chain.name.clone(), chain)));
        for lane in lanes {
            let rules = ruleset::lane(config, lane);
            chains.extend(rules.chains.into_iter().map(|chain| (chain.name.clone(), chain)));
            elements.extend(rules.elements);
        }
        self.verify_chains(&chains, &mut findings)?;
        self.verify_sets(base.sets, &elements, &mut findings)?;
        let wanted: BTreeSet<_> = lanes.iter().map(|lane| lane.session).collect();
        self.verify_lanes(&wanted, &mut findings)?;
        Ok(Drift { findings: findings.into_iter().collect() })
    }

    fn verify_chains(
        &mut self,
        wanted: &BTreeMap<String, Chain>,
        findings: &mut BTreeSet<Finding>,
    ) -> Result<(), NftError> {
        let found = self.chains()?;
        let mut rules: BTreeMap<String, Vec<Canon>> = self.rules(None)?;
        for (name, chain) in wanted {
            let Some(found) = found.get(name) else {
                findings.insert(Finding::ChainMissing(name.clone()));
                continue;
            };
            let accept = libc::NF_ACCEPT as u32;
            let base = chain.base.map(|base| (base.kind.to_owned(), base.hook, base.priority, accept));
            if found.base != base {
                findings.insert(Finding::ChainMoved(name.clone()));
            }
            if rules.remove(name).unwrap_or_default() != canonical(&chain.rules)? {
                findings.insert(Finding::RulesChanged(name.clone()));
            }
        }
        for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
            findings.insert(match Names::read(name) {
                Some((names, _)) => Finding::LaneUnknown(names.0),
                None => Finding::ChainUnknown(name.clone()),
            });
        }
        Ok(())
    }

    fn verify_sets(
        &mut self,
        wanted: &'static [Set],
        elements: &[crate::object::Element],
        findings: &mut BTreeSet<Finding>,
    ) -> Result<(), NftError> {
        let found = self.sets()?;
        for set in wanted {
            let Some(found) = found.get(set.name) else {
                findings.insert(Finding::SetMissing(set.name.to_owned()));
                continue;
            };
            if (found.flags, found.key_type, found.key_len) != (set.flags(), set.key_type(), set.key_len()) {
                findings.insert(Finding::SetChanged(set.name.to_owned()));
            }
            // Elements that expire are judged with their lanes.
            if set.expires.is_some() {
                continue;
            }
            let has: BTreeSet<_> =
                self.elements(set.name)?.into_iter().map(|it| (it.key, it.counter, it.value)).collect();
            let wants: BTreeSet<_> = elements.iter().filter(|it| it.set == set.name).map(|it| it.parts()).collect();
            if has != wants {
                findings.insert(Finding::ElementsChanged(set.name.to_owned()));
            }
        }
        let ours: BTreeSet<_> = wanted.iter().map(|set| set.name).collect();
        for name in found.keys().filter(|name| !ours.contains(name.as_str())) {
            findings.insert(Finding::SetUnknown(name.clone()));
        }
        Ok(())
    }

    fn verify_lanes(&mut self, wanted: &BTreeSet<SessionId>, findings: &mut BTreeSet<Finding>) -> Result<(), NftError> {
        let found: BTreeMap<_, _> = self.lanes()?.into_iter().map(|lane| (lane.session, lane)).collect();
        for session in wanted {
            match found.get(session) {
                None => findings.insert(Finding::LaneMissing(*session)),
                Some(lane) if lane.up.is_none() || lane.down.is_none() => {
                    findings.insert(Finding::LaneExpired(*session))
                }
                Some(lane) if [lane.up, lane.down].into_iter().flatten().any(|left| left > crate::LONGEST) => {
                    findings.insert(Finding::LaneEndless(*session))
                }
                Some(_) => false,
            };
        }
        for session in found.keys().filter(|session| !wanted.contains(session)) {
            findings.insert(Finding::LaneUnknown(*session));
        }
        for map in [ruleset::UP, ruleset::DOWN] {
            for element in self.elements(map)? {
                if element.chain.as_deref().and_then(Names::read).is_none() {
                    findings.insert(Finding::ElementsChanged(map.to_owned()));
                }
            }
        }
        Ok(())
    }
}
