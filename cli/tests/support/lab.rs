//! An engineer's and a gateway's network namespace with a wire between them, and a gateway that arms lanes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use thinlane_model::{Boot, Counters, PublicKey, Secret, SessionId, Span, Tuple};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, LaneRole, LaneSpec, Userspace, UserspaceConfig};

use super::views::{self, REQUEST, SESSION};
use super::{Asked, Authority, Controller, Person, Reply};

const OVERLAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
const GATEWAY: &str = "10.77.0.2";

/// Runs something inside a network namespace, on a thread of its own.
pub fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{netns}");
    let thread = thread::spawn(move || {
        let file = File::open(path).expect("the namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("entering it (these tests need root)");
        work()
    });
    thread.join().expect("no panic inside")
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().expect("ip");
    assert!(done.status.success(), "ip {line}: {} (these tests need root)", super::text(&done.stderr));
}

/// Two namespaces, taken away when dropped.
pub struct Wire {
    pub engineer: String,
    pub gateway: String,
}

impl Wire {
    pub fn new() -> Wire {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("tlt-{}-{number}{end}", std::process::id());
        let wire = Wire { engineer: name("e"), gateway: name("g") };
        let (engineer, gateway) = (&wire.engineer, &wire.gateway);
        ip(&format!("netns add {engineer}"));
        ip(&format!("netns add {gateway}"));
        ip(&format!("-n {engineer} link add w0 type veth peer name w0 netns {gateway}"));
        ip(&format!("-n {engineer} addr add 10.77.0.1/24 dev w0"));
        ip(&format!("-n {gateway} addr add {GATEWAY}/24 dev w0"));
        for netns in [engineer, gateway] {
            ip(&format!("-n {netns} link set lo up"));
            ip(&format!("-n {netns} link set w0 up"));
        }
        wire
    }

