//! The columns of requests, sites, denials and alarms, and the log.

use thinlane_wire::api::{LogEntry, RequestState};

use super::facts::facts;
use super::{ago, col, flag, moment, or_dash, seconds, text_key, time_key};
use crate::model::{Asked, Model, Place};
use crate::notice::{Class, Notice, Weight, words};
use crate::table::{Cell, Column, Ctx, Key, Listed, RowId};
use crate::text::{self, Tone};

impl Listed for Asked {
    fn id(&self) -> RowId {
        RowId::Request(self.view.id)
    }

    fn columns() -> &'static [Column<Asked>] {
        REQUESTS
    }

    fn is_over(&self) -> bool {
        self.view.state != RequestState::Pending
    }
}

impl Listed for Place {
    fn id(&self) -> RowId {
        RowId::Site(self.view.site.clone())
    }

    fn columns() -> &'static [Column<Place>] {
        SITES
    }
}

impl Listed for Notice {
    fn id(&self) -> RowId {
        RowId::Notice(self.number)
    }

    fn columns() -> &'static [Column<Notice>] {
        NOTICES
    }
}

impl Listed for LogEntry {
    fn id(&self) -> RowId {
        RowId::Entry(self.index)
    }

    fn columns() -> &'static [Column<LogEntry>] {
        ENTRIES
    }
}

static REQUESTS: &[Column<Asked>] = &[
    col!(
        "state",
        "state",
        9..9,
        0,
        LEFT,
        true,
        "pending ones first",
        |row, _, _| Cell::new(word(row.view.state), tone(row.view.state)),
        |row, _| Key::Number(row.view.state as i64 * 1_000_000_000_000_000 + row.view.created_at.as_millis())
    ),
    col!(
        "who",
        "who",
        8..20,
        1,
        LEFT,
        true,
        "who asks",
        |row, _, _| Cell::new(row.view.user.to_string(), Tone::Strong),
        |row, _| Key::text(&row.view.user)
    ),
    col!(
        "org",
        "org",
        6..14,
        6,
        LEFT,
        true,
        "whose organisation",
        |row, _, _| or_dash(row.view.org.as_ref()),
        |row, _| text_key(row.view.org.as_ref())
    ),
    col!(
        "asset",
        "asset",
        10..24,
        2,
        LEFT,
        true,
        "for which device",
        |row, _, _| Cell::plain(row.view.asset.to_string()),
        |row, _| Key::text(&row.view.asset)
    ),
    col!(
        "site",
        "site",
        6..18,
        4,
        LEFT,
        true,
        "where it is",
        |row, _, _| Cell::plain(row.view.site.to_string()),
        |row, _| Key::text(&row.view.site)
    ),
    col!(
        "task",
        "task",
        7..16,
        3,
        LEFT,
        true,
        "what is to be done",
        |row, _, _| Cell::plain(row.view.task.to_string()),
        |row, _| Key::text(&row.view.task)
    ),
    col!(
        "for",
        "for",
        5..8,
        5,
        RIGHT,
        true,
        "for how long",
        |row, _, _| Cell::plain(seconds(row.view.seconds)),
        |row, _| Key::number(row.view.seconds)
    ),
    col!(
        "waits",
        "waits",
        5..6,
        5,
        RIGHT,
        true,
        "since it was asked",
        |row, ctx, _| ago(Some(row.view.created_at), ctx),
        |row, ctx| Key::number(ctx.model.since(row.view.created_at, ctx.now))
    ),
    col!("missing", "missing", 7..24, 7, LEFT, true, "which approvals are still missing", missing, |row, _| {
        Key::number(row.view.decision.obligations.approvers.iter().map(|demand| u64::from(demand.missing)).sum::<u64>())
    }),
    col!(
        "ticket",
        "ticket",
        8..16,
        9,
        LEFT,
        true,
        "the ticket that was named",
        |row, _, _| or_dash(row.view.ticket.as_ref()),
        |row, _| text_key(row.view.ticket.as_ref())
    ),
    col!(
        "reason",
        "reason",
        10..60,
        8,
        LEFT,
        true,
        "why",
        |row, _, _| Cell::plain(row.view.reason.clone()),
        |row, _| Key::text(&row.view.reason)
    ),
    col!(
        "rules",
        "policy says",
        12..60,
        10,
        LEFT,
        true,
        "what the policy said, and by which rules",
        |row, _, _| Cell::plain(format!("{} by {}", row.view.decision.verdict, row.view.decision.rules.join(", "))),
        |row, _| Key::text(row.view.decision.rules.join(","))
    ),
    col!(
        "id",
        "id",
        12..12,
        11,
        LEFT,
        true,
        "the request's id",
        |row, _, _| Cell::dim(row.view.id.to_string()),
        |row, _| Key::text(row.view.id.to_string())
    ),
];

