//! One picture for scripts: everything as JSON, or one list as plain text.

use std::collections::BTreeSet;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::{Value, json};
use thinlane_model::Now;
use thinlane_wire::api::SCHEMA;

use crate::app::App;
use crate::draw;
use crate::keys::View;
use crate::notice::{Weight, attention};
use crate::table::{Listed, RowId};

/// Rows of a list in a text picture at most.
const MOST_ROWS: u16 = 2000;

/// Everything that the screen knows, as one object; of the list on top what its filter passes.
pub fn object(app: &App, now: Now) -> Value {
    let model = &app.model;
    let filtered = !app.list(app.view).filter.trim().is_empty();
    let passing: Option<BTreeSet<RowId>> = filtered.then(|| app.ids(now).into_iter().collect());
    let passes = |view: View, id: RowId| app.view != view || passing.as_ref().is_none_or(|ids| ids.contains(&id));
    let needs: Vec<Value> = attention(model, now)
        .into_iter()
        .map(|need| json!({ "kind": need.kind, "site": need.site, "urgent": need.weight == Weight::Urgent, "text": need.text }))
        .collect();
    let notices: Vec<Value> = model
        .notices
        .iter()
        .filter(|notice| passes(View::Alarms, notice.id()))
        .map(|notice| {
            json!({
                "at": notice.at, "class": notice.class.word().to_lowercase(), "site": notice.site, "about": notice.about,
                "kind": notice.kind, "detail": notice.detail, "packets": notice.packets,
            })
        })
        .collect();
    json!({
        "schema": SCHEMA,
        "at": model.controller_now(now),
        "controller": model.controller,
        "user": model.login,
        "attention": needs,
        "sessions": passing_of(model.sessions.values(), |peer| passes(View::Sessions, peer.id()), |peer| &peer.view),
        "requests": passing_of(model.requests.values(), |asked| passes(View::Requests, asked.id()), |asked| &asked.view),
        "sites": passing_of(model.sites.values(), |place| passes(View::Sites, place.id()), |place| &place.view),
        "alarms": notices,
    })
}

fn passing_of<'m, R: 'm, V: 'm>(
    rows: impl Iterator<Item = &'m R>,
    passes: impl Fn(&R) -> bool,
    view: impl Fn(&'m R) -> &'m V,
) -> Vec<&'m V> {
    rows.filter(|row| passes(row)).map(view).collect()
}

/// The screen as text of this width, high enough for every row of the list on top.
pub fn text(app: &mut App, width: u16, now: Now) -> String {
    let rows = u16::try_from(app.ids(now).len()).unwrap_or(MOST_ROWS).min(MOST_ROWS);
    let below = if app.view == View::Requests { 24 } else { 12 };
    let area = Rect { x: 0, y: 0, width: width.max(draw::LEAST.0), height: rows + below };
    let mut buffer = Buffer::empty(area);
    draw::draw(app, &mut buffer, area, now);
    let line = |y: u16| {
        let cells = (0..area.width).filter_map(|x| buffer.cell((x, y)));
        cells.map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
    };
    // The bottom line names keys, which a script does not press.
    let mut lines: Vec<String> = (0..area.height - 1).map(line).collect();
    lines.dedup_by(|a, b| a.is_empty() && b.is_empty());
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.join("\n")
}
