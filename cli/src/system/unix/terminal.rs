//! termios, SIGWINCH, and a descriptor of the terminal's own.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long the reading thread waits before it looks whether it is still wanted, in milliseconds.
const LOOK: u8 = 100;

/// Whether letters beyond ASCII are shown, whatever the environment says.
pub const UNICODE: bool = false;

/// Whether colours and moves of the cursor are understood.
pub fn understands_codes() -> bool {
    true
}

/// A terminal that shows nothing of what is typed, and hands Ctrl-C over as a byte, so that it is never left like this.
pub struct Hidden(Termios);

impl Hidden {
    pub fn begin() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        hidden.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        hidden.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nobody to tell, and no better state to leave the terminal in.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// What is typed, byte by byte.
pub struct Keyboard(File);

impl Keyboard {
    /// A descriptor of its own: nothing is read ahead into a buffer that nobody looks at.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// Hands over what is typed until the terminal ends or nobody listens; blocks.
    pub fn read(mut self, to: &mpsc::Sender<Vec<u8>>) {
        let mut bytes = [0; 1024];
        while !to.is_closed() {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(LOOK)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => return,
            }
            match self.0.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    if to.blocking_send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Tells when the terminal's size has changed.
pub struct Resized(Signal);

impl Resized {
    pub fn watch() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Self)
    }

    /// Waits for the next change; `None`: there will be none.
    pub async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}
