//! MAC1 of a handshake message: shows, without any secret, for whose public key it was written
//! (WireGuard whitepaper, 5.4.4).

use blake2::digest::consts::U16;
use blake2::digest::{Digest, Mac};
use blake2::{Blake2s256, Blake2sMac};
use thinlane_model::PublicKey;

const LABEL: &[u8] = b"mac1----";
/// Length of a handshake initiation, and of the response.
pub(crate) const INITIATION: usize = 148;
pub(crate) const RESPONSE: usize = 92;
/// Both MACs together, at the end of either.
const MACS: usize = 32;

/// Recognises handshake messages for one public key.
#[derive(Clone)]
pub(crate) struct Mac1([u8; 32]);

impl Mac1 {
    pub(crate) fn of(public: &PublicKey) -> Self {
        let hash = Blake2s256::new().chain_update(LABEL).chain_update(public.as_bytes()).finalize();
        Self(hash.into())
    }

    /// Whether this handshake message was written for the key.
    pub(crate) fn matches(&self, message: &[u8]) -> bool {
        let Some((covered, macs)) = message.len().checked_sub(MACS).and_then(|at| message.split_at_checked(at)) else {
            return false;
        };
        let keyed = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(&self.0);
        keyed.is_ok_and(|keyed| keyed.chain_update(covered).verify_slice(&macs[..MACS / 2]).is_ok())
    }
}
