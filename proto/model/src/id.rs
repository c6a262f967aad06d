//! Typed ids: a prefix that says what it names and eight letters that a person can read out and paste.

use std::fmt;
use std::str::FromStr;

use crate::text::serde_as_text;

/// Letters of an id: Crockford's base 32 in lower case, without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters after the prefix: 40 bits.
pub(crate) const LETTERS: usize = 8;

/// Why a text is not the id that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id of this kind begins with `{prefix}` and goes on with {LETTERS} letters, as in {prefix}7k2m9q4x")]
    Shape { prefix: &'static str },
    #[error("not a boot id: 32 hexadecimal digits, dashes allowed")]
    Boot,
    #[error("not a key id: 16 hexadecimal digits")]
    Key,
}

fn letters(random: [u8; 5]) -> [u8; LETTERS] {
    let bits = random.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    std::array::from_fn(|at| ALPHABET[(bits >> (5 * (LETTERS - 1 - at)) & 31) as usize])
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; LETTERS]);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id of 40 random bits; whoever allocates it checks that it is free.
            pub fn from_random(random: [u8; 5]) -> Self {
                Self(letters(random))
            }

            /// The eight letters after the prefix, for names with little room such as interfaces.
            pub fn short(&self) -> &str {
                std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.pad(&format!("{}{}", $prefix, self.short()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, to)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let shape = IdError::Shape { prefix: $prefix };
                let rest = text.strip_prefix($prefix).ok_or(shape.clone())?;
                let letters: [u8; LETTERS] = rest.as_bytes().try_into().map_err(|_| shape.clone())?;
                letters.iter().all(|letter| ALPHABET.contains(letter)).then_some(Self(letters)).ok_or(shape)
            }
        }

        serde_as_text!($name);
    };
}

id!(
    /// A request for a session.
    RequestId, "req_"
);
id!(
    /// A session: the time that one lane is open.
    SessionId, "ses_"
);
id!(
    /// A site: a place with one gateway.
    SiteId, "site_"
);
id!(
    /// A lock on a person, organisation, site or asset.
    LockId, "lock_"
);
id!(
    /// A one-time enrolment code's public name; the code itself is a secret.
    EnrolmentId, "enr_"
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.pad(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, to)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| $error)?;
                bytes.try_into().map(Self).map_err(|_| $error)
            }
        }

        serde_as_text!($name);
    };
}

hex_id!(
    /// One boot of a gateway: the kernel's `/proc/sys/kernel/random/boot_id`.
    BootId, 16, IdError::Boot
);
hex_id!(
    /// Names a grant-signing key: the first eight bytes of the SHA-256 of its public half.
    KeyId, 8, IdError::Key
);

impl KeyId {
    /// The id of an Ed25519 public key.
    pub fn of(public: &[u8; 32]) -> Self {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(public);
        Self(std::array::from_fn(|at| hash[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself() {
        let id = SessionId::from_random([0xff, 0, 0x12, 0x34, 0x56]);
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert_eq!(id.short().len(), LETTERS);
        assert_eq!(RequestId::from_random([0; 5]).to_string(), "req_00000000");
    }

    #[test]
    fn a_foreign_prefix_letter_or_length_is_refused() {
        for text in ["ses_0000000", "ses_000000000", "req_00000000", "ses_0000000l", "ses_0000000\u{e9}", ""] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_boot_id_is_read_as_the_kernel_prints_it() {
        let text = "4fd3fd4e-68c3-4e5a-a1a5-2c2b8a2f7d10\n";
        let id: BootId = text.parse().expect("the kernel's form");
        assert_eq!(id.to_string(), "4fd3fd4e68c34e5aa1a52c2b8a2f7d10");
        assert!("4fd3".parse::<BootId>().is_err());
    }
}
