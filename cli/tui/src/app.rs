//! What is on the screen, and what each key makes of it.

mod open;
mod over;
mod told;

use jiff::tz::TimeZone;
use thinlane_model::{Now, RequestId, SessionId};
use thinlane_wire::api::LogEntry;

use crate::act::{Ask, Deed, Sight};
use crate::config::{Config, ConfigError};
use crate::key::Key;
use crate::keys::{self, Action, Places, View};
use crate::model::{Asked, Input, Model, Peer, Place};
use crate::notice::Notice;
use crate::page::{Found, Page};
use crate::table::{Ctx, List, Listed, RowId, arrange, column, standard};
use crate::text::Glyphs;

/// What the shell is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Do this; the answer comes back with [`App::told`].
    Act {
        ticket: u64,
        deed: Deed,
    },
    /// Fetch what a session's page shows; the answer comes back with [`App::found`].
    Look(SessionId),
    /// Write `tui.toml`.
    Save(String),
    /// Fetch the snapshot again.
    Resync,
    /// Draw everything, also what has not changed.
    Redraw,
    Quit,
}

/// What lies over the view.
#[derive(Debug, Clone)]
pub enum Over {
    Ask(Box<Ask>),
    /// The filter is being written; what it was before.
    Filter(String),
    Columns(Chooser),
    /// The help, so many lines down.
    Help(usize),
    /// A request in full, so many lines down.
    Request(RequestId, usize),
    Code(Code, Sight),
}

/// The choice of columns.
#[derive(Debug, Clone)]
pub struct Chooser {
    /// Every column of the list: its id, what it is, and whether it is shown.
    pub rows: Vec<(&'static str, &'static str, bool)>,
    pub at: usize,
    /// As it was, for leaving without a change: columns, order, reversed.
    before: (Vec<&'static str>, &'static str, bool),
}

/// An enrolment code on the screen; it is nowhere else.
#[derive(Clone)]
pub struct Code {
    pub site: String,
    pub code: String,
    /// The code with where to trade it, as a QR code holds it; the code alone where that is not known.
    pub line: String,
    /// When it lapses, in words.
    pub until: String,
    /// The command for the gateway.
    pub command: String,
}

/// The answer to a deed.
#[derive(Clone)]
pub enum Answer {
    Done(String),
    /// Done, but these sessions have not been confirmed to be closed: that matters until they are.
    Ending(String, Vec<SessionId>),
    Failed(String),
    /// This session goes on for longer: no longer true once it has ended, which somebody else may see to at once.
    Extended(String, SessionId),
    /// It was asked for and no answer came: nobody knows whether it was done. Whether these sessions end will tell.
    Unsure(String, Vec<SessionId>),
    Code(Code),
}

pub use told::Outcome;

/// A picture that stands still.
struct Frozen {
    model: Model,
    now: Now,
}

/// The screen's state.
pub struct App {
    pub model: Model,
    frozen: Option<Box<Frozen>>,
    pub view: View,
    pub page: Option<Page>,
    pub(crate) lists: [List; 5],
    pub over: Option<Over>,
    /// What an enrolment code has covered: it comes when it comes, and is shown once.
    under: Option<Over>,
    /// Alarms of the banner that was drawn last, and of the one that has arrived on the screen.
    pub(crate) banner: Vec<u64>,
    read: Vec<u64>,
    pub outcome: Option<Outcome>,
    pub glyphs: Glyphs,
    pub zone: TimeZone,
    /// Rows of the list, as drawn last.
    pub(crate) height: usize,
    config: Config,
    tickets: u64,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Code").field("site", &self.site).finish_non_exhaustive()
    }
}

