//! Forwarding, switched on only where a lane needs it, and put back as it was.
//!
//! With `net.ipv4.ip_forward` on, the machine is a router already and nothing is touched. With it off, the
//! per-interface switch of the lane interface and of the LAN interfaces is set instead (Linux forwards a packet
//! that *arrives* on an interface whose own switch is on: `ip_route_input_slow` in net/ipv4/route.c), and the table's guard drops
//! whatever the LAN could not send anywhere before.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::files;

/// The switches that were changed, and what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    /// Interface -> its `forwarding` before.
    before: BTreeMap<String, u8>,
}

/// The forwarding switches of this machine.
#[derive(Debug)]
pub struct Forwarding {
    /// `/proc/sys/net/ipv4`, or a stand-in.
    root: PathBuf,
    record: PathBuf,
    changed: Changed,
}

impl Forwarding {
    /// Reads what an earlier run changed.
    pub fn load(record: PathBuf) -> anyhow::Result<Self> {
        Self::at(PathBuf::from("/proc/sys/net/ipv4"), record)
    }

    fn at(root: PathBuf, record: PathBuf) -> anyhow::Result<Self> {
        let read =
            files::read_bounded(&record, 64 * 1024).with_context(|| format!("cannot read {}", record.display()))?;
        let changed = match read {
            Some(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", record.display()))?
            }
            None => Changed::default(),
        };
        Ok(Self { root, record, changed })
    }

    /// Whether the table must guard these LAN interfaces, because we (and not the machine's owner) make them
    /// forward: asked before [`Forwarding::enable`], so that the guard stands first.
    pub fn guards<'a>(&self, lan: impl IntoIterator<Item = &'a str>) -> bool {
        lan.into_iter()
            .any(|iface| self.changed.before.contains_key(iface) || matches!(read(&self.switch(iface)), Ok(0)))
    }

    /// Lets what arrives on `iface` be forwarded. Written down before it is done; doing it twice is harmless.
    ///
    /// Returns whether a switch was changed.
    pub fn enable(&mut self, iface: &str) -> anyhow::Result<bool> {
        let switch = self.switch(iface);
        let before = read(&switch).with_context(|| format!("cannot read the forwarding switch of {iface}"))?;
        if before != 0 {
            return Ok(false);
        }
        if self.changed.before.insert(iface.to_owned(), before).is_none() {
            self.write_down()?;
        }
        std::fs::write(&switch, "1").with_context(|| format!("cannot switch on forwarding on {iface}"))?;
        Ok(true)
    }

    /// Puts one switch back, if it was changed.
    pub fn restore_one(&mut self, iface: &str) -> anyhow::Result<()> {
        let Some(before) = self.changed.before.get(iface) else { return Ok(()) };
        match std::fs::write(self.switch(iface), before.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot put forwarding on {iface} back"));
            }
            _ => {}
        }
        self.changed.before.remove(iface);
        self.write_down()
    }

    /// Puts every switch back. Does all it can, then names what failed; an interface that is gone has no switch.
    pub fn restore(&mut self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for (iface, before) in std::mem::take(&mut self.changed.before) {
            match std::fs::write(self.switch(&iface), before.to_string()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    failed.push(format!("{iface}: {error}"));
                    self.changed.before.insert(iface, before);
                }
                _ => {}
            }
        }
        if failed.is_empty() {
            return files::remove(&self.record).with_context(|| format!("cannot remove {}", self.record.display()));
        }
        self.write_down()?;
        anyhow::bail!("cannot put forwarding back: {}", failed.join(", "))
    }

    fn switch(&self, iface: &str) -> PathBuf {
        self.root.join("conf").join(iface).join("forwarding")
    }

    fn write_down(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(&self.changed).context("the forwarding switches")?;
        files::write_atomic(&self.record, &bytes).with_context(|| format!("cannot write {}", self.record.display()))
    }
}

/// Closes an interface of ours to IPv6, where the kernel has IPv6 at all.
pub fn disable_ipv6(iface: &str) -> anyhow::Result<()> {
    let switch = Path::new("/proc/sys/net/ipv6/conf").join(iface).join("disable_ipv6");
    match std::fs::write(&switch, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot switch off IPv6 on {iface}"))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> io::Result<u8> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(global: &str, ifaces: &[(&str, &str)]) -> (tempfile::TempDir, Forwarding) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ip_forward"), format!("{global}\n")).expect("written");
        for (iface, value) in ifaces {
            std::fs::create_dir_all(dir.path().join("conf").join(iface)).expect("made");
            std::fs::write(dir.path().join("conf").join(iface).join("forwarding"), format!("{value}\n"))
                .expect("written");
        }
        let forwarding = Forwarding::at(dir.path().into(), dir.path().join("record.json")).expect("reads");
        (dir, forwarding)
    }

    fn value(dir: &tempfile::TempDir, iface: &str) -> String {
        let text = std::fs::read_to_string(dir.path().join("conf").join(iface).join("forwarding")).expect("there");
        text.trim().to_owned()
    }

    #[test]
    fn a_router_is_left_alone() {
        let (dir, mut forwarding) = machine("1", &[("eth1", "1")]);
        assert!(!forwarding.enable("eth1").expect("works"));
        assert!(!forwarding.guards(["eth1"]));
        assert!(!dir.path().join("record.json").exists());
    }

    #[test]
    fn what_was_switched_on_is_put_back_even_by_the_next_process() {
        let (dir, mut forwarding) = machine("0", &[("eth1", "0"), ("tl0", "0"), ("eth0", "0")]);
        assert!(forwarding.guards(["eth1"]), "before it is switched on");
        assert!(forwarding.enable("eth1").expect("works"));
        assert!(forwarding.enable("tl0").expect("works"));
        assert!(!forwarding.enable("eth1").expect("works"), "it is on already");
        assert_eq!((value(&dir, "eth1"), value(&dir, "eth0")), ("1".into(), "0".into()));
        std::fs::remove_dir_all(dir.path().join("conf/tl0")).expect("the interface is gone");
        let mut next = Forwarding::at(dir.path().into(), dir.path().join("record.json")).expect("reads");
        assert!(next.guards(["eth1"]) && !next.guards([]));
        next.restore().expect("put back");
        assert_eq!(value(&dir, "eth1"), "0");
        assert!(!dir.path().join("record.json").exists());
        next.restore().expect("twice is harmless");
    }

    #[test]
    fn one_switch_is_put_back_and_the_others_stay() {
        let (dir, mut forwarding) = machine("0", &[("eth1", "0"), ("tl0", "0")]);
        forwarding.enable("eth1").expect("works");
        forwarding.enable("tl0").expect("works");
        forwarding.restore_one("eth1").expect("put back");
        forwarding.restore_one("eth1").expect("twice is harmless");
        assert_eq!((value(&dir, "eth1"), value(&dir, "tl0")), ("0".into(), "1".into()));
    }

    #[test]
    fn an_interface_that_forwarded_before_keeps_forwarding() {
        let (dir, mut forwarding) = machine("0", &[("eth1", "1")]);
        assert!(!forwarding.enable("eth1").expect("works"));
        forwarding.restore().expect("nothing to do");
        assert_eq!(value(&dir, "eth1"), "1");
    }
}
