//! Black-box tests of the whole product: the programs as built, in the namespaces of `scripts/lab`, judged by
//! what arrives at the device.
//!
//! One lab serves a whole test program (setting one up takes seconds), so the cases run one after the other and
//! each leaves the lab as it found it: no session, both agents running, nothing locked or isolated.
#![forbid(unsafe_code)]

mod background;
mod device;
mod lane;
mod run;
mod shell;

pub use background::Background;
pub use device::{DeviceLog, Payload};
pub use lane::Lane;
pub use run::{Case, main, main_abreast};
pub use shell::{Output, Shell, now_ms, wait_until};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A running lab; ends when dropped.
pub struct Lab {
    name: String,
    root: PathBuf,
    script: PathBuf,
    bin: PathBuf,
}

impl Lab {
    /// Sets up a lab of this name (1 to 6 letters) with the programs that were built beside this test.
    pub fn up(name: &str) -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let test = std::env::current_exe()?;
        let built = |dir: &&Path| dir.join("thinlane-controller").exists();
        let bin = test.ancestors().skip(1).take(2).find(built).unwrap_or(Path::new("/nowhere")).to_owned();
        for program in ["thinlane", "thinlane-agent", "thinlane-controller", "thinlane-sim"] {
            ensure!(bin.join(program).exists(), "{program} is not built: run scripts/test, or cargo build first");
        }
        let root = PathBuf::from(format!("/run/thinlane-lab-{name}"));
        let lab = Self { name: name.to_owned(), root, script: checkout.join("scripts/lab"), bin };
        // What an earlier run that was killed may have left.
        lab.script(&["down"]).run()?;
        lab.script(&["up"]).run()?.good().context("scripts/lab up")?;
        Ok(lab)
    }

    /// The lab's name: what its namespaces begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with the lab's files: logs, device logs, the directories of controller and agents.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// `scripts/lab ARGS`.
    pub fn script(&self, args: &[&str]) -> Shell {
        Shell::new(&self.script)
            .args(args)
            .env("THINLANE_LAB", &self.name)
            .env("THINLANE_BIN", &self.bin.to_string_lossy())
            .env("THINLANE_PROFILE", "dev")
    }

    /// A command as somebody or on some host (see `scripts/lab exec`).
    pub fn on(&self, who: &str, command: &[&str]) -> Shell {
        self.script(&[&["exec", who], command].concat())
    }

    /// `thinlane ARGS` as somebody.
    pub fn thinlane(&self, who: &str, args: &[&str]) -> Shell {
        self.on(who, &[&["thinlane"], args].concat())
    }

    /// `thinlane ARGS --json`, which must succeed, as JSON.
    pub fn json(&self, who: &str, args: &[&str]) -> Result<Value> {
        let out = self.thinlane(who, &[args, &["--json"]].concat()).run()?.good()?;
        serde_json::from_str(&out.stdout).with_context(|| format!("{args:?} printed {:?}", out.stdout))
    }

    /// `thinlane-agent ARGS` on a site's gateway.
    pub fn agent(&self, site: &str, args: &[&str]) -> Shell {
        let dir = self.root.join(format!("agent-{site}"));
        let run = self.root.join(format!("run-{site}"));
        let own = ["--dir", &dir.to_string_lossy(), "--run-dir", &run.to_string_lossy()].map(str::to_owned);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.on(site, &[&["thinlane-agent"], args, &own].concat())
    }

    /// `scripts/lab agent SITE VERB` (start, stop, kill, pause, resume).
    pub fn agent_process(&self, site: &str, verb: &str) -> Result<()> {
        self.script(&["agent", site, verb]).run()?.good().map(|_| ())
    }

    /// Waits until a site's gateway says that it is ready.
    pub fn wait_ready(&self, site: &str) -> Result<()> {
        wait_until(20_000, &format!("{site} is ready"), || {
            Ok(self.agent(site, &["status", "--check", "ready"]).run()?.code == 0)
        })
    }

    /// A session as the controller tells it.
    pub fn session(&self, id: &str) -> Result<Value> {
        self.json("olga", &["session", "show", id])
    }

    /// Opens a lane for Erik the whole way: request, approval, interface.
    pub fn lane(&self, asset: &str, task: &str, length: &str) -> Result<Lane<'_>> {
        Lane::open(self, asset, task, length)
    }

    /// An approved request of Erik's.
    pub fn approved(&self, asset: &str, task: &str, length: &str) -> Result<String> {
        let asked = self.json(
            "erik",
            &["request", "create", asset, "--task", task, "--for", length, "--reason", "test", "--nowait"],
        )?;
        let id = asked["id"].as_str().context("the request has no id")?.to_owned();
        self.thinlane("olga", &["request", "approve", &id]).run()?.good()?;
        Ok(id)
    }

    /// The log of a device (`north-1` is north-plc1 at 192.168.1.10).
    pub fn device(&self, host: &str) -> DeviceLog {
        DeviceLog::new(self.root.join(format!("device-{host}.jsonl")))
    }

    /// The nftables map of a site as text; empty where the table is gone.
    pub fn nft(&self, site: &str, args: &[&str]) -> Result<String> {
        Ok(self.on(site, &[&["nft"], args].concat()).run()?.stdout)
    }

    /// Back to the state that every case may expect.
    pub fn settle(&self) -> Result<()> {
        self.thinlane("erik", &["down"]).run()?;
        for site in ["north", "south"] {
            self.script(&["agent", site, "resume"]).run()?;
            self.agent_process(site, "start")?;
            self.agent(site, &["isolate", "off"]).run()?;
        }
        for lock in self.thinlane("olga", &["lock", "ls", "--json"]).run()?.lines_json() {
            if let (Some(kind), Some(name)) = (lock["kind"].as_str(), lock["name"].as_str()) {
                self.thinlane("olga", &["unlock", kind, name]).run()?;
            }
        }
        for session in self.thinlane("olga", &["session", "ls", "--active", "--json"]).run()?.lines_json() {
            if let Some(id) = session["id"].as_str() {
                self.thinlane("olga", &["session", "kill", id, "--reason", "tidy"]).run()?;
            }
        }
        self.wait_ready("north")?;
        self.wait_ready("south")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("THINLANE_KEEP_LAB").is_none() {
            let _ = self.script(&["down"]).run();
        }
    }
}
