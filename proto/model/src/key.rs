//! WireGuard keys: public ones are shown, secret ones are neither shown nor kept longer than used.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::text::serde_as_text;

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a key: 44 letters of base 64 that stand for 32 bytes")]
    Shape,
    #[error("not a usable public key: all zero")]
    Zero,
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let mut bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| KeyError::Shape)?;
    let key = bytes.as_slice().try_into().map_err(|_| KeyError::Shape);
    bytes.zeroize();
    key
}

/// A Curve25519 public key, in text as WireGuard writes it (base 64 with padding).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes 32 bytes; the all-zero key, which agrees on a known secret with everybody, is refused.
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        if bytes == [0; 32] { Err(KeyError::Zero) } else { Ok(Self(bytes)) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(decode(text)?)
    }
}

serde_as_text!(PublicKey);

/// A private or preshared key of 32 bytes: wiped when dropped, never printed, serialized only on purpose.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for the cipher.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret in base 64, for a WireGuard configuration or a frame to its owner.
    pub fn to_base64(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(BASE64.encode(&self.0))
    }

    /// Reads base 64.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new([0x41; 32]);
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(Secret::from_base64(&secret.to_base64()), Ok(secret));
    }

    #[test]
    fn a_public_key_of_zeros_or_of_another_length_is_refused() {
        assert_eq!(BASE64.encode(&[0; 32]).parse::<PublicKey>(), Err(KeyError::Zero));
        assert_eq!(BASE64.encode(&[1; 31]).parse::<PublicKey>(), Err(KeyError::Shape));
        assert!(BASE64.encode(&[1; 32]).parse::<PublicKey>().is_ok());
    }
}
