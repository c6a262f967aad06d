//! `check`: proves from what the kernel itself says that nothing is open that should not be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use thinlane_model::{Grant, SessionId};
use thinlane_nft::{Nft, SHORTEST};
use thinlane_wg::link::Link;
use thinlane_wire::GrantVerifier;
use thinlane_wire::api::Schema;

use super::isolate::is_isolated;
use crate::failure::{Failure, exit};
use crate::files::Dirs;
use crate::identity::Identity;
use crate::kernel::{self, ALIAS, INTERFACE, Intent};
use crate::traces::Traces;
use crate::{clock, saved};

/// A running daemon may be in the middle of a step: what is found is believed after as many looks.
const LOOKS: usize = 4;
const BETWEEN: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub struct Check {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    schema: Schema,
    /// Nothing is open that should not be, and nothing differs from what is meant.
    ok: bool,
    /// Whether the daemon runs.
    running: bool,
    isolated: bool,
    /// Lanes that are open and should be.
    lanes: usize,
    findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    /// Something can pass that should not; otherwise something is missing or left over, but closed.
    open: bool,
    /// `table` | `lane` | `grant` | `interface` | `route` | `connection` | `isolation`.
    kind: &'static str,
    message: String,
}

pub fn check(args: &Check, dirs: &Dirs) -> Result<(), Failure> {
    let running = super::daemon_runs(dirs)?;
    let mut report = look(dirs, running)?;
    for _ in 1..LOOKS {
        if report.findings.is_empty() || !running {
            break;
        }
        std::thread::sleep(BETWEEN);
        report = look(dirs, running)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report).context("the report")?);
    } else {
        print(&report);
    }
    if report.findings.iter().any(|finding| finding.open) {
        return Err(Failure::coded(exit::VERIFICATION, "something is open that should not be")
            .next("close the site now: thinlane-agent isolate on; then thinlane-agent cleanup"));
    }
    if !report.ok {
        return Err(Failure::new("nothing is open that should not be, but not everything is as intended")
            .next("restart the agent: it rebuilds its table"));
    }
    Ok(())
}

/// One look at everything.
fn look(dirs: &Dirs, running: bool) -> Result<Report, Failure> {
    let mut found = BTreeSet::new();
    let isolated = is_isolated(dirs);
    let live = granted(dirs, isolated, &mut found)?;
    let lanes = look_at_table(dirs, running, &live, &mut found)?;
    look_at_interfaces(running, &live, &mut found)?;
    look_at_connections(dirs, &live, &mut found)?;
    let findings: Vec<Finding> = found.into_iter().collect();
    Ok(Report { schema: Schema, ok: findings.is_empty(), running, isolated, lanes, findings })
}

/// The lanes that a signed grant of this boot, kept by the daemon, allows right now.
fn granted(dirs: &Dirs, isolated: bool, found: &mut BTreeSet<Finding>) -> Result<BTreeMap<SessionId, Grant>, Failure> {
    let Some(identity) = Identity::load(&dirs.identity())? else { return Ok(BTreeMap::new()) };
    let verifier = GrantVerifier::new(identity.grant_keys.iter().copied());
    let Some(state) = saved::load(dirs)? else { return Ok(BTreeMap::new()) };
    let (live, wrong) = saved::live(&state, &verifier, clock::boot_id()?, clock::boot());
    for message in wrong {
        found.insert(Finding { open: true, kind: "grant", message: format!("kept without a right grant: {message}") });
    }
    if isolated && !live.is_empty() {
        let message = format!("the site is isolated and {} lanes are still meant to be open", live.len());
        found.insert(Finding { open: true, kind: "isolation", message });
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
                let message = format!("{} is open for {left} without a grant", lane.session);
                found.insert(Finding { open: true, kind: "lane", message });
            }
            Some(meant) if left.saturating_sub(meant).as_millis() > 1000 => {
                let message = format!("{} is open for {left}, and granted for {meant}", lane.session);
                found.insert(Finding { open: true, kind: "lane", message });
            }
            Some(_) => open += 1,
        }
    }
    let Some(intent) = Intent::load(dirs)? else {
        if !lanes.is_empty() {
            let message = "table inet thinlane holds lanes, and no agent wrote down why".into();
            found.insert(Finding { open: false, kind: "table", message });
        }
        return Ok(open);
    };
    let now = clock::boot();
    let meant: Vec<_> = live
        .values()
        .filter(|grant| now.until(grant.deadline) >= SHORTEST)
        .map(|grant| kernel::lane(grant, now.until(grant.deadline)))
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
        found.insert(Finding { open, kind: "table", message: finding.to_string() });
    }
    Ok(open)
}

fn look_at_interfaces(
    running: bool,
    live: &BTreeMap<SessionId, Grant>,
    found: &mut BTreeSet<Finding>,
) -> Result<(), Failure> {
    let mut link = Link::open().context("cannot talk to the kernel about interfaces")?;
    let ours = link.ours().context("cannot list the interfaces")?;
    let ours: Vec<_> =
        ours.into_iter().filter(|iface| iface.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))).collect();
    if running && !ours.iter().any(|iface| iface.name == INTERFACE) {
        found.insert(Finding { open: false, kind: "interface", message: format!("{INTERFACE} is missing") });
    }
    let engineers: BTreeSet<_> = live.values().map(|grant| grant.tuple.engineer).collect();
    for iface in ours {
        if !running {
            let message = format!("{} is left over and no agent is running", iface.name);
            found.insert(Finding { open: false, kind: "interface", message });
        }
        for (address, length) in link.routes(&iface.name).context("cannot list the routes")? {
            if length != 32 || !engineers.contains(&address) {
                let message = format!("{address}/{length} is routed into {} without a live session", iface.name);
                found.insert(Finding { open: true, kind: "route", message });
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
            let message = format!("{left} connections of {session} are still tracked");
            found.insert(Finding { open: true, kind: "connection", message });
        }
    }
    Ok(())
}

fn print(report: &Report) {
    let word = |yes: bool| if yes { "yes" } else { "no" };
    println!("agent running  {}", word(report.running));
    println!("isolated       {}", word(report.isolated));
    println!("lanes open     {}, each with a signed grant", report.lanes);
    if report.findings.is_empty() {
        println!("findings       none: table, interfaces, routes and connections are as intended");
        return;
    }
    println!("\n{:<8}{:<12}FINDING", "OPEN", "WHERE");
    for finding in &report.findings {
        println!("{:<8}{:<12}{}", word(finding.open), finding.kind, finding.message);
    }
}
