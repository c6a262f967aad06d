//! The log: entries, the newest checkpoint, and whether it all holds.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use thinlane_model::{Role, SiteId};
use thinlane_store::{Entry, Reader};
use thinlane_wire::api::{AuditReport, CheckpointView, ErrorBody, ErrorCode, List, LogEntry, Schema};

use super::error::{Answer, Problem, Problems};
use super::extract::{Caller, Params, Viewer};
use super::requests::LONGEST_WAIT;
use crate::app::App;

/// Entries in one answer.
const MOST_ENTRIES: usize = 1000;
/// Entries that are looked through for those about one thing.
const MOST_LOOKED_THROUGH: u64 = 50_000;

/// Which entries.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Those after this index; absent: from the first.
    after: Option<u64>,
    /// The newest so many, oldest first.
    last: Option<usize>,
    /// At most so many, 1000 at most.
    limit: Option<usize>,
    /// Only those that name exactly this id (a session's, a request's), the newest 50 000 entries being looked
    /// through; oldest first. Goes with `limit` only.
    about: Option<String>,
    /// Seconds to wait for an entry where there is none yet, at most 60.
    #[param(maximum = 60)]
    wait: Option<u64>,
}

/// Entries of the log, oldest first.
#[utoipa::path(get, path = "/audit/entries", tag = "audit", params(Which),
    responses((status = 200, body = List<LogEntry>), Problems))]
