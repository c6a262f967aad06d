//! X25519 key pairs, in the one version of the curve that the WireGuard implementation takes.

use thinlane_model::{PublicKey, Secret};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// The operating system gave no randomness, or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    #[error("the operating system gave no randomness: {0}")]
    Randomness(getrandom::Error),
    #[error("not a usable private key")]
    Unusable,
}

/// Makes a key pair from the operating system's randomness.
pub fn key_pair() -> Result<(Secret, PublicKey), KeyPairError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).map_err(KeyPairError::Randomness)?;
    // Clamped as RFC 7748 says and as `wg genkey` stores it.
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
    let secret = Secret::new(*bytes);
    let public = public_of(&secret)?;
    Ok((secret, public))
}

/// Makes a preshared key.
pub fn preshared_key() -> Result<Secret, KeyPairError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).map_err(KeyPairError::Randomness)?;
    Ok(Secret::new(*bytes))
}

/// The public half of a private key.
pub fn public_of(secret: &Secret) -> Result<PublicKey, KeyPairError> {
    let private = StaticSecret::from(*secret.expose());
    PublicKey::new(x25519_dalek::PublicKey::from(&private).to_bytes()).map_err(|_| KeyPairError::Unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, 6.1.
    #[test]
    fn a_known_private_key_has_its_known_public_half() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let secret = Secret::from_base64(private).expect("a key");
        assert_eq!(public_of(&secret).expect("a key").to_string(), public);
    }

    #[test]
    fn two_pairs_differ_and_agree() {
        let (one, one_public) = key_pair().expect("randomness");
        let (two, two_public) = key_pair().expect("randomness");
        assert_ne!(one, two);
        let shared = |mine: &Secret, theirs: &PublicKey| {
            StaticSecret::from(*mine.expose())
                .diffie_hellman(&x25519_dalek::PublicKey::from(*theirs.as_bytes()))
                .to_bytes()
        };
        assert_eq!(shared(&one, &two_public), shared(&two, &one_public));
    }
}
