//! The words of Thinlane, as checked types: ids, names, keys, flows, grants, durations and reasons.
//!
//! Everything here is a value. A value that exists is well formed, so no other crate checks it again.
//! No I/O, clock or randomness: random bytes and the time are arguments.
#![forbid(unsafe_code)]

mod asset;
mod counters;
mod flow;
mod grant;
mod id;
mod key;
mod name;
mod reason;
mod role;
mod text;
mod time;

pub use asset::{Criticality, CriticalityError};
pub use counters::Counters;
pub use flow::{Endpoint, EndpointError, PacketVerdict, Path, Protocol, ProtocolError, Tuple};
pub use grant::{Grant, Limits, PolicyRef};
pub use id::{BootId, EnrolmentId, IdError, KeyId, LockId, RequestId, SessionId, SiteId};
pub use key::{KeyError, PublicKey, Secret};
pub use name::{AssetName, AssetType, Label, Login, NameError, OrgName, RuleId, SiteName, TaskName};
pub use reason::{EndReason, RefuseReason};
pub use role::{Role, RoleError, Roles};
pub use time::{Boot, DurationError, Now, Span, Wall, WallError};
