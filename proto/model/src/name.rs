//! Names that people choose: short, printable, safe in a file name, a log line and a shell.

use std::fmt;
use std::str::FromStr;

use crate::text::serde_as_text;

/// The longest name, in bytes.
pub(crate) const LONGEST: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has 1 to {LONGEST} letters, not {0}")]
    Length(usize),
    #[error("a name begins with an ASCII letter or digit, not {0:?}")]
    First(char),
    #[error("a name has ASCII letters, digits and . _ - + @ only, not {0:?}")]
    Letter(char),
    #[error("a label is written key=value")]
    Label,
}

fn check(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Length(0))?;
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::First(first));
    }
    let odd = |letter: &char| !(letter.is_ascii_alphanumeric() || "._-+@".contains(*letter));
    match text.chars().find(odd) {
        Some(letter) => Err(NameError::Letter(letter)),
        None if text.len() > LONGEST => Err(NameError::Length(text.len())),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, to)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        serde_as_text!($name);
    };
}

name!(
    /// A person's log-in name.
    Login
);
name!(
    /// An organisation: a contractor, a manufacturer.
    OrgName
);
name!(
    /// A device at a site.
    AssetName
);
name!(
    /// What kind of device an asset is, in the operator's own words: `rtu`, `plc`, `meter`.
    AssetType
);
name!(
    /// A site's name, as people say it; its id never changes, its name may.
    SiteName
);
name!(
    /// A task profile.
    TaskName
);
name!(
    /// A policy rule, named in every decision it takes part in.
    RuleId
);

/// One `key=value` on an asset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (key, value) = text.split_once('=').ok_or(NameError::Label)?;
        check(key)?;
        check(value)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_use_are_taken() {
        for text in ["rtu-7", "alice", "alice@acme.example", "RTU_7.b", "7", &"x".repeat(LONGEST)] {
            assert_eq!(text.parse::<AssetName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_that_could_hurt_a_shell_a_path_or_a_screen_are_refused() {
        for text in ["", "-rf", ".", "../x", "a b", "a/b", "a\nb", "a;b", "\u{1b}[2J", "é", &"x".repeat(LONGEST + 1)] {
            assert!(text.parse::<AssetName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_label_needs_its_two_halves() {
        assert_eq!("owner=acme".parse::<Label>().map(|label| label.value), Ok("acme".to_owned()));
        for text in ["owner", "=acme", "owner=", "a b=c"] {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }
}
