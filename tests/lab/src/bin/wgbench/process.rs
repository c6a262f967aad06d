//! A process under test: started, watched through /proc, ended by its own id.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ground::until;

/// A running process; ended when dropped.
pub struct Process {
    child: Child,
    /// Handshakes that it told of, line by line (`wgend` does).
    handshakes: Arc<AtomicUsize>,
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Seconds on a core, all living threads.
    pub seconds: f64,
    /// Of the clock ticks seen, those in user mode and those in the kernel.
    pub user: u64,
    pub system: u64,
}

impl Process {
    /// Starts it with its output going nowhere, or to standard error where `WGBENCH_SHOW` is set.
    pub fn start(mut command: Command) -> Result<Self> {
        let err = if std::env::var_os("WGBENCH_SHOW").is_some() { Stdio::inherit() } else { Stdio::null() };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self::of(child))
    }

    fn of(mut child: Child) -> Self {
        let handshakes = Arc::new(AtomicUsize::new(0));
        let count = handshakes.clone();
        if let Some(out) = child.stdout.take() {
            // Ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if line.contains("\"handshake\"") {
                        count.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        Self { child, handshakes }
    }

    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Relaxed)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.id())).unwrap_or_default()
    }

    fn tasks(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id()));
        let read = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join(name)).ok();
        tasks.into_iter().flatten().flatten().filter_map(read).collect()
    }

    pub fn cpu(&self) -> Cpu {
        let nanos = |text: &String| text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let stat = self.file("stat");
        // What stands in brackets may hold spaces; utime and stime are the 12th and 13th after it.
        let mut after = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
        let mut tick = || after.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let seconds = self.tasks("schedstat").iter().map(nanos).sum::<u64>() as f64 / 1e9;
        Cpu { seconds, user: tick(), system: tick() }
    }

    fn status(text: &str, name: &str) -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        Self::status(&self.file("status"), "VmRSS:").unwrap_or(0)
    }

    /// How often its threads waited for something and were woken.
    pub fn waits(&self) -> u64 {
        self.tasks("status").iter().filter_map(|text| Self::status(text, "voluntary_ctxt_switches:")).sum()
    }

    /// Whether it listens on a TCP port.
    pub fn listens(&self, port: u16) -> bool {
        let ending = format!(":{port:04X}");
        let open = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().is_some_and(|local| local.ends_with(&ending));
            local && words.nth(1) == Some("0A")
        };
        ["net/tcp", "net/tcp6"].iter().any(|name| self.file(name).lines().any(open))
    }

    /// Waits for its end, and ends it if it does not come.
    pub fn finish(&mut self, most: Duration) -> bool {
        let ended = until(most, || !self.runs());
        self.stop();
        ended
    }

    fn stop(&mut self) {
        if !self.runs() {
            return;
        }
        let _ = kill(Pid::from_raw(self.id() as i32), Signal::SIGTERM);
        if !until(Duration::from_millis(1500), || !self.runs()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
