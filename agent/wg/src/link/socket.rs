//! One question and its answers on an rtnetlink socket.

use std::io;

use netlink_packet_core::NLM_F_REQUEST;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as Netlink, SocketAddr};

use super::message::{Frame, Message, frames, word};

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
#[derive(Debug)]
pub(super) enum Part {
    Message(Message),
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
        let bytes = message.to_bytes(NLM_F_REQUEST | flags, self.sequence);
        self.netlink.send(&bytes, 0).map_err(socket)?;

        let mut answers = Vec::new();
        while answers.len() < MOST {
            let (datagram, _) = self.netlink.recv_from_full().map_err(socket)?;
            for frame in frames(&datagram).filter(|frame| frame.sequence == self.sequence) {
                match part(&frame) {
                    Part::Message(message) => answers.push(message),
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

/// An answer that is not about what was asked, or that this version cannot decode, is left out.
pub(super) fn part(frame: &Frame<'_>) -> Part {
    // A list's end may carry an error as well; without a number it went well (NLMSG_DONE, NLMSG_ERROR in netlink(7)).
    let outcome = || match word(frame.body, 0).map(u32::cast_signed) {
        None | Some(0..) => Part::End,
        Some(code) => Part::Refused(code.saturating_abs()),
    };
    match i32::from(frame.kind) {
        libc::NLMSG_DONE | libc::NLMSG_ERROR => outcome(),
        _ => Message::read(frame.kind, frame.body).map_or(Part::Other, Part::Message),
    }
}
