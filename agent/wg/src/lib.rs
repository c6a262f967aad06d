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
//! `Tunn` logs expired keys, which are normal here, as errors under the target `boringtun`: filter it out.

mod bucket;
mod clock;
mod device;
pub mod gate;
mod guard;
pub mod kernel;
pub mod key;
mod lane;
pub mod link;
mod mac1;
pub mod offload;
mod switch;
mod sys;
mod timing;
mod userspace;

pub use clock::{boot, now};
pub use device::{Backend, DeniedFlow, Device, DeviceError, Direction, Event, LaneReport, LaneRole, LaneSpec};
pub use kernel::{Kernel, KernelConfig, KernelError};
pub use offload::{Offload, OffloadError, TunOffload};
pub use switch::fuzz_device;
pub use thinlane_packet as packet;
pub use userspace::{Userspace, UserspaceConfig};
