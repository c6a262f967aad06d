//! When the tunnel handshakes and when it keeps its path open, as plain arithmetic.
//!
//! Pure. Quicker than the protocol asks: without an answer to data a new handshake begins after 5 s instead of 15, and
//! a lane has a fresh key whenever its next packet comes.

use smoltcp::time::{Duration, Instant};
use thinlane_model::Boot;

use crate::doubt::Doubt;

/// Between two attempts, and without an answer to data before a new one (WireGuard: REKEY_TIMEOUT).
const RETRY: Duration = Duration::from_secs(5);
/// After data came and nothing went back, an empty packet says that the path works: before the other end's 5 s are over.
const ANSWER: Duration = Duration::from_secs(3);
/// A new key is made after this long (REKEY_AFTER_TIME) ...
const REKEY: Duration = Duration::from_secs(120);
/// ... or after this long if the other end began the last one and should begin the next.
const REKEY_LATE: Duration = Duration::from_secs(165);
/// A key is not used for longer (REJECT_AFTER_TIME).
const KEY_LIFE: Duration = Duration::from_secs(180);
/// Handshake messages further apart than this are not the repetitions of one attempt.
const APART: Duration = Duration::from_secs(15);
/// A peer that says something after not having been heard for so long may have come back.
const SILENCE: Duration = Duration::from_secs(2);
/// `Tunn`'s own timers are looked at this often while packets cross ...
const BUSY: Duration = Duration::from_millis(250);
/// ... and this often otherwise.
const IDLE: Duration = Duration::from_secs(5);

/// The times that matter.
#[derive(Debug)]
pub struct Timing {
    keepalive: Option<Duration>,
    /// When `Tunn`'s timers were last looked at.
    ticked: Option<Instant>,
    /// The last handshake that was begun and not answered.
    attempt: Option<Instant>,
    established: Option<Instant>,
    initiator: bool,
    sent: Instant,
    /// Of data and handshakes that are not answered.
    doubt: Doubt,
    /// The latest handshake message since the last success, and whether it was not the first.
    shaking: Option<(Instant, bool)>,
    /// The first data that was heard since something was sent.
    unacknowledged: Option<Instant>,
    /// When the peer was last heard.
    heard: Instant,
    /// The next handshake is due at once.
    hurried: bool,
    busy_until: Instant,
}

impl Timing {
    /// With a keepalive of so many seconds; 0: none.
    pub fn new(keepalive: u16, now: Instant) -> Self {
        Self {
            keepalive: (keepalive > 0).then(|| Duration::from_secs(keepalive.into())),
            ticked: None,
            attempt: None,
            established: None,
            initiator: false,
            sent: now,
            doubt: Doubt::default(),
            shaking: None,
            unacknowledged: None,
            heard: now,
            hurried: false,
            busy_until: now,
        }
    }

    /// There is more than one way to the peer: the first is doubted sooner.
    pub fn has_choice(&mut self) {
        self.doubt.has_choice();
    }

    /// `Tunn`'s timers were looked at.
    pub fn ticked(&mut self, now: Instant) {
        self.ticked = Some(now);
    }

