//! Grants as signed bytes: what the controller signs and the gateway opens.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use data_encoding::BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thinlane_model::{
    Boot, BootId, Endpoint, Grant, KeyId, Limits, PolicyRef, Protocol, PublicKey, Secret, SessionId, Span, Tuple,
};
use zeroize::Zeroize;

use crate::pb;

/// Stands before the signed bytes, so that no signature of another purpose can be taken for a grant's.
const DOMAIN: &[u8] = b"thinlane grant v1\n";
/// The longest body in bytes.
const LONGEST_BODY: usize = 4096;
/// The longest policy id or hash in bytes.
const LONGEST_TEXT: usize = 128;

/// Why signed bytes are no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("no grant-signing key {0} is known here")]
    UnknownKey(String),
    #[error("the signature is not the controller's over these bytes")]
    Signature,
    #[error("the signed bytes are no grant")]
    Undecodable,
    #[error("the grant's {0} is missing or none that a lane can have")]
    Field(&'static str),
}

/// A grant's bytes, the signature over exactly them, and the preshared key while it is on its way.
///
/// Serializes as base 64 without the preshared key.
#[derive(Clone, PartialEq)]
pub struct SignedGrant(pb::SignedGrant);

/// Signs grants with the controller's key.
pub struct GrantSigner {
    key: SigningKey,
    id: KeyId,
}

/// Opens grants signed with any of the keys the gateway was enrolled with.
#[derive(Clone, Default)]
pub struct GrantVerifier {
    keys: BTreeMap<KeyId, VerifyingKey>,
}

impl GrantSigner {
    /// Signs with `key`.
    pub fn new(key: SigningKey) -> Self {
        let id = KeyId::of(key.verifying_key().as_bytes());
        Self { key, id }
    }

    /// The id that every grant signed here carries.
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// The public half, which gateways are enrolled with.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs `grant`. The same grant always gives the same bytes and signature (Ed25519 is deterministic).
    pub fn sign(&self, grant: &Grant, preshared: Option<&Secret>) -> SignedGrant {
        let body = to_body(grant).encode_to_vec();
        let signature = self.key.sign(&message(&body)).to_bytes().to_vec();
        let preshared = preshared.map(|secret| secret.expose().to_vec()).unwrap_or_default();
        SignedGrant(pb::SignedGrant { body, key_id: self.id.0.to_vec(), signature, preshared })
    }
}

impl GrantVerifier {
    /// Trusts these keys; each one's id follows from it.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self { keys: keys.into_iter().map(|key| (KeyId::of(key.as_bytes()), key)).collect() }
    }

    /// Checks the signature first (strictly: no malleable form, no weak key), then reads the grant, and refuses
    /// whatever is incomplete or odd.
    pub fn open(&self, signed: &SignedGrant) -> Result<(Grant, Option<Secret>), GrantError> {
        let signed = &signed.0;
        if signed.body.len() > LONGEST_BODY {
            return Err(GrantError::Undecodable);
        }
        let unknown =
            || GrantError::UnknownKey(data_encoding::HEXLOWER.encode(&signed.key_id[..signed.key_id.len().min(8)]));
        let id: [u8; 8] = signed.key_id.as_slice().try_into().map_err(|_| unknown())?;
        let key = self.keys.get(&KeyId(id)).ok_or_else(unknown)?;
        let signature = Signature::from_slice(&signed.signature).map_err(|_| GrantError::Signature)?;
        key.verify_strict(&message(&signed.body), &signature).map_err(|_| GrantError::Signature)?;
        let preshared = match signed.preshared.as_slice() {
            [] => None,
            bytes => Some(Secret::new(bytes.try_into().map_err(|_| GrantError::Field("preshared key"))?)),
        };
        let body = pb::GrantBody::decode(signed.body.as_slice()).map_err(|_| GrantError::Undecodable)?;
        Ok((from_body(&body)?, preshared))
    }
}

impl SignedGrant {
    /// The session and serial that the bytes name, believed by nobody: for naming a refused grant in a report.
    pub fn peek(&self) -> Option<(SessionId, u64)> {
        if self.0.body.len() > LONGEST_BODY {
            return None;
        }
        let body = pb::GrantBody::decode(self.0.body.as_slice()).ok()?;
        Some((body.session.parse().ok()?, body.serial))
    }

    /// The same grant without its preshared key.
    pub fn without_preshared(&self) -> Self {
        Self(pb::SignedGrant {
            body: self.0.body.clone(),
            key_id: self.0.key_id.clone(),
            signature: self.0.signature.clone(),
            preshared: Vec::new(),
        })
    }

    /// What tells these bytes from any others: body, key id and signature.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.0.body, &self.0.key_id, &self.0.signature] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Whether a preshared key comes with it.
    pub fn has_preshared(&self) -> bool {
        !self.0.preshared.is_empty()
    }

    pub(crate) fn to_pb(&self) -> pb::SignedGrant {
        self.0.clone()
    }
}

impl From<pb::SignedGrant> for SignedGrant {
    fn from(signed: pb::SignedGrant) -> Self {
        Self(signed)
    }
}

impl Drop for SignedGrant {
    fn drop(&mut self) {
        self.0.preshared.zeroize();
    }
}

