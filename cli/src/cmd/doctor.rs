//! Looks at everything a lane needs on this machine and on the way to the controller, and says what is wrong, why it
//! matters, and the next step.

mod gather;
mod judge;

use serde::Serialize;
use thinlane_doctor::{Contact, Finding, NetworkFacts, RelayFact, Severity, render};
use thinlane_model::Wall;
use thinlane_wire::api::{Schema, WhoAmI};

use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{clean, text, time};

/// What was found out about this machine, before anybody judges it.
struct Facts {
    now: Wall,
    /// A file or directory of the person's that others can look into, and the command that closes it.
    exposed: Option<(String, String)>,
    /// Why nothing can be written where log-in and lanes are kept.
    unwritable: Option<String>,
    /// Why no controller can be asked: none is known, or no CA is pinned.
    no_controller: Option<Failure>,
    network: Option<NetworkFacts>,
    /// Who this is to the controller, or why it does not say.
    who: Option<Result<WhoAmI>>,
    /// Why no interface can be made here.
    no_privilege: Option<Failure>,
    /// Lanes that run here, and the names of those whose process is gone.
    lanes: usize,
    left_over: Vec<String>,
    /// An overlay address that another route of this machine takes, and by which interface.
    taken: Option<(std::net::Ipv4Addr, String)>,
}

/// The whole answer.
#[derive(Serialize)]
struct Report<'a> {
    schema: Schema,
    /// Nothing is broken.
    ok: bool,
    version: &'static str,
    findings: &'a [Finding],
    facts: Summary,
}

#[derive(Serialize)]
struct Summary {
    controller: Option<String>,
    controller_version: Option<String>,
    round_trip_ms: Option<u64>,
    /// This machine's clock minus the controller's.
    clock_offset_ms: Option<i64>,
    user: Option<String>,
    token_expires_at: Option<Wall>,
    relay: Option<String>,
    relay_round_trip_ms: Option<u64>,
    /// Where the relay sees this machine.
    seen_from: Option<String>,
    /// The largest IP packet that reached the relay and came back whole.
    path_mtu: Option<u16>,
    lanes: usize,
}

/// `thinlane doctor`: exit code 1 where there is a problem.
pub async fn run(context: &Context) -> Result<()> {
    let facts = gather::gather(context).await;
    let mut findings = judge::findings(&facts);
    findings.sort();
    let ok = !findings.iter().any(|finding| finding.severity == Severity::Problem);
    let out = context.out;
    if out.json {
        let version = env!("CARGO_PKG_VERSION");
        out.object(&Report { schema: Schema, ok, version, findings: &findings, facts: facts.summary() })?;
    } else {
        out.line(text::pairs(&facts.lines()).trim_end())?;
        match findings.is_empty() {
            true => out.line("findings    none: this machine is ready for a lane through the relay; a gateway's own address is tried when a lane opens")?,
            false => out.line(&format!("\n{}", clean(render(&findings).trim_end())))?,
        }
        if ok && !findings.is_empty() {
            out.line("\nok: nothing is broken")?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::silent(Exit::Failure)) }
}

impl Facts {
    fn me(&self) -> Option<&WhoAmI> {
        self.who.as_ref().and_then(|who| who.as_ref().ok())
    }

    fn summary(&self) -> Summary {
        let network = self.network.as_ref();
        let (version, round_trip, offset) = match network.map(|network| &network.contact) {
            Some(Contact::Answers { version, offset_ms, round_trip_ms, .. }) => {
                (Some(version.clone()), Some(*round_trip_ms), Some(*offset_ms))
            }
            _ => (None, None, None),
        };
        let (relay, relay_ms, seen, path) = match network.map(|network| &network.relay) {
            Some(RelayFact::Answers { relay, round_trip_ms, seen_from, largest, .. }) => {
                (Some(relay.to_string()), Some(*round_trip_ms), Some(seen_from.to_string()), Some(*largest))
            }
            _ => (None, None, None, None),
        };
        Summary {
            controller: network.map(|network| network.controller.to_string()),
            controller_version: version,
            round_trip_ms: round_trip,
            clock_offset_ms: offset,
            user: self.me().map(|me| me.user.to_string()),
            token_expires_at: self.me().map(|me| me.token_expires_at),
            relay,
            relay_round_trip_ms: relay_ms,
            seen_from: seen,
            path_mtu: path,
            lanes: self.lanes,
        }
    }

    /// What is well, for a person: names and lines.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let summary = self.summary();
        let mut lines = Vec::new();
        if let Some(controller) = &summary.controller {
            let how = match (summary.controller_version, summary.round_trip_ms) {
                (Some(version), Some(took)) => format!(", answers in {took} ms, version {version}"),
                _ => String::new(),
            };
            lines.push(("controller", format!("{controller}{how}")));
        }
        if let (Some(relay), Some(took), Some(seen), Some(path)) =
            (summary.relay, summary.relay_round_trip_ms, summary.seen_from, summary.path_mtu)
        {
            lines.push(("relay", format!("{relay}, answers in {took} ms, sees us at {seen}, passes {path} bytes")));
        }
        if let Some(me) = self.me() {
            let until = time::local(me.token_expires_at);
            lines.push(("log-in", format!("{} ({}) until {until}", me.user, text::joined(&me.roles))));
        }
        lines.push(("lanes", format!("{} open here", text::count(self.lanes as u64, "lane"))));
        lines
    }
}
