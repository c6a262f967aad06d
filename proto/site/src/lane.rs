//! One lane's way through its steps.

use std::net::SocketAddr;

use thinlane_model::{Boot, Counters, EndReason, Grant, Path, PublicKey, Secret, Span};
use thinlane_wire::{SessionCounters, SignedGrant};

use crate::effect::Step;
use crate::event::{LaneCount, LaneState, LaneView};

/// Passes of the teardown before the closing record goes out unverified; they go on after it.
pub(crate) const PASSES_BEFORE_RECORD: u32 = 3;

/// One session's lane.
///
/// ```text
///  Opening: Keys > Device > Route > Lane > ReadBack ──> Open <──> Extending: Lane > Device
///     │ a step fails                                      │ withdrawn, expired, idle, offline, isolated, lost
///     v                                                   v
///  Closing: Device > Lane > Peer > Flows > Route > ReadBack ──> Sign ──> gone
///     ^───────── all of them again, later, if one failed ──┘
/// ```
#[derive(Debug)]
pub(crate) struct Lane {
    /// What stands, or is being opened.
    pub(crate) grant: Grant,
    pub(crate) signed: SignedGrant,
    /// An extension that waits its turn.
    pub(crate) later: Option<Later>,
    /// Only until the executor has it.
    pub(crate) preshared: Option<Secret>,
    pub(crate) public: Option<PublicKey>,
    /// The agent died before the executor had the preshared key: it must come again with the grant.
    pub(crate) waits_for_key: bool,
    pub(crate) phase: Phase,
    /// When it first stood.
    pub(crate) opened: Option<Boot>,
    pub(crate) last_packet: Boot,
    /// Of devices before the present one.
    base: Counters,
    /// Of the present device.
    device: Counters,
    pub(crate) handshake_age: Option<Span>,
    pub(crate) endpoint: Option<String>,
    /// A part of what was counted was counted by a kernel that merges segments.
    pub(crate) merged: bool,
    /// Something changed since the last report.
    pub(crate) unreported: bool,
}

