//! The page of one session: what it is, its traffic over its life, why it was permitted, what was refused to it,
//! and what happened to it.

use ratatui::layout::Rect;
use thinlane_model::{Now, Span, Wall};
use thinlane_wire::api::{SessionState, SessionView};

use crate::app::App;
use crate::columns::{actor, facts, path_word, state_tone, state_word};
use crate::model::Peer;
use crate::notice::Class;
use crate::page::{Found, Page, Plot, Stretch, plot};
use crate::paint::Paint;
use crate::table::Ctx;
use crate::text::{self, Tone};

/// A line: its parts, one after the other.
type Line = Vec<(String, Tone)>;

/// Draws the page on top; what stands below it.
pub fn draw(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let Some(mut page) = app.page.take() else { return String::new() };
    let ctx = app.shown(now);
    let glyphs = app.glyphs;
    let lines = lines(&page, &ctx, usize::from(area.width));
    let height = usize::from(area.height);
    page.lines = lines.len();
    page.scroll = page.scroll.min(lines.len().saturating_sub(height));
    for (at, line) in lines.iter().skip(page.scroll).take(height).enumerate() {
        let mut x = area.x;
        for (part, tone) in line {
            x += paint.text(x, area.y + at as u16, area.right().saturating_sub(x), part, glyphs.style(*tone));
        }
    }
    let end = (page.scroll + height).min(lines.len());
    let info = format!("lines {}-{end} of {}{}Esc: back to the list", page.scroll + 1, lines.len(), glyphs.dot());
    app.height = height;
    app.page = Some(page);
    info
}

fn lines(page: &Page, ctx: &Ctx<'_>, width: usize) -> Vec<Line> {
    let peer = ctx.model.sessions.get(&page.id);
    let found = page.found.as_ref();
    let Some(view) = peer.map(|peer| &peer.view).or(found.map(|found| &found.session)) else {
        let text = page.problem.clone().unwrap_or_else(|| format!("fetching {} ...", page.id));
        return vec![vec![(text, Tone::Plain)]];
    };
    let mut lines = Vec::new();
    facts_of(view, peer, ctx, width, &mut lines);
    traffic(view, peer, found, ctx, width, &mut lines);
    decision(view, found, ctx, width, &mut lines);
    denied(view, ctx, width, &mut lines);
    timeline(page, found, ctx, width, &mut lines);
    lines
}

fn heading(lines: &mut Vec<Line>, text: &str) {
    lines.push(Vec::new());
    lines.push(vec![(text.to_owned(), Tone::Strong)]);
}

fn pair(lines: &mut Vec<Line>, name: &str, value: String, tone: Tone, ctx: &Ctx<'_>, width: usize) {
    for (at, part) in text::wrap(&ctx.glyphs.clean(&value), width.saturating_sub(13)).into_iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        lines.push(vec![(format!("  {name:<11}"), Tone::Dim), (part, tone)]);
    }
}

