//! The kernel's WireGuard over generic netlink (include/uapi/linux/wireguard.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_packet_core::{DecodeError, NetlinkSerializable, ParseableParametrized};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlHeader, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily as AddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr as AllowedIp,
    WireguardAttribute as Attribute, WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer,
    WireguardPeerAttribute as PeerAttribute, WireguardPeerFlags,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use thinlane_model::{PublicKey, Secret, Wall};
use zeroize::{Zeroize, Zeroizing};

/// Messages that one answer may consist of: a lane's interface has one peer.
const MOST: usize = 64;

/// A generic netlink socket and the number of the WireGuard family.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    sequence: u32,
    family: Option<u16>,
}

/// One peer as it shall be.
#[derive(Debug, Clone)]
pub(super) struct Peer<'a> {
    pub key: &'a PublicKey,
    pub preshared: Option<&'a Secret>,
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0: none.
    pub keepalive: u16,
    pub allowed: Ipv4Addr,
}

/// What the kernel has of an interface and its peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub port: u16,
    pub peer: bool,
    pub endpoint: Option<SocketAddr>,
    pub last_handshake: Option<Wall>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl Wire {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, family: None })
    }

    /// Gives an interface its key, port and mark.
    pub fn set_up(&mut self, index: u32, private: &Secret, port: u16, mark: Option<u32>) -> io::Result<()> {
        let mut attributes = vec![
            Attribute::IfIndex(index),
            Attribute::Flags(WireguardDeviceFlags::ReplacePeers),
            Attribute::ListenPort(port),
            Attribute::PrivateKey(*private.expose()),
        ];
        attributes.extend(mark.map(Attribute::Fwmark));
        self.set(attributes)
    }

    /// Makes `peer` the interface's only one, with no keys agreed yet: an interface that is up handshakes at once, where
    /// it has an endpoint and a keepalive.
    pub fn set_peer(&mut self, index: u32, peer: &Peer<'_>) -> io::Result<()> {
        let mut attributes = vec![
            PeerAttribute::PublicKey(*peer.key.as_bytes()),
            PeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        ];
        attributes.extend(peer.preshared.map(|secret| PeerAttribute::PresharedKey(*secret.expose())));
        attributes.extend(peer.endpoint.map(PeerAttribute::Endpoint));
        attributes.push(PeerAttribute::PersistentKeepalive(peer.keepalive));
        attributes.push(PeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
            AllowedIp::Family(AddressFamily::Ipv4),
            AllowedIp::IpAddr(peer.allowed.into()),
            AllowedIp::Cidr(32),
        ])]));
        self.set(vec![
            Attribute::IfIndex(index),
            Attribute::Flags(WireguardDeviceFlags::ReplacePeers),
            Attribute::Peers(vec![WireguardPeer(attributes)]),
        ])
    }

    /// Changes a peer that is there; what is `None` stays.
    pub fn change_peer(
        &mut self,
        index: u32,
        key: &PublicKey,
        endpoint: Option<SocketAddr>,
        keepalive: Option<u16>,
    ) -> io::Result<()> {
        let mut attributes =
            vec![PeerAttribute::PublicKey(*key.as_bytes()), PeerAttribute::Flags(WireguardPeerFlags::UpdateOnly)];
        attributes.extend(endpoint.map(PeerAttribute::Endpoint));
        attributes.extend(keepalive.map(PeerAttribute::PersistentKeepalive));
        self.set(vec![Attribute::IfIndex(index), Attribute::Peers(vec![WireguardPeer(attributes)])])
    }

    /// Takes every peer of an interface away: nothing passes it any more.
    pub fn remove_peers(&mut self, index: u32) -> io::Result<()> {
        self.set(vec![Attribute::IfIndex(index), Attribute::Flags(WireguardDeviceFlags::ReplacePeers)])
    }

    /// What the kernel has; ENODEV where the interface is gone.
    pub fn find(&mut self, index: u32) -> io::Result<Found> {
        let family = self.family()?;
        let question = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes: vec![Attribute::IfIndex(index)] };
        Ok(Found::of(&self.ask(question, family, NLM_F_DUMP)?))
    }

    fn set(&mut self, attributes: Vec<Attribute>) -> io::Result<()> {
        let family = self.family()?;
        let message = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes };
        self.ask(message, family, NLM_F_ACK).map(|_| ())
    }

    /// The family's number, which the kernel gives out when the module is loaded.
    fn family(&mut self) -> io::Result<u16> {
        if let Some(family) = self.family {
            return Ok(family);
        }
        let name = GenlCtrlAttrs::FamilyName("wireguard".to_owned());
        let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] };
        self.family = self.ask(question, 0, NLM_F_ACK)?.iter().find_map(Answer::family);
        self.family.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Sends one message and collects what answers it, up to the acknowledgement or the end of the dump.
    fn ask<Q>(&mut self, question: Q, family: u16, flags: u16) -> io::Result<Vec<Answer>>
    where
        Q: Wiped + std::fmt::Debug + netlink_packet_generic::GenlFamily,
        GenlMessage<Q>: NetlinkSerializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = GenlMessage::from_payload(question);
        message.set_resolved_family_id(family);
        let mut request = NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = Zeroizing::new(vec![0; request.buffer_len()]);
        request.serialize(&mut bytes);
        if let NetlinkPayload::InnerMessage(message) = &mut request.payload {
            message.payload.wipe();
        }
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        for _ in 0..MOST {
            let (datagram, _) = self.socket.recv_from_full()?;
            // A dump of an interface shows its keys.
            let datagram = Zeroizing::new(datagram);
            if read(&datagram, self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("the kernel's answer has no end"))
    }
}

