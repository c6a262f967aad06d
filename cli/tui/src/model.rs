//! What is known of the world: the controller's snapshot, and every event since.

use std::collections::{BTreeMap, VecDeque};

use thinlane_model::{Boot, Login, Now, RequestId, SessionId, SiteId, SiteName, Span, Wall};
use thinlane_wire::api::{
    AlarmView, DeniedView, LiveEvent, LogEntry, Overview, RequestState, RequestView, SessionState, SessionView,
    SiteView,
};

use crate::meter::{COLUMN, Meter};
use crate::notice::{self, Notice};

/// How long what has ended stays on the screen, so that its end is seen.
const LINGER: u64 = 120_000;
/// Ended sessions and decided requests that stay at most.
const MOST_LINGERING: usize = 200;
const MOST_NOTICES: usize = 2000;
/// The controller says each ten seconds that it is there; after so many milliseconds without a word it may not be.
const QUIET: u64 = 13_000;
/// How long, in milliseconds, what was held back may take to come once it comes.
const RUSH: u64 = 2_000;
const MOST_ENTRIES: usize = 2000;

/// Something from the controller, or about the way to it.
#[derive(Debug, Clone)]
pub enum Input {
    /// Who watches, and where.
    Hello {
        login: Login,
        roles: Vec<String>,
        controller: String,
        /// When the log-in ends, on the controller's clock.
        until: Option<Wall>,
    },
    /// Everything live at once; what the screen knows beside it is out of date.
    Snapshot(Box<Overview>),
    Event(Box<LiveEvent>),
    /// The next entries of the log, oldest first.
    Entries(Vec<LogEntry>),
    /// The log may not be read by this person, or can.
    LogReadable(bool),
    /// The stream is open and says that it lives.
    Alive,
    /// The way to the controller is interrupted.
    Lost {
        why: String,
        retry_at: Boot,
    },
    /// It is being tried again.
    Trying,
}

/// The way to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing was heard yet.
    Opening,
    /// What is shown is what is.
    Live,
    /// What is shown is as old as `since` says.
    Lost { since: Boot, why: String, retry_at: Boot },
}

/// A session, with what only watching shows.
#[derive(Debug, Clone)]
pub struct Peer {
    pub view: SessionView,
    /// When `view` came; its `remaining_ms` counts from here.
    pub seen: Boot,
    pub up: Meter,
    pub down: Meter,
    /// When it was first seen to have ended.
    pub ended: Option<Boot>,
}

/// A site, with what only watching shows.
#[derive(Debug, Clone)]
pub struct Place {
    pub view: SiteView,
    /// When the gateway was first seen to be away.
    pub away: Option<Boot>,
}

/// A request, and when it was first seen to be decided.
#[derive(Debug, Clone)]
pub struct Asked {
    pub view: RequestView,
    pub decided: Option<Boot>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Model {
    pub login: Option<Login>,
    pub roles: Vec<String>,
    pub controller: String,
    /// When the log-in ends, on the controller's clock.
    pub until: Option<Wall>,
    pub link: Link,
    /// When the controller was heard last.
    pub heard: Boot,
    /// The last time in which it was not: when it was heard before, and again.
    gap: Option<(Boot, Boot)>,
    pub sessions: BTreeMap<SessionId, Peer>,
    pub requests: BTreeMap<RequestId, Asked>,
    pub sites: BTreeMap<SiteName, Place>,
    pub notices: VecDeque<Notice>,
    pub entries: VecDeque<LogEntry>,
    pub log_readable: bool,
    /// Controller's wall clock minus this machine's, in milliseconds.
    pub skew: i64,
    /// Changes since the beginning.
    pub changes: u64,
    next_notice: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            login: None,
            roles: Vec::new(),
            controller: String::new(),
            until: None,
            link: Link::Opening,
            heard: Boot::default(),
            gap: None,
            sessions: BTreeMap::new(),
            requests: BTreeMap::new(),
            sites: BTreeMap::new(),
            notices: VecDeque::new(),
            entries: VecDeque::new(),
            log_readable: true,
            skew: 0,
            changes: 0,
            next_notice: 0,
        }
    }
}

