//! The steps that an executor performs for the machine.

use thinlane_model::{Boot, Counters, Grant, PublicKey, Secret, SessionId, Tuple};

use crate::saved::SavedState;

/// Names one effect in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectId(pub(crate) u64);

/// One step to perform; there is never more than one without an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub id: EffectId,
    pub step: Step,
}

/// A step. All of them are safe to perform twice, and those that remove succeed where there is nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Puts the whole table in place with no lane in it, and removes every lane route and lane conntrack entry that
    /// the agent ever made. The first step of all, and the second after a flush.
    RebuildBase,
    /// Takes every peer from the device at once; answered with [`Done::Finals`]. The first step after a flush.
    RemoveAllPeers,
    /// Makes the session's key pair, or finds the one made before a restart; keeps the pair and, where given, the
    /// preshared key in the executor's own file. Answered with [`Done::Public`]; fails where no preshared key is
    /// given or kept.
    Keys { session: SessionId, preshared: Option<Secret> },
    /// Opens the device's second lock for the grant's tuple until its deadline, with the session's keys. `endpoint`
    /// is where the engineer was seen last, if not through the relay; `initiate`: shake hands at once.
    OpenDevice { grant: Box<Grant>, endpoint: Option<String>, initiate: bool },
    /// Routes the engineer's /32 into the device.
    AddRoute { grant: Box<Grant> },
    /// Opens the lane in nftables until the grant's deadline.
    OpenLane { grant: Box<Grant> },
    /// Reads the kernel back: lane, route and device stand exactly as the grant says.
    ReadBack { grant: Box<Grant> },
    /// Moves the lane's deadline in nftables; fails unless what is read back grew to it.
    ExtendLane { session: SessionId, deadline: Boot },
    /// Moves the device's deadline.
    ExtendDevice { session: SessionId, deadline: Boot },
    /// Shuts the second lock and resets both ends' TCP flows; answered with [`Done::Final`].
    ShutDevice { session: SessionId },
    /// Takes the lane out of nftables.
    CloseLane { session: SessionId },
    /// Takes the peer from the device and forgets the session's keys, also in the executor's file.
    RemovePeer { session: SessionId },
    /// Deletes the engineer's conntrack entries.
    DropFlows { session: SessionId, tuple: Tuple },
    /// Takes the engineer's route away.
    RemoveRoute { session: SessionId, tuple: Tuple },
    /// Reads the kernel back: nothing of the lane is left.
    ReadBackClosed { session: SessionId, tuple: Tuple },
    /// Signs `message` with the identity key; answered with [`Done::Signature`].
    SignClosing { session: SessionId, message: Vec<u8> },
    /// Writes the state where a restart of the agent, but not a reboot, finds it; atomically.
    Persist(Box<SavedState>),
}

/// What a step that went well gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Nothing but that it went well.
    Plain,
    Public(PublicKey),
    /// Counters since the device was opened, and packets that came after the end; `None`: there was no such peer.
    Final(Option<(Counters, u64)>),
    Finals(Vec<(SessionId, Counters)>),
    Signature([u8; 64]),
}

/// A step that did not go well, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StepError(pub String);

/// How a step went.
pub type Outcome = Result<Done, StepError>;

impl Step {
    /// A word for logs and for naming crash points in tests.
    pub fn name(&self) -> &'static str {
        match self {
            Step::RebuildBase => "rebuild-base",
            Step::RemoveAllPeers => "remove-all-peers",
            Step::Keys { .. } => "keys",
            Step::OpenDevice { .. } => "open-device",
            Step::AddRoute { .. } => "add-route",
            Step::OpenLane { .. } => "open-lane",
            Step::ReadBack { .. } => "read-back",
            Step::ExtendLane { .. } => "extend-lane",
            Step::ExtendDevice { .. } => "extend-device",
            Step::ShutDevice { .. } => "shut-device",
            Step::CloseLane { .. } => "close-lane",
            Step::RemovePeer { .. } => "remove-peer",
            Step::DropFlows { .. } => "drop-flows",
            Step::RemoveRoute { .. } => "remove-route",
            Step::ReadBackClosed { .. } => "read-back-closed",
            Step::SignClosing { .. } => "sign-closing",
            Step::Persist(_) => "persist",
        }
    }
}
