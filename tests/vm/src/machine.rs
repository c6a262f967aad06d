//! The emulated machine: boots, runs programs in turn, and tells over its serial line what came of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{Image, Kernel};

/// Modules that are there from the start.
pub(crate) const MODULES: &[&str] = &[
    "nf_tables",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_connlimit",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_reject_inet",
    "nf_conntrack_netlink",
    "nfnetlink_log",
    "nft_objref",
    "nft_fib_inet",
    "nf_flow_table",
    "nf_flow_table_inet",
    "nft_flow_offload",
    "veth",
    "dummy",
    "tun",
    "udp_diag",
    "tcp_diag",
];
/// Modules that the kernel itself asks for when somebody wants a WireGuard interface.
const ON_DEMAND: &[&str] = &["wireguard"];
/// Two nanoseconds for each instruction, none for waiting: whoever waits is at the end of it at once, and a machine that is
/// busy with other things cannot make this one late (docs/devel/tcg-icount.rst in QEMU's sources).
/// Its clock is told so that it asks nothing else.
const STEADY: &[&str] = &["-icount", "shift=1,sleep=off", "-rtc", "clock=vm"];
const STEADY_CLOCK: &str = "tsc=reliable clocksource=tsc";
/// Megabytes.
const MEMORY: &str = "512";
/// What busybox stands in for; everything else is the real tool.
const APPLETS: &[&str] = &[
    "mount", "mkdir", "insmod", "poweroff", "cat", "cut", "grep", "sleep", "sysctl", "true", "false", "ls", "cp",
    "sed", "date", "dmesg", "mv", "rmmod", "ping",
];
/// The real tools that tests call. A shell of busybox would prefer its own `ip`.
const TOOLS: &[&str] = &["sh", "ip", "nft", "ss", "wg", "conntrack"];

/// Something to run in the machine.
#[derive(Debug, Clone)]
pub struct Program {
    pub label: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub label: String,
    pub exit: i32,
    pub output: String,
}

impl Outcome {
    /// The tests that a test program says to have passed.
    pub fn passed(&self) -> Vec<&str> {
        let lines = self.output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
        lines.collect()
    }
}

/// A machine that is ready to boot.
#[derive(Debug)]
pub struct Machine {
    kernel: PathBuf,
    image: PathBuf,
    labels: Vec<String>,
    steady: bool,
}

impl Machine {
    /// Writes the image into `cache`. `files` are further programs, at their own places.
    pub fn build(cache: &Path, kernel: &Kernel, programs: &[Program], files: &[PathBuf]) -> Result<Self> {
        let mut image = Image::new();
        image.program(Path::new("/bin/busybox")).context("busybox-static is not installed")?;
        for applet in APPLETS {
            image.link(&format!("/bin/{applet}"), "busybox");
        }
        for tool in TOOLS {
            image.tool(tool)?;
        }
        for path in programs.iter().map(|program| &program.path).chain(files) {
            image.program(path)?;
        }
        let now = modules(&mut image, kernel, MODULES)?;
        let later = modules(&mut image, kernel, ON_DEMAND)?;
        // The kernel calls it with the alias of what it wants.
        let load = "case \"$*\" in *wireguard) exec 2>/dev/null; for m in ";
        image.file("/sbin/modprobe", format!("#!/bin/sh\n{load}{later}; do insmod $m; done;; *) exit 1;; esac\n"));
        image.file("/etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n");
        image.file("/etc/hosts", "127.0.0.1 localhost\n");
        image.file("/etc/nsswitch.conf", "hosts: files\n");
        image.file("/init", init(&now, programs));
        let path = cache.join(format!("image-{}.cpio", std::process::id()));
        std::fs::write(&path, image.archive()).with_context(|| format!("cannot write {}", path.display()))?;
        let labels = programs.iter().map(|program| program.label.clone()).collect();
        Ok(Self { kernel: kernel.image.clone(), image: path, labels, steady: false })
    }

