//! What is told to the person: what came of what was done, and which alarms were read.

use thinlane_model::{Boot, Now, SessionId, Wall};

use super::{Answer, App, Over};
use crate::act::Sight;
use crate::keys::View;
use crate::notice::{Weight, attention};
use crate::table::RowId;
use crate::text::{self, Tone};

/// How long, in milliseconds, what went wrong is not covered by what is said next.
const UNREAD: u64 = 10_000;

/// What came of the last deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub text: String,
    pub tone: Tone,
    pub at: Boot,
    /// The controller's clock when it was said.
    pub clock: Wall,
    /// Sessions that it says are still ending.
    pub ending: Vec<SessionId>,
    /// A session that it says goes on.
    pub open: Option<SessionId>,
    /// It answers a deed, and is no hint.
    pub answers: bool,
    /// What went wrong a moment before, and when that was said: it is said again behind this.
    pub before: Option<(Boot, String)>,
}

impl Outcome {
    /// Whether it says that something went wrong, and so lately that nobody may have read it.
    pub fn is_unread(&self, now: Now) -> bool {
        let wrong = self.answers && matches!(self.tone, Tone::Bad | Tone::Warn);
        wrong && self.at.until(now.mono).as_millis() < UNREAD
    }
}

impl App {
    /// Takes the answer to a deed.
    pub fn told(&mut self, answer: Answer, now: Now) {
        let (mut ending, mut open) = (Vec::new(), None);
        let (text, tone) = match answer {
            Answer::Done(text) => (text, Tone::Good),
            Answer::Ending(text, sessions) => {
                ending = sessions;
                (text, Tone::Warn)
            }
            Answer::Failed(text) => (text, Tone::Bad),
            Answer::Extended(text, session) => {
                open = Some(session);
                (text, Tone::Good)
            }
            Answer::Unsure(text, sessions) => {
                ending = sessions;
                (text, Tone::Bad)
            }
            Answer::Code(code) => {
                let text = format!("a code for {} is on the screen", code.site);
                // What was being asked is asked again when the code has been read.
                if !matches!(self.over, Some(Over::Code(..))) {
                    self.under = self.over.take();
                }
                self.over = Some(Over::Code(code, Sight::Unseen));
                (text, Tone::Good)
            }
        };
        self.say(text, tone, now);
        if let Some(outcome) = &mut self.outcome {
            (outcome.ending, outcome.open, outcome.answers) = (ending, open, true);
        }
        // Its end may have been heard before the answer.
        self.follow_outcome(now);
    }

    /// What the code covered is on top again, and must be read again.
    pub(super) fn uncover(&mut self) {
        self.over = self.under.take();
        self.lose_sight();
    }

    /// What was still ending and is over by now is not said to be ending, and what has ended not to go on.
    pub(super) fn follow_outcome(&mut self, now: Now) {
        let Some(outcome) = &self.outcome else { return };
        let model = &self.model;
        let over = |id: &SessionId| model.sessions.get(id).is_none_or(|peer| !peer.is_live());
        let named = |id: &SessionId, what: &str| {
            let peer = model.sessions.get(id).map(|peer| &peer.view);
            let whose = peer.map(|view| format!(": {} on {}", view.user, view.asset)).unwrap_or_default();
            let why = peer.and_then(|view| view.end_reason).map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{id}{whose} {what}{why}")
        };
        let (text, tone) = match (outcome.ending.as_slice(), &outcome.open) {
            ([], Some(id)) if model.sessions.contains_key(id) && over(id) => {
                (named(id, "was given more time and has ended since"), Tone::Warn)
            }
            ([id], _) if over(id) => (named(id, "is closed"), Tone::Good),
            ([_, _, ..], _) if outcome.ending.iter().all(over) => {
                (format!("all {} sessions that were still ending are closed", outcome.ending.len()), Tone::Good)
            }
            _ => return,
        };
        // It takes the place of what said that it was not.
        let before = self.outcome.take().and_then(|outcome| outcome.before);
        self.say(text, tone, now);
        if let Some(outcome) = &mut self.outcome {
            outcome.before = before;
        }
    }

    /// Says something to the person that no key asked for. What has gone wrong a moment ago stays beside it.
    pub fn say(&mut self, text: impl Into<String>, tone: Tone, now: Now) {
        let clock = self.model.controller_now(now);
        let before =
            self.outcome.take().and_then(|had| if had.is_unread(now) { Some((had.at, had.text)) } else { had.before });
        let before = before.filter(|(at, _)| at.until(now.mono).as_millis() < UNREAD);
        let (at, ending) = (now.mono, Vec::new());
        self.outcome = Some(Outcome { text: text.into(), tone, at, clock, ending, open: None, answers: false, before });
    }

    /// Marks alarms as seen: in their own list all that it holds, elsewhere those that the banner shows.
    pub(super) fn acknowledge(&mut self, now: Now) {
        let listed = self.view == View::Alarms && self.page.is_none();
        let numbers: Vec<u64> = if listed {
            let number = |id: &RowId| if let RowId::Notice(number) = id { Some(*number) } else { None };
            self.ids(now).iter().filter_map(number).collect()
        } else {
            self.read.clone()
        };
        let marked = self.model.mark_seen(&numbers);
        if let Some(frozen) = &mut self.frozen {
            frozen.model.mark_seen(&numbers);
        }
        let left = self.model.notices.iter().filter(|notice| !notice.seen && notice.weight > Weight::Note).count();
        let text = match (marked, left) {
            (0, 0) if attention(&self.model, now).is_empty() => "there is no alarm to mark".to_owned(),
            (0, 0) => "there is no alarm to mark: what the banner says ends when it is over".to_owned(),
            (0, left) => format!("no alarm stands in the banner; {left} not seen in Alarms (4), where m marks them"),
            (marked, 0) => format!("{} marked as seen", text::count(marked as u64, "alarm")),
            (marked, left) => {
                format!("{} marked as seen, {left} more not seen (4)", text::count(marked as u64, "alarm"))
            }
        };
        self.say(text, Tone::Plain, now);
    }
}
