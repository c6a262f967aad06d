//! What every request handler needs.

use std::sync::Arc;

use crate::auth::Auth;
use crate::ca::Ca;
use crate::channel::Channels;
use crate::core::Core;

/// Shared by all connections; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub core: Core,
    pub auth: Auth,
    pub ca: Arc<Ca>,
    pub channels: Channels,
    pub relay: thinlane_relay::Handle,
    /// What live views ask for besides the state.
    pub lately: crate::lately::Lately,
    /// The controller's directory, for readers of the log.
    pub dir: std::path::PathBuf,
    /// The log's verifier key (C2SP vkey).
    pub log_key: String,
    /// Ed25519 public keys that sign grants, base 64.
    pub grant_keys: Vec<String>,
    /// Told when the controller stops: streams end.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl App {
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}
