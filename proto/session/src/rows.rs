//! The world as rows, one for each thing, for the store.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::World;

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    User,
    Site,
    Asset,
    Request,
    Session,
    Lock,
    Agent,
    Enrolment,
    Meta,
}

impl RowKind {
    pub const ALL: [RowKind; 9] = [
        RowKind::User,
        RowKind::Site,
        RowKind::Asset,
        RowKind::Request,
        RowKind::Session,
        RowKind::Lock,
        RowKind::Agent,
        RowKind::Enrolment,
        RowKind::Meta,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RowKind::User => "user",
            RowKind::Site => "site",
            RowKind::Asset => "asset",
            RowKind::Request => "request",
            RowKind::Session => "session",
            RowKind::Lock => "lock",
            RowKind::Agent => "agent",
            RowKind::Enrolment => "enrolment",
            RowKind::Meta => "meta",
        }
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.as_str())
    }
}

impl FromStr for RowKind {
    type Err = RowError;
    fn from_str(text: &str) -> Result<Self, RowError> {
        let known = RowKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| RowError::Kind(text.chars().take(40).collect()))
    }
}

/// Names one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    pub kind: RowKind,
    pub id: String,
}

/// Why rows are no world.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("no kind of row {0:?}")]
    Kind(String),
    #[error("row {kind} {id}: {source}")]
    Content { kind: RowKind, id: String, source: serde_json::Error },
    #[error("row {kind} {id} holds another {kind}")]
    Key { kind: RowKind, id: String },
}

impl World {
    /// The rows that changed since the last call, `None` for those that are gone: what the transaction of the
    /// same events has to write.
    pub fn take_changed_rows(&mut self) -> Vec<(RowKey, Option<Value>)> {
        let keys = std::mem::take(&mut self.dirty);
        keys.into_iter().map(|key| (key.clone(), self.row(&key))).collect()
    }

    /// One row as it stands; `None`: there is no such thing.
    pub fn row(&self, key: &RowKey) -> Option<Value> {
        let id = &key.id;
        match key.kind {
            RowKind::User => json(self.people.get(id.as_str())?),
            RowKind::Asset => json(self.assets.get(id.as_str())?),
            RowKind::Site => json(self.sites.get(&id.parse().ok()?)?),
            RowKind::Agent => json(self.agents.get(&id.parse().ok()?)?),
            RowKind::Request => json(self.requests.get(&id.parse().ok()?)?),
            RowKind::Session => json(self.sessions.get(&id.parse().ok()?)?),
            RowKind::Lock => json(self.locks.get(&id.parse().ok()?)?),
            RowKind::Enrolment => json(self.enrolments.get(&id.parse().ok()?)?),
            RowKind::Meta => json(&self.meta),
        }
    }

    /// Every row, in the order of its key.
    pub fn rows(&self) -> impl Iterator<Item = (RowKey, Value)> {
        fn all<'a, K: ToString + 'a, V: serde::Serialize + 'a>(
            kind: RowKind,
            map: impl IntoIterator<Item = (K, V)> + 'a,
        ) -> Box<dyn Iterator<Item = (RowKey, Value)> + 'a> {
            Box::new(
                map.into_iter().filter_map(move |(id, it)| Some((RowKey { kind, id: id.to_string() }, json(&it)?))),
            )
        }
        all(RowKind::User, &self.people)
            .chain(all(RowKind::Site, &self.sites))
            .chain(all(RowKind::Asset, &self.assets))
            .chain(all(RowKind::Request, &self.requests))
            .chain(all(RowKind::Session, &self.sessions))
            .chain(all(RowKind::Lock, &self.locks))
            .chain(all(RowKind::Agent, &self.agents))
            .chain(all(RowKind::Enrolment, &self.enrolments))
            .chain(all(RowKind::Meta, [("controller", &self.meta)]))
    }

    /// Reads a world from its rows, in any order. Call [`World::effects_after_restart`] before going on.
    pub fn from_rows<K: AsRef<str>>(rows: impl IntoIterator<Item = (RowKind, K, Value)>) -> Result<World, RowError> {
        let mut world = World::new();
        for (kind, id, value) in rows {
            world.take_row(kind, id.as_ref(), value)?;
        }
        world.dirty.clear();
        Ok(world)
    }

    fn take_row(&mut self, kind: RowKind, id: &str, value: Value) -> Result<(), RowError> {
        let named = |name: String| {
            if name == id { Ok(()) } else { Err(RowError::Key { kind, id: id.to_owned() }) }
        };
        match kind {
            RowKind::User => {
                let it: crate::Person = read(kind, id, value)?;
                named(it.login.to_string())?;
                self.put_person(it);
            }
            RowKind::Site => {
                let it: crate::Site = read(kind, id, value)?;
                named(it.id.to_string())?;
                self.put_site(it);
            }
            RowKind::Asset => {
                let it: crate::Asset = read(kind, id, value)?;
                named(it.asset.to_string())?;
                self.put_asset(it);
            }
            RowKind::Request => {
                let it: crate::Request = read(kind, id, value)?;
                named(it.id.to_string())?;
                self.put_request(it, None);
            }
            RowKind::Session => {
                let it: crate::Session = read(kind, id, value)?;
                named(it.id.to_string())?;
                self.put_session(it, None);
            }
            RowKind::Lock => {
                let it: crate::Lock = read(kind, id, value)?;
                named(it.id.to_string())?;
                self.put_lock(it, None);
            }
            RowKind::Agent => {
                let it: crate::Agent = read(kind, id, value)?;
                named(it.site.to_string())?;
                self.put_agent(it);
            }
            RowKind::Enrolment => {
                let it: crate::Enrolment = read(kind, id, value)?;
                named(it.id.to_string())?;
                self.put_enrolment(it);
            }
            RowKind::Meta => {
                let it = read(kind, id, value)?;
                named("controller".to_owned())?;
                self.put_meta(|meta| *meta = it);
            }
        }
        Ok(())
    }
}

fn json(it: &impl serde::Serialize) -> Option<Value> {
    // Rows are structs of texts, integers, lists and maps with text keys: nothing that JSON refuses.
    serde_json::to_value(it).ok()
}

fn read<T: DeserializeOwned>(kind: RowKind, id: &str, value: Value) -> Result<T, RowError> {
    serde_json::from_value(value).map_err(|source| RowError::Content { kind, id: id.to_owned(), source })
}
