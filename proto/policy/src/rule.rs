//! Checked tasks and rules, and whether a rule's keys match.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use thinlane_model::{
    AssetName, AssetType, Criticality, Limits, Login, OrgName, Protocol, Role, Roles, RuleId, SiteName, Span, TaskName,
};

use crate::decide::Ask;

/// What is to be done, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskProfile {
    pub title: String,
    pub protocol: Protocol,
    pub port: u16,
    /// Granted when a request names no time.
    pub default: Span,
    /// The longest time of one session, extensions included.
    pub max: Span,
    /// How much longer than approved an engineer may make a session without asking; absent: up to `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<Span>,
    /// How long a lane may outlive the gateway's channel.
    pub offline: Span,
    /// End the session after this long without a packet.
    pub idle: Option<Span>,
    pub limits: Limits,
}

/// The keys of a rule; an absent one matches everything, all must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Matcher {
    pub roles: Option<Roles>,
    pub users: Option<BTreeSet<Login>>,
    pub orgs: Option<BTreeSet<OrgName>>,
    pub external: Option<bool>,
    pub tasks: Option<BTreeSet<TaskName>>,
    pub assets: Option<BTreeSet<AssetName>>,
    pub types: Option<BTreeSet<AssetType>>,
    pub sites: Option<BTreeSet<SiteName>>,
    pub criticality: Option<BTreeSet<Criticality>>,
    /// Each key must be there with one of its values.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// One complete offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permit {
    pub id: RuleId,
    pub when: Matcher,
    pub max: Option<Span>,
    /// Approvals needed; absent in the file means 1.
    pub approvals: u32,
    pub approver_roles: Roles,
}

/// What is added to whatever it matches, whoever permits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Require {
    pub id: RuleId,
    pub when: Matcher,
    pub max: Option<Span>,
    /// As the task's key of this name; the smallest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<Span>,
    pub approvals: u32,
    pub approver_roles: Roles,
}

/// What denies, whatever permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forbid {
    pub id: RuleId,
    pub when: Matcher,
}

impl Matcher {
    /// The first key that does not match, with what it wants and what there is; `None`: all match.
    pub fn mismatch(&self, ask: &Ask<'_>) -> Option<Mismatch> {
        let one_of = |key, wanted: String, found: String| Some(Mismatch { key, wanted, found });
        if let Some(tasks) = &self.tasks
            && !tasks.contains(ask.task)
        {
            return one_of("task", list(tasks), ask.task.to_string());
        }
        if let Some(roles) = &self.roles
            && roles.is_disjoint(ask.roles)
        {
            return one_of("role", list(roles), list(ask.roles));
        }
        if let Some(users) = &self.users
            && !users.contains(ask.login)
        {
            return one_of("user", list(users), ask.login.to_string());
        }
        if let Some(orgs) = &self.orgs
            && !ask.org.is_some_and(|org| orgs.contains(org))
        {
            return one_of("org", list(orgs), ask.org.map_or_else(|| "none".to_owned(), ToString::to_string));
        }
        if let Some(external) = self.external
            && external != ask.external
        {
            return one_of("external", external.to_string(), ask.external.to_string());
        }
        self.asset_mismatch(ask)
    }

    fn asset_mismatch(&self, ask: &Ask<'_>) -> Option<Mismatch> {
        let asset = &ask.asset;
        let one_of = |key, wanted: String, found: String| Some(Mismatch { key, wanted, found });
        if let Some(names) = &self.assets
            && !names.contains(asset.name)
        {
            return one_of("asset.name", list(names), asset.name.to_string());
        }
        if let Some(types) = &self.types
            && !types.contains(asset.kind)
        {
            return one_of("asset.type", list(types), asset.kind.to_string());
        }
        if let Some(sites) = &self.sites
            && !sites.contains(asset.site)
        {
            return one_of("asset.site", list(sites), asset.site.to_string());
        }
        if let Some(levels) = &self.criticality
            && !levels.contains(&asset.criticality)
        {
            return one_of("asset.criticality", list(levels), asset.criticality.to_string());
        }
        self.labels.iter().find_map(|(key, wanted)| {
            let found = asset.labels.get(key);
            if found.is_some_and(|value| wanted.contains(value)) {
                return None;
            }
            let found = found.map_or_else(|| "none".to_owned(), Clone::clone);
            Some(Mismatch { key: "asset.label", wanted: format!("{key} = {}", list(wanted)), found })
        })
    }

    /// Every person, organisation, site and asset that this rule names, with the kind of each.
    pub fn names(&self) -> impl Iterator<Item = (NameKind, &str)> {
        fn each<'a, T: AsRef<str> + 'a>(
            kind: NameKind,
            names: &'a Option<BTreeSet<T>>,
        ) -> impl Iterator<Item = (NameKind, &'a str)> {
            names.iter().flatten().map(move |name| (kind, name.as_ref()))
        }
        each(NameKind::User, &self.users)
            .chain(each(NameKind::Org, &self.orgs))
            .chain(each(NameKind::Site, &self.sites))
            .chain(each(NameKind::Asset, &self.assets))
    }

    /// The keys that this rule looks at, for the sentence that says why it matched.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        let present = [
            ("task", self.tasks.is_some()),
            ("role", self.roles.is_some()),
            ("user", self.users.is_some()),
            ("org", self.orgs.is_some()),
            ("external", self.external.is_some()),
            ("asset.name", self.assets.is_some()),
            ("asset.type", self.types.is_some()),
            ("asset.site", self.sites.is_some()),
            ("asset.criticality", self.criticality.is_some()),
            ("asset.label", !self.labels.is_empty()),
        ];
        present.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).collect()
    }
}

/// What a rule's name is a name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameKind {
    User,
    Org,
    Site,
    Asset,
}

impl NameKind {
    pub fn as_str(self) -> &'static str {
        match self {
            NameKind::User => "user",
            NameKind::Org => "org",
            NameKind::Site => "site",
            NameKind::Asset => "asset",
        }
    }
}

/// Why a rule does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub key: &'static str,
    pub wanted: String,
    pub found: String,
}

/// Names as a sentence carries them, cut after a few.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<String> = items.into_iter().take(SHOWN + 1).map(|item| item.to_string()).collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("...".to_owned());
    }
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// The role that decides where a rule names none.
pub(crate) fn default_approvers() -> Roles {
    Roles::from([Role::Approver])
}
