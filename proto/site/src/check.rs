//! Whether a grant with a good signature may open here.

use std::net::Ipv4Addr;

use thinlane_model::{Boot, Grant, RefuseReason, Span};
use thinlane_wire::GrantError;

use crate::config::{Ceilings, SiteConfig};

/// No grant's deadline lies further away than this.
const LONGEST: Span = Span::from_secs(31 * 24 * 3600);

/// Why a grant opens nothing, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: RefuseReason,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: RefuseReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        let reason = match error {
            GrantError::UnknownKey(_) | GrantError::Signature => RefuseReason::Signature,
            GrantError::Undecodable | GrantError::Field(_) => RefuseReason::Undecodable,
        };
        Self::new(reason, error.to_string())
    }
}

/// What concerns the grant alone: whom it is for, until when, and the site's ceilings. `opened` is when its lane
/// opened, for an extension; a new lane opens now.
pub(crate) fn check(grant: &Grant, config: &SiteConfig, opened: Option<Boot>, now: Boot) -> Result<(), Refusal> {
    let refuse = |reason, detail: String| Err(Refusal { reason, detail });
    if grant.site != config.site {
        return refuse(RefuseReason::Site, format!("meant for {}, this is {}", grant.site, config.site));
    }
    if grant.boot != config.boot {
        return refuse(RefuseReason::Boot, format!("meant for boot {}, this is {}", grant.boot, config.boot));
    }
    if grant.deadline <= now {
        return refuse(RefuseReason::Deadline, format!("passed {} ago", grant.deadline.until(now)));
    }
    if now.until(grant.deadline) > LONGEST {
        return refuse(RefuseReason::Deadline, format!("{} away", now.until(grant.deadline)));
    }
    check_ceilings(grant, &config.ceilings, opened.unwrap_or(now).until(grant.deadline))
}

fn check_ceilings(grant: &Grant, ceilings: &Ceilings, lasts: Span) -> Result<(), Refusal> {
    let refuse = |reason, detail: String| Err(Refusal { reason, detail });
    let address = grant.tuple.address;
    if ceilings.assets.as_ref().is_some_and(|nets| !nets.iter().any(|net| contains(*net, address))) {
        return refuse(RefuseReason::CeilingAsset, format!("{address} is not among the site's assets"));
    }
    if ceilings.ports.as_ref().is_some_and(|ports| !ports.contains(&grant.tuple.port)) {
        return refuse(RefuseReason::CeilingPort, format!("port {}", grant.tuple.port));
    }
    if ceilings.tasks.as_ref().is_some_and(|tasks| !tasks.contains(&grant.task)) {
        return refuse(RefuseReason::CeilingTask, grant.task.to_string());
    }
    match ceilings.longest {
        Some(longest) if lasts > longest => {
            refuse(RefuseReason::CeilingLongest, format!("{lasts} in all, at most {longest} here"))
        }
        _ => Ok(()),
    }
}

fn contains((net, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (u32::from(net) ^ u32::from(address)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_exactly_its_addresses() {
        let at = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        assert!(contains((at("192.168.1.0"), 24), at("192.168.1.255")));
        assert!(!contains((at("192.168.1.0"), 24), at("192.168.2.0")));
        assert!(contains((at("192.168.1.7"), 32), at("192.168.1.7")));
        assert!(!contains((at("192.168.1.7"), 32), at("192.168.1.6")));
        assert!(contains((at("0.0.0.0"), 0), at("203.0.113.9")));
    }
}
