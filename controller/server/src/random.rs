//! Randomness from the kernel.

use anyhow::{Result, anyhow};

/// `N` random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    fill(&mut out)?;
    Ok(out)
}

/// Fills `out` with random bytes.
pub fn fill(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|error| anyhow!("the kernel gives no randomness: {error}"))
}
