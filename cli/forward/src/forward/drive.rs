//! The task that drives the tunnel: datagrams in, packets through, datagrams out, and time.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use smoltcp::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::{Event, Hint, Shared};
use crate::local;
use crate::path::Path;
use crate::told::Told;
use crate::tunnel::{Heard, Tunnel};

/// Datagrams that are taken, and packets that are sent, before the others have their turn.
const BATCH: usize = 64;
/// How often it is asked whether this machine's network has changed.
const LOOK: Duration = Duration::from_secs(2);
/// A sleep is at least this long, whatever wants to be done at once and cannot.
const LEAST: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(1);
/// A sleep is at most this long.
const MOST: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(5);
/// Connections repeat what did not arrive at most so often.
const REPEAT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(2);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Everything that the task owns.
pub(super) struct Driver {
    tunnel: Tunnel,
    path: Path,
    shared: Arc<Shared>,
    /// Where UDP answers go.
    answers: Option<Arc<UdpSocket>>,
    /// Datagrams that the socket did not take yet.
    outbox: VecDeque<Vec<u8>>,
    room: Vec<u8>,
    used: Vec<Vec<u8>>,
    handshakes: u64,
    /// What was said of the way; nothing before the first handshake.
    told: Option<Told>,
    /// It was said that the gateway does not answer.
    away: bool,
    /// When connections last repeated what had not arrived.
    repeated: Instant,
}

impl Driver {
    pub(super) fn new(tunnel: Tunnel, path: Path, shared: Arc<Shared>, answers: Option<Arc<UdpSocket>>) -> Self {
        Self {
            tunnel,
            path,
            shared,
            answers,
            outbox: VecDeque::new(),
            room: vec![0; 65_536],
            used: Vec::new(),
            handshakes: 0,
            told: None,
            away: false,
            repeated: Instant::ZERO,
        }
    }

