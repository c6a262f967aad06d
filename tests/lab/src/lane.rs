//! A lane that Erik holds.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Background, Lab, Output};

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
