//! WireGuard messages and probes with MACs that are right, written beside the code that checks them.

use blake2::digest::Mac as _;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};

fn mac(key: &[u8], covered: &[u8]) -> [u8; 16] {
    let mac = Blake2sMac::<U16>::new_from_slice(key).expect("BLAKE2s takes keys of 32 bytes");
    mac.chain_update(covered).finalize().into_bytes().into()
}

/// MAC1 of an initiation or a response to the owner of `to`.
pub(super) fn mac1(message: &[u8], to: &[u8; 32]) -> Option<[u8; 16]> {
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(to).finalize();
    Some(mac(&key, message.get(..message.len().checked_sub(32)?)?))
}

/// Puts MAC1 right.
pub(super) fn stamp(message: &mut [u8], to: &[u8; 32]) {
    let Some(mac) = mac1(message, to) else { return };
    let at = message.len() - 32;
    message[at..at + 16].copy_from_slice(&mac);
}

/// Whether an initiation or a response has the MAC1 of the owner of `to`.
pub(super) fn is_stamped(message: &[u8], to: &[u8; 32]) -> bool {
    let Some(mac) = mac1(message, to) else { return false };
    message[message.len() - 32..][..16] == mac
}

/// The MAC of a probe, which is its end, over all before it.
pub(super) fn probe(bytes: &[u8], secret: &[u8]) -> Option<[u8; 16]> {
    Some(mac(secret, bytes.get(..bytes.len().checked_sub(16)?)?))
}

/// A message of this kind and length with `content` behind its type.
pub(super) fn message(kind: u8, length: usize, content: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], content].concat();
    message.resize(length, 0x5a);
    message
}