    /// Whether `Tunn`'s timers are to be looked at; it knows the time only from there.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.ticked.is_none_or(|ticked| ticked + BUSY <= now)
    }

    /// A handshake was begun.
    pub fn began(&mut self, now: Instant) {
        self.attempt = Some(now);
        self.hurried = false;
        self.shake(now);
        self.doubt.asked(boot(now));
    }

    /// A handshake that the peer began was answered.
    pub fn answered(&mut self, now: Instant) {
        self.shake(now);
        if self.is_in_vain() {
            self.doubt.asked(boot(now));
        }
    }

    fn shake(&mut self, now: Instant) {
        let again = self.shaking.is_some_and(|(latest, _)| now < latest + APART);
        self.shaking = Some((now, again));
    }

    /// Handshakes come to nothing: whatever is heard of the peer, it does not hear us.
    fn is_in_vain(&self) -> bool {
        self.shaking.is_some_and(|(_, again)| again)
    }

    /// A message under a key was sent.
    pub fn sent(&mut self, data: bool, now: Instant) {
        self.sent = now;
        self.unacknowledged = None;
        if data {
            self.doubt.asked(boot(now));
            self.busy_until = now + IDLE;
        }
    }

    /// An authentic message came in.
    pub fn heard(&mut self, data: bool, now: Instant) {
        if !self.is_in_vain() {
            self.doubt.heard();
        } else if self.was_silent(now) && self.doubt.stirs(boot(now)) {
            // Perhaps it is back: a handshake tells, before this way is left for another.
            self.hurry();
        }
        self.heard = now;
        if data {
            self.unacknowledged.get_or_insert(now);
            self.busy_until = now + IDLE;
        }
    }

    fn was_silent(&self, now: Instant) -> bool {
        now >= self.heard + SILENCE
    }

    /// A handshake was completed.
    pub fn established(&mut self, initiator: bool, now: Instant) {
        self.attempt = None;
        self.shaking = None;
        self.doubt.heard();
        self.established = Some(now);
        self.initiator = initiator;
    }

    /// `Tunn` wiped its keys and waits to be told to begin again.
    pub fn gave_up(&mut self) {
        self.attempt = None;
        self.established = None;
        self.unacknowledged = None;
    }

    /// The next attempt is due at once, whatever came of the last one; the key that there is stays in use.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether there is a key to send with.
    pub fn is_live(&self, now: Instant) -> bool {
        self.established.is_some_and(|at| now < at + KEY_LIFE)
    }

    pub fn wants_handshake(&self, now: Instant) -> bool {
        self.handshake_at() <= now
    }

    pub fn wants_keepalive(&self, now: Instant) -> bool {
        self.is_live(now) && self.keepalive_at().is_some_and(|at| at <= now)
    }

    /// Whether an answer has been missing for longer than a lost packet explains.
    pub fn misses(&self, now: Instant) -> bool {
        self.doubt.unanswered().is_some_and(|since| now >= instant(since) + SILENCE)
    }

    /// Whether the peer has been silent for so long that another way to it should be tried; true once in a while.
    pub fn doubts(&mut self, now: Instant) -> bool {
        self.doubt.is_due(boot(now))
    }

    /// When the tunnel next has something to do.
    pub fn due(&self, now: Instant) -> Instant {
        let pause = if now < self.busy_until || self.attempt.is_some() { BUSY } else { IDLE };
        let look = self.ticked.unwrap_or(now) + pause;
        let keepalive = if self.is_live(now) { self.keepalive_at() } else { None };
        let wanted = [Some(self.handshake_at()), keepalive, self.doubt_at(), Some(look)].into_iter().flatten().min();
        wanted.unwrap_or(look)
    }

    fn handshake_at(&self) -> Instant {
        if self.hurried {
            return Instant::ZERO;
        }
        let fresh = match self.established {
            Some(at) => at + if self.initiator { REKEY } else { REKEY_LATE },
            None => Instant::ZERO,
        };
        let wanted = self.doubt.unanswered().map_or(fresh, |at| fresh.min(instant(at) + RETRY));
        self.attempt.map_or(wanted, |at| wanted.max(at + RETRY))
    }

    fn keepalive_at(&self) -> Option<Instant> {
        let answer = self.unacknowledged.map(|at| at + ANSWER);
        let keep = self.keepalive.map(|span| self.sent + span);
        [answer, keep].into_iter().flatten().min()
    }

    fn doubt_at(&self) -> Option<Instant> {
        self.doubt.due().map(instant)
    }
}

/// The same time as [`Doubt`] counts it; both begin with the lane.
fn boot(now: Instant) -> Boot {
    Boot(u64::try_from(now.total_millis()).unwrap_or(0))
}

