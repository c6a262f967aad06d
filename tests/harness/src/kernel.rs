//! The gateway's kernel, devices and files: lanes expire by themselves, steps can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ed25519_dalek::{Signer, SigningKey};
use thinlane_model::{Boot, Counters, PublicKey, SessionId, Span};
use thinlane_site::{Done, Outcome, SavedState, Step, StepError};

use crate::sabotage::Sabotage;

/// One lane as nftables holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) engineer: Ipv4Addr,
    pub(crate) deadline: Boot,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    elements: BTreeMap<SessionId, Element>,
    /// Gone with the agent's process.
    devices: BTreeMap<SessionId, (Boot, Counters)>,
    routes: BTreeSet<SessionId>,
    /// The table stands.
    base: bool,
    /// Files in `/run`.
    pub(crate) saved: Option<SavedState>,
    keys: BTreeMap<SessionId, PublicKey>,
    identity: SigningKey,
    /// Steps that fail for now.
    pub(crate) failing: BTreeSet<&'static str>,
    keys_made: u64,
    sabotage: Option<Sabotage>,
}

impl Kernel {
    pub(crate) fn new(identity: SigningKey, sabotage: Option<Sabotage>) -> Self {
        Self {
            elements: BTreeMap::new(),
            devices: BTreeMap::new(),
            routes: BTreeSet::new(),
            base: false,
            saved: None,
            keys: BTreeMap::new(),
            identity,
            failing: BTreeSet::new(),
            keys_made: 0,
            sabotage,
        }
    }

    /// Lanes that pass packets now, if somebody kept their interface alive.
    pub(crate) fn open(&self, now: Boot) -> impl Iterator<Item = (SessionId, Element)> {
        let live = move |(_, element): &(&SessionId, &Element)| element.deadline > now;
        self.elements.iter().filter(live).map(|(session, element)| (*session, *element))
    }

    pub(crate) fn has_device(&self, session: SessionId, now: Boot) -> bool {
        self.devices.get(&session).is_some_and(|(deadline, _)| *deadline > now)
    }

    /// Whatever belongs to a session and is there, expired or not.
    pub(crate) fn leftovers(&self) -> BTreeSet<SessionId> {
        self.elements.keys().chain(self.devices.keys()).chain(&self.routes).chain(self.keys.keys()).copied().collect()
    }

    pub(crate) fn agent_died(&mut self) {
        self.devices.clear();
    }

    pub(crate) fn reboot(&mut self) {
        let elements = std::mem::take(&mut self.elements);
        *self = Self { keys_made: self.keys_made, ..Self::new(self.identity.clone(), self.sabotage) };
        if self.sabotage == Some(Sabotage::RebootKeepsLanes) {
            // On the new boot's clock they would have ended long ago.
            self.elements = elements;
        }
    }

    pub(crate) fn flush(&mut self) {
        self.elements.clear();
        self.base = false;
    }

    /// Packets through every lane that is open.
    pub(crate) fn traffic(&mut self, packets: u64, now: Boot) {
        for (session, (deadline, counters)) in &mut self.devices {
            let open = self.elements.get(session).is_some_and(|element| element.deadline > now);
            if open && *deadline > now {
                counters.up_packets += packets;
            }
        }
    }

    pub(crate) fn counters(&self) -> impl Iterator<Item = (SessionId, Counters)> {
        self.devices.iter().map(|(session, (_, counters))| (*session, *counters))
    }

    pub(crate) fn perform(&mut self, step: Step, now: Boot) -> Outcome {
        if self.failing.contains(step.name()) {
            return Err(StepError(format!("{} fails", step.name())));
        }
        let error = |text: &str| Err(StepError(text.to_owned()));
        match step {
            Step::RebuildBase => {
                self.elements.clear();
                self.routes.clear();
                self.base = true;
            }
            Step::RemoveAllPeers => {
                let devices = std::mem::take(&mut self.devices);
                return Ok(Done::Finals(devices.into_iter().map(|(session, (_, last))| (session, last)).collect()));
            }
            Step::Keys { session, preshared } => {
                if let Some(public) = self.keys.get(&session) {
                    return Ok(Done::Public(*public));
                }
                if preshared.is_none() {
                    return error("no preshared key");
                }
                self.keys_made += 1;
                let mut bytes = [0xaa; 32];
                bytes[..8].copy_from_slice(&self.keys_made.to_be_bytes());
                let public = PublicKey::new(bytes).map_err(|error| StepError(error.to_string()))?;
                self.keys.insert(session, public);
                return Ok(Done::Public(public));
            }
            Step::OpenDevice { grant, .. } => {
                self.devices.insert(grant.session, (grant.deadline, Counters::default()));
            }
            Step::AddRoute { grant } => {
                self.routes.insert(grant.session);
            }
            Step::OpenLane { grant } => {
                if !self.base {
                    return error("no table");
                }
                let longer = if self.sabotage == Some(Sabotage::KernelKeepsLanes) { 3_600 } else { 0 };
                let deadline = grant.deadline + Span::from_secs(longer);
                let element = Element { engineer: grant.tuple.engineer, deadline };
                self.elements.insert(grant.session, element);
            }
            Step::ReadBack { grant } => {
                let stands = self.elements.get(&grant.session).is_some_and(|one| one.deadline >= grant.deadline);
                if !stands || !self.routes.contains(&grant.session) || !self.devices.contains_key(&grant.session) {
                    return error("does not read back as asked");
                }
            }
            Step::ExtendLane { session, deadline } => match self.elements.get_mut(&session) {
                Some(_) if self.sabotage == Some(Sabotage::ExtensionLost) => {}
                Some(element) if element.deadline > now => element.deadline = deadline,
                _ => return error("the element is gone"),
            },
            Step::ExtendDevice { session, deadline } => match self.devices.get_mut(&session) {
                Some((before, _)) => *before = deadline,
                None => return error("no such peer"),
            },
            Step::ShutDevice { session } => {
                return Ok(Done::Final(self.devices.remove(&session).map(|(_, counters)| (counters, 0))));
            }
            Step::CloseLane { .. } if self.sabotage == Some(Sabotage::KernelLies) => {}
            Step::CloseLane { session } => {
                self.elements.remove(&session);
            }
            Step::RemovePeer { session } => {
                self.devices.remove(&session);
                self.keys.remove(&session);
            }
            Step::DropFlows { .. } => {}
            Step::RemoveRoute { session, .. } => {
                self.routes.remove(&session);
            }
            Step::ReadBackClosed { .. } if self.sabotage == Some(Sabotage::KernelLies) => {}
            Step::ReadBackClosed { session, .. } => {
                if self.elements.contains_key(&session) || self.routes.contains(&session) {
                    return error("something is left");
                }
            }
            Step::SignClosing { message, .. } => {
                return Ok(Done::Signature(self.identity.sign(&message).to_bytes()));
            }
            Step::Persist(state) => {
                // Through text, as the agent keeps it.
                let text = serde_json::to_string(&state).map_err(|error| StepError(error.to_string()))?;
                self.saved = serde_json::from_str(&text).map_err(|error| StepError(error.to_string()))?;
            }
        }
        Ok(Done::Plain)
    }
}
