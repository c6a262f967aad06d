//! What only Linux has: /proc, the parent's death as a signal, interfaces of ours, whether datagrams may be cut.

/// Processes, told apart from later ones with the same id.
pub mod identity {
    use std::fs;
    use std::io;
    use std::path::Path;

    use super::super::files::Owner;

    /// Says that this process lives: the kernel does.
    #[must_use = "it says so only while it is kept"]
    pub struct Mark;

    /// How this process is recognised later: clock ticks from boot to its start, and the boot's id.
    pub fn own() -> io::Result<(u64, String)> {
        let started = started(std::process::id())
            .ok_or_else(|| io::Error::other("/proc/self/stat cannot be read; is /proc mounted?"))?;
        Ok((started, boot_id()))
    }

    /// Marks this process as one that lives; nothing is written for it.
    pub fn mark(_dir: &Path, _known: u64, _owner: Option<Owner>) -> io::Result<Mark> {
        Ok(Mark)
    }

    /// Takes the mark of a process that is gone away: there is none.
    pub fn forget(_dir: &Path, _pid: u32, _known: u64) {}

    /// Whether the process that was recognised by these still runs.
    pub fn is_alive(_dir: &Path, pid: u32, known: u64, boot: &str) -> bool {
        boot == boot_id() && started(pid) == Some(known)
    }

    /// Whether a process has this id now.
    pub fn exists(pid: u32) -> bool {
        started(pid).is_some()
    }

    fn boot_id() -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    }

    /// When a process started (proc_pid_stat(5), field 22); `None`: there is none, or it is a zombie.
    fn started(pid: u32) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything, brackets included.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?;
        if state == "Z" || state == "X" {
            return None;
        }
        fields.nth(18)?.parse().ok()
    }
}

/// Whether lanes may have an interface.
pub mod interfaces {
    use super::super::Obstacle;

    /// CAP_NET_ADMIN (capability.h).
    const NET_ADMIN: u32 = 12;
    const TUN: &str = "/dev/net/tun";

    /// Why this process can make none; `None`: it can.
    pub fn obstacle() -> Option<Obstacle> {
        if !has_capability(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), NET_ADMIN) {
            return Some(Obstacle::Unprivileged);
        }
        let opened = std::fs::File::options().read(true).write(true).open(TUN);
        opened.err().map(|error| Obstacle::Device { path: TUN, error })
    }

    /// Whether `/proc/PID/status` shows a capability as effective.
    fn has_capability(status: &str, capability: u32) -> bool {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set & (1 << capability) != 0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_capability_is_read_from_the_effective_set_only() {
            let status = "Name:\tx\nCapPrm:\t0000003fffffffff\nCapEff:\t0000000000001000\n";
            assert!(has_capability(status, 12));
            assert!(!has_capability(status, 13));
            assert!(!has_capability("CapEff:\t0000000000000000\nCapBnd:\t0000000000001000\n", 12));
            assert!(!has_capability("", 12));
        }
    }
}

/// What is asked of sockets.
pub mod sockets {
    use std::io;
    use std::net::UdpSocket;

    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

    /// Lets a narrow link on the way cut datagrams, instead of losing them where its routers do not say so: over IPv4
    /// they leave without "don't fragment" (ip(7): IP_PMTUDISC_DONT), as those of lanes with an interface do. Over
    /// IPv6 only senders cut.
    pub fn let_be_cut(socket: &UdpSocket) -> io::Result<()> {
        if socket.local_addr()?.is_ipv4() {
            set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?;
        }
        Ok(())
    }
}

/// The command inside a lane, which dies with whoever holds the lane.
pub mod inside {
    use std::ffi::OsString;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use nix::sys::prctl::set_pdeathsig;
    use nix::sys::signal::Signal;
    use nix::unistd::{Pid, getppid};

    use super::super::Stayed;

    /// What is started for a command: this program, which then becomes it.
    pub fn wrapped(command: &[OsString]) -> Vec<OsString> {
        // Found also when this program was replaced by a newer one meanwhile.
        let this = ["/proc/self/exe", "inside", &std::process::id().to_string(), "--"].map(OsString::from);
        [&this[..], command].concat()
    }

    /// Becomes the command, which from then on dies with its parent. Comes back only if it cannot.
    ///
    /// The kernel forgets this for programs that gain rights as they start, such as sudo.
    pub fn become_command(parent: i32, program: &OsString, arguments: &[OsString]) -> Stayed {
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            return Stayed::Outlives(error.desc());
        }
        // It may have died before it was asked for.
        if getppid() != Pid::from_raw(parent) {
            return Stayed::Orphan;
        }
        Stayed::Not(Command::new(program).args(arguments).exec())
    }
}
