//! When to ask whether the other side is still there, and when to stop believing it.

use thinlane_model::{Boot, Span};

/// Idle interval to begin with, and by how much each answered ping lengthens it.
const IDLE_STEP: Span = Span::from_secs(60);
/// Never longer than this, whatever the controller offers.
const IDLE_MOST: Span = Span::from_secs(240);
/// Silence before a ping while a lane is armed. With two answers missed at [`ARMED_ANSWER`] each, a dead channel
/// is known after ten seconds: a kill may be waiting behind it.
const ARMED_SILENCE: Span = Span::from_secs(4);
const ARMED_ANSWER: Span = Span::from_secs(3);
/// How long an idle gateway waits for each answer; cellular links wake up slowly.
const IDLE_ANSWER: Span = Span::from_secs(30);
/// Pings without an answer before the other side is held to be gone.
const MOST_MISSES: u32 = 2;
/// For how long a lost connection teaches to ping more often (carriers drop idle mappings after some minutes).
const LESSON: Span = Span::from_secs(24 * 3600);

/// The gateway's keepalive.
///
/// ```text
///  heard ──silence──> ping ──no answer──> ping ──no answer──> dead
///    ^──── any frame ──┴───────────────────┘
///  idle: 60 s of silence, growing by 60 s with each answer up to 240 s; two waits of 30 s
///  armed: 4 s of silence, two waits of 3 s: dead 10 s after the last frame
/// ```
#[derive(Debug)]
pub(crate) struct Keepalive {
    heard: Boot,
    asked: Option<Asked>,
    nonce: u64,
    armed: bool,
    idle: Span,
    idle_most: Span,
    armed_silence: Span,
    lesson: Option<(Span, Boot)>,
}

#[derive(Debug)]
struct Asked {
    nonce: u64,
    last: Boot,
    times: u32,
}

/// What a look at the clock says.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Check {
    Quiet,
    Ping(u64),
    Dead,
}

impl Keepalive {
    pub(crate) fn new(now: Boot) -> Self {
        Self {
            heard: now,
            asked: None,
            nonce: 0,
            armed: false,
            idle: IDLE_STEP,
            idle_most: IDLE_MOST,
            armed_silence: ARMED_SILENCE,
            lesson: None,
        }
    }

    /// A connection has logged in; the controller bounds both intervals.
    pub(crate) fn begin(&mut self, idle_most: Span, armed_most: Span, now: Boot) {
        if self.lesson.is_some_and(|(_, at)| at.until(now) >= LESSON) {
            self.lesson = None;
        }
        let learned = self.lesson.map_or(IDLE_MOST, |(most, _)| most);
        self.idle_most = idle_most.min(IDLE_MOST).min(learned).max(Span::from_secs(1));
        self.armed_silence = armed_most.min(ARMED_SILENCE).max(Span::from_secs(1));
        self.idle = IDLE_STEP.min(self.idle_most);
        self.asked = None;
        self.heard = now;
    }

    pub(crate) fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
    }

    /// A frame came in: the way down works, which is the way a kill takes.
    pub(crate) fn heard(&mut self, now: Boot) {
        self.heard = now;
        self.asked = None;
    }

    /// The answer to a ping; must be told before [`Self::heard`].
    pub(crate) fn answered(&mut self, nonce: u64) {
        if !self.armed && self.asked.as_ref().is_some_and(|asked| asked.nonce == nonce) {
            self.idle = (self.idle + IDLE_STEP).min(self.idle_most);
        }
    }

    /// Asks at the next check, whatever the silence.
    pub(crate) fn ask_now(&mut self, now: Boot) -> Option<u64> {
        self.asked.is_none().then(|| self.ask(now, 1))
    }

    pub(crate) fn due(&self) -> Boot {
        match &self.asked {
            Some(asked) => asked.last + self.answer(),
            None => self.heard + self.silence(),
        }
    }

    pub(crate) fn check(&mut self, now: Boot) -> Check {
        if now < self.due() {
            return Check::Quiet;
        }
        match &self.asked {
            None => Check::Ping(self.ask(now, 1)),
            Some(asked) if asked.times < MOST_MISSES => {
                let times = asked.times + 1;
                Check::Ping(self.ask(now, times))
            }
            Some(_) => {
                if !self.armed && self.idle > IDLE_STEP {
                    self.lesson = Some((self.idle.saturating_sub(IDLE_STEP), now));
                }
                Check::Dead
            }
        }
    }

    fn ask(&mut self, now: Boot, times: u32) -> u64 {
        self.nonce += 1;
        self.asked = Some(Asked { nonce: self.nonce, last: now, times });
        self.nonce
    }

    fn silence(&self) -> Span {
        if self.armed { self.armed_silence } else { self.idle }
    }

    fn answer(&self) -> Span {
        if self.armed { ARMED_ANSWER } else { IDLE_ANSWER }
    }
}
