//! What a packet costs in our own code and in the cipher, without a system call: nanoseconds on this machine at this hour.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use nix::time::{ClockId, clock_gettime};
use thinlane_wg::offload::coalesce::{Coalescer, Sink};
use thinlane_wg::offload::header::{HEADER, Header, Kind};
use thinlane_wg::offload::parcel::Parcel;
use thinlane_wg::packet;

/// Payload of a segment in a tunnel of 1 420 bytes, and segments of one large packet.
pub const PAYLOAD: usize = 1368;
const SEGMENTS: usize = 46;
const HEADERS: usize = 52;
/// How long each loop runs.
const LENGTH: Duration = Duration::from_millis(200);

/// Nanoseconds for one segment.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Cut from a large packet: copied, numbered, summed.
    pub cut: f64,
    pub encrypt: f64,
    pub decrypt: f64,
    /// Both checksums verified, copied behind the one before.
    pub join: f64,
    /// The checksum of one alone, which is part of `cut` and of `join`.
    pub sum: f64,
}

impl Cost {
    /// Of both ends together.
    pub fn total(&self) -> f64 {
        self.cut + self.encrypt + self.decrypt + self.join
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: &[u8; HEADER], packet: &[u8]) {
        black_box(packet);
    }
}

/// Processor time of this thread: others on a busy machine are not counted.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Repeats what handles `segments` of them, and yields nanoseconds for one.
fn each(segments: usize, mut act: impl FnMut()) -> f64 {
    let (begun, mut turns) = (spent(), 0u32);
    while spent() - begun < LENGTH {
        act();
        turns += 1;
    }
    (spent() - begun).as_secs_f64() * 1e9 / (f64::from(turns.max(1)) * segments as f64)
}

pub fn measure() -> Result<Cost> {
    let mut large = large();
    let mut room = vec![0u8; 65_536];
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let parcel = Parcel::read(&mut large).context("a large packet")?;
    for at in 0..parcel.count() {
        segments.push(parcel.segment(at, &mut room).to_vec());
    }
    let count = segments.len();
    let cut = each(count, || {
        for at in 0..count {
            black_box(parcel.segment(at, &mut room).len());
        }
    });
    let sum = each(count, || {
        for bytes in &segments {
            black_box(packet::sum(0, bytes));
        }
    });
    let mut coalescer = Coalescer::new(true);
    let join = each(count, || {
        segments.iter().for_each(|bytes| coalescer.push(bytes, &mut Nowhere));
        coalescer.flush(&mut Nowhere);
    });
    let (mut near, mut far) = pair()?;
    let encrypt = each(count, || {
        for bytes in &segments {
            black_box(matches!(near.encapsulate(bytes, &mut room), TunnResult::WriteToNetwork(_)));
        }
    });
    // Each message is taken once only: encrypted anew for every turn, and its cost taken off.
    let both = each(count, || {
        let mut plain = [0u8; 2048];
        for bytes in &segments {
            if let TunnResult::WriteToNetwork(message) = near.encapsulate(bytes, &mut room) {
                black_box(matches!(far.decapsulate(None, message, &mut plain), TunnResult::WriteToTunnelV4(..)));
            }
        }
    });
    Ok(Cost { cut, encrypt, decrypt: (both - encrypt).max(0.0), join, sum })
}

/// What the kernel hands over of a TCP flow at once.
fn large() -> Vec<u8> {
    let length = HEADERS + SEGMENTS * PAYLOAD;
    let header = Header {
        kind: Kind::Tcp4,
        needs_checksum: true,
        headers: HEADERS as u16,
        size: PAYLOAD as u16,
        checksum_start: 20,
        checksum_offset: 16,
    };
    let mut bytes = header.bytes().to_vec();
    bytes.extend([0x45, 0, (length >> 8) as u8, length as u8, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 91, 0, 1, 10, 92, 0, 1]);
    bytes.extend([0xc3, 0x50, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    bytes.resize(HEADER + length, 0x5a);
    bytes
}

/// Two ends that have made their handshake.
fn pair() -> Result<(Tunn, Tunn)> {
    let secrets = [[1u8; 32], [2u8; 32]].map(StaticSecret::from);
    let [a, b] = [0, 1].map(|end| PublicKey::from(&secrets[end]));
    let [mine, theirs] = secrets;
    let (mut near, mut far) = (Tunn::new(mine, b, None, None, 1, None), Tunn::new(theirs, a, None, None, 2, None));
    let mut rooms = [[0u8; 2048]; 2];
    let TunnResult::WriteToNetwork(initiation) = near.format_handshake_initiation(&mut rooms[0], true) else {
        bail!("no initiation");
    };
    let initiation = initiation.to_vec();
    let TunnResult::WriteToNetwork(response) = far.decapsulate(None, &initiation, &mut rooms[1]) else {
        bail!("no response");
    };
    let response = response.to_vec();
    let TunnResult::WriteToNetwork(first) = near.decapsulate(None, &response, &mut rooms[0]) else {
        bail!("no first message");
    };
    let first = first.to_vec();
    if !matches!(far.decapsulate(None, &first, &mut rooms[1]), TunnResult::Done) {
        bail!("the handshake was not confirmed");
    }
    Ok((near, far))
}
