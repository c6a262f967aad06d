//! Any sequence of commands: nothing panics, the rules hold after each step, and the log gives the world again.

use proptest::prelude::*;
use thinlane_model::RefuseReason;

use super::*;

/// One step, with small numbers that pick among what there is.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    JumpWall(i64),
    Request(u8, u8, u64),
    Approve(u8, u8),
    Deny(u8, u8),
    Withdraw(u8, u8),
    Activate(u8, u8, u8),
    Arm(u8, u8, bool),
    Refuse(u8, bool),
    Close(u8, u8),
    Extend(u8, u64),
    Release(u8),
    Kill(u8, u8),
    Lock(u8, u8, Option<u64>),
    Unlock(u8, u8),
    Reboot(u8),
    Isolate(u8, bool),
    Policy(u8),
    Freeze(u8),
    Remove(u8),
    Observe(u8, u64),
    Restart,
}

const PEOPLE: [&str; 6] = ["alice", "adam", "vera", "bob", "otto", "root"];
const ASSETS: [&str; 3] = ["plc-1", "meter-1", "meter-2"];
const POLICIES: [&str; 4] = [
    RULES,
    "[[permit]]\nid = \"free\"\napprovals = 0\n",
    "[[permit]]\nid = \"free\"\napprovals = 0\n[[forbid]]\nid = \"no-vera\"\nuser = [\"vera\"]\n",
    "[[",
];

fn step() -> impl Strategy<Value = Step> {
    let b = any::<u8>;
    prop_oneof![
        3 => prop_oneof![0u64..100, 100u64..40_000].prop_map(Step::Wait),
        1 => (-1_000_000i64..1_000_000).prop_map(Step::JumpWall),
        6 => (b(), b(), 1u64..5_000).prop_map(|(who, what, secs)| Step::Request(who, what, secs)),
        6 => (b(), b()).prop_map(|(who, what)| Step::Approve(who, what)),
        1 => (b(), b()).prop_map(|(who, what)| Step::Deny(who, what)),
        1 => (b(), b()).prop_map(|(who, what)| Step::Withdraw(who, what)),
        8 => (b(), b(), 1u8..40).prop_map(|(who, what, key)| Step::Activate(who, what, key)),
        8 => (b(), 1u8..80, any::<bool>()).prop_map(|(what, key, stale)| Step::Arm(what, key, stale)),
        1 => (b(), any::<bool>()).prop_map(|(what, stale)| Step::Refuse(what, stale)),
        4 => (b(), b()).prop_map(|(what, why)| Step::Close(what, why)),
        2 => (b(), 1u64..4_000).prop_map(|(what, secs)| Step::Extend(what, secs)),
        2 => b().prop_map(Step::Release),
        1 => (b(), b()).prop_map(|(who, what)| Step::Kill(who, what)),
        1 => (b(), b(), proptest::option::of(1u64..5_000)).prop_map(|(who, what, time)| Step::Lock(who, what, time)),
        2 => (b(), b()).prop_map(|(who, what)| Step::Unlock(who, what)),
        1 => b().prop_map(Step::Reboot),
        1 => (b(), any::<bool>()).prop_map(|(site, on)| Step::Isolate(site, on)),
        1 => b().prop_map(Step::Policy),
        1 => b().prop_map(Step::Freeze),
        1 => b().prop_map(Step::Remove),
        2 => (b(), any::<u64>()).prop_map(|(what, count)| Step::Observe(what, count)),
        1 => Just(Step::Restart),
    ]
}

fn pick<T: Copy>(from: &[T], at: u8) -> Option<T> {
    from.get(usize::from(at) % from.len().max(1)).copied()
}

fn targets(at: u8) -> LockTarget {
    match at % 4 {
        0 => LockTarget::User(name("alice")),
        1 => LockTarget::Org(name("acme")),
        2 => LockTarget::Site(name("north")),
        _ => LockTarget::Asset(name("meter-1")),
    }
}

struct Run {
    lab: Lab,
    boots: BTreeMap<SiteId, BootId>,
}

