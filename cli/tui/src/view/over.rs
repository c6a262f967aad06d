//! What lies over a view: a question, the choice of columns, the help, an enrolment code.

use jiff::tz::TimeZone;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use thinlane_model::Now;
use unicode_width::UnicodeWidthStr;

use crate::act::{Ask, Target, asked, kind_word};
use crate::app::{App, Chooser, Code, Over};
use crate::keys;
use crate::model::Model;
use crate::paint::Paint;
use crate::qr;
use crate::rights;
use crate::text::{self, Glyphs, Tone};
use crate::view::request;

/// Draws it; where the cursor belongs.
pub fn draw(app: &mut App, paint: &mut Paint<'_>, area: Rect, main: Rect, now: Now) -> Option<(u16, u16)> {
    let glyphs = app.glyphs;
    match app.over.as_mut()? {
        Over::Filter(_) => None,
        Over::Ask(ask) => Some(question(ask, (&app.model, &app.zone), glyphs, paint, area, now)),
        Over::Columns(chooser) => {
            let list = app.lists[crate::app::index(app.view)].clone();
            columns(chooser, (list.sort, list.reverse), glyphs, paint, area);
            None
        }
        Over::Help(at) => {
            app.height = usize::from(main.height.saturating_sub(2));
            *at = help(*at, &app.model, glyphs, paint, area);
            None
        }
        Over::Request(id, at) => {
            app.height = usize::from(main.height.saturating_sub(2));
            let view = app.model.requests.get(id).map(|asked| &asked.view);
            let width = usize::from(area.width.saturating_sub(4));
            let lines = match view {
                Some(view) => request::page(view, &app.zone),
                None => vec![format!("{id} is not open any more")],
            };
            let lines = lines.iter().flat_map(|line| text::wrap(&glyphs.clean(line), width)).enumerate();
            let tone = |at| if at == 0 { Tone::Strong } else { Tone::Plain };
            let lines: Vec<_> = lines.map(|(at, line)| (line, tone(at))).collect();
            *at = scroll(&format!("request {id}, Esc: back; lines"), *at, &lines, glyphs, paint, area);
            None
        }
        Over::Code(code, sight) => {
            sight.draw();
            enrolment(code, glyphs, paint, area);
            None
        }
    }
}

/// A box in the lower part, where it hides the selected row the least.
fn place(area: Rect, width: u16, height: u16) -> Rect {
    let width = width.min(area.width);
    let height = height.min(area.height.saturating_sub(1));
    let x = area.x + (area.width - width) / 2;
    Rect { x, y: (area.bottom().saturating_sub(height + 3)).max(area.y), width, height }
}

