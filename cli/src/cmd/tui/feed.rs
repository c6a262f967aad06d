//! What the controller says: the live stream, the snapshot after every gap in it, and the log.

use std::sync::Arc;
use std::time::Duration;

use thinlane_model::{SessionId, Span};
use thinlane_tui::Input;
use thinlane_tui::notice::BANNER_TIME;
use thinlane_tui::page::Found;
use thinlane_wire::api::{
    ErrorCode, HistoryView, List, LiveEvent, LogEntry, Overview, RequestView, SessionView, WhoAmI,
};
use tokio::sync::{Notify, mpsc};

use super::deeds::WRONG_CERTIFICATE;
use crate::api::paths::{encode, item, query, verb};
use crate::api::sse::Heard;
use crate::api::{Client, EventStream};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::lane::activate::boot_clock;

/// Entries of the log at the beginning.
const NEWEST: u64 = 500;
/// Entries that are read at the beginning at most.
const MOST_READ: usize = 5_000;
/// How long the controller holds an answer back while nothing is logged, in seconds.
const HELD: u64 = 30;
/// Seconds to the next try, by how many have failed.
const PAUSES: [u64; 6] = [1, 1, 2, 4, 8, 15];

/// Who watches, and where.
pub async fn hello(context: &Context) -> Result<Input> {
    let who: WhoAmI = context.client()?.get("/whoami").await?;
    let url = context.controller()?;
    let controller = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let roles = who.roles.iter().map(|role| role.to_string()).collect();
    Ok(Input::Hello { login: who.user, roles, controller, until: Some(who.token_expires_at) })
}

/// The newest entries of the log, and all of the last half hour as far as that is not too many: an alarm that still
/// needs somebody must not hide behind a night of refused log-ins.
pub async fn newest(client: &Client) -> Result<Vec<LogEntry>> {
    let page: List<LogEntry> = client.get(&query("/audit/entries", &[("last", Some(NEWEST.to_string()))])).await?;
    let mut entries = page.items;
    while let Some((after, limit)) = before(&entries) {
        let after = after.map(|after| after.to_string());
        let path = query("/audit/entries", &[("after", after), ("limit", Some(limit.to_string()))]);
        let older: List<LogEntry> = client.get(&path).await?;
        if older.items.is_empty() {
            break;
        }
        entries.splice(0..0, older.items);
    }
    Ok(entries)
}

/// The page before these entries: after which index, and how many; `None`: they reach far enough back.
fn before(entries: &[LogEntry]) -> Option<(Option<u64>, u64)> {
    let (first, last) = (entries.first()?, entries.last()?);
    let far = first.time.until(last.time).as_millis() >= BANNER_TIME || entries.len() >= MOST_READ;
    (first.index > 0 && !far).then(|| {
        let limit = first.index.min(NEWEST);
        ((first.index - limit).checked_sub(1), limit)
    })
}

/// Follows the controller for as long as anybody listens.
pub fn start(context: &Context, to: &mpsc::Sender<Input>, resync: &Arc<Notify>) {
    let first = Arc::new(Notify::new());
    let live = (context.clone(), to.clone(), resync.clone(), first.clone());
    tokio::spawn(async move {
        let (context, to, resync, first) = live;
        let mut failures = 0;
        while !to.is_closed() {
            let failure = match follow(&context, &to, &resync, &first, &mut failures).await {
                Ok(()) => Failure::new(Exit::Unreachable, "the controller closed the stream"),
                Err(failure) => failure,
            };
            let pause = Duration::from_secs(PAUSES[failures.min(PAUSES.len() - 1)]);
            failures += 1;
            let retry_at = boot_clock() + Span::from(pause);
            let why = match failure.next.as_deref() {
                // First: a narrow screen cuts the end.
                Some("thinlane login") => format!("L logs in again: {}", failure.message),
                _ if failure.exit == Exit::Verification => format!("{WRONG_CERTIFICATE}: {}", failure.message),
                Some(next) if failure.exit == Exit::Denied => format!("{} ({next})", failure.message),
                _ => failure.message,
            };
            if to.send(Input::Lost { why, retry_at }).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = resync.notified() => {}
            }
        }
    });
    let (context, to) = (context.clone(), to.clone());
    tokio::spawn(async move {
        // Entries name sites by their ids: the snapshot knows their names.
        first.notified().await;
        follow_log(&context, &to).await;
    });
}

/// One connection: the stream first, then the snapshot, so that nothing falls between them.
async fn follow(
    context: &Context,
    to: &mpsc::Sender<Input>,
    resync: &Notify,
    first: &Notify,
    failures: &mut usize,
) -> Result<()> {
    // The log-in is read again each time: another one may have been made in another window.
    let client = context.client()?;
    if to.send(Input::Trying).await.is_err() {
        return Ok(());
    }
    let mut stream: EventStream = client.events("/events").await?;
    // Roles may have changed meanwhile, and a new log-in lasts longer.
    let _ = to.send(hello(context).await?).await;
    snapshot(&client, to).await?;
    first.notify_one();
    *failures = 0;
    loop {
        let heard = tokio::select! {
            heard = stream.hear() => heard?,
            () = resync.notified() => {
                let _ = to.send(hello(context).await?).await;
                snapshot(&client, to).await?;
                continue;
            }
        };
        let input = match heard {
            Heard::End => return Ok(()),
            Heard::Beat => Input::Alive,
            Heard::Data(data) => match serde_json::from_str(&data) {
                Ok(LiveEvent::Lagged) => {
                    snapshot(&client, to).await?;
                    continue;
                }
                Ok(event) => Input::Event(Box::new(event)),
                // A newer controller may know more kinds of events than this program.
                Err(_) => Input::Alive,
            },
        };
        if to.send(input).await.is_err() {
            return Ok(());
        }
    }
}

