//! One history: fifty things that happen, then peace.

use std::collections::BTreeSet;
use std::fmt;

use thinlane_model::{RequestId, SessionId, Span};
use thinlane_session::{Actor, Answer, Command, LockTarget, NewRequest};
use thinlane_wire::api::{RequestState, SessionState};

use crate::head::{ASSETS, PEOPLE, name};
use crate::network::{Fault, To};
use crate::sabotage::Sabotage;
use crate::simulation::Simulation;

/// A promise that was broken, and what led to it.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    /// What happened, in order, with the milliseconds since the beginning.
    pub trace: Vec<String>,
}

/// What a history had in it, so that a test can see that histories are not empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sessions that were granted.
    pub sessions: usize,
    /// Of them those that once were active.
    pub active: usize,
    /// Of them those that were extended.
    pub extended: usize,
    /// The most that were open at once.
    pub at_once: usize,
}

/// Steps of the gateway that a history may let fail.
const FAILING: [&str; 12] = [
    "keys",
    "open-device",
    "add-route",
    "open-lane",
    "read-back",
    "extend-lane",
    "close-lane",
    "drop-flows",
    "read-back-closed",
    "persist",
    "sign-closing",
    "rebuild-base",
];

#[derive(Debug, Clone, Copy)]
enum Happening {
    Wait,
    Request,
    Approve,
    Activate,
    Extend,
    Kill,
    Release,
    Lock,
    Unlock,
    Isolate,
    Traffic,
    Cut,
    Silence,
    Unreachable,
    FrameFault,
    GatewayRestart,
    GatewayReboot,
    ControllerRestart,
    ClockJump,
    Flush,
    StepsFail,
    LaneLost,
    Heal,
}

/// How often each happens.
const ODDS: [(Happening, u64); 23] = [
    (Happening::Wait, 16),
    (Happening::Request, 3),
    (Happening::Approve, 5),
    (Happening::Activate, 30),
    (Happening::Extend, 8),
    (Happening::Kill, 5),
    (Happening::Release, 3),
    (Happening::Lock, 1),
    (Happening::Unlock, 3),
    (Happening::Isolate, 2),
    (Happening::Traffic, 5),
    (Happening::Cut, 3),
    (Happening::Silence, 2),
    (Happening::Unreachable, 1),
    (Happening::FrameFault, 2),
    (Happening::GatewayRestart, 3),
    (Happening::GatewayReboot, 1),
    (Happening::ControllerRestart, 2),
    (Happening::ClockJump, 2),
    (Happening::Flush, 3),
    (Happening::StepsFail, 2),
    (Happening::LaneLost, 1),
    (Happening::Heal, 16),
];

/// Plays the history of this seed.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    play(seed, None)
}

/// Plays the history of this seed with a part that breaks its word.
pub fn run_broken(seed: u64, sabotage: Sabotage) -> Result<Summary, Failure> {
    play(seed, Some(sabotage))
}

