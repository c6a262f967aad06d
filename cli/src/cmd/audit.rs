//! The transparency log: reading along, telling one session's story, and verifying it here or on the controller.

mod story;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use thinlane_model::RequestId;
use thinlane_wire::api::{AuditProblem, AuditReport, CheckpointView, List, LogEntry, RequestView, Schema, SessionView};

use crate::api::paths::{item, query};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result, plain};
use crate::home::read_bounded;
use crate::out::{clean, text, time};

/// Entries of one story.
const MOST_SHOWN: usize = 1000;
/// How long the controller holds an answer back while nothing is logged.
const HELD: u64 = 30;

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Audit {
    /// Show the newest entries
    Tail(Tail),
    /// Tell everything that the log says of one session, in sentences
    ///
    /// With --dir it reads a controller's directory, or a copy of one, offline and without log-in, and verifies it as
    /// well (exit code 7 when something does not fit). With --json it prints the entries themselves, one a line.
    Show {
        /// A session or a request, or the beginning of its id
        #[arg(value_name = "SES|REQ")]
        what: String,
        /// A controller's directory, or a copy of one
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Recompute the log's tree and compare it with everything that was signed
    ///
    /// Asks the controller; with --dir it reads a controller's directory, or a copy of one, offline and without
    /// log-in. Exit code 7 when something does not fit.
    Verify {
        /// A controller's directory, or a copy of one
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
        /// A checkpoint that was kept elsewhere: the log must hold everything that it held then; may be repeated
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "dir")]
        checkpoint: Vec<PathBuf>,
    },
    /// Print the newest signed checkpoint, to be kept where nobody who runs the controller can reach it
    Checkpoint,
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
        Audit::Show { what, dir: None } => show(context, &what).await,
        Audit::Show { what, dir: Some(dir) } => show_offline(context, &what, &dir),
        Audit::Checkpoint => {
            let view: CheckpointView = context.client()?.get("/audit/checkpoint").await?;
            context.out.show(&view, |view| view.note.trim_end().to_owned())
        }
        Audit::Verify { dir: None, .. } => {
            let report: AuditReport = context.client()?.get_waiting("/audit/verify", Duration::from_secs(600)).await?;
            judge(context, &report, "the controller's log")
        }
        Audit::Verify { dir: Some(dir), checkpoint } => {
            let report = verify(&dir, kept(&checkpoint)?)?;
            judge(context, &report, &dir.display().to_string())
        }
    }
}

async fn show(context: &Context, what: &str) -> Result<()> {
    let client = context.client()?;
    // The controller finds the whole id, and what belongs to it.
    let (request, session) = if what.starts_with(RequestId::PREFIX) {
        let view: RequestView = client.get(&item("requests", what)).await?;
        (view.id, view.session)
    } else {
        let view: SessionView = client.get(&item("sessions", what)).await?;
        (view.request, Some(view.id))
    };
    let ids = [Some(request.to_string()), session.map(|session| session.to_string())];
    let mut entries: BTreeMap<u64, LogEntry> = BTreeMap::new();
    for id in ids.into_iter().flatten() {
        let found: List<LogEntry> = client.get(&query("/audit/entries", &[("about", Some(id))])).await?;
        entries.extend(found.items.into_iter().map(|entry| (entry.index, entry)));
    }
    tell(context, &entries.into_values().collect::<Vec<_>>(), &[])?;
    context.out.hint("whether all of it is as it was signed, says: thinlane audit verify");
    Ok(())
}

fn show_offline(context: &Context, what: &str, dir: &Path) -> Result<()> {
    let report = verify(dir, Vec::new())?;
    tell(context, &find(dir, what)?, &report.problems)?;
    if report.ok {
        context.out.hint(&format!("the log of {} entries is as it was signed", report.entries));
        return Ok(());
    }
    Err(unsound(&report, &dir.display().to_string()))
}