impl App {
    /// A screen that knows nothing yet.
    pub fn new(config: Config, glyphs: Glyphs, zone: TimeZone) -> Result<Self, ConfigError> {
        let mut app = Self {
            model: Model::default(),
            frozen: None,
            view: View::Sessions,
            page: None,
            lists: standard_lists(),
            over: None,
            under: None,
            banner: Vec::new(),
            read: Vec::new(),
            outcome: None,
            glyphs,
            zone,
            height: 10,
            config,
            tickets: 0,
        };
        app.configure::<Peer>(View::Sessions)?;
        app.configure::<Asked>(View::Requests)?;
        app.configure::<Place>(View::Sites)?;
        app.configure::<Notice>(View::Alarms)?;
        app.configure::<LogEntry>(View::Log)?;
        Ok(app)
    }

    /// The configuration, as the last choice of columns left it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn configure<R: Listed>(&mut self, view: View) -> Result<(), ConfigError> {
        let Some(layout) = self.config.layout(view).cloned() else { return Ok(()) };
        let known = |name: &String| {
            column::<R>(name).map(|column| column.id).ok_or_else(|| ConfigError::Column {
                list: view.word(),
                column: name.clone(),
                known: R::columns().iter().map(|column| column.id).collect::<Vec<_>>().join(", "),
            })
        };
        let list = self.list_mut(view);
        if let Some(columns) = &layout.columns {
            list.columns = columns.iter().map(known).collect::<Result<_, _>>()?;
        }
        if let Some(sort) = &layout.sort {
            list.sort = known(sort)?;
        }
        list.reverse = layout.reverse.unwrap_or(list.reverse);
        Ok(())
    }

    pub fn list(&self, view: View) -> &List {
        &self.lists[index(view)]
    }

    pub fn list_mut(&mut self, view: View) -> &mut List {
        &mut self.lists[index(view)]
    }

    /// Lists, filters and so on as a new screen has them.
    pub fn set_filter(&mut self, view: View, filter: &str) {
        let list = self.list_mut(view);
        list.filter = filter.to_owned();
        list.offset = 0;
    }

    /// What is shown: the world, or the picture of it that stands still.
    pub fn shown<'a>(&'a self, now: Now) -> Ctx<'a> {
        let (model, now) = match &self.frozen {
            Some(frozen) => (&frozen.model, frozen.now),
            None => (&self.model, now),
        };
        Ctx { model, now, zone: &self.zone, glyphs: self.glyphs }
    }

    /// How long the picture has stood still, and how many changes it has missed.
    pub fn frozen(&self, now: Now) -> Option<(u64, u64)> {
        let frozen = self.frozen.as_ref()?;
        Some((frozen.now.mono.until(now.mono).as_millis(), self.model.changes.saturating_sub(frozen.model.changes)))
    }

    /// Takes something from the controller.
    pub fn take(&mut self, input: Input, now: Now) {
        self.model.take(input, now);
        self.follow_outcome(now);
    }

    /// Takes the answer to a look.
    pub fn found(&mut self, id: SessionId, found: Result<Found, String>) {
        if let Some(page) = self.page.as_mut().filter(|page| page.id == id) {
            page.take(found);
        }
    }

    /// What must be done because time has passed, once a second or so: what has been over for long leaves the screen,
    /// and a page asks for its rest again.
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        /// Milliseconds after which a page is fetched again.
        const AGAIN: u64 = 5_000;
        self.model.forget(now, self.page.as_ref().map(|page| page.id));
        let Some(page) = self.page.as_mut().filter(|page| page.asked.until(now.mono).as_millis() >= AGAIN) else {
            return Vec::new();
        };
        page.asked = now.mono;
        vec![Effect::Look(page.id)]
    }

    /// What was drawn last has arrived on the screen: what it asks can have been read.
    pub fn arrived(&mut self) {
        self.read.clone_from(&self.banner);
        match &mut self.over {
            Some(Over::Ask(ask)) => ask.sight.arrive(),
            Some(Over::Code(_, sight)) => sight.arrive(),
            _ => {}
        }
    }

    /// What is asked is not on the screen, or not whole: nothing is confirmed before it was read again.
    pub(crate) fn lose_sight(&mut self) {
        match &mut self.over {
            Some(Over::Ask(ask)) => ask.sight.lose(),
            Some(Over::Code(_, sight)) => sight.lose(),
            _ => {}
        }
    }

    /// Where keys are pressed now.
    pub fn place(&self) -> Places {
        match &self.over {
            Some(Over::Ask(_)) => keys::ASK,
            Some(Over::Filter(_)) => keys::FILTER,
            Some(Over::Columns(_)) => keys::COLUMNS,
            Some(Over::Help(_) | Over::Request(..)) => keys::HELP,
            Some(Over::Code(..)) => keys::CODE,
            None => self.top().place(),
        }
    }

    /// The view on top.
    pub fn top(&self) -> View {
        if self.page.is_some() { View::Detail } else { self.view }
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key, now: Now) -> Vec<Effect> {
        match keys::action(key, self.place()) {
            Some(Action::Quit) => vec![Effect::Quit],
            Some(Action::Redraw) => vec![Effect::Redraw],
            Some(action) if self.over.is_some() => self.act_over(action, now),
            Some(action) => self.act(action, now),
            None => {
                if let Key::Char(letter) = key {
                    self.write(letter);
                }
                Vec::new()
            }
        }
    }

    /// Takes pasted text: letters for a field, never keys.
    pub fn paste(&mut self, text: &str) {
        // The end of a line is a space between words, and nothing more.
        let words = text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        let mut before = ' ';
        for letter in words.take(300) {
            if !(letter == ' ' && before == ' ') {
                self.write(letter);
            }
            before = letter;
        }
    }

    fn write(&mut self, letter: char) {
        match &mut self.over {
            Some(Over::Ask(ask)) => ask.write(letter),
            Some(Over::Filter(_)) => {
                let list = self.list_mut(self.view);
                if !letter.is_control() && list.filter.chars().count() < 80 {
                    list.filter.push(letter);
                    list.offset = 0;
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, action: Action, now: Now) -> Vec<Effect> {
        match action {
            Action::Go(view) => self.go(view),
            Action::NextView => self.go_by(1),
            Action::PrevView => self.go_by(-1),
            Action::Up => self.step(-1, now),
            Action::Down => self.step(1, now),
            Action::PageUp => self.step(-(self.height.max(2) as isize - 1), now),
            Action::PageDown => self.step(self.height.max(2) as isize - 1, now),
            Action::First => self.step(isize::MIN / 2, now),
            Action::Last => self.step(isize::MAX / 2, now),
            Action::Open => return self.open(now),
            Action::Back => self.back(),
            Action::Kill
            | Action::Lock
            | Action::Unlock
            | Action::Extend
            | Action::Approve
            | Action::Deny
            | Action::Code
            | Action::LogIn => self.ask(action, now),
            Action::Acknowledge => self.acknowledge(now),
            Action::Filter => {
                let list = self.list_mut(self.view);
                let before = list.filter.clone();
                self.over = Some(Over::Filter(before));
            }
            Action::SortNext => self.sort(1),
            Action::SortPrev => self.sort(-1),
            Action::Reverse => {
                let list = self.list_mut(self.view);
                list.reverse = !list.reverse;
            }
            Action::Columns => self.choose_columns(),
            Action::Freeze => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(Box::new(Frozen { model: self.model.clone(), now })),
                };
            }
            Action::Follow => {
                let list = self.list_mut(self.view);
                list.follow = !list.follow;
            }
            Action::Resync => return vec![Effect::Resync, Effect::Redraw],
            Action::Help => self.over = Some(Over::Help(0)),
            Action::Quit | Action::Redraw => {}
            // Keys of what lies over a view: the table gives them to no view.
            Action::Confirm | Action::Cancel | Action::NextField | Action::PrevField | Action::NextChoice => {}
            Action::PrevChoice | Action::Erase | Action::Clear | Action::Toggle => {}
            Action::MoveEarlier | Action::MoveLater | Action::SortHere | Action::Standard => {}
        }
        Vec::new()
    }

    fn go(&mut self, view: View) {
        self.page = None;
        self.view = view;
    }

    fn go_by(&mut self, by: isize) {
        let at = View::LISTS.iter().position(|view| *view == self.view).unwrap_or(0) as isize;
        self.go(View::LISTS[(at + by).rem_euclid(View::LISTS.len() as isize) as usize]);
    }

    fn back(&mut self) {
        if self.page.take().is_none() {
            self.list_mut(self.view).filter.clear();
            self.outcome = None;
        }
    }

    fn step(&mut self, by: isize, now: Now) {
        let height = self.height;
        if let Some(page) = &mut self.page {
            page.scroll = page.scroll.saturating_add_signed(by).min(page.lines.saturating_sub(height));
            return;
        }
        let ids = self.ids(now);
        let view = self.view;
        let list = self.list_mut(view);
        // Looking at something older ends following; coming back to the newest begins it again.
        if matches!(view, View::Alarms | View::Log) {
            if list.follow {
                let last = ids.len().saturating_sub(1);
                if by.unsigned_abs() < usize::MAX / 8 {
                    list.select(&ids, last, height);
                }
            }
            list.step(&ids, by, height);
            list.follow = list.selected.as_ref() == ids.last() && by > 0;
            return;
        }
        list.step(&ids, by, height);
    }

    /// The rows of the list on top, in order.
    pub fn ids(&self, now: Now) -> Vec<RowId> {
        fn ids<'m, R: Listed>(items: impl Iterator<Item = &'m R>, list: &List, ctx: &Ctx<'_>) -> Vec<RowId> {
            arrange(items, list, ctx).into_iter().map(Listed::id).collect()
        }
        let (ctx, list) = (self.shown(now), self.list(self.view));
        match self.view {
            View::Sessions | View::Detail => ids(ctx.model.sessions.values(), list, &ctx),
            View::Requests => ids(ctx.model.requests.values(), list, &ctx),
            View::Sites => ids(ctx.model.sites.values(), list, &ctx),
            View::Alarms => ids(ctx.model.notices.iter(), list, &ctx),
            View::Log => ids(ctx.model.entries.iter(), list, &ctx),
        }
    }

    fn sort(&mut self, by: isize) {
        let view = self.view;
        let list = self.list_mut(view);
        if list.columns.is_empty() {
            return;
        }
        let at = list.columns.iter().position(|id| *id == list.sort).map_or(0, |at| at as isize + by);
        list.sort = list.columns[at.rem_euclid(list.columns.len() as isize) as usize];
        list.reverse = false;
    }
}

