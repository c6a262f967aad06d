//! From an approved request to an interface whose first packet passes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thinlane_forward::{Door, Forward};
use thinlane_model::{AssetName, Boot, Counters, Path, Protocol, PublicKey, RequestId, Secret, SessionId, Span};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, DeviceError, Event, LaneRole, LaneSpec, Userspace, UserspaceConfig};
use thinlane_wire::api::{Activate, Activated};
use tokio::sync::mpsc;

use super::forward::Hints;
use super::places::{self, Places};
use super::state::alias;
use super::ways::{Moved, Outside, Way, Ways};
use crate::api::Client;
use crate::api::paths::verb;
use crate::failure::{Exit, Failure, Result};
use crate::out::Out;

/// How long the gateway may take to arm the lane. With the handshake it stays below the 30 s of the contract.
const ARMING: Duration = Duration::from_secs(22);
/// How long the whole way up may take.
const ALL: Duration = Duration::from_secs(25);
/// How long a handshake is given at least.
const HANDSHAKE: Duration = Duration::from_secs(6);
/// How long a gateway's own endpoint has to answer before the relay is tried.
const DIRECT: Duration = Duration::from_secs(2);

/// What fits 1 280 bytes, which every IPv6 path carries (RFC 8200, 5), with IPv6, UDP and WireGuard around it.
const ANY_PATH: u16 = 1280 - 40 - 8 - 32;

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

/// This machine's end of a lane.
pub struct Lane {
    pub session: SessionId,
    /// It began at the relay, because the name of the gateway's own endpoint is not known here.
    unknown: bool,
    end: End,
}

/// How programs get into it.
enum End {
    /// An interface of this machine, the device behind it, and where that may send.
    Interface { device: Userspace, events: mpsc::Receiver<Event>, name: String, ways: Box<Ways> },
    /// A port on 127.0.0.1, and where the gateway may be.
    Forward { forward: Box<Forward>, hints: Hints, ways: Vec<Way> },
}

/// What a lane says unasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A handshake was completed: packets pass.
    Handshake,
    /// Something that the person should know.
    Hint(String),
    /// It goes another way.
    Moved(Moved),
    /// It is gone, and not because we ended it.
    Gone,
    Nothing,
}

impl Lane {
    /// The interface's name; `None`: it has none.
    pub fn iface(&self) -> Option<&str> {
        match &self.end {
            End::Interface { name, .. } => Some(name),
            End::Forward { .. } => None,
        }
    }

    /// Where it is used instead of an interface.
    pub fn forward(&self) -> Option<SocketAddr> {
        match &self.end {
            End::Interface { .. } => None,
            End::Forward { forward, .. } => Some(forward.local_addr()),
        }
    }

    /// The way that it takes, where there is more than one.
    pub fn way(&self) -> Option<&Way> {
        match &self.end {
            End::Interface { ways, .. } => ways.chosen(),
            End::Forward { forward, ways, .. } => ways.get(forward.way()).filter(|_| ways.len() > 1),
        }
    }

    /// What it says next.
    pub async fn next(&mut self) -> Said {
        match &mut self.end {
            End::Interface { events, .. } => match events.recv().await {
                Some(Event::Handshake(session)) if session == self.session => Said::Handshake,
                Some(Event::InterfaceGone) | None => Said::Gone,
                Some(_) => Said::Nothing,
            },
            End::Forward { forward, hints, ways } => match forward.event().await {
                Some(thinlane_forward::Event::Handshake) => Said::Handshake,
                Some(thinlane_forward::Event::Hint(hint)) if hints.is_news(hint, Instant::now()) => {
                    Said::Hint(hint.to_string())
                }
                Some(thinlane_forward::Event::Hint(_)) => Said::Nothing,
                Some(thinlane_forward::Event::Way(news)) => Moved::of(news, ways).map_or(Said::Nothing, Said::Moved),
                None => Said::Gone,
            },
        }
    }

    /// What it has carried, as this end counts it.
    pub fn counters(&mut self) -> Counters {
        match &mut self.end {
            End::Interface { device, .. } => {
                device.report(self.session).map(|report| report.counters).unwrap_or_default()
            }
            End::Forward { forward, .. } => forward.counters(),
        }
    }

    /// Ends it; `open`: the gateway's end is still open, so that the asset can be told.
    pub async fn close(self, open: bool) {
        match self.end {
            End::Interface { device, .. } => drop(device),
            End::Forward { forward, .. } => forward.close(open).await,
        }
    }

    /// Why it is gone.
    pub fn gone(&self) -> Failure {
        match &self.end {
            End::Interface { name, .. } => interface_gone(name),
            End::Forward { .. } => Failure::failed("the lane was closed because thinlane itself failed"),
        }
    }

    /// Goes another way from now on, because the first led nowhere; `false`: there is none, or it finds its way itself.
    fn give_way_up(&mut self) -> bool {
        match &mut self.end {
            End::Interface { device, ways, .. } => {
                ways.give_up().is_some_and(|other| device.set_endpoint(self.session, other).is_ok())
            }
            End::Forward { .. } => false,
        }
    }

