//! Assets: add, import, remove.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use thinlane_model::{AssetName, Label, SiteId};

use super::{Deciding, Outcome, TECH, done, unknown};
use crate::{Answer, Asset, AssetSpec, Decided, Event, Refusal, Site};

/// Assets of one import.
const MOST_IMPORT: usize = 20_000;
const MOST_LABELS: usize = 32;

/// What an import has taken so far.
#[derive(Default)]
struct Taken {
    names: BTreeSet<AssetName>,
    addresses: BTreeMap<(SiteId, Ipv4Addr), AssetName>,
    /// The overlay address given last: all below it are taken.
    overlay: Option<Ipv4Addr>,
}

impl Deciding<'_, '_> {
    pub(super) fn add_asset(&mut self, spec: AssetSpec) -> Outcome {
        self.person_with("adding an asset", TECH)?;
        let asset = self.asset(spec, &mut Taken::default()).map_err(|mut refusals| refusals.swap_remove(0))?;
        let answer = Answer::Assets(vec![(asset.asset.clone(), asset.overlay_address)]);
        Ok(Decided { events: vec![Event::AssetAdded { asset }], answer })
    }

    pub(super) fn import_assets(&mut self, list: Vec<AssetSpec>) -> Outcome {
        self.person_with("importing assets", TECH)?;
        if list.is_empty() || list.len() > MOST_IMPORT {
            let problem = format!("1 to {MOST_IMPORT} assets at a time, not {}", list.len());
            return Err(Refusal::Invalid { field: "import", problem });
        }
        let mut taken = Taken::default();
        let (mut assets, mut errors) = (Vec::new(), Vec::new());
        for spec in list {
            let name = spec.asset.to_string();
            match self.asset(spec, &mut taken) {
                Ok(asset) => assets.push(asset),
                Err(refusals) => errors.extend(refusals.into_iter().map(|refusal| (name.clone(), refusal))),
            }
        }
        if !errors.is_empty() {
            return Err(Refusal::Import(errors));
        }
        let answer = Answer::Assets(assets.iter().map(|it| (it.asset.clone(), it.overlay_address)).collect());
        Ok(Decided { events: assets.into_iter().map(|asset| Event::AssetAdded { asset }).collect(), answer })
    }

    /// The asset, or everything that is in its way: at least one thing.
    fn asset(&self, spec: AssetSpec, taken: &mut Taken) -> Result<Asset, Vec<Refusal>> {
        let mut wrong = Vec::new();
        let mut fine = |done: Result<(), Refusal>| wrong.extend(done.err());
        let site = self.named_site(&spec.site).map_err(|refusal| fine(Err(refusal))).ok();
        if self.world.asset(&spec.asset).is_some() || taken.names.contains(&spec.asset) {
            fine(Err(Refusal::Exists { kind: "asset", name: spec.asset.to_string() }));
        }
        fine(self.unicast(spec.address));
        if let Some(site) = site {
            fine(self.vacant(site, spec.address, taken));
        }
        fine(labels(&spec.labels));
        let Some(site) = site.filter(|_| wrong.is_empty()) else { return Err(wrong) };
        let pool = self.ctx.pools.assets;
        let overlay_address = pool
            .next_free(taken.overlay, |address| self.world.index.overlay.contains_key(&address))
            .filter(|address| taken.overlay.is_none_or(|last| *address > last))
            .ok_or_else(|| vec![Refusal::PoolEmpty { pool: pool.to_string() }])?;
        taken.overlay = Some(overlay_address);
        taken.names.insert(spec.asset.clone());
        taken.addresses.insert((site.id, spec.address), spec.asset.clone());
        Ok(Asset {
            asset: spec.asset,
            site: site.id,
            site_name: site.name.clone(),
            kind: spec.kind,
            criticality: spec.criticality,
            address: spec.address,
            overlay_address,
            labels: spec.labels,
            keep_source: spec.keep_source,
            created_at: self.now(),
        })
    }

    /// An address that no other asset of the site has.
    fn vacant(&self, site: &Site, address: Ipv4Addr, taken: &Taken) -> Result<(), Refusal> {
        if self.world.agents.get(&site.id).is_some_and(|agent| agent.lan.contains(&address)) {
            let problem = format!("{address} is the own address of the gateway of site {}", site.name);
            return Err(Refusal::Invalid { field: "address", problem });
        }
        let place = (site.id, address);
        match self.world.index.site_assets.get(&place).or_else(|| taken.addresses.get(&place)) {
            Some(other) => {
                let problem = format!("{address} is asset {other} at site {} already", site.name);
                Err(Refusal::Invalid { field: "address", problem })
            }
            None => Ok(()),
        }
    }

    /// An address that a device on a LAN can have, and none of the overlay's own.
    fn unicast(&self, address: Ipv4Addr) -> Result<(), Refusal> {
        let invalid = |problem: String| Err(Refusal::Invalid { field: "address", problem });
        let [first, ..] = address.octets();
        if first == 0 || first >= 224 || address.is_loopback() {
            return invalid(format!("{address} is no unicast address of a device"));
        }
        let pools = [self.ctx.pools.assets, self.ctx.pools.engineers];
        match pools.iter().find(|pool| pool.contains(address)) {
            Some(pool) => invalid(format!("{address} is in {pool}, which is the overlay's own")),
            None => Ok(()),
        }
    }

    pub(super) fn remove_asset(&mut self, name: AssetName) -> Outcome {
        self.person_with("removing an asset", TECH)?;
        let asset = self.world.asset(&name).ok_or_else(|| unknown("asset", &name))?;
        if self.world.live_sessions(&asset.site).any(|session| session.asset == name) {
            return Err(Refusal::InUse { asset: name.to_string() });
        }
        done(vec![Event::AssetRemoved { asset: name, site: asset.site }])
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > MOST_LABELS {
        return Err(Refusal::Invalid { field: "label", problem: format!("at most {MOST_LABELS}") });
    }
    for (key, value) in labels {
        let label: Result<Label, _> = format!("{key}={value}").parse();
        // A value with `=` in it would pass for another key's.
        let whole = label.is_ok_and(|label| label.key == *key && label.value == *value);
        if !whole {
            let problem = "key and value have ASCII letters, digits and . _ - + @ only".to_owned();
            return Err(Refusal::Invalid { field: "label", problem });
        }
    }
    Ok(())
}
