//! A lane that Erik holds.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Background, Lab, Output, Payload, Shell, now_ms};

/// An open lane; taken down when dropped.
pub struct Lane<'a> {
    lab: &'a Lab,
    pub session: String,
    pub request: String,
    pub iface: String,
    /// What Erik's tools connect to.
    pub address: String,
    pub port: u64,
    pub ends_at: String,
}

impl<'a> Lane<'a> {
    pub(crate) fn open(lab: &'a Lab, asset: &str, task: &str, length: &str) -> Result<Self> {
        let request = lab.approved(asset, task, length)?;
        Self::up(lab, &request)
    }

    /// Uses an approved request.
    pub fn up(lab: &'a Lab, request: &str) -> Result<Self> {
        let out = lab.thinlane("erik", &["up", request, "--json"]).run()?.good()?;
        let up = out.lines_json().into_iter().find(|line| line["event"] == "up").context("up printed no `up`")?;
        let text = |name: &str| up[name].as_str().map(str::to_owned).with_context(|| format!("`up` has no {name}"));
        Ok(Self {
            lab,
            session: text("session")?,
            request: request.to_owned(),
            iface: text("iface")?,
            address: text("asset_address")?,
            port: up["asset_port"].as_u64().context("`up` has no asset_port")?,
            ends_at: text("ends_at")?,
        })
    }

    /// The session as the controller tells it.
    pub fn show(&self) -> Result<Value> {
        self.lab.session(&self.session)
    }

    /// A steady echo through the lane.
    pub fn echo(&self, protocol: &str, every: &str, length: &str) -> Result<Background> {
        let to = format!("{}:{}", self.address, self.port);
        let words = ["thinlane-sim", "echo", protocol, &to, "--every", every, "--for", length, "--patience", "2s"];
        Background::start(self.lab.on("erik", &words))
    }

    /// The same, but waiting for answers as long as it lasts.
    pub fn patient_echo(&self, protocol: &str, every: &str, length: &str) -> Result<Background> {
        let to = format!("{}:{}", self.address, self.port);
        let words = ["thinlane-sim", "echo", protocol, &to, "--every", every, "--for", length, "--patience", length];
        Background::start(self.lab.on("erik", &words))
    }

    /// Kills the agent of the lane's site (`north`) and puts a kernel device in the place of its `tl0`, so that only
    /// the nftables lane is left to hold; echoes over UDP through that, and gives the device's clear view of when.
    pub fn echo_past_a_dead_agent(&self, every: &str, length: &str) -> Result<Vec<Payload>> {
        let lab = self.lab;
        let engineer = self.show()?["address"].as_str().context("the session's /32")?.to_owned();
        let (space, gateway) = (format!("{}-x", lab.name()), "169.254.7.1");
        lab.agent_process("north", "kill")?;
        let host = |words: &[&str]| -> Result<()> { Shell::new("ip").args(words).run()?.good().map(|_| ()) };
        host(&["netns", "add", &space])?;
        let outcome = (|| -> Result<Vec<Payload>> {
            let near = format!(
                "set -e; ip link add name tl0 type veth peer name eng0; ip link set dev tl0 up; ip link set dev eng0 netns {space}; \
                 sysctl -qw net.ipv4.conf.tl0.forwarding=1 net.ipv4.conf.tl0.rp_filter=0; ip addr add {gateway}/32 dev tl0; ip route add {engineer}/32 dev tl0"
            );
            lab.on("north", &["sh", "-c", &near]).run()?.good()?;
            let far = format!(
                "set -e; ip addr add {engineer}/32 dev eng0; ip link set dev eng0 up; ip route add {gateway} dev eng0; ip route add default via {gateway} src {engineer}"
            );
            host(&["netns", "exec", &space, "sh", "-c", &far])?;
            let start = now_ms();
            let sim = lab.bin().join("thinlane-sim").to_string_lossy().into_owned();
            let to = format!("{}:{}", self.address, self.port);
            Shell::new("ip")
                .args(&[
                    "netns",
                    "exec",
                    &space,
                    &sim,
                    "echo",
                    "udp",
                    &to,
                    "--every",
                    every,
                    "--for",
                    length,
                    "--patience",
                    "1s",
                ])
                .run()?;
            lab.device("north-1").payloads_since(start)
        })();
        lab.on("north", &["ip", "link", "del", "tl0"]).run()?;
        host(&["netns", "del", &space])?;
        outcome
    }

    /// The lane's end as milliseconds since 1970.
    pub fn end_ms(&self) -> Result<f64> {
        Ok(Shell::new("date").args(&["-d", &self.ends_at, "+%s%3N"]).run()?.good()?.stdout.trim().parse()?)
    }

    /// One short exchange through the lane; its output says how it went.
    pub fn exchange(&self, protocol: &str) -> Result<Output> {
        let to = format!("{}:{}", self.address, self.port);
        let words =
            ["thinlane-sim", "echo", protocol, &to, "--every", "20ms", "--for", "200ms", "--patience", "1500ms"];
        self.lab.on("erik", &words).run()
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let _ = self.lab.thinlane("erik", &["down", &self.session]).run();
    }
}
