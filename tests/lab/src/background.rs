//! A command that runs while the test goes on; ended by its process group when dropped.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::{Output, Shell, wait_until};

/// A running command.
pub struct Background {
    child: Child,
    words: Vec<String>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    let mut pipe = pipe?;
    Some(std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = pipe.read_to_end(&mut all);
        all
    }))
}

impl Background {
    /// Starts it in a process group of its own.
    pub fn start(shell: Shell) -> Result<Self> {
        let (mut command, words) = shell.into_parts();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Ok(Self { child, words, stdout, stderr })
    }

    /// Sends a signal to it and all that it started.
    pub fn signal(&self, name: &str) -> Result<()> {
        let group = format!("-{}", self.child.id());
        Shell::new("kill").args(&[&format!("-{name}"), "--", &group]).run()?;
        Ok(())
    }

    /// Waits for its end, at most this long.
    pub fn finish(mut self, millis: u64) -> Result<Output> {
        let words = self.words.clone();
        wait_until(millis, &format!("{words:?} has ended"), || Ok(self.child.try_wait()?.is_some()))?;
        let status = self.child.wait()?;
        let read = |pipe: Option<JoinHandle<Vec<u8>>>| pipe.and_then(|pipe| pipe.join().ok()).unwrap_or_default();
        let done = std::process::Output { status, stdout: read(self.stdout.take()), stderr: read(self.stderr.take()) };
        Ok(Output::new(done, words))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal("KILL");
            let _ = self.child.wait();
        }
    }
}
