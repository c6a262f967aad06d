//! Refused packets as the kernel logs them (NFLOG, `include/uapi/linux/netfilter/nfnetlink_log.h`).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use thinlane_model::SessionId;

use crate::attr::{AttrBuf, AttrError, Attrs};
use crate::decode;
use crate::error::NftError;
use crate::link::{Datagram, Link, Question};
use crate::message::{Content, Messages, SUBSYS_LOG};

const PACKET: u8 = 0;
const CONFIG: u8 = 1;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FLAG_SEQUENCE: u16 = 1;
/// Headers suffice.
const COPIED: u32 = 96;
/// Hundredths of a second that the kernel may hold a packet back to send several at once.
const HELD: u32 = 5;
/// Packets kept that nobody has asked for.
const KEPT: usize = 1024;

/// Which way a packet was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From a lane interface.
    Up,
    /// To a lane interface.
    Down,
}

/// One refused packet. The log is limited to some a second for each lane; counters say how many there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The session whose lane refused it; `None`: its address has no live lane.
    pub session: Option<SessionId>,
    pub direction: Direction,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    /// The length of the IP packet, headers included, in bytes.
    pub length: u32,
}

/// A socket bound to our NFLOG group.
#[derive(Debug)]
pub struct DeniedLog {
    link: Link,
    packets: VecDeque<Denied>,
    sequence: Option<u32>,
    lost: u64,
}

impl DeniedLog {
    /// Binds `group` in the calling thread's network namespace; EBUSY if another socket has it.
    pub fn open(group: u16) -> Result<Self, NftError> {
        let mut link = Link::open(0)?;
        let mode = [COPIED.to_be_bytes().as_slice(), &[COPY_PACKET, 0]].concat();
        configure(&mut link, group, AttrBuf::new().u8(1, COMMAND_BIND))?;
        configure(&mut link, group, AttrBuf::new().bytes(2, &mode).u32(4, HELD).u16(6, FLAG_SEQUENCE))?;
        Ok(Self { link, packets: VecDeque::new(), sequence: None, lost: 0 })
    }

    /// The next packet, or `None` when `timeout` has passed without one. Zero only looks.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Denied>, NftError> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Ok(Some(packet));
            }
            match self.link.receive(end.saturating_duration_since(Instant::now()))? {
                Datagram::Nothing => return Ok(None),
                // The sequence numbers tell how many.
                Datagram::Overrun => {}
                Datagram::Bytes(len) => {
                    let (packets, last, lost) = packets(self.link.datagram(len), self.sequence);
                    self.sequence = last;
                    self.lost = self.lost.saturating_add(lost);
                    for packet in packets {
                        if self.packets.len() < KEPT {
                            self.packets.push_back(packet);
                        } else {
                            self.lost = self.lost.saturating_add(1);
                        }
                    }
                }
            }
        }
    }

    /// Logged packets that never reached us.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsFd for DeniedLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.fd()
    }
}

impl AsRawFd for DeniedLog {
    fn as_raw_fd(&self) -> RawFd {
        self.link.fd().as_raw_fd()
    }
}

fn configure(link: &mut Link, group: u16, attrs: AttrBuf) -> Result<(), NftError> {
    let kind = u16::from(SUBSYS_LOG) << 8 | u16::from(CONFIG);
    let question = Question { kind, flags: 0, family: 0, resource: group, attrs: &attrs };
    link.ask::<()>(&question, |_, _| Ok(None)).map(|_| ())
}

/// The packets of one datagram, the last sequence number, and how many are missing before it.
///
/// What cannot be read, or has another prefix than ours, counts as missing.
pub fn packets(datagram: &[u8], mut sequence: Option<u32>) -> (Vec<Denied>, Option<u32>, u64) {
    let mut packets = Vec::new();
    let mut lost = 0u64;
    for received in Messages::new(datagram) {
        let Ok(received) = received else {
            lost += 1;
            break;
        };
        match received.content() {
            Ok(Content::Netfilter { subsys: SUBSYS_LOG, kind: PACKET, attrs, .. }) => {
                let number = attrs.u32(12).ok().flatten();
                if let (Some(before), Some(number)) = (sequence, number) {
                    lost = lost.saturating_add(u64::from(number.wrapping_sub(before).saturating_sub(1)));
                }
                sequence = number.or(sequence);
                match packet(&attrs) {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) | Err(_) => lost = lost.saturating_add(1),
                }
            }
            Ok(_) => {}
            Err(_) => lost = lost.saturating_add(1),
        }
    }
    (packets, sequence, lost)
}

fn packet(attrs: &Attrs<'_>) -> Result<Option<Denied>, AttrError> {
    let Some((session, up)) = attrs.text(10)?.and_then(decode::prefix) else { return Ok(None) };
    let direction = if up { Direction::Up } else { Direction::Down };
    let Some(headers) = headers(attrs.need(9)?.value) else { return Ok(None) };
    Ok(Some(Denied { session, direction, ..headers }))
}

/// The addresses, protocol and ports of an IP packet that may be cut off behind its headers.
fn headers(packet: &[u8]) -> Option<Denied> {
    let (source, destination, protocol, length, transport): (IpAddr, IpAddr, u8, u32, &[u8]) =
        match packet.first()? >> 4 {
            4 => {
                let (fixed, _) = packet.split_first_chunk::<20>()?;
                let address = |at: usize| Some(Ipv4Addr::from(*fixed.get(at..)?.first_chunk::<4>()?));
                let first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
                let transport = packet.get(usize::from(fixed[0] & 0xf) * 4..).filter(|_| first).unwrap_or(&[]);
                let length = u32::from(u16::from_be_bytes([fixed[2], fixed[3]]));
                (address(12)?.into(), address(16)?.into(), fixed[9], length, transport)
            }
            6 => {
                let (fixed, transport) = packet.split_first_chunk::<40>()?;
                let address = |at: usize| Some(Ipv6Addr::from(*fixed.get(at..)?.first_chunk::<16>()?));
                let length = u32::from(u16::from_be_bytes([fixed[4], fixed[5]])) + 40;
                (address(8)?.into(), address(24)?.into(), fixed[6], length, transport)
            }
            _ => return None,
        };
    let has_ports = matches!(i32::from(protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_SCTP);
    let ports = transport.first_chunk::<4>().filter(|_| has_ports);
    Some(Denied {
        session: None,
        direction: Direction::Up,
        source,
        destination,
        protocol,
        source_port: ports.map(|ports| u16::from_be_bytes([ports[0], ports[1]])),
        destination_port: ports.map(|ports| u16::from_be_bytes([ports[2], ports[3]])),
        length,
    })
}
