//! The controller's machine: request, decision, approval, arming, session, end.
//!
//! One writer owns a [`World`] and goes round like this:
//!
//! ```text
//! command --decide(&self)--> events --apply(&mut self)--> rows and effects
//!                              |                            |       |
//!                              +-- log entries -------------+       |
//!                                  one transaction, committed       |
//!                                                                   +--> polled and executed after the commit
//! ```
//!
//! `decide` changes nothing; the [`Event`]s it returns are the entries of the log and the only way in which a
//! `World` changes. `apply` is total: replaying all entries into an empty world gives equal rows, which is how an
//! audit finds edited ones. If the commit fails, drop the world and read it again from the rows.
//!
//! Life of a session, as it stands in the rows:
//!
//! ```text
//! request: pending --approval(s)--> approved --activate--> used
//!             |                         |
//!             +-> denied, withdrawn,    +-> lapsed (8 h), withdrawn
//!                 lapsed (30 d)
//!
//! session: arming --armed--> active --release, kill, lock, isolate, policy--> ending --closing record--> ended
//!             |                |                                                 |
//!             |                +--closing record (expired, idle, ...)--> ended   +--deadline passed--> ended
//!             +--refused, 30 s, release, kill, lock, reboot--> ended      (a closing record that comes later
//!                                                                          still delivers its counters)
//! ```
//!
//! Choices, where the contract leaves one:
//! * An `arming` session that is stopped is ended at once: the engineer never learnt the gateway's key.
//! * Extending: the policy decides again, for the whole new length. It must permit all of it, and every approval
//!   that this asks for must be there already; so an extension within the permit's longest time needs no new
//!   approval, and one beyond it is denied.
//! * At activation the policy decides again too; approvals given count if they meet what it asks for now.
//! * A policy that is loaded ends a running session only if a `forbid` now matches it or its task is gone.
//!   A permit that is gone, and an invalid policy, stop new sessions only.
//! * Sessions of a person whose account ends (`--until`) are cut to that moment when they are activated.
//! * Timeouts of a running controller follow its boot clock: setting the wall clock moves no session's end.
#![forbid(unsafe_code)]

mod actor;
mod apply;
mod command;
mod decide;
mod effect;
mod event;
mod pool;
mod record;
mod refusal;
mod rows;
mod timer;
mod view;
mod world;

pub use actor::{Actor, ActorError, Entry};
pub use command::{AgentClock, Answer, AssetSpec, Closing, Command, LockTarget, NewPerson, NewRequest, Note};
pub use effect::{Desired, Effect, Observation};
pub use event::{Ended, Event, LapseReason};
pub use pool::{Pool, PoolError, Pools};
pub use record::{
    Agent, Approval, Asset, Certificate, Denial, Ending, Enrolment, Lock, Person, Request, Session, Site,
};
pub use refusal::{Refusal, Refused};
pub use rows::{RowError, RowKey, RowKind};
pub use world::{Context, Decided, World};

#[cfg(test)]
mod tests;
