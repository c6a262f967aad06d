//! The world as the API shows it, with what only the connections and the relay know.

use thinlane_model::{Path, SessionId, SiteId};
use thinlane_session::World;
use thinlane_wire::api::{SessionView, SiteView};

use crate::channel::Channels;

/// A session; its endpoint is where the relay sees the engineer, on a relayed path.
pub fn session(world: &World, relay: &thinlane_relay::Handle, id: &SessionId) -> Option<SessionView> {
    let mut view = world.session_view(id, crate::clock::now())?;
    if view.path == Path::Relay {
        view.endpoint = engineer(relay, *id).or(view.endpoint);
    }
    Some(view)
}

/// Where the relay sees the engineer of a session that it carries.
pub fn engineer(relay: &thinlane_relay::Handle, id: SessionId) -> Option<String> {
    relay.stats(id).and_then(|stats| stats.engineer).map(|address| address.to_string())
}

/// A site; whether it is online, since when and how far its clock is off.
pub fn site(world: &World, channels: &Channels, id: &SiteId) -> Option<SiteView> {
    let seen = channels.seen(id);
    let online = seen.as_ref().is_some_and(|seen| seen.online);
    let mut view = world.site_view(id, online)?;
    if let Some(seen) = seen {
        view.last_seen_at = Some(seen.at);
        view.clock_offset_ms = seen.clock_offset_ms;
    }
    Some(view)
}
