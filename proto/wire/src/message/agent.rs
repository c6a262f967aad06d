//! What a gateway says.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use prost::Message;
use thinlane_model::{Boot, BootId, PublicKey, RefuseReason, SessionId, Wall};

use super::MessageError;
use super::common::{SessionCounters, at_most, bytes, session, text};
use crate::closing::SignedClosing;
use crate::frame::{self, FrameError};
use crate::pb::{self, agent_frame::Body};

/// Most sessions in one report of counters.
const MOST_SESSIONS: usize = 256;
/// Most flows in one report of denied packets.
const MOST_FLOWS: usize = 1024;
/// Most capabilities in a Hello.
const MOST_CAPABILITIES: usize = 64;
/// Addresses of a gateway.
const MOST_ADDRESSES: usize = 64;
/// Longest certificate signing request in bytes.
const LONGEST_CSR: usize = 16 * 1024;

/// One message from a gateway, with the gateway's boot clock when it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentFrame {
    pub boot: Boot,
    pub message: FromAgent,
}

/// A gateway's messages.
#[derive(Debug, Clone, PartialEq)]
pub enum FromAgent {
    /// First on each connection.
    Hello(Hello),
    /// The desired state that the gateway has taken over; naming an older one again asks for a snapshot.
    Applied(Applied),
    Armed(Armed),
    Refused(Refused),
    Counters(Vec<SessionCounters>),
    /// Sent again until acknowledged.
    Closing(SignedClosing),
    /// Sent again until acknowledged.
    Alarm(Alarm),
    Ping(u64),
    Pong(u64),
    /// A certificate signing request (PKCS #10, DER).
    Renew(Vec<u8>),
    Status(SiteStatus),
    Denied(DeniedReport),
    Witness(WitnessReport),
    /// Asks for a [`ProbeTicket`](crate::ProbeTicket).
    Probe,
}

/// Who dials in, and what it holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub protocol: u32,
    pub capabilities: Vec<String>,
    pub agent_version: String,
    pub boot: BootId,
    /// Rises with every connection of one boot.
    pub connection: u64,
    pub applied: Applied,
    /// `userspace` or `kernel`.
    pub backend: String,
    /// The gateway's wall clock; never trusted.
    pub wall: Wall,
}

/// A desired state by its generation (0: none) and [`state_digest`](crate::state_digest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    pub generation: u64,
    pub digest: [u8; 32],
}

/// A lane stands as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    pub session: SessionId,
    /// Of the grant that stands.
    pub serial: u64,
    pub gateway_key: PublicKey,
    pub deadline: Boot,
    pub backend: String,
}

/// A grant that opened nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `None`: the bytes did not say.
    pub session: Option<SessionId>,
    pub serial: u64,
    pub reason: RefuseReason,
    pub detail: String,
}

/// Something at the site that people should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Rises within one boot.
    pub number: u64,
    pub boot: BootId,
    /// `ruleset-flushed`, `not-ready`, `ready`, `clock-jump`, `isolated`, `foreign-change`, ...
    pub kind: String,
    pub detail: String,
}

/// Whether the gateway would open a lane now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteStatus {
    /// `None`: ready.
    pub why_not: Option<String>,
    pub isolated: bool,
    pub lanes: u32,
    pub backend: String,
    /// The gateway's own addresses on its LANs: no device has them.
    pub lan: Vec<Ipv4Addr>,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Engineer to site.
    Up,
    /// Site to engineer.
    Down,
}

/// Denied packets of one kind since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedFlow {
    /// `None`: of no live session.
    pub session: Option<SessionId>,
    pub direction: Direction,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// Destination port; `None` where the protocol has none.
    pub port: Option<u16>,
    pub packets: u64,
}

/// Denied packets since the last report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeniedReport {
    pub flows: Vec<DeniedFlow>,
    /// Packets left out because there were too many kinds.
    pub not_reported: u64,
}

/// What the gateway holds of the controller's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessReport {
    pub size: u64,
    /// `None` when `size` is 0.
    pub root: Option<[u8; 32]>,
    /// `None`: consistent with everything seen before.
    pub problem: Option<String>,
}

impl AgentFrame {
    /// The frame's bytes with their length in front.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        frame::encode(&pb::AgentFrame { boot_ms: self.boot.0, body: Some(self.message.to_body()) })
    }

    /// Reads one frame's bytes, without the length; `None`: of a kind that a newer gateway may send.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, MessageError> {
        Self::try_from_pb(pb::AgentFrame::decode(bytes)?)
    }

    fn try_from_pb(from: pb::AgentFrame) -> Result<Option<Self>, MessageError> {
        let boot = Boot(from.boot_ms);
        let Some(body) = from.body else { return Ok(None) };
        Ok(Some(Self { boot, message: FromAgent::try_from(body)? }))
    }
}

