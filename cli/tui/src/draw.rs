//! The picture: head line, banner, the view, what lies over it, and the keys that work now.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use thinlane_model::Now;
use thinlane_wire::api::RequestState;

use crate::app::{App, Over};
use crate::keys::{self, Places, View};
use crate::model::Link;
use crate::notice::{Attention, Weight, attention};
use crate::paint::Paint;
use crate::rights;
use crate::text::{self, Tone};
use crate::view;

/// Below this nothing can be read, and so nothing can be confirmed.
pub const LEAST: (u16, u16) = (50, 12);
/// How long the outcome of a deed stays.
const OUTCOME_TIME: u64 = 60_000;
/// How long it is plain that it has just been said.
const OUTCOME_FRESH: u64 = 5_000;

/// What a picture needs beside its letters.
#[derive(Debug, Default)]
pub struct Drawn {
    /// Where the cursor belongs, if anything is being written.
    pub cursor: Option<(u16, u16)>,
    /// Rows that the person looks at, the most important first.
    pub first: Vec<Range<u16>>,
    pub scene: Scene,
}

/// What is on the screen, whatever it says: another scene is another picture from top to bottom.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Scene {
    /// The window is too small for any.
    #[default]
    Nothing,
    /// A list, a page, and what lies over it.
    View(View, Places),
    /// An enrolment code.
    Code,
}

/// Draws everything into `area`.
pub fn draw(app: &mut App, buffer: &mut Buffer, area: Rect, now: Now) -> Drawn {
    let mut paint = Paint::new(buffer, app.glyphs);
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = LEAST;
        let text =
            format!("The window is too small: {}x{}, at least {width}x{height} is needed.", area.width, area.height);
        for (row, line) in
            text::wrap(&text, usize::from(area.width)).into_iter().enumerate().take(usize::from(area.height))
        {
            paint.text(area.x, area.y + row as u16, area.width, &line, Style::new());
        }
        // Nobody can read what is asked, or was asked.
        app.lose_sight();
        return Drawn::default();
    }
    // Of the world as it is: a picture that stands still must not hide what needs somebody now.
    let needs = attention(&app.model, now);
    head(app, &mut paint, area, now);
    let mut top = area.y + 1;
    let shown = &needs[..needs.len().min(lines_of_banner(area))];
    app.banner = shown.iter().filter_map(|need| need.notice).collect();
    for line in banner(app, &needs, area, now) {
        let style = app.glyphs.style(line.1).add_modifier(Modifier::REVERSED);
        let filled = app.glyphs.fit(&line.0, usize::from(area.width), false);
        paint.text(area.x, top, area.width, &filled, style);
        top += 1;
    }
    let bottom = area.bottom() - 3;
    let main = Rect { x: area.x, y: top, width: area.width, height: bottom.saturating_sub(top) };
    let info = match app.top() {
        View::Detail => view::page::draw(app, &mut paint, main, now),
        View::Sessions => view::list::sessions(app, &mut paint, main, now),
        View::Requests => view::list::requests(app, &mut paint, main, now),
        View::Sites => view::list::sites(app, &mut paint, main, now),
        View::Alarms => view::list::alarms(app, &mut paint, main, now),
        View::Log => view::list::log(app, &mut paint, main, now),
    };
    let dim = app.glyphs.style(Tone::Dim);
    let mut cursor = None;
    if let Some(Over::Filter(_)) = &app.over {
        let line = format!("filter: {}", app.list(app.view).filter);
        paint.text(area.x, bottom, area.width, &line, app.glyphs.style(Tone::Strong));
        let at = unicode_width::UnicodeWidthStr::width(line.as_str()) as u16;
        cursor = Some((area.x + at.min(area.width - 1), bottom));
    } else {
        paint.text(area.x, bottom, area.width, &info, dim);
    }
    // The outcome of a deed, and a filter while it is written.
    paint.first(bottom..bottom + 2);
    if !matches!(app.over, Some(Over::Filter(_))) {
        status(app, &mut paint, Rect { y: bottom, height: 2, ..area }, now);
    }
    footer(app, &mut paint, Rect { y: bottom + 2, height: 1, ..area });
    let over = view::over::draw(app, &mut paint, area, main, now);
    let scene = match &app.over {
        Some(Over::Code(..)) => Scene::Code,
        _ => Scene::View(app.top(), app.place()),
    };
    Drawn { cursor: over.or(cursor), first: paint.into_first(), scene }
}