/// Reads the messages of one datagram that answer `sequence`; whether the answer ends there.
pub(super) fn read(datagram: &[u8], sequence: u32, answers: &mut Vec<Answer>) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some(length) = length(rest) {
        let (one, after) = rest.split_at(length.min(rest.len()));
        let read = NetlinkMessage::<GenlMessage<Answer>>::deserialize(one).map_err(io::Error::other)?;
        rest = after.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        if read.header.sequence_number != sequence {
            continue;
        }
        match read.payload {
            NetlinkPayload::InnerMessage(message) => answers.push(message.into_parts().1),
            NetlinkPayload::Done(done) if done.code == 0 => return Ok(true),
            NetlinkPayload::Done(done) => return Err(io::Error::from_raw_os_error(done.code.saturating_abs())),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
            NetlinkPayload::Error(error) => {
                return Err(io::Error::from_raw_os_error(error.raw_code().saturating_abs()));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// The attributes of one answer. They are read here because the libraries' own reading, of all that may be in them, panics
/// where one within another is cut short.
#[derive(Debug)]
pub(super) struct Answer(Zeroizing<Vec<u8>>);

impl ParseableParametrized<[u8], GenlHeader> for Answer {
    fn parse_with_param(attributes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self(Zeroizing::new(attributes.to_vec())))
    }
}

impl Answer {
    /// The number of the family that was asked for by name (CTRL_ATTR_FAMILY_ID, include/uapi/linux/genetlink.h).
    pub(super) fn family(&self) -> Option<u16> {
        attributes(&self.0)
            .find_map(|(number, value)| (number == 1).then(|| Some(u16::from_ne_bytes(array(value)?)))?)
    }
}

/// Numbers and values, as far as they are whole.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Attributes may be flagged as nested or in network order; the rest is their number.
    const NUMBER: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, number) = (rest.get(..2).and_then(array)?, rest.get(2..4).and_then(array)?);
        let length = usize::from(u16::from_ne_bytes(length));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes(number) & NUMBER, value))
    })
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// `struct sockaddr_in` or `sockaddr_in6`, by its length.
fn endpoint(value: &[u8]) -> Option<SocketAddr> {
    let ip = match value.len() {
        16 => IpAddr::from(array::<4>(value.get(4..8)?)?),
        28 => IpAddr::from(array::<16>(value.get(8..24)?)?),
        _ => return None,
    };
    // An IPv4 address that came as IPv6 is shown as what it is.
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(array(value.get(2..4)?)?)))
}

impl Found {
    /// What answers say.
    pub(super) fn of(answers: &[Answer]) -> Self {
        /// `WGDEVICE_A_*`.
        const LISTEN_PORT: u16 = 6;
        const PEERS: u16 = 8;
        let mut found = Self::default();
        for (number, value) in answers.iter().flat_map(|answer| attributes(&answer.0)) {
            match number {
                LISTEN_PORT => found.port = array(value).map_or(found.port, u16::from_ne_bytes),
                PEERS => attributes(value).for_each(|(_, peer)| found.take(peer)),
                _ => {}
            }
        }
        found
    }

    fn take(&mut self, peer: &[u8]) {
        /// `WGPEER_A_*`.
        const ENDPOINT: u16 = 4;
        const LAST_HANDSHAKE: u16 = 6;
        const RX_BYTES: u16 = 7;
        const TX_BYTES: u16 = 8;
        self.peer = true;
        for (number, value) in attributes(peer) {
            match number {
                ENDPOINT => self.endpoint = endpoint(value).or(self.endpoint),
                LAST_HANDSHAKE => self.last_handshake = last_handshake(value).or(self.last_handshake),
                RX_BYTES => self.rx_bytes = array(value).map_or(self.rx_bytes, u64::from_ne_bytes),
                TX_BYTES => self.tx_bytes = array(value).map_or(self.tx_bytes, u64::from_ne_bytes),
                _ => {}
            }
        }
    }
}

/// `struct __kernel_timespec`; `None`: there was no handshake yet.
fn last_handshake(value: &[u8]) -> Option<Wall> {
    let (seconds, nanos) = value.split_at_checked(8)?;
    let (seconds, nanos) = (i64::from_ne_bytes(array(seconds)?), i64::from_ne_bytes(array(nanos)?));
    (seconds > 0).then(|| Wall::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)))
}

/// Keys in it are overwritten before it is dropped.
trait Wiped {
    fn wipe(&mut self);
}

impl Wiped for WireguardMessage {
    fn wipe(&mut self) {
        wipe(&mut self.attributes);
    }
}

impl Wiped for GenlCtrl {
    fn wipe(&mut self) {}
}

fn wipe(attributes: &mut [Attribute]) {
    for attribute in attributes {
        match attribute {
            Attribute::PrivateKey(key) => key.zeroize(),
            Attribute::Peers(peers) => {
                for attribute in peers.iter_mut().flat_map(|peer| peer.0.iter_mut()) {
                    if let PeerAttribute::PresharedKey(key) = attribute {
                        key.zeroize();
                    }
                }
            }
            _ => {}
        }
    }
}

/// The length of the message that `bytes` begins with.
fn length(bytes: &[u8]) -> Option<usize> {
    let word = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    usize::try_from(word).ok().filter(|length| *length >= 16)
}
