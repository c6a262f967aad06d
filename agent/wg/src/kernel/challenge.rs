//! How a device is made to let go of a connection that nobody can close: with a segment that is out of its window.
//!
//! A kernel lane knows no sequence numbers, so it cannot reset a connection itself. A segment that does not fit has every
//! TCP answer with what would (RFC 9293, 3.10.7.4); that answer meets a gateway without such a connection, whose own TCP,
//! or whose table, resets it exactly (3.10.7.1).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use crate::packet::{TcpReset, flag, tcp_reset};

/// Sends one segment without data from `source` to `destination`, from the calling thread's network namespace; `source`
/// need not be an address of this machine (CAP_NET_RAW).
pub fn challenge(source: SocketAddrV4, destination: SocketAddrV4) -> io::Result<()> {
    let mut number = [0; 4];
    getrandom::fill(&mut number).map_err(|_| io::Error::other("no randomness"))?;
    // A socket of IPPROTO_RAW takes whole packets (raw(7)).
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let packet = segment((*source.ip(), source.port()), (*destination.ip(), destination.port()), number);
    let to = SockaddrIn::from(SocketAddrV4::new(*destination.ip(), 0));
    sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// An acknowledgement of nothing that was sent, with a sequence number that is not expected.
fn segment(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), number: [u8; 4]) -> Vec<u8> {
    let seq = u32::from_be_bytes(number);
    let mut packet = tcp_reset(&TcpReset { source, destination, seq, ack: Some(seq.wrapping_add(1)) }).to_vec();
    // A reset but for its flag, and the checksum with it: both bytes stand in one word of the sum.
    let (flags, sum) = (33, 36);
    packet[flags] &= !flag::RST;
    let mut folded = u32::from(u16::from_be_bytes([packet[sum], packet[sum + 1]])) + u32::from(flag::RST);
    folded = (folded & 0xffff) + (folded >> 16);
    packet[sum..sum + 2].copy_from_slice(&(folded as u16).to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse_ipv4;

    #[test]
    fn the_segment_is_a_whole_acknowledgement_and_no_reset() {
        for number in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0x80, 0, 0, 0xfb]] {
            let packet =
                segment((Ipv4Addr::new(192, 168, 1, 1), 40_000), (Ipv4Addr::new(192, 168, 1, 10), 502), number);
            let ip = parse_ipv4(&packet).expect("an IPv4 packet");
            let tcp = ip.tcp().expect("a TCP segment");
            assert!(tcp.has(flag::ACK) && !tcp.has(flag::RST) && !tcp.has(flag::SYN));
            assert_eq!(tcp.payload, 0);
            let start: u32 =
                packet[12..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
            let words = packet[20..].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let mut sum = start + 6 + 20 + words.sum::<u32>();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, 0xffff, "the checksum is right");
        }
    }
}
