//! `policy check`, `policy test`, `policy explain`: offline.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use thinlane_model::{AssetName, Login, Span, TaskName, Wall};
use thinlane_policy::{Cases, Policy as Rules};
use thinlane_session::{RowKind, World};
use thinlane_store::Reader;

use super::Dir;
use crate::config::Config;
use crate::exit::Exit;
use crate::policies;

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Say what is wrong with a policy directory, file, line and key; exit 1 if anything is.
    Check {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Run the cases in DIR/cases against the policy in DIR; exit 1 if one fails.
    Test {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Say what the policy decides for a person, an asset and a task, and which rules determine it; exit 3 if it denies.
    Explain {
        #[command(flatten)]
        dir: Dir,
        #[arg(long, value_name = "LOGIN", env = "THINLANE_WHO")]
        who: Login,
        #[arg(long, value_name = "ASSET", env = "THINLANE_ASSET")]
        asset: AssetName,
        #[arg(long, value_name = "TASK", env = "THINLANE_TASK")]
        task: TaskName,
        /// How long; the task's default without it.
        #[arg(long = "for", value_name = "DURATION", env = "THINLANE_FOR")]
        time: Option<Span>,
        /// As if it were this moment (RFC 3339).
        #[arg(long, value_name = "RFC3339", env = "THINLANE_AT")]
        at: Option<Wall>,
    },
}

pub fn policy(command: Policy, json: bool) -> Result<Exit> {
    match command {
        Policy::Check { dir } => check(&dir, json),
        Policy::Test { dir } => test(&dir, json),
        Policy::Explain { dir, who, asset, task, time, at } => {
            explain(&dir.dir, &who, &asset, &task, time, at.unwrap_or_else(crate::clock::wall), json)
        }
    }
}

fn load(dir: &Path) -> Result<Result<Rules, Vec<String>>> {
    let files = policies::read_some(dir)?;
    Ok(Rules::load(&files).map_err(|errors| errors.iter().map(ToString::to_string).collect()))
}

fn check(dir: &Path, json: bool) -> Result<Exit> {
    let found = load(dir)?;
    let errors = found.as_ref().err().cloned().unwrap_or_default();
    if json {
        let hash = found.as_ref().ok().map(|policy| policy.hash().to_owned());
        println!("{}", serde_json::json!({"schema": 1, "valid": found.is_ok(), "hash": hash, "errors": errors}));
    } else if let Ok(policy) = &found {
        println!(
            "valid: {} tasks, {} permits, {} requires, {} forbids, hash {}",
            policy.tasks().count(),
            policy.permits().len(),
            policy.requires().len(),
            policy.forbids().len(),
            policy.hash()
        );
    } else {
        for error in &errors {
            println!("{error}");
        }
        eprintln!(
            "next: mend {}, then `thinlane-controller policy check {}` again",
            plural(errors.len()),
            dir.display()
        );
    }
    Ok(if errors.is_empty() { Exit::Done } else { Exit::Failure })
}

/// The first of what there is: the name that was meant is often among them.
fn known<T: std::fmt::Display>(all: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = all.take(SHOWN + 1).map(|name| name.to_string()).collect();
    if names.is_empty() {
        return "there is none yet".to_owned();
    }
    if names.len() > SHOWN {
        names[SHOWN] = "..".to_owned();
    }
    format!("there is {}", names.join(", "))
}

fn plural(errors: usize) -> String {
    if errors == 1 { "this line".to_owned() } else { format!("these {errors} lines") }
}

fn test(dir: &Path, json: bool) -> Result<Exit> {
    let policy = match load(dir)? {
        Ok(policy) => policy,
        Err(errors) => bail!(
            "the policy is invalid:\n{} (next: mend {}, then `thinlane-controller policy check {}`)",
            errors.join("\n"),
            plural(errors.len()),
            dir.display()
        ),
    };
    let files = policies::read_cases(dir)?;
    if files.is_empty() {
        bail!(
            "there are no cases in {} (next: write one, see the shipped cases/shipped.toml)",
            dir.join("cases").display()
        );
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, text) in files {
        let cases = Cases::parse(&text).map_err(|error| anyhow::anyhow!("cases/{name}: {error}"))?;
        for outcome in cases.run(&policy) {
            if outcome.failures.is_empty() {
                passed += 1;
            } else {
                failed += 1;
            }
            if json {
                let failures: Vec<_> = outcome
                    .failures
                    .iter()
                    .map(|one| serde_json::json!({"what": one.what, "expected": one.expected, "decided": one.decided}))
                    .collect();
                let line = serde_json::json!({"schema": 1, "file": name, "case": outcome.name, "failures": failures});
                println!("{line}");
            } else {
                for failure in &outcome.failures {
                    println!(
                        "{name}: {}: {}: expected {}, decided {}",
                        outcome.name, failure.what, failure.expected, failure.decided
                    );
                    for reason in &outcome.reasons {
                        println!("    {reason}");
                    }
                }
            }
        }
    }
    if !json {
        println!("{passed} cases passed, {failed} failed");
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failure })
}

