//! One JSON object per event, written at once: `at_ms` is the wall clock in milliseconds with three decimals.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// Where events go; clones write to the same place.
#[derive(Clone)]
pub struct Log {
    name: Arc<str>,
    to: Arc<Mutex<Box<dyn Write + Send>>>,
}

/// Milliseconds since 1970, with microseconds behind the point.
pub fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_micros() as f64) / 1000.0
}

impl Log {
    pub fn open(name: String, path: Option<&Path>) -> anyhow::Result<Self> {
        let to: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(
                File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot write {}", path.display()))?,
            ),
            None => Box::new(std::io::stdout()),
        };
        Ok(Self { name: name.into(), to: Arc::new(Mutex::new(to)) })
    }

    /// Writes one event; a full disk must not stop the device.
    pub fn write(&self, event: &str, service: &str, peer: SocketAddr, bytes: usize) {
        let line = serde_json::json!({
            "at_ms": now_ms(), "device": &*self.name, "event": event, "service": service,
            "peer": peer.to_string(), "bytes": bytes,
        });
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        if writeln!(to, "{line}").and_then(|()| to.flush()).is_err() {
            eprintln!("the log cannot be written");
        }
    }
}
