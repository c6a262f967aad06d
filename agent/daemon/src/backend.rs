//! Who encrypts this gateway's lanes: the kernel where it can, or the agent itself.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::Context as _;
use clap::ValueEnum;
use thinlane_model::{Protocol, SessionId};
use thinlane_nft::{Flow, LANE_INTERFACES, MARK, MARK_MASK, MARK_REFUSED};
use thinlane_wg::kernel::{self, Marks};
use thinlane_wg::{Backend, Device, Event, Kernel, KernelConfig, KernelError, Userspace, UserspaceConfig};

use crate::failure::Failure;
use crate::forwarding;
use crate::kernel::{ALIAS, INTERFACE};

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// The kernel's where it can, unless all lanes must share one UDP port; else the agent's own.
    Auto,
    /// The kernel's WireGuard, one interface for each lane.
    Kernel,
    /// The agent's own, on the interface tl0.
    #[default]
    Userspace,
}

/// What was asked for, and what this machine can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    wanted: Wanted,
    kernel: bool,
}

impl Choice {
    /// Looks whether the kernel has WireGuard, where that matters.
    pub fn make(wanted: Wanted) -> Result<Self, Failure> {
        let kernel = match wanted {
            Wanted::Userspace => false,
            Wanted::Auto => {
                Kernel::available().inspect_err(|error| tracing::info!(%error, "the agent encrypts by itself")).is_ok()
            }
            Wanted::Kernel => {
                Kernel::available().map_err(|error| refusal(&error))?;
                true
            }
        };
        Ok(Self { wanted, kernel })
    }

    /// Who encrypts where lanes are reached at `port` (0: each at a port of its own). The kernel's interfaces cannot share
    /// a port, so a site with a direct endpoint has more than one lane at a time from the agent's own device alone.
    pub fn at(self, port: u16) -> Backend {
        match self.wanted {
            Wanted::Kernel => Backend::Kernel,
            Wanted::Auto if self.kernel && port == 0 => Backend::Kernel,
            Wanted::Auto | Wanted::Userspace => Backend::Userspace,
        }
    }
}

fn refusal(error: &KernelError) -> Failure {
    let failure = Failure::new(format_args!("the kernel cannot encrypt lanes: {error}"));
    match error {
        KernelError::Missing => failure
            .next("install its wireguard module (OpenWrt: opkg install kmod-wireguard), or say --backend userspace"),
        KernelError::Forbidden | KernelError::Link(_) => {
            failure.next("run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN")
        }
    }
}

/// What names the interfaces of a backend: one for all lanes, or the beginning of each lane's own.
pub fn interfaces(backend: Backend) -> &'static str {
    match backend {
        Backend::Kernel => LANE_INTERFACES,
        Backend::Userspace => INTERFACE,
    }
}

/// The interface of one lane, by what [`interfaces`] says.
pub fn interface(interfaces: &str, session: SessionId) -> String {
    match interfaces {
        LANE_INTERFACES => format!("{interfaces}{}", session.short()),
        _ => interfaces.to_owned(),
    }
}

/// Starts a device with no lanes, where nothing of a dead agent's is left.
pub fn start(backend: Backend, port: u16, events: Box<dyn FnMut(Event) + Send>) -> anyhow::Result<Box<dyn Device>> {
    match backend {
        Backend::Kernel => {
            let mut config = KernelConfig::new(LANE_INTERFACES, ALIAS);
            config.port = port;
            config.marks = Some(Marks { mask: MARK_MASK, passed: MARK, refused: MARK_REFUSED });
            config.events = Some(events);
            Ok(Box::new(Kernel::start(config).context("cannot use the kernel's WireGuard")?))
        }
        Backend::Userspace => {
            clear()?;
            let mut config = UserspaceConfig::new(INTERFACE, ALIAS);
            config.listen = SocketAddr::from(([0, 0, 0, 0], port));
            config.events = Some(events);
            let device = Userspace::start(config).with_context(|| format!("cannot make the interface {INTERFACE}"))?;
            forwarding::disable_ipv6(INTERFACE)?;
            Ok(Box::new(device))
        }
    }
}

/// Has devices let go of TCP connections that are not tracked any more: each is made to say what it expects, and the
/// gateway's own TCP, or the table, answers that with a reset.
pub fn let_go(flows: &[Flow]) {
    for flow in flows.iter().filter(|flow| flow.protocol == Protocol::Tcp.number()) {
        let here = SocketAddrV4::new(flow.reply_destination, flow.reply_destination_port);
        let there = SocketAddrV4::new(flow.reply_source, flow.reply_source_port);
        if let Err(error) = kernel::challenge(here, there) {
            tracing::warn!(%error, "a device's connection is left to time out");
        }
    }
}

/// Removes what an agent with the kernel's backend left when it was killed.
pub fn clear() -> anyhow::Result<()> {
    kernel::clear(LANE_INTERFACES, ALIAS).context("cannot remove the last agent's interfaces")
}
