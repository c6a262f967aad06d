//! One gateway's connection: bytes in and out of its `ControllerLink`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use thinlane_link::{Access, AgentClock as LinkClock, ConnId, ControllerLink, LinkConfig, LinkEffect, LinkEvent};
use thinlane_model::{Boot, SiteId, Span};
use thinlane_session::{Actor, Command, Desired};
use thinlane_wire::api::ErrorBody;
use thinlane_wire::{FromAgent, FromController, GoodbyeReason, Hello};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Channels, Order};
use crate::app::App;
use crate::ca::AgentIdentity;
use crate::core::Live;
use crate::lately::Hearing;
use crate::views;

/// Silences that gateways are told in Welcome.
const KEEPALIVE_IDLE: Span = Span::from_secs(240);
const KEEPALIVE_ARMED: Span = Span::from_secs(5);
/// Frames that may wait for a slow gateway; then it is dropped.
const UNSENT: usize = 512;
/// How long one write may take, and the last words after a goodbye.
const WRITE_TIME: Duration = Duration::from_secs(20);
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Reports that cost an entry of the log and that no session bounds: so many in each minute, or the gateway goes.
const MOST_REPORTS: u32 = 120;
const REPORTS_TIME: Span = Span::from_secs(60);
/// Bytes read at a time: gateways are many and mostly silent.
const CHUNK: usize = 4096;
/// A gateway without work is given a checkpoint to remember this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Serves a gateway's connection, whose certificate has been verified, until it ends.
pub async fn serve<S>(app: App, stream: S, identity: AgentIdentity)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let site = identity.site;
    let serial = identity.serial.clone();
    let look = app.core.read(move |state| {
        let world = state.world();
        let good = world.site_of_certificate(&serial) == Some(site);
        let port = world.site(&site).and_then(|site| site.endpoint.as_ref()).map(|endpoint| endpoint.port());
        let frozen = world.site(&site).is_some_and(|site| site.frozen.is_some());
        (good, port, frozen)
    });
    let Ok((good, direct_port, frozen)) = look.await else { return };
    app.channels.follow_freeze(site, frozen);
    let access = if identity.not_after <= crate::clock::wall() { Access::RenewOnly } else { Access::Full };
    let config = LinkConfig { keepalive_idle: KEEPALIVE_IDLE, keepalive_armed: KEEPALIVE_ARMED, direct_port, access };
    let (read, write) = tokio::io::split(stream);
    let (unsent, waiting) = mpsc::channel(UNSENT);
    let writer = tokio::spawn(write_frames(write, waiting));
    let (conn, orders, desired) = app.channels.join(site);
    let link = ControllerLink::new(config, crate::clock::now());
    let mut line = Connection {
        app: app.clone(),
        site,
        conn,
        identity,
        link,
        orders,
        desired,
        unsent: Some(unsent),
        clocks: BTreeMap::new(),
        hello: None,
        told_size: 0,
        hearing: Hearing::begin(crate::clock::wall()),
        up: false,
        reports: (0, Boot(0)),
    };
    if good {
        line.run(read).await;
    } else {
        line.link.handle_goodbye(GoodbyeReason::Revoked, "this certificate is no longer good", crate::clock::now());
        line.drain();
    }
    line.unsent = None;
    let _ = tokio::time::timeout(LAST_WORDS, writer).await;
    let was_up = line.up;
    if app.channels.leave(site, conn, crate::clock::now()) && was_up {
        tracing::info!(%site, "gateway offline");
        tell_site(&app, site).await;
    }
}

pub(super) struct Connection {
    pub(super) app: App,
    pub(super) site: SiteId,
    conn: ConnId,
    pub(super) identity: AgentIdentity,
    pub(super) link: ControllerLink,
    orders: mpsc::Receiver<Order>,
    desired: watch::Receiver<Option<Desired>>,
    /// `None`: nothing is sent any more.
    unsent: Option<mpsc::Sender<Bytes>>,
    /// Who waits for which ping.
    clocks: BTreeMap<u64, Vec<oneshot::Sender<LinkClock>>>,
    /// Until it is let in.
    hello: Option<Hello>,
    /// The log size that the gateway was told last.
    pub(super) told_size: u64,
    /// What is reported on this connection continues itself; what came on another does not.
    pub(super) hearing: Hearing,
    up: bool,
    /// Reports in the current minute, and when it began.
    reports: (u32, Boot),
}

enum Woken {
    Read(std::io::Result<usize>),
    Order(Option<Order>),
    Desired(bool),
    Time,
    Checkpoint,
}

