//! Devices.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use serde_json::json;
use thinlane_model::{AssetName, Label, SiteName};
use thinlane_wire::api::{self, AssetView, Done, ErrorCode, ImportAssets, List, NewAsset};

use super::csv;
use crate::api::Client;
use crate::api::paths::{item, query};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{Table, text};

/// What the controller takes as one body, with some room to spare.
const LARGEST_BODY: usize = 1_000_000;

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Asset {
    /// Add a device
    Add(Add),
    /// List devices
    Ls {
        /// Only those at this site
        #[arg(long)]
        site: Option<SiteName>,
    },
    /// Show one device
    Show {
        /// The asset's name
        asset: AssetName,
    },
    /// Take a device out of the inventory
    Rm {
        /// The asset's name
        asset: AssetName,
    },
    /// Add many devices from a CSV file: all of them, or none
    ///
    /// The first line is `asset,site,address,type,criticality,labels`; the last two columns may be left out.
    /// Labels are written `owner=acme;bay=7`.
    Import {
        /// The CSV file; thinlane-assets(5) describes it
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Args)]
pub struct Add {
    /// Its name, unique among all sites: letters, digits and . _ - + @
    asset: AssetName,
    /// Where it stands
    #[arg(long)]
    site: SiteName,
    /// Its address in the site's LAN
    #[arg(long)]
    address: Ipv4Addr,
    /// What it is: rtu, plc, meter ..
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// How much depends on it
    #[arg(long, default_value = "medium")]
    criticality: Criticality,
    /// A label that policies can ask for; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Criticality {
    Low,
    Medium,
    High,
}

impl From<Criticality> for api::Criticality {
    fn from(level: Criticality) -> Self {
        match level {
            Criticality::Low => api::Criticality::Low,
            Criticality::Medium => api::Criticality::Medium,
            Criticality::High => api::Criticality::High,
        }
    }
}

pub async fn run(context: &Context, command: Asset) -> Result<()> {
    let client = context.client()?;
    let out = context.out;
    match command {
        Asset::Add(add) => {
            let asset: AssetView = client.post("/assets", &new_asset(add)?).await?;
            out.show(&asset, show)
        }
        Asset::Ls { site } => {
            let path = query("/assets", &[("site", site.map(|site| site.to_string()))]);
            let assets: Vec<AssetView> = client.list(&path, usize::MAX).await?;
            out.list(&assets, "there is no asset yet; thinlane asset add, or asset import FILE.csv", table)
        }
        Asset::Show { asset } => {
            let asset: AssetView = client.get(&item("assets", asset)).await?;
            out.show(&asset, show)
        }
        Asset::Rm { asset } => {
            let _: Done = client.delete(&item("assets", &asset)).await?;
            out.show(&json!({ "asset": asset, "removed": true }), |_| format!("{asset} is removed"))
        }
        Asset::Import { file } => {
            let added = import(&client, &file).await?;
            out.list(&added.items, "nothing was added", table)?;
            out.hint(&format!("{} added", text::count(added.items.len() as u64, "asset")));
            Ok(())
        }
    }
}

/// All assets of a file, or everything that is wrong with it: ours and the controller's in one go.
async fn import(client: &Client, file: &Path) -> Result<List<AssetView>> {
    let mut inventory = match csv::read(file) {
        Ok(inventory) => inventory,
        Err(failure) => {
            // Whoever may not import is told that, and not what is wrong with the file.
            check(client, Vec::new()).await?;
            return Err(failure);
        }
    };
    let assets = std::mem::take(&mut inventory.assets);
    if !inventory.is_sound() {
        let theirs = check(client, assets).await?;
        return Err(inventory.refused(&theirs));
    }
    let body = ImportAssets { assets, check: false };
    let size = serde_json::to_vec(&body).map_or(0, |bytes| bytes.len());
    if size > LARGEST_BODY {
        check(client, Vec::new()).await?;
        return Err(Failure::failed(format!("{} assets are too many for one import", body.assets.len()))
            .next(format!("split {} into {} files", file.display(), size / LARGEST_BODY + 1)));
    }
    client.post("/assets/import", &body).await.map_err(|failure| match failure.code {
        Some(ErrorCode::Invalid) => inventory.refused(&failure.message),
        _ => failure,
    })
}

/// What the controller has against an import, without importing anything; fails where it takes none from this person.
async fn check(client: &Client, assets: Vec<NewAsset>) -> Result<String> {
    let body = ImportAssets { assets, check: true };
    match client.post::<List<AssetView>>("/assets/import", &body).await {
        Ok(_) => Ok(String::new()),
        Err(failure) if failure.code == Some(ErrorCode::Invalid) => Ok(failure.message),
        Err(failure) if failure.exit == Exit::Denied => Err(failure),
        // What is wrong with the file is known all the same.
        Err(_) => Ok(String::new()),
    }
}

fn new_asset(add: Add) -> Result<NewAsset> {
    let mut labels = BTreeMap::new();
    for label in add.labels {
        if let Some(before) = labels.insert(label.key.clone(), label.value) {
            return Err(Failure::usage(format!("--label {} is given twice, first as {before}", label.key)));
        }
    }
    Ok(NewAsset {
        asset: add.asset,
        site: add.site,
        address: add.address,
        kind: add.kind,
        criticality: add.criticality.into(),
        labels,
    })
}

fn criticality(level: api::Criticality) -> &'static str {
    match level {
        api::Criticality::Low => "low",
        api::Criticality::Medium => "medium",
        api::Criticality::High => "high",
    }
}

fn labels(asset: &AssetView) -> String {
    text::joined(asset.labels.iter().map(|(key, value)| format!("{key}={value}")))
}

fn table(assets: &[AssetView]) -> Table {
    let mut table = Table::new(&["asset", "site", "type", "address", "overlay", "criticality", "labels", "locked"]);
    for asset in assets {
        table.row([
            asset.asset.to_string(),
            asset.site.to_string(),
            asset.kind.clone(),
            asset.address.to_string(),
            asset.overlay_address.to_string(),
            criticality(asset.criticality).to_owned(),
            labels(asset),
            if asset.locked { "locked" } else { "" }.to_owned(),
        ]);
    }
    table
}

fn show(asset: &AssetView) -> String {
    text::pairs(&[
        ("asset", asset.asset.to_string()),
        ("site", asset.site.to_string()),
        ("type", asset.kind.clone()),
        ("address", format!("{} (in the site's LAN)", asset.address)),
        ("overlay address", asset.overlay_address.to_string()),
        ("criticality", criticality(asset.criticality).to_owned()),
        ("labels", labels(asset)),
        ("locked", if asset.locked { "yes" } else { "" }.to_owned()),
    ])
}