    /// Its time passes with the instructions that it executes, not with ours: what is measured in it says nothing of speed,
    /// and every wait is free.
    pub fn steady(mut self) -> Self {
        self.steady = true;
        self
    }

    /// Boots, runs everything and powers off; gives up after `most`, or when the machine ends early.
    pub fn run(&self, most: Duration) -> Result<Vec<Outcome>> {
        let serial = self.image.with_extension("serial");
        let log = std::fs::File::create(&serial).context("cannot make the serial line's file")?;
        let (clock, told) = if self.steady { (STEADY, STEADY_CLOCK) } else { (&[][..], "") };
        let mut child = Command::new("qemu-system-x86_64")
            // Emulated everywhere alike: a half working /dev/kvm fails in ways of its own.
            .args(["-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-smp", "1"])
            .args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"])
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.image)
            // On a busy machine the timer comes too late for the kernel's look at whether it works, and it gives up.
            .arg("-append")
            .arg(format!("console=ttyS0 loglevel=1 panic=-1 mitigations=off no_timer_check {told}"))
            .args(clock)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        let end = Instant::now() + most;
        let finished = loop {
            match child.try_wait().context("the machine")? {
                Some(_) => break true,
                None if Instant::now() > end => break false,
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        if !finished {
            let _ = child.kill();
        }
        let said = child.wait_with_output().context("the machine")?;
        let heard = std::fs::read(&serial).context("cannot read the serial line")?;
        let heard = String::from_utf8_lossy(&heard).replace('\r', "");
        let _ = std::fs::remove_file(&serial);
        let outcomes = outcomes(&heard);
        if outcomes.len() < self.labels.len() {
            let why = if finished { "the machine ended early" } else { "the machine took too long" };
            bail!("{why}: {}\n{heard}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(outcomes)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Puts modules into the image; their places, in the order in which they load.
pub(crate) fn modules(image: &mut Image, kernel: &Kernel, wanted: &[&str]) -> Result<String> {
    let mut places = Vec::new();
    for path in kernel.modules(wanted)? {
        let name = path.file_name().context("a module's name")?.to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        image.file(&format!("/modules/{name}"), bytes);
        places.push(format!("/modules/{name}"));
    }
    Ok(places.join(" "))
}

fn init(modules: &str, programs: &[Program]) -> String {
    let mut script = format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin HOME=/root\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mkdir -p /tmp; mount -t tmpfs run /run\n\
         for m in {modules}; do insmod $m || echo \"$m does not load\"; done\nip link set lo up\n"
    );
    for program in programs {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let env: String = program.env.iter().map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
        let args: String = program.args.iter().map(|arg| format!(" {}", quoted(arg))).collect();
        let path = quoted(&program.path.to_string_lossy());
        let _ = writeln!(
            script,
            "echo; echo '{BEGIN}{}'; {env}{path}{args} 2>&1; code=$?; echo; echo \"{END}$code\"",
            program.label
        );
    }
    script.push_str("poweroff -f\n");
    script
}

const BEGIN: &str = "@@begin ";
const END: &str = "@@end ";

fn outcomes(heard: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in heard.lines() {
        if let Some(label) = line.strip_prefix(BEGIN) {
            open = Some((label.to_owned(), String::new()));
        } else if let Some(exit) = line.strip_prefix(END) {
            if let Some((label, output)) = open.take() {
                outcomes.push(Outcome { label, exit: exit.trim().parse().unwrap_or(-1), output });
            }
        } else if let Some((_, output)) = &mut open {
            output.push_str(line);
            output.push('\n');
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_serial_line_says_is_told_apart() {
        let heard = "noise\n@@begin one\ntest a ... ok\ntest b ... FAILED\n\n@@end 101\n@@begin two\n";
        let found = outcomes(heard);
        assert_eq!(found.len(), 1, "the second has no end");
        assert_eq!((found[0].label.as_str(), found[0].exit), ("one", 101));
        assert_eq!(found[0].passed(), ["a"]);
    }
}
