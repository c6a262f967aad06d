//! Two network namespaces with a cable between them, and work done inside of one.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// The addresses on the cable and inside of the tunnel, of the initiating end and of the other.
pub const OUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 90, 0, 1), Ipv4Addr::new(10, 90, 0, 2)];
pub const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 91, 0, 1), Ipv4Addr::new(10, 92, 0, 1)];

/// Namespaces, interfaces and files of one run begin with this, so that the script can clear away what a killed run left.
pub fn tag() -> String {
    std::env::var("THINLANE_BENCH_TAG").unwrap_or_else(|_| format!("wb{}", std::process::id()))
}

/// Two hosts and a 1 500-byte link between them; they go when this is dropped.
pub struct Ground {
    spaces: [String; 2],
}

impl Ground {
    /// `number` tells the grounds of one run apart.
    pub fn new(number: usize) -> Result<Self> {
        let spaces = ["a", "b"].map(|end| format!("{}{number}{end}", tag()));
        let ground = Self { spaces };
        let [a, b] = &ground.spaces;
        shell(&format!(
            "ip netns add {a}; ip netns add {b}; ip -n {a} link set lo up; ip -n {b} link set lo up
             ip link add wan netns {a} mtu 1500 type veth peer name wan netns {b} mtu 1500
             ip -n {a} addr add {}/24 dev wan; ip -n {b} addr add {}/24 dev wan
             ip -n {a} link set wan up; ip -n {b} link set wan up",
            OUTER[0], OUTER[1]
        ))?;
        Ok(ground)
    }

    /// The name of the initiating end's namespace (0) or of the other's (1).
    pub fn space(&self, end: usize) -> &str {
        &self.spaces[end]
    }

    /// A command inside, on one core where one is given.
    pub fn command(&self, end: usize, core: Option<usize>, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.space(end)]);
        if let Some(core) = core {
            command.args(["taskset", "-c", &core.to_string()]);
        }
        command.args(words);
        command
    }

    /// Does something inside, on a thread of its own.
    pub fn within<R: Send + 'static>(&self, end: usize, act: impl FnOnce() -> R + Send + 'static) -> Result<R> {
        within(self.space(end), act)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for space in &self.spaces {
            let _ = Command::new("ip").args(["netns", "del", space]).stderr(Stdio::null()).status();
        }
    }
}

/// Does something in a namespace, on a thread of its own.
pub fn within<R: Send + 'static>(space: &str, act: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    let file = File::open(Path::new("/run/netns").join(space)).with_context(|| format!("the namespace {space}"))?;
    let thread = thread::spawn(move || -> Result<R> {
        setns(file, CloneFlags::CLONE_NEWNET).context("entering a namespace needs root")?;
        Ok(act())
    });
    thread.join().map_err(|_| anyhow::anyhow!("a thread in {} panicked", "a namespace"))?
}

/// Runs lines of shell, which must all succeed.
pub fn shell(lines: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", lines]).output()?;
    if !output.status.success() {
        bail!("{lines}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until something is so; says whether it became so.
pub fn until(most: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + most;
    while !so() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A directory for keys, 0700, gone with this.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = PathBuf::from(format!("/run/{}-{name}", tag()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
