//! Why a session ended, and why a gateway refused a grant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word used in JSON, in the log and on the screen.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(())
            }
        }
    };
}

reasons!(
    /// Why a session ended.
    EndReason {
        /// The engineer let it go.
        Released = "released",
        /// Its deadline passed.
        Expired = "expired",
        /// Ops stopped it.
        Killed = "killed",
        /// The person, organisation, site or asset was locked.
        Locked = "locked",
        /// Nothing was sent for longer than the task allows.
        Idle = "idle",
        /// The site's own switch closed it.
        Isolated = "isolated",
        /// The gateway was without its controller for longer than the task allows.
        Offline = "offline",
        /// The policy that permitted it was withdrawn.
        Policy = "policy",
        /// It could not be opened, or the gateway lost it (a reboot, a refusal, a kernel error).
        Failed = "failed",
    }
);

reasons!(
    /// Why a gateway opened nothing for a grant; each one is reported.
    RefuseReason {
        /// The bytes are no grant.
        Undecodable = "undecodable",
        /// No signature of the controller this gateway was enrolled with.
        Signature = "signature",
        /// For another site.
        Site = "site",
        /// For another boot of this gateway.
        Boot = "boot",
        /// Its deadline has passed, or lies further away than any grant's may.
        Deadline = "deadline",
        /// Its session has ended here already, or a newer grant of it was seen.
        Replayed = "replayed",
        /// The asset's address is beyond the ceiling in agent.toml.
        CeilingAsset = "ceiling-asset",
        /// The port is beyond the ceiling in agent.toml.
        CeilingPort = "ceiling-port",
        /// The task is beyond the ceiling in agent.toml.
        CeilingTask = "ceiling-task",
        /// It would last longer than the ceiling in agent.toml.
        CeilingLongest = "ceiling-longest",
        /// Its /32 or an address is in use by another live session, or is none of a lane's.
        Address = "address",
        /// The site's own switch is on.
        Isolated = "isolated",
        /// The gateway is not ready: a flowtable, a foreign rule, a missing kernel feature.
        NotReady = "not-ready",
        /// As many lanes are open as the gateway takes.
        Full = "full",
        /// The kernel refused to build the lane, or did not read back as asked.
        Kernel = "kernel",
        /// The preshared key is missing: the controller was restarted between minting and sending.
        Preshared = "preshared",
    }
);