impl TryFrom<Body> for FromAgent {
    type Error = MessageError;
    fn try_from(body: Body) -> Result<Self, MessageError> {
        Ok(match body {
            Body::Hello(from) => FromAgent::Hello(from.try_into()?),
            Body::Applied(from) => FromAgent::Applied(applied(from.generation, &from.digest)?),
            Body::Armed(from) => FromAgent::Armed(from.try_into()?),
            Body::Refused(from) => FromAgent::Refused(from.try_into()?),
            Body::Counters(from) => {
                let sessions = at_most(MOST_SESSIONS, from.sessions, "sessions")?;
                FromAgent::Counters(sessions.into_iter().map(SessionCounters::from_pb).collect::<Result<_, _>>()?)
            }
            Body::Closing(from) => FromAgent::Closing(SignedClosing::from_pb(from)?),
            Body::Alarm(from) => FromAgent::Alarm(Alarm {
                number: from.number,
                boot: BootId(bytes(&from.boot_id, "boot id")?),
                kind: Some(text(&from.kind)).filter(|kind| !kind.is_empty()).ok_or(MessageError::Field("kind"))?,
                detail: text(&from.detail),
            }),
            Body::Ping(from) => FromAgent::Ping(from.nonce),
            Body::Pong(from) => FromAgent::Pong(from.nonce),
            Body::Renew(from) => {
                let fits = !from.csr_der.is_empty() && from.csr_der.len() <= LONGEST_CSR;
                FromAgent::Renew(Some(from.csr_der).filter(|_| fits).ok_or(MessageError::Field("signing request"))?)
            }
            Body::Status(from) => FromAgent::Status(SiteStatus {
                why_not: (!from.ready).then(|| text(&from.why_not)),
                isolated: from.isolated,
                lanes: from.lanes,
                backend: text(&from.backend),
                lan: at_most(MOST_ADDRESSES, from.lan, "addresses")?.into_iter().map(Ipv4Addr::from).collect(),
            }),
            Body::Denied(from) => {
                let flows = at_most(MOST_FLOWS, from.flows, "flows")?;
                let flows = flows.into_iter().map(DeniedFlow::try_from).collect::<Result<_, _>>()?;
                FromAgent::Denied(DeniedReport { flows, not_reported: from.not_reported })
            }
            Body::Witness(from) => FromAgent::Witness(WitnessReport {
                size: from.size,
                root: if from.size == 0 { None } else { Some(bytes(&from.root, "root")?) },
                problem: Some(text(&from.problem)).filter(|problem| !problem.is_empty()),
            }),
            Body::Probe(pb::ProbeRequest {}) => FromAgent::Probe,
        })
    }
}

fn applied(generation: u64, digest: &[u8]) -> Result<Applied, MessageError> {
    let digest = if generation == 0 { [0; 32] } else { bytes(digest, "digest")? };
    Ok(Applied { generation, digest })
}

impl TryFrom<pb::Hello> for Hello {
    type Error = MessageError;
    fn try_from(from: pb::Hello) -> Result<Self, MessageError> {
        let capabilities = at_most(MOST_CAPABILITIES, from.capabilities, "capabilities")?;
        Ok(Self {
            protocol: Some(from.protocol).filter(|version| *version != 0).ok_or(MessageError::Field("protocol"))?,
            capabilities: capabilities.iter().map(|one| text(one)).collect(),
            agent_version: text(&from.agent_version),
            boot: BootId(bytes(&from.boot_id, "boot id")?),
            connection: from.connection,
            applied: applied(from.applied_generation, &from.digest)?,
            backend: text(&from.backend),
            wall: Wall::from_millis(from.wall_ms),
        })
    }
}

impl TryFrom<pb::Armed> for Armed {
    type Error = MessageError;
    fn try_from(from: pb::Armed) -> Result<Self, MessageError> {
        let odd = MessageError::Field;
        Ok(Self {
            session: session(&from.session)?,
            serial: Some(from.serial).filter(|serial| *serial != 0).ok_or(odd("serial"))?,
            gateway_key: PublicKey::new(bytes(&from.gateway_key, "gateway key")?).map_err(|_| odd("gateway key"))?,
            deadline: Some(Boot(from.deadline_boot_ms)).filter(|at| at.0 != 0).ok_or(odd("deadline"))?,
            backend: text(&from.backend),
        })
    }
}

impl TryFrom<pb::Refused> for Refused {
    type Error = MessageError;
    fn try_from(from: pb::Refused) -> Result<Self, MessageError> {
        // A newer gateway may have a reason of which this version has no word. The refusal must not be lost over
        // that, so it is kept as "not ready" and the word goes in front of the detail.
        let (reason, detail) = match from.reason.parse() {
            Ok(reason) => (reason, text(&from.detail)),
            Err(()) => (RefuseReason::NotReady, text(&format!("{}: {}", from.reason, from.detail))),
        };
        let session = if from.session.is_empty() { None } else { Some(session(&from.session)?) };
        Ok(Self { session, serial: from.serial, reason, detail })
    }
}