fn question(
    ask: &mut Ask,
    (model, zone): (&Model, &TimeZone),
    glyphs: Glyphs,
    paint: &mut Paint<'_>,
    area: Rect,
    now: Now,
) -> (u16, u16) {
    let width = area.width.saturating_sub(4).min(100);
    let inner = usize::from(width.saturating_sub(4));
    let what = text::wrap(&glyphs.clean(&asked(ask, model, now, zone)), inner);
    let many = usize::from(ask.targets.len() > 1);
    // Fields and a line of what helps must be there, and what it would do; blank lines and the policy where there is room.
    let room = usize::from(area.height.saturating_sub(3));
    let needed = what.len() + many + ask.fields.len() + 1;
    if needed > room {
        ask.sight.lose();
        let frame = place(area, width, 5);
        paint.frame(frame, "Esc leaves", glyphs.style(Tone::Warn));
        let text = "What this would do does not fit here, and must be read first: it needs a larger window.";
        for (line, text) in text::wrap(text, inner).iter().enumerate().take(3) {
            paint.text(frame.x + 2, frame.y + 1 + line as u16, inner as u16, text, glyphs.style(Tone::Strong));
        }
        return (frame.x + 2, frame.y + 1);
    }
    ask.sight.draw();
    let blank = usize::from(needed < room);
    let policy = said(ask.target(), model).map(|said| text::wrap(&glyphs.clean(&said), inner)).unwrap_or_default();
    let policy = &policy[..policy.len().min(room - needed - blank)];
    let frame = place(area, width, (needed + blank + policy.len()) as u16 + 2);
    paint.frame(frame, "Enter does this, Esc leaves", glyphs.style(Tone::Warn));
    let (x, wide) = (frame.x + 2, frame.width.saturating_sub(4));
    let mut y = frame.y + 1;
    for line in &what {
        paint.text(x, y, wide, line, glyphs.style(Tone::Strong));
        y += 1;
    }
    for line in policy {
        paint.text(x, y, wide, line, glyphs.style(Tone::Dim));
        y += 1;
    }
    if many > 0 {
        choices(ask, glyphs, paint, (x, y, wide));
        y += 1;
    }
    y += blank as u16;
    let mut cursor = (x, y);
    for (at, field) in ask.fields.iter().enumerate() {
        let here = at == ask.focus;
        let label = format!("{}{}: ", if here { glyphs.pointer() } else { "  " }, field.label);
        let wrote = paint.text(x, y, wide, &label, glyphs.style(if here { Tone::Strong } else { Tone::Plain }));
        let room = wide.saturating_sub(wrote);
        // The end of a long text is where one writes.
        let clean = match field.hidden {
            true => "*".repeat(field.text.chars().count()),
            false => glyphs.clean(&field.text),
        };
        let skip = clean.chars().count().saturating_sub(usize::from(room.saturating_sub(1)));
        let shown: String = clean.chars().skip(skip).collect();
        paint.text(x + wrote, y, room, &shown, Style::new().add_modifier(Modifier::UNDERLINED));
        if here {
            cursor = (x + wrote + (shown.width() as u16).min(room.saturating_sub(1)), y);
        }
        y += 1;
    }
    match &ask.problem {
        Some(problem) => paint.text(x, y, wide, problem, glyphs.style(Tone::Bad)),
        None => paint.text(x, y, wide, &hint(ask), glyphs.style(Tone::Dim)),
    };
    cursor
}

fn hint(ask: &Ask) -> String {
    match (ask.targets.len() > 1, ask.fields.len()) {
        (true, _) => "Left/Right: another target; Tab: the next field".to_owned(),
        (false, 2..) => "Tab: the next field".to_owned(),
        (false, 1) if ask.fields[0].text.is_empty() => match ask.target() {
            Target::Approve(_) => "a note for the log, if you like".to_owned(),
            _ => "type why: it stands in the log".to_owned(),
        },
        (false, 1) if ask.fields[0].untouched => "type to replace the text".to_owned(),
        (false, 1) => String::new(),
        (false, _) => String::new(),
    }
}

/// Whom a lock could be about; the chosen one in brackets.
fn choices(ask: &Ask, glyphs: Glyphs, paint: &mut Paint<'_>, (mut x, y, wide): (u16, u16, u16)) {
    let word = |(at, target): (usize, &Target)| {
        let Target::Lock(kind, name) = target else { return (String::new(), Tone::Plain) };
        let text = format!("{} {name}", kind_word(*kind));
        if at == ask.chosen { (format!("[{text}]"), Tone::Strong) } else { (format!(" {text} "), Tone::Plain) }
    };
    let words: Vec<(String, Tone)> = ask.targets.iter().enumerate().map(word).collect();
    let whole: usize = words.iter().map(|(text, _)| text.width() + 1).sum();
    let end = x + wide;
    let fits = whole <= usize::from(wide) + 1;
    for (at, (text, tone)) in words.iter().enumerate().filter(|(at, _)| fits || *at == ask.chosen) {
        // Where all of them have no room, the one that is meant has.
        let count = if fits { String::new() } else { format!("{} of {}: ", at + 1, words.len()) };
        x += paint.text(x, y, end.saturating_sub(x), &count, glyphs.style(Tone::Plain));
        x += paint.text(x, y, end.saturating_sub(x), text, glyphs.style(*tone)) + 1;
    }
}

/// What the policy said of a request that is being decided.
fn said(target: &Target, model: &Model) -> Option<String> {
    let (Target::Approve(id) | Target::Deny(id)) = target else { return None };
    let view = &model.requests.get(id)?.view;
    let ticket = view.ticket.as_ref().map(|ticket| format!(" (ticket {ticket})")).unwrap_or_default();
    Some(format!(
        "Why: {}{ticket}. Policy: {} by {}. {}",
        view.reason,
        view.decision.verdict,
        view.decision.rules.join(", "),
        view.decision.reasons.join("; ")
    ))
}

