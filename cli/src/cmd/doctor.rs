//! Looks at everything a lane needs, and says the next step for what is missing.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use serde_json::json;
use thinlane_wg::link::{Link, Reach};
use thinlane_wire::api::{AssetView, StatusView, WhoAmI};

use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::lane::state::{self, parse_alias};
use crate::lane::{leftovers, preflight};
use crate::out::{Table, text, time};

/// A clock that is further off than this makes one-time codes fail.
const CLOCK_OFF: i64 = 25_000;

/// How one check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    /// It works, but not as it should, or not everything.
    Warn,
    Fail(Exit),
}

struct Check {
    name: &'static str,
    mark: Mark,
    message: String,
    next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, message: impl Into<String>) -> Check {
        Check { name, mark: Mark::Ok, message: message.into(), next: None }
    }

    fn warn(name: &'static str, message: impl Into<String>, next: impl Into<String>) -> Check {
        Check { name, mark: Mark::Warn, message: message.into(), next: Some(next.into()) }
    }

    fn failed(name: &'static str, failure: Failure) -> Check {
        Check { name, mark: Mark::Fail(failure.exit), message: failure.message, next: failure.next }
    }

    /// A failure that does not keep everything else from working.
    fn warned(name: &'static str, failure: Failure) -> Check {
        Check { mark: Mark::Warn, ..Check::failed(name, failure) }
    }

    fn word(&self) -> &'static str {
        match self.mark {
            Mark::Ok => "ok",
            Mark::Warn => "warn",
            Mark::Fail(_) => "FAIL",
        }
    }
}

/// `thinlane doctor`
pub async fn run(context: &Context) -> Result<()> {
    let mut checks = vec![files(context)];
    match context.controller() {
        Ok(url) => {
            checks.push(Check::ok("configuration", format!("the controller is {}", url.authority())));
            checks.extend(controller(context).await);
            checks.push(relay(&url).await);
        }
        Err(failure) => checks.push(Check::failed("configuration", failure)),
    }
    checks.push(match preflight::privileges() {
        Ok(()) => Check::ok("privileges", "interfaces can be made here"),
        Err(failure) => Check::warned("privileges", failure),
    });
    checks.push(left_over(context));
    checks.push(routes(context).await);
    show(context, &checks)
}

fn show(context: &Context, checks: &[Check]) -> Result<()> {
    let out = context.out;
    if out.json {
        for check in checks {
            let state = check.word().to_lowercase();
            out.object(&json!({ "check": check.name, "state": state, "message": check.message, "next": check.next }))?;
        }
    } else {
        let mut table = Table::new(&["check", "state", "finding"]);
        for check in checks {
            table.row([check.name.to_owned(), check.word().to_owned(), check.message.clone()]);
        }
        out.line(table.render(out.colour).trim_end())?;
        for check in checks {
            if let Some(next) = &check.next {
                out.line(&crate::out::clean(&format!("next, for {}: {next}", check.name)))?;
            }
        }
    }
    let failed: Vec<Exit> = checks
        .iter()
        .filter_map(|check| match check.mark {
            Mark::Fail(exit) => Some(exit),
            _ => None,
        })
        .collect();
    match failed.first() {
        Some(exit) => Err(Failure::silent(*exit)),
        None => Ok(()),
    }
}

/// Who may read the person's files.
fn files(context: &Context) -> Check {
    let home = &context.home;
    let open = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    let state = home.state_dir();
    for (path, mode) in [(home.token_file(), "600"), (home.lanes_dir(), "700"), (state.to_owned(), "700")] {
        if open(&path) {
            let advice = format!("chmod {mode} {}", path.display());
            return Check::warn("files", format!("others can look into {}", path.display()), advice);
        }
    }
    match state.exists() {
        true => Check::ok("files", format!("{} is yours alone", state.display())),
        false => Check::ok("files", format!("nothing is stored in {} yet", state.display())),
    }
}

/// Reachable, the one that is trusted, in step, and logged in.
async fn controller(context: &Context) -> Vec<Check> {
    let client = match context.anonymous() {
        Ok(client) => client,
        Err(failure) => return vec![Check::failed("controller", failure)],
    };
    let status: StatusView = match client.get("/status").await {
        Ok(status) => status,
        Err(failure) => {
            let name = if failure.exit == Exit::Verification { "certificate" } else { "controller" };
            return vec![Check::failed(name, failure)];
        }
    };
    let fingerprint = client.seen_ca().map(|seen| seen.fingerprint.to_string()).unwrap_or_default();
    let mut checks = vec![
        Check::ok("controller", format!("it answers, version {}", status.version)),
        Check::ok("certificate", format!("signed by the pinned CA, {fingerprint}")),
        clock(status.time.as_millis() - time::now().as_millis()),
    ];
    let me = match context.client() {
        Ok(client) => client.get::<WhoAmI>("/whoami").await,
        Err(failure) => Err(failure),
    };
    checks.push(match me {
        Ok(me) => Check::ok(
            "log-in",
            format!("{} ({}) until {}", me.user, text::joined(&me.roles), time::local(me.token_expires_at)),
        ),
        Err(failure) => Check::failed("log-in", failure),
    });
    checks
}

