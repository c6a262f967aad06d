//! Ctrl-C, Ctrl-Break, the console's and the person's leave.

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown,
};

use crate::system::Signal;

/// Catches them from its making on. The system waits some five seconds after the last three of them.
pub struct Caught {
    interrupt: CtrlC,
    terminate: CtrlBreak,
    closed: CtrlClose,
    logged_off: CtrlLogoff,
    shut_down: CtrlShutdown,
}

impl Caught {
    pub fn begin() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            terminate: ctrl_break()?,
            closed: ctrl_close()?,
            logged_off: ctrl_logoff()?,
            shut_down: ctrl_shutdown()?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.closed.recv() => Signal::HangUp,
            _ = self.logged_off.recv() => Signal::HangUp,
            _ = self.shut_down.recv() => Signal::Terminate,
        }
    }
}
