//! What the site itself says about itself.

use std::net::Ipv4Addr;

use thinlane_model::{BootId, SiteId, Span, TaskName};
use thinlane_wire::GrantVerifier;

/// Everything that the machine must know of its gateway.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    pub site: SiteId,
    pub boot: BootId,
    /// The keys that the gateway was enrolled with.
    pub verifier: GrantVerifier,
    pub ceilings: Ceilings,
    /// Most lanes at once, those on their way out included.
    pub most_lanes: usize,
    /// `userspace` or `kernel`, for reports.
    pub backend: String,
    /// The site's own switch at the start.
    pub isolated: bool,
}

/// The bounds in `agent.toml` that no controller can lift; `None`: no bound, an empty list: nothing at all.
#[derive(Debug, Clone, Default)]
pub struct Ceilings {
    /// Network address and prefix length, 0 to 32.
    pub assets: Option<Vec<(Ipv4Addr, u8)>>,
    pub ports: Option<Vec<u16>>,
    pub tasks: Option<Vec<TaskName>>,
    /// From the opening of a lane to its end, extensions included.
    pub longest: Option<Span>,
}
