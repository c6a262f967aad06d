//! One question and its answers on an rtnetlink socket.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as Netlink, SocketAddr};

/// Messages that one answer may consist of: far more than a gateway has interfaces, addresses or routes.
const MOST: usize = 100_000;

/// Why an interface, address or route is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no interface {0}")]
    NoInterface(String),
    /// The kernel refused.
    #[error("{doing}: {source}")]
    Kernel {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{doing}: the rtnetlink socket: {source}")]
    Socket {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{doing}: the kernel's answer has no end")]
    Endless { doing: &'static str },
}

impl LinkError {
    /// Whether the kernel refused with one of these error numbers.
    pub(crate) fn is_one_of(&self, codes: &[i32]) -> bool {
        let LinkError::Kernel { source, .. } = self else { return false };
        source.raw_os_error().is_some_and(|code| codes.contains(&code))
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    netlink: Netlink,
    sequence: u32,
}

/// What one message of an answer means for the whole.
enum Part {
    Message(Box<Message>),
    End,
    Refused(i32),
    Other,
}

impl Socket {
    pub(super) fn open() -> Result<Self, LinkError> {
        let socket = |source| LinkError::Socket { doing: "open", source };
        let mut netlink = Netlink::new(NETLINK_ROUTE).map_err(socket)?;
        netlink.bind_auto().map_err(socket)?;
        netlink.connect(&SocketAddr::new(0, 0)).map_err(socket)?;
        Ok(Self { netlink, sequence: 0 })
    }

    /// Sends one message and collects what answers it. Without NLM_F_ACK or NLM_F_DUMP the first message is all.
    pub(super) fn ask(&mut self, doing: &'static str, message: Message, flags: u16) -> Result<Vec<Message>, LinkError> {
        let socket = |source| LinkError::Socket { doing, source };
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.netlink.send(&bytes, 0).map_err(socket)?;

        let mut answers = Vec::new();
        while answers.len() < MOST {
            let (datagram, _) = self.netlink.recv_from_full().map_err(socket)?;
            for part in parts(&datagram, self.sequence) {
                match part {
                    Part::Message(message) => answers.push(*message),
                    Part::End => return Ok(answers),
                    Part::Refused(code) => {
                        return Err(LinkError::Kernel { doing, source: io::Error::from_raw_os_error(code) });
                    }
                    Part::Other => {}
                }
            }
            if flags == 0 && !answers.is_empty() {
                return Ok(answers);
            }
        }
        Err(LinkError::Endless { doing })
    }
}

/// The messages of one datagram that answer `sequence`. One that this version cannot decode, for example of an
/// interface of a kind that is newer than it, is left out.
fn parts(datagram: &[u8], sequence: u32) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = datagram;
    while let Some((length, answers)) = header(rest) {
        let (one, after) = rest.split_at(length.min(rest.len()));
        if answers == sequence {
            parts.push(part(one));
        }
        // Messages begin at multiples of four.
        rest = after.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    parts
}

fn part(bytes: &[u8]) -> Part {
    match NetlinkMessage::<Message>::deserialize(bytes).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => Part::Message(Box::new(message)),
        Ok(NetlinkPayload::Done(_)) => Part::End,
        Ok(NetlinkPayload::Error(error)) => match error.raw_code() {
            0 => Part::End,
            code => Part::Refused(code.saturating_abs()),
        },
        Ok(_) => Part::Other,
        Err(error) => {
            tracing::debug!(%error, "a netlink message is not understood");
            Part::Other
        }
    }
}

/// Length and sequence number of the message that `bytes` begins with.
fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(word(0)?).ok().filter(|length| *length >= 16)?;
    Some((length, word(8)?))
}
