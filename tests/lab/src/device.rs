//! What a device received, from its own log.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::wait_until;

/// The log of one device.
pub struct DeviceLog {
    path: PathBuf,
}

/// One payload that arrived.
#[derive(Debug, Clone)]
pub struct Payload {
    pub at_ms: f64,
    /// `echo-tcp`, `echo-udp` or `modbus`.
    pub service: String,
    pub peer: String,
    pub bytes: u64,
}

impl DeviceLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn events(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.path).with_context(|| format!("{}", self.path.display()))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Everything with payload that arrived since a moment, oldest first.
    pub fn payloads_since(&self, since_ms: f64) -> Result<Vec<Payload>> {
        let payload = |event: &Value| {
            event["event"].as_str()?.starts_with("payload").then(|| Payload {
                at_ms: event["at_ms"].as_f64().unwrap_or_default(),
                service: event["service"].as_str().unwrap_or_default().to_owned(),
                peer: event["peer"].as_str().unwrap_or_default().to_owned(),
                bytes: event["bytes"].as_u64().unwrap_or_default(),
            })
        };
        Ok(self.events()?.iter().filter_map(payload).filter(|payload| payload.at_ms >= since_ms).collect())
    }

    /// How often something else happened since a moment: `connected`, `reset`, `closed`.
    pub fn count_since(&self, what: &str, since_ms: f64) -> Result<usize> {
        let fits = |event: &&Value| event["event"] == what && event["at_ms"].as_f64().unwrap_or_default() >= since_ms;
        Ok(self.events()?.iter().filter(fits).count())
    }

    /// When the last payload since a moment came; there must have been one.
    pub fn last_since(&self, since_ms: f64) -> Result<f64> {
        self.payloads_since(since_ms)?.last().map(|last| last.at_ms).context("the device received nothing")
    }

    /// Waits until payloads arrive: `more` of them since a moment.
    pub fn wait_for(&self, more: usize, since_ms: f64) -> Result<()> {
        wait_until(10_000, &format!("{more} payloads reach the device"), || {
            Ok(self.payloads_since(since_ms)?.len() >= more)
        })
    }

    /// Nothing with payload may have come after a moment.
    pub fn quiet_after(&self, after_ms: f64) -> Result<()> {
        match self.payloads_since(after_ms)?.last() {
            None => Ok(()),
            Some(late) => bail!("{:.1} ms after the bound the device still received {late:?}", late.at_ms - after_ms),
        }
    }
}
