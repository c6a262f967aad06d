//! When a lane handshakes and when it keeps its path open, as plain arithmetic on the boot clock.

use thinlane_model::{Boot, Span};

use crate::lane::kind;

/// While packets cross, the tunnel's clock is read at least this often.
const TICK: Span = Span::from_millis(250);
/// Between two attempts, and without an answer to data before a new one (whitepaper: REKEY_TIMEOUT).
const RETRY: Span = Span::from_secs(5);
/// The first repetitions come sooner, for where one message in ten is lost nobody should wait for the protocol's 5 s;
/// the relay lets one a second pass.
const RETRY_SOON: Span = Span::from_millis(1_100);
const SOON: u32 = 2;
/// After data came and nothing went back, an empty packet tells the peer that the path works. The protocol says
/// 10 s; ours must come before the other end's 5 s are over.
const ANSWER: Span = Span::from_secs(3);
/// The end that began a handshake begins the next after this long (REKEY_AFTER_TIME) ...
const REKEY: Span = Span::from_secs(120);
/// ... and the other end if it did not, before the key ends.
const REKEY_LATE: Span = Span::from_secs(165);
/// A key is not used for longer (REJECT_AFTER_TIME).
const KEY_LIFE: Span = Span::from_secs(180);
/// All keys are wiped after this long without a new one (3 x REJECT_AFTER_TIME).
const WIPE: Span = Span::from_secs(541);
/// Unanswered data stops asking for handshakes this long after the last of it (REKEY_ATTEMPT_TIME).
const PATIENCE: Span = Span::from_secs(90);
/// A peer that keeps its path open (every 25 s) and was silent for so long is looked for.
const SILENCE: Span = Span::from_secs(35);
/// Handshake messages further apart than this are not the repetitions of one attempt.
const APART: Span = Span::from_secs(15);
/// While packets cross, `Tunn`'s own timers are looked at this often.
const LOOK: Span = Span::from_secs(1);

#[derive(Debug)]
pub(crate) struct Timing {
    initiate: bool,
    keepalive: Option<Span>,
    ticked: Boot,
    /// The attempt that is under way.
    attempt: Option<Boot>,
    /// Attempts since the last success.
    tries: u32,
    /// Since when a new key is wanted whatever the age of the present one.
    renewal: Option<Boot>,
    established: Option<Boot>,
    initiator: bool,
    last_sent: Boot,
    last_data_sent: Boot,
    /// The first data sent since the peer was heard.
    unanswered: Option<Boot>,
    /// The first data heard since something was sent.
    unacknowledged: Option<Boot>,
    /// Something crossed since the last look.
    look: Option<Boot>,
    /// The peer was heard last, where its silence means something.
    heard: Option<Boot>,
    /// The first and the latest handshake message of ours since the last success.
    shaking: Option<(Boot, Boot)>,
    /// When an attempt was last hurried because the peer was heard.
    insisted: Option<Boot>,
}

impl Timing {
    pub(crate) fn new(initiate: bool, keepalive: Option<u16>, now: Boot) -> Self {
        Self {
            initiate,
            keepalive: keepalive.filter(|secs| *secs > 0).map(|secs| Span::from_secs(secs.into())),
            ticked: now,
            attempt: None,
            tries: 0,
            renewal: None,
            established: None,
            initiator: false,
            last_sent: now,
            last_data_sent: now,
            unanswered: None,
            unacknowledged: None,
            look: None,
            heard: None,
            shaking: None,
            insisted: None,
        }
    }

    /// The peer's silence is to be noticed from now on: it can be looked for elsewhere.
    pub(crate) fn watch(&mut self, now: Boot) {
        self.heard.get_or_insert(now);
    }

    pub(crate) fn is_stale(&self, now: Boot) -> bool {
        self.ticked.until(now) >= TICK
    }

    pub(crate) fn ticked(&mut self, now: Boot) {
        self.ticked = now;
        if self.look.is_some_and(|look| look <= now) {
            self.look = None;
        }
    }

    pub(crate) fn heard(&mut self, data: bool, now: Boot) {
        self.unanswered = None;
        if let Some(heard) = &mut self.heard {
            *heard = now;
        }
        if data {
            self.unacknowledged.get_or_insert(now);
            self.look.get_or_insert(now + LOOK);
        }
    }