    /// Runs until it is told to stop; then says the last words.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = self.shared.now();
            self.on_time(now);
            let more = self.send(now);
            let pause = if more { smoltcp::time::Duration::ZERO } else { self.pause() };
            let shared = self.shared.clone();
            let blocked = !self.outbox.is_empty();
            tokio::select! {
                told = &mut stop => {
                    if told.is_ok() {
                        self.last_words().await;
                    }
                    return;
                }
                _ = self.path.socket().readable() => self.receive(),
                _ = self.path.socket().writable(), if blocked => {}
                () = shared.wake.notified(), if !blocked => {}
                () = tokio::time::sleep(pause.into()) => {}
                _ = look.tick() => {
                    if self.path.has_moved() {
                        self.shared.hint(Hint::Moved);
                        self.tunnel.hurry();
                    }
                }
            }
        }
    }

    /// How long nothing is due.
    fn pause(&mut self) -> smoltcp::time::Duration {
        let now = self.shared.now();
        let tunnel = self.tunnel.due(now);
        // Packets wait for a key.
        let live = self.tunnel.is_live(now);
        let inner = self.shared.with_inner(|inner, now| if live { inner.due(now) } else { None });
        let due = inner.map_or(tunnel, |inner| inner.min(tunnel));
        let pause = if due > now { due - now } else { LEAST };
        pause.clamp(LEAST, MOST)
    }

    fn on_time(&mut self, now: Instant) {
        let outbox = &mut self.outbox;
        self.tunnel.tick(now, &mut |message| keep(outbox, message));
        if self.tunnel.doubts(now) {
            let from = self.path.way();
            let other = self.path.try_another();
            self.say_silent(from);
            if other {
                self.tunnel.hurry();
                self.on_time(now);
            }
        }
    }

    /// The gateway did not answer at a way, and is looked for elsewhere.
    fn say_silent(&mut self, from: usize) {
        let to = self.path.way();
        self.shared.way.store(to, Relaxed);
        // Before the first answer whoever waits for it says so.
        let Some(told) = &mut self.told else { return };
        match told.tries(from, to) {
            Some(news) => self.shared.tell(Event::Way(news)),
            // It is not where it was said to be looked for, either.
            None if !std::mem::replace(&mut self.away, true) => self.shared.hint(Hint::Away),
            None => {}
        }
    }

    /// The gateway answers.
    fn say_heard(&mut self) {
        let at = self.path.way();
        self.shared.way.store(at, Relaxed);
        let away = std::mem::take(&mut self.away);
        match self.told.get_or_insert_with(|| Told::new(at)).heard(at) {
            Some(news) => self.shared.tell(Event::Way(news)),
            None if away => self.shared.hint(Hint::Back),
            None => {}
        }
    }

    /// Sends what the tunnel and the lane have to say; `true`: there is more.
    fn send(&mut self, now: Instant) -> bool {
        let mut sent = 0;
        if !self.flush() {
            return false;
        }
        let live = self.tunnel.is_live(now);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let used = &mut self.used;
            self.shared.with_inner(|inner, now| {
                used.drain(..).for_each(|packet| inner.recycle(packet));
                inner.poll(now);
                while live && batch.len() < BATCH {
                    let Some(packet) = inner.packet() else { break };
                    batch.push(packet);
                }
            });
            if batch.is_empty() {
                break;
            }
            sent += batch.len();
            for packet in batch.drain(..) {
                let outbox = &mut self.outbox;
                self.tunnel.seal(&packet, now, &mut |message| keep(outbox, message));
                self.used.push(packet);
            }
            if !self.flush() || sent >= BATCH {
                break;
            }
        }
        self.ring();
        sent >= BATCH && self.outbox.is_empty()
    }

    /// Wakes the connections that can go on.
    fn ring(&self) {
        let bells = self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.with_stack(|stack, _| {
            stack.awake(|id| {
                if let Some(bell) = bells.get(&id) {
                    bell.notify_one();
                }
            });
        });
    }

    /// Hands datagrams to the socket; `false`: it takes no more now.
    fn flush(&mut self) -> bool {
        let to = self.path.to();
        while let Some(datagram) = self.outbox.pop_front() {
            match self.path.socket().try_send_to(&datagram, to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.outbox.push_front(datagram);
                    return false;
                }
                // Lost, as anything may be: no network now, or a firewall. What matters is sent again.
                Err(error) => tracing::trace!(%error, "datagram not sent"),
                Ok(_) => {}
            }
        }
        true
    }

    /// Takes what has arrived.
    fn receive(&mut self) {
        let mut packets: Vec<Vec<u8>> = Vec::new();
        for _ in 0..BATCH {
            match self.path.socket().try_recv_from(&mut self.room) {
                Ok((length, from)) => self.open(length, from, &mut packets),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Windows reports here that an earlier datagram found nobody.
                Err(_) => {}
            }
        }
        if packets.is_empty() {
            return;
        }
        let answers = self.answers.as_deref();
        let spare = &mut self.used;
        self.shared.with_inner(|inner, now| {
            for packet in packets {
                if let (Some((to, payload)), Some(socket)) = (inner.take(&packet, now), answers) {
                    local::answer(socket, to, &payload);
                }
                spare.push(packet);
            }
        });
    }

    fn open(&mut self, length: usize, from: SocketAddr, packets: &mut Vec<Vec<u8>>) {
        let now = self.shared.now();
        let missed = self.tunnel.misses(now);
        let outbox = &mut self.outbox;
        let heard = self.tunnel.open(&self.room[..length], from.ip(), now, &mut |message| keep(outbox, message));
        match heard {
            Heard::Nothing => return,
            Heard::Peer => {}
            Heard::Packet(packet) => {
                let mut copy = self.used.pop().unwrap_or_default();
                copy.clear();
                copy.extend_from_slice(packet);
                packets.push(copy);
            }
        }
        self.path.heard(from);
        self.say_heard();
        // It may hear us again, too; where it does not, this is heard of it over and over.
        if missed && now >= self.repeated + REPEAT {
            self.repeated = now;
            self.shared.with_stack(|stack, _| stack.repeat());
        }
        if self.tunnel.handshakes() > self.handshakes {
            self.handshakes = self.tunnel.handshakes();
            self.shared.tell(Event::Handshake);
        }
    }

    /// Resets what is connected, so that the asset has its places back.
    async fn last_words(mut self) {
        self.shared.with_stack(|stack, _| stack.abort_all());
        let speak = async {
            while self.send(self.shared.now()) || !self.outbox.is_empty() {
                if self.path.socket().writable().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, speak).await;
    }
}

/// Keeps a datagram until the socket takes it; more than a burst is not kept.
fn keep(outbox: &mut VecDeque<Vec<u8>>, message: &[u8]) {
    if outbox.len() < 4 * BATCH {
        outbox.push_back(message.to_vec());
    }
}