static SITES: &[Column<Place>] = &[
    col!(
        "site",
        "site",
        10..24,
        0,
        LEFT,
        true,
        "its name",
        |row, _, _| Cell::new(row.view.site.to_string(), Tone::Strong),
        |row, _| Key::text(&row.view.site)
    ),
    col!(
        "link",
        "link",
        8..8,
        1,
        LEFT,
        true,
        "online, offline, frozen, or new (no gateway yet)",
        |row, _, _| Cell::new(row.view.state.clone(), link_tone(row)),
        |row, _| Key::text(&row.view.state)
    ),
    col!(
        "ready",
        "ready",
        5..5,
        3,
        LEFT,
        true,
        "whether it would arm a lane now",
        |row, _, _| if row.view.ready { Cell::plain("yes") } else { Cell::new("no", Tone::Warn) },
        |row, _| Key::number(u64::from(row.view.ready))
    ),
    col!(
        "lanes",
        "lanes",
        5..6,
        2,
        RIGHT,
        true,
        "open lanes",
        |row, _, _| Cell::plain(row.view.lanes.to_string()),
        |row, _| Key::number(row.view.lanes)
    ),
    col!(
        "seen",
        "seen",
        5..6,
        4,
        RIGHT,
        true,
        "since its gateway was heard last; now: it is connected",
        // What came last is told when the link changes, and not with each sign of life.
        |row, ctx, _| if row.view.state == "online" { Cell::dim("now") } else { ago(row.view.last_seen_at, ctx) },
        |row, ctx| Key::maybe(row.view.last_seen_at.map(|at| ctx.model.since(at, ctx.now)))
    ),
    col!("clock", "clock", 7..9, 5, RIGHT, true, "the gateway's clock against the controller's", clock, |row, _| row
        .view
        .clock_offset_ms
        .map_or(Key::Nothing, |off| Key::Number(off.abs()))),
    col!(
        "generation",
        "gen",
        4..8,
        6,
        RIGHT,
        true,
        "how often what should stand there has changed",
        |row, _, _| Cell::plain(row.view.generation.to_string()),
        |row, _| Key::number(row.view.generation)
    ),
    col!(
        "version",
        "version",
        8..14,
        7,
        LEFT,
        true,
        "of the agent",
        |row, _, _| or_dash(row.view.agent_version.as_ref()),
        |row, _| text_key(row.view.agent_version.as_ref())
    ),
    col!(
        "backend",
        "backend",
        7..10,
        9,
        LEFT,
        true,
        "which WireGuard the gateway uses",
        |row, _, _| or_dash(row.view.backend.as_ref()),
        |row, _| text_key(row.view.backend.as_ref())
    ),
    col!("notes", "notes", 14..60, 5, LEFT, true, "isolated, locked, or why it is not ready", notes, |row, _| {
        Key::text(row.view.why_not_ready.clone().unwrap_or_default())
    }),
    col!(
        "locked",
        "locked",
        6..6,
        12,
        LEFT,
        false,
        "locked by ops",
        |row, _, _| flag(row.view.locked, "locked"),
        |row, _| Key::number(u64::from(!row.view.locked))
    ),
    col!(
        "endpoint",
        "endpoint",
        12..24,
        11,
        LEFT,
        false,
        "where it is reached directly",
        |row, _, _| or_dash(row.view.endpoint.as_ref()),
        |row, _| text_key(row.view.endpoint.as_ref())
    ),
    col!(
        "certificate",
        "certificate",
        11..14,
        10,
        LEFT,
        false,
        "until when its certificate is good",
        |row, ctx, _| row
            .view
            .certificate_expires_at
            .map_or_else(|| Cell::dim("-"), |at| Cell::plain(text::moment(at, ctx.zone))),
        |row, _| time_key(row.view.certificate_expires_at)
    ),
    col!(
        "id",
        "id",
        13..13,
        13,
        LEFT,
        false,
        "the site's id",
        |row, _, _| Cell::dim(row.view.id.to_string()),
        |row, _| Key::text(row.view.id.to_string())
    ),
];