/// `ahead`: the controller's clock minus ours, in milliseconds.
fn clock(ahead: i64) -> Check {
    let off = format!(
        "this machine's clock is {:.1} s {} the controller's",
        ahead.abs() as f64 / 1000.0,
        if ahead > 0 { "behind" } else { "ahead of" }
    );
    if ahead.abs() > CLOCK_OFF {
        return Check::warn(
            "clock",
            format!("{off}: one-time codes will be refused"),
            "set the clock: timedatectl set-ntp true",
        );
    }
    Check::ok("clock", off)
}

/// Whether datagrams to the controller's port are refused; that they arrive can only a handshake tell.
async fn relay(url: &Url) -> Check {
    let (host, port) =
        (url.host_str().unwrap_or_default().trim_matches(['[', ']']), url.port_or_known_default().unwrap_or(7443));
    let name = "relay";
    let found = tokio::time::timeout(Duration::from_secs(5), tokio::net::lookup_host((host, port))).await;
    let Some(to) = found.ok().and_then(std::result::Result::ok).and_then(|mut all| all.next()) else {
        return Check::failed(
            name,
            Failure::new(Exit::Unreachable, format!("the name {host} is not known here"))
                .next("check the name in the URL, and the name server"),
        );
    };
    match probe(to).await {
        Ok(()) => {
            Check::ok(name, format!("UDP to {to} is not refused; whether it passes shows at the first handshake"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Check::warn(
            name,
            format!("nobody takes UDP at {to}"),
            "the relay may have another address (--relay-public); otherwise ask whoever runs the controller",
        ),
        Err(error) => Check::warn(
            name,
            format!("UDP to {to}: {}", crate::failure::plain(&error)),
            "check the routes and the firewall of this machine",
        ),
    }
}

async fn probe(to: SocketAddr) -> std::io::Result<()> {
    let here: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = tokio::net::UdpSocket::bind(here).await?;
    socket.connect(to).await?;
    for _ in 0..2 {
        // Shorter than any WireGuard message: a relay drops it unread.
        socket.send(&[0]).await?;
        let mut answer = [0; 16];
        match tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut answer)).await {
            Ok(Err(error)) => return Err(error),
            _ => continue,
        }
    }
    Ok(())
}

/// Lanes whose process is gone.
fn left_over(context: &Context) -> Check {
    let lanes = state::all(&context.home).unwrap_or_default();
    let mut dead: Vec<String> =
        lanes.iter().filter(|lane| !lane.is_exported() && !lane.holder.is_alive()).map(|lane| lane.name()).collect();
    dead.extend(leftovers::orphans().into_iter().map(|(iface, _)| iface));
    if dead.is_empty() {
        let open = lanes.iter().filter(|lane| !lane.is_exported()).count() as u64;
        return Check::ok("lanes", format!("{} open here, nothing left over", text::count(open, "lane")));
    }
    Check::warn("lanes", format!("left over from killed processes: {}", text::joined(dead)), "thinlane down")
}

/// Whether something else on this machine claims the addresses of assets.
async fn routes(context: &Context) -> Check {
    let name = "routes";
    let mut addresses = vec![Ipv4Addr::new(198, 18, 0, 1)];
    if let Ok(client) = context.client()
        && let Ok(assets) = client.list::<AssetView>("/assets", 200).await
    {
        addresses.extend(assets.iter().take(200).map(|asset| asset.overlay_address));
    }
    let mut link = match Link::open() {
        Ok(link) => link,
        Err(error) => return Check::warned(name, preflight::failed(error)),
    };
    let ours: Vec<String> = link
        .ours()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| interface.alias.as_deref().and_then(parse_alias).is_some())
        .map(|interface| interface.name)
        .collect();
    let usual = preflight::usual_ways(&mut link);
    for address in addresses {
        let Ok(Some(reach)) = link.reach(address) else { continue };
        if is_foreign(&reach, &usual) && !ours.contains(&reach.interface) {
            return Check::warn(
                name,
                format!("{address}, an asset's overlay address, is routed into {}", reach.interface),
                format!("see what made that route (another VPN?): ip route get {address}"),
            );
        }
    }
    Check::ok(name, "no route of this machine claims the overlay addresses")
}

fn is_foreign(reach: &Reach, usual: &[Reach]) -> bool {
    !usual.iter().any(|usual| usual.interface == reach.interface && usual.router == reach.router)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_breaks_one_time_codes_is_told_with_its_direction() {
        assert!(clock(900).mark == Mark::Ok);
        let behind = clock(90_000);
        assert!(behind.mark == Mark::Warn && behind.message.contains("90.0 s behind"), "{}", behind.message);
        assert!(clock(-90_000).message.contains("ahead of"));
    }

    #[test]
    fn only_a_route_of_its_own_is_foreign() {
        let usual =
            Reach { interface: "eth0".into(), source: Ipv4Addr::LOCALHOST, router: Some(Ipv4Addr::LOCALHOST.into()) };
        let other = Reach { interface: "tun0".into(), ..usual.clone() };
        assert!(!is_foreign(&usual, &[other.clone(), usual.clone()]));
        assert!(is_foreign(&other, std::slice::from_ref(&usual)));
        assert!(is_foreign(&usual, &[]));
    }

    #[tokio::test]
    async fn a_closed_udp_port_is_noticed_and_a_silent_one_is_not_refused() {
        let open = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let silent = open.local_addr().expect("an address");
        assert!(probe(silent).await.is_ok());
        drop(open);
        let refused = probe(silent).await.expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
