//! From an approved request to an interface whose first packet passes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thinlane_model::{AssetName, Boot, Endpoint, PublicKey, RequestId, Secret, SessionId, Span};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, DeviceError, Event, LaneRole, LaneSpec, Userspace, UserspaceConfig};
use thinlane_wire::api::{Activate, Activated};
use tokio::sync::mpsc;

use super::state::alias;
use crate::api::Client;
use crate::api::paths::verb;
use crate::failure::{Exit, Failure, Result};

/// How long the gateway may take to arm the lane. With the handshake it stays below the 30 s of the contract.
const ARMING: Duration = Duration::from_secs(22);
/// How long the whole way up may take.
const ALL: Duration = Duration::from_secs(25);
/// How long a handshake is given at least.
const HANDSHAKE: Duration = Duration::from_secs(6);

/// This end's secrets of one session; never on disk unless a configuration is asked for.
pub struct Keys {
    pub private: Secret,
    pub public: PublicKey,
    pub preshared: Secret,
}

/// A lane that the gateway has armed.
pub struct Armed {
    pub told: Activated,
    pub keys: Keys,
    /// On this machine's boot clock.
    pub deadline: Boot,
    pub asked: Instant,
}

/// An interface of this machine, and the device behind it.
pub struct Lane {
    pub device: Userspace,
    pub events: mpsc::Receiver<Event>,
    pub session: SessionId,
    pub iface: String,
}

/// This machine's boot clock, which also counts while it sleeps.
pub fn boot_clock() -> Boot {
    thinlane_wg::boot().unwrap_or_default()
}

fn make_keys() -> Result<Keys> {
    let odd = |error: thinlane_wg::key::KeyPairError| Failure::failed(format!("make keys: {error}"));
    let (private, public) = thinlane_wg::key::key_pair().map_err(odd)?;
    let preshared = thinlane_wg::key::preshared_key().map_err(odd)?;
    Ok(Keys { private, public, preshared })
}

/// Has the gateway arm the lane of an approved request.
pub async fn activate(client: &Client, request: RequestId, native: bool) -> Result<Armed> {
    let keys = make_keys()?;
    let asked = Instant::now();
    let body = Activate { public_key: keys.public, preshared_key: keys.preshared.to_base64().to_string(), native };
    let (_, told): (_, Activated) = client.post_status(&verb("requests", request, "activate"), &body, ARMING).await?;
    let deadline = boot_clock() + Span::from_millis(told.remaining_ms);
    Ok(Armed { told, keys, deadline, asked })
}

/// Makes the interface, its address and its one route.
pub async fn bring_up(armed: &Armed, asset: &AssetName, iface: Option<&str>) -> Result<Lane> {
    let told = &armed.told;
    let session = told.session.id;
    let endpoint = resolve(&told.endpoint).await?;
    let iface = iface.map_or_else(|| format!("tl-{}", session.short()), str::to_owned);
    let (events, inbox) = mpsc::channel(16);
    let config = UserspaceConfig {
        mtu: told.mtu,
        // Called on the device's thread: handed on without waiting; what does not fit is read from reports.
        events: Some(Box::new(move |event| {
            let _ = events.try_send(event);
        })),
        ..UserspaceConfig::new(iface.clone(), alias(session, std::process::id(), asset))
    };
    let mut device = Userspace::start(config).map_err(|error| device_failed(&error))?;
    device
        .open(LaneSpec {
            session,
            private: armed.keys.private.clone(),
            peer: told.gateway_key,
            preshared: Some(armed.keys.preshared.clone()),
            endpoint: Some(endpoint),
            keepalive: Some(told.keepalive),
            initiate: true,
            role: LaneRole::Engineer { address: told.address, allowed: told.asset_address },
        })
        .map_err(|error| device_failed(&error))?;
    let mut link = Link::open().map_err(super::preflight::failed)?;
    link.add_address(&iface, told.address).map_err(super::preflight::failed)?;
    super::preflight::unclaimed(&mut link, &iface, told.asset_address)?;
    link.add_route(&iface, told.asset_address).map_err(super::preflight::failed)?;
    Ok(Lane { device, events: inbox, session, iface })
}

/// Waits for the first handshake: from then on packets pass.
pub async fn handshake(lane: &mut Lane, armed: &Armed) -> Result<()> {
    let until = Instant::now() + ALL.saturating_sub(armed.asked.elapsed()).max(HANDSHAKE);
    loop {
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            let endpoint = &armed.told.endpoint;
            return Err(Failure::new(
                Exit::Unreachable,
                format!("the gateway of {} does not answer through {endpoint} (UDP)", armed.told.session.site),
            )
            .next(format!("see that a firewall here lets UDP to {endpoint} pass, then try again; thinlane doctor")));
        };
        // The event wakes at once; the report covers one that was dropped.
        match tokio::time::timeout(left.min(Duration::from_millis(200)), lane.events.recv()).await {
            Ok(Some(Event::Handshake(session))) if session == lane.session => return Ok(()),
            Ok(Some(Event::InterfaceGone) | None) => return Err(interface_gone(&lane.iface)),
            Ok(Some(_)) => {}
            Err(_) => {
                if lane.device.report(lane.session).is_some_and(|report| report.last_handshake.is_some()) {
                    return Ok(());
                }
            }
        }
    }
}

pub fn interface_gone(iface: &str) -> Failure {
    Failure::failed(format!("somebody took the interface {iface} away"))
}

/// The first address of a name, IPv4 before IPv6.
async fn resolve(endpoint: &Endpoint) -> Result<SocketAddr> {
    if let Some(address) = endpoint.as_socket_addr() {
        return Ok(address);
    }
    let unknown = |why: String| {
        Failure::new(
            Exit::Unreachable,
            format!("the name {} of the lane's endpoint is not known here: {why}", endpoint.host()),
        )
        .next("ask whoever runs the controller to give --relay-public a name or address that is known here")
    };
    let lookup = tokio::net::lookup_host((endpoint.host(), endpoint.port()));
    let found = match tokio::time::timeout(Duration::from_secs(5), lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(unknown(crate::failure::plain(&error))),
        Err(_) => return Err(unknown("the name server does not answer".to_owned())),
    };
    let mut all: Vec<SocketAddr> = found.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    all.into_iter().next().ok_or_else(|| unknown("it has no address".to_owned()))
}

fn device_failed(error: &DeviceError) -> Failure {
    use DeviceError::Io;
    match error {
        Io { doing, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::failed(format!("{doing}: not permitted here"))
                .next("sudo thinlane ...   # or, without privileges: thinlane up REQ --config-out FILE")
        }
        Io { doing, source } => Failure::failed(format!("{doing}: {}", crate::failure::plain(source))),
        other => Failure::failed(other.to_string()),
    }
}
