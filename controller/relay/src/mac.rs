//! MAC1: the proof that a handshake message is meant for the owner of a public key (WireGuard, section 5.4.4).

use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest};
use subtle::ConstantTimeEq;
use thinlane_model::PublicKey;

/// What MAC1 of messages to one public key is made with: BLAKE2s("mac1----" || key).
#[derive(Clone)]
pub(crate) struct Mac1Key([u8; 32]);

impl Mac1Key {
    pub(crate) fn of(key: &PublicKey) -> Self {
        Self(Blake2s256::new().chain_update(b"mac1----").chain_update(key.as_bytes()).finalize().into())
    }

    /// MAC1 over the bytes of a message before it.
    pub(crate) fn over(&self, covered: &[u8]) -> [u8; 16] {
        let mac = Blake2sMac::<U16>::new_from_slice(&self.0).expect("BLAKE2s takes keys of 32 bytes");
        mac.chain_update(covered).finalize().into_bytes().into()
    }

    /// Whether `mac` is MAC1 over `covered` for this key's owner.
    #[must_use]
    pub(crate) fn fits(&self, covered: &[u8], mac: &[u8; 16]) -> bool {
        self.over(covered).ct_eq(mac).into()
    }
}
