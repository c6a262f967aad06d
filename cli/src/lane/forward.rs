//! A lane that ends in this process: no interface and no right, one port on 127.0.0.1 instead.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use thinlane_forward::{Config, Door, DoorError, Forward, Hint, StartError};
use thinlane_model::{Endpoint, TaskName};
use thinlane_wire::api::{Activated, TaskView};

use super::activate::Armed;
use super::places;
use crate::api::Client;
use crate::api::paths::item;
use crate::failure::{Exit, Failure, Result, plain};
use crate::system::sockets;

/// The same hint is not given again within this time: a tool that tries again and again is told once.
const AGAIN: Duration = Duration::from_secs(15);

/// Which local port is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPort {
    /// The asset's own number where that is free and needs no right, else any.
    Any,
    Exactly(u16),
}

impl LocalPort {
    /// What stands for `--forward` without a number.
    pub const ANY: &str = "any";

    /// Reads a port number, or `any`.
    pub fn parse(text: &str) -> std::result::Result<LocalPort, String> {
        if text == LocalPort::ANY {
            return Ok(LocalPort::Any);
        }
        match text.parse() {
            Ok(port @ 1..) => Ok(LocalPort::Exactly(port)),
            _ => Err("a local port is a number from 1 to 65535; the asset stands before --forward".to_owned()),
        }
    }
}

/// Takes the local port for a task, and refuses one that cannot be had.
pub async fn door(client: &Client, task: &TaskName, port: LocalPort) -> Result<Door> {
    let task: TaskView = client.get(&item("tasks", task)).await?;
    let door = match port {
        LocalPort::Any => Door::like(task.protocol, task.port),
        LocalPort::Exactly(port) => Door::at(task.protocol, port),
    };
    door.map_err(|error| {
        let failure = Failure::failed(plain(&error));
        match error {
            DoorError::Taken(_) | DoorError::Kept(_) => {
                failure.next("choose another number, or --forward alone, which finds a free one")
            }
            DoorError::Privileged(port) => {
                failure.next(format!("choose one above 1023, such as {}, or --forward alone", u32::from(port) + 15000))
            }
            DoorError::Other(_) => failure.next("see that 127.0.0.1 is up on this machine: ip addr show lo"),
        }
    })
}

/// Opens the door, and begins the first handshake.
pub async fn start(armed: &Armed, door: Door) -> Result<Forward> {
    let told = &armed.told;
    let config = Config {
        private: armed.keys.private.clone(),
        peer: told.gateway_key,
        preshared: armed.keys.preshared.clone(),
        endpoint: told.endpoint.clone(),
        fallback: told.fallback.clone(),
        keepalive: told.keepalive,
        address: told.address,
        asset: SocketAddrV4::new(told.asset_address, told.session.port),
        // A connection ends here anyway, so that its segments can fit every path, whatever it turns out to be.
        mtu: super::activate::mtu(told, true),
        prepare: sockets::let_be_cut,
    };
    Forward::start(config, door).await.map_err(|error| match error {
        StartError::Endpoint { endpoint, source } => no_way(told, &endpoint, &plain(&source)),
        other => Failure::failed(plain(&other)),
    })
}

/// Why none of a lane's endpoints can be used here.
fn no_way(told: &Activated, endpoint: &Endpoint, why: &str) -> Failure {
    let (first, second) = places::ways(told);
    let mut all = [Some(&first), second.as_ref()].into_iter().flatten();
    // One address would have been enough to begin with.
    if all.all(|way| way.endpoint.as_socket_addr().is_none()) {
        return places::unknown(&first, second.as_ref(), why);
    }
    Failure::new(Exit::Unreachable, format!("the lane's endpoint {endpoint} cannot be used here: {why}"))
        .next("see whether this machine has a network: thinlane doctor")
}

/// Remembers what was said, so that it is not said all the time.
#[derive(Debug, Default)]
pub struct Hints(Vec<(Hint, Instant)>);

impl Hints {
    /// Whether a hint is worth saying now.
    pub fn is_news(&mut self, hint: Hint, now: Instant) -> bool {
        self.0.retain(|(_, said)| now.duration_since(*said) < AGAIN);
        let news = self.0.iter().all(|(known, _)| *known != hint);
        if news {
            self.0.push((hint, now));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_and_an_asset_is_none() {
        assert_eq!(LocalPort::parse("15020"), Ok(LocalPort::Exactly(15020)));
        assert_eq!(LocalPort::parse("any"), Ok(LocalPort::Any));
        for bad in ["0", "65536", "rtu-7", "", "-1"] {
            assert!(LocalPort::parse(bad).is_err_and(|error| error.contains("--forward")), "{bad}");
        }
    }

    #[test]
    fn a_hint_is_said_once_in_a_while_and_another_one_at_once() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        assert!(hints.is_news(Hint::Refused, now));
        assert!(!hints.is_news(Hint::Refused, now + AGAIN / 2));
        assert!(hints.is_news(Hint::Away, now + AGAIN / 2));
        assert!(hints.is_news(Hint::Refused, now + AGAIN));
    }
}