/// The entries of the one session or request that `what` begins, from a directory.
fn find(dir: &Path, what: &str) -> Result<Vec<LogEntry>> {
    const PAGE: usize = 1000;
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::failed(format!("{} cannot be read: {}", dir.display(), plain(&error)));
    let reader = thinlane_store::Reader::open(dir).map_err(|error| unreadable(&error))?;
    let each = |look: &mut dyn FnMut(LogEntry)| -> Result<()> {
        let mut from = 0;
        loop {
            let page = reader.entries(from, PAGE).map_err(|error| unreadable(&error))?;
            let Some(last) = page.last().map(|entry| entry.index) else { return Ok(()) };
            page.into_iter().for_each(|entry| look(entry.into()));
            from = last + 1;
        }
    };
    let begins = |id: &str| {
        let short = id.split_once('_').map_or(id, |(_, short)| short);
        !what.is_empty() && (id.starts_with(what) || short.starts_with(what))
    };
    // Every session by its request, so that either name leads to both.
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    each(&mut |entry| {
        let id = |thing: &str, name: &str| entry.entry[thing][name].as_str().unwrap_or_default().to_owned();
        let (request, session) = match entry.kind.as_str() {
            "request.created" => (id("request", "id"), None),
            "grant.issued" => (id("session", "request"), Some(id("session", "id"))),
            _ => return,
        };
        if begins(&request) || session.as_deref().is_some_and(begins) {
            let known = found.entry(request).or_default();
            *known = session.or(known.take());
        }
    })?;
    let names = |(request, session): (&String, &Option<String>)| session.clone().unwrap_or_else(|| request.clone());
    let (request, session) = match (found.len(), found.iter().next()) {
        (1, Some(one)) => one,
        (0, _) | (_, None) => {
            return Err(Failure::failed(format!("the log in {} knows no session or request {what}", dir.display()))
                .next("give the id as it stands in a report, or its beginning: ses_7k2m9q4x"));
        }
        _ => {
            let all = text::joined(found.iter().take(8).map(names));
            return Err(Failure::usage(format!("{what} may be any of {all}")).next("give more of its id"));
        }
    };
    let needles: Vec<String> =
        [Some(request), session.as_ref()].into_iter().flatten().map(|id| format!("\"{id}\"")).collect();
    let mut entries = Vec::new();
    each(&mut |entry| {
        let shown = entry.entry.to_string();
        if entries.len() < MOST_SHOWN && needles.iter().any(|needle| shown.contains(needle)) {
            entries.push(entry);
        }
    })?;
    Ok(entries)
}

fn tell(context: &Context, entries: &[LogEntry], doubts: &[AuditProblem]) -> Result<()> {
    let out = context.out;
    if out.json {
        return entries.iter().try_for_each(|entry| out.object(entry));
    }
    out.line(story::tell(entries, doubts).trim_end())
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
    Err(unsound(report, what))
}

/// The failure of a log that is not what was signed.
fn unsound(report: &AuditReport, what: &str) -> Failure {
    let first = report.problems.first().map_or("it does not say what".to_owned(), |problem| problem.message.clone());
    Failure::new(
        Exit::Verification,
        format!(
            "{what} is not what was signed: {} found, the first: {first}",
            text::count(report.problems.len() as u64, "problem")
        ),
    )
    .next("keep the directory as it is, and compare with a backup: thinlane audit verify --dir COPY")
}

/// Checkpoints that somebody kept, each with the name of its file.
fn kept(files: &[PathBuf]) -> Result<Vec<(String, String)>> {
    const LARGEST: u64 = 64 * 1024;
    let read = |file: &PathBuf| {
        let name = file.display().to_string();
        let next = "give a file that `thinlane audit checkpoint` printed";
        match read_bounded(file, LARGEST).map_err(|failure| failure.next(next))? {
            Some(note) => Ok((name, note)),
            None => Err(Failure::failed(format!("--checkpoint: {name} does not exist")).next(next)),
        }
    };
    files.iter().map(read).collect()
}

/// Verifies a directory offline: entries, checkpoints, and the state rebuilt from the entries.
fn verify(dir: &Path, remembered: Vec<(String, String)>) -> Result<AuditReport> {
    let database = dir.join(thinlane_store::DATABASE);
    if let Err(error) = std::fs::File::open(&database) {
        return Err(Failure::failed(format!("{} cannot be read: {}", database.display(), plain(&error)))
            .next("name a controller's directory, or a copy of one, that you may read"));
    }
    let found = thinlane_store::verify(dir, remembered).map_err(|error| {
        let why = plain(&error);
        // The store's next step is for whoever runs the controller, ours for whoever looks.
        let why = why.split_once(" (next: ").map_or(why.as_str(), |(why, _)| why);
        Failure::new(Exit::Verification, format!("{} cannot be verified: {why}", dir.display()))
            .next("compare with a backup: thinlane audit verify --dir COPY")
    })?;
    Ok(found.into())
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
        let failure = verify(dir.path(), Vec::new()).expect_err("nothing there");
        assert!(failure.message.contains(&dir.path().display().to_string()), "{}", failure.message);
        assert_eq!(failure.exit, Exit::Failure);
        std::fs::write(dir.path().join(thinlane_store::DATABASE), "ruined").expect("written");
        let failure = verify(dir.path(), Vec::new()).expect_err("ruined");
        assert_eq!(failure.exit, Exit::Verification);
        assert!(!failure.message.contains("os error"), "{}", failure.message);
    }
}
