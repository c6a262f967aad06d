//! The transparency log: reading along, and verifying it here or on the controller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use thinlane_wire::api::{AuditProblem, AuditReport, List, LogEntry, Schema};

use crate::api::paths::query;
use crate::context::Context;
use crate::failure::{Exit, Failure, Result, plain};
use crate::out::{clean, text, time};

/// How long the controller holds an answer back while nothing is logged.
const HELD: u64 = 30;

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Audit {
    /// Show the newest entries
    Tail(Tail),
    /// Recompute the log's tree and compare it with everything that was signed
    ///
    /// Asks the controller; with --dir it reads a controller's directory, or a copy of one, offline and without
    /// log-in. Exit code 7 when something does not fit.
    Verify {
        /// A controller's directory, or a copy of one
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct Tail {
    /// Go on as entries are written
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest to begin with
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: u64,
}

pub async fn run(context: &Context, command: Audit) -> Result<()> {
    match command {
        Audit::Tail(args) => tail(context, args).await,
        Audit::Verify { dir: None } => {
            let report: AuditReport = context.client()?.get_waiting("/audit/verify", Duration::from_secs(600)).await?;
            judge(context, &report, "the controller's log")
        }
        Audit::Verify { dir: Some(dir) } => {
            let report = verify(&dir)?;
            judge(context, &report, &dir.display().to_string())
        }
    }
}

async fn tail(context: &Context, args: Tail) -> Result<()> {
    let client = context.client()?;
    let first = query("/audit/entries", &[("last", Some(args.lines.clamp(1, 1000).to_string()))]);
    let mut page: List<LogEntry> = client.get(&first).await?;
    let mut last = None;
    let mut away = 0;
    loop {
        for entry in &page.items {
            last = Some(entry.index);
            context.out.show(entry, line)?;
        }
        if !args.follow {
            return Ok(());
        }
        let after = last.map(|index| index.to_string());
        let path = query(
            "/audit/entries",
            &[("after", after), ("wait", Some(HELD.to_string())), ("limit", Some("500".into()))],
        );
        let asked = std::time::Instant::now();
        page = match client.get_waiting(&path, Duration::from_secs(HELD)).await {
            Ok(page) => {
                away = 0;
                page
            }
            Err(failure) if failure.exit == Exit::Unreachable && failure.code.is_none() && away < 20 => {
                away += 1;
                context.out.hint("the controller is away; asking again");
                tokio::time::sleep(Duration::from_secs(3)).await;
                List { schema: Schema, items: Vec::new(), next: None }
            }
            Err(failure) => return Err(failure),
        };
        // Whatever answers at once with nothing must not be asked in a tight loop.
        if page.items.is_empty() && asked.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// One entry on one line: when, who, what, and the short facts in it, those first that people ask for.
fn line(entry: &LogEntry) -> String {
    let text = format!(
        "{:>6}  {}  {:<20}  {:<22}  {}",
        entry.index,
        time::local(entry.time),
        entry.actor,
        entry.kind,
        thinlane_tui::facts(&entry.entry)
    );
    clean(text.trim_end()).replace('\n', " ")
}

fn judge(context: &Context, report: &AuditReport, what: &str) -> Result<()> {
    context.out.show(report, |report| {
        let mut shown = text::pairs(&[
            ("entries", report.entries.to_string()),
            ("root", report.root.clone()),
            ("checkpoints", format!("{} compared", report.checkpoints)),
        ]);
        for problem in &report.problems {
            shown.push_str(&clean(&format!("{}: {}\n", problem.kind, problem.message)));
        }
        shown.push_str(if report.ok { "everything fits\n" } else { "" });
        shown
    })?;
    if report.ok {
        return Ok(());
    }
    let first = report.problems.first().map_or("it does not say what".to_owned(), |problem| problem.message.clone());
    Err(Failure::new(
        Exit::Verification,
        format!(
            "{what} is not what was signed: {} found, the first: {first}",
            text::count(report.problems.len() as u64, "problem")
        ),
    )
    .next("keep the directory as it is, and compare with a backup: thinlane audit verify --dir COPY"))
}

/// Verifies a directory offline: entries, checkpoints, and the state rebuilt from the entries.
fn verify(dir: &Path) -> Result<AuditReport> {
    let database = dir.join(thinlane_store::DATABASE);
    if let Err(error) = std::fs::File::open(&database) {
        return Err(Failure::failed(format!("{} cannot be read: {}", database.display(), plain(&error)))
            .next("name a controller's directory, or a copy of one, that you may read"));
    }
    let found = thinlane_store::verify(dir, Vec::new()).map_err(|error| {
        Failure::new(Exit::Verification, format!("{} cannot be verified: {}", dir.display(), plain(&error)))
            .next("compare with a backup: thinlane audit verify --dir COPY")
    })?;
    Ok(AuditReport {
        schema: Schema,
        ok: found.is_sound(),
        entries: found.entries,
        root: data_encoding::HEXLOWER.encode(&found.root.0),
        checkpoints: found.checkpoints,
        problems: found
            .problems
            .into_iter()
            .map(|problem| AuditProblem {
                kind: problem.kind.to_owned(),
                index: problem.index,
                message: problem.message,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: serde_json::Value) -> LogEntry {
        LogEntry {
            schema: Schema,
            index: 7,
            time: thinlane_model::Wall::from_millis(0),
            actor: "person:alice".into(),
            kind: "session.active".into(),
            entry: value,
            leaf_hash: "00".into(),
        }
    }

    #[test]
    fn an_entry_is_one_line_whatever_is_in_it() {
        let shown = line(&entry(
            serde_json::json!({"schema": 1, "session": "ses_7k2m9q4x", "reason": "a\nb\u{1b}[2J", "deep": {"x": 1}}),
        ));
        assert!(shown.contains("session.active") && shown.contains("session=ses_7k2m9q4x"), "{shown}");
        assert!(shown.contains("x=1"), "{shown}");
        assert!(!shown.contains('\n') && !shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn a_directory_without_a_database_is_named_and_a_ruined_one_has_failed() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = verify(dir.path()).expect_err("nothing there");
        assert!(failure.message.contains(&dir.path().display().to_string()), "{}", failure.message);
        assert_eq!(failure.exit, Exit::Failure);
        std::fs::write(dir.path().join(thinlane_store::DATABASE), "ruined").expect("written");
        let failure = verify(dir.path()).expect_err("ruined");
        assert_eq!(failure.exit, Exit::Verification);
        assert!(!failure.message.contains("os error"), "{}", failure.message);
    }
}