fn columns(chooser: &Chooser, sort: (&str, bool), glyphs: Glyphs, paint: &mut Paint<'_>, area: Rect) {
    // The list's titles stay in sight: the choice shows there at once.
    let height = (chooser.rows.len() as u16 + 2).min(area.height.saturating_sub(7));
    let frame = place(area, 76, height);
    paint.frame(frame, "columns: Space on/off, +/- move, s sort, Enter keeps", glyphs.style(Tone::Strong));
    let rows = usize::from(frame.height.saturating_sub(2));
    let offset = (chooser.at + 1).saturating_sub(rows);
    for (line, (at, (id, what, shown))) in chooser.rows.iter().enumerate().skip(offset).take(rows).enumerate() {
        let mark = if *shown { "[x]" } else { "[ ]" };
        let pointer = if at == chooser.at { glyphs.pointer() } else { "  " };
        let text = glyphs.fit(
            &format!("{pointer}{mark} {id:<12}{} {what}", if sort.0 == *id { glyphs.order(sort.1) } else { " " }),
            usize::from(frame.width - 2),
            false,
        );
        let style = if at == chooser.at { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        paint.text(frame.x + 1, frame.y + 1 + line as u16, frame.width - 2, &text, style);
    }
}

/// The help: every line of the table of keys. How far down it is, at most.
fn help(at: usize, model: &Model, glyphs: Glyphs, paint: &mut Paint<'_>, area: Rect) -> usize {
    let lines = help_lines(usize::from(area.width.saturating_sub(4)), model);
    scroll("keys", at, &lines, glyphs, paint, area)
}

/// Lines over the whole view, from `at` on. How far down that is, at most.
fn scroll(
    title: &str,
    at: usize,
    lines: &[(String, Tone)],
    glyphs: Glyphs,
    paint: &mut Paint<'_>,
    area: Rect,
) -> usize {
    let frame = Rect { height: area.height - 1, ..area };
    let rows = usize::from(frame.height.saturating_sub(2));
    let at = at.min(lines.len().saturating_sub(rows));
    let more = if at + rows < lines.len() { ", more below" } else { "" };
    paint.frame(
        frame,
        &format!("{title} {}-{} of {}{more}", at + 1, (at + rows).min(lines.len()), lines.len()),
        glyphs.style(Tone::Strong),
    );
    for (line, (text, tone)) in lines.iter().skip(at).take(rows).enumerate() {
        paint.text(frame.x + 2, frame.y + 1 + line as u16, frame.width - 4, text, glyphs.style(*tone));
    }
    at
}

/// The help's lines, generated from the table of keys.
pub fn help_lines(width: usize, model: &Model) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    for (at, (title, _)) in keys::CHAPTERS.iter().enumerate() {
        if at > 0 {
            lines.push((String::new(), Tone::Plain));
        }
        lines.push(((*title).to_owned(), Tone::Strong));
        for line in keys::chapter(at) {
            let names: Vec<String> = line.keys.iter().map(ToString::to_string).collect();
            match rights::others(line.action, model) {
                None => explain(&mut lines, &names.join(", "), line.help, Tone::Plain, width),
                // Said, not only dimmed.
                Some(who) => {
                    let what = format!("(for {who}, not for you) {}", line.help);
                    explain(&mut lines, &names.join(", "), &what, Tone::Dim, width);
                }
            }
        }
    }
    lines.extend([(String::new(), Tone::Plain), ("What a filter understands".to_owned(), Tone::Strong)]);
    for (example, what) in keys::FILTERS {
        explain(&mut lines, example, what, Tone::Plain, width);
    }
    lines.extend([(String::new(), Tone::Plain), ("Numbers in the head line".to_owned(), Tone::Strong)]);
    for (number, what) in NUMBERS {
        explain(&mut lines, number, what, Tone::Plain, width);
    }
    lines
}

