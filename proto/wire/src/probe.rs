//! Probes: how a gateway or an engineer's machine finds out whether UDP reaches the relay, and how large it may be.
//!
//! Whoever is known to the controller (a gateway on its channel, a person with a token) is given a [`ProbeTicket`]:
//! a ticket to show, and a secret that only the relay can work out from it, so the relay keeps nothing for it. A
//! question names its ticket and carries a MAC under the secret; the relay answers nobody else, so strangers cannot
//! tell it from a closed port. An answer is exactly as long as its question, so it multiplies nothing.
//!
//! ```text
//! question  "TLp?"  ticket 16  number 4  zeros ...                      mac 16
//! answer    "TLp!"  ticket 16  number 4  seen from: ip 16, port 2  ...  mac 16
//! ```
//! The MAC is keyed BLAKE2s over everything before it; the first four bytes tell the two directions apart, and
//! neither is the type of a WireGuard message.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use blake2::Blake2sMac;
use blake2::digest::Mac as _;
use blake2::digest::consts::{U16, U32};
use thinlane_model::{Boot, Endpoint, Secret, Span};

/// The shortest probe, in bytes of UDP payload.
pub const SHORTEST_PROBE: usize = 64;
/// The longest: a UDP payload that fills 1 500 bytes over IPv4.
pub const LONGEST_PROBE: usize = 1472;

const QUESTION: &[u8; 4] = b"TLp?";
const ANSWER: &[u8; 4] = b"TLp!";
const NUMBER: usize = 20;
const BODY: usize = 24;
const MAC: usize = 16;

/// What its holder needs to try the way to the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTicket {
    /// Shown in each question.
    pub ticket: [u8; 16],
    /// Signs questions and checks answers.
    pub secret: Secret,
    /// Where the relay is.
    pub relay: Endpoint,
    /// How long the relay takes it.
    pub life: Span,
    /// The overlay addresses that assets and engineers are given, as CIDR.
    pub pools: Vec<String>,
}

/// A probe that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Of the question.
    pub number: u32,
    /// Bytes of UDP payload, the same there and back.
    pub length: usize,
    /// Where the relay saw the question come from.
    pub seen_from: SocketAddr,
}

impl ProbeTicket {
    /// A question of `length` bytes of UDP payload, brought into [`SHORTEST_PROBE`]..=[`LONGEST_PROBE`].
    pub fn question(&self, number: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.clamp(SHORTEST_PROBE, LONGEST_PROBE)];
        bytes[..4].copy_from_slice(QUESTION);
        bytes[4..NUMBER].copy_from_slice(&self.ticket);
        bytes[NUMBER..BODY].copy_from_slice(&number.to_be_bytes());
        seal(&self.secret, &mut bytes);
        bytes
    }

    /// Reads what came back; `None`: it is no answer of this ticket's relay.
    pub fn read(&self, datagram: &[u8]) -> Option<ProbeAnswer> {
        let parts = Parts::read(ANSWER, datagram).filter(|parts| parts.ticket == &self.ticket)?;
        is_sealed(&self.secret, datagram).then_some(())?;
        let (ip, rest) = parts.body.split_first_chunk::<16>()?;
        let port = u16::from_be_bytes(*rest.first_chunk()?);
        let seen_from = SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical(), port);
        Some(ProbeAnswer { number: parts.number, length: datagram.len(), seen_from })
    }
}

/// What the relay knows tickets by; it keeps nothing else of them.
#[derive(Clone)]
pub struct ProbeKey(Secret);

/// Why a probe is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeRefusal {
    #[error("the ticket has expired, or was never this relay's")]
    Expired,
    #[error("it was not made with the ticket's secret")]
    Mac,
}

/// A question that reads like one; its MAC has not been checked.
#[derive(Debug, Clone, Copy)]
pub struct ProbeQuestion<'a> {
    datagram: &'a [u8],
    ticket: &'a [u8; 16],
}

impl<'a> ProbeQuestion<'a> {
    /// Reads a datagram; `None`: it is something else.
    pub fn read(datagram: &'a [u8]) -> Option<Self> {
        Parts::read(QUESTION, datagram).map(|parts| Self { datagram, ticket: parts.ticket })
    }

    /// Whether the ticket claims to be good at `now`, and for no longer than any ticket is: costs nothing to ask.
    pub fn is_current(&self, now: Boot) -> bool {
        let expires = expiry(self.ticket);
        now < expires && now.until(expires) <= ProbeKey::LIFE
    }
}

impl ProbeKey {
    /// How long a ticket is good.
    pub const LIFE: Span = Span::from_secs(600);

    /// 32 random bytes, fresh for each start of a relay: tickets end with it.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }

    /// A ticket with `id`, which is random, from `now` on the relay's boot clock, and its secret.
    pub fn issue(&self, id: [u8; 8], now: Boot) -> ([u8; 16], Secret) {
        let mut ticket = [0; 16];
        ticket[..8].copy_from_slice(&id);
        ticket[8..].copy_from_slice(&(now + Self::LIFE).0.to_be_bytes());
        (ticket, self.secret(&ticket))
    }

    /// The answer to a question from `from`: as long as the question, under the same secret.
    pub fn answer(&self, question: &ProbeQuestion<'_>, from: SocketAddr, now: Boot) -> Result<Vec<u8>, ProbeRefusal> {
        if !question.is_current(now) {
            return Err(ProbeRefusal::Expired);
        }
        let secret = self.secret(question.ticket);
        if !is_sealed(&secret, question.datagram) {
            return Err(ProbeRefusal::Mac);
        }
        let mut bytes = question.datagram.to_vec();
        bytes[..4].copy_from_slice(ANSWER);
        let ip = match from.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[BODY..BODY + 16].copy_from_slice(&ip.octets());
        bytes[BODY + 16..BODY + 18].copy_from_slice(&from.port().to_be_bytes());
        seal(&secret, &mut bytes);
        Ok(bytes)
    }

