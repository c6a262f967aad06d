//! Names, within a bound: the system's resolver waits as long as it likes.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use thinlane_model::Endpoint;

use crate::facts::{Name, Way};
use crate::interfaces::Interface;

/// Addresses of one name that are looked at.
const MOST: usize = 8;

/// Looks a host up, for at most `patience`; a resolver that goes on longer is left to itself.
pub fn resolve(to: &Endpoint, patience: Duration) -> Name {
    if to.host().parse::<IpAddr>().is_ok() {
        return Name::Address;
    }
    let (tell, told) = channel();
    let (host, port) = (to.host().to_owned(), to.port());
    std::thread::spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(|all| all.map(|at| at.ip()).take(MOST).collect());
        // Nobody waits any more: then it came too late.
        let _ = tell.send(found);
    });
    let why = match told.recv_timeout(patience) {
        Ok(Ok(found)) => {
            let found: Vec<IpAddr> = found;
            if !found.is_empty() {
                return Name::Known(found);
            }
            "the name has no address".to_owned()
        }
        Ok(Err(error)) => plain(&error),
        Err(_) => format!("no name server answered within {} s", patience.as_secs()),
    };
    Name::Unknown { why, servers: servers() }
}

/// The addresses of an endpoint whose name was looked up.
pub fn addresses(to: &Endpoint, name: &Name) -> Vec<SocketAddr> {
    match name {
        Name::Address => to.as_socket_addr().into_iter().collect(),
        Name::Known(found) => found.iter().map(|ip| SocketAddr::new(*ip, to.port())).collect(),
        Name::Unknown { .. } => Vec::new(),
    }
}

/// The name servers of /etc/resolv.conf.
fn servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = |line: &str| line.strip_prefix("nameserver").map(|rest| rest.trim().chars().take(60).collect());
    text.lines().filter_map(server).take(4).collect()
}

/// How packets to an address would leave; asking the kernel sends nothing.
pub fn way(to: SocketAddr, interfaces: &[Interface]) -> Option<Way> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let by = interfaces.iter().find(|interface| interface.has(source));
    Some(Way { interface: by.map(|by| by.name.clone()), source, mtu: by.and_then(|by| by.mtu) })
}

/// Whether anything leads out by default: to addresses that are nobody's (RFC 5737, RFC 3849).
pub fn default_route() -> bool {
    let nobodys = ["192.0.2.1:9", "198.51.100.1:9", "203.0.113.1:9", "[2001:db8::1]:9"];
    // On a link one of them may be used all the same, so two must have a way.
    let has_way = |at: &str| at.parse().is_ok_and(|at| way(at, &[]).is_some());
    let v4 = nobodys[..3].iter().filter(|at| has_way(at)).count();
    v4 >= 2 || has_way(nobodys[3])
}

/// An I/O error without its number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