fn explain(
    dir: &Path,
    who: &Login,
    asset: &AssetName,
    task: &TaskName,
    time: Option<Span>,
    at: Wall,
    json: bool,
) -> Result<Exit> {
    let config = Config::load(&crate::dir::Dir::new(dir))?;
    let policy = match load(&config.policy_dir(dir))? {
        Ok(policy) => policy,
        Err(errors) => bail!(
            "the policy is invalid, so everything is denied:\n{} (next: mend {} in {})",
            errors.join("\n"),
            plural(errors.len()),
            config.policy_dir(dir).display()
        ),
    };
    let rows = Reader::open(dir)?.rows()?;
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| Ok((row.kind.parse::<RowKind>()?, row.id, row.doc)))
        .collect::<Result<_, thinlane_session::RowError>>()?;
    let world = World::from_rows(rows)?;
    let Some(person) = world.person(who) else {
        bail!("no user {who}; {} (next: `thinlane user ls`)", known(world.people().map(|person| &person.login)))
    };
    let Some(asset) = world.asset(asset) else {
        bail!("no asset {asset}; {} (next: `thinlane asset ls`)", known(world.assets().map(|asset| &asset.asset)))
    };
    let decision = policy.decide(&World::ask(person, asset, task, time, at));
    let verdict = if decision.is_permit() { "permit" } else { "deny" };
    let rules: Vec<String> = decision.rules.iter().map(ToString::to_string).collect();
    if json {
        let obligations = &decision.obligations;
        let roles: Vec<_> = obligations.approver_roles.iter().map(|role| role.as_str()).collect();
        let line = serde_json::json!({
            "schema": 1, "verdict": verdict, "rules": rules, "reasons": decision.reasons, "next": decision.next,
            "obligations": {"approvals": obligations.approvals, "approver_roles": roles, "seconds": obligations.seconds},
            "policy_hash": policy.hash(),
        });
        println!("{line}");
    } else {
        println!("{verdict}{}", if rules.is_empty() { String::new() } else { format!(" by {}", rules.join(", ")) });
        for reason in &decision.reasons {
            println!("  {reason}");
        }
        if decision.is_permit() {
            let obligations = &decision.obligations;
            let roles: Vec<_> = obligations.approver_roles.iter().map(|role| role.as_str()).collect();
            println!("  for {}", Span::from_secs(obligations.seconds));
            match obligations.approvals {
                0 => println!("  no approval needed"),
                count => println!("  {count} approval(s) by {}", roles.join(" or ")),
            }
        }
        if !decision.next.is_empty() {
            eprintln!("next: {}", decision.next);
        }
    }
    Ok(if decision.is_permit() { Exit::Done } else { Exit::Denied })
}
