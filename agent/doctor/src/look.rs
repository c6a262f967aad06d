//! Asks the machine and the network, all at once and within five seconds.

use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use thinlane_model::Endpoint;
use thinlane_wire::ProbeTicket;

use crate::contact::contact;
use crate::facts::{Cidr, NetworkFacts, RelayFact};
use crate::interfaces::interfaces;
use crate::names::{addresses, default_route, resolve, way};
use crate::relay::try_relay;

/// For the controller's name.
const NAME: Duration = Duration::from_millis(2500);
/// For name, connection and answer together.
const ALL: Duration = Duration::from_millis(4500);
/// The pools that controllers use unless they are told otherwise.
const POOLS: [&str; 2] = ["198.18.0.0/16", "198.19.0.0/16"];

/// What to look at.
#[derive(Debug)]
pub struct Look<'a> {
    pub controller: Endpoint,
    /// The authority that the controller must descend from.
    pub ca: CertificateDer<'a>,
}

/// Looks at the way to the controller, and with a ticket at the way to its relay. `ticket` says where one comes from,
/// or why there is none; it is called on a thread of its own, and bounds its time itself.
pub fn look(at: &Look<'_>, ticket: impl FnOnce() -> Result<ProbeTicket, String> + Send) -> NetworkFacts {
    let until = Instant::now() + ALL;
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| match ticket() {
            Ok(ticket) => {
                let pools = ticket.pools.iter().filter_map(|pool| pool.parse().ok()).collect::<Vec<Cidr>>();
                (try_relay(&ticket), pools)
            }
            Err(why) => (RelayFact::NotTried(why), Vec::new()),
        });
        let interfaces = interfaces();
        let name = resolve(&at.controller, NAME);
        let addresses = addresses(&at.controller, &name);
        let way = addresses.iter().find_map(|address| way(*address, &interfaces));
        let reachable: Vec<_> = if way.is_some() { addresses } else { Vec::new() };
        let contact = contact(&at.controller, &reachable, &at.ca, until);
        let unknown = || (RelayFact::NotTried("the test of the relay failed".into()), Vec::new());
        let (relay, mut pools) = probing.join().unwrap_or_else(|_| unknown());
        if pools.is_empty() {
            pools = POOLS.iter().filter_map(|pool| pool.parse().ok()).collect();
        }
        NetworkFacts {
            controller: at.controller.clone(),
            default_route: default_route(),
            interfaces,
            name,
            way,
            contact,
            relay,
            pools,
        }
    })
}
