//! `check`: proves from what the kernel itself says that nothing is open that should not be, and says what else is
//! wrong with this gateway, with the next step for each.
//!
//! ```text
//! kernel, files, control socket, network --gather--> Facts --judge--> findings --> page or JSON, exit code
//!                   table, routes, peers --prove----------------------^
//! ```

mod facts;
mod firewall;
mod gather;
mod judge;
mod proof;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use thinlane_doctor::{Finding, Severity, render};
use thinlane_wire::api::Schema;

use super::isolate::is_isolated;
use crate::failure::{Failure, exit};
use crate::files::Dirs;

use facts::Facts;
pub use gather::has_wireguard;

#[derive(Debug, Args)]
pub struct Check {
    /// Prove what is open, and look at nothing else: neither the network nor the machine.
    #[arg(long, env = "THINLANE_OFFLINE", value_parser = FalseyValueParser::new())]
    offline: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    schema: Schema,
    /// Nothing is open that should not be, and nothing is broken.
    ok: bool,
    version: &'static str,
    site: Option<String>,
    /// Whether the daemon runs.
    running: bool,
    isolated: bool,
    /// Lanes that are open and should be.
    lanes: usize,
    findings: Vec<Finding>,
    /// What the findings were made of, in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<facts::Summary>,
}

pub fn check(args: &Check, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    let running = super::daemon_runs(dirs)?;
    let (proven, facts) = std::thread::scope(|scope| {
        let proof = scope.spawn(|| proof::prove(dirs, running));
        let facts = (!args.offline).then(|| gather::gather(dirs, running));
        let proven = proof.join().unwrap_or_else(|_| Err(Failure::new("the look at the kernel failed")));
        (proven, facts)
    });
    let mut findings = Vec::new();
    let lanes = match proven {
        Ok(proven) => {
            findings.extend(proven.findings);
            proven.lanes
        }
        // What keeps the kernel from being read is told together with everything else.
        Err(failure) if facts.as_ref().is_some_and(Facts::explains_a_blind_proof) => {
            findings.push(judge::not_proven(&failure));
            0
        }
        Err(failure) => return Err(failure),
    };
    findings.extend(facts.iter().flat_map(judge::findings));
    findings.sort();
    findings.dedup();
    let report = Report {
        schema: Schema,
        ok: !findings.iter().any(|finding| finding.open || finding.severity == Severity::Problem),
        version: env!("CARGO_PKG_VERSION"),
        site: facts.as_ref().and_then(Facts::site),
        running,
        isolated: is_isolated(dirs),
        lanes,
        findings,
        facts: facts.as_ref().map(Facts::summary),
    };
    if json {
        println!("{}", serde_json::to_string(&report).context("the report")?);
    } else {
        print(&report, facts.as_ref());
    }
    verdict(&report)
}

/// The exit code: 7 where something is open, 1 where something is broken.
fn verdict(report: &Report) -> Result<(), Failure> {
    if report.findings.iter().any(|finding| finding.open) {
        return Err(Failure::coded(exit::VERIFICATION, "something is open that should not be")
            .next("close the site now: thinlane-agent isolate on; then thinlane-agent cleanup"));
    }
    match report.findings.iter().filter(|finding| finding.severity == Severity::Problem).count() {
        0 => Ok(()),
        1 => Err(Failure::new("nothing is open that should not be, but there is a problem, named above")),
        more => Err(Failure::new(format_args!(
            "nothing is open that should not be, but there are {more} problems, named above"
        ))),
    }
}

fn print(report: &Report, facts: Option<&Facts>) {
    let word = |yes: bool| if yes { "yes" } else { "no" };
    println!("version        {}", report.version);
    if let Some(site) = &report.site {
        println!("site           {site}");
    }
    println!("agent running  {}", word(report.running));
    println!("isolated       {}", word(report.isolated));
    println!("lanes open     {}, each with a signed grant", report.lanes);
    for (name, line) in facts.map(Facts::lines).unwrap_or_default() {
        println!("{name:<15}{line}");
    }
    if report.findings.is_empty() {
        println!("findings       none: nothing is open that should not be, and nothing is wrong");
        return;
    }
    println!("\n{}", render(&report.findings).trim_end());
    if report.ok {
        println!("\nok: nothing is open that should not be, and nothing is broken");
    }
}
