//! What every WireGuard backend does for a lane.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thinlane_model::{Boot, Counters, PublicKey, Secret, SessionId, Span, Tuple, Wall};

use crate::link::LinkError;
use crate::offload::Offload;

/// Lanes of one machine, end to end encrypted, whoever does the encrypting.
pub trait Device: Send {
    /// Opens a lane. With `initiate` the first handshake leaves at once.
    fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError>;

    /// Moves the deadline of a gateway's lane; refused once the lane has ended.
    fn extend(&mut self, session: SessionId, deadline: Boot) -> Result<(), DeviceError>;

    /// Flows that the engineer opened from these ports, before an agent that is gone now, go on: the asset may speak
    /// first. A backend that does not follow flows has nothing to recall.
    fn recall(&mut self, _session: SessionId, _engineer_ports: &[u16]) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Hands this lane's packets to the kernel one by one, because a rule there counts them: a limit of packets a
    /// second means packets that cross a wire. A backend that puts none together has nothing to do.
    fn keep_apart(&mut self, _session: SessionId) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Lets nothing more pass, and resets the TCP connections of both ends.
    ///
    /// Called before the lane's rules are taken away, so that the asset's reset still finds its way. `close`
    /// does the same if it was not done before.
    fn shut(&mut self, session: SessionId) -> Result<(), DeviceError>;

    /// Closes a lane: gate, resets, keys, in this order. The report holds the final counters, exact to the packet.
    fn close(&mut self, session: SessionId) -> Result<LaneReport, DeviceError>;

    /// What a lane has carried; hands over (and forgets) its list of denied flows.
    fn report(&mut self, session: SessionId) -> Option<LaneReport>;

    /// `report` of every lane, by session.
    fn reports(&mut self) -> Vec<LaneReport>;

    /// Another way to the peer; a waiting handshake leaves at once.
    ///
    /// At the engineer's end it is tried because the one before led nowhere: the lane stays there, whatever still comes
    /// from elsewhere, until the ends have shaken hands, here or there. At a gateway it is the lane's fallback from now
    /// on, where it sends unless the peer was heard elsewhere.
    fn set_endpoint(&mut self, session: SessionId, endpoint: SocketAddr) -> Result<(), DeviceError>;

    /// Handshakes again at once in every lane that has an endpoint, and every 5 s until it succeeds: whoever forgot
    /// where the ends are, as a relay that was restarted, learns it again.
    fn handshake(&mut self);

    /// Closes every lane.
    fn close_all(&mut self) -> Vec<LaneReport>;

    /// Takes every lane away without resetting anybody's connections: they will be opened again, by this agent or by
    /// the next.
    fn suspend_all(&mut self) -> Vec<LaneReport>;

    /// What of an open lane the kernel has not as it shall be, in a word; `None`: it stands whole, as far as this
    /// backend has anything in the kernel.
    fn missing(&mut self, _session: SessionId) -> Result<Option<&'static str>, DeviceError> {
        Ok(None)
    }

    /// The name of the interface that carries a lane's packets; `None`: no such lane.
    fn interface(&self, session: SessionId) -> Option<String>;

    fn backend(&self) -> Backend;

    /// How many packets this backend moves with one call, where it is this program that moves them.
    fn offload(&self) -> Option<Offload> {
        None
    }
}

/// Who encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    Kernel,
    Userspace,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Kernel => "kernel",
            Backend::Userspace => "userspace",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.as_str())
    }
}

/// All that a lane needs to be opened.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    pub session: SessionId,
    /// This end's key, of this session only.
    pub private: Secret,
    pub peer: PublicKey,
    pub preshared: Option<Secret>,
    /// Where to send first; `None`: the peer is awaited, or `set_endpoint` follows.
    pub endpoint: Option<SocketAddr>,
    /// Where the peer is looked for as well when it is not heard any more where it was: the relay, at a gateway that has
    /// an endpoint of its own, too. The userspace backend sends its handshakes to both in turn, the kernel's changes over.
    pub fallback: Option<SocketAddr>,
    /// Seconds of silence after which an empty packet keeps the path open.
    pub keepalive: Option<u16>,
    /// Handshake at once, and again every 5 s until it succeeds, for as long as the lane lives.
    pub initiate: bool,
    pub role: LaneRole,
}

/// Which end of a lane this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneRole {
    /// Every packet is judged against tuple and deadline (`Gate`).
    Gateway { tuple: Tuple, deadline: Boot },
    /// Only packets from `address` to `allowed` leave, and only such from `allowed` to `address` come in.
    Engineer { address: Ipv4Addr, allowed: Ipv4Addr },
}

impl LaneRole {
    /// The /32 at the far end, which leads from the interface into this lane.
    pub fn far_address(&self) -> Ipv4Addr {
        match self {
            LaneRole::Gateway { tuple, .. } => tuple.engineer,
            LaneRole::Engineer { allowed, .. } => *allowed,
        }
    }
}

/// What a lane has carried and seen until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReport {
    pub session: SessionId,
    pub counters: Counters,
    /// Packets that came after the end, in either direction; none of them passed.
    pub late_packets: u64,
    /// When the last handshake was completed.
    pub last_handshake: Option<Wall>,
    /// Handshakes completed after the first.
    pub rekeys: u64,
    /// When the last packet passed, either way.
    pub last_packet: Option<Boot>,
    /// Where the peer was last heard from, or else where it was configured to be.
    pub endpoint: Option<SocketAddr>,
    /// Bytes of WireGuard datagrams, without UDP and IP headers.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// For how long this end's handshake messages have come to nothing, from the first of them to the latest; zero
    /// where one was sent, or none. The peer may be heard all the while: then it does not hear us. Known of the
    /// userspace backend alone.
    pub in_vain: Span,
    /// Denied flows since the last report, and how many packets no longer fitted into the list.
    pub denied: Vec<DeniedFlow>,
    pub denied_unlisted: u64,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the engineer to the asset.
    Up,
    /// From the asset to the engineer.
    Down,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

/// Packets that a lane did not let pass, and that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedFlow {
    pub direction: Direction,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The number in the IP header.
    pub protocol: u8,
    /// The destination port, where the packets showed one.
    pub port: Option<u16>,
    /// The source was not the session's: counted as spoofed instead of denied.
    pub spoofed: bool,
    pub packets: u64,
}

/// What a device tells unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A handshake was completed: packets cross.
    Handshake(SessionId),
    /// The deadline was reached; nothing passes any more, the lane waits to be closed.
    Expired(SessionId),
    /// The interface was taken away by somebody else; nothing passes, and no lane can be opened.
    InterfaceGone,
}

/// Why a device did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("session {0} has no lane here")]
    Unknown(SessionId),
    #[error("session {0} has a lane here already")]
    Open(SessionId),
    #[error("address {address} belongs to session {owner}")]
    AddressTaken { address: Ipv4Addr, owner: SessionId },
    #[error("the key is in use by session {0}")]
    KeyTaken(SessionId),
    #[error("the lane of session {0} has ended")]
    Ended(SessionId),
    #[error("{most} lanes are open, which is all that this device carries")]
    Full { most: usize },
    #[error("an interface name has 1 to 15 letters, digits, dashes or underscores, not {0:?}")]
    Name(String),
    #[error("the lane's key: {0}")]
    Key(#[from] crate::key::KeyPairError),
    #[error("{doing}: {source}")]
    Io {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the interface is gone")]
    InterfaceGone,
    #[error("the device has stopped")]
    Stopped,
}
