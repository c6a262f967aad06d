//! From the selected row: its page, or a question about it.

use thinlane_model::{Now, SessionId};
use thinlane_wire::api::LockKind;

use super::{App, Effect, Over};
use crate::act::{Ask, Target};
use crate::keys::{Action, View};
use crate::page::Page;
use crate::rights;
use crate::table::RowId;
use crate::text::Tone;

impl App {
    /// The session that keys are about: the page's, or the selected row's.
    fn session(&self) -> Option<SessionId> {
        match (&self.page, &self.list(View::Sessions).selected) {
            (Some(page), _) => Some(page.id),
            (None, Some(RowId::Session(id))) if self.view == View::Sessions => Some(*id),
            _ => None,
        }
    }

    pub(super) fn open(&mut self, now: Now) -> Vec<Effect> {
        if let Some(why) = self.hidden(now) {
            self.say(why, Tone::Warn, now);
            return Vec::new();
        }
        let ctx = self.shown(now);
        let selected = self.list(self.view).selected.clone();
        let (session, site) = match &selected {
            Some(RowId::Session(id)) => (Some(*id), None),
            Some(RowId::Request(id)) => (ctx.model.requests.get(id).and_then(|asked| asked.view.session), None),
            Some(RowId::Site(name)) => (None, Some(name.to_string())),
            Some(RowId::Notice(number)) => {
                let notice = ctx.model.notices.iter().find(|notice| notice.number == *number);
                let session = notice.and_then(|notice| notice.about.as_deref()?.parse::<SessionId>().ok());
                (session, notice.and_then(|notice| notice.site.clone()))
            }
            _ => (None, None),
        };
        match (session, site) {
            (Some(id), _) => self.open_session(id, now),
            (None, None) if matches!(selected, Some(RowId::Request(_))) => {
                if let Some(RowId::Request(id)) = selected {
                    self.over = Some(Over::Request(id, 0));
                }
                Vec::new()
            }
            (None, Some(site)) => {
                self.view = View::Sessions;
                // That site, and none whose name begins like it.
                self.set_filter(View::Sessions, &format!("site:={site}"));
                Vec::new()
            }
            (None, None) => {
                let why =
                    if selected.is_none() { "select a row first (arrows)" } else { "there is no session to show" };
                self.say(why, Tone::Plain, now);
                Vec::new()
            }
        }
    }

    /// Puts the page of a session on top.
    pub fn open_session(&mut self, id: SessionId, now: Now) -> Vec<Effect> {
        self.page = Some(Page::new(id, now.mono));
        vec![Effect::Look(id)]
    }

    /// Asks before anything is done. What it aims at is fixed here, by its id.
    pub(super) fn ask(&mut self, action: Action, now: Now) {
        match self.targets(action, now) {
            Ok(targets) => {
                if let Some(ask) = Ask::new(targets) {
                    self.outcome = self.outcome.take().filter(|outcome| outcome.is_unread(now));
                    self.show_selected(now);
                    self.over = Some(Over::Ask(Box::new(ask)));
                }
            }
            Err(why) => self.say(why, Tone::Warn, now),
        }
    }

    /// Why the selected row is not to be asked about: it is there, and the filter hides it.
    fn hidden(&self, now: Now) -> Option<String> {
        let selected = self.list(self.view).selected.as_ref().filter(|_| self.page.is_none())?;
        let model = self.shown(now).model;
        let (name, there) = match selected {
            RowId::Session(id) => (id.to_string(), model.sessions.contains_key(id)),
            RowId::Request(id) => (id.to_string(), model.requests.contains_key(id)),
            RowId::Site(name) => (name.to_string(), model.sites.contains_key(name)),
            RowId::Notice(_) | RowId::Entry(_) => ("the selected row".to_owned(), true),
        };
        (there && !self.ids(now).contains(selected))
            .then(|| format!("{name} is not in the list: the filter hides it (Esc drops the filter)"))
    }

    /// Brings the row that is asked about into the window.
    fn show_selected(&mut self, now: Now) {
        let ids = self.ids(now);
        let (view, height) = (self.view, self.height);
        let list = self.list_mut(view);
        if let Some(at) = list.selected.as_ref().and_then(|id| ids.iter().position(|one| one == id)) {
            list.select(&ids, at, height);
        }
    }

    fn targets(&self, action: Action, now: Now) -> Result<Vec<Target>, String> {
        if let Some(why) = rights::refusal(action, &self.model) {
            return Err(why);
        }
        // A log-in is about nobody else.
        if let Some(why) = self.hidden(now).filter(|_| action != Action::LogIn) {
            return Err(why);
        }
        let selected = self.list(self.view).selected.as_ref();
        let nothing = || "select a row first (arrows): nothing is done to nobody".to_owned();
        match action {
            Action::Kill | Action::Extend => {
                let id = self.session().ok_or_else(nothing)?;
                if !self.model.sessions.get(&id).is_some_and(|peer| peer.is_live()) {
                    return Err(format!("{id} is not open any more"));
                }
                if action == Action::Kill {
                    return Ok(vec![Target::Kill(id)]);
                }
                rights::of_extension(&id, &self.model).map_or_else(|| Ok(vec![Target::Extend(id)]), Err)
            }
            Action::Lock => self.lockable().ok_or_else(nothing),
            Action::Approve | Action::Deny => match selected {
                Some(RowId::Request(id)) => {
                    let approve = action == Action::Approve;
                    let target = if approve { Target::Approve(*id) } else { Target::Deny(*id) };
                    rights::of_decision(id, approve, &self.model).map_or_else(|| Ok(vec![target]), Err)
                }
                _ => Err(nothing()),
            },
            Action::LogIn => Ok(vec![Target::LogIn]),
            Action::Code => match selected {
                Some(RowId::Site(name)) => Ok(vec![Target::Code(name.to_string())]),
                _ => Err(nothing()),
            },
            Action::Unlock => match selected {
                Some(RowId::Site(name)) => {
                    let place = self.model.sites.get(name).ok_or_else(nothing)?;
                    match (place.view.state.as_str(), place.view.locked) {
                        ("frozen", _) => Ok(vec![Target::Unfreeze(name.to_string())]),
                        (_, true) => Ok(vec![Target::Unlock(name.to_string())]),
                        _ => Err(format!("{name} is neither locked nor frozen")),
                    }
                }
                _ => Err(nothing()),
            },
            _ => Err(nothing()),
        }
    }

    /// Whom and what the selected row names.
    fn lockable(&self) -> Option<Vec<Target>> {
        let lock = |kind, name: &dyn std::fmt::Display| Target::Lock(kind, name.to_string());
        let of = |user: &dyn std::fmt::Display,
                  org: Option<&dyn std::fmt::Display>,
                  site: &dyn std::fmt::Display,
                  asset: &dyn std::fmt::Display| {
            let mut targets = vec![lock(LockKind::User, user)];
            targets.extend(org.map(|org| lock(LockKind::Org, org)));
            targets.push(lock(LockKind::Asset, asset));
            targets.push(lock(LockKind::Site, site));
            targets
        };
        if let Some(id) = self.session() {
            let view = &self.model.sessions.get(&id)?.view;
            return Some(of(&view.user, view.org.as_ref().map(|org| org as _), &view.site, &view.asset));
        }
        match self.list(self.view).selected.as_ref()? {
            RowId::Request(id) => {
                let view = &self.model.requests.get(id)?.view;
                Some(of(&view.user, view.org.as_ref().map(|org| org as _), &view.site, &view.asset))
            }
            RowId::Site(name) => Some(vec![lock(LockKind::Site, name)]),
            _ => None,
        }
    }
}
