//! Closing records: the gateway's signed last word on a session.

use std::fmt;

use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message;
use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, BootId, EndReason, SessionId, SiteId};

use crate::message::{MessageError, SessionCounters};
use crate::pb;

/// Stands before the signed bytes, so that no signature of another purpose can be taken for a record's.
const DOMAIN: &[u8] = b"thinlane closing v1\n";
/// The longest record in bytes.
const LONGEST: usize = 2048;

/// What a gateway says when a session's lane is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosingRecord {
    pub site: SiteId,
    /// The boot whose clock `opened` and `closed` are of.
    pub boot: BootId,
    pub session: SessionId,
    /// Of the last grant that stood; 0: none ever did.
    pub serial: u64,
    pub reason: EndReason,
    /// `None`: the lane never stood.
    pub opened: Option<Boot>,
    pub closed: Boot,
    pub counters: SessionCounters,
    /// The kernel was read back, and nothing of the lane is left.
    pub verified: bool,
    /// Packets that came after the end.
    pub late_packets: u64,
}

/// A closing record as bytes, with the signature of the gateway's identity key over exactly them.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedClosing {
    record: Vec<u8>,
    signature: [u8; 64],
}

/// Why a closing record is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosingError {
    #[error("the signature is not this gateway's over this record")]
    Signature,
    #[error("the signed bytes are no closing record: {0}")]
    Record(#[from] MessageError),
}

impl ClosingRecord {
    /// The record's bytes, over which [`closing_message`] is signed.
    pub fn encode(&self) -> Vec<u8> {
        pb::ClosingRecord {
            site: self.site.to_string(),
            boot_id: self.boot.0.to_vec(),
            session: self.session.to_string(),
            serial: self.serial,
            reason: self.reason.to_string(),
            opened_boot_ms: self.opened.map_or(0, |at| at.0.max(1)),
            closed_boot_ms: self.closed.0,
            counters: Some(self.counters.to_pb()),
            verified: self.verified,
            late_packets: self.late_packets,
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > LONGEST {
            return Err(MessageError::Field("record"));
        }
        let from = pb::ClosingRecord::decode(bytes)?;
        let odd = MessageError::Field;
        let session: SessionId = from.session.parse().map_err(|_| odd("session"))?;
        let counters = SessionCounters::from_pb(from.counters.ok_or(odd("counters"))?)?;
        if counters.session != session {
            return Err(odd("counters"));
        }
        Ok(Self {
            site: from.site.parse().map_err(|_| odd("site"))?,
            boot: BootId(from.boot_id.as_slice().try_into().map_err(|_| odd("boot id"))?),
            session,
            serial: from.serial,
            reason: from.reason.parse().map_err(|()| odd("reason"))?,
            opened: Some(from.opened_boot_ms).filter(|at| *at != 0).map(Boot),
            closed: Boot(from.closed_boot_ms),
            counters,
            verified: from.verified,
            late_packets: from.late_packets,
        })
    }
}

/// What the identity key signs for a record: its purpose, then the record's bytes.
pub fn closing_message(record: &[u8]) -> Vec<u8> {
    [DOMAIN, record].concat()
}

impl SignedClosing {
    /// Puts a record's bytes and the signature over [`closing_message`] of them together.
    pub fn new(record: Vec<u8>, signature: [u8; 64]) -> Self {
        Self { record, signature }
    }

    /// Checks the signature strictly, then reads the record.
    pub fn verify(&self, key: &VerifyingKey) -> Result<ClosingRecord, ClosingError> {
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&closing_message(&self.record), &signature).map_err(|_| ClosingError::Signature)?;
        Ok(ClosingRecord::decode(&self.record)?)
    }

    /// The record, believed by nobody: for looking up whose it claims to be.
    pub fn peek(&self) -> Result<ClosingRecord, MessageError> {
        ClosingRecord::decode(&self.record)
    }

    pub(crate) fn to_pb(&self) -> pb::Closing {
        pb::Closing { record: self.record.clone(), signature: self.signature.to_vec() }
    }

    pub(crate) fn from_pb(from: pb::Closing) -> Result<Self, MessageError> {
        if from.record.is_empty() || from.record.len() > LONGEST {
            return Err(MessageError::Field("record"));
        }
        let signature = from.signature.as_slice().try_into().map_err(|_| MessageError::Field("signature"))?;
        Ok(Self { record: from.record, signature })
    }
}

impl fmt::Debug for SignedClosing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_tuple("SignedClosing").field(&self.peek()).finish()
    }
}

/// How a signed record is kept in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    record: String,
    signature: String,
}

impl Serialize for SignedClosing {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Stored { record: BASE64.encode(&self.record), signature: BASE64.encode(&self.signature) }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for SignedClosing {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(from)?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom);
        let signature = bytes(&stored.signature)?;
        let signature = signature.try_into().map_err(|_| serde::de::Error::custom("a signature has 64 bytes"))?;
        Ok(Self { record: bytes(&stored.record)?, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn signed() -> (SigningKey, SignedClosing, ClosingRecord) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let session = SessionId::from_random([3; 5]);
        let record = ClosingRecord {
            site: SiteId::from_random([1; 5]),
            boot: BootId([2; 16]),
            session,
            serial: 9,
            reason: EndReason::Killed,
            opened: Some(Boot(5)),
            closed: Boot(6),
            counters: SessionCounters::none(session),
            verified: true,
            late_packets: 1,
        };
        let bytes = record.encode();
        let signature = key.sign(&closing_message(&bytes)).to_bytes();
        (key, SignedClosing::new(bytes, signature), record)
    }

    #[test]
    fn a_record_reads_back_as_signed_and_any_flipped_bit_is_found() {
        let (key, closing, record) = signed();
        assert_eq!(closing.verify(&key.verifying_key()), Ok(record));
        for at in 0..closing.record.len() * 8 {
            let mut bad = closing.clone();
            bad.record[at / 8] ^= 1 << (at % 8);
            assert_eq!(bad.verify(&key.verifying_key()), Err(ClosingError::Signature));
        }
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(closing.verify(&stranger), Err(ClosingError::Signature));
    }

    #[test]
    fn a_record_survives_a_file() {
        let (_, closing, _) = signed();
        let text = serde_json::to_string(&closing).expect("plain data");
        assert_eq!(serde_json::from_str::<SignedClosing>(&text).expect("its own output"), closing);
    }
}
