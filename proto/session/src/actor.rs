//! Who did something, and one entry of the log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thinlane_model::{Login, SiteId, Wall};

use crate::Event;

/// Who issues a command; in text `person:alice`, `agent:site_...` or `system`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// Somebody who is logged in.
    Person(Login),
    /// A gateway, known by its certificate.
    Agent(SiteId),
    /// The controller itself: start, timeouts, policy loads, enrolment.
    System,
}

/// Why a text is no actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an actor is person:LOGIN, agent:SITE or system")]
pub struct ActorError;

impl fmt::Display for Actor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Person(login) => write!(to, "person:{login}"),
            Actor::Agent(site) => write!(to, "agent:{site}"),
            Actor::System => to.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = ActorError;
    fn from_str(text: &str) -> Result<Self, ActorError> {
        match text.split_once(':') {
            None if text == "system" => Ok(Actor::System),
            Some(("person", login)) => login.parse().map(Actor::Person).map_err(|_| ActorError),
            Some(("agent", site)) => site.parse().map(Actor::Agent).map_err(|_| ActorError),
            _ => Err(ActorError),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One entry of the log: an event, who caused it and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this form, 1.
    pub schema: u32,
    pub time: Wall,
    pub actor: Actor,
    /// Written beside the other keys; its `kind` is the entry's.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    pub const SCHEMA: u32 = 1;

    /// Wraps an event; `time` is the wall clock that it was decided with.
    pub fn new(time: Wall, actor: Actor, event: Event) -> Self {
        Self { schema: Self::SCHEMA, time, actor, event }
    }
}
