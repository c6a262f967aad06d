//! The near side: programs on this machine that connect to the lane's port on 127.0.0.1.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::forward::{Hint, Shared};
use crate::stack::{End, Id, Stack};

/// Bytes that one connection moves before others have their turn.
const TURN: usize = 256 * 1024;
/// The longest UDP payload.
const LONGEST: usize = 65_507;
/// After an error that is not one connection's own.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is told when a connection's wish has come true.
pub type Bells = Mutex<std::collections::BTreeMap<Id, Arc<Notify>>>;

/// Takes connections until the lane closes, which resets them all.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut carriers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => begin(Local { stream, clean: false }, &shared, &mut carriers),
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            _ = carriers.join_next(), if !carriers.is_empty() => {}
            () = shared.closing.notified() => return carriers.shutdown().await,
        }
    }
}

fn begin(local: Local, shared: &Arc<Shared>, carriers: &mut JoinSet<()>) {
    // Without it the tool's small writes would wait for one another on loopback.
    let _ = local.stream.set_nodelay(true);
    let begun = shared.with_stack(|stack, now| stack.connect(now));
    match begun {
        Some(Ok(id)) => {
            shared.wake.notify_one();
            carriers.spawn(carry(local, shared.clone(), id));
        }
        // Dropped, thus reset.
        Some(Err(_)) => shared.hint(Hint::Full),
        None => {}
    }
}

/// A local connection; dropped without more ado it ends with a reset.
struct Local {
    stream: TcpStream,
    clean: bool,
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.clean {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// What is known of a local connection.
#[derive(Default)]
struct Manner {
    /// It will write no more.
    finished: bool,
    /// It was told that the asset will write no more.
    told: bool,
}

/// What one turn found.
struct Turn {
    moved: bool,
    /// The local side is to be told that the asset has finished.
    tell: bool,
    wants_read: bool,
    wants_write: bool,
    end: Option<End>,
}

/// Carries bytes both ways until the connection's end.
async fn carry(mut local: Local, shared: Arc<Shared>, id: Id) {
    let bell = Arc::new(Notify::new());
    shared.bells.lock().unwrap_or_else(PoisonError::into_inner).insert(id, bell.clone());
    let mut manner = Manner::default();
    let end = loop {
        let Some(turn) = shared.with_stack(|stack, _| turn(stack, id, &local.stream, &mut manner)) else {
            break End::Reset;
        };
        if turn.moved {
            shared.wake.notify_one();
        }
        if turn.tell {
            manner.told = true;
            if local.stream.shutdown().await.is_err() {
                break End::Reset;
            }
        }
        match turn.end {
            // A local side that was told of the asset's end may still write into the void, as after any FIN.
            Some(End::Finished) if manner.told => break End::Finished,
            Some(End::Finished) => {}
            Some(end) => break end,
            None => {}
        }
        if turn.moved || turn.tell {
            tokio::task::yield_now().await;
            continue;
        }
        // A reset shows as an error, whether or not bytes are wanted.
        let mut interest = Interest::ERROR;
        if turn.wants_read {
            interest |= Interest::READABLE;
        }
        if turn.wants_write {
            interest |= Interest::WRITABLE;
        }
        tokio::select! {
            ready = local.stream.ready(interest) => match ready {
                Ok(ready) if ready.is_error() => break End::Reset,
                Ok(_) => {}
                Err(_) => break End::Reset,
            },
            () = bell.notified() => {}
        }
    };
    local.clean = end == End::Finished;
    match end {
        End::Refused => shared.hint(Hint::Refused),
        End::Unanswered => shared.hint(Hint::Unanswered),
        End::Silent => shared.hint(Hint::Silent),
        End::Finished | End::Reset => {}
    }
    shared.bells.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    shared.with_stack(|stack, _| stack.forget(id));
    shared.wake.notify_one();
}

/// Moves what can be moved without waiting.
fn turn(stack: &mut Stack, id: Id, stream: &TcpStream, manner: &mut Manner) -> Turn {
    let mut turn = Turn { moved: false, tell: false, wants_read: false, wants_write: false, end: None };
    let mut left = TURN;
    while left > 0 {
        let Some(wrote) = stack.read(id, |bytes| told(stream.try_write(bytes))) else { break };
        match wrote {
            Ok(count @ 1..) => {
                turn.moved = true;
                left = left.saturating_sub(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                turn.wants_write = true;
                break;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return broken(stack, id, turn),
        }
    }
    let mut left = TURN;
    while left > 0 && !manner.finished {
        let Some(read) = stack.write(id, |room| told(stream.try_read(room))) else { break };
        match read {
            Ok(0) => {
                manner.finished = true;
                turn.moved = true;
                stack.finish(id);
            }
            Ok(count) => {
                turn.moved = true;
                left = left.saturating_sub(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                turn.wants_read = true;
                break;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return broken(stack, id, turn),
        }
    }
    let pulse = stack.pulse(id);
    turn.tell = pulse.finished && !manner.told;
    // What came before a reset is delivered as far as the local side takes it at once.
    turn.end = pulse.end.filter(|end| !pulse.readable || *end != End::Finished);
    stack.await_change(id, !turn.wants_write, !turn.wants_read && !manner.finished);
    turn
}

/// The local side broke off: so does the connection to the asset.
fn broken(stack: &mut Stack, id: Id, turn: Turn) -> Turn {
    stack.abort(id);
    Turn { moved: true, end: Some(End::Reset), ..turn }
}

/// A result, and how many bytes of the buffer it used.
fn told(result: io::Result<usize>) -> (usize, io::Result<usize>) {
    (result.as_ref().copied().unwrap_or(0), result)
}

/// Takes local datagrams until the lane closes.
pub async fn receive(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut room = vec![0; LONGEST + 1];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut room) => received,
            () = shared.closing.notified() => return,
        };
        match received {
            Ok((length, from)) => {
                shared.with_inner(|inner, now| inner.send(from, &room[..length], now));
                shared.wake.notify_one();
            }
            // Windows reports here that an earlier answer found nobody.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => tokio::task::yield_now().await,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Gives a local program its answer; one that does not take it loses it, as on any network.
pub fn answer(socket: &UdpSocket, to: SocketAddr, payload: &[u8]) {
    let _ = socket.try_send_to(payload, to);
}
