//! What an emulated router boots from: a kernel, an initial file system that finds the disk, and the modules that belong
//! on the disk. `tests/flash/box` makes the disk and starts the machine.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::machine::MODULES;
use crate::{Image, Kernel};

/// What leads to the disk.
const DISK: &[&str] = &["virtio_pci", "virtio_blk"];
/// Beside what lanes need: its network cards, and the bridge that its LAN is.
const NETWORK: &[&str] = &["virtio_net", "bridge"];
/// On the disk, and loaded only when somebody asks for such an interface.
const ON_DEMAND: &[&str] = &["wireguard"];
const APPLETS: &[&str] = &["sh", "mount", "insmod", "sleep", "switch_root", "poweroff"];

/// Writes `vmlinuz`, `initrd`, `lib/modules/..` and `autoload` (what a router loads at boot, one name a line) into `dir`.
pub fn lay_out(kernel: &Kernel, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    std::fs::copy(&kernel.image, dir.join("vmlinuz")).context("cannot copy the kernel")?;
    std::fs::write(dir.join("initrd"), initrd(kernel)?.archive()).context("cannot write the initrd")?;
    let at_boot: Vec<&str> = MODULES.iter().chain(NETWORK).copied().collect();
    let all: Vec<&str> = at_boot.iter().chain(ON_DEMAND).copied().collect();
    kernel.copy_modules(&all, dir)?;
    std::fs::write(dir.join("autoload"), at_boot.join("\n") + "\n").context("cannot write the list of modules")
}

fn initrd(kernel: &Kernel) -> Result<Image> {
    let mut image = Image::new();
    image.program(Path::new("/bin/busybox")).context("busybox-static is not installed")?;
    for applet in APPLETS {
        image.link(&format!("/bin/{applet}"), "busybox");
    }
    let modules = crate::machine::modules(&mut image, kernel, DISK)?;
    image.file(
        "/init",
        format!(
            "#!/bin/sh\nmount -t devtmpfs dev /dev\nfor m in {modules}; do insmod $m; done\n\
             n=100; until [ -b /dev/vda ] || [ $n = 0 ]; do n=$((n - 1)); sleep 0.1; done\n\
             mount -t ext4 /dev/vda /root || poweroff -f\n\
             mount --move /dev /root/dev\nexec switch_root /root /sbin/init\n"
        ),
    );
    Ok(image)
}