fn facts_of(view: &SessionView, peer: Option<&Peer>, ctx: &Ctx<'_>, width: usize, lines: &mut Vec<Line>) {
    let org = view.org.as_ref().map(|org| format!(" ({org})")).unwrap_or_default();
    lines.push(vec![
        (format!("{} ", view.id), Tone::Strong),
        (state_word(view.state).to_owned(), state_tone(view.state)),
        (
            format!(
                "  {}{org} on {} at {}, {} ({} {})",
                view.user, view.asset, view.site, view.task, view.protocol, view.port
            ),
            Tone::Strong,
        ),
    ]);
    let left = peer.and_then(|peer| peer.left(ctx.now)).filter(|_| view.state == SessionState::Active);
    let clock = |at: Option<Wall>| at.map_or_else(|| "-".to_owned(), |at| text::clock(at, ctx.zone));
    match (left, peer.and_then(Peer::length)) {
        (Some(left), Some(length)) => {
            let bar = ctx.glyphs.bar(left as f64 / length.max(1) as f64, (width / 3).clamp(10, 60));
            let times = format!("opened {}, ends {}", clock(view.opened_at), clock(view.ends_at));
            lines.push(vec![
                (format!("  {bar} "), Tone::Plain),
                (format!("{} left", text::countdown(left)), Tone::Strong),
                (format!("  {times}"), Tone::Dim),
            ]);
        }
        _ => {
            let why = match (view.end_reason, &view.end_detail) {
                (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
                (Some(reason), None) => reason.to_string(),
                (None, Some(detail)) => detail.clone(),
                (None, None) => String::new(),
            };
            lines.push(vec![(
                format!("  opened {}, ended {}  {why}", clock(view.opened_at), clock(view.ended_at)),
                Tone::Plain,
            )]);
        }
    }
    let counters = &view.counters;
    let untold = peer.is_some_and(|peer| ctx.model.is_untold(peer, ctx.now));
    let rate = |bytes: u64| match bytes {
        _ if untold => "not known how fast now".to_owned(),
        0 => "quiet".to_owned(),
        _ => format!("{}/s", text::rate(bytes)),
    };
    let (up, down) = peer.map_or((0, 0), |peer| (peer.up.rate(ctx.now.mono), peer.down.rate(ctx.now.mono)));
    let end = if view.counters_final { ", final" } else { "" };
    // Said where the number stands: it is compared with what an analyser counted.
    let merged = if view.merged { " (merged)" } else { "" };
    let flow = |bytes, packets, now| {
        format!("{}, {}{merged}, {}{end}", text::bytes(bytes), text::count(packets, "packet"), rate(now))
    };
    pair(lines, "up", flow(counters.up_bytes, counters.up_packets, up), Tone::Plain, ctx, width);
    pair(lines, "down", flow(counters.down_bytes, counters.down_packets, down), Tone::Plain, ctx, width);
    if view.merged {
        let why = "merged: the gateway's kernel counts packets that travel together as one";
        pair(lines, "", why.to_owned(), Tone::Dim, ctx, width);
    }
    let bad = counters.denied_packets + counters.spoofed_packets > 0;
    let foreign = match (view.merged, counters.spoofed_packets) {
        (true, 0) => "those with a foreign source are dropped uncounted".to_owned(),
        (_, count) => format!("{count} with a foreign source"),
    };
    let denied = format!("{}, {foreign}", text::count(counters.denied_packets, "packet"));
    pair(lines, "denied", denied, if bad { Tone::Warn } else { Tone::Plain }, ctx, width);
    let shake = view
        .last_handshake_at
        .map_or_else(|| "none yet".to_owned(), |at| format!("{} ago", text::about(ctx.model.since(at, ctx.now))));
    let from = view.endpoint.as_deref().unwrap_or("nowhere yet");
    let lane = format!(
        "{from} -> {} -> {} ({}); handshake {shake}; backend {}",
        path_word(view.path),
        view.asset_address,
        view.address,
        view.backend.as_deref().unwrap_or("-")
    );
    pair(lines, "lane", lane, Tone::Plain, ctx, width);
    let ticket = view.ticket.as_ref().map(|ticket| format!(" (ticket {ticket})")).unwrap_or_default();
    pair(lines, "reason", format!("{}{ticket}", view.reason), Tone::Plain, ctx, width);
}

/// Both directions over its life: what the controller remembers, else what this screen has seen.
fn traffic(
    view: &SessionView,
    peer: Option<&Peer>,
    found: Option<&Found>,
    ctx: &Ctx<'_>,
    width: usize,
    lines: &mut Vec<Line>,
) {
    let columns = width.saturating_sub(16).clamp(10, 240);
    let samples = found.map(|found| found.history.as_slice()).unwrap_or_default();
    let (plot, span) = match (view.opened_at, samples.last()) {
        (Some(opened), Some(last)) => {
            let end = view.ended_at.unwrap_or_else(|| ctx.model.controller_now(ctx.now)).max(last.at);
            let span = format!("since {}", text::clock(opened, ctx.zone));
            (plot(samples, opened, end, told_until(view, ctx).unwrap_or(end), columns), span)
        }
        _ => {
            let columns = columns.min(30);
            let Some(peer) = peer else { return };
            let (up, down) = (peer.up.columns(ctx.now.mono, columns), peer.down.columns(ctx.now.mono, columns));
            let untold = ctx.model.untold_columns(peer, ctx.now, columns);
            let part = |((up, down), unknown)| Stretch { up, down, unknown };
            let plot = Plot { stretches: up.into_iter().zip(down).zip(untold).map(part).collect(), untold: 0 };
            (plot, format!("the last {} seconds", columns * 3))
        }
    };
    let unknown: Vec<bool> = plot.stretches.iter().map(|part| part.unknown).collect();
    let legend = match (unknown.contains(&true), plot.untold) {
        (false, _) => String::new(),
        (true, 0) => format!("{}?: not known", ctx.glyphs.dot()),
        (true, untold) => format!("{}?: not known when, {} in all", ctx.glyphs.dot(), text::bytes(untold)),
    };
    heading(lines, &format!("Traffic, {span}{legend}"));
    for (name, values) in [
        ("up", plot.stretches.iter().map(|part| part.up).collect::<Vec<_>>()),
        ("down", plot.stretches.iter().map(|part| part.down).collect()),
    ] {
        let top = values.iter().copied().max().unwrap_or(0);
        for (at, mut row) in tower(&values, 3, ctx).into_iter().enumerate() {
            if at == 2 {
                row = row.chars().zip(&unknown).map(|(letter, unknown)| if *unknown { '?' } else { letter }).collect();
            }
            let label = match at {
                0 => format!("  {:>8} ", text::bytes(top)),
                2 => format!("  {name:>8} "),
                _ => format!("  {:>8} ", ""),
            };
            lines.push(vec![(label, Tone::Dim), (row, Tone::Plain)]);
        }
    }
}

/// Until when what passed is known, if that is not now: a gateway that is away says nothing, and neither does a
/// controller that is not heard.
fn told_until(view: &SessionView, ctx: &Ctx<'_>) -> Option<Wall> {
    if view.state == SessionState::Ended {
        return None;
    }
    let heard = ctx.model.stale(ctx.now).map(|old| ctx.model.controller_now(ctx.now) - Span::from_millis(old));
    let away = ctx.model.sites.get(&view.site).filter(|place| place.view.state == "offline");
    let seen = away.and_then(|place| place.view.last_seen_at);
    match (heard, seen) {
        (Some(heard), Some(seen)) => Some(heard.min(seen)),
        (heard, seen) => heard.or(seen),
    }
}

/// Values as columns of so many lines, top line first.
fn tower(values: &[u64], height: usize, ctx: &Ctx<'_>) -> Vec<String> {
    const PARTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    (0..height)
        .rev()
        .map(|row| {
            let letter = |value: &u64| {
                let eighths = (*value as f64 / top * (height * 8) as f64).ceil() as usize;
                let here = eighths.saturating_sub(row * 8).min(8);
                match (ctx.glyphs.unicode, here, row) {
                    (_, 0, 0) => {
                        if ctx.glyphs.unicode {
                            '·'
                        } else {
                            '_'
                        }
                    }
                    (true, here, _) => PARTS[here],
                    (false, 0, _) => ' ',
                    (false, 1..4, _) => '.',
                    (false, ..) => '#',
                }
            };
            values.iter().map(letter).collect()
        })
        .collect()
}

fn decision(view: &SessionView, found: Option<&Found>, ctx: &Ctx<'_>, width: usize, lines: &mut Vec<Line>) {
    heading(lines, "Why it was permitted");
    let policy: String = view.policy.hash.chars().take(12).collect();
    pair(lines, "request", format!("{}, policy {policy}", view.request), Tone::Plain, ctx, width);
    if let Some(request) = found.and_then(|found| found.request.as_ref()) {
        let said = &request.decision;
        pair(lines, "policy", format!("{} by {}", said.verdict, said.rules.join(", ")), Tone::Plain, ctx, width);
        for reason in &said.reasons {
            pair(lines, "", reason.clone(), Tone::Plain, ctx, width);
        }
    }
    for approval in &view.approvals {
        let note = approval.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        pair(
            lines,
            "approved",
            format!("by {} at {}{note}", approval.by, text::moment(approval.at, ctx.zone)),
            Tone::Plain,
            ctx,
            width,
        );
    }
    if view.approvals.is_empty() {
        pair(lines, "approved", "by nobody: none was asked for".to_owned(), Tone::Plain, ctx, width);
    }
}

fn denied(view: &SessionView, ctx: &Ctx<'_>, width: usize, lines: &mut Vec<Line>) {
    heading(lines, "Denied flows");
    let id = view.id.to_string();
    let mut told = 0;
    let about = ctx
        .model
        .notices
        .iter()
        .rev()
        .filter(|notice| notice.class == Class::Denied && notice.about.as_deref() == Some(id.as_str()));
    for notice in about.take(20) {
        told += notice.packets;
        let line = format!("{}  {} x {}", text::clock(notice.at, ctx.zone), notice.packets, notice.detail);
        pair(lines, "", line, Tone::Warn, ctx, width);
    }
    let untold = view.counters.denied_packets.saturating_sub(told);
    match (told, untold) {
        (0, 0) => pair(lines, "", "none".to_owned(), Tone::Dim, ctx, width),
        (_, 0) => {}
        _ => pair(
            lines,
            "",
            format!("{} more that nobody was told of in detail", text::count(untold, "packet")),
            Tone::Dim,
            ctx,
            width,
        ),
    }
}

fn timeline(page: &Page, found: Option<&Found>, ctx: &Ctx<'_>, width: usize, lines: &mut Vec<Line>) {
    heading(lines, "What happened");
    let Some(found) = found else {
        pair(lines, "", page.problem.clone().unwrap_or_else(|| "fetching ...".to_owned()), Tone::Dim, ctx, width);
        return;
    };
    for entry in &found.timeline {
        let line = format!("{}  {}  {}", entry.kind, actor(&entry.actor, ctx.model), facts(&entry.entry));
        pair(lines, &text::clock(entry.time, ctx.zone), line, Tone::Plain, ctx, width);
    }
    for missing in found.missing.iter().chain(&page.problem) {
        pair(lines, "", missing.clone(), Tone::Warn, ctx, width);
    }
}
