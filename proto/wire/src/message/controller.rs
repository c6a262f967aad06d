//! What the controller says.

use bytes::Bytes;
use prost::Message;
use thinlane_model::{EndReason, Secret, SessionId, Span, Wall};

use super::MessageError;
use super::common::{at_most, bytes, session, text};
use crate::frame::{self, FrameError};
use crate::grant::SignedGrant;
use crate::pb::{self, controller_frame::Body};
use crate::probe::ProbeTicket;

/// Most grants or withdrawals in one message.
const MOST_GRANTS: usize = 512;
/// Most certificates in a chain, and their length in bytes.
const MOST_CERTIFICATES: usize = 8;
const LONGEST_CERTIFICATE: usize = 16 * 1024;
/// Most hashes in a consistency proof: RFC 6962 needs at most two for each bit of the size.
const MOST_HASHES: usize = 128;
/// Longest signed note in bytes.
const LONGEST_NOTE: usize = 8 * 1024;
/// Most address pools in a ticket.
const MOST_POOLS: usize = 16;

/// The controller's messages.
#[derive(Debug, Clone, PartialEq)]
pub enum FromController {
    /// Answers Hello.
    Welcome(Welcome),
    Snapshot(Snapshot),
    Delta(Delta),
    Ping(u64),
    Pong(u64),
    /// The closing record of this session is in the log.
    ClosingAck(SessionId),
    Renewed(RenewAnswer),
    Checkpoint(Checkpoint),
    /// Last before the controller closes the connection.
    Goodbye(Goodbye),
    /// The alarm with this number is in the log.
    AlarmAck(u64),
    /// Answers a request for one.
    Ticket(ProbeTicket),
}

/// The gateway is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub protocol: u32,
    /// The controller's wall clock.
    pub wall: Wall,
    /// Longest silence while nothing is armed.
    pub keepalive_idle: Span,
    /// Longest silence while a lane is armed.
    pub keepalive_armed: Span,
    /// Of the site's direct endpoint.
    pub direct_port: Option<u16>,
}

/// The whole desired state; applying it twice changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub generation: u64,
    pub grants: Vec<SignedGrant>,
    /// Why sessions that the gateway may still have are no longer here.
    pub withdrawn: Vec<Withdrawn>,
}

/// The difference between two generations of the desired state.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    pub from_generation: u64,
    pub generation: u64,
    /// New ones, and later grants of sessions that go on.
    pub grants: Vec<SignedGrant>,
    pub withdrawn: Vec<Withdrawn>,
}

/// A session that must not be open any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawn {
    pub session: SessionId,
    pub reason: EndReason,
}

/// The answer to a request for a new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewAnswer {
    /// Own certificate first, DER.
    Chain(Vec<Vec<u8>>),
    /// Refused, or waiting for somebody to approve it; why.
    Refused(String),
}

/// A signed note of the controller's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub note: String,
    /// RFC 6962 proof from `from_size`.
    pub consistency: Vec<[u8; 32]>,
    /// The size that the gateway named last.
    pub from_size: u64,
}

/// Why the controller ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoodbyeReason {
    /// A newer connection of the same gateway took over.
    Replaced,
    /// Two machines use this gateway's key.
    Frozen,
    /// The gateway's certificate is no longer good.
    Revoked,
    ShuttingDown,
    /// The other side broke the protocol, or speaks one that is too old or too new.
    Protocol,
}

/// The controller's last message on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    pub reason: GoodbyeReason,
    pub detail: String,
}

impl GoodbyeReason {
    /// The word on the wire and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            GoodbyeReason::Replaced => "replaced",
            GoodbyeReason::Frozen => "frozen",
            GoodbyeReason::Revoked => "revoked",
            GoodbyeReason::ShuttingDown => "shutting-down",
            GoodbyeReason::Protocol => "protocol",
        }
    }
}