    /// Goes another way if the gateway has stopped answering; to be called about once a second. What is new is said.
    /// Without an interface a lane finds its way itself, and says so in [`Lane::next`].
    pub fn watch_way(&mut self, now: Boot) -> Option<Moved> {
        let End::Interface { device, ways, .. } = &mut self.end else { return None };
        let report = device.report(self.session)?;
        let seen = Outside {
            received: report.rx_bytes,
            sent: report.tx_bytes,
            from: report.endpoint,
            in_vain: report.in_vain,
        };
        let turn = ways.look(now, seen);
        if let Some(to) = turn.go
            && let Err(error) = device.set_endpoint(self.session, to)
        {
            // The device has stopped; it says so itself.
            tracing::debug!(%error, "the lane stays on its way");
        }
        turn.said
    }

    fn has_shaken_hands(&mut self) -> bool {
        match &mut self.end {
            End::Interface { device, .. } => {
                device.report(self.session).is_some_and(|report| report.last_handshake.is_some())
            }
            // Its events wait; none is dropped before they are looked at.
            End::Forward { .. } => false,
        }
    }
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
    let Places { first, second, unknown } = places::find(told).await?;
    let endpoint = first.address;
    let mtu = mtu(told, [Some(&first), second.as_ref()].into_iter().flatten().any(|way| way.address.is_ipv6()));
    let ways = if unknown { Ways::one_of_two(first) } else { Ways::new(first, second) };
    let iface = iface.map_or_else(|| format!("tl-{}", session.short()), str::to_owned);
    let (events, inbox) = mpsc::channel(16);
    let config = UserspaceConfig {
        mtu,
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
            fallback: None,
            keepalive: Some(told.keepalive),
            initiate: true,
            role: LaneRole::Engineer { address: told.address, allowed: told.asset_address },
        })
        .map_err(|error| device_failed(&error))?;
    let mut link = Link::open().map_err(super::preflight::failed)?;
    link.add_address(&iface, told.address).map_err(super::preflight::failed)?;
    super::preflight::unclaimed(&mut link, &iface, told.asset_address)?;
    link.add_route(&iface, told.asset_address).map_err(super::preflight::failed)?;
    let end = End::Interface { device, events: inbox, name: iface, ways: Box::new(ways) };
    Ok(Lane { session, unknown, end })
}

/// Ends the lane in this process, behind a local port.
pub async fn forward(armed: &Armed, door: Door) -> Result<Lane> {
    let forward = Box::new(super::forward::start(armed, door).await?);
    let (first, second) = places::ways(&armed.told);
    let ways = std::iter::once(first).chain(second).collect();
    // It has tried nothing yet: what it does not begin with has no address here.
    let unknown = forward.way() != 0;
    Ok(Lane { session: armed.told.session.id, unknown, end: End::Forward { forward, hints: Hints::default(), ways } })
}

/// Waits for the first handshake: from then on packets pass. A gateway with an endpoint of its own is tried there
/// first, and then through the relay; `out` is told why it is not taken there.
pub async fn handshake(lane: &mut Lane, armed: &Armed, out: Out) -> Result<()> {
    let own = &armed.told.endpoint;
    if lane.unknown {
        out.hint(&format!("the name {} is not known here; going through the relay", own.host()));
    }
    let given_up = || out.hint(&format!("{own} does not answer; going through the relay"));
    let until = Instant::now() + ALL.saturating_sub(armed.asked.elapsed()).max(HANDSHAKE);
    let mut fallback = Some(Instant::now() + DIRECT);
    loop {
        if fallback.take_if(|at| Instant::now() >= *at).is_some() && lane.give_way_up() {
            given_up();
        }
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            let endpoint = match &armed.told.fallback {
                None => own.to_string(),
                Some(relay) if lane.unknown => relay.to_string(),
                Some(relay) => format!("{own} or {relay}"),
            };
            return Err(Failure::new(
                Exit::Unreachable,
                format!("the gateway of {} does not answer through {endpoint} (UDP)", armed.told.session.site),
            )
            .next(format!("see that a firewall here lets UDP to {endpoint} pass, then try again; thinlane doctor")));
        };
        // The event wakes at once; the report covers one that was dropped.
        match tokio::time::timeout(left.min(Duration::from_millis(200)), lane.next()).await {
            Ok(Said::Handshake) => {
                let relayed = lane.way().is_some_and(|way| way.path == Path::Relay);
                if lane.forward().is_some() && relayed && !lane.unknown {
                    given_up();
                }
                return Ok(());
            }
            Ok(Said::Gone) => return Err(lane.gone()),
            Ok(Said::Hint(_) | Said::Moved(_) | Said::Nothing) => {}
            Err(_) if lane.has_shaken_hands() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// The longest packet of a lane: over IPv6, where nobody on the way cuts what is too long and routers may keep quiet about
/// it, TCP is kept within what every path carries.
pub fn mtu(told: &Activated, over_ipv6: bool) -> u16 {
    match told.session.protocol {
        Protocol::Tcp if over_ipv6 => told.mtu.min(ANY_PATH),
        Protocol::Tcp | Protocol::Udp => told.mtu,
    }
}

fn interface_gone(iface: &str) -> Failure {
    Failure::failed(format!("somebody took the interface {iface} away"))
}

fn device_failed(error: &DeviceError) -> Failure {
    use DeviceError::Io;
    match error {
        Io { doing, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::failed(format!("{doing}: not permitted here")).next(super::preflight::NO_RIGHTS)
        }
        Io { doing, source } => Failure::failed(format!("{doing}: {}", crate::failure::plain(source))),
        other => Failure::failed(other.to_string()),
    }
}