fn play(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Failure> {
    let sim = Simulation::new(seed, sabotage);
    let mut history =
        History { sim, trace: Vec::new(), active: BTreeSet::new(), extended: BTreeSet::new(), at_once: 0 };
    match history.play() {
        Ok(()) => Ok(history.summary()),
        Err(what) => Err(Failure { seed, what, trace: history.trace }),
    }
}

struct History {
    sim: Simulation,
    trace: Vec<String>,
    active: BTreeSet<SessionId>,
    extended: BTreeSet<SessionId>,
    at_once: usize,
}

impl History {
    fn play(&mut self) -> Result<(), String> {
        self.sim.pass(2_000)?;
        if !self.sim.is_up() {
            return Err(format!("the channel does not come up: {}", self.sim.describe()));
        }
        let total = ODDS.iter().map(|(_, odds)| odds).sum();
        for _ in 0..50 {
            let mut at = self.sim.random.between(1, total);
            let happening = ODDS.iter().find(|(_, odds)| {
                let found = at <= *odds;
                at = at.saturating_sub(*odds);
                found
            });
            let (happening, _) = happening.expect("the odds add up to their sum");
            self.happen(*happening)?;
            self.note_active();
        }
        self.make_peace()?;
        self.sim.model.agree(&self.sim.head, &self.sim.gateway, self.sim.now)
    }

    fn summary(&self) -> Summary {
        Summary {
            sessions: self.sim.head.world.sessions().count(),
            active: self.active.len(),
            extended: self.extended.len(),
            at_once: self.at_once,
        }
    }

    fn note_active(&mut self) {
        for session in self.sim.head.world.sessions() {
            if session.opened_at.is_some() {
                self.active.insert(session.id);
            }
        }
        let clock = self.sim.gateway.boot_time(self.sim.now);
        self.at_once = self.at_once.max(self.sim.gateway.kernel.open(clock).count());
    }

    fn tell(&mut self, what: impl fmt::Display) {
        self.trace.push(format!("{:>9} {what}", self.sim.now - 100_000_000));
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let now = self.sim.now;
        self.tell(format!("{happening:?}"));
        match happening {
            Happening::Wait => {
                let most = self.sim.random.pick(&[500, 5_000, 30_000, 120_000, 400_000]).unwrap_or(500);
                let millis = self.sim.random.between(1, most);
                self.tell(format!("waits {millis} ms"));
                self.sim.pass(millis)?;
            }
            Happening::Request => self.request(),
            Happening::Approve => {
                if let Some(request) = self.requests(RequestState::Pending).pop() {
                    self.run("bob", Command::ApproveRequest { request, note: None });
                }
            }
            Happening::Activate => self.activate(),
            Happening::Extend => {
                let seconds = self.sim.random.between(1, 600);
                if let Some(session) = self.session(SessionState::Active) {
                    let who = self.user(session);
                    if self.run(&who, Command::Extend { session, seconds, reason: "more".into() }).is_some() {
                        self.extended.insert(session);
                    }
                }
            }
            Happening::Kill => {
                let state = self.sim.random.pick(&[SessionState::Active, SessionState::Arming]);
                if let Some(session) = state.and_then(|state| self.session(state)) {
                    self.run("otto", Command::Kill { session, reason: "enough".into() });
                }
            }
            Happening::Release => {
                if let Some(session) = self.session(SessionState::Active) {
                    let who = self.user(session);
                    self.run(&who, Command::Release { session });
                }
            }
            Happening::Lock => {
                let target = self.target();
                let secs = self.sim.random.between(1, 300);
                let time = Some(Span::from_secs(secs));
                self.run("otto", Command::Lock { target, time, reason: "looked odd".into() });
            }
            Happening::Unlock => {
                let target = self.target();
                self.run("otto", Command::Unlock { target });
            }
            Happening::Isolate => {
                let isolated = !self.sim.gateway.isolated;
                self.sim.gateway.isolate(isolated, now);
                self.sim.model.disturbed(now);
            }
            Happening::Traffic => {
                let clock = self.sim.gateway.boot_time(now);
                let packets = self.sim.random.between(1, 1000);
                self.sim.gateway.kernel.traffic(packets, clock);
            }
            Happening::StepsFail => {
                let step = self.sim.random.pick(&FAILING);
                self.tell(format!("{step:?} fails"));
                self.sim.gateway.kernel.failing.extend(step);
            }
            Happening::Heal => self.heal(),
            other => self.disturb(other),
        }
        let millis = self.sim.random.between(0, 40);
        self.sim.pass(millis)
    }

    /// What goes wrong outside the machines.
    fn disturb(&mut self, happening: Happening) {
        let Simulation { now, random, head, gateway, network, model, .. } = &mut self.sim;
        let now = *now;
        model.disturbed(now);
        match happening {
            Happening::Cut => network.reset_all(now),
            Happening::Silence => network.silent = true,
            Happening::Unreachable => {
                network.unreachable = true;
                network.reset_all(now);
            }
            Happening::FrameFault => {
                network.fault = random.pick(&[Fault::Lose, Fault::Double, Fault::Swap]);
                network.set_latency(random.pick(&[2, 20, 400, 3_000]).unwrap_or(20));
            }
            Happening::GatewayRestart => {
                let until = now + random.pick(&[5, 1_000, 60_000]).unwrap_or(5);
                gateway.die(until, now, random);
                network.close_all_from(To::Gateway, now, random);
            }
            Happening::GatewayReboot => {
                gateway.reboot(now + 8_000, now, random);
                network.forget_gateway();
            }
            Happening::ControllerRestart => {
                let until = now + random.pick(&[50, 2_000, 90_000]).unwrap_or(50);
                head.die(until);
                network.close_all_from(To::Controller, now, random);
            }
            Happening::ClockJump => {
                let by = random.between(0, 20_000_000) as i64 - 10_000_000;
                if random.once_in(2) { gateway.jump_wall(by) } else { head.jump_wall(by) }
            }
            Happening::Flush => gateway.flush(now),
            Happening::LaneLost => {
                let clock = gateway.clock(now);
                let lane = gateway.site.lanes().next().map(|lane| lane.session);
                if let Some(session) = lane.filter(|_| gateway.dead_until.is_none()) {
                    gateway.site.handle_lane_lost(session, clock);
                }
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        let now = self.sim.now;
        self.sim.model.disturbed(now);
        self.sim.network.silent = false;
        self.sim.network.unreachable = false;
        self.sim.network.fault = None;
        self.sim.gateway.kernel.failing.clear();
        // A connection on which frames were lost is made anew, for no TCP loses one.
        if self.sim.gateway.conn.is_some_and(|conn| self.sim.network.is_faulted(conn)) {
            self.sim.network.reset_all(now);
        }
        if self.sim.gateway.dead_until.is_none() {
            let clock = self.sim.gateway.clock(now);
            self.sim.gateway.link.handle_network_changed(clock);
        }
        if self.sim.gateway.isolated && self.sim.random.once_in(2) {
            self.sim.gateway.isolate(false, now);
        }
    }

    /// Everything works again, and is given the time that it takes.
    fn make_peace(&mut self) -> Result<(), String> {
        self.tell("peace");
        self.heal();
        self.sim.network.set_latency(20);
        if self.sim.gateway.isolated {
            let now = self.sim.now;
            self.sim.gateway.isolate(false, now);
        }
        self.sim.pass(100_000)?;
        let now = self.sim.now;
        self.sim.model.disturbed(now);
        self.sim.network.reset_all(now);
        self.sim.pass(10_000)?;
        let clock = self.sim.gateway.clock(self.sim.now);
        self.sim.gateway.link.handle_network_changed(clock);
        // The slowest of all: a teardown that is tried again every thirty seconds, and arming that times out.
        self.sim.pass(100_000)?;
        if !self.sim.is_up() {
            return Err(format!("the channel is not up again: {}", self.sim.describe()));
        }
        Ok(())
    }

    fn run(&mut self, who: &str, command: Command) -> Option<Answer> {
        let now = self.sim.now;
        let what = format!("{who}: {} {}", command.name(), command.subject());
        let answer = self.sim.head.run(Actor::Person(name(who)), command, now);
        self.tell(format!("{what} -> {answer:?}"));
        answer
    }

    fn request(&mut self) {
        let who = self.sim.random.pick(&PEOPLE).unwrap_or("alice");
        let asset = self.sim.random.pick(&ASSETS).unwrap_or("plc-1");
        let seconds = self.sim.random.pick(&[2, 20, 120, 900]);
        let new = NewRequest {
            asset: name(asset),
            task: name("modbus"),
            seconds,
            reason: "work".into(),
            ticket: None,
            not_before: None,
        };
        self.run(who, Command::CreateRequest(new));
    }

    fn activate(&mut self) {
        if self.requests(RequestState::Approved).is_empty() {
            self.request();
        }
        let approved = self.requests(RequestState::Approved);
        if let Some(request) = self.sim.random.pick(&approved) {
            let user = self.sim.head.world.request(&request).map(|request| request.user.to_string());
            let now = self.sim.now;
            let session = self.sim.head.activate(&user.unwrap_or_default(), request, now);
            self.tell(format!("activates {request} -> {session:?}"));
        }
    }

    fn requests(&self, state: RequestState) -> Vec<RequestId> {
        let requests = self.sim.head.world.requests().filter(|request| request.state == state);
        requests.map(|request| request.id).collect()
    }

    fn session(&mut self, state: SessionState) -> Option<SessionId> {
        let sessions = self.sim.head.world.sessions().filter(|session| session.state == state);
        let sessions: Vec<SessionId> = sessions.map(|session| session.id).collect();
        self.sim.random.pick(&sessions)
    }

    fn user(&self, session: SessionId) -> String {
        self.sim.head.world.session(&session).map(|session| session.user.to_string()).unwrap_or_default()
    }

    fn target(&mut self) -> LockTarget {
        match self.sim.random.between(0, 3) {
            0 => LockTarget::User(name("alice")),
            1 => LockTarget::Site(name("north")),
            2 => LockTarget::Asset(name("plc-1")),
            _ => LockTarget::Asset(name("plc-2")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "seed {}: {}", self.seed, self.what)?;
        for line in &self.trace {
            writeln!(to, "  {line}")?;
        }
        write!(to, "replay it with THINLANE_SIM_SEED={}", self.seed)
    }
}