impl Peer {
    fn new(view: SessionView, now: Now) -> Self {
        let mut peer = Self { view, seen: now.mono, up: Meter::default(), down: Meter::default(), ended: None };
        peer.up.count(peer.view.counters.up_bytes, now.mono);
        peer.down.count(peer.view.counters.down_bytes, now.mono);
        peer
    }

    /// Milliseconds until its end, as of now; `None` where it is not open.
    pub fn left(&self, now: Now) -> Option<u64> {
        let open = matches!(self.view.state, SessionState::Active | SessionState::Ending);
        let passed = self.seen.until(now.mono).as_millis();
        self.view.remaining_ms.filter(|_| open).map(|left| left.saturating_sub(passed))
    }

    /// Its whole length in milliseconds.
    pub fn length(&self) -> Option<u64> {
        Some(self.view.opened_at?.until(self.view.ends_at?).as_millis())
    }

    /// Milliseconds since it was opened.
    pub fn age(&self, now: Now, skew: i64) -> Option<u64> {
        match (self.left(now), self.length()) {
            (Some(left), Some(length)) => Some(length.saturating_sub(left)),
            _ => {
                let opened = self.view.opened_at?;
                let end = self.view.ended_at.unwrap_or_else(|| shifted(now.wall, skew));
                Some(opened.until(end).as_millis())
            }
        }
    }

    /// Whether its lane may pass something.
    pub fn is_live(&self) -> bool {
        self.view.state != SessionState::Ended
    }
}

impl Model {
    /// The controller's wall clock, as far as it is known.
    pub fn controller_now(&self, now: Now) -> Wall {
        shifted(now.wall, self.skew)
    }

    /// How long ago something was on the controller's clock; zero for the future.
    pub fn since(&self, at: Wall, now: Now) -> u64 {
        at.until(self.controller_now(now)).as_millis()
    }

    /// How old what is shown may be, in milliseconds; `None` while it is live.
    pub fn stale(&self, now: Now) -> Option<u64> {
        let silent = self.heard.until(now.mono).as_millis();
        match self.link {
            Link::Live if silent < QUIET => None,
            Link::Live | Link::Opening => Some(silent),
            Link::Lost { since, .. } => Some(since.until(now.mono).as_millis()),
        }
    }

