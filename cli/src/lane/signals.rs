//! The signals that end a lane in good order.

use crate::failure::{Exit, Failure, Result};
pub use crate::system::Signal;
use crate::system::signals::Caught;

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
pub struct Signals(Caught);

impl Signals {
    pub fn catch() -> Result<Signals> {
        Caught::begin().map(Self).map_err(|error| Failure::failed(format!("catch signals: {error}")))
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        self.0.next().await
    }

    /// Does `work`, unless a signal comes first.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> std::result::Result<T, Signal> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.next() => Err(signal),
        }
    }
}
