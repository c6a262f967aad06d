//! What a kernel, or what claims to be it, could say over generic netlink: for fuzzing.

use super::wire::{Found, read};
use crate::packet::sample::Reach;

/// The sequence number that answers carry.
const ASKED: u32 = 7;

/// Reads a datagram as answers about a device and its peer, and about a family: it neither panics nor makes more answers
/// than there are messages.
pub fn fuzz_genetlink(bytes: &[u8], reach: Reach<'_>) {
    let mut answers = Vec::new();
    match read(bytes, ASKED, &mut answers) {
        Ok(true) => reach("an end"),
        Ok(false) => {}
        Err(error) if error.raw_os_error().is_some_and(|code| code > 0) => reach("a refusal"),
        Err(error) => assert_ne!(error.raw_os_error(), Some(0), "a refusal for nothing"),
    }
    assert!(answers.len() <= bytes.len() / 16);
    let found = Found::of(&answers);
    if found.port > 0 {
        reach("a port");
    }
    if let Some(endpoint) = found.endpoint {
        assert!(found.peer);
        reach(if endpoint.is_ipv4() { "an IPv4 endpoint" } else { "an IPv6 endpoint" });
    }
    if found.last_handshake.is_some() && found.rx_bytes > 0 {
        reach("a peer that was there");
    }
    if answers.iter().any(|answer| answer.family().is_some()) {
        reach("a family");
    }
}

/// A device with its peer over IPv4 and over IPv6, a family, an end and a refusal.
pub fn fuzz_genetlink_seeds() -> Vec<Vec<u8>> {
    let message = |kind: u16, body: &[u8]| {
        let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(ASKED.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    };
    let attr = |number: u16, value: &[u8]| {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(number.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let nested = |number: u16, all: &[Vec<u8>]| attr(0x8000 | number, &all.concat());
    // struct sockaddr_in, sockaddr_in6.
    let ipv4 = [&2_u16.to_ne_bytes()[..], &[0x1d, 0x13, 192, 0, 2, 1], &[0; 8]].concat();
    let ipv6 = [&10_u16.to_ne_bytes()[..], &[0x1d, 0x13, 0, 0, 0, 0], &[0xfd; 16], &[0; 4]].concat();
    let allowed = nested(9, &[nested(0, &[attr(1, &2_u16.to_ne_bytes()), attr(2, &[198, 19, 0, 1]), attr(3, &[32])])]);
    let device = |endpoint: &[u8]| {
        let peer = [
            attr(1, &[1; 32]),
            attr(2, &[2; 32]),
            attr(4, endpoint),
            attr(5, &25_u16.to_ne_bytes()),
            attr(6, &[3_i64.to_ne_bytes(), 4_i64.to_ne_bytes()].concat()),
            attr(7, &5_u64.to_ne_bytes()),
            attr(8, &6_u64.to_ne_bytes()),
            allowed.clone(),
        ];
        let all = [
            attr(1, &4_u32.to_ne_bytes()),
            attr(2, b"tl-a\0"),
            attr(3, &[9; 32]),
            attr(6, &51820_u16.to_ne_bytes()),
            nested(8, &[nested(0, &peer)]),
        ];
        // struct genlmsghdr: WG_CMD_GET_DEVICE, version 1.
        message(0x1c, &[vec![0, 1, 0, 0], all.concat()].concat())
    };
    // CTRL_CMD_NEWFAMILY.
    let family = message(0x10, &[vec![1, 2, 0, 0], attr(1, &0x1c_u16.to_ne_bytes()), attr(2, b"wireguard\0")].concat());
    let (done, error) = (libc::NLMSG_DONE as u16, libc::NLMSG_ERROR as u16);
    let refusal = message(error, &[&(-libc::ENODEV).to_ne_bytes()[..], &[0; 16]].concat());
    vec![
        [device(&ipv4), message(done, &[0; 4])].concat(),
        [device(&ipv6), message(done, &[0; 4])].concat(),
        [family, message(error, &[0; 20])].concat(),
        refusal,
    ]
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_generic::GenlMessage;
    use netlink_packet_wireguard::{WireguardAttribute, WireguardMessage, WireguardPeerAttribute};

    use super::*;

    #[test]
    fn a_whole_answer_says_the_same_as_to_the_library() {
        for seed in &fuzz_genetlink_seeds()[..2] {
            let message = NetlinkMessage::<GenlMessage<WireguardMessage>>::deserialize(seed).expect("it is whole");
            let NetlinkPayload::InnerMessage(message) = message.payload else { panic!("no answer") };
            let mut answers = Vec::new();
            assert!(read(seed, ASKED, &mut answers).expect("an end"));
            let found = Found::of(&answers);
            let mut compared = 0;
            for attribute in message.into_parts().1.attributes {
                match attribute {
                    WireguardAttribute::ListenPort(port) => {
                        assert_eq!(found.port, port);
                        compared += 1;
                    }
                    WireguardAttribute::Peers(peers) => peers.iter().flat_map(|peer| peer.iter()).for_each(|one| {
                        compared += 1;
                        match one {
                            WireguardPeerAttribute::Endpoint(at) => assert_eq!(found.endpoint, Some(*at)),
                            WireguardPeerAttribute::RxBytes(bytes) => assert_eq!(found.rx_bytes, *bytes),
                            WireguardPeerAttribute::TxBytes(bytes) => assert_eq!(found.tx_bytes, *bytes),
                            _ => compared -= 1,
                        }
                    }),
                    _ => {}
                }
            }
            assert_eq!(compared, 4);
        }
    }
}
