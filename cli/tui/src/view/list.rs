//! Every list is drawn by the same lines; only its rows differ.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use thinlane_model::Now;

use crate::app::App;
use crate::columns::{actor, facts, remarks, story};
use crate::keys::View;
use crate::paint::Paint;
use crate::table::{Ctx, List, Listed, RowId, arrange, layout};
use crate::text::{self, Tone};
use crate::view::request;

/// A list as drawn: what stands below it, and the list with its window settled.
struct Drawn {
    list: List,
    height: usize,
    info: String,
}

pub fn sessions(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let drawn = {
        let ctx = app.shown(now);
        let ended = |peer: &&crate::model::Peer| !peer.is_live();
        let over = ctx.model.sessions.values().filter(ended).count() as u64;
        let empty = "nobody is connected";
        let mut drawn = draw(app, &ctx, ctx.model.sessions.values(), View::Sessions, paint, area, empty);
        if over > 0 {
            drawn.info.push_str(&format!("{}{over} ended lately", app.glyphs.dot()));
        }
        drawn
    };
    keep(app, View::Sessions, drawn)
}

pub fn requests(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let drawn = {
        let ctx = app.shown(now);
        // What the policy said of the selected one stands below.
        let below = (area.height / 3).clamp(4, 12);
        let list = Rect { height: area.height.saturating_sub(below), ..area };
        let empty = "nobody waits for a decision";
        let drawn = draw(app, &ctx, ctx.model.requests.values(), View::Requests, paint, list, empty);
        decision(&ctx, &drawn.list, paint, Rect { y: list.bottom(), height: below, ..area });
        drawn
    };
    keep(app, View::Requests, drawn)
}

pub fn sites(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let drawn = {
        let ctx = app.shown(now);
        let empty = "there is no site yet: thinlane site add NAME";
        let selected = match &app.list(View::Sites).selected {
            Some(RowId::Site(name)) => ctx.model.sites.get(name),
            _ => None,
        };
        let told = selected.map(|place| {
            let notes = remarks(place);
            let notes = if notes.is_empty() { "nothing of note".to_owned() } else { notes };
            format!("{} is {}: {notes}", place.view.site, place.view.state)
        });
        let list = below(&ctx, told, paint, area);
        draw(app, &ctx, ctx.model.sites.values(), View::Sites, paint, list, empty)
    };
    keep(app, View::Sites, drawn)
}

pub fn alarms(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let drawn = {
        let ctx = app.shown(now);
        let selected = match &app.list(View::Alarms).selected {
            Some(RowId::Notice(number)) => ctx.model.notices.iter().find(|notice| notice.number == *number),
            _ => None,
        };
        let told = selected.map(|notice| {
            let site = notice.site.as_ref().map(|site| format!(" at {site}")).unwrap_or_default();
            let about = notice.about.as_ref().map(|about| format!(", {about}")).unwrap_or_default();
            format!("{} {}{site}{about}: {}", text::moment(notice.at, ctx.zone), notice.class.word(), story(notice))
        });
        let list = below(&ctx, told, paint, area);
        draw(app, &ctx, ctx.model.notices.iter(), View::Alarms, paint, list, "no denials and no alarms")
    };
    keep(app, View::Alarms, drawn)
}

pub fn log(app: &mut App, paint: &mut Paint<'_>, area: Rect, now: Now) -> String {
    let drawn = {
        let ctx = app.shown(now);
        let empty =
            if ctx.model.log_readable { "nothing was logged yet" } else { "your roles do not include reading the log" };
        let selected = match &app.list(View::Log).selected {
            Some(RowId::Entry(index)) => ctx.model.entries.iter().find(|entry| entry.index == *index),
            _ => None,
        };
        let told = selected.map(|entry| {
            let who = actor(&entry.actor, ctx.model);
            format!("{} {} {who}: {}", text::moment(entry.time, ctx.zone), entry.kind, facts(&entry.entry))
        });
        let list = below(&ctx, told, paint, area);
        draw(app, &ctx, ctx.model.entries.iter(), View::Log, paint, list, empty)
    };
    keep(app, View::Log, drawn)
}

/// The selected row in full below its list, where columns had to cut it; what is left for the list.
fn below(ctx: &Ctx<'_>, told: Option<String>, paint: &mut Paint<'_>, area: Rect) -> Rect {
    let Some(told) = told else { return area };
    let glyphs = ctx.glyphs;
    let lines = text::wrap(&glyphs.clean(&told), usize::from(area.width.saturating_sub(2)));
    // Always as high, so that the list does not jump from row to row.
    let height = (area.height / 3).clamp(3, 6);
    let list = Rect { height: area.height.saturating_sub(height), ..area };
    rule(ctx, paint, Rect { y: list.bottom(), height: 1, ..area });
    for (at, line) in lines.iter().enumerate().take(usize::from(height - 1)) {
        paint.text(
            area.x + 2,
            list.bottom() + 1 + at as u16,
            area.width.saturating_sub(2),
            line,
            glyphs.style(Tone::Plain),
        );
    }
    list
}

fn rule(ctx: &Ctx<'_>, paint: &mut Paint<'_>, area: Rect) {
    let line = if ctx.glyphs.unicode { "─" } else { "-" };
    paint.text(area.x, area.y, area.width, &line.repeat(usize::from(area.width)), ctx.glyphs.style(Tone::Dim));
}

fn keep(app: &mut App, view: View, drawn: Drawn) -> String {
    *app.list_mut(view) = drawn.list;
    app.height = drawn.height;
    drawn.info
}