static NOTICES: &[Column<Notice>] = &[
    col!("time", "time", 8..14, 0, LEFT, true, "when", |row, ctx, _| moment(row.at, ctx), |row, _| Key::Number(
        row.at.as_millis()
    )),
    col!(
        "class",
        "what",
        7..7,
        1,
        LEFT,
        true,
        "an alarm, denied packets, or something refused",
        |row, _, _| Cell::new(row.class.word(), weight_tone(row)),
        |row, _| Key::text(row.class.word())
    ),
    col!("site", "site", 6..18, 3, LEFT, true, "where", |row, _, _| or_dash(row.site.as_ref()), |row, _| text_key(
        row.site.as_ref()
    )),
    col!(
        "about",
        "about",
        12..20,
        4,
        LEFT,
        true,
        "the session or the person",
        |row, _, _| or_dash(row.about.as_ref()),
        |row, _| text_key(row.about.as_ref())
    ),
    col!(
        "kind",
        "kind",
        10..18,
        7,
        LEFT,
        false,
        "of which kind, in a word",
        |row, _, _| Cell::plain(row.kind.clone()),
        |row, _| Key::text(&row.kind)
    ),
    col!(
        "packets",
        "packets",
        7..8,
        6,
        RIGHT,
        false,
        "how many, for denials",
        |row, _, _| if row.class == Class::Denied { Cell::plain(row.packets.to_string()) } else { Cell::dim("-") },
        |row, _| Key::number(row.packets)
    ),
    col!("detail", "detail", 40..160, 2, LEFT, true, "what exactly", told, |row, _| Key::text(&row.detail)),
    col!(
        "seen",
        "seen",
        4..4,
        7,
        LEFT,
        false,
        "marked as seen on this screen",
        |row, _, _| flag(row.seen, "seen"),
        |row, _| Key::number(u64::from(row.seen))
    ),
];

static ENTRIES: &[Column<LogEntry>] = &[
    col!(
        "index",
        "index",
        6..8,
        3,
        RIGHT,
        true,
        "which entry",
        |row, _, _| Cell::dim(row.index.to_string()),
        |row, _| Key::number(row.index)
    ),
    col!("time", "time", 8..14, 0, LEFT, true, "when", |row, ctx, _| moment(row.time, ctx), |row, _| Key::Number(
        row.time.as_millis()
    )),
    col!(
        "actor",
        "actor",
        12..24,
        2,
        LEFT,
        true,
        "who",
        |row, ctx, _| Cell::plain(actor(&row.actor, ctx.model)),
        |row, _| { Key::text(&row.actor) }
    ),
    col!(
        "kind",
        "kind",
        16..26,
        1,
        LEFT,
        true,
        "what happened",
        |row, _, _| Cell::new(row.kind.clone(), Tone::Strong),
        |row, _| Key::text(&row.kind)
    ),
    col!(
        "facts",
        "facts",
        16..200,
        4,
        LEFT,
        true,
        "the short facts in it",
        |row, _, _| Cell::plain(facts(&row.entry)),
        |row, _| Key::text(facts(&row.entry))
    ),
];