pub async fn entries(
    State(app): State<App>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<List<LogEntry>>> {
    may_read(&app, &caller).await?;
    if let Some(about) = which.about {
        return named(&app, about, which.limit.unwrap_or(MOST_ENTRIES).min(MOST_ENTRIES)).await;
    }
    let limit = which.limit.or(which.last).unwrap_or(MOST_ENTRIES).min(MOST_ENTRIES);
    let mut watch = app.core.watch();
    let wait = Duration::from_secs(which.wait.unwrap_or(0).min(LONGEST_WAIT));
    let deadline = tokio::time::Instant::now() + wait;
    let mut stop = app.stop.clone();
    loop {
        let size = app.core.read(|state| state.store().size()).await?;
        let from = match which.last {
            Some(last) => size.saturating_sub(last.min(MOST_ENTRIES) as u64),
            None => which.after.map_or(0, |after| after.saturating_add(1)),
        };
        if from < size || wait.is_zero() || tokio::time::Instant::now() >= deadline {
            let found = read(&app, move |reader| reader.entries(from, limit)).await?;
            let end = found.last().map(|entry| entry.index);
            let items: Vec<_> = found.into_iter().map(LogEntry::from).collect();
            let next = end.filter(|end| end + 1 < size).map(|end| end.to_string());
            return Ok(Json(List { schema: Schema, items, next }));
        }
        // Not every entry is a live event: looked at again each second as well.
        let again = (tokio::time::Instant::now() + Duration::from_secs(1)).min(deadline);
        tokio::select! {
            () = tokio::time::sleep_until(again) => {}
            _ = stop.changed() => return Ok(super::list(Vec::new())),
            _ = watch.recv() => {}
        }
    }
}

/// Entries that name an id, from the newest back to the one that first did.
async fn named(app: &App, about: String, limit: usize) -> Answer<Json<List<LogEntry>>> {
    let is_id = |text: &str| {
        let letters = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        (8..=40).contains(&text.len()) && text.chars().all(letters)
    };
    if !is_id(&about) {
        let wrong = format!("about takes a whole id, as in {}7k2m9q4x", thinlane_model::SessionId::PREFIX);
        return Err(Problem::invalid(axum::http::StatusCode::BAD_REQUEST, wrong));
    }
    let size = app.core.read(|state| state.store().size()).await?;
    // In canonical JSON an id is a string of its own.
    let needle = format!("\"{about}\"");
    let mut found = read(app, move |reader| {
        let mut found = Vec::new();
        let mut end = size;
        while end > size.saturating_sub(MOST_LOOKED_THROUGH) && found.len() < limit {
            let from = end.saturating_sub(MOST_ENTRIES as u64);
            let page = reader.entries(from, (end - from) as usize)?;
            let names = |entry: &&Entry| std::str::from_utf8(&entry.json).is_ok_and(|text| text.contains(&needle));
            found.extend(page.iter().rev().filter(names).take(limit - found.len()).map(|entry| entry.clone().into()));
            let begins = |entry: &LogEntry| entry.kind == "request.created" || entry.kind == "grant.issued";
            if found.last().is_some_and(begins) {
                break;
            }
            end = from;
        }
        Ok(found)
    })
    .await?;
    found.reverse();
    Ok(super::list(found))
}

/// The newest signed checkpoint.
#[utoipa::path(get, path = "/audit/checkpoint", tag = "audit", responses((status = 200, body = CheckpointView), Problems))]
pub async fn checkpoint(State(app): State<App>, caller: Caller) -> Answer<Json<CheckpointView>> {
    may_read(&app, &caller).await?;
    let found = app
        .core
        .read(|state| {
            let proofs = state.store().proofs();
            (proofs.size(), proofs.root(), state.store().checkpoint())
        })
        .await?;
    let (size, root, note) = found;
    let note = note.map_err(unreadable)?.ok_or_else(|| Problem::not_found("the log has no checkpoint yet"))?;
    let root = HEXLOWER.encode(&root.0);
    Ok(Json(CheckpointView { schema: Schema, size, root, note, key: app.log_key.clone() }))
}

/// Reads the whole log and holds it against its checkpoints and the state; `ok` says whether it holds.
#[utoipa::path(get, path = "/audit/verify", tag = "audit", responses((status = 200, body = AuditReport), Problems))]
pub async fn verify(State(app): State<App>, caller: Caller) -> Answer<Json<AuditReport>> {
    may_read(&app, &caller).await?;
    let dir = app.dir.clone();
    let done = tokio::task::spawn_blocking(move || thinlane_store::verify(&dir, Vec::new())).await;
    let mut found =
        done.map_err(|_| internal("the verification broke off"))?.map_err(|error| internal(&error.to_string()))?;
    let witnessed = app.channels.witnessed();
    let compared = app
        .core
        .read(move |state| {
            let proofs = state.store().proofs();
            let compare = |(site, size, root): (SiteId, u64, [u8; 32])| {
                let name = state.world().site(&site).map_or_else(|| site.to_string(), |site| site.name.to_string());
                (name, size, proofs.root_at(size).map(|ours| ours.0 == root))
            };
            witnessed.into_iter().map(compare).collect::<Vec<_>>()
        })
        .await?;
    for (site, size, fits) in compared {
        let (kind, message) = match fits {
            Some(true) => {
                found.checkpoints += 1;
                continue;
            }
            Some(false) => ("forked", format!("the gateway of {site} remembers another log of {size} entries")),
            None => {
                ("rolled-back", format!("the gateway of {site} remembers a log of {size} entries, this one is shorter"))
            }
        };
        found.problems.push(thinlane_store::Problem { kind, index: Some(size), message });
    }
    Ok(Json(found.into()))
}

async fn may_read(app: &App, caller: &Caller) -> Answer<()> {
    let login = caller.login.clone();
    let may: Result<(), ErrorBody> = app
        .core
        .read(move |state| Viewer::of(state, &login)?.need("reading the log", &[Role::Auditor, Role::Ops, Role::Admin]))
        .await?;
    Ok(may?)
}

async fn read<T: Send + 'static>(
    app: &App,
    look: impl FnOnce(&Reader) -> Result<T, thinlane_store::ReadError> + Send + 'static,
) -> Answer<T> {
    let dir = app.dir.clone();
    let done = tokio::task::spawn_blocking(move || {
        let reader = Reader::open(&dir).map_err(|error| error.to_string())?;
        look(&reader).map_err(|error| error.to_string())
    });
    let found = done.await.map_err(|_| internal("reading the log broke off"))?;
    Ok(found.map_err(|error| internal(&error))?)
}

fn unreadable(error: thinlane_store::ReadError) -> Problem {
    internal(&error.to_string()).into()
}

fn internal(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, message)
}
