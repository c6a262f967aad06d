//! Which lanes this machine holds or has exported: one small file each, without any key.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thinlane_model::{AssetName, RequestId, SessionId, Wall};

use crate::failure::{Failure, Result, io, plain};
use crate::home::{Home, read_bounded};
use crate::system::identity;

/// The largest such file that is read, in bytes.
const LARGEST: u64 = 16 * 1024;
/// How each exported configuration begins; the session's id follows.
pub const CONFIG_TITLE: &str = "# Thinlane ";
/// More files than these are not looked at.
const MOST: usize = 4096;

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneFile {
    pub request: RequestId,
    pub asset: AssetName,
    /// Known once it is activated.
    #[serde(default)]
    pub session: Option<SessionId>,
    #[serde(default)]
    pub iface: Option<String>,
    #[serde(default)]
    pub asset_address: Option<Ipv4Addr>,
    /// Where it is used instead of an interface.
    #[serde(default)]
    pub forward: Option<SocketAddr>,
    #[serde(default)]
    pub ends_at: Option<Wall>,
    /// The configuration that was written instead of an interface.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Who holds it.
    pub holder: Holder,
}

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// As the system tells it, in a unit of its own (`system::identity`).
    pub started: u64,
    /// Of which boot, where the system says.
    pub boot: String,
}

impl Holder {
    /// This process.
    pub fn this() -> Result<Holder> {
        let pid = std::process::id();
        let (started, boot) = identity::own()
            .map_err(|error| Failure::failed(format!("a lane needs to know its own process: {}", plain(&error))))?;
        Ok(Holder { pid, started, boot })
    }

    /// Says of this process, for as long as the mark is kept, that it lives; before the lane's file, which without it is
    /// a dead one's.
    pub fn mark(&self, home: &Home) -> Result<identity::Mark> {
        let dir = home.make_lanes_dir()?;
        identity::mark(&dir, self.started, home.owner()).map_err(|error| {
            Failure::failed(format!(
                "{}: no file can be held there while the lane is open: {}",
                dir.display(),
                plain(&error)
            ))
            .next("keep your files on a disk of this machine: thinlane --home DIR ...")
        })
    }

    /// Whether it still runs.
    pub fn is_alive(&self, home: &Home) -> bool {
        identity::is_alive(&home.lanes_dir(), self.pid, self.started, &self.boot)
    }
}

impl LaneFile {
    fn path(&self, home: &Home) -> PathBuf {
        home.lanes_dir().join(format!("{}.json", self.request))
    }

    pub fn write(&self, home: &Home) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Failure::failed(error.to_string()))?;
        home.write(&self.path(home), &text)
    }

    /// Forgets the lane, which is over, and who held it; it is no error if it is forgotten already.
    pub fn remove(&self, home: &Home) {
        let _ = fs::remove_file(self.path(home));
        identity::forget(&home.lanes_dir(), self.holder.pid, self.holder.started);
    }

    /// Whether it was written as a configuration and no process of ours holds it.
    pub fn is_exported(&self) -> bool {
        self.config.is_some()
    }

    /// Takes the exported configuration away: its only key opens nothing any more. What somebody has put in its place
    /// since stays. Whether it is gone.
    pub fn remove_config(&self) -> bool {
        let (Some(file), Some(session)) = (&self.config, self.session) else { return false };
        let ours = read_bounded(file, LARGEST).ok().flatten();
        let ours = ours.is_some_and(|text| text.starts_with(&format!("{CONFIG_TITLE}{session} ")));
        ours && fs::remove_file(file).is_ok()
    }

    /// How people call it: its session, or the request while there is none.
    pub fn name(&self) -> String {
        self.session.map_or_else(|| self.request.to_string(), |session| session.to_string())
    }

    /// Whether `text` is this lane's session or request, or begins one, with or without the `ses_`.
    pub fn answers_to(&self, text: &str) -> bool {
        let begins = |id: String, prefix: &str| {
            id.starts_with(text) || id.strip_prefix(prefix).is_some_and(|id| id.starts_with(text))
        };
        !text.is_empty()
            && (self.session.is_some_and(|session| begins(session.to_string(), SessionId::PREFIX))
                || begins(self.request.to_string(), RequestId::PREFIX))
    }
}

/// All lanes in the person's state, by request. A file that cannot be read is taken away: it says nothing.
pub fn all(home: &Home) -> Result<Vec<LaneFile>> {
    let dir = home.lanes_dir();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(dir.display())(error)),
    };
    let mut lanes = Vec::new();
    for entry in entries.take(MOST) {
        let path = entry.map_err(io(dir.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Some(lane) => lanes.push(lane),
            None => {
                let _ = fs::remove_file(&path);
            }
        }
    }
    lanes.sort_by_key(|lane: &LaneFile| lane.request);
    Ok(lanes)
}

fn read(path: &Path) -> Option<LaneFile> {
    serde_json::from_str(&read_bounded(path, LARGEST).ok()??).ok()
}