/// A key or a word, and what it does, on as many lines as that takes.
fn explain(lines: &mut Vec<(String, Tone)>, name: &str, what: &str, tone: Tone, width: usize) {
    const NAMES: usize = 18;
    for (row, part) in text::wrap(what, width.saturating_sub(NAMES + 2)).into_iter().enumerate() {
        let name = if row == 0 { name } else { "" };
        lines.push((format!("  {name:<NAMES$}{part}"), tone));
    }
}

/// What the head line says beside the names of the views.
const NUMBERS: [(&str, &str); 4] = [
    ("Sessions 7", "seven sessions that have not ended"),
    ("Requests 2!", "two requests wait for a decision"),
    ("Sites 6 -3", "six sites, three of them offline or frozen"),
    (
        "Alarms 1! +7",
        "one alarm or refusal that nobody marked as seen (m), and seven rows more: denied flows, refused attempts, what was seen",
    ),
];

/// The modules of a line as blank letters on a light and a dark ground: a `#` is no dark square to a phone.
fn blocks(line: &str, glyphs: Glyphs, paint: &mut Paint<'_>, (x, y): (u16, u16)) {
    let dark = if glyphs.colour { Style::new().bg(Color::Indexed(16)) } else { Style::new() };
    for (at, _) in line.char_indices().filter(|(_, letter)| *letter == '#') {
        let module = Rect { x: x + at as u16, y, width: 1, height: 1 };
        paint.blank(module, dark);
    }
}

/// Letters that the frame and the words beside a picture take at least: as much as a code in three lines.
const WORDS: u16 = 18;

/// The code in letters, as a picture where there is room, and what to type on the gateway.
fn enrolment(code: &Code, glyphs: Glyphs, paint: &mut Paint<'_>, area: Rect) {
    let frame = Rect { height: area.height - 1, ..area };
    paint.frame(frame, &format!("enrolment code for {}, until {}", code.site, code.until), glyphs.style(Tone::Strong));
    let width = |picture: &[String]| picture.iter().map(|line| line.chars().count()).max().unwrap_or(0) as u16;
    // All that the gateway needs, where there is room for that; else the code alone.
    let picture = [&code.line, &code.code].into_iter().find_map(|text| {
        let picture = qr::lines(text, glyphs.unicode)?;
        let fits = picture.len() as u16 + 2 <= frame.height && width(&picture) + WORDS <= frame.width;
        fits.then_some(picture)
    });
    let (fits, picture) = (picture.is_some(), picture.unwrap_or_default());
    let wide = width(&picture);
    let dark_on_light = if glyphs.colour {
        Style::new().fg(Color::Indexed(16)).bg(Color::Indexed(231))
    } else {
        // Whatever the terminal's colours are, the reverse of them has the light ground that a phone expects.
        Style::new().add_modifier(Modifier::REVERSED)
    };
    let mut left = frame.x + 2;
    if fits {
        for (row, line) in picture.iter().enumerate() {
            let y = frame.y + 1 + row as u16;
            paint.raw(left, y, line, dark_on_light);
            if !glyphs.unicode {
                blocks(line, glyphs, paint, (left, y));
            }
        }
        left += wide + 2;
    }
    let room = frame.right().saturating_sub(left + 2);
    let mut lines = vec![(code.code.clone(), Tone::Strong), (String::new(), Tone::Plain)];
    let words = |line: &str| {
        text::wrap(line, usize::from(room)).into_iter().map(|line| (line, Tone::Plain)).collect::<Vec<_>>()
    };
    lines.extend(words("It is shown once and works once. Write it into a file on the gateway, then:"));
    lines.extend(words(&code.command));
    if !fits {
        lines.push((String::new(), Tone::Plain));
        lines.extend(words(&format!(
            "No room for the QR code here: a larger window, or thinlane site token {} --png FILE",
            code.site
        )));
    }
    // A code that is longer than its room must not be cut.
    let mut y = frame.y + 1;
    for (line, tone) in lines {
        for part in if tone == Tone::Strong { text::wrap(&line, usize::from(room)) } else { vec![line] } {
            if y < frame.bottom() - 1 {
                paint.text(left, y, room, &part, glyphs.style(tone));
            }
            y += 1;
        }
    }
}
