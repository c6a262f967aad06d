//! The proof from kernel state: table, interfaces, routes and connections against what signed grants allow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use thinlane_doctor::Finding;
use thinlane_model::{Grant, SessionId};
use thinlane_nft::{Nft, SHORTEST};
use thinlane_wg::link::Link;
use thinlane_wire::GrantVerifier;

use super::is_isolated;
use crate::failure::Failure;
use crate::files::Dirs;
use crate::identity::Identity;
use crate::intent::Intent;
use crate::kernel::{self, ALIAS, INTERFACE};
use crate::traces::Traces;
use crate::{clock, saved};

/// A running daemon may be in the middle of a step: what is found is believed after as many looks.
const LOOKS: usize = 4;
const BETWEEN: Duration = Duration::from_millis(300);

/// What the kernel shows.
pub struct Proven {
    pub findings: Vec<Finding>,
    /// Lanes that are open and should be.
    pub lanes: usize,
}

/// Looks until nothing is found, a few times at most where a daemon runs.
pub fn prove(dirs: &Dirs, running: bool) -> Result<Proven, Failure> {
    let mut proven = look(dirs, running)?;
    for _ in 1..LOOKS {
        if proven.findings.is_empty() || !running {
            break;
        }
        std::thread::sleep(BETWEEN);
        proven = look(dirs, running)?;
    }
    Ok(proven)
}

fn opened(code: &'static str, message: String) -> Finding {
    Finding::problem(code, message)
        .why("Packets can cross between the overlay and the site without a grant that allows them.")
        .next("Close the site now: thinlane-agent isolate on; then thinlane-agent cleanup.")
        .open()
}

fn differs(code: &'static str, message: String) -> Finding {
    Finding::problem(code, message)
        .why("Nothing can pass by it that should not, but the gateway is not as the agent means it to be.")
        .next("Restart the agent: it rebuilds what is its own; without an agent: thinlane-agent cleanup.")
}

/// One look at everything.
fn look(dirs: &Dirs, running: bool) -> Result<Proven, Failure> {
    let mut found = BTreeSet::new();
    let isolated = is_isolated(dirs);
    let live = granted(dirs, isolated, &mut found)?;
    let lanes = look_at_table(dirs, running, &live, &mut found)?;
    look_at_interfaces(dirs, running, &live, &mut found)?;
    look_at_connections(dirs, &live, &mut found)?;
    Ok(Proven { findings: found.into_iter().collect(), lanes })
}

/// The lanes that a signed grant of this boot, kept by the daemon, allows right now.
fn granted(dirs: &Dirs, isolated: bool, found: &mut BTreeSet<Finding>) -> Result<BTreeMap<SessionId, Grant>, Failure> {
    // What is wrong with the identity is a finding of its own.
    let Ok(Some(identity)) = Identity::load(&dirs.identity()) else { return Ok(BTreeMap::new()) };
    let verifier = GrantVerifier::new(identity.grant_keys.iter().copied());
    let Some(state) = saved::load(dirs)? else { return Ok(BTreeMap::new()) };
    let (live, wrong) = saved::live(&state, &verifier, clock::boot_id()?, clock::boot());
    for message in wrong {
        found.insert(opened("grant-not-right", format!("A lane is kept without a right grant: {message}.")));
    }
    if isolated && !live.is_empty() {
        let message = format!("The site is isolated, and {} lanes are still meant to be open.", live.len());
        found.insert(opened("isolated-but-open", message));
    }
    Ok(live)
}

