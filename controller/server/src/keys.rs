//! The two Ed25519 keys of a controller: one signs grants, one signs the log's checkpoints.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::dir::{read_text, write_private};

/// Makes a key and writes it (0600).
pub fn create(path: &Path) -> Result<SigningKey> {
    let seed = Zeroizing::new(crate::random::bytes::<32>()?);
    let text = Zeroizing::new(format!("{}\n", BASE64.encode(seed.as_slice())));
    write_private(path, text.as_bytes())?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Reads a key.
pub fn load(path: &Path) -> Result<SigningKey> {
    let text = read_text(path)?;
    let bytes =
        Zeroizing::new(BASE64.decode(text.trim().as_bytes()).with_context(|| format!("{} is no key", path.display()))?);
    let seed: [u8; 32] =
        bytes.as_slice().try_into().map_err(|_| anyhow!("{} is no key of 32 bytes", path.display()))?;
    Ok(SigningKey::from_bytes(&Zeroizing::new(seed)))
}