impl Connection {
    async fn run(&mut self, mut read: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; CHUNK];
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        checkpoint.tick().await;
        while self.unsent.is_some() {
            let now = crate::clock::mono();
            let due = [self.link.poll_timeout(), self.app.channels.machine_due(self.site)].into_iter().flatten().min();
            let pause = due.map_or(Duration::from_secs(3600), |at| now.until(at).to_std());
            let woken = tokio::select! {
                order = self.orders.recv() => Woken::Order(order),
                changed = self.desired.changed() => Woken::Desired(changed.is_ok()),
                read = read.read(&mut buffer) => Woken::Read(read),
                () = tokio::time::sleep(pause) => Woken::Time,
                _ = checkpoint.tick() => Woken::Checkpoint,
            };
            let now = crate::clock::now();
            match woken {
                Woken::Read(Ok(0)) => self.link.handle_closed("the gateway closed the connection", now),
                Woken::Read(Ok(length)) => {
                    self.link.handle_bytes(&buffer[..length], now);
                    if let Some(clock) = self.link.clock() {
                        self.app.channels.heard(self.site, self.conn, clock);
                    }
                }
                Woken::Read(Err(error)) => self.link.handle_closed(&error.to_string(), now),
                Woken::Order(Some(order)) => self.obey(order).await,
                Woken::Order(None) | Woken::Desired(false) => {
                    self.link.handle_closed("this connection does not keep up", now);
                }
                Woken::Desired(true) => self.take_desired(),
                Woken::Time => {
                    self.link.handle_timeout(now);
                    if self.app.channels.machine_timeout(self.site, now) {
                        self.freeze().await;
                    }
                }
                Woken::Checkpoint => self.send_checkpoint().await,
            }
            self.turn().await;
        }
    }

    /// Sends what waits, and deals with what came in; what comes in may make more to send.
    async fn turn(&mut self) {
        loop {
            self.drain();
            let mut events = VecDeque::new();
            while let Some(event) = self.link.poll_event() {
                events.push_back(event);
            }
            if events.is_empty() {
                return;
            }
            for event in events {
                self.event(event).await;
                self.drain();
            }
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.link.poll_effect() {
            match effect {
                LinkEffect::Send(bytes) => {
                    let full = self.unsent.as_ref().is_some_and(|unsent| unsent.try_send(bytes).is_err());
                    if full {
                        tracing::debug!(site = %self.site, "a gateway does not read");
                        self.unsent = None;
                    }
                }
                LinkEffect::Disconnect => self.unsent = None,
            }
        }
    }

    async fn event(&mut self, event: LinkEvent) {
        let now = crate::clock::now();
        match event {
            LinkEvent::Hello(hello) => {
                let cloned = self.app.channels.hello(self.site, self.conn, &hello, now);
                self.hello = Some(hello);
                if cloned {
                    self.freeze().await;
                }
            }
            LinkEvent::Message(frame) if is_report(&frame.message) && !self.may_report(now.mono) => {
                self.link.handle_goodbye(GoodbyeReason::Protocol, "too many reports", now);
            }
            LinkEvent::Message(frame) => self.message(frame).await,
            LinkEvent::Probed { nonce } => {
                if let Some(clock) = self.link.clock() {
                    for waiting in self.clocks.remove(&nonce).unwrap_or_default() {
                        let _ = waiting.send(clock);
                    }
                }
                if self.app.channels.answered(self.site, self.conn, nonce, now) {
                    self.freeze().await;
                }
            }
            LinkEvent::Applied { generation } => {
                tracing::debug!(site = %self.site, generation, "taken over");
                if let Some(known) = self.link.known().cloned() {
                    self.app.channels.applied(self.site, self.conn, known);
                }
            }
            LinkEvent::Diverged { generation } => {
                self.alarm("diverged", format!("the gateway holds another state than generation {generation}")).await;
            }
            LinkEvent::Down { why } => tracing::debug!(site = %self.site, why, "channel closed"),
        }
    }

    /// Whether one more report fits into this minute: a gateway must not be able to fill the log.
    fn may_report(&mut self, now: Boot) -> bool {
        if self.reports.1 + REPORTS_TIME <= now {
            self.reports = (0, now);
        }
        self.reports.0 += 1;
        self.reports.0 <= MOST_REPORTS
    }

    /// Tells the world of a gateway that was let in, and learns what it should have.
    async fn welcome(&mut self) -> Result<Desired, ErrorBody> {
        let site = self.site;
        // An expired gateway is nobody yet.
        let expired = self.identity.not_after <= crate::clock::wall();
        if let (Some(hello), false) = (self.hello.take(), expired) {
            let command = Command::Hello {
                boot: hello.boot,
                version: hello.agent_version,
                backend: Some(hello.backend).filter(|backend| !backend.is_empty()),
            };
            let told = self.app.core.write_surely(move |step| {
                step.command(&Actor::Agent(site), command)?;
                Ok(step.world().desired(&site))
            });
            match told.await {
                Ok(desired) => return Ok(desired),
                // It is told what it should have all the same: what runs goes on, nothing new is granted.
                Err(error) => tracing::warn!(%site, error = %error.error.message, "a hello cannot be logged"),
            }
        }
        self.app.core.read(move |state| state.world().desired(&site)).await
    }

    async fn obey(&mut self, order: Order) {
        let now = crate::clock::now();
        match order {
            Order::Accept { known } => {
                // Marked before it is asked for: what changes from here on comes again.
                self.desired.mark_unchanged();
                match self.welcome().await {
                    Ok(desired) => {
                        self.link.handle_armed(is_watched(&desired), now);
                        self.link.handle_accept(self.app.channels.signed(&desired), known, now);
                    }
                    Err(error) => self.link.handle_goodbye(GoodbyeReason::ShuttingDown, &error.error.message, now),
                }
                if self.link.is_up() {
                    self.up = true;
                    self.app.channels.up(self.site, self.conn);
                    if let Some(clock) = self.link.clock() {
                        self.app.channels.heard(self.site, self.conn, clock);
                    }
                    tracing::info!(site = %self.site, "gateway online");
                    tell_site(&self.app, self.site).await;
                    self.send_checkpoint().await;
                }
            }
            Order::Goodbye { reason, detail } => self.link.handle_goodbye(reason, &detail, now),
            Order::Probe => {
                let nonce = self.link.handle_probe(now);
                self.app.channels.probing(self.site, self.conn, nonce);
            }
            Order::Clock(answer) => {
                let nonce = self.link.handle_probe(now);
                self.clocks.entry(nonce).or_default().push(answer);
                while self.clocks.len() > 64 {
                    self.clocks.pop_first();
                }
            }
        }
    }

    fn take_desired(&mut self) {
        let newest = self.desired.borrow_and_update().clone();
        if let Some(desired) = newest {
            let now = crate::clock::now();
            self.link.handle_armed(is_watched(&desired), now);
            self.link.handle_desired(self.app.channels.signed(&desired), now);
        }
    }

    pub(super) fn send(&mut self, message: &FromController) {
        self.link.handle_send(message, crate::clock::now());
    }

    async fn freeze(&mut self) {
        let site = self.site;
        let reason = "two machines use this gateway's key".to_owned();
        let command = Command::FreezeSite { site, reason };
        let done = self.app.core.write_surely(move |step| step.command(&Actor::System, command)).await;
        if let Err(error) = done {
            tracing::error!(%site, error = %error.error.message, "the freeze cannot be logged");
        }
    }

    pub(super) async fn alarm(&mut self, kind: &'static str, detail: String) {
        let now = crate::clock::now();
        if !self.may_report(now.mono) {
            return self.link.handle_goodbye(GoodbyeReason::Protocol, "too many reports", now);
        }
        let site = self.site;
        let note = thinlane_session::Note::Alarm { site: Some(site), kind: kind.to_owned(), detail };
        if let Err(error) = self.app.core.write_surely(move |step| step.note(&Actor::System, note)).await {
            tracing::error!(%site, kind, error = %error.error.message, "an alarm cannot be logged");
        }
    }
}

