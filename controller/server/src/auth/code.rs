//! One-time codes that people read out and type: set-up, enrolment, recovery.

use anyhow::Result;
use zeroize::Zeroizing;

use crate::core::Hashed;

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters between two dashes.
const GROUP: usize = 5;

/// Makes a code of `letters` letters (5 bits each) in groups, as in `7k2m9-q4x0a-...`.
pub fn make(letters: usize) -> Result<Zeroizing<String>> {
    let mut random = Zeroizing::new(vec![0u8; letters]);
    crate::random::fill(&mut random)?;
    let mut text = Zeroizing::new(String::with_capacity(letters + letters / GROUP));
    for (at, byte) in random.iter().enumerate() {
        if at > 0 && at % GROUP == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    Ok(text)
}

/// The hash of a code, however it was typed: case, dashes and spaces do not count, and neither does the
/// difference between letters that look alike.
pub fn hash(typed: &str) -> Hashed {
    Hashed::of(&plain(typed))
}

/// A code as it was made, without its dashes.
pub fn plain(typed: &str) -> Zeroizing<String> {
    let letters =
        typed.chars().take(200).filter(char::is_ascii_alphanumeric).map(|letter| match letter.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        });
    Zeroizing::new(letters.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_again_however_it_is_typed() {
        let code = make(20).expect("randomness");
        assert_eq!(code.len(), 23);
        let shouted = format!("  {} ", code.to_uppercase().replace('-', " ").replace('0', "O").replace('1', "l"));
        assert_eq!(hash(&shouted), hash(&code));
        assert_ne!(hash(&make(20).expect("randomness")), hash(&code));
    }
}
