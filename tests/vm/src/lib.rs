//! A Debian kernel with WireGuard, booted in an emulated machine in a few seconds, which runs test programs.
//!
//! * [`Kernel`] is fetched as a package and unpacked into the target directory; nothing is installed.
//! * [`Image`] is the machine's whole file system: busybox, kernel modules, programs with their libraries.
//! * [`Machine`] boots it, runs [`Program`]s one after the other and hears over the serial line what came of them.
//! * [`plan`] names what runs; [`programs`] finds the test programs of this workspace.
//! * [`router`] is what another emulated machine boots from: one with a disk and a network, for `scripts/flash`.
#![forbid(unsafe_code)]

mod image;
mod kernel;
mod machine;
pub mod plan;
pub mod programs;
pub mod router;

use std::path::PathBuf;

pub use image::Image;
pub use kernel::Kernel;
pub use machine::{Machine, Outcome, Program};

/// Where kernels and images are kept between runs.
pub fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| root().join("target")).join("vm")
}

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
