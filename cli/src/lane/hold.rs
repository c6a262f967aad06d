//! Holding a lane: countdown, live counters, warning, and whatever ends it.

use std::process::ExitStatus;
use std::time::Duration;

use thinlane_model::{Boot, EndReason, Span, Wall};
use thinlane_wire::api::{SessionState, SessionView};
use tokio::sync::mpsc;

use super::activate::{Lane, Said, boot_clock};
use super::child::Running;
use super::watch::Seen;
use super::{LaneEvent, Reporter, Signal, Signals};
use crate::failure::Result;
use crate::out::{text, time};

/// A warning comes this long before the end, or at half time of shorter sessions.
const WARNING: Span = Span::from_secs(5 * 60);
/// A deadline that moves by less than this has not been moved: clocks and transport differ by as much.
const JITTER: u64 = 1500;

/// Why a lane ends.
#[derive(Debug)]
pub enum Ending {
    Signal(Signal),
    /// The command inside has ended.
    Command(ExitStatus),
    /// The session is over, says the controller.
    Remote {
        reason: EndReason,
        detail: Option<String>,
    },
    /// The session is over by this machine's own clock.
    Expired,
    /// The lane's end here is gone: somebody took the interface away.
    Gone,
}

/// How much of a session is left, on this machine's boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    pub deadline: Boot,
    /// When the warning is due; `None`: it has been given.
    pub warning: Option<Boot>,
}

impl Clock {
    /// For a session that ends at `deadline`.
    pub fn new(now: Boot, deadline: Boot) -> Clock {
        let left = now.until(deadline);
        let before = if left > WARNING { WARNING } else { Span::from_millis(left.as_millis() / 2) };
        Clock { deadline, warning: Some(deadline - before) }
    }

    /// Takes what the controller says is left; `true`: the session was extended.
    pub fn update(&mut self, now: Boot, left: Span) -> bool {
        let deadline = now + left;
        if deadline.0 > self.deadline.0 + JITTER {
            *self = Clock::new(now, deadline);
            return true;
        }
        // What was cut short holds at once.
        if deadline.0 + JITTER < self.deadline.0 {
            self.deadline = deadline;
        }
        false
    }

    pub fn left(&self, now: Boot) -> Span {
        now.until(self.deadline)
    }

    /// Whether the warning is due; only once.
    pub fn warns(&mut self, now: Boot) -> bool {
        self.warning.take_if(|at| *at <= now).is_some()
    }

    /// How long until something here is due, one second at most: the machine may sleep meanwhile.
    fn pause(&self, now: Boot) -> Duration {
        let due = self.warning.map_or(self.deadline, |at| at.min(self.deadline));
        now.until(due).to_std().clamp(Duration::from_millis(1), Duration::from_secs(1))
    }
}

/// Holds a lane until something ends it.
pub async fn hold(
    lane: &mut Lane,
    mut session: SessionView,
    deadline: Boot,
    mut seen: mpsc::Receiver<Seen>,
    mut command: Option<&mut Running>,
    signals: &mut Signals,
    reporter: &Reporter,
) -> Result<Ending> {
    let mut clock = Clock::new(boot_clock(), deadline);
    let mut following = true;
    loop {
        let now = boot_clock();
        if clock.deadline <= now {
            return Ok(Ending::Expired);
        }
        if clock.warns(now) {
            let left = clock.left(now);
            reporter.tell(&LaneEvent::Warning { session: lane.session, left, ends_at: ends_at(left) })?;
        }
        if let Some(moved) = lane.watch_way(now) {
            reporter.tell(&LaneEvent::Moved { session: lane.session, moved: &moved })?;
        }
        reporter.live(|| live_line(lane, &session, clock.left(now)));
        tokio::select! {
            signal = signals.next() => return Ok(Ending::Signal(signal)),
            status = ended(command.as_deref_mut()) => return Ok(Ending::Command(status)),
            said = lane.next() => match said {
                Said::Gone => return Ok(Ending::Gone),
                Said::Hint(hint) => reporter.out().hint(&hint),
                Said::Moved(moved) => reporter.tell(&LaneEvent::Moved { session: lane.session, moved: &moved })?,
                Said::Handshake | Said::Nothing => {}
            },
            told = seen.recv(), if following => match told {
                Some(Seen::Session(view)) => {
                    if let Some(ending) = judge(&view) {
                        return Ok(ending);
                    }
                    let now = boot_clock();
                    if let Some(left) = view.remaining_ms
                        && clock.update(now, Span::from_millis(left))
                    {
                        let left = clock.left(now);
                        reporter.tell(&LaneEvent::Extended { session: lane.session, left, ends_at: view.ends_at })?;
                    }
                    session = *view;
                }
                Some(Seen::Away) => reporter.out().hint("the controller is away; the lane stays up until its end"),
                Some(Seen::Back) => reporter.out().hint("the controller is back"),
                Some(Seen::LoggedOut) => {
                    reporter.out().hint("your log-in has ended; the lane stays up until its end");
                }
                None => following = false,
            },
            () = tokio::time::sleep(clock.pause(boot_clock())) => {}
        }
    }
}