impl fmt::Debug for SignedGrant {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, to)
    }
}

impl fmt::Debug for pb::SignedGrant {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = pb::GrantBody::decode(self.body.as_slice()).map(|body| (body.session, body.serial));
        to.debug_struct("SignedGrant").field("names", &named.ok()).finish_non_exhaustive()
    }
}

impl fmt::Debug for GrantSigner {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("GrantSigner").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for GrantVerifier {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_set().entries(self.keys.keys()).finish()
    }
}

/// How a signed grant is kept in a file: everything but the preshared key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    body: String,
    key_id: KeyId,
    signature: String,
}

impl Serialize for SignedGrant {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let id: [u8; 8] = self.0.key_id.as_slice().try_into().map_err(|_| serde::ser::Error::custom("key id"))?;
        let signature = BASE64.encode(&self.0.signature);
        Stored { body: BASE64.encode(&self.0.body), key_id: KeyId(id), signature }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for SignedGrant {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(from)?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom);
        Ok(Self(pb::SignedGrant {
            body: bytes(&stored.body)?,
            key_id: stored.key_id.0.to_vec(),
            signature: bytes(&stored.signature)?,
            preshared: Vec::new(),
        }))
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

/// Whether a lane can have this address at either end.
pub fn is_lane_address(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

fn to_body(grant: &Grant) -> pb::GrantBody {
    pb::GrantBody {
        serial: grant.serial,
        site: grant.site.to_string(),
        boot_id: grant.boot.0.to_vec(),
        session: grant.session.to_string(),
        asset: grant.asset.to_string(),
        task: grant.task.to_string(),
        engineer_key: grant.engineer_key.as_bytes().to_vec(),
        engineer: grant.tuple.engineer.into(),
        destination: grant.tuple.destination.into(),
        address: grant.tuple.address.into(),
        protocol: u32::from(grant.tuple.protocol.number()),
        port: u32::from(grant.tuple.port),
        keep_source: grant.keep_source,
        // 0 says "no limit" on the wire, so a limit of nothing is written as the smallest one.
        packets_per_second: grant.limits.packets_per_second.map_or(0, |most| most.max(1)),
        connections: grant.limits.connections.map_or(0, |most| most.max(1)),
        deadline_boot_ms: grant.deadline.0,
        offline_ms: grant.offline.as_millis(),
        idle_ms: grant.idle.map_or(0, |idle| idle.as_millis().max(1)),
        policy_id: grant.policy.id.clone(),
        policy_hash: grant.policy.hash.clone(),
        relay: grant.relay.as_ref().map(Endpoint::to_string).unwrap_or_default(),
    }
}

fn from_body(body: &pb::GrantBody) -> Result<Grant, GrantError> {
    let odd = GrantError::Field;
    let address = |bits: u32, name| Some(Ipv4Addr::from(bits)).filter(|at| is_lane_address(*at)).ok_or(odd(name));
    let text = |text: &String, name| {
        let fits = !text.is_empty() && text.len() <= LONGEST_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(text.clone()) } else { Err(odd(name)) }
    };
    let above_zero = |number: u64, name| if number == 0 { Err(odd(name)) } else { Ok(number) };
    let tuple = Tuple {
        engineer: address(body.engineer, "engineer address")?,
        destination: address(body.destination, "destination")?,
        address: address(body.address, "asset address")?,
        protocol: match body.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return Err(odd("protocol")),
        },
        port: u16::try_from(body.port).ok().filter(|port| *port != 0).ok_or(odd("port"))?,
    };
    if tuple.engineer == tuple.destination || tuple.engineer == tuple.address {
        return Err(odd("engineer address"));
    }
    let engineer_key: [u8; 32] = body.engineer_key.as_slice().try_into().map_err(|_| odd("engineer key"))?;
    Ok(Grant {
        serial: above_zero(body.serial, "serial")?,
        site: body.site.parse().map_err(|_| odd("site"))?,
        boot: BootId(body.boot_id.as_slice().try_into().map_err(|_| odd("boot id"))?),
        session: body.session.parse().map_err(|_| odd("session"))?,
        asset: body.asset.parse().map_err(|_| odd("asset"))?,
        task: body.task.parse().map_err(|_| odd("task"))?,
        engineer_key: PublicKey::new(engineer_key).map_err(|_| odd("engineer key"))?,
        tuple,
        keep_source: body.keep_source,
        limits: Limits {
            packets_per_second: Some(body.packets_per_second).filter(|most| *most != 0),
            connections: Some(body.connections).filter(|most| *most != 0),
        },
        deadline: Boot(above_zero(body.deadline_boot_ms, "deadline")?),
        offline: Span::from_millis(above_zero(body.offline_ms, "offline time")?),
        idle: Some(body.idle_ms).filter(|idle| *idle != 0).map(Span::from_millis),
        policy: PolicyRef { id: text(&body.policy_id, "policy id")?, hash: text(&body.policy_hash, "policy hash")? },
        relay: match body.relay.as_str() {
            "" => None,
            relay => Some(relay.parse().map_err(|_| odd("relay"))?),
        },
    })
}

#[cfg(test)]
mod tests;