fn look_at_table(
    dirs: &Dirs,
    running: bool,
    live: &BTreeMap<SessionId, Grant>,
    found: &mut BTreeSet<Finding>,
) -> Result<usize, Failure> {
    let mut nft = Nft::open().context("cannot talk to nf_tables")?;
    let lanes = nft.lanes().context("cannot read the table")?;
    let open_lanes: BTreeSet<_> = lanes.iter().filter(|lane| lane.is_open()).map(|lane| lane.session).collect();
    let mut open = 0;
    for lane in lanes.iter().filter(|lane| lane.is_open()) {
        let left = lane.up.max(lane.down).unwrap_or_default();
        let meant = live.get(&lane.session).map(|grant| clock::boot().until(grant.deadline));
        // The kernel counts in ticks; a second more than granted is none of that.
        match meant {
            None => {
                let message = format!("The lane of {} is open for {left} without a grant.", lane.session);
                found.insert(opened("lane-without-grant", message));
            }
            Some(meant) if left.saturating_sub(meant).as_millis() > 1000 => {
                let message = format!("The lane of {} is open for {left}, and granted for {meant}.", lane.session);
                found.insert(opened("lane-too-long", message));
            }
            Some(_) => open += 1,
        }
    }
    let Some(intent) = Intent::load(dirs)? else {
        if !lanes.is_empty() {
            let message = "The table inet thinlane holds lanes, and no agent wrote down why.".into();
            found.insert(differs("table-left-over", message));
        }
        return Ok(open);
    };
    let now = clock::boot();
    let meant: Vec<_> = live
        .values()
        .filter(|grant| now.until(grant.deadline) >= SHORTEST)
        .map(|grant| kernel::lane(grant, now.until(grant.deadline), &intent.interface))
        .collect();
    let drift = nft.verify(&intent.base(), &meant).context("cannot read the table")?;
    for finding in &drift.findings {
        use thinlane_nft::Finding as Table;
        let open = match finding {
            // Judged above, by whether they are open.
            Table::LaneMissing(_) | Table::LaneExpired(_) if !running => continue,
            // The chain of an expired lane, which the kernel has not let go of; it leads nowhere.
            Table::LaneUnknown(session) if !open_lanes.contains(session) => continue,
            Table::LaneMissing(_) | Table::LaneExpired(_) | Table::LaneUnknown(_) => false,
            // Without a table and without a device there is no lane at all.
            Table::TableMissing => running,
            _ => true,
        };
        let message = format!("The table inet thinlane is not as intended: {finding}.");
        found.insert(if open { opened("table-changed", message) } else { differs("table-differs", message) });
    }
    Ok(open)
}

fn look_at_interfaces(
    dirs: &Dirs,
    running: bool,
    live: &BTreeMap<SessionId, Grant>,
    found: &mut BTreeSet<Finding>,
) -> Result<(), Failure> {
    let mut link = Link::open().context("cannot talk to the kernel about interfaces")?;
    let ours = link.ours().context("cannot list the interfaces")?;
    let ours: Vec<_> =
        ours.into_iter().filter(|iface| iface.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))).collect();
    // The kernel's WireGuard has an interface for each lane, and none without one.
    let shared = Intent::load(dirs)?.is_none_or(|intent| intent.interface == INTERFACE);
    if running && shared && !ours.iter().any(|iface| iface.name == INTERFACE) {
        found.insert(differs("interface-missing", format!("The lanes' interface {INTERFACE} is missing.")));
    }
    let engineers: BTreeSet<_> = live.values().map(|grant| grant.tuple.engineer).collect();
    for iface in ours {
        if !running {
            let message = format!("The interface {} is left over, and no agent is running.", iface.name);
            found.insert(differs("interface-left-over", message));
        }
        for (address, length) in link.routes(&iface.name).context("cannot list the routes")? {
            if length != 32 || !engineers.contains(&address) {
                let message = format!("{address}/{length} is routed into {} without a live session.", iface.name);
                found.insert(opened("route-without-session", message));
            }
        }
    }
    Ok(())
}

fn look_at_connections(
    dirs: &Dirs,
    live: &BTreeMap<SessionId, Grant>,
    found: &mut BTreeSet<Finding>,
) -> Result<(), Failure> {
    let mut nft = Nft::open().context("cannot talk to nf_tables")?;
    let engineers: BTreeSet<_> = live.values().map(|grant| grant.tuple.engineer).collect();
    for (session, tuple) in Traces::load(dirs.traces())?.all() {
        if live.contains_key(&session) || engineers.contains(&tuple.engineer) {
            continue;
        }
        let left = nft.flows(tuple.engineer).context("cannot list the connections")?.len();
        if left > 0 {
            let message = format!("{left} connections of {session} are still tracked, and it has ended.");
            found.insert(opened("connections-left", message));
        }
    }
    Ok(())
}
