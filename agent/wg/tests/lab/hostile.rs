//! An engineer who holds a lane's keys and sends whatever comes to mind, straight into the tunnel.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
pub use thinlane_packet::sample::ipv4;
use thinlane_wg::packet::{checksum, number, pseudo_header};

use super::{Keys, within};

pub struct Hostile {
    pub socket: UdpSocket,
    pub tunn: Tunn,
}

impl Hostile {
    /// Makes a handshake with a gateway.
    pub fn connect(ns: &str, keys: &Keys, gateway: SocketAddr) -> Self {
        let socket = within(ns, move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            socket.connect(gateway).expect("a route");
            socket
        });
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*keys.engineer.0.expose()),
            x25519::PublicKey::from(*keys.gateway.1.as_bytes()),
            Some(*keys.preshared.expose()),
            None,
            0x00c0_ffee,
            None,
        );
        let mut hostile = Self { socket, tunn };
        hostile.handshake();
        hostile
    }

    pub fn handshake(&mut self) {
        let mut room = [0; 2048];
        let TunnResult::WriteToNetwork(initiation) = self.tunn.format_handshake_initiation(&mut room, true) else {
            panic!("no initiation");
        };
        self.socket.send(initiation).expect("sent");
        let mut answer = [0; 2048];
        let length = self.socket.recv(&mut answer).expect("the gateway answers");
        let TunnResult::WriteToNetwork(confirm) = self.tunn.decapsulate(None, &answer[..length], &mut room) else {
            panic!("the answer is no response");
        };
        self.socket.send(confirm).expect("sent");
    }

    /// Sends one packet through the tunnel.
    pub fn send(&mut self, packet: &[u8]) {
        let mut room = [0; 70_000];
        match self.tunn.encapsulate(packet, &mut room) {
            TunnResult::WriteToNetwork(message) => {
                self.socket.send(message).expect("sent");
            }
            other => panic!("{other:?}"),
        }
    }

    /// The packets that come out of the tunnel within `most`.
    pub fn receive(&mut self, most: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + most;
        let mut packets = Vec::new();
        let (mut datagram, mut room) = ([0; 2048], [0; 2048]);
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        while Instant::now() < end {
            let Ok(length) = self.socket.recv(&mut datagram) else { continue };
            if let TunnResult::WriteToTunnelV4(packet, _) = self.tunn.decapsulate(None, &datagram[..length], &mut room)
            {
                packets.push(packet.to_vec());
            }
        }
        packets
    }
}

pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    let length = 8 + payload.len() as u16;
    datagram.extend_from_slice(&from.1.to_be_bytes());
    datagram.extend_from_slice(&to.1.to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let sum = checksum(pseudo_header(from.0, to.0, number::UDP, length), &datagram);
    datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    ipv4(from.0, to.0, number::UDP, 1, 0, &datagram)
}

pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0u8; 20];
    segment[0..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment[14..16].copy_from_slice(&64_000u16.to_be_bytes());
    segment.extend_from_slice(payload);
    let sum = checksum(pseudo_header(from.0, to.0, number::TCP, segment.len() as u16), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, number::TCP, 1, 0, &segment)
}