/// Whether a message costs an entry of the log though no session of ours is behind it. What is doubtful in others
/// is counted where the alarm is raised.
fn is_report(message: &FromAgent) -> bool {
    matches!(message, FromAgent::Alarm(_) | FromAgent::Status(_) | FromAgent::Renew(_))
}

/// Whether a dead channel must be known soon: a lane is open, or its closing record is awaited.
fn is_watched(desired: &Desired) -> bool {
    !desired.grants.is_empty() || !desired.ending.is_empty()
}

/// Tells those who watch that a site's connection came or went.
async fn tell_site(app: &App, site: SiteId) {
    let channels: Channels = app.channels.clone();
    let view: Result<_, ErrorBody> = app.core.read(move |state| views::site(state.world(), &channels, &site)).await;
    if let Ok(Some(view)) = view {
        let event = thinlane_wire::api::LiveEvent::Site { site: Box::new(view) };
        app.core.tell(Live { event, owner: None, session: None, request: None });
    }
}

/// Writes frames until there are no more, then closes.
async fn write_frames(mut write: impl AsyncWrite + Unpin, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = waiting.recv().await {
        let written = tokio::time::timeout(WRITE_TIME, async {
            write.write_all(&bytes).await?;
            if waiting.is_empty() { write.flush().await } else { Ok(()) }
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, write.shutdown()).await;
}