/// Whether the session that is shown is over for us.
fn judge(view: &SessionView) -> Option<Ending> {
    match view.state {
        SessionState::Arming | SessionState::Active => None,
        SessionState::Ending | SessionState::Ended => Some(Ending::Remote {
            reason: view.end_reason.unwrap_or(EndReason::Failed),
            detail: view.end_detail.clone(),
        }),
    }
}

async fn ended(command: Option<&mut Running>) -> ExitStatus {
    match command {
        Some(running) => running.wait().await,
        None => std::future::pending().await,
    }
}

/// The end on this machine's wall clock.
pub fn ends_at(left: Span) -> Option<Wall> {
    Some(time::now() + left)
}

fn live_line(lane: &mut Lane, session: &SessionView, left: Span) -> String {
    let counters = lane.counters();
    // What the gateway did not let pass is known there only.
    let denied = session.counters.denied_packets + counters.denied_packets;
    format!(
        "{}  {} left  up {} ({})  down {} ({})  denied {denied}   Ctrl-C closes",
        session.asset,
        time::countdown(left),
        counters.up_packets,
        text::bytes(counters.up_bytes),
        counters.down_packets,
        text::bytes(counters.down_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Boot {
        Boot(secs * 1000)
    }

    #[test]
    fn the_warning_comes_five_minutes_before_the_end_or_at_half_time() {
        for (length, warning) in [(1800, 1500), (301, 1), (300, 150), (60, 30), (1, 0)] {
            let mut clock = Clock::new(secs(100), secs(100 + length));
            let due = clock.warning.expect("a warning");
            assert_eq!(due.0 / 1000, 100 + warning, "{length}");
            assert!(!clock.warns(Boot(due.0 - 1)));
            assert!(clock.warns(due));
            assert!(!clock.warns(secs(100 + length)), "twice");
        }
    }

    #[test]
    fn an_extension_moves_the_end_and_warns_again() {
        let mut clock = Clock::new(secs(0), secs(60));
        assert!(clock.warns(secs(31)));
        assert!(clock.update(secs(40), Span::from_secs(920)));
        assert_eq!(clock.deadline, secs(960));
        assert!(!clock.warns(secs(600)));
        assert!(clock.warns(secs(660)));
    }

    #[test]
    fn late_answers_do_not_stretch_the_session_and_a_shorter_end_holds_at_once() {
        let mut clock = Clock::new(secs(0), secs(60));
        // The same end, told 1.4 s later than it was meant.
        assert!(!clock.update(Boot(11_400), Span::from_secs(50)));
        assert_eq!(clock.deadline, secs(60));
        assert!(!clock.update(secs(20), Span::from_secs(5)));
        assert_eq!(clock.deadline, secs(25));
    }

    #[test]
    fn nothing_sleeps_past_the_end() {
        let clock = Clock::new(secs(0), secs(60));
        assert_eq!(clock.pause(secs(0)), Duration::from_secs(1));
        assert_eq!(Clock { warning: None, ..clock }.pause(Boot(59_990)), Duration::from_millis(10));
        assert_eq!(Clock { warning: None, ..clock }.pause(secs(61)), Duration::from_millis(1));
    }
}