    /// The names of the engineer's interfaces that are lanes.
    pub fn lanes(&self) -> Vec<String> {
        inside(&self.engineer, || {
            let ours = Link::open().and_then(|mut link| link.ours()).expect("interfaces");
            ours.into_iter().map(|interface| interface.name).collect()
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for netns in [&self.engineer, &self.gateway] {
            // Whatever still runs in there is the test's own.
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", netns]).output() {
                for pid in super::text(&pids.stdout).split_whitespace() {
                    let _ = Command::new("kill").args(["-9", pid]).status();
                }
            }
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

/// How the gateway behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Answers,
    /// It arms, but no datagram of its comes through.
    Silent,
    /// The controller says that it is away.
    Away,
    /// It has an endpoint of its own where nobody answers; through the relay it answers.
    Elsewhere,
    /// It has an endpoint of its own whose name nobody knows; through the relay it answers.
    Nameless,
    /// As that, and nobody knows the relay's name either.
    Nowhere,
}

impl Manner {
    /// The endpoint that the engineer is told of first, and the other.
    fn endpoints(self) -> (String, Option<String>) {
        let gateway = format!("{GATEWAY}:51820");
        match self {
            Manner::Elsewhere => (format!("{GATEWAY}:51821"), Some(gateway)),
            Manner::Nameless => ("gw.invalid:51820".to_owned(), Some(gateway)),
            Manner::Nowhere => ("gw.invalid:51820".to_owned(), Some("hq.invalid:7443".to_owned())),
            Manner::Answers | Manner::Silent | Manner::Away => (gateway, None),
        }
    }
}

/// What became of the session.
struct Life {
    state: &'static str,
    reason: Option<&'static str>,
    deadline: Boot,
    changes: u32,
}

/// A controller and a gateway in one.
pub struct Site {
    pub controller: Controller,
    pub wire: Wire,
    life: Arc<Mutex<Life>>,
    device: Arc<Mutex<Option<Userspace>>>,
}

impl Site {
    /// A site whose sessions last `length`.
    pub fn start(length: Span, manner: Manner) -> Site {
        let wire = Wire::new();
        let listener = inside(&wire.gateway, || TcpListener::bind((GATEWAY, 7443)).expect("a port"));
        let life = Arc::new(Mutex::new(Life { state: "none", reason: None, deadline: Boot(0), changes: 0 }));
        let device = Arc::new(Mutex::new(None));
        let handler = {
            let (life, device, gateway) = (life.clone(), device.clone(), wire.gateway.clone());
            move |asked: &Asked| answer(asked, length, manner, &life, &device, &gateway)
        };
        let controller = Controller::serve(listener, Authority::new(&[GATEWAY]), handler);
        Site { controller, wire, life, device }
    }

    /// An engineer who is logged in here.
    pub fn engineer(&self) -> Person {
        let person = Person::within(&self.wire.engineer);
        person.log_in(&self.controller);
        person
    }

    /// Ends the session as ops or the gateway would.
    pub fn end(&self, reason: &'static str) {
        let mut life = self.life.lock().expect("no panic holds it");
        (life.state, life.reason) = ("ended", Some(reason));
        life.changes += 1;
    }

    /// Gives the session more time.
    pub fn extend(&self, by: Span) {
        let mut life = self.life.lock().expect("no panic holds it");
        life.deadline = life.deadline + by;
        life.changes += 1;
    }

    pub fn was_released(&self) -> bool {
        self.controller.asked().contains(&format!("POST /sessions/{SESSION}/release"))
    }

    /// What the gateway saw cross.
    pub fn counters(&self) -> Counters {
        let mut device = self.device.lock().expect("no panic holds it");
        let session = SESSION.parse().expect("an id");
        device.as_mut().and_then(|device| device.report(session)).map(|report| report.counters).unwrap_or_default()
    }
}

fn answer(
    asked: &Asked,
    length: Span,
    manner: Manner,
    life: &Arc<Mutex<Life>>,
    device: &Mutex<Option<Userspace>>,
    gateway: &str,
) -> Reply {
    let path = asked.path.split('?').next().unwrap_or_default();
    match (asked.method.as_str(), path) {
        ("GET", "/status") => Reply::ok(views::status()),
        ("POST", "/login") => Reply::ok(views::token()),
        ("GET", "/whoami") => Reply::ok(views::whoami()),
        ("GET", "/requests") => {
            let open = life.lock().expect("no panic holds it").state == "none";
            let items = if open { vec![views::request("approved")] } else { Vec::new() };
            Reply::ok(json!({"schema": 1, "items": items}))
        }
        ("GET", "/tasks/echo-tcp") => Reply::ok(views::task()),
        ("GET", "/assets/rtu-7") => Reply::ok(views::asset()),
        ("GET", "/assets") => Reply::ok(json!({"schema": 1, "items": [views::asset()]})),
        ("GET", path) if path == format!("/requests/{REQUEST}") => {
            let life = life.lock().expect("no panic holds it");
            let mut view = views::request(if life.state == "none" { "approved" } else { "used" });
            view["session"] = if life.state == "none" { Value::Null } else { json!(SESSION) };
            Reply::ok(view)
        }
        ("POST", path) if path.ends_with("/activate") => match manner {
            Manner::Away => Reply::error(504, "site-unreachable", "the gateway of north is away"),
            _ => Reply::ok(activate(&asked.body, length, manner, life, device, gateway)),
        },
        ("POST", path) if path.ends_with("/release") => {
            let mut life = life.lock().expect("no panic holds it");
            (life.state, life.reason) = ("ended", Some("released"));
            life.changes += 1;
            Reply::ok(views::session("ended", life.reason, 0))
        }
        ("GET", path) if path.ends_with("/events") => events(life.clone()),
        ("GET", path) if path.starts_with("/sessions/") => Reply::ok(view(&life.lock().expect("no panic holds it"))),
        _ => Reply::error(404, "not-found", &format!("the test knows no {} {}", asked.method, asked.path)),
    }
}

fn view(life: &Life) -> Value {
    let now = thinlane_wg::boot().expect("a clock");
    views::session(life.state, life.reason, now.until(life.deadline).as_millis())
}

/// The session as it stands, then each change; ends after the end.
fn events(life: Arc<Mutex<Life>>) -> Reply {
    let (mut seen, mut over) = (None, false);
    Reply::Events(Box::new(move || {
        while !over {
            let now = life.lock().expect("no panic holds it");
            if seen != Some(now.changes) {
                seen = Some(now.changes);
                over = now.state == "ended";
                return Some(json!({"event": "session", "session": view(&now)}));
            }
            drop(now);
            thread::sleep(Duration::from_millis(10));
        }
        None
    }))
}

fn activate(
    body: &Value,
    length: Span,
    manner: Manner,
    life: &Mutex<Life>,
    device: &Mutex<Option<Userspace>>,
    gateway: &str,
) -> Value {
    let peer: PublicKey = body["public_key"].as_str().expect("a key").parse().expect("a key");
    let preshared = Secret::from_base64(body["preshared_key"].as_str().expect("a key")).expect("a key");
    let (private, public) = thinlane_wg::key::key_pair().expect("keys");
    let deadline = thinlane_wg::boot().expect("a clock") + length;
    if manner != Manner::Silent {
        let opened = inside(gateway, move || open(private, peer, preshared, deadline));
        *device.lock().expect("no panic holds it") = Some(opened);
    }
    let mut life = life.lock().expect("no panic holds it");
    (life.state, life.deadline) = ("active", deadline);
    life.changes += 1;
    let (endpoint, fallback) = manner.endpoints();
    json!({
        "schema": 1, "session": view(&life), "address": ENGINEER, "asset_address": OVERLAY, "gateway_key": public,
        "endpoint": endpoint, "fallback": fallback, "mtu": 1420, "keepalive": 25, "remaining_ms": length.as_millis(),
    })
}

/// The gateway's end; the device behind it is an echo on the overlay address itself.
fn open(private: Secret, peer: PublicKey, preshared: Secret, deadline: Boot) -> Userspace {
    let listen: SocketAddr = format!("{GATEWAY}:51820").parse().expect("an address");
    let config = UserspaceConfig { listen, ..UserspaceConfig::new("tl0", "thinlane gateway") };
    let mut device = Userspace::start(config).expect("a device");
    let session: SessionId = SESSION.parse().expect("an id");
    let tuple = Tuple {
        engineer: ENGINEER,
        destination: OVERLAY,
        address: OVERLAY,
        protocol: thinlane_model::Protocol::Tcp,
        port: 7,
    };
    device
        .open(LaneSpec {
            session,
            private,
            peer,
            preshared: Some(preshared),
            endpoint: None,
            fallback: None,
            keepalive: None,
            initiate: false,
            role: LaneRole::Gateway { tuple, deadline },
        })
        .expect("a lane");
    let mut link = Link::open().expect("rtnetlink");
    link.add_address("tl0", OVERLAY).expect("an address");
    link.add_route("tl0", ENGINEER).expect("a route");
    let listener = TcpListener::bind((OVERLAY, 7)).expect("the echo port");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    device
}