    /// Takes one input.
    pub fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Hello { login, roles, controller, until } => {
                self.login = Some(login);
                self.roles = roles;
                self.controller = controller;
                self.until = until;
                return;
            }
            Input::LogReadable(readable) => self.log_readable = readable,
            // Neither changes what is known.
            Input::Alive => {
                self.hear(now);
                return;
            }
            Input::Trying => return,
            Input::Lost { why, retry_at } => {
                let since = match &self.link {
                    Link::Lost { since, .. } => *since,
                    _ => self.heard.max(Boot(1)),
                };
                self.link = Link::Lost { since, why, retry_at };
            }
            Input::Snapshot(overview) => {
                self.hear(now);
                self.snapshot(*overview, now);
                self.link = Link::Live;
            }
            Input::Event(event) => {
                self.hear(now);
                self.event(*event, now);
            }
            Input::Entries(entries) => entries.into_iter().for_each(|entry| self.entry(entry)),
        }
        self.changes += 1;
    }

    /// The controller was heard, perhaps after a time in which it was not.
    fn hear(&mut self, now: Now) {
        let silent = self.heard.until(now.mono).as_millis() >= QUIET && self.heard > Boot::default();
        if silent || matches!(self.link, Link::Lost { .. }) {
            self.gap = Some((self.heard, now.mono));
        }
        self.heard = now.mono;
    }

    /// Until when what a session's lane passes is known, if that is not now: a gateway that is away says nothing, and
    /// neither does a controller that is not heard.
    fn told_until(&self, peer: &Peer, now: Now) -> Option<Boot> {
        let heard = self.stale(now).map(|_| self.heard);
        let away = self.sites.get(&peer.view.site).filter(|place| place.view.state == "offline");
        let seen = away.map(|place| match place.view.last_seen_at {
            Some(at) => Boot(now.mono.0.saturating_sub(self.since(at, now))),
            None => place.away.unwrap_or(now.mono),
        });
        match (heard, seen) {
            _ if !peer.is_live() => None,
            (Some(heard), Some(seen)) => Some(heard.min(seen)),
            (heard, seen) => heard.or(seen),
        }
    }

    /// Whether nobody is told what a session's lane passes now.
    pub fn is_untold(&self, peer: &Peer, now: Now) -> bool {
        self.told_until(peer, now).is_some()
    }

    /// Which of its last columns, as `Meter::columns` has them, hold a time of which nobody was told.
    pub fn untold_columns(&self, peer: &Peer, now: Now, count: usize) -> Vec<bool> {
        let mut untold = peer.up.untold(now.mono, count);
        if let Some(until) = self.told_until(peer, now) {
            let column = now.mono.0 / 1000 / COLUMN;
            for (at, back) in (1..=count as u64).rev().enumerate() {
                untold[at] |= (column.saturating_sub(back) + 1) * COLUMN * 1000 > until.0 + 1000;
            }
        }
        untold
    }

    /// Drops what has been over for long enough. `keep`: what somebody is looking at.
    pub fn forget(&mut self, now: Now, keep: Option<SessionId>) {
        let old = |since: Option<Boot>| since.is_some_and(|since| since.until(now.mono).as_millis() > LINGER);
        self.sessions.retain(|id, peer| keep == Some(*id) || !old(peer.ended));
        self.requests.retain(|_, asked| !old(asked.decided));
        let mut ended: Vec<_> = self.sessions.iter().filter_map(|(id, peer)| Some((peer.ended?, *id))).collect();
        if ended.len() > MOST_LINGERING {
            ended.sort();
            let over = ended.len() - MOST_LINGERING;
            for (_, id) in ended.into_iter().take(over).filter(|(_, id)| keep != Some(*id)) {
                self.sessions.remove(&id);
            }
        }
    }

    fn snapshot(&mut self, overview: Overview, now: Now) {
        let known: Vec<SessionId> = overview.sessions.iter().map(|view| view.id).collect();
        for view in overview.sessions {
            self.session(view, now, true);
        }
        // What was open here and is not open there has ended while nothing was heard.
        let known: std::collections::BTreeSet<_> = known.into_iter().collect();
        for peer in self.sessions.values_mut().filter(|peer| peer.is_live() && !known.contains(&peer.view.id)) {
            peer.view.state = SessionState::Ended;
            peer.view.end_detail.get_or_insert_with(|| "while this screen was away".to_owned());
            peer.ended = Some(now.mono);
        }
        let open: std::collections::BTreeSet<_> = overview.requests.iter().map(|view| view.id).collect();
        self.requests.retain(|id, asked| open.contains(id) || asked.decided.is_some());
        for view in overview.requests {
            self.request(view, now);
        }
        let sites: std::collections::BTreeSet<_> = overview.sites.iter().map(|view| view.site.clone()).collect();
        self.sites.retain(|name, _| sites.contains(name));
        for view in overview.sites {
            self.site(view, now);
        }
        for denied in overview.denied {
            self.denied(denied);
        }
    }

    fn event(&mut self, event: LiveEvent, now: Now) {
        match event {
            LiveEvent::Session { session } => self.session(*session, now, false),
            LiveEvent::Request { request } => self.request(*request, now),
            LiveEvent::Site { site } => self.site(*site, now),
            LiveEvent::Alarm { alarm } => self.alarm(alarm),
            LiveEvent::Denied { denied } => self.denied(denied),
            // The shell fetches a snapshot.
            LiveEvent::Lagged => {}
        }
    }

    fn session(&mut self, view: SessionView, now: Now, anew: bool) {
        if let (Some(ends), Some(left)) = (view.ends_at, view.remaining_ms.filter(|left| *left > 0)) {
            let theirs = ends - Span::from_millis(left);
            self.skew = theirs.as_millis().saturating_sub(now.wall.as_millis());
        }
        let ended = view.state == SessionState::Ended;
        let Some(peer) = self.sessions.get_mut(&view.id) else {
            let mut peer = Peer::new(view, now);
            peer.ended = ended.then_some(now.mono);
            self.sessions.insert(peer.view.id, peer);
            return;
        };
        let (up, down) = (view.counters.up_bytes, view.counters.down_bytes);
        // What was held back comes in a rush, and none of it is of this second.
        let gap = self.gap.filter(|(_, to)| to.until(now.mono).as_millis() < RUSH).map(|(from, _)| from);
        if let Some(since) = gap.or(anew.then_some(now.mono)) {
            peer.up.resume(up, since, now.mono);
            peer.down.resume(down, since, now.mono);
        } else {
            peer.up.count(up, now.mono);
            peer.down.count(down, now.mono);
        }
        peer.ended = ended.then(|| peer.ended.unwrap_or(now.mono));
        peer.view = view;
        peer.seen = now.mono;
    }

    fn request(&mut self, view: RequestView, now: Now) {
        let open = matches!(view.state, RequestState::Pending | RequestState::Approved);
        let before = self.requests.get(&view.id).and_then(|asked| asked.decided);
        let decided = (!open).then(|| before.unwrap_or(now.mono));
        self.requests.insert(view.id, Asked { view, decided });
    }

    fn site(&mut self, view: SiteView, now: Now) {
        let before = self.sites.get(&view.site).and_then(|place| place.away);
        let away = (view.state == "offline").then(|| before.unwrap_or(now.mono));
        self.sites.insert(view.site.clone(), Place { view, away });
    }

    fn alarm(&mut self, alarm: AlarmView) {
        // Those of the log come with it, and come after an interruption as well.
        if self.log_readable && alarm.kind != notice::LOG_UNAVAILABLE {
            return;
        }
        self.notice(Notice::from_alarm(alarm));
    }

    fn denied(&mut self, denied: DeniedView) {
        let notice = Notice::from_denied(denied);
        // The snapshot tells again what the stream has told, and one flow is one line that counts.
        if let Some(same) = self.notices.iter_mut().rev().take(200).find(|one| one.is_same_flow(&notice)) {
            same.merge(notice);
        } else {
            self.notice(notice);
        }
    }

    fn entry(&mut self, entry: LogEntry) {
        if self.entries.back().is_some_and(|last| last.index >= entry.index) {
            return;
        }
        if let Some(notice) = Notice::from_entry(&entry, |id| self.site_name(id)) {
            self.notice(notice);
        }
        self.entries.push_back(entry);
        while self.entries.len() > MOST_ENTRIES {
            self.entries.pop_front();
        }
    }

    fn notice(&mut self, mut notice: Notice) {
        notice.number = self.next_notice;
        self.next_notice += 1;
        self.notices.push_back(notice);
        while self.notices.len() > MOST_NOTICES {
            self.notices.pop_front();
        }
    }

    /// Marks as seen the alarms with these numbers, and earlier ones that say the same; how many.
    pub fn mark_seen(&mut self, numbers: &[u64]) -> usize {
        let said: Vec<_> = self.notices.iter().filter(|notice| numbers.contains(&notice.number)).cloned().collect();
        let is_said = |notice: &Notice| said.iter().any(|one| one.says_no_less_than(notice));
        let mut marked = 0;
        for notice in self.notices.iter_mut().filter(|notice| !notice.seen && notice.weight > notice::Weight::Note) {
            if is_said(notice) {
                notice.seen = true;
                marked += 1;
            }
        }
        marked
    }

    /// The name of the site with this id.
    pub fn site_name(&self, id: &str) -> Option<String> {
        let id: SiteId = id.parse().ok()?;
        self.sites.values().find(|place| place.view.id == id).map(|place| place.view.site.to_string())
    }

    /// Live sessions.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        self.sessions.values().filter(|peer| peer.is_live())
    }
}

fn shifted(wall: Wall, skew: i64) -> Wall {
    Wall::from_millis(wall.as_millis().saturating_add(skew))
}