/// A later grant of the same session.
#[derive(Debug, Clone)]
pub(crate) struct Later {
    pub(crate) grant: Grant,
    pub(crate) signed: SignedGrant,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Opening(OpenStage),
    Open,
    Extending(ExtendStage, Box<Later>),
    Closing(Box<Closing>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OpenStage {
    Keys,
    Device,
    Route,
    Lane,
    ReadBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtendStage {
    Lane,
    Device,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseStage {
    Device,
    Lane,
    Peer,
    Flows,
    Route,
    ReadBack,
    /// The record waits for its signature; or, with nothing to record, the lane may go.
    Sign,
    /// Recorded, and the kernel is not clean yet.
    Linger,
}

#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) reason: EndReason,
    /// When the first lock was shut.
    pub(crate) closed: Option<Boot>,
    pub(crate) stage: CloseStage,
    /// What failed in this pass.
    pub(crate) faults: Vec<String>,
    pub(crate) passes: u32,
    pub(crate) retry_at: Option<Boot>,
    pub(crate) late_packets: u64,
    /// The closing record is out, or there will be none.
    pub(crate) recorded: bool,
    pub(crate) verified: bool,
}

impl Lane {
    pub(crate) fn new(grant: Grant, signed: SignedGrant, preshared: Option<Secret>, now: Boot) -> Self {
        Self {
            grant,
            signed,
            later: None,
            preshared,
            public: None,
            waits_for_key: false,
            phase: Phase::Opening(OpenStage::Keys),
            opened: None,
            last_packet: now,
            base: Counters::default(),
            device: Counters::default(),
            handshake_age: None,
            endpoint: None,
            merged: false,
            unreported: false,
        }
    }

    /// What it counted before the agent was restarted.
    pub(crate) fn resume_counters(&mut self, counters: Counters, merged: bool) {
        (self.base, self.merged) = (counters, merged);
    }

    /// The newest grant of the session that was accepted.
    pub(crate) fn newest(&self) -> &Grant {
        match (&self.later, &self.phase) {
            (Some(later), _) => &later.grant,
            (None, Phase::Extending(_, later)) => &later.grant,
            (None, _) => &self.grant,
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.base + self.device
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// On its way out without a closing record: it was refused before it ever stood.
    pub(crate) fn has_no_record(&self) -> bool {
        matches!(&self.phase, Phase::Closing(closing) if closing.recorded && self.opened.is_none())
    }

    /// Whether the lane stands in the kernel, all of it.
    pub(crate) fn is_armed(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Extending(..))
    }

    /// When it ends for want of packets.
    pub(crate) fn idle_at(&self) -> Option<Boot> {
        self.grant.idle.map(|idle| self.last_packet + idle)
    }

    /// Takes a device's counters over; whether anything is worth a report.
    pub(crate) fn count(&mut self, count: &LaneCount, now: Boot) {
        let before = self.device;
        let after = count.counters;
        // A device that counts from zero again was opened anew behind our back: nothing counted may be lost.
        if after.up_packets < before.up_packets || after.down_packets < before.down_packets {
            self.base = self.base + before;
            self.last_packet = now;
        }
        if (after.up_packets, after.down_packets) != (before.up_packets, before.down_packets) {
            self.last_packet = now;
        }
        let shook_hands = match (self.handshake_age, count.handshake_age) {
            (before, Some(age)) => before.is_none_or(|before| age < before),
            (_, None) => false,
        };
        self.unreported |= after != before || shook_hands || self.endpoint != count.endpoint;
        self.device = after;
        self.handshake_age = count.handshake_age;
        self.endpoint.clone_from(&count.endpoint);
        self.merged |= count.merged;
    }

    /// The present device is gone, with these last counters where it could still say.
    pub(crate) fn settle(&mut self, last: Option<Counters>) {
        self.base = self.base + last.unwrap_or(self.device);
        self.device = Counters::default();
        self.unreported |= last.is_some();
    }

    pub(crate) fn report(&self) -> SessionCounters {
        SessionCounters {
            session: self.grant.session,
            counters: self.counters(),
            handshake_age: self.handshake_age,
            endpoint: self.endpoint.clone(),
            path: self.endpoint.as_ref().map(|seen| if self.is_relayed(seen) { Path::Relay } else { Path::Direct }),
            merged: self.merged,
        }
    }

    pub(crate) fn begin_close(&mut self, reason: EndReason, recorded: bool) {
        self.preshared = None;
        self.later = None;
        self.phase = Phase::Closing(Box::new(Closing {
            reason,
            closed: None,
            stage: CloseStage::Device,
            faults: Vec::new(),
            passes: 0,
            retry_at: None,
            late_packets: 0,
            recorded,
            verified: false,
        }));
    }

    pub(crate) fn open_step(&self, stage: OpenStage) -> Step {
        let grant = || Box::new(self.grant.clone());
        match stage {
            OpenStage::Keys => Step::Keys { session: self.grant.session, preshared: self.preshared.clone() },
            OpenStage::Device => Step::OpenDevice {
                grant: grant(),
                endpoint: self.endpoint.clone().filter(|seen| !self.is_relayed(seen)),
                initiate: self.grant.relay.is_some() || self.endpoint.is_some(),
            },
            OpenStage::Route => Step::AddRoute { grant: grant() },
            OpenStage::Lane => Step::OpenLane { grant: grant() },
            OpenStage::ReadBack => Step::ReadBack { grant: grant() },
        }
    }

    /// Whether an engineer who was seen there came through the relay. A relay given by name may have another address by
    /// now, and must then be asked for anew; its port tells it from an engineer who came directly.
    fn is_relayed(&self, seen: &str) -> bool {
        let Some(relay) = &self.grant.relay else { return false };
        match (seen.parse::<SocketAddr>(), relay.as_socket_addr()) {
            (Ok(seen), Some(relay)) => seen == relay,
            (Ok(seen), None) => seen.port() == relay.port(),
            (Err(_), _) => true,
        }
    }

    pub(crate) fn close_step(&self, stage: CloseStage) -> Option<Step> {
        let (session, tuple) = (self.grant.session, self.grant.tuple);
        Some(match stage {
            CloseStage::Device => Step::ShutDevice { session },
            CloseStage::Lane => Step::CloseLane { session },
            CloseStage::Peer => Step::RemovePeer { session },
            CloseStage::Flows => Step::DropFlows { session, tuple },
            CloseStage::Route => Step::RemoveRoute { session, tuple },
            CloseStage::ReadBack => Step::ReadBackClosed { session, tuple },
            CloseStage::Sign | CloseStage::Linger => return None,
        })
    }

    pub(crate) fn view(&self) -> LaneView {
        LaneView {
            session: self.grant.session,
            serial: self.grant.serial,
            asset: self.grant.asset.clone(),
            task: self.grant.task.clone(),
            tuple: self.grant.tuple,
            state: match &self.phase {
                Phase::Opening(_) => LaneState::Opening,
                Phase::Open | Phase::Extending(..) => LaneState::Open,
                Phase::Closing(closing) => LaneState::Closing(closing.reason),
            },
            opened: self.opened,
            deadline: self.grant.deadline,
            counters: self.counters(),
        }
    }
}

impl OpenStage {
    pub(crate) fn next(self) -> Option<Self> {
        match self {
            OpenStage::Keys => Some(OpenStage::Device),
            OpenStage::Device => Some(OpenStage::Route),
            OpenStage::Route => Some(OpenStage::Lane),
            OpenStage::Lane => Some(OpenStage::ReadBack),
            OpenStage::ReadBack => None,
        }
    }
}

impl CloseStage {
    pub(crate) fn next(self) -> Self {
        match self {
            CloseStage::Device => CloseStage::Lane,
            CloseStage::Lane => CloseStage::Peer,
            CloseStage::Peer => CloseStage::Flows,
            CloseStage::Flows => CloseStage::Route,
            CloseStage::Route => CloseStage::ReadBack,
            CloseStage::ReadBack | CloseStage::Sign => CloseStage::Sign,
            CloseStage::Linger => CloseStage::Linger,
        }
    }
}

impl Closing {
    /// How long until the next pass: soon at first, then twice a minute for as long as it takes.
    pub(crate) fn pause(&self) -> Span {
        match self.passes {
            0 | 1 => Span::from_millis(100),
            2 => Span::from_secs(1),
            3..=6 => Span::from_secs(5),
            _ => Span::from_secs(30),
        }
    }
}
