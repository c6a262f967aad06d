//! The signals that end a lane in good order.

use tokio::signal::unix::{self, SignalKind};

use crate::failure::{Exit, Failure, Result};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    HangUp,
}

impl Signal {
    /// As shells report a process that ended by it: 128 and its number.
    pub fn exit(self) -> Exit {
        Exit::Other(match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
            Signal::HangUp => 129,
        })
    }
}

/// Catches them from its making on.
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    pub fn catch() -> Result<Signals> {
        let catch = |kind| unix::signal(kind).map_err(|error| Failure::failed(format!("catch signals: {error}")));
        Ok(Signals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hang_up.recv() => Signal::HangUp,
        }
    }

    /// Does `work`, unless a signal comes first.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> std::result::Result<T, Signal> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.next() => Err(signal),
        }
    }
}