impl FromController {
    /// The frame's bytes with their length in front.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        frame::encode(&pb::ControllerFrame { body: Some(self.to_body()) })
    }

    /// Reads one frame's bytes, without the length; `None`: of a kind that a newer controller may send.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, MessageError> {
        pb::ControllerFrame::decode(bytes)?.body.map(Self::try_from).transpose()
    }

    fn to_body(&self) -> Body {
        match self {
            FromController::Welcome(welcome) => Body::Welcome(pb::Welcome {
                protocol: welcome.protocol,
                wall_ms: welcome.wall.as_millis(),
                keepalive_idle_s: seconds(welcome.keepalive_idle),
                keepalive_armed_s: seconds(welcome.keepalive_armed),
                direct_port: welcome.direct_port.map_or(0, u32::from),
            }),
            FromController::Snapshot(snapshot) => Body::Snapshot(pb::Snapshot {
                generation: snapshot.generation,
                grants: snapshot.grants.iter().map(SignedGrant::to_pb).collect(),
                withdrawn: snapshot.withdrawn.iter().copied().map(Withdrawn::to_pb).collect(),
            }),
            FromController::Delta(delta) => Body::Delta(pb::Delta {
                from_generation: delta.from_generation,
                generation: delta.generation,
                grants: delta.grants.iter().map(SignedGrant::to_pb).collect(),
                withdrawn: delta.withdrawn.iter().copied().map(Withdrawn::to_pb).collect(),
            }),
            FromController::Ping(nonce) => Body::Ping(pb::Ping { nonce: *nonce }),
            FromController::Pong(nonce) => Body::Pong(pb::Pong { nonce: *nonce }),
            FromController::ClosingAck(session) => Body::ClosingAck(pb::ClosingAck { session: session.to_string() }),
            FromController::Renewed(RenewAnswer::Chain(chain)) => {
                Body::Renewed(pb::RenewAnswer { chain_der: chain.clone(), refusal: String::new() })
            }
            FromController::Renewed(RenewAnswer::Refused(why)) => {
                Body::Renewed(pb::RenewAnswer { chain_der: Vec::new(), refusal: text(why) })
            }
            FromController::Checkpoint(checkpoint) => Body::Checkpoint(pb::Checkpoint {
                note: checkpoint.note.clone(),
                consistency: checkpoint.consistency.iter().map(|hash| hash.to_vec()).collect(),
                from_size: checkpoint.from_size,
            }),
            FromController::Goodbye(goodbye) => {
                Body::Goodbye(pb::Goodbye { reason: goodbye.reason.as_str().to_owned(), detail: text(&goodbye.detail) })
            }
            FromController::AlarmAck(number) => Body::AlarmAck(pb::AlarmAck { number: *number }),
            FromController::Ticket(ticket) => Body::ProbeTicket(pb::ProbeTicket {
                ticket: ticket.ticket.to_vec(),
                secret: ticket.secret.expose().to_vec(),
                relay: ticket.relay.to_string(),
                seconds: seconds(ticket.life),
                pools: ticket.pools.clone(),
            }),
        }
    }
}