/// Views with their numbers, and how live the picture is.
fn head(app: &App, paint: &mut Paint<'_>, area: Rect, now: Now) {
    let glyphs = app.glyphs;
    let ctx = app.shown(now);
    let pending = ctx.model.requests.values().filter(|asked| asked.view.state == RequestState::Pending).count();
    let away =
        ctx.model.sites.values().filter(|place| place.view.state == "offline" || place.view.state == "frozen").count();
    let unseen = ctx.model.notices.iter().filter(|notice| !notice.seen && notice.weight > Weight::Note).count();
    let counts = [
        ctx.model.live().count().to_string(),
        if pending > 0 { format!("{pending}!") } else { "0".to_owned() },
        if away > 0 { format!("{} -{away}", ctx.model.sites.len()) } else { ctx.model.sites.len().to_string() },
        match (unseen, ctx.model.notices.len() - unseen) {
            (0, 0) => "0".to_owned(),
            (0, rest) => format!("0 +{rest}"),
            (unseen, 0) => format!("{unseen}!"),
            (unseen, rest) => format!("{unseen}! +{rest}"),
        },
        String::new(),
    ];
    let tab = |(at, (view, count)): (usize, (View, String))| {
        let name = match view {
            View::Sessions => "Sessions",
            View::Requests => "Requests",
            View::Sites => "Sites",
            View::Alarms => "Alarms",
            View::Log | View::Detail => "Log",
        };
        let text = format!(" {} {name} {count}", at + 1);
        (view, format!("{} ", text.trim_end()))
    };
    let tabs: Vec<(View, String)> = View::LISTS.into_iter().zip(counts).enumerate().map(tab).collect();
    let wide: usize = tabs.iter().map(|(_, text)| text.len()).sum();
    let state = live(app, usize::from(area.width).saturating_sub(wide + 1), now);
    let state_width = unicode_width::UnicodeWidthStr::width(state.0.as_str()) as u16;
    let end = area.right().saturating_sub(state_width + 1);
    let mut x = area.x;
    for (view, text) in tabs {
        let here = view == app.view;
        let style = if here { Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD) } else { Style::new() };
        x += paint.text(x, area.y, end.saturating_sub(x), &text, style);
    }
    let who = ctx.model.login.as_ref().map(|login| format!("{login} at {}", ctx.model.controller)).unwrap_or_default();
    let room = end.saturating_sub(x + 2);
    if usize::from(room) >= who.len() + 2 {
        paint.text(x + 1, area.y, room, &who, glyphs.style(Tone::Dim));
    }
    paint.text(end, area.y, state_width, &state.0, glyphs.style(state.1).add_modifier(Modifier::BOLD));
}

/// Whether the picture is the world, in few words; fewer where there is little room.
fn live(app: &App, room: usize, now: Now) -> (String, Tone) {
    if let Some((behind, changes)) = app.frozen(now) {
        let behind = format!("FROZEN {} behind", text::about(behind));
        let whole = format!("{behind}, {}", text::count(changes, "change"));
        return (if whole.len() <= room { whole } else { behind }, Tone::Warn);
    }
    match (app.model.stale(now), &app.model.link) {
        (None, _) => (format!("live {}", text::clock(app.model.controller_now(now), &app.zone)), Tone::Good),
        (Some(_), Link::Opening) => ("connecting".to_owned(), Tone::Warn),
        (Some(old), _) => (format!("STALE {}", text::about(old)), Tone::Bad),
    }
}