impl Run {
    fn new() -> Self {
        let mut lab = Lab::new();
        let south = lab.add_site("south");
        lab.add_asset("meter-2", "south", "192.168.1.11", "meter");
        let north = lab.site("north");
        Self { lab, boots: BTreeMap::from([(north, BOOT), (south, BOOT)]) }
    }

    fn who(&self, at: u8) -> Actor {
        person(PEOPLE[usize::from(at) % PEOPLE.len()])
    }

    fn a_request(&self, at: u8) -> Option<RequestId> {
        pick(&self.lab.world.requests().map(|it| it.id).collect::<Vec<_>>(), at)
    }

    fn a_session(&self, at: u8) -> Option<SessionId> {
        pick(&self.lab.world.sessions().map(|it| it.id).collect::<Vec<_>>(), at)
    }

    fn a_site(&self, at: u8) -> SiteId {
        let sites: Vec<SiteId> = self.boots.keys().copied().collect();
        sites[usize::from(at) % sites.len()]
    }

    fn step(&mut self, step: Step) -> Option<()> {
        let command = match step {
            Step::Wait(secs) => {
                self.lab.wait(Span::from_secs(secs));
                return Some(());
            }
            Step::JumpWall(secs) => {
                self.lab.now.wall = Wall::from_millis(self.lab.now.wall.as_millis() + secs * 1000);
                return Some(());
            }
            Step::Request(who, what, secs) => {
                let asset = ASSETS[usize::from(what) % ASSETS.len()];
                (self.who(who), Command::CreateRequest(wish(asset, Some(secs))))
            }
            Step::Approve(who, what) => {
                (self.who(who), Command::ApproveRequest { request: self.a_request(what)?, note: None })
            }
            Step::Deny(who, what) => {
                (self.who(who), Command::DenyRequest { request: self.a_request(what)?, reason: "no".to_owned() })
            }
            Step::Withdraw(who, what) => (self.who(who), Command::WithdrawRequest { request: self.a_request(what)? }),
            Step::Activate(who, what, engineer) => {
                let request = self.a_request(what)?;
                let site = self.lab.world.request(&request)?.site;
                // Mostly its owner, sometimes somebody else.
                let owner = self.lab.world.request(&request)?.user.clone();
                let actor = if who % 8 == 0 { self.who(who) } else { Actor::Person(owner) };
                let clock = AgentClock { boot: self.boots[&site], ..self.lab.clock() };
                let command = Command::Activate { request, engineer_key: key(engineer), native: who % 2 == 0, clock };
                (actor, command)
            }
            Step::Arm(what, gateway, stale) => {
                let it = self.lab.session(self.a_session(what)?);
                let serial = if stale { it.serial.saturating_sub(1) } else { it.serial };
                let gateway_key = it.gateway_key.unwrap_or(key(gateway));
                let backend = "kernel".to_owned();
                let command = Command::Armed { session: it.id, serial, gateway_key, deadline: it.deadline, backend };
                (Actor::Agent(it.site), command)
            }
            Step::Refuse(what, stale) => {
                let it = self.lab.session(self.a_session(what)?);
                let serial = if stale { it.serial.saturating_sub(1) } else { it.serial };
                let (reason, detail) = (RefuseReason::Kernel, "no".to_owned());
                (Actor::Agent(it.site), Command::Refuse { session: it.id, serial, reason, detail })
            }
            Step::Close(what, why) => {
                let id = self.a_session(what)?;
                let closing = self.lab.closing(id, EndReason::ALL[usize::from(why) % EndReason::ALL.len()]);
                (Actor::Agent(self.lab.session(id).site), Command::Close(closing))
            }
            Step::Extend(what, seconds) => {
                let it = self.lab.session(self.a_session(what)?);
                let command = Command::Extend { session: it.id, seconds, reason: "r".to_owned() };
                (Actor::Person(it.user.clone()), command)
            }
            Step::Release(what) => {
                let it = self.lab.session(self.a_session(what)?);
                (Actor::Person(it.user.clone()), Command::Release { session: it.id })
            }
            Step::Kill(who, what) => {
                (self.who(who), Command::Kill { session: self.a_session(what)?, reason: "r".to_owned() })
            }
            Step::Lock(who, what, time) => {
                let time = time.map(Span::from_secs);
                (self.who(who), Command::Lock { target: targets(what), time, reason: "r".to_owned() })
            }
            Step::Unlock(who, what) => (self.who(who), Command::Unlock { target: targets(what) }),
            Step::Reboot(at) => {
                let site = self.a_site(at);
                let boot = BootId([at; 16]);
                self.boots.insert(site, boot);
                (Actor::Agent(site), Command::Hello { boot, version: "1".to_owned(), backend: None })
            }
            Step::Isolate(at, isolated) => (
                Actor::Agent(self.a_site(at)),
                Command::Status { isolated, why_not_ready: None, backend: None, lan: Vec::new() },
            ),
            Step::Policy(at) => {
                let rules = POLICIES[usize::from(at) % POLICIES.len()];
                self.lab.policy = PolicyState::load(&[("t", TASKS), ("r", rules)]);
                (Actor::System, Command::PolicyChanged)
            }
            Step::Freeze(at) => {
                (Actor::System, Command::FreezeSite { site: self.a_site(at), reason: "clone".to_owned() })
            }
            Step::Remove(at) => {
                let asset = name(ASSETS[usize::from(at) % ASSETS.len()]);
                (person("root"), Command::RemoveAsset { asset })
            }
            Step::Observe(what, up_packets) => {
                let (id, site) = {
                    let it = self.lab.session(self.a_session(what)?);
                    (it.id, it.site)
                };
                let counters = Counters { up_packets, ..Counters::default() };
                self.lab.world.observe(&site, id, Observation { counters, ..Observation::default() });
                return Some(());
            }
            Step::Restart => {
                let rows = self.lab.world.rows().map(|(key, value)| (key.kind, key.id, value));
                let mut world = World::from_rows(rows).expect("its own rows");
                world.effects_after_restart(self.lab.now);
                self.lab.world = world;
                return Some(());
            }
        };
        let _ = self.lab.run(command.0, command.1);
        Some(())
    }

