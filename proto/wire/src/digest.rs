//! One number for a gateway's desired state, so that both ends see at once whether they agree.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use thinlane_model::SessionId;

/// SHA-256 over a desired state: session and serial of each grant, in the order of the sessions.
///
/// The empty state has a digest too; a gateway that holds no state at all names generation 0.
pub fn state_digest(state: &BTreeMap<SessionId, u64>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"thinlane state v1\n");
    for (session, serial) in state {
        hash.update(session.short().as_bytes());
        hash.update(serial.to_be_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_serial_or_session_is_another_digest_and_order_is_none() {
        let session = |byte| SessionId::from_random([byte; 5]);
        let one: BTreeMap<_, _> = [(session(1), 4), (session(2), 5)].into();
        let other: BTreeMap<_, _> = [(session(2), 5), (session(1), 4)].into();
        assert_eq!(state_digest(&one), state_digest(&other));
        assert_ne!(state_digest(&one), state_digest(&[(session(1), 5), (session(2), 4)].into()));
        assert_ne!(state_digest(&one), state_digest(&[(session(1), 4)].into()));
    }
}
