//! Asks this machine, the controller and the relay; what is slow runs side by side, within some five seconds.

use std::net::Ipv4Addr;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use reqwest::Url;
use serde_json::json;
use thinlane_doctor::{Look, NetworkFacts, RelayFact, look};
use thinlane_model::Endpoint;
use thinlane_wg::link::{Link, Reach};
use thinlane_wire::ProbeTicket;
use thinlane_wire::api::{AssetView, ProbeView, WhoAmI};

use super::Facts;
use crate::api::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::lane::state::{self, parse_alias};
use crate::lane::{leftovers, preflight};
use crate::out::time;
use crate::system::files;

/// For each answer of the controller.
const PATIENCE: Duration = Duration::from_secs(3);
/// Assets whose addresses are looked at.
const MOST_ASSETS: usize = 200;

pub(super) async fn gather(context: &Context) -> Facts {
    let url = context.controller();
    let ca = context.anonymous().and_then(|_| context.home.read_ca());
    let no_controller = url.as_ref().err().or(ca.as_ref().err()).cloned();
    let reachable = url.ok().zip(ca.ok().flatten());
    let (network, who, assets) = match reachable {
        Some((url, ca)) => {
            let client = context.client();
            let (network, who, assets) =
                tokio::join!(the_network(url, ca, client.clone()), who(client.clone()), assets(client));
            (network, Some(who), assets)
        }
        None => (None, None, Vec::new()),
    };
    let pools = network.as_ref().map(|network| network.pools.clone()).unwrap_or_default();
    let (lanes, left_over) = lanes(context);
    Facts {
        now: time::now(),
        exposed: exposed(context),
        unwritable: unwritable(context),
        no_controller,
        network,
        who,
        no_privilege: preflight::privileges().err(),
        lanes,
        left_over,
        taken: taken(pools.into_iter().map(|pool| Ipv4Addr::from(u32::from(pool.address) + 1)).chain(assets)),
    }
}

/// The way to controller and relay, with a ticket that this log-in gets.
async fn the_network(
    url: Url,
    ca: rustls_pki_types::CertificateDer<'static>,
    client: Result<Client>,
) -> Option<NetworkFacts> {
    let host = url.host_str().unwrap_or_default();
    let controller: Endpoint = format!("{host}:{}", url.port_or_known_default().unwrap_or(7443)).parse().ok()?;
    let (tell, told) = sync_channel::<std::result::Result<ProbeTicket, String>>(1);
    let looking = tokio::task::spawn_blocking(move || {
        let late = || Err("the controller gave no ticket in time".to_owned());
        look(&Look { controller, ca }, move || {
            told.recv_timeout(PATIENCE + Duration::from_secs(1)).unwrap_or_else(|_| late())
        })
    });
    let ticket = ticket(client).await;
    // It waits for this; if it does not any more, it has ended without.
    let _ = tell.send(ticket);
    looking.await.ok()
}

async fn ticket(client: Result<Client>) -> std::result::Result<ProbeTicket, String> {
    let client = client.map_err(|failure| failure.message)?;
    let view: ProbeView = match tokio::time::timeout(PATIENCE, client.post("/probe", &json!({}))).await {
        Ok(Ok(view)) => view,
        Ok(Err(failure)) => return Err(failure.message),
        Err(_) => return Err("the controller gave no ticket in time".to_owned()),
    };
    view.ticket().ok_or_else(|| "the controller's ticket cannot be read".to_owned())
}

async fn who(client: Result<Client>) -> Result<WhoAmI> {
    let client = client?;
    match tokio::time::timeout(PATIENCE, client.get("/whoami")).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(Exit::Unreachable, "the controller did not say in time who you are")),
    }
}

/// Overlay addresses of assets that this person sees.
async fn assets(client: Result<Client>) -> Vec<Ipv4Addr> {
    let Ok(client) = client else { return Vec::new() };
    match tokio::time::timeout(PATIENCE, client.list::<AssetView>("/assets", MOST_ASSETS)).await {
        Ok(Ok(assets)) => assets.iter().take(MOST_ASSETS).map(|asset| asset.overlay_address).collect(),
        _ => Vec::new(),
    }
}

/// What others on this machine can look into.
fn exposed(context: &Context) -> Option<(String, String)> {
    let home = &context.home;
    let all = [home.token_file(), home.lanes_dir(), home.state_dir().to_owned()];
    all.iter().find_map(|path| Some((path.display().to_string(), files::closing(path)?)))
}

/// Why nothing can be written into the state directory; a log-in made it, so without one there is nothing to try.
fn unwritable(context: &Context) -> Option<String> {
    let dir = context.home.state_dir();
    if !dir.is_dir() {
        return None;
    }
    let trial = dir.join(format!(".doctor.{}", std::process::id()));
    let failed = context.home.write(&trial, &[b' '; 4096]).err();
    let _ = std::fs::remove_file(&trial);
    failed.map(|failure| failure.message)
}

/// Lanes that are open here, and those whose process is gone.
fn lanes(context: &Context) -> (usize, Vec<String>) {
    let lanes = state::all(&context.home).unwrap_or_default();
    let (alive, dead): (Vec<_>, Vec<_>) =
        lanes.iter().filter(|lane| !lane.is_exported()).partition(|lane| lane.holder.is_alive(&context.home));
    let mut dead: Vec<String> = dead.into_iter().map(state::LaneFile::name).collect();
    dead.extend(leftovers::orphans().into_iter().map(|(iface, _)| iface));
    (alive.len(), dead)
}

/// The first of these addresses that a route of its own leads elsewhere.
fn taken(addresses: impl Iterator<Item = Ipv4Addr>) -> Option<(Ipv4Addr, String)> {
    let mut link = Link::open().ok()?;
    let ours: Vec<String> = link
        .ours()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| interface.alias.as_deref().and_then(parse_alias).is_some())
        .map(|interface| interface.name)
        .collect();
    let usual = preflight::usual_ways(&mut link);
    for address in addresses {
        let Ok(Some(reach)) = link.reach(address) else { continue };
        if is_foreign(&reach, &usual) && !ours.contains(&reach.interface) {
            return Some((address, reach.interface));
        }
    }
    None
}

fn is_foreign(reach: &Reach, usual: &[Reach]) -> bool {
    !usual.iter().any(|usual| usual.interface == reach.interface && usual.router == reach.router)
}

/// Whether the network was looked at with a ticket.
pub(super) fn was_probed(network: &NetworkFacts) -> bool {
    !matches!(network.relay, RelayFact::NotTried(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_route_of_its_own_is_foreign() {
        let usual =
            Reach { interface: "eth0".into(), source: Ipv4Addr::LOCALHOST, router: Some(Ipv4Addr::LOCALHOST.into()) };
        let other = Reach { interface: "tun0".into(), ..usual.clone() };
        assert!(!is_foreign(&usual, &[other.clone(), usual.clone()]));
        assert!(is_foreign(&other, std::slice::from_ref(&usual)));
        assert!(is_foreign(&usual, &[]));
    }
}
