//! The file as TOML has it, before anything is checked; spans lead errors to their line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub(crate) type Words = Spanned<Vec<Spanned<String>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub task: BTreeMap<String, Spanned<Task>>,
    #[serde(default)]
    pub permit: Vec<Spanned<Permit>>,
    #[serde(default)]
    pub require: Vec<Spanned<Require>>,
    #[serde(default)]
    pub forbid: Vec<Spanned<Forbid>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub title: Spanned<String>,
    pub protocol: Spanned<String>,
    pub port: Spanned<i64>,
    pub default: Option<Spanned<String>>,
    pub max: Option<Spanned<String>>,
    pub extend: Option<Spanned<String>>,
    pub offline: Option<Spanned<String>>,
    pub idle: Option<Spanned<String>>,
    pub limits: Option<Limits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub packets_per_second: Option<Spanned<i64>>,
    pub connections: Option<Spanned<i64>>,
}

/// The keys that every kind of rule has.
pub(crate) struct When<'a> {
    pub role: &'a Option<Words>,
    pub user: &'a Option<Words>,
    pub org: &'a Option<Words>,
    pub external: Option<bool>,
    pub task: &'a Option<Words>,
    pub asset: &'a Option<Asset>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asset {
    pub name: Option<Words>,
    pub r#type: Option<Words>,
    pub site: Option<Words>,
    pub criticality: Option<Words>,
    #[serde(default)]
    pub label: BTreeMap<String, Spanned<OneOrMany>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a label's value is a text or a list of texts")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

macro_rules! rule {
    ($name:ident { $($field:ident : $type:ty,)* }) => {
        // serde's flatten would lose unknown-key checks and spans, so the shared keys are written into each.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            pub id: Spanned<String>,
            pub role: Option<Words>,
            pub user: Option<Words>,
            pub org: Option<Words>,
            pub external: Option<bool>,
            pub task: Option<Words>,
            pub asset: Option<Asset>,
            $(pub $field: $type,)*
        }

        impl $name {
            pub(crate) fn when(&self) -> When<'_> {
                When {
                    role: &self.role,
                    user: &self.user,
                    org: &self.org,
                    external: self.external,
                    task: &self.task,
                    asset: &self.asset,
                }
            }
        }
    };
}

rule!(Permit { max: Option<Spanned<String>>, approvals: Option<Spanned<i64>>, approver_role: Option<Words>, });
rule!(Require {
    max: Option<Spanned<String>>,
    extend: Option<Spanned<String>>,
    approvals: Option<Spanned<i64>>,
    approver_role: Option<Words>,
});
rule!(Forbid {});