/// The ifalias of a lane's interface: it names the session, the process that holds it, and the asset.
pub fn alias(session: SessionId, pid: u32, asset: &AssetName) -> String {
    format!("{} {session} pid {pid} asset {asset}", thinlane_wg::link::ALIAS)
}

/// What an ifalias of ours says.
#[derive(Debug, PartialEq, Eq)]
pub struct Alias {
    pub session: SessionId,
    pub pid: u32,
    pub asset: Option<AssetName>,
}

/// Reads an ifalias; `None`: the interface is not an engineer's lane.
pub fn parse_alias(text: &str) -> Option<Alias> {
    let mut words = text.split(' ');
    (words.next()? == thinlane_wg::link::ALIAS).then_some(())?;
    let session = words.next()?.parse().ok()?;
    (words.next()? == "pid").then_some(())?;
    let pid = words.next()?.parse().ok()?;
    let asset = match (words.next(), words.next()) {
        (Some("asset"), Some(asset)) => asset.parse().ok(),
        _ => None,
    };
    Some(Alias { session, pid, asset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(holder: Holder) -> LaneFile {
        LaneFile {
            request: "req_7k2m9q4x".parse().expect("an id"),
            asset: "rtu-7".parse().expect("a name"),
            session: Some("ses_abcdefgh".parse().expect("an id")),
            iface: Some("tl-abcdefgh".into()),
            asset_address: None,
            forward: None,
            ends_at: None,
            config: None,
            holder,
        }
    }

    #[test]
    fn a_lane_is_remembered_until_it_is_forgotten_and_garbage_is_taken_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::locate(Some(dir.path())).expect("a home");
        assert!(all(&home).expect("none").is_empty());
        let lane = lane(Holder::this().expect("a process"));
        lane.write(&home).expect("written");
        fs::write(home.lanes_dir().join("x.json"), "garbage").expect("written");
        assert_eq!(all(&home).expect("one"), std::slice::from_ref(&lane));
        assert!(!home.lanes_dir().join("x.json").exists());
        lane.remove(&home);
        lane.remove(&home);
        assert!(all(&home).expect("none").is_empty());
    }

    #[test]
    fn an_exported_configuration_is_taken_away_unless_it_is_another_file_by_now() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("rtu.conf");
        let lane = LaneFile { config: Some(file.clone()), ..lane(Holder::this().expect("a process")) };
        assert!(!lane.remove_config(), "there is none");
        for others in ["# Thinlane ses_zzzzzzzz to rtu-7\n", "[Interface]\n", ""] {
            fs::write(&file, others).expect("written");
            assert!(!lane.remove_config() && file.exists(), "{others:?}");
        }
        fs::write(&file, "# Thinlane ses_abcdefgh to rtu-7 (modbus), until noon\n[Interface]\n").expect("written");
        assert!(lane.remove_config() && !file.exists());
    }

    #[test]
    fn a_dead_holder_and_one_whose_id_came_round_again_are_told_from_a_live_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::locate(Some(dir.path())).expect("a home");
        let this = Holder::this().expect("a process");
        let _mark = this.mark(&home).expect("a mark");
        assert!(this.is_alive(&home));
        assert!(!Holder { started: this.started + 1, ..this.clone() }.is_alive(&home));
        assert!(!Holder { boot: "another".into(), ..this }.is_alive(&home));
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        let pid = child.id();
        while identity::exists(pid) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().expect("waited");
        assert!(!identity::exists(pid));
    }

    #[test]
    fn a_lane_answers_to_the_beginning_of_its_names() {
        let lane = lane(Holder { pid: 1, started: 0, boot: String::new() });
        for text in ["ses_abcdefgh", "ses_abc", "abc", "req_7k2m9q4x", "7k2m"] {
            assert!(lane.answers_to(text), "{text}");
        }
        for text in ["", "ses_b", "bcd", "req_8"] {
            assert!(!lane.answers_to(text), "{text}");
        }
    }

    #[test]
    fn an_alias_reads_back_and_other_interfaces_are_not_taken_for_lanes() {
        let session = "ses_7k2m9q4x".parse().expect("an id");
        let asset: AssetName = "rtu-7".parse().expect("a name");
        let text = alias(session, 42, &asset);
        assert_eq!(text, "thinlane ses_7k2m9q4x pid 42 asset rtu-7");
        assert_eq!(parse_alias(&text), Some(Alias { session, pid: 42, asset: Some(asset) }));
        assert_eq!(parse_alias("thinlane ses_7k2m9q4x pid 42").map(|alias| alias.asset), Some(None));
        for other in [
            "",
            "thinlane",
            "thinlane gateway",
            "thinlane ses_7k2m9q4x",
            "thinlane ses_x pid 1",
            "my thinlane ses_7k2m9q4x pid 1",
        ] {
            assert_eq!(parse_alias(other), None, "{other}");
        }
    }
}
