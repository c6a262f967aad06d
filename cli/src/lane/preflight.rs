//! What would keep a lane from coming up on this machine, found before a request is used.

use std::net::Ipv4Addr;

use thinlane_model::AssetName;
use thinlane_wg::link::{Link, LinkError, Reach};
use thinlane_wire::api::AssetView;

use super::state::{self, LaneFile, parse_alias};
use crate::failure::{Failure, Result};
use crate::home::Home;
use crate::system::{Obstacle, interfaces};

/// What works without the right to make an interface.
pub const NO_RIGHTS: &str = "thinlane connect ... --forward   # needs no rights: your tool connects to 127.0.0.1; or \
                             sudo thinlane ..., or thinlane up REQ --config-out FILE";

/// What works where there is no interface to be had.
const NO_BACKEND: &str = "thinlane connect ... --forward   # your tool connects to 127.0.0.1; or thinlane up REQ \
                          --config-out FILE and a stock WireGuard client";

/// Whether this process may make interfaces and routes.
pub fn privileges() -> Result<()> {
    let failure = match interfaces::obstacle() {
        None => return Ok(()),
        Some(Obstacle::Unsupported) => {
            return Err(Failure::failed("thinlane makes no network interface on this system").next(NO_BACKEND));
        }
        Some(Obstacle::Unprivileged) => Failure::failed(
            "a lane needs the right to make a network interface (CAP_NET_ADMIN), which you do not have here",
        ),
        Some(Obstacle::Device { path, error }) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::failed(format!("a lane needs {path}, which you may not open"))
        }
        Some(Obstacle::Device { path, error }) => {
            return Err(Failure::failed(format!("a lane needs {path}: {}", crate::failure::plain(&error))).next(
                "thinlane connect ... --forward, which needs none; or modprobe tun, or give the container the device",
            ));
        }
    };
    Err(failure.next(NO_RIGHTS))
}

/// Refuses a second lane to one asset, with or without an interface.
///
/// Another person's lane is seen by its interface, where this process may look at interfaces at all.
pub fn second(home: &Home, asset: &AssetName) -> Result<()> {
    if let Some(lane) = state::all(home)?.iter().find(|lane| holds(home, lane, asset)) {
        return Err(second_lane(asset, &lane.name(), way(lane)));
    }
    let interfaces = Link::open().and_then(|mut link| link.ours()).unwrap_or_default();
    for interface in interfaces {
        if let Some(alias) = interface.alias.as_deref().and_then(parse_alias)
            && alias.asset.as_ref() == Some(asset)
        {
            return Err(second_lane(asset, &alias.session.to_string(), Some(format!("interface {}", interface.name))));
        }
    }
    Ok(())
}

/// Refuses a second lane to one asset, a name that is taken, and an address that leads elsewhere.
pub fn clashes(home: &Home, asset: &AssetView, native: bool, iface: Option<&str>) -> Result<()> {
    second(home, &asset.asset)?;
    let mut link = Link::open().map_err(failed)?;
    if let Some(name) = iface
        && link.interface(name).map_err(failed)?.is_some()
    {
        return Err(Failure::failed(format!("there is an interface {name} already"))
            .next("choose another --iface, or leave it out"));
    }
    let destination = if native { asset.address } else { asset.overlay_address };
    for interface in link.ours().map_err(failed)? {
        let Some(alias) = interface.alias.as_deref().and_then(parse_alias) else { continue };
        let routes = link.routes(&interface.name).unwrap_or_default();
        if routes.contains(&(destination, 32)) {
            let other = alias.asset.map_or("another asset".to_owned(), |asset| asset.to_string());
            return Err(Failure::failed(format!(
                "{destination} of {} leads into the lane {} to {other} ({}) on this machine",
                asset.asset, alias.session, interface.name
            ))
            .next(format!("thinlane down {}   # or connect without --native", alias.session)));
        }
    }
    own_network(&mut link, asset, destination)
}

/// Refuses a lane beside another one to the same asset.
pub fn only_one(home: &Home, own: &LaneFile) -> Result<()> {
    let lanes = state::all(home)?;
    match lanes.iter().find(|lane| lane.request != own.request && holds(home, lane, &own.asset)) {
        Some(other) => Err(second_lane(&own.asset, &other.name(), way(other))),
        None => Ok(()),
    }
}

fn holds(home: &Home, lane: &LaneFile, asset: &AssetName) -> bool {
    lane.asset == *asset && !lane.is_exported() && lane.holder.is_alive(home)
}

/// Refuses an address that another lane leads to: a route is moved silently, and with it what uses it.
pub fn unclaimed(link: &mut Link, own: &str, destination: Ipv4Addr) -> Result<()> {
    for interface in link.ours().map_err(failed)? {
        if interface.name != own && link.routes(&interface.name).unwrap_or_default().contains(&(destination, 32)) {
            return Err(Failure::failed(format!("{destination} leads into another lane, {}", interface.name))
                .next("thinlane down   # closes what this person has open here"));
        }
    }
    Ok(())
}

/// Refuses an address that this machine itself has, or that it reaches the world through.
fn own_network(link: &mut Link, asset: &AssetView, destination: Ipv4Addr) -> Result<()> {
    for interface in link.interfaces().map_err(failed)? {
        let own = link.addresses(&interface.name).unwrap_or_default();
        if own.iter().any(|(address, _)| *address == destination) {
            return Err(Failure::failed(format!(
                "{destination} of {} is an address of this machine ({})",
                asset.asset, interface.name
            ))
            .next("connect without --native: the overlay address is unique"));
        }
    }
    if usual_ways(link).iter().any(|way| way.router == Some(destination.into())) {
        return Err(Failure::failed(format!("{destination} of {} is the router of this machine", asset.asset))
            .next("connect without --native: the overlay address is unique"));
    }
    Ok(())
}

/// The ways that packets take which have no route of their own.
///
/// The documentation networks (RFC 5737) are nobody's, though one of them may be used on a link all the same.
pub fn usual_ways(link: &mut Link) -> Vec<Reach> {
    let nobodys = [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]];
    nobodys.into_iter().filter_map(|address| link.reach(address.into()).ok().flatten()).collect()
}

/// How a lane is used, in words.
fn way(lane: &LaneFile) -> Option<String> {
    let forward = lane.forward.map(|local| format!("at {local}"));
    forward.or_else(|| lane.iface.as_ref().map(|iface| format!("interface {iface}")))
}

fn second_lane(asset: &AssetName, session: &str, way: Option<String>) -> Failure {
    let by = way.map(|way| format!(", {way}")).unwrap_or_default();
    Failure::failed(format!("this machine has a lane to {asset} already ({session}{by})"))
        .next(format!("use it, or close it: thinlane down {session}"))
}

pub fn failed(error: LinkError) -> Failure {
    Failure::failed(error.to_string())
}