/// Who did what the log says; a gateway by its site's name.
pub(crate) fn actor(actor: &str, model: &Model) -> String {
    let site = actor.strip_prefix("agent:").and_then(|id| model.site_name(id));
    site.map_or_else(|| actor.to_owned(), |site| format!("agent:{site}"))
}

/// What a denial or an alarm is, in one line.
fn told(row: &Notice, _: &Ctx<'_>, _: usize) -> Cell {
    Cell::plain(story(row))
}

/// The same as a text.
pub(crate) fn story(row: &Notice) -> String {
    match row.class {
        Class::Denied => format!("{} x {}", row.packets, row.detail),
        Class::Alarm if row.detail.is_empty() => words(&row.kind).to_owned(),
        Class::Alarm => format!("{}: {}", words(&row.kind), row.detail),
        Class::Refused => row.detail.clone(),
    }
}

fn missing(row: &Asked, _: &Ctx<'_>, width: usize) -> Cell {
    if row.view.state != RequestState::Pending {
        return Cell::dim("-");
    }
    let demands = row.view.decision.obligations.approvers.iter().filter(|demand| demand.missing > 0);
    let each: Vec<String> =
        demands.clone().map(|demand| format!("{} {}", demand.missing, demand.roles.join("/"))).collect();
    let text = each.join(", ");
    match text.len() {
        0 => Cell::dim("-"),
        // How many says more than half of whom; below the list it stands in full.
        long if long > width => Cell::plain(demands.map(|demand| demand.missing).sum::<u32>().to_string()),
        _ => Cell::plain(text),
    }
}

/// The word for a state.
pub(crate) fn word(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Approved => "approved",
        RequestState::Denied => "denied",
        RequestState::Withdrawn => "withdrawn",
        RequestState::Lapsed => "lapsed",
        RequestState::Used => "used",
    }
}

fn tone(state: RequestState) -> Tone {
    match state {
        RequestState::Pending => Tone::Warn,
        RequestState::Approved => Tone::Good,
        _ => Tone::Dim,
    }
}

fn link_tone(row: &Place) -> Tone {
    match row.view.state.as_str() {
        "online" => Tone::Good,
        "offline" if row.view.lanes > 0 => Tone::Bad,
        "frozen" => Tone::Bad,
        "offline" => Tone::Warn,
        _ => Tone::Dim,
    }
}

fn weight_tone(row: &Notice) -> Tone {
    match row.weight {
        Weight::Note => Tone::Plain,
        Weight::Warn => Tone::Warn,
        Weight::Urgent => Tone::Bad,
    }
}

fn clock(row: &Place, _: &Ctx<'_>, _: usize) -> Cell {
    let Some(off) = row.view.clock_offset_ms else { return Cell::dim("-") };
    let shown = match off.unsigned_abs() {
        0..50 => "ok".to_owned(),
        50..100_000 => format!("{:+.1}s", off as f64 / 1000.0),
        more => format!("{}{}", if off < 0 { "-" } else { "+" }, text::short(more)),
    };
    Cell::new(shown, if off.abs() > 5_000 { Tone::Bad } else { Tone::Plain })
}

fn notes(row: &Place, _: &Ctx<'_>, _: usize) -> Cell {
    let notes = remarks(row);
    let tone = if notes.is_empty() { Tone::Plain } else { Tone::Warn };
    Cell::new(notes, tone)
}

/// What a person should notice of a site.
pub(crate) fn remarks(row: &Place) -> String {
    let mut notes = Vec::new();
    if row.view.isolated {
        notes.push("isolated by its own switch".to_owned());
    }
    if row.view.locked {
        notes.push("locked".to_owned());
    }
    notes.extend(row.view.why_not_ready.clone());
    notes.join("; ")
}