impl TryFrom<Body> for FromController {
    type Error = MessageError;
    fn try_from(body: Body) -> Result<Self, MessageError> {
        Ok(match body {
            Body::Welcome(from) => FromController::Welcome(from.try_into()?),
            Body::Snapshot(from) => FromController::Snapshot(Snapshot {
                generation: generation(from.generation)?,
                grants: grants(from.grants)?,
                withdrawn: withdrawn(from.withdrawn)?,
            }),
            Body::Delta(from) => FromController::Delta(Delta {
                from_generation: generation(from.from_generation)?,
                generation: generation(from.generation)?,
                grants: grants(from.grants)?,
                withdrawn: withdrawn(from.withdrawn)?,
            }),
            Body::Ping(from) => FromController::Ping(from.nonce),
            Body::Pong(from) => FromController::Pong(from.nonce),
            Body::ClosingAck(from) => FromController::ClosingAck(session(&from.session)?),
            Body::Renewed(from) if from.chain_der.is_empty() => {
                FromController::Renewed(RenewAnswer::Refused(text(&from.refusal)))
            }
            Body::Renewed(from) => {
                let chain = at_most(MOST_CERTIFICATES, from.chain_der, "chain")?;
                if chain.iter().any(|one| one.is_empty() || one.len() > LONGEST_CERTIFICATE) {
                    return Err(MessageError::Field("chain"));
                }
                FromController::Renewed(RenewAnswer::Chain(chain))
            }
            Body::Checkpoint(from) => {
                if from.note.is_empty() || from.note.len() > LONGEST_NOTE {
                    return Err(MessageError::Field("note"));
                }
                let hashes = at_most(MOST_HASHES, from.consistency, "consistency proof")?;
                FromController::Checkpoint(Checkpoint {
                    note: from.note,
                    consistency: hashes.iter().map(|hash| bytes(hash, "hash")).collect::<Result<_, _>>()?,
                    from_size: from.from_size,
                })
            }
            Body::Goodbye(from) => FromController::Goodbye(Goodbye {
                // Whatever a newer controller's reason is called, the connection ends; the gateway then takes the
                // slow way back.
                reason: goodbye_reason(&from.reason).unwrap_or(GoodbyeReason::Protocol),
                detail: text(&from.detail),
            }),
            Body::AlarmAck(from) => FromController::AlarmAck(from.number),
            Body::ProbeTicket(mut from) => {
                let pools = at_most(MOST_POOLS, std::mem::take(&mut from.pools), "pools")?;
                FromController::Ticket(ProbeTicket {
                    ticket: bytes(&from.ticket, "ticket")?,
                    secret: Secret::new(bytes(&from.secret, "secret")?),
                    relay: from.relay.parse().map_err(|_| MessageError::Field("relay"))?,
                    life: Span::from_secs(from.seconds.into()),
                    pools: pools.iter().map(|one| text(one)).collect(),
                })
            }
        })
    }
}

impl TryFrom<pb::Welcome> for Welcome {
    type Error = MessageError;
    fn try_from(from: pb::Welcome) -> Result<Self, MessageError> {
        let odd = MessageError::Field;
        let above_zero = |secs: u32, name| if secs == 0 { Err(odd(name)) } else { Ok(Span::from_secs(secs.into())) };
        Ok(Self {
            protocol: Some(from.protocol).filter(|version| *version != 0).ok_or(odd("protocol"))?,
            wall: Wall::from_millis(from.wall_ms),
            keepalive_idle: above_zero(from.keepalive_idle_s, "keepalive")?,
            keepalive_armed: above_zero(from.keepalive_armed_s, "keepalive")?,
            direct_port: Some(u16::try_from(from.direct_port).map_err(|_| odd("port"))?).filter(|port| *port != 0),
        })
    }
}

impl Withdrawn {
    fn to_pb(self) -> pb::Withdrawn {
        pb::Withdrawn { session: self.session.to_string(), reason: self.reason.to_string() }
    }
}

/// Leaves the secret out.
impl std::fmt::Debug for pb::ProbeTicket {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("ProbeTicket")
            .field("relay", &self.relay)
            .field("seconds", &self.seconds)
            .finish_non_exhaustive()
    }
}

impl Drop for pb::ProbeTicket {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

fn seconds(span: Span) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn generation(number: u64) -> Result<u64, MessageError> {
    if number == 0 { Err(MessageError::Field("generation")) } else { Ok(number) }
}

/// The grants are not looked into here: a single odd one is refused and reported by name, and must neither take
/// the others with it nor end the connection.
fn grants(from: Vec<pb::SignedGrant>) -> Result<Vec<SignedGrant>, MessageError> {
    Ok(at_most(MOST_GRANTS, from, "grants")?.into_iter().map(SignedGrant::from).collect())
}

fn withdrawn(from: Vec<pb::Withdrawn>) -> Result<Vec<Withdrawn>, MessageError> {
    let one = |from: pb::Withdrawn| {
        // A withdrawal is never refused for a reason that this version has no word for: it only closes.
        let reason = from.reason.parse().unwrap_or(EndReason::Failed);
        Ok(Withdrawn { session: session(&from.session)?, reason })
    };
    at_most(MOST_GRANTS, from, "withdrawals")?.into_iter().map(one).collect()
}

fn goodbye_reason(text: &str) -> Option<GoodbyeReason> {
    use GoodbyeReason::{Frozen, Protocol, Replaced, Revoked, ShuttingDown};
    [Replaced, Frozen, Revoked, ShuttingDown, Protocol].into_iter().find(|reason| reason.as_str() == text)
}
