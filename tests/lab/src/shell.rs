//! Running a command to its end, within a bound.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A command to run; nothing happens until [`Shell::run`] or [`crate::Background::start`].
pub struct Shell {
    command: Command,
    words: Vec<String>,
    input: Option<String>,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; 128 + signal where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    words: Vec<String>,
}

/// Wall clock in milliseconds, as the device's log has it.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as f64 / 1000.0
}

/// Asks every 20 ms until it is so, for at most `millis`.
pub fn wait_until(millis: u64, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + Duration::from_millis(millis);
    loop {
        if so()? {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("after {millis} ms it is still not so that {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Shell {
    pub fn new(program: impl AsRef<std::ffi::OsStr>) -> Self {
        let words = vec![program.as_ref().to_string_lossy().into_owned()];
        Self { command: Command::new(program), words, input: None }
    }

    pub fn args<S: AsRef<str>>(mut self, args: &[S]) -> Self {
        for arg in args {
            self.command.arg(arg.as_ref());
            self.words.push(arg.as_ref().to_owned());
        }
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads on standard input.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    pub(crate) fn into_parts(self) -> (Command, Vec<String>) {
        (self.command, self.words)
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Result<Output> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {:?}", self.words))?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), self.input.take()) {
            use std::io::Write;
            // A program that does not read its input is no failure here.
            let _ = pipe.write_all(text.as_bytes());
        }
        let done = child.wait_with_output()?;
        Ok(Output::new(done, self.words))
    }
}

impl Output {
    pub(crate) fn new(done: std::process::Output, words: Vec<String>) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: done.status.code().unwrap_or_else(|| 128 + done.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            words,
        }
    }

    /// It must have succeeded.
    pub fn good(self) -> Result<Self> {
        self.exits(0)
    }

    /// It must have ended with this exit code.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code == code {
            return Ok(self);
        }
        bail!(
            "{:?} exited with {}, not {code}\nstdout: {}\nstderr: {}",
            self.words,
            self.code,
            self.stdout,
            self.stderr
        )
    }

    /// It must say this, on either stream.
    pub fn says(self, text: &str) -> Result<Self> {
        if self.stdout.contains(text) || self.stderr.contains(text) {
            return Ok(self);
        }
        bail!("{:?} does not say {text:?}\nstdout: {}\nstderr: {}", self.words, self.stdout, self.stderr)
    }

    /// The lines of its output that are JSON.
    pub fn lines_json(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
