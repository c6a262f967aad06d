//! `agent.toml`: what the site itself allows, whatever a controller may sign.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thinlane_model::{Span, TaskName};

use crate::files::{self, Dirs};

/// Where the file is looked for when there is none in the state directory.
pub const ETC: &str = "/etc/thinlane/agent.toml";
/// The longest file that is read, in bytes.
const MOST: u64 = 256 * 1024;

/// The whole file; every key may be absent, unknown ones are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// LAN interfaces; empty: looked up for each asset.
    #[serde(default)]
    pub lan: Vec<Iface>,
    #[serde(default)]
    pub ceiling: Ceiling,
    #[serde(default)]
    pub wireguard: Wireguard,
    /// A file whose presence isolates the site: a key switch wired to a GPIO, for example
    /// `/sys/class/gpio/gpio17/value`, which counts as on while it reads `1`.
    #[serde(default)]
    pub isolate_input: Option<PathBuf>,
}

/// Bounds on what any grant may open; an absent key sets no bound, an empty list allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Networks that assets' LAN addresses must be in.
    pub assets: Option<Vec<Network>>,
    #[serde(default, deserialize_with = "ports")]
    pub ports: Option<BTreeSet<u16>>,
    pub tasks: Option<BTreeSet<TaskName>>,
    /// The longest that one grant may last, from the moment it arrives.
    pub longest: Option<Span>,
}

/// `[wireguard]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wireguard {
    /// The UDP port to listen on; absent or 0: any, or the site's direct endpoint's.
    #[serde(default)]
    pub port: u16,
}

/// An IPv4 network such as `192.168.1.0/24`; without a length it is one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    pub address: Ipv4Addr,
    pub length: u8,
}

/// The name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Iface(String);

/// Why a text is neither a network nor an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("a network is written 192.168.1.0/24, not {0:?}")]
    Network(String),
    #[error("{given} has bits beyond its length: {meant} is meant")]
    HostBits { given: String, meant: String },
    #[error("an interface name has 1 to 15 letters, digits, dots, dashes or underscores, not {0:?}")]
    Iface(String),
    #[error("{0} is the agent's own interface, no LAN")]
    Own(String),
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("there is no {0}")]
    Absent(PathBuf),
    #[error("{path}: {message}")]
    Syntax { path: PathBuf, message: String },
}

impl Config {
    /// Reads `file`, or the first of the usual places that exists; the defaults where none does.
    pub fn load(file: Option<&Path>, dirs: &Dirs) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let places = match file {
            Some(file) => vec![file.to_owned()],
            None => vec![dirs.config(), PathBuf::from(ETC)],
        };
        for path in places {
            let read = files::read_bounded(&path, MOST);
            if let Some(bytes) = read.map_err(|source| ConfigError::Read { path: path.clone(), source })? {
                let text = String::from_utf8_lossy(&bytes);
                let config =
                    Self::parse(&text).map_err(|message| ConfigError::Syntax { path: path.clone(), message })?;
                return Ok((config, Some(path)));
            }
        }
        match file {
            Some(file) => Err(ConfigError::Absent(file.to_owned())),
            None => Ok((Self::default(), None)),
        }
    }

    /// Reads the text of a file; the error is one line that names the line and what is wrong there.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
            format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", "))
        })
    }
}

impl Iface {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Iface {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 15 || !text.bytes().all(plain) || text.starts_with('.') {
            return Err(ValueError::Iface(text.chars().take(40).collect()));
        }
        if text == "tl0" || text.starts_with("tl-") {
            return Err(ValueError::Own(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Iface {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(&self.0)
    }
}

impl FromStr for Network {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Network(text.chars().take(40).collect());
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let length: u8 = length.parse().ok().filter(|length| *length <= 32).ok_or_else(error)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let meant = Self { address: Ipv4Addr::from(u32::from(address) & mask), length };
        if meant.address != address {
            return Err(ValueError::HostBits { given: text.to_owned(), meant: meant.to_string() });
        }
        Ok(meant)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.address, self.length)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Iface {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

fn ports<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeSet<u16>>, D::Error> {
    let ports = Option::<BTreeSet<u16>>::deserialize(from)?;
    match &ports {
        Some(set) if set.contains(&0) => Err(serde::de::Error::custom("a port is 1 to 65535, not 0")),
        _ => Ok(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_says_what_it_says() {
        let config = Config::parse(
            "lan = [\"eth1\"]\n[ceiling]\nassets = [\"192.168.1.0/24\"]\nports = [2404, 502]\n\
             tasks = [\"modbus\"]\nlongest = \"1h\"\n[wireguard]\nport = 51820\n",
        )
        .expect("a right file");
        assert_eq!(config.lan, ["eth1".parse().expect("a name")]);
        assert_eq!(config.ceiling.longest, Some(Span::from_secs(3600)));
        assert_eq!(config.ceiling.ports, Some([502, 2404].into()));
        assert_eq!(config.wireguard.port, 51820);
    }

    #[test]
    fn an_absent_key_is_no_bound_and_an_empty_list_allows_nothing() {
        let config = Config::parse("[ceiling]\nports = []\n").expect("a right file");
        assert_eq!(config.ceiling.ports, Some(BTreeSet::new()));
        assert_eq!(config.ceiling.assets, None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_name() {
        let error = Config::parse("lan = []\n[ceiling]\nasets = []\n").expect_err("a wrong key");
        assert!(error.contains("line 3") && error.contains("asets") && error.contains("assets"), "{error}");
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for text in [
            "[ceiling]\nassets = [\"192.168.1.1/24\"]",
            "[ceiling]\nassets = [\"fe80::/10\"]",
            "[ceiling]\nports = [0]",
            "[ceiling]\nports = [70000]",
            "[ceiling]\nlongest = \"0s\"",
            "lan = [\"tl0\"]",
            "lan = [\"a very long interface name\"]",
            "lan = [\"../eth0\"]",
            "[wireguard]\nport = -1",
        ] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_named_file_that_is_absent_is_an_error_and_a_usual_place_that_is_empty_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs { dir: dir.path().into(), run: dir.path().into() };
        assert!(matches!(Config::load(Some(&dir.path().join("no")), &dirs), Err(ConfigError::Absent(_))));
        std::fs::write(dirs.config(), "").expect("written");
        assert_eq!(Config::load(None, &dirs).expect("defaults"), (Config::default(), Some(dirs.config())));
    }
}