fn draw<'m, R: Listed>(
    app: &App,
    ctx: &Ctx<'_>,
    items: impl ExactSizeIterator<Item = &'m R>,
    view: View,
    paint: &mut Paint<'_>,
    area: Rect,
    empty: &str,
) -> Drawn {
    let glyphs = ctx.glyphs;
    let mut list = app.list(view).clone();
    let all = items.len();
    let rows = arrange(items, &list, ctx);
    let ids: Vec<RowId> = rows.iter().map(|row| row.id()).collect();
    let height = usize::from(area.height.saturating_sub(1));
    let at = list.selected.as_ref().and_then(|id| ids.iter().position(|one| one == id));
    let over = at.is_some_and(|at| rows[at].is_over());
    list.settle(&ids, height, matches!(view, View::Alarms | View::Log) && sorted_by_time(&list), over);
    let columns = layout::<R>(&list, area.width.saturating_sub(2));

    let mut x = area.x + 2;
    for (column, width) in &columns {
        let wide = usize::from(*width);
        // The mark stays where the title has to be cut.
        let title = match column.id == list.sort {
            true if column.title.len() >= wide => {
                let cut: String = column.title.chars().take(wide.saturating_sub(1)).collect();
                cut + glyphs.order(list.reverse)
            }
            true => glyphs.fit(&format!("{}{}", column.title, glyphs.order(list.reverse)), wide, column.right),
            false => glyphs.fit(column.title, wide, column.right),
        };
        paint.text(x, area.y, *width, &title, Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        x += width + 1;
    }
    if rows.is_empty() {
        let text = if all > 0 { "nothing passes the filter (Esc drops it)" } else { empty };
        paint.text(area.x + 2, area.y + 2, area.width.saturating_sub(2), text, glyphs.style(Tone::Dim));
    }
    for (at, row) in rows.iter().enumerate().skip(list.offset).take(height) {
        let y = area.y + 1 + (at - list.offset) as u16;
        let selected = list.selected.as_ref() == Some(&ids[at]);
        let mut x = area.x + 2;
        for (column, width) in &columns {
            let cell = (column.cell)(row, ctx, usize::from(*width));
            let text = glyphs.fit(&cell.text, usize::from(*width), column.right);
            // Reversed is enough on the selected row: colours on it are hard to read.
            let style = if selected { Style::new().add_modifier(Modifier::BOLD) } else { glyphs.style(cell.tone) };
            paint.text(x, y, *width, &text, style);
            x += width + 1;
        }
        if selected {
            paint.first(y..y + 1);
            paint.text(area.x, y, 2, glyphs.pointer(), Style::new());
            paint.style(
                Rect { x: area.x, y, width: area.width, height: 1 },
                Style::new().add_modifier(Modifier::REVERSED),
            );
        }
    }
    Drawn { info: info(&list, &ids, all, height, list.columns.len().saturating_sub(columns.len()), ctx), list, height }
}

/// Where one is in the list.
fn info(list: &List, ids: &[RowId], all: usize, height: usize, hidden: usize, ctx: &Ctx<'_>) -> String {
    let dot = ctx.glyphs.dot();
    let from = if ids.is_empty() { 0 } else { list.offset + 1 };
    let mut info = format!("{from}-{} of {}", (list.offset + height).min(ids.len()), ids.len());
    if ids.len() < all || !list.filter.is_empty() {
        info.push_str(&format!("{dot}filter \"{}\" passes {} of {all}", list.filter, ids.len()));
    }
    if let Some(id) = &list.selected {
        match ids.iter().position(|one| one == id) {
            None => info.push_str(&format!("{dot}the selected row has left the list")),
            Some(at) if !list.shows(at, height) => info.push_str(&format!("{dot}the selected row is out of sight")),
            Some(_) => {}
        }
    }
    info.push_str(&format!("{dot}by {}{}", list.sort, if list.reverse { ", reversed" } else { "" }));
    if !list.follow {
        info.push_str(&format!("{dot}not following (f)"));
    }
    if hidden > 0 {
        info.push_str(&format!("{dot}{} not shown (c)", text::count(hidden as u64, "column")));
    }
    info
}

fn sorted_by_time(list: &List) -> bool {
    matches!(list.sort, "time" | "index") && !list.reverse
}

/// What the policy said of the selected request.
fn decision(ctx: &Ctx<'_>, list: &List, paint: &mut Paint<'_>, area: Rect) {
    let selected = match &list.selected {
        Some(RowId::Request(id)) => ctx.model.requests.get(id),
        _ => None,
    };
    let glyphs = ctx.glyphs;
    rule(ctx, paint, area);
    let Some(asked) = selected else {
        let text = "select a request to read what the policy said of it";
        paint.text(area.x + 2, area.y + 1, area.width.saturating_sub(2), text, glyphs.style(Tone::Dim));
        return;
    };
    let lines = request::said(&asked.view, ctx.zone);
    let width = usize::from(area.width.saturating_sub(2));
    let mut wrapped: Vec<String> = lines.iter().flat_map(|line| text::wrap(&glyphs.clean(line), width)).collect();
    let room = usize::from(area.height.saturating_sub(1));
    if wrapped.len() > room {
        wrapped.truncate(room.saturating_sub(1));
        let more = if glyphs.unicode { '…' } else { '~' };
        wrapped.push(format!("{more} more: Enter shows all of it"));
    }
    for (at, line) in wrapped.iter().enumerate().take(room) {
        let tone = if at == 0 { Tone::Strong } else { Tone::Plain };
        paint.text(area.x + 2, area.y + 1 + at as u16, area.width.saturating_sub(2), line, glyphs.style(tone));
    }
}
