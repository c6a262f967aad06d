//! What a gateway should have open, and the least that must be said to get it there.

use std::collections::{BTreeMap, BTreeSet};

use thinlane_model::{EndReason, SessionId};
use thinlane_wire::{Applied, Delta, FromController, SignedGrant, Snapshot, Withdrawn, state_digest};

/// The desired state of one gateway at one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Rises with every change; never 0.
    pub generation: u64,
    pub grants: Vec<DesiredGrant>,
    /// Why sessions are not, or no longer, in `grants`: all that are ending and of which no closing record has come.
    pub withdrawn: Vec<Withdrawn>,
}

/// One grant that should be open.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredGrant {
    pub session: SessionId,
    pub serial: u64,
    /// With the preshared key as long as the controller has it.
    pub signed: SignedGrant,
}

/// A state that a gateway is known to hold, or will when it has read what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub(crate) generation: u64,
    pub(crate) state: BTreeMap<SessionId, u64>,
}

impl Known {
    /// The generation of this state.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn is(&self, applied: &Applied) -> bool {
        self.generation == applied.generation && state_digest(&self.state) == applied.digest
    }
}

impl Desired {
    pub(crate) fn known(&self) -> Known {
        let state = self.grants.iter().map(|grant| (grant.session, grant.serial)).collect();
        Known { generation: self.generation, state }
    }

    pub(crate) fn snapshot(&self) -> FromController {
        FromController::Snapshot(Snapshot {
            generation: self.generation,
            grants: self.grants.iter().map(|grant| grant.signed.clone()).collect(),
            withdrawn: self.withdrawn.clone(),
        })
    }

    /// The difference from `before`; withdrawals in `told` are left out unless they end something of `before`.
    pub(crate) fn delta(&self, before: &Known, told: &BTreeSet<SessionId>) -> FromController {
        let reasons: BTreeMap<SessionId, EndReason> =
            self.withdrawn.iter().map(|withdrawn| (withdrawn.session, withdrawn.reason)).collect();
        let after = self.known().state;
        let gone = before.state.keys().filter(|session| !after.contains_key(session));
        let new = reasons.keys().filter(|session| !told.contains(session) && !after.contains_key(session));
        let ending: BTreeSet<SessionId> = gone.chain(new).copied().collect();
        let withdrawn = ending
            .into_iter()
            .map(|session| Withdrawn { session, reason: reasons.get(&session).copied().unwrap_or(EndReason::Failed) });
        let fresh = self.grants.iter().filter(|grant| before.state.get(&grant.session) != Some(&grant.serial));
        FromController::Delta(Delta {
            from_generation: before.generation,
            generation: self.generation,
            grants: fresh.map(|grant| grant.signed.clone()).collect(),
            withdrawn: withdrawn.collect(),
        })
    }
}