/// What needs a person now: one line, more on a tall screen; what does not fit is counted.
fn banner(app: &App, needs: &[Attention], area: Rect, now: Now) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    if let Link::Lost { since, why, retry_at } = &app.model.link {
        let old = text::about(since.until(now.mono).as_millis());
        let next = match now.mono.until(*retry_at).as_millis() {
            0 => "trying now".to_owned(),
            wait => format!("next try in {}", text::about(wait)),
        };
        // On two lines where one would cut why.
        let told =
            text::wrap(&format!("NOT LIVE: this is as of {old} ago; {next}: {why}"), usize::from(area.width) - 2);
        let rest = (told.len() > 1).then(|| (format!("   {}", told[1..].join(" ")), Tone::Bad));
        lines.extend(told.first().map(|first| (format!(" {first}"), Tone::Bad)).into_iter().chain(rest));
    } else if let Some(old) = app.model.stale(now).filter(|_| app.model.link == Link::Live) {
        lines.push((format!(" NOT LIVE: the controller has said nothing for {}", text::about(old)), Tone::Bad));
    }
    let room = lines_of_banner(area);
    for (at, need) in needs.iter().enumerate().take(room) {
        let (mark, tone) = match need.weight {
            Weight::Urgent => ("NOW", Tone::Bad),
            _ => ("LOOK", Tone::Warn),
        };
        // Said first: the end of a line is what a narrow screen cuts.
        let of = if needs.len() > room { format!(" ({} of {})", at + 1, needs.len()) } else { String::new() };
        lines.push((format!(" {mark}{of}: {}", need.text), tone));
    }
    lines
}

/// How many lines of the banner a screen has room for.
fn lines_of_banner(area: Rect) -> usize {
    match area.height {
        0..30 => 1,
        30..45 => 3,
        _ => 5,
    }
}

/// What came of the last deed: in the line above the keys, and in the one above that as well where it is long.
fn status(app: &App, paint: &mut Paint<'_>, area: Rect, now: Now) {
    let Some(outcome) = app.outcome.as_ref().filter(|outcome| outcome.at.until(now.mono).as_millis() < OUTCOME_TIME)
    else {
        return;
    };
    let mut said = outcome.text.clone();
    if let Some((_, before)) = &outcome.before {
        said.push_str(&format!(" | before that: {before}"));
    }
    if outcome.at.until(now.mono).as_millis() >= OUTCOME_FRESH {
        // It is said of that moment: what is shown around it is newer.
        said.insert_str(0, &format!("{}: ", text::clock(outcome.clock, &app.zone)));
    }
    let mut lines = text::wrap(&app.glyphs.clean(&said), usize::from(area.width));
    if lines.len() > 2 {
        // The rest is cut with a mark.
        let rest = lines.split_off(1).join(" ");
        lines.push(rest);
    }
    let top = area.y + 2 - lines.len().clamp(1, 2) as u16;
    for (at, line) in lines.iter().enumerate() {
        let filled = app.glyphs.fit(line, usize::from(area.width), false);
        paint.text(area.x, top + at as u16, area.width, &filled, app.glyphs.style(outcome.tone));
    }
}

/// The keys that work here, from the table; as many as there is room for.
fn footer(app: &App, paint: &mut Paint<'_>, area: Rect) {
    let place = app.place();
    let mut x = area.x;
    let mine = |line: &&keys::Binding| rights::others(line.action, &app.model).is_none();
    let here = |line: &&keys::Binding| line.places & place != 0 && !line.label.is_empty();
    // What one may not do is not offered; the help says who may.
    for line in keys::TABLE.iter().filter(here).filter(mine) {
        let Some(key) = line.keys.first() else { continue };
        let (key, label) = (key.to_string(), line.label);
        let wide = (key.len() + label.len() + 1) as u16;
        if x + wide > area.right() {
            break;
        }
        x += paint.text(x, area.y, area.right().saturating_sub(x), &key, app.glyphs.style(Tone::Strong));
        x += paint.text(x + 1, area.y, area.right().saturating_sub(x + 1), label, app.glyphs.style(Tone::Dim)) + 3;
    }
}
