//! What the daemon needs of the machine, asked for before anything is opened.

use std::fs::OpenOptions;

use crate::failure::Failure;

/// Number of CAP_NET_ADMIN (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Checks for CAP_NET_ADMIN.
pub fn check() -> Result<(), Failure> {
    if !has_net_admin(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        return Err(Failure::new("no right to change the network here (CAP_NET_ADMIN): nothing was opened")
            .next("run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN"));
    }
    Ok(())
}

/// Checks for `/dev/net/tun`, which the agent's own WireGuard needs and the kernel's does not.
pub fn tun() -> Result<(), Failure> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return Err(Failure::new(format_args!("cannot open /dev/net/tun: {error}: nothing was opened"))
            .next("load the tun module (modprobe tun); in a container pass --device /dev/net/tun; where the kernel has WireGuard, --backend kernel does without"));
    }
    Ok(())
}

fn has_net_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|bits| bits & (1 << CAP_NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_decides() {
        assert!(has_net_admin("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_net_admin("CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffefff\n"));
        assert!(!has_net_admin(""));
    }
}
