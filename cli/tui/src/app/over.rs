//! Keys of what lies over a view: questions, the filter, the choice of columns, the help, a code.

use thinlane_model::Now;

use super::{App, Chooser, Effect, Over, columns_of, standard_of};
use crate::act::{Ask, Sight};
use crate::keys::Action;
use crate::text::Tone;

impl App {
    pub(super) fn act_over(&mut self, action: Action, now: Now) -> Vec<Effect> {
        match self.over.take() {
            Some(Over::Ask(ask)) => self.act_ask(ask, action, now),
            Some(Over::Filter(before)) => {
                self.act_filter(before, action);
                Vec::new()
            }
            Some(Over::Columns(chooser)) => self.act_columns(chooser, action, now),
            Some(Over::Help(at)) => {
                self.over = self.scrolled(at, action).map(Over::Help);
                Vec::new()
            }
            Some(Over::Request(id, at)) => {
                self.over = self.scrolled(at, action).map(|at| Over::Request(id, at));
                Vec::new()
            }
            Some(Over::Code(code, sight)) => {
                // It is shown once: a key that was meant for something else must not take it away.
                if sight == Sight::Seen {
                    self.uncover();
                } else {
                    self.over = Some(Over::Code(code, sight));
                }
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// So many lines down after a key; `None`: the key closes it.
    fn scrolled(&self, at: usize, action: Action) -> Option<usize> {
        let page = self.height.max(2) - 1;
        match action {
            Action::Up => Some(at.saturating_sub(1)),
            Action::Down => Some(at + 1),
            Action::PageUp => Some(at.saturating_sub(page)),
            Action::PageDown => Some(at + page),
            _ => None,
        }
    }

    fn act_ask(&mut self, mut ask: Box<Ask>, action: Action, now: Now) -> Vec<Effect> {
        match action {
            Action::Cancel => {
                self.say("nothing was done", Tone::Plain, now);
                return Vec::new();
            }
            // Typed ahead on a slow line: nobody has read what it would do.
            Action::Confirm if ask.sight != Sight::Seen => {
                ask.problem = Some("read it first, then press Enter".to_owned())
            }
            Action::Confirm => match ask.deed() {
                Ok(deed) => {
                    self.tickets += 1;
                    self.say(deed.doing(), Tone::Plain, now);
                    return vec![Effect::Act { ticket: self.tickets, deed }];
                }
                Err(problem) => ask.problem = Some(problem),
            },
            Action::NextField => ask.turn(1),
            Action::PrevField => ask.turn(-1),
            Action::NextChoice => ask.choose(1),
            Action::PrevChoice => ask.choose(-1),
            Action::Erase => ask.erase(),
            Action::Clear => ask.clear(),
            _ => {}
        }
        self.over = Some(Over::Ask(ask));
        Vec::new()
    }

    fn act_filter(&mut self, before: String, action: Action) {
        let view = self.view;
        let list = self.list_mut(view);
        match action {
            Action::Cancel => list.filter = before,
            Action::Confirm => {}
            Action::Erase => {
                list.filter.pop();
                self.over = Some(Over::Filter(before));
            }
            Action::Clear => {
                list.filter.clear();
                self.over = Some(Over::Filter(before));
            }
            _ => self.over = Some(Over::Filter(before)),
        }
    }

    pub(super) fn choose_columns(&mut self) {
        let list = self.list(self.view);
        let rows = rows(self.view, &list.columns);
        let before = (list.columns.clone(), list.sort, list.reverse);
        self.over = Some(Over::Columns(Chooser { rows, at: 0, before }));
    }

    fn act_columns(&mut self, mut chooser: Chooser, action: Action, now: Now) -> Vec<Effect> {
        let view = self.view;
        let last = chooser.rows.len().saturating_sub(1);
        match action {
            Action::Up => chooser.at = chooser.at.saturating_sub(1),
            Action::Down => chooser.at = (chooser.at + 1).min(last),
            Action::Toggle => {
                let shown = chooser.rows.iter().filter(|row| row.2).count();
                if let Some(row) = chooser.rows.get_mut(chooser.at) {
                    // One column stays: a list without any shows nothing to act on.
                    row.2 = !row.2 || shown == 1;
                }
            }
            Action::MoveEarlier if chooser.at > 0 => {
                chooser.rows.swap(chooser.at, chooser.at - 1);
                chooser.at -= 1;
            }
            Action::MoveLater if chooser.at < last => {
                chooser.rows.swap(chooser.at, chooser.at + 1);
                chooser.at += 1;
            }
            Action::SortHere => {
                if let Some(row) = chooser.rows.get(chooser.at) {
                    let list = self.list_mut(view);
                    (list.reverse, list.sort) = (list.sort == row.0 && !list.reverse, row.0);
                }
            }
            Action::Standard => chooser.rows = rows(view, &standard_of(view)),
            Action::Cancel => {
                let list = self.list_mut(view);
                (list.columns, list.sort, list.reverse) = chooser.before;
                return Vec::new();
            }
            Action::Confirm => return self.keep_columns(&chooser, now),
            _ => {}
        }
        // Shown at once behind the choice.
        self.list_mut(view).columns = shown(&chooser);
        self.over = Some(Over::Columns(chooser));
        Vec::new()
    }

    fn keep_columns(&mut self, chooser: &Chooser, now: Now) -> Vec<Effect> {
        let view = self.view;
        let columns = shown(chooser);
        let list = self.list_mut(view);
        list.columns = columns.clone();
        let (sort, reverse) = (list.sort, list.reverse);
        if let Some(layout) = self.config.layout_mut(view) {
            let standard = columns == standard_of(view);
            layout.columns = (!standard).then(|| columns.iter().map(ToString::to_string).collect());
            layout.sort = Some(sort.to_owned());
            layout.reverse = reverse.then_some(true);
        }
        self.say("columns and order are kept", Tone::Plain, now);
        vec![Effect::Save(self.config.render())]
    }
}

fn shown(chooser: &Chooser) -> Vec<&'static str> {
    chooser.rows.iter().filter(|row| row.2).map(|row| row.0).collect()
}

/// The shown columns in their order, then the others.
fn rows(view: crate::keys::View, shown: &[&'static str]) -> Vec<(&'static str, &'static str, bool)> {
    let all = columns_of(view);
    let what = |id: &str| all.iter().find(|(one, _)| *one == id).copied();
    let first = shown.iter().filter_map(|id| what(id)).map(|(id, what)| (id, what, true));
    let rest = all.iter().filter(|(id, _)| !shown.contains(id)).map(|(id, what)| (*id, *what, false));
    first.chain(rest).collect()
}