impl TryFrom<pb::DeniedFlow> for DeniedFlow {
    type Error = MessageError;
    fn try_from(from: pb::DeniedFlow) -> Result<Self, MessageError> {
        let odd = MessageError::Field;
        let address = |bytes: &[u8], name| {
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map_err(|_| odd(name))
        };
        Ok(Self {
            session: if from.session.is_empty() { None } else { Some(session(&from.session)?) },
            direction: match from.direction.as_str() {
                "up" => Direction::Up,
                "down" => Direction::Down,
                _ => return Err(odd("direction")),
            },
            source: address(&from.source, "source")?,
            destination: address(&from.destination, "destination")?,
            protocol: u8::try_from(from.protocol).map_err(|_| odd("protocol"))?,
            port: Some(u16::try_from(from.port).map_err(|_| odd("port"))?).filter(|port| *port != 0),
            packets: from.packets,
        })
    }
}

impl FromAgent {
    fn to_body(&self) -> Body {
        match self {
            FromAgent::Hello(hello) => Body::Hello(pb::Hello {
                protocol: hello.protocol,
                capabilities: hello.capabilities.clone(),
                agent_version: hello.agent_version.clone(),
                boot_id: hello.boot.0.to_vec(),
                connection: hello.connection,
                applied_generation: hello.applied.generation,
                digest: hello.applied.digest.to_vec(),
                backend: hello.backend.clone(),
                wall_ms: hello.wall.as_millis(),
            }),
            FromAgent::Applied(at) => {
                Body::Applied(pb::Applied { generation: at.generation, digest: at.digest.to_vec() })
            }
            FromAgent::Armed(armed) => Body::Armed(pb::Armed {
                session: armed.session.to_string(),
                serial: armed.serial,
                gateway_key: armed.gateway_key.as_bytes().to_vec(),
                deadline_boot_ms: armed.deadline.0,
                backend: armed.backend.clone(),
            }),
            FromAgent::Refused(refused) => Body::Refused(pb::Refused {
                session: refused.session.as_ref().map(SessionId::to_string).unwrap_or_default(),
                serial: refused.serial,
                reason: refused.reason.to_string(),
                detail: text(&refused.detail),
            }),
            FromAgent::Counters(sessions) => {
                Body::Counters(pb::CountersReport { sessions: sessions.iter().map(SessionCounters::to_pb).collect() })
            }
            FromAgent::Closing(closing) => Body::Closing(closing.to_pb()),
            FromAgent::Alarm(alarm) => Body::Alarm(pb::Alarm {
                number: alarm.number,
                kind: alarm.kind.clone(),
                detail: text(&alarm.detail),
                boot_id: alarm.boot.0.to_vec(),
            }),
            FromAgent::Ping(nonce) => Body::Ping(pb::Ping { nonce: *nonce }),
            FromAgent::Pong(nonce) => Body::Pong(pb::Pong { nonce: *nonce }),
            FromAgent::Renew(csr) => Body::Renew(pb::RenewRequest { csr_der: csr.clone() }),
            FromAgent::Status(status) => Body::Status(pb::SiteStatus {
                ready: status.why_not.is_none(),
                why_not: status.why_not.as_deref().map(text).unwrap_or_default(),
                isolated: status.isolated,
                lanes: status.lanes,
                backend: status.backend.clone(),
                lan: status.lan.iter().take(MOST_ADDRESSES).map(|address| u32::from(*address)).collect(),
            }),
            FromAgent::Denied(report) => Body::Denied(pb::DeniedReport {
                flows: report.flows.iter().map(DeniedFlow::to_pb).collect(),
                not_reported: report.not_reported,
            }),
            FromAgent::Witness(report) => Body::Witness(pb::WitnessReport {
                size: report.size,
                root: report.root.map(Vec::from).unwrap_or_default(),
                problem: report.problem.as_deref().map(text).unwrap_or_default(),
            }),
            FromAgent::Probe => Body::Probe(pb::ProbeRequest {}),
        }
    }
}

impl DeniedFlow {
    fn to_pb(&self) -> pb::DeniedFlow {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(four) => four.octets().to_vec(),
            IpAddr::V6(six) => six.octets().to_vec(),
        };
        pb::DeniedFlow {
            session: self.session.as_ref().map(SessionId::to_string).unwrap_or_default(),
            direction: match self.direction {
                Direction::Up => "up".to_owned(),
                Direction::Down => "down".to_owned(),
            },
            source: octets(self.source),
            destination: octets(self.destination),
            protocol: u32::from(self.protocol),
            port: self.port.map_or(0, u32::from),
            packets: self.packets,
        }
    }
}