    fn secret(&self, ticket: &[u8; 16]) -> Secret {
        let mac = Blake2sMac::<U32>::new_from_slice(self.0.expose()).expect("BLAKE2s takes keys of 32 bytes");
        Secret::new(mac.chain_update(b"thinlane probe secret").chain_update(ticket).finalize().into_bytes().into())
    }
}

struct Parts<'a> {
    ticket: &'a [u8; 16],
    number: u32,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(kind: &[u8; 4], datagram: &'a [u8]) -> Option<Self> {
        if !(SHORTEST_PROBE..=LONGEST_PROBE).contains(&datagram.len()) {
            return None;
        }
        let rest = datagram.strip_prefix(kind)?;
        let (ticket, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (body, _mac) = rest.split_last_chunk::<MAC>()?;
        Some(Self { ticket, number: u32::from_be_bytes(*number), body })
    }
}

fn expiry(ticket: &[u8; 16]) -> Boot {
    let (_, expires) = ticket.split_last_chunk().expect("a ticket has 16 bytes");
    Boot(u64::from_be_bytes(*expires))
}

fn mac(secret: &Secret, covered: &[u8]) -> Blake2sMac<U16> {
    let mac = Blake2sMac::<U16>::new_from_slice(secret.expose()).expect("BLAKE2s takes keys of 32 bytes");
    mac.chain_update(covered)
}

/// Writes the MAC into the last bytes.
fn seal(secret: &Secret, bytes: &mut [u8]) {
    let (covered, end) = bytes.split_last_chunk_mut::<MAC>().expect("no probe is that short");
    *end = mac(secret, covered).finalize().into_bytes().into();
}

/// Compares in constant time.
fn is_sealed(secret: &Secret, bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<MAC>().is_some_and(|(covered, end)| mac(secret, covered).verify_slice(end).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Boot = Boot(5_000_000);

    fn pair() -> (ProbeKey, ProbeTicket) {
        let key = ProbeKey::new([7; 32]);
        let (ticket, secret) = key.issue([1; 8], NOW);
        let relay = "192.0.2.1:7443".parse().expect("an endpoint");
        (key, ProbeTicket { ticket, secret, relay, life: ProbeKey::LIFE, pools: Vec::new() })
    }

    fn answered(key: &ProbeKey, datagram: &[u8], now: Boot) -> Option<Vec<u8>> {
        let question = ProbeQuestion::read(datagram)?;
        key.answer(&question, "203.0.113.9:4711".parse().expect("an address"), now).ok()
    }

    #[test]
    fn a_question_is_answered_with_as_many_bytes_and_where_it_came_from() {
        let (key, ticket) = pair();
        for length in [0, SHORTEST_PROBE, 65, 1400, LONGEST_PROBE, 9000] {
            let question = ticket.question(3, length);
            let answer = answered(&key, &question, NOW).expect("an answer");
            assert_eq!(answer.len(), question.len());
            let read = ticket.read(&answer).expect("our relay's");
            assert_eq!((read.number, read.length), (3, question.len()));
            assert_eq!(read.seen_from.to_string(), "203.0.113.9:4711");
        }
    }

    #[test]
    fn every_flipped_bit_is_silence() {
        let (key, ticket) = pair();
        let question = ticket.question(1, SHORTEST_PROBE);
        let answer = answered(&key, &question, NOW).expect("an answer");
        for at in 0..question.len() {
            for bit in 0..8 {
                let flip = |bytes: &[u8]| {
                    let mut flipped = bytes.to_vec();
                    flipped[at] ^= 1 << bit;
                    flipped
                };
                assert!(answered(&key, &flip(&question), NOW).is_none(), "byte {at} bit {bit} of a question");
                assert!(ticket.read(&flip(&answer)).is_none(), "byte {at} bit {bit} of an answer");
            }
        }
    }

    #[test]
    fn a_ticket_ends_and_one_of_another_relay_or_of_ones_own_making_never_begins() {
        let (key, ticket) = pair();
        let question = ticket.question(1, 100);
        assert!(answered(&key, &question, NOW + ProbeKey::LIFE).is_none(), "it has ended");
        assert!(answered(&ProbeKey::new([8; 32]), &question, NOW).is_none(), "another relay");
        let eternal = ProbeTicket { ticket: [0x7f; 16], ..ticket };
        assert!(answered(&key, &eternal.question(1, 100), NOW).is_none(), "longer than any ticket");
    }

    #[test]
    fn neither_direction_passes_for_the_other_or_for_wireguard() {
        let (key, ticket) = pair();
        let question = ticket.question(1, 100);
        let answer = answered(&key, &question, NOW).expect("an answer");
        assert!(ticket.read(&question).is_none(), "an echo of our own question proves nothing");
        assert!(answered(&key, &answer, NOW).is_none(), "answers are not answered");
        for kind in [question[0], answer[0]] {
            assert!(!(1..=4).contains(&kind));
        }
    }

    #[test]
    fn no_length_makes_it_panic() {
        let (key, ticket) = pair();
        let question = ticket.question(1, LONGEST_PROBE);
        for length in 0..question.len() {
            assert!(answered(&key, &question[..length], NOW).is_none());
            assert!(ticket.read(&question[..length]).is_none());
        }
    }
}
