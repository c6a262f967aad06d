//! Where the ways of a lane lead from here: names become addresses.

use std::net::SocketAddr;
use std::time::Duration;

use thinlane_model::{Endpoint, Path};
use thinlane_wire::api::Activated;

use super::ways::{Place, Way};
use crate::failure::{Exit, Failure, Result, plain};

/// How long a name server may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// What of a lane's ways can be used here.
#[derive(Debug)]
pub struct Places {
    pub first: Place,
    pub second: Option<Place>,
    /// There would be a way before `first`, but the name of its endpoint is not known here.
    pub unknown: bool,
}

/// The gateway's own endpoint, if it has one, and the relay.
pub fn ways(told: &Activated) -> (Way, Option<Way>) {
    let second = told.fallback.as_ref().map(|relay| Way { path: Path::Relay, endpoint: relay.clone() });
    let path = if second.is_some() { Path::Direct } else { told.session.path };
    (Way { path, endpoint: told.endpoint.clone() }, second)
}

/// All with their addresses. The second's is looked up while all is well, because it is wanted when it is not.
pub async fn find(told: &Activated) -> Result<Places> {
    let (first, second) = ways(told);
    let second_found = async {
        match &second {
            Some(way) => Some(resolve(&way.endpoint).await),
            None => None,
        }
    };
    let found = tokio::join!(resolve(&first.endpoint), second_found);
    choose((first, second), found)
}

/// Which ways can be used, from what was found of each.
fn choose(
    (first, second): (Way, Option<Way>),
    found: (std::result::Result<SocketAddr, String>, Option<std::result::Result<SocketAddr, String>>),
) -> Result<Places> {
    let place = |way, address| Place { way, address };
    match (found, second) {
        ((Ok(address), Some(Ok(relay))), Some(second)) => {
            Ok(Places { first: place(first, address), second: Some(place(second, relay)), unknown: false })
        }
        ((Ok(address), _), _) => Ok(Places { first: place(first, address), second: None, unknown: false }),
        ((Err(_), Some(Ok(relay))), Some(second)) => {
            Ok(Places { first: place(second, relay), second: None, unknown: true })
        }
        ((Err(why), _), second) => Err(unknown(&first, second.as_ref(), &why)),
    }
}

/// No way of a lane's can be used here, because of the names of its endpoints; says whose setting that is.
pub fn unknown(first: &Way, second: Option<&Way>, why: &str) -> Failure {
    let name = first.endpoint.host();
    let (message, setting) = match (first.path, second) {
        (_, Some(relay)) => {
            let relay = relay.endpoint.host();
            let both =
                format!("neither the name {name} of the gateway's own endpoint nor {relay} of the relay's is known");
            (both, "the site's --endpoint or its own --relay-public")
        }
        (Path::Direct, None) => {
            (format!("the name {name} of the gateway's own endpoint is not known"), "the site's --endpoint")
        }
        (Path::Relay, None) => (format!("the name {name} of the relay's endpoint is not known"), "--relay-public"),
    };
    Failure::new(Exit::Unreachable, format!("{message} here: {why}"))
        .next(format!("ask whoever runs the controller to give {setting} a name or address that is known here"))
}

/// The first address of a name that this machine has a way to, IPv4 before IPv6; or why there is none.
async fn resolve(endpoint: &Endpoint) -> std::result::Result<SocketAddr, String> {
    if let Some(address) = endpoint.as_socket_addr() {
        return Ok(address);
    }
    let lookup = tokio::net::lookup_host((endpoint.host(), endpoint.port()));
    let found = match tokio::time::timeout(LOOKUP, lookup).await {
        Ok(found) => found.map_err(|error| plain(&error))?,
        Err(_) => return Err("the name server does not answer".to_owned()),
    };
    // What this machine has a way to goes first.
    found.min_by_key(|address| (!has_a_way(*address), address.is_ipv6())).ok_or_else(|| "it has no address".to_owned())
}

/// Whether the system knows a route there; connecting a UDP socket sends nothing.
fn has_a_way(to: SocketAddr) -> bool {
    let any: std::net::IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(path: Path) -> Way {
        Way { path, endpoint: "gw.example:51820".parse().expect("an endpoint") }
    }

    fn relay() -> Way {
        Way { path: Path::Relay, endpoint: "hq.example:7443".parse().expect("an endpoint") }
    }

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn missing() -> std::result::Result<SocketAddr, String> {
        Err("no such name".to_owned())
    }

    #[test]
    fn a_lane_begins_at_the_relay_where_the_gateways_own_name_is_not_known() {
        let places = choose((own(Path::Direct), Some(relay())), (missing(), Some(Ok(at(7443))))).expect("a way");
        assert_eq!((places.first, places.second), (Place { way: relay(), address: at(7443) }, None));
        assert!(places.unknown);
        let places = choose((own(Path::Direct), Some(relay())), (Ok(at(1)), Some(Ok(at(2))))).expect("two ways");
        assert_eq!(places.first, Place { way: own(Path::Direct), address: at(1) });
        assert_eq!(places.second, Some(Place { way: relay(), address: at(2) }));
        assert!(!places.unknown);
        let places = choose((own(Path::Direct), Some(relay())), (Ok(at(1)), Some(missing()))).expect("one way");
        assert!(places.first.way == own(Path::Direct) && places.second.is_none() && !places.unknown);
    }

    #[test]
    fn where_no_name_is_known_the_setting_that_is_wrong_is_named() {
        let refused = |first: Way, second: Option<Way>| {
            let found = (missing(), second.is_some().then(missing));
            let failure = choose((first, second), found).expect_err("no way");
            assert_eq!(failure.exit, Exit::Unreachable);
            (failure.message, failure.next.expect("a next step"))
        };
        let (message, next) = refused(own(Path::Direct), None);
        assert!(message.contains("gw.example of the gateway's own") && message.contains("no such name"), "{message}");
        assert!(next.contains("--endpoint") && !next.contains("--relay-public"), "{next}");
        let (message, next) = refused(relay(), None);
        assert!(message.contains("hq.example of the relay's"), "{message}");
        assert!(next.contains("--relay-public") && !next.contains("--endpoint"), "{next}");
        let (message, next) = refused(own(Path::Direct), Some(relay()));
        assert!(
            message.contains("gw.example of the gateway's own") && message.contains("hq.example of the relay's"),
            "{message}"
        );
        assert!(next.contains("--endpoint") && next.contains("--relay-public"), "{next}");
    }
}
