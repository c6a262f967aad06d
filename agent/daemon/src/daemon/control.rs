//! The loop's end of the control socket.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use thinlane_link::AgentState;
use thinlane_model::{Boot, Now, Span};
use thinlane_site::{LaneState, Shutdown};
use thinlane_wg::link::Link;
use thinlane_wire::api::{ProbeView, Schema};
use thinlane_wire::{FromAgent, ProbeTicket};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Daemon;
use crate::cmd::check::has_wireguard;
use crate::cmd::isolate;
use crate::control::{Ask, LanStatus, LaneStatus, Reply, Status};
use crate::files::{self, Dirs};
use crate::identity::Validity;
use crate::intent::Intent;

/// The longest question, in bytes.
const MOST_ASKED: u64 = 4096;
/// Connections served at once; the rest wait in the socket's queue.
const MOST_SERVED: usize = 8;
/// How long a client may take to ask.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// How long closing every lane may take before the client is told that it did not work.
const CLOSE_WAIT: Span = Span::from_secs(10);
/// How long the controller may take to give a ticket.
const TICKET_WAIT: Span = Span::from_millis(1500);

/// A question, and where its answer goes.
pub struct Request {
    ask: Ask,
    reply: oneshot::Sender<Reply>,
}

/// Makes the socket, for this user alone, and serves it.
pub fn listen(dirs: &Dirs) -> anyhow::Result<mpsc::Receiver<Request>> {
    let path = dirs.socket();
    // The lock is ours: what lies there is a dead daemon's.
    files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot close {} to others", path.display()))?;
    let (to_loop, requests) = mpsc::channel(MOST_SERVED);
    let seats = std::sync::Arc::new(tokio::sync::Semaphore::new(MOST_SERVED));
    tokio::spawn(async move {
        while let Ok(seat) = seats.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let to_loop = to_loop.clone();
                    tokio::spawn(async move {
                        serve(stream, to_loop).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not answer");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(requests)
}

/// One question, one answer.
async fn serve(mut stream: UnixStream, to_loop: mpsc::Sender<Request>) {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let asked = timeout(ASK_WAIT, BufReader::new(read.take(MOST_ASKED)).read_line(&mut line)).await;
    if !matches!(asked, Ok(Ok(length)) if length > 0) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => {
            let (reply, answer) = oneshot::channel();
            match to_loop.send(Request { ask, reply }).await {
                Ok(()) => answer.await.ok(),
                Err(_) => None,
            }
        }
        Err(error) => Some(failed(format!("not a question that this agent understands: {error}"))),
    };
    let Some(answer) = answer.and_then(|answer| serde_json::to_string(&answer).ok()) else { return };
    // A client that has gone needs no answer.
    let _ = timeout(ASK_WAIT, write.write_all(format!("{answer}\n").as_bytes())).await;
}

fn failed(message: String) -> Reply {
    Reply::Failed { schema: Schema, message }
}

/// Clients that wait until something is done.
#[derive(Debug, Default)]
pub struct Waiting {
    isolated: Vec<(usize, Boot, oneshot::Sender<Reply>)>,
    /// Those that asked for a ticket, and until when they wait.
    tickets: Vec<(Boot, oneshot::Sender<Reply>)>,
    /// Those that asked for the end, with the number of lanes at that time.
    pub(super) end: Vec<(usize, oneshot::Sender<Reply>)>,
}

impl Waiting {
    /// Tells those who wait for the last lane to close, once it has.
    pub(super) fn isolated(&mut self, lanes_left: usize) {
        if lanes_left == 0 {
            for (closed, _, reply) in self.isolated.drain(..) {
                let _ = reply.send(Reply::Done { schema: Schema, closed });
            }
        }
    }

    /// When somebody has waited long enough.
    pub(super) fn due(&self) -> Option<Boot> {
        let isolated = self.isolated.iter().map(|(_, until, _)| *until);
        isolated.chain(self.tickets.iter().map(|(until, _)| *until)).min()
    }

    /// Hands a ticket to everybody who asked for one.
    pub(super) fn ticket(&mut self, ticket: &ProbeTicket) {
        for (_, reply) in self.tickets.drain(..) {
            let _ = reply.send(Reply::Ticket(Box::new(ProbeView::from(ticket))));
        }
    }

    /// Tells those who have waited long enough that it did not work.
    pub(super) fn give_up(&mut self, now: Boot) {
        for (until, reply) in std::mem::take(&mut self.tickets) {
            if until <= now {
                let _ = reply.send(failed("the controller gave no ticket in time; an older one knows none".into()));
            } else {
                self.tickets.push((until, reply));
            }
        }
        for (closed, until, reply) in std::mem::take(&mut self.isolated) {
            if until <= now {
                let _ = reply.send(failed("not every lane could be closed yet; the agent goes on trying".into()));
            } else {
                self.isolated.push((closed, until, reply));
            }
        }
    }
}

impl Daemon {
    pub(super) fn handle_request(&mut self, request: Request, now: Now) {
        let Request { ask, reply } = request;
        match ask {
            Ask::Status => {
                let _ = reply.send(Reply::Status(Box::new(self.status(now))));
            }
            Ask::Probe if self.link.state() != AgentState::Up => {
                let _ = reply.send(failed("the channel is not up".into()));
            }
            Ask::Probe => {
                self.waiting.tickets.push((now.mono + TICKET_WAIT, reply));
                self.link.handle_send(FromAgent::Probe, now);
            }
            Ask::Isolate { on } => match isolate::switch(&self.dirs, on) {
                Ok(()) => {
                    let closed = self.site.lanes().count();
                    self.apply_switch(now);
                    if on {
                        self.waiting.isolated.push((closed, now.mono + CLOSE_WAIT, reply));
                    } else {
                        let _ = reply.send(Reply::Done { schema: Schema, closed: 0 });
                    }
                }
                Err(failure) => {
                    let _ = reply.send(failed(failure.what));
                }
            },
            Ask::Stop => {
                self.waiting.end.push((self.site.lanes().count(), reply));
                self.begin_end(Shutdown::CloseAll, now);
            }
        }
    }

    /// Does what the switch says, however it was turned.
    pub(super) fn apply_switch(&mut self, now: Now) {
        let input = self.config.isolate_input.as_deref().is_some_and(input_is_on);
        let isolated = input || isolate::is_isolated(&self.dirs);
        if isolated != self.site.is_isolated() {
            tracing::warn!(isolated, "the site's own switch was turned");
            self.site.handle_isolate(isolated, now);
        }
    }

    fn status(&self, now: Now) -> Status {
        let expires = Validity::of(&self.identity.certificate).map(|validity| validity.not_after).unwrap_or_default();
        let why_not_ready = self.site.why_not_ready();
        let lane = |lane: thinlane_site::LaneView| LaneStatus {
            session: lane.session,
            asset: lane.asset.to_string(),
            task: lane.task.to_string(),
            state: match lane.state {
                LaneState::Opening => "opening",
                LaneState::Open => "open",
                LaneState::Closing(_) => "closing",
            }
            .into(),
            address: lane.tuple.address.to_string(),
            protocol: lane.tuple.protocol.to_string(),
            port: lane.tuple.port,
            seconds_left: now.mono.until(lane.deadline).as_secs(),
            counters: lane.counters,
        };
        Status {
            schema: Schema,
            version: env!("CARGO_PKG_VERSION").into(),
            site: self.identity.site_name.clone(),
            controller: self.identity.controller.clone(),
            channel: self.channel_word().into(),
            channel_problem: self.channel_problem.clone(),
            backend: self.site.backend().into(),
            backend_reason: Some(backend_reason(self.site.backend(), self.listen).into()),
            offload: self.device_offload.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ready: why_not_ready.is_none() && self.ruleset && !self.site.is_isolated(),
            why_not_ready,
            ruleset: self.ruleset,
            isolated: self.site.is_isolated(),
            lanes: self.site.lanes().map(lane).collect(),
            spooled: self.spooled,
            generation: self.site.applied().generation,
            started_at: self.started,
            certificate_expires_at: expires,
            clock_offset_ms: self.controller_clock.map(|clock| clock.offset_ms(now)),
            goodbye: self.goodbye.map(|reason| reason.as_str().to_owned()),
            lan: lan_status(&self.dirs),
            log_size: self.witness.remembered().map(|(size, _)| size),
            log_problem: self.log_problem.clone(),
        }
    }
}

/// Why it is this backend, as far as the machine tells.
fn backend_reason(backend: &str, listen: u16) -> &'static str {
    match backend {
        "kernel" => "the kernel has WireGuard, which costs the least processor time",
        _ if !has_wireguard() => "the kernel has no WireGuard module; this costs processor time, and nothing else",
        _ if listen != 0 => "lanes share one UDP port, which the kernel's cannot",
        _ => "as configured",
    }
}

fn lan_status(dirs: &Dirs) -> Vec<LanStatus> {
    let written = |(address, length): (Ipv4Addr, u8)| format!("{address}/{length}");
    let lan = lan_addresses(dirs).into_iter();
    lan.map(|(interface, found)| LanStatus { interface, addresses: found.into_iter().map(written).collect() }).collect()
}

/// The LAN interfaces that the table was made for, with their addresses of this moment.
pub(super) fn lan_addresses(dirs: &Dirs) -> Vec<(String, Vec<(Ipv4Addr, u8)>)> {
    let names = Intent::load(dirs).ok().flatten().map(|intent| intent.lan).unwrap_or_default();
    let mut link = Link::open().ok();
    let mut addresses = |name: &str| link.as_mut().and_then(|link| link.addresses(name).ok()).unwrap_or_default();
    names.into_iter().map(|name| (name.clone(), addresses(&name))).collect()
}

/// A key switch: on while its file is there and does not read `0`; one that cannot be read counts as on.
pub fn input_is_on(path: &std::path::Path) -> bool {
    match std::fs::read(path) {
        Ok(bytes) => bytes.trim_ascii() != b"0",
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_switch_is_on_unless_it_is_absent_or_reads_zero() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("value");
        assert!(!input_is_on(&path));
        for (text, on) in [("0\n", false), ("1\n", true), ("", true), ("on", true)] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(input_is_on(&path), on, "{text:?}");
        }
        assert!(input_is_on(dir.path()), "what cannot be read closes the site");
    }

    #[tokio::test]
    async fn the_socket_is_private_and_answers_one_question() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs { dir: dir.path().into(), run: dir.path().into() };
        let mut requests = listen(&dirs).expect("listens");
        let mode = std::fs::metadata(dirs.socket()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let asked = tokio::task::spawn_blocking(move || crate::control::ask(&dirs, Ask::Stop, ASK_WAIT));
        let request = requests.recv().await.expect("a question");
        assert_eq!(request.ask, Ask::Stop);
        request.reply.send(Reply::Done { schema: Schema, closed: 3 }).expect("taken");
        let answer = asked.await.expect("no panic").expect("an answer");
        assert_eq!(answer, Reply::Done { schema: Schema, closed: 3 });
    }

    #[tokio::test]
    async fn nonsense_on_the_socket_is_answered_and_reaches_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs { dir: dir.path().into(), run: dir.path().into() };
        let mut requests = listen(&dirs).expect("listens");
        let mut stream = UnixStream::connect(dirs.socket()).await.expect("connects");
        stream.write_all(b"{\"do\":\"open\"}\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains("failed"), "{answer}");
        assert!(requests.try_recv().is_err());
    }
}
