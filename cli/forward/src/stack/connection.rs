//! One connection: what the local side may do next, and how it ended.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};

use super::{CONNECTING, SILENT};

/// Room for this part of the buffer is worth waking somebody up for.
const WORTHWHILE: usize = 4;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides finished, and everything was delivered.
    Finished,
    /// The asset answered the first packet with a reset.
    Refused,
    /// One side broke it off.
    Reset,
    /// The asset did not answer the first packet.
    Unanswered,
    /// The asset fell silent while an answer was due.
    Silent,
}

/// How a connection stands, for whoever carries its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// There is room for bytes to the asset.
    pub writable: bool,
    /// There are bytes from the asset.
    pub readable: bool,
    /// The asset will send no more, and all that it sent was read.
    pub finished: bool,
    /// Nothing more will happen once what is readable was read.
    pub end: Option<End>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) handle: SocketHandle,
    pub(super) port: u16,
    /// It has large buffers.
    pub(super) large: bool,
    /// When the asset was last heard on it, or else when it began.
    pub(super) heard: Instant,
    /// What its carrier waits for: bytes or an end, room.
    pub(super) awaits: Option<(bool, bool)>,
    /// Since when an answer of the asset's is due.
    due_since: Option<Instant>,
    established: bool,
    /// The local side has finished.
    finished: bool,
    asset_finished: bool,
    /// Why we ended it.
    ended: Option<End>,
}

impl Connection {
    pub(super) fn new(handle: SocketHandle, port: u16, large: bool, now: Instant) -> Self {
        Self {
            handle,
            port,
            large,
            heard: now,
            awaits: None,
            due_since: Some(now),
            established: false,
            finished: false,
            asset_finished: false,
            ended: None,
        }
    }

    /// Learns from what its socket has just become.
    pub(super) fn observe(&mut self, state: State) {
        self.established |= !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived);
        self.asset_finished |= matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    }

    /// Gives an asset up that has owed an answer for too long.
    pub(super) fn judge(&mut self, socket: &mut Socket<'_>, now: Instant) {
        self.observe(socket.state());
        let due = match socket.state() {
            State::Closed | State::TimeWait | State::Listen => false,
            State::Established | State::CloseWait => socket.send_queue() > 0,
            // It has to answer our SYN or our FIN. FIN-WAIT-2 waits for a FIN of its own, which may take its time; but
            // some devices have two places for connections, and one that forgot us must get its place back.
            _ => true,
        };
        self.due_since = due.then(|| self.due_since.unwrap_or(now));
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            let why = if self.established { End::Silent } else { End::Unanswered };
            self.abort(socket, why);
            self.due_since = None;
        }
    }

    /// When the asset is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.due_since?.max(self.heard);
        Some(since + self.patience())
    }

    fn patience(&self) -> Duration {
        if self.established { SILENT } else { CONNECTING }
    }

    pub(super) fn finish(&mut self, socket: &mut Socket<'_>) {
        self.observe(socket.state());
        self.finished = true;
        socket.close();
    }

    pub(super) fn abort(&mut self, socket: &mut Socket<'_>, why: End) {
        if socket.state() != State::Closed {
            socket.abort();
            self.ended.get_or_insert(why);
        }
    }

    pub(super) fn pulse(&self, socket: &Socket<'_>) -> Pulse {
        let readable = socket.can_recv() && self.ended.is_none();
        let asset_finished = self.asset_finished
            || matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        Pulse {
            writable: socket.can_send(),
            readable,
            finished: asset_finished && !readable,
            end: self.end(socket, asset_finished),
        }
    }

    fn end(&self, socket: &Socket<'_>, asset_finished: bool) -> Option<End> {
        match (socket.state(), self.ended) {
            (_, Some(why)) => Some(why),
            (State::TimeWait, None) => Some(End::Finished),
            // Out of LAST-ACK. A reset that came instead of the last acknowledgement leaves something unsaid.
            (State::Closed, None) if asset_finished && self.finished && socket.send_queue() == 0 => Some(End::Finished),
            (State::Closed, None) if self.established => Some(End::Reset),
            (State::Closed, None) => Some(End::Refused),
            _ => None,
        }
    }

    /// Whether what its carrier waits for has come true.
    pub(super) fn is_awaited(&self, socket: &Socket<'_>) -> bool {
        let Some((readable, writable)) = self.awaits else { return false };
        let pulse = self.pulse(socket);
        let room = socket.send_capacity() - socket.send_queue();
        pulse.end.is_some()
            || (readable && (pulse.readable || pulse.finished))
            || (writable && pulse.writable && room >= socket.send_capacity() / WORTHWHILE)
    }
}