    pub(crate) fn sent(&mut self, kind: u8, data: bool, now: Boot) {
        if matches!(kind, kind::INITIATION | kind::RESPONSE) {
            let first = self.shaking.filter(|(_, last)| last.until(now) < APART).map_or(now, |(first, _)| first);
            self.shaking = Some((first, now));
        }
        match kind {
            kind::INITIATION => {
                self.attempt = Some(now);
                self.tries = self.tries.saturating_add(1);
                return;
            }
            kind::DATA => self.unacknowledged = None,
            _ => {}
        }
        self.last_sent = now;
        if data {
            self.last_data_sent = now;
            self.unanswered.get_or_insert(now);
            self.look.get_or_insert(now + LOOK);
        }
    }

    pub(crate) fn established(&mut self, initiator: bool, now: Boot) {
        self.attempt = None;
        self.tries = 0;
        self.renewal = None;
        self.shaking = None;
        self.established = Some(now);
        self.initiator = initiator;
    }

    /// The next attempt need not wait for the last one.
    pub(crate) fn forget_attempt(&mut self) {
        self.attempt = None;
    }

    /// A new key is wanted now, whatever the age of the present one.
    pub(crate) fn renew(&mut self, now: Boot) {
        self.attempt = None;
        self.tries = 0;
        self.renewal = Some(now);
    }

    /// The peer was heard although handshakes come to nothing. Either it has just come back, or it can be heard and does
    /// not hear: a handshake tells, and is wanted until one succeeds, whatever else is answered meanwhile. `true`: the
    /// next attempt is to be made at once; not time and again, for the second case may last.
    pub(crate) fn insists(&mut self, now: Boot) -> bool {
        let Some((first, last)) = self.shaking.filter(|(first, last)| first < last) else { return false };
        self.renewal.get_or_insert(first);
        let under_way = last.until(now) < RETRY_SOON;
        let lately = self.insisted.is_some_and(|at| at.until(now) < RETRY);
        if under_way || lately {
            return false;
        }
        self.insisted = Some(now);
        self.renew(now);
        true
    }

    /// `Tunn` wiped its keys and waits to be told to begin again.
    pub(crate) fn gave_up(&mut self) {
        self.attempt = None;
        self.established = None;
        self.unacknowledged = None;
    }

    /// For how long handshake messages of ours have come to nothing.
    pub(crate) fn in_vain(&self) -> Span {
        self.shaking.map_or(Span::ZERO, |(first, last)| first.until(last))
    }

    /// Whether the attempt that was just begun should look for the peer elsewhere: the first two had no answer, and from
    /// then on one looks here, one there.
    pub(crate) fn strays(&self) -> bool {
        self.tries > SOON && self.tries % 2 == 1
    }

    pub(crate) fn wants_handshake(&self, now: Boot) -> bool {
        if self.retry_at().is_some_and(|retry| now < retry) {
            return false;
        }
        self.handshake_at(now).is_some_and(|at| at <= now)
    }

    pub(crate) fn wants_keepalive(&self, now: Boot) -> bool {
        self.is_live(now) && self.keepalive_at().is_some_and(|at| at <= now)
    }

    /// When the lane next has something to do; `reachable`: it has an endpoint to send to.
    pub(crate) fn due(&self, now: Boot, reachable: bool) -> Option<Boot> {
        let retry = self.retry_at();
        let handshake = self.handshake_at(now).map(|at| retry.map_or(at, |retry| retry.max(at)));
        let keepalive = if self.is_live(now) { self.keepalive_at() } else { None };
        let ahead = |at: Boot| (at > now).then_some(at);
        let ends = [KEY_LIFE, WIPE].map(|span| self.established.and_then(|at| ahead(at + span)));
        let acts = [handshake, retry, keepalive].map(|at| if reachable { at } else { None });
        let next = acts.into_iter().chain(ends).chain([self.look]).flatten().min()?;
        // Whatever is due and cannot be done must not make the loop spin.
        Some(next.max(self.ticked + Span::from_millis(100)))
    }

    /// Whether there is a key to send with.
    pub(crate) fn is_live(&self, now: Boot) -> bool {
        self.established.is_some_and(|at| at.until(now) < KEY_LIFE)
    }