    /// What a gateway is told is exactly what runs, and nobody who is locked, isolated or frozen has a new lane.
    fn check(&self) {
        let world = &self.lab.world;
        for site in self.boots.keys() {
            for grant in world.desired(site).grants {
                let session = world.session(&grant.session).expect("a session");
                assert!(session.is_desired() && session.site == *site && grant.boot == self.boots[site]);
                let locked = [
                    LockTarget::User(session.user.clone()),
                    LockTarget::Site(session.site_name.clone()),
                    LockTarget::Asset(session.asset.clone()),
                ];
                assert!(locked.iter().all(|target| world.lock_of(target).is_none()), "a lane of somebody locked");
                assert!(session.org.as_ref().is_none_or(|org| world.lock_of(&LockTarget::Org(org.clone())).is_none()));
                assert!(
                    !world.agent(site).expect("an agent").isolated
                        && world.site(site).expect("a site").frozen.is_none()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_the_log_tells_it_all(steps in proptest::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
        run.lab.check_replay();
        // In the end nothing stays open by itself.
        run.lab.wait(days(60));
        prop_assert!(run.lab.world.all_live_sessions().next().is_none());
        prop_assert_eq!(run.lab.world.poll_timeout(), None);
    }

    #[test]
    fn an_entry_of_another_world_changes_nothing_for_the_worse(steps in proptest::collection::vec(step(), 1..60), drop in 0usize..50) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        // Entries without those before them, twice, and backwards: no panic, whatever comes of it.
        let mut world = World::new();
        for entry in run.lab.log.iter().skip(drop).chain(&run.lab.log).chain(run.lab.log.iter().rev()) {
            world.apply(entry, Boot(1));
        }
        let _ = world.rows().count();
    }
}
