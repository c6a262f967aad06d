//! The blind relay: forwards WireGuard datagrams of open sessions, unchanged, between two ends that only dial out.
//!
//! It holds no private key and adds no byte. Both ends of a session make a fresh key pair for it, so the key
//! behind the MAC1 of a handshake message names the session and the end that the message is for; after that, the
//! indices that the two ends chose in the handshake do. [`Relay`] decides (no socket, no clock: time is an
//! argument), [`Shell`] owns the one UDP socket.
//!
//! # Who proves what
//!
//! ```text
//!        I, at A'                         relay                          R, at G'
//!  initiation  sender=i  mac1(R) --->  names session and R; remembers
//!                                      attempt {i, A'}       ---------> where R is served
//!                                      mac1(I) names attempt <--------- response  sender=r receiver=i  mac1(R's peer I)
//!  where i came from     <-----------  remembers answer {r, G'}
//!  (and I's confirmed address)
//!  transport   receiver=r  from A' -->  completes: I is at A', R is at G' -------->
//! ```
//!
//! * A valid **initiation** proves that its maker knows R's public key, which only the two ends and the controller
//!   do; not that it is fresh. It moves nothing, except that an end never confirmed is looked for where it came from.
//! * A valid **response** from G' proves knowledge of I's public key; that it is fresh, only I can tell.
//!   It moves nothing.
//! * **Transport with index r from A'** proves both: whoever is at A' received r, which went out only in answer to
//!   the attempt made from A', and R answers no stale or forged initiation; and I, who uses r, has accepted R's
//!   response, the one that came from G'. Now, and only now, both addresses are confirmed.
//!
//! A recorded initiation sent again from elsewhere gets no response from R (its timestamp is old), so it moves
//! nothing; a duplicate of one that was seen is not even forwarded. A recorded response answers no open attempt.
//! One who is quicker than the end with a copy of its *own fresh* initiation gets the response too, but so does the
//! end's confirmed address, and a duplicate from there takes the attempt back; the end's next handshake repairs the rest.
//!
//! # Data
//!
//! Data goes by (source address, receiver index). From an unknown source it is forwarded if the index is unique
//! among open sessions and its counter is ahead of all seen from the end's own address; then the source is served
//! *beside* the confirmed address for 20 s, so an end whose carrier gave it another address does not stall; up to
//! three such sources are served at once, since a carrier in trouble does so every few seconds. They are not
//! confirmed by that; only a handshake does. Copies of recorded packets are not ahead; one who can
//! see an index and forges a counter earns 20 s of ciphertext, and takes nothing from the end.
//!
//! # Probes
//!
//! Whoever holds a ticket of the controller's (a gateway on its channel, a person with a token) may ask whether UDP
//! gets here, and how large it may be: see [`thinlane_wire::ProbeTicket`]. The answer is as long as the question and
//! goes to where that came from, at most 20 a second to one source; strangers get none.
//!
//! # Work that strangers can cause
//!
//! Everything is one table look-up, except the search for the key behind an initiation from an address that no open
//! session knows. That search is bounded per source and per second, first among sessions that still wait for an
//! end, then among the others; ends with a known address are looked up by it and have a budget of their own.
#![forbid(unsafe_code)]

mod bucket;
mod core;
mod data;
mod end;
mod handshake;
mod mac;
mod packet;
mod probe;
mod shell;
mod verdict;

#[cfg(test)]
mod tests;

pub use self::core::{Relay, RelayError};
pub use self::shell::{Handle, Shell, boot_now};
pub use self::verdict::{DropReason, RelayStats, RelayTotals, Side, Targets, Verdict};