    /// Before when the attempt that is under way is not repeated.
    fn retry_at(&self) -> Option<Boot> {
        self.attempt.map(|attempt| attempt + if self.tries <= SOON { RETRY_SOON } else { RETRY })
    }

    /// From when on a new handshake is wanted, whether or not an attempt is under way.
    fn handshake_at(&self, now: Boot) -> Option<Boot> {
        let held = self.initiate || self.keepalive.is_some();
        let rekey = if self.initiator { REKEY } else { REKEY_LATE };
        let fresh = match self.established {
            _ if !held => None,
            Some(at) => Some(at + rekey),
            None => Some(Boot(0)),
        };
        let patient = self.last_data_sent.until(now) < PATIENCE;
        let unanswered = self.unanswered.filter(|_| patient).map(|at| at + RETRY);
        let renewal = self.renewal.filter(|at| held || at.until(now) < PATIENCE);
        let silent = self.heard.filter(|_| self.established.is_some()).map(|at| at + SILENCE);
        [fresh, unanswered, renewal, silent].into_iter().flatten().min()
    }

    fn keepalive_at(&self) -> Option<Boot> {
        let answer = self.unacknowledged.map(|at| at + ANSWER);
        let keep = self.keepalive.map(|span| self.last_sent + span);
        [answer, keep].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Boot = Boot(1_000_000);

    fn at(secs: u64) -> Boot {
        START + Span::from_secs(secs)
    }

    #[test]
    fn an_initiating_lane_tries_at_once_twice_soon_and_every_five_seconds_for_ever() {
        let mut timing = Timing::new(true, None, START);
        let mut attempts = Vec::new();
        let mut now = START;
        while now < at(600) {
            timing.ticked(now);
            if timing.wants_handshake(now) {
                timing.sent(kind::INITIATION, false, now);
                attempts.push(START.until(now).as_millis());
            }
            now = timing.due(now, true).expect("something to wait for");
        }
        let wanted: Vec<u64> = [0, 1100].into_iter().chain((0..120).map(|try_| 2200 + try_ * 5000)).collect();
        assert_eq!(attempts, wanted);
    }

    #[test]
    fn an_idle_lane_on_demand_wakes_nobody_but_to_wipe_its_keys() {
        let mut timing = Timing::new(false, None, START);
        assert_eq!(timing.due(START, true), None);
        timing.established(true, START);
        assert_eq!(timing.due(at(1), true), Some(at(180)));
        timing.ticked(at(180));
        assert_eq!(timing.due(at(180), true), Some(at(541)));
        timing.ticked(at(541));
        assert_eq!(timing.due(at(541), true), None);
    }

    #[test]
    fn an_idle_armed_lane_wakes_for_keepalives_and_new_keys_only() {
        let mut timing = Timing::new(true, Some(25), START);
        let (mut wakes, mut handshakes, mut keepalives) = (0, 0, 0);
        let mut now = START;
        while now < at(3600) {
            wakes += 1;
            timing.ticked(now);
            if timing.wants_handshake(now) {
                handshakes += 1;
                timing.sent(kind::INITIATION, false, now);
                timing.heard(false, now);
                timing.sent(kind::DATA, false, now);
                timing.established(true, now);
            } else if timing.wants_keepalive(now) {
                keepalives += 1;
                timing.sent(kind::DATA, false, now);
            }
            now = timing.due(now, true).expect("something to wait for");
        }
        assert_eq!(handshakes, 30);
        assert_eq!(keepalives, 120);
        assert_eq!(wakes, handshakes + keepalives);
    }

    #[test]
    fn unanswered_data_makes_a_handshake_after_five_seconds_and_an_answer_stops_it() {
        let mut timing = Timing::new(false, None, START);
        timing.established(true, START);
        timing.sent(kind::DATA, true, at(10));
        assert!(!timing.wants_handshake(at(14)));
        assert!(timing.wants_handshake(at(15)));
        timing.heard(false, at(14));
        assert!(!timing.wants_handshake(at(15)));
    }

    #[test]
    fn data_without_an_answer_of_our_own_is_acknowledged_before_the_peer_doubts() {
        let mut timing = Timing::new(false, None, START);
        timing.established(false, START);
        timing.heard(true, at(10));
        assert!(!timing.wants_keepalive(at(12)));
        assert!(timing.wants_keepalive(at(13)));
        timing.sent(kind::DATA, false, at(13));
        assert!(!timing.wants_keepalive(at(60)));
    }

    #[test]
    fn a_renewal_is_tried_until_it_succeeds_or_patience_ends() {
        for (held, tries) in [(true, 26), (false, 20)] {
            let mut timing = Timing::new(held, None, START);
            timing.established(true, START);
            timing.renew(at(10));
            let attempts = (10..130).filter(|secs| {
                timing.ticked(at(*secs));
                let wanted = timing.wants_handshake(at(*secs));
                if wanted {
                    timing.sent(kind::INITIATION, false, at(*secs));
                }
                wanted
            });
            assert_eq!(attempts.count(), tries);
            timing.established(true, at(130));
            assert!(!timing.wants_handshake(at(131)));
        }
    }

    #[test]
    fn a_silent_peer_is_looked_for_after_more_than_one_of_its_keepalives_here_and_elsewhere() {
        let mut timing = Timing::new(false, Some(25), START);
        timing.watch(START);
        timing.established(false, START);
        timing.heard(false, at(25));
        assert!(!timing.wants_handshake(at(59)) && timing.wants_handshake(at(60)));
        let mut attempts = Vec::new();
        let mut now = at(60);
        while now < at(80) {
            timing.ticked(now);
            if timing.wants_handshake(now) {
                timing.sent(kind::INITIATION, false, now);
                attempts.push((at(60).until(now).as_millis(), timing.strays()));
            }
            now = timing.due(now, true).expect("something to wait for");
        }
        let wanted = [(0, false), (1100, false), (2200, true), (7200, false), (12_200, true), (17_200, false)];
        assert_eq!(attempts, wanted);
        timing.heard(false, at(80));
        assert!(!timing.wants_handshake(at(86)), "it is heard again");
    }

    #[test]
    fn repeated_handshake_messages_are_in_vain_until_one_succeeds() {
        let mut timing = Timing::new(true, None, START);
        timing.sent(kind::INITIATION, false, at(0));
        assert_eq!(timing.in_vain(), Span::ZERO);
        timing.sent(kind::RESPONSE, false, at(5));
        timing.heard(true, at(6));
        assert_eq!(timing.in_vain(), Span::from_secs(5), "whatever is heard meanwhile");
        timing.established(false, at(7));
        assert_eq!(timing.in_vain(), Span::ZERO);
        // One that was lost, and one for the next key.
        timing.sent(kind::RESPONSE, false, at(8));
        timing.sent(kind::RESPONSE, false, at(128));
        assert_eq!(timing.in_vain(), Span::ZERO);
    }

    #[test]
    fn a_peer_that_is_heard_while_handshakes_come_to_nothing_is_asked_at_once_and_until_it_answers() {
        let mut timing = Timing::new(true, Some(25), START);
        timing.established(true, START);
        // Silence: data, and attempts that nobody answers.
        timing.sent(kind::DATA, true, at(10));
        for secs in [15, 16, 21] {
            timing.sent(kind::INITIATION, false, at(secs));
        }
        timing.heard(true, at(23));
        assert!(!timing.wants_handshake(at(23)), "the data is answered, and the next attempt not due");
        assert!(timing.insists(at(23)) && timing.wants_handshake(at(23)));
        // Heard all the while, it is asked a few times, not at each packet.
        let mut attempts = 0;
        for tenth in 230..330 {
            let now = START + Span::from_millis(tenth * 100);
            timing.heard(true, now);
            let _ = timing.insists(now);
            if timing.wants_handshake(now) {
                timing.sent(kind::INITIATION, false, now);
                attempts += 1;
            }
        }
        assert!((4..=8).contains(&attempts), "{attempts} in ten seconds");
        timing.established(true, at(33));
        timing.heard(true, at(34));
        assert!(!timing.insists(at(34)) && !timing.wants_handshake(at(34)));
        // One message that was lost is nothing.
        timing.sent(kind::INITIATION, false, at(153));
        assert!(!timing.insists(at(155)));
    }

    #[test]
    fn a_lane_without_an_endpoint_does_not_spin() {
        let timing = Timing::new(true, Some(25), START);
        assert_eq!(timing.due(START, false), None);
    }
}
