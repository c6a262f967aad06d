//! WireGuard devices, addresses and routes, for the gateway and for the engineer's machine.
//!
//! * [`Device`] is what a backend does for lanes; [`Userspace`] is the backend that needs nothing but
//!   `/dev/net/tun`, [`Kernel`] the one that has the kernel encrypt.
//! * [`gate`] is the second lock, which judges every packet without the kernel's help; [`packet`] reads and
//!   writes packets. Both are pure.
//! * [`offload`] is the arithmetic of large packets and of datagrams that leave together; pure, too.
//! * [`link`] sets up interfaces, addresses and routes over rtnetlink.
//! * [`key`] makes key pairs.
//!
//! On other systems than Linux there are [`key`] and the clock; a device cannot be started there, nor [`link`] opened,
//! which is an error like another: whoever calls this crate is the same everywhere.
//!
//! `Tunn` logs expired keys, which are normal here, as errors under the target `boringtun`: filter it out.

#[cfg(not(target_os = "linux"))]
mod absent;
#[cfg(target_os = "linux")]
mod bucket;
mod clock;
mod config;
mod device;
#[cfg(target_os = "linux")]
pub mod gate;
#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod key;
#[cfg(target_os = "linux")]
mod lane;
#[cfg(target_os = "linux")]
pub mod link;
#[cfg(target_os = "linux")]
mod mac1;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what a device would use"))]
pub mod offload;
mod shown;
#[cfg(target_os = "linux")]
mod switch;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod timing;
#[cfg(target_os = "linux")]
mod userspace;

#[cfg(not(target_os = "linux"))]
pub use absent::{Userspace, link};
pub use clock::{boot, now};
pub use config::UserspaceConfig;
pub use device::{Backend, DeniedFlow, Device, DeviceError, Direction, Event, LaneReport, LaneRole, LaneSpec};
#[cfg(target_os = "linux")]
pub use kernel::{Kernel, KernelConfig, KernelError};
pub use offload::{Offload, OffloadError, TunOffload};
#[cfg(target_os = "linux")]
pub use switch::fuzz_device;
pub use thinlane_packet as packet;
#[cfg(target_os = "linux")]
pub use userspace::Userspace;