async fn snapshot(client: &Client, to: &mpsc::Sender<Input>) -> Result<()> {
    let overview: Overview = client.get("/overview").await?;
    // Nobody listens any more: the next send says so.
    let _ = to.send(Input::Snapshot(Box::new(overview))).await;
    Ok(())
}

/// Reads the log along; after an interruption it goes on where it was.
async fn follow_log(context: &Context, to: &mpsc::Sender<Input>) {
    let mut last: Option<u64> = None;
    while !to.is_closed() {
        let asked = tokio::time::Instant::now();
        let page = match context.client() {
            Err(failure) => Err(failure),
            Ok(client) => match last {
                None => newest(&client).await,
                Some(after) => next(&client, after).await,
            },
        };
        match page {
            Ok(entries) if entries.is_empty() => {}
            Ok(entries) => {
                last = entries.last().map(|entry| entry.index).or(last);
                if to.send(Input::Entries(entries)).await.is_err() {
                    return;
                }
                continue;
            }
            Err(failure) if failure.is(ErrorCode::Forbidden) => {
                // Nobody listens any more: then nobody needs to know.
                let _ = to.send(Input::LogReadable(false)).await;
                return;
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(3)).await,
        }
        // Whatever answers at once with nothing must not be asked in a tight loop.
        if asked.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn next(client: &Client, after: u64) -> Result<Vec<LogEntry>> {
    let wait = ("wait", Some(HELD.to_string()));
    let path = query("/audit/entries", &[("after", Some(after.to_string())), wait, ("limit", Some("500".to_owned()))]);
    let page: List<LogEntry> = client.get_waiting(&path, Duration::from_secs(HELD)).await?;
    Ok(page.items)
}

/// What the page of a session shows. Only the session itself must be there.
pub async fn look(context: &Context, id: SessionId) -> Result<Found> {
    let client = context.client()?;
    let session: SessionView = client.get(&item("sessions", id)).await?;
    let request_path = item("requests", session.request);
    let history_path = verb("sessions", id, "history");
    let about = |id: &dyn std::fmt::Display| format!("/audit/entries?about={}", encode(id));
    let (of_session, of_request) = (about(&id), about(&session.request));
    let (request, history, timeline, before) = tokio::join!(
        client.get::<RequestView>(&request_path),
        client.get::<HistoryView>(&history_path),
        client.get::<List<LogEntry>>(&of_session),
        client.get::<List<LogEntry>>(&of_request),
    );
    let mut missing = Vec::new();
    let mut found = Found { session, request: None, history: Vec::new(), timeline: Vec::new(), missing: Vec::new() };
    match request {
        Ok(request) => found.request = Some(request),
        Err(failure) => missing.push(format!("the request: {}", failure.message)),
    }
    match history {
        Ok(history) => found.history = history.samples,
        Err(failure) => missing.push(format!("the traffic so far: {}", failure.message)),
    }
    for entries in [before, timeline] {
        match entries {
            Ok(list) => found.timeline.extend(list.items),
            Err(failure) => missing.push(format!("the log: {}", failure.message)),
        }
    }
    // What names both stands in both.
    found.timeline.sort_by_key(|entry| entry.index);
    found.timeline.dedup_by_key(|entry| entry.index);
    missing.dedup();
    found.missing = missing;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of these indexes, one each second.
    fn log(from: u64, to: u64) -> Vec<LogEntry> {
        let entry = |index: u64| LogEntry {
            schema: thinlane_wire::api::Schema,
            index,
            time: thinlane_model::Wall::from_millis(index as i64 * 1_000),
            actor: "system".into(),
            kind: "auth.failed".into(),
            entry: serde_json::Value::Null,
            leaf_hash: String::new(),
        };
        (from..to).map(entry).collect()
    }

    #[test]
    fn the_log_is_read_back_for_half_an_hour_and_not_without_end() {
        assert_eq!(before(&[]), None);
        assert_eq!(before(&log(0, 20)), None, "there is nothing before");
        assert_eq!(before(&log(7, 507)), Some((None, 7)));
        assert_eq!(before(&log(1_000, 1_500)), Some((Some(499), 500)));
        assert_eq!(before(&log(9_000, 9_000 + 1_801)), None, "half an hour is there");
        let mut flood = log(50_000, 55_000);
        flood.iter_mut().for_each(|entry| entry.time = thinlane_model::Wall::from_millis(0));
        assert_eq!(before(&flood), None, "enough was read");
    }
}
