//! MAC1 of a handshake message: shows, without any secret, for whose public key it was written
//! (WireGuard whitepaper, 5.4.4).

use blake2::digest::consts::U16;
use blake2::digest::{Digest, Mac};
use blake2::{Blake2s256, Blake2sMac};
use thinlane_model::PublicKey;

const LABEL: &[u8] = b"mac1----";
/// Length of a handshake initiation, and of what its MAC1 covers.
pub(crate) const INITIATION: usize = 148;
const COVERED: usize = 116;

/// Recognises initiations for one public key.
#[derive(Clone)]
pub(crate) struct Mac1([u8; 32]);

impl Mac1 {
    pub(crate) fn of(public: &PublicKey) -> Self {
        let hash = Blake2s256::new().chain_update(LABEL).chain_update(public.as_bytes()).finalize();
        Self(hash.into())
    }

    /// Whether this initiation was written for the key.
    pub(crate) fn matches(&self, initiation: &[u8]) -> bool {
        let (Some(covered), Some(mac)) = (initiation.get(..COVERED), initiation.get(COVERED..COVERED + 16)) else {
            return false;
        };
        let keyed = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(&self.0);
        keyed.is_ok_and(|keyed| keyed.chain_update(covered).verify_slice(mac).is_ok())
    }
}