fn instant(boot: Boot) -> Instant {
    Instant::from_millis(i64::try_from(boot.0).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Instant {
        Instant::from_secs(1000 + secs)
    }

    #[test]
    fn a_handshake_is_tried_at_once_and_every_five_seconds_for_ever() {
        let mut timing = Timing::new(25, at(0));
        let (mut tries, mut doubts) = (Vec::new(), Vec::new());
        let mut now = at(0);
        while now < at(100) {
            timing.ticked(now);
            if timing.wants_handshake(now) {
                timing.began(now);
                tries.push((now - at(0)).secs());
            }
            if timing.doubts(now) {
                doubts.push((now - at(0)).secs());
            }
            let due = timing.due(now);
            assert!(due > now, "it spins");
            now = due;
        }
        assert_eq!(tries, (0..20).map(|n| n * 5).collect::<Vec<_>>());
        assert_eq!(doubts, [11, 22, 33, 44, 55, 66, 77, 88, 99]);
    }

    #[test]
    fn an_idle_lane_rekeys_and_keeps_its_path_open_and_is_never_without_a_key() {
        let mut timing = Timing::new(25, at(0));
        let (mut handshakes, mut keepalives, mut wakes) = (0, 0, 0);
        let mut now = at(0);
        while now < at(3600) {
            wakes += 1;
            timing.ticked(now);
            if timing.wants_handshake(now) {
                handshakes += 1;
                timing.began(now);
                timing.heard(false, now);
                timing.established(true, now);
                timing.sent(false, now);
            } else if timing.wants_keepalive(now) {
                keepalives += 1;
                timing.sent(false, now);
                timing.heard(false, now);
            }
            assert!(timing.is_live(now));
            now = timing.due(now);
        }
        assert_eq!((handshakes, keepalives), (30, 120));
        assert!(wakes < 3600 / 5 + 200, "{wakes}");
    }

    #[test]
    fn unanswered_data_makes_a_handshake_after_five_seconds_and_an_answer_stops_it() {
        let mut timing = Timing::new(0, at(0));
        timing.established(true, at(0));
        timing.sent(true, at(10));
        timing.sent(true, at(12));
        assert!(!timing.wants_handshake(at(14)) && timing.wants_handshake(at(15)));
        timing.heard(false, at(14));
        assert!(!timing.wants_handshake(at(15)));
    }

    #[test]
    fn a_peer_that_is_heard_and_does_not_hear_is_doubted_and_one_lost_message_is_nothing() {
        let mut timing = Timing::new(25, at(0));
        timing.established(true, at(0));
        // The peer's own attempts, and data of its, come in; what answers them does not arrive.
        for secs in [5, 10, 15] {
            timing.heard(false, at(secs));
            timing.answered(at(secs));
            timing.heard(true, at(secs + 1));
            assert!(!timing.doubts(at(secs + 1)));
        }
        assert!(!timing.doubts(at(20)) && timing.doubts(at(21)));
        timing.established(false, at(22));
        timing.heard(false, at(30));
        timing.answered(at(30));
        timing.sent(true, at(31));
        timing.heard(true, at(32));
        assert!(!timing.doubts(at(60)), "a key that nobody uses yet");
    }

    #[test]
    fn a_peer_that_comes_back_just_before_its_way_is_left_is_asked_at_once_and_the_way_kept() {
        let mut timing = Timing::new(25, at(0));
        timing.established(true, at(0));
        timing.heard(true, at(1));
        // Silence from here on.
        timing.sent(true, at(2));
        timing.began(at(7));
        timing.began(at(12));
        assert!(!timing.doubts(at(12)) && !timing.wants_handshake(at(12)));
        timing.heard(true, Instant::from_millis(1_012_900));
        assert!(timing.wants_handshake(at(13)), "it is asked at once");
        assert!(!timing.doubts(at(13)), "the way is left while it is asked");
        timing.began(at(13));
        timing.heard(false, at(14));
        timing.established(true, at(14));
        timing.sent(true, at(14));
        timing.heard(true, at(15));
        assert!((15..60).all(|secs| !timing.doubts(at(secs))), "it is left all the same");
    }

    #[test]
    fn data_is_acknowledged_before_the_peer_doubts() {
        let mut timing = Timing::new(0, at(0));
        timing.established(false, at(0));
        timing.heard(true, at(10));
        assert!(!timing.wants_keepalive(at(12)) && timing.wants_keepalive(at(13)));
        timing.sent(false, at(13));
        assert!(!timing.wants_keepalive(at(60)));
    }

    #[test]
    fn a_changed_network_makes_a_handshake_at_once() {
        let mut timing = Timing::new(25, at(0));
        timing.established(true, at(0));
        timing.began(at(3));
        assert!(!timing.wants_handshake(at(4)));
        timing.hurry();
        assert!(timing.wants_handshake(at(4)) && timing.is_live(at(4)));
        timing.began(at(4));
        assert!(!timing.wants_handshake(at(5)), "once");
    }

    #[test]
    fn a_way_that_never_led_there_is_doubted_sooner() {
        let mut timing = Timing::new(25, at(0));
        timing.has_choice();
        timing.began(at(0));
        assert!(!timing.doubts(at(2)) && timing.doubts(at(3)) && !timing.doubts(at(5)) && timing.doubts(at(6)));
        timing.heard(false, at(6));
        timing.sent(true, at(7));
        assert!(!timing.doubts(at(17)) && timing.doubts(at(18)));
    }
}
