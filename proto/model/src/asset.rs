//! What an asset is: its kind and how much hangs on it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much hangs on an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criticality {
    Low,
    #[default]
    Medium,
    High,
}

/// Why a text is not a criticality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a criticality is low, medium or high, not {0:?}")]
pub struct CriticalityError(String);

impl Criticality {
    pub const ALL: [Criticality; 3] = [Criticality::Low, Criticality::Medium, Criticality::High];

    pub fn as_str(self) -> &'static str {
        match self {
            Criticality::Low => "low",
            Criticality::Medium => "medium",
            Criticality::High => "high",
        }
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.as_str())
    }
}

impl FromStr for Criticality {
    type Err = CriticalityError;
    fn from_str(text: &str) -> Result<Self, CriticalityError> {
        Criticality::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| CriticalityError(text.chars().take(20).collect()))
    }
}