pub(crate) fn index(view: View) -> usize {
    match view {
        View::Sessions | View::Detail => 0,
        View::Requests => 1,
        View::Sites => 2,
        View::Alarms => 3,
        View::Log => 4,
    }
}

fn standard_lists() -> [List; 5] {
    [
        List::new::<Peer>("left", false, true),
        List::new::<Asked>("state", false, true),
        List::new::<Place>("site", false, true),
        List::new::<Notice>("time", false, true),
        List::new::<LogEntry>("index", false, true),
    ]
}

/// The standard columns of a list.
fn standard_of(view: View) -> Vec<&'static str> {
    match view {
        View::Sessions | View::Detail => standard::<Peer>(),
        View::Requests => standard::<Asked>(),
        View::Sites => standard::<Place>(),
        View::Alarms => standard::<Notice>(),
        View::Log => standard::<LogEntry>(),
    }
}

/// Every column of a list: its id, and what it is.
fn columns_of(view: View) -> Vec<(&'static str, &'static str)> {
    fn all<R: Listed>() -> Vec<(&'static str, &'static str)> {
        R::columns().iter().map(|column| (column.id, column.what)).collect()
    }
    match view {
        View::Sessions | View::Detail => all::<Peer>(),
        View::Requests => all::<Asked>(),
        View::Sites => all::<Place>(),
        View::Alarms => all::<Notice>(),
        View::Log => all::<LogEntry>(),
    }
}
