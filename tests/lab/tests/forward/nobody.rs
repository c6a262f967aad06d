//! Somebody without any right, with a home of their own; and the device they talk to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Background, Lab, Output, Shell, wait_until};

/// `nobody` of Debian.
const ID: &str = "65534";

/// Erik's log-in, used by a person who may do nothing on the machine.
pub struct Nobody<'a> {
    lab: &'a Lab,
    dir: PathBuf,
}

/// A lane that runs in the background.
pub struct Held {
    pub running: Background,
    pub port: u64,
    pub session: String,
}

impl<'a> Nobody<'a> {
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("thinlane-nobody-{}", lab.name()));
        let nobody = Self { lab, dir };
        nobody.clear();
        std::fs::create_dir_all(&nobody.dir)?;
        std::fs::set_permissions(&nobody.dir, std::fs::Permissions::from_mode(0o755))?;
        // The checkout may lie where others cannot look.
        let program = lab.bin().join("thinlane");
        if std::fs::hard_link(&program, nobody.path("thinlane")).is_err() {
            std::fs::copy(&program, nobody.path("thinlane"))?;
        }
        for name in ["client.py", "iec104.py"] {
            std::fs::copy(script(name), nobody.path(name))?;
        }
        let home = lab.root().join("home-erik").to_string_lossy().into_owned();
        let words = format!(
            "set -e; cp -a {home} {0}/home; mkdir {0}/said; chown -R {ID}:{ID} {0}/home {0}/said; chmod 644 {0}/*.py",
            nobody.dir.display()
        );
        Shell::new("sh").args(&["-c", &words]).run()?.good()?;
        Ok(nobody)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// A command in Erik's network, without any right.
    fn powerless(&self, command: &[&str]) -> Shell {
        let drop = [
            "setpriv",
            "--reuid",
            ID,
            "--regid",
            ID,
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
        ];
        self.lab.on("erik", &[&drop, command].concat())
    }

    /// `thinlane ARGS`.
    pub fn thinlane(&self, args: &[&str]) -> Shell {
        let (program, home) = (self.text("thinlane"), self.text("home"));
        self.powerless(&[&[program.as_str(), "--home", &home], args].concat())
    }

    /// The same as root, with the same home.
    pub fn as_root(&self, args: &[&str]) -> Shell {
        self.lab.on("erik", &[&["thinlane", "--home", &self.text("home")], args].concat())
    }

    /// Connects, runs one act of the tool inside, and ends; it must succeed.
    pub fn client(&self, request: &str, act: &str, number: &str) -> Result<Output> {
        let client = self.text("client.py");
        let words = ["connect", request, "--forward", "--", "/usr/bin/python3", &client, act, number];
        self.thinlane(&words).run()?.good()
    }

    /// Connects, has a control centre ask and command through it, and ends; `modules` is where its library is.
    pub fn control_centre(&self, request: &str, modules: &str) -> Result<Output> {
        let (script, modules) = (self.text("iec104.py"), format!("PYTHONPATH={modules}"));
        let words = ["connect", request, "--forward", "--", "env", &modules, "/usr/bin/python3", &script, "ask"];
        self.thinlane(&words).run()?.good()
    }

    /// The same with several acts.
    pub fn client_script(&self, request: &str, acts: &[&str]) -> Result<Output> {
        let each: Vec<String> =
            acts.iter().map(|act| format!("/usr/bin/python3 {} {act}", self.text("client.py"))).collect();
        self.thinlane(&["connect", request, "--forward", "--", "sh", "-c", &each.join(" && ")]).run()?.good()
    }

    /// Holds a lane in the background until it is up.
    pub fn hold(&self, request: &str, way: &[&str]) -> Result<Held> {
        let (program, home, said) = (self.text("thinlane"), self.text("home"), self.text("said/lane"));
        let _ = std::fs::remove_file(&said);
        let script = format!("exec {program} --home {home} connect {request} {} --json >{said}", way.join(" "));
        let running = Background::start(self.powerless(&["sh", "-c", &script]))?;
        let up = || -> Option<serde_json::Value> {
            let lines = self.said("lane");
            let up = lines.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())?;
            (up["event"] == "up").then_some(up)
        };
        wait_until(20_000, "the lane is up", || Ok(up().is_some()))?;
        let up = up().context("up")?;
        ensure!(up["iface"].is_null() && up["asset_address"].as_str().is_some(), "{up}");
        let local = up["forward"].as_str().context("`up` has no forward")?;
        let port = local.strip_prefix("127.0.0.1:").context("not on 127.0.0.1")?.parse()?;
        Ok(Held { running, port, session: up["session"].as_str().context("a session")?.to_owned() })
    }

    /// One act of the tool beside a lane that is held; what it says goes to a file.
    pub fn tool(&self, held: &Held, act: &str) -> Shell {
        let script = format!(
            "exec env THINLANE_ASSET_ADDRESS=127.0.0.1 THINLANE_ASSET_PORT={} /usr/bin/python3 {} {act} >{}",
            held.port,
            self.text("client.py"),
            self.text(&format!("said/{act}"))
        );
        self.powerless(&["sh", "-c", &script])
    }

    /// What was said into a file.
    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("said").join(name)).unwrap_or_default()
    }

    /// No lane is remembered, no local port listens.
    pub fn is_clean(&self) -> Result<()> {
        let lanes = Shell::new("find").args(&[&self.text("home"), "-path", "*lanes*", "-name", "*.json"]).run()?.stdout;
        ensure!(lanes.is_empty(), "remembered still: {lanes}");
        Ok(())
    }
}

impl Drop for Nobody<'_> {
    fn drop(&mut self) {
        let _ = self.thinlane(&["down"]).run();
        self.clear();
    }
}

/// Our own device behind `north-plc1`, on the port of `iec104`.
pub struct Server {
    _running: Background,
}

impl Server {
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::listening(lab, &["/usr/bin/python3", &script("server.py"), "192.168.1.10", "2404"])
    }

    /// Somebody else's substation.
    pub fn substation(lab: &Lab, modules: &str) -> Result<Self> {
        let (script, modules) = (script("iec104.py"), format!("PYTHONPATH={modules}"));
        Self::listening(lab, &["env", &modules, "/usr/bin/python3", &script, "serve", "192.168.1.10", "2404"])
    }

    fn listening(lab: &Lab, words: &[&str]) -> Result<Self> {
        let running = Background::start(lab.on("north-1", words))?;
        wait_until(10_000, "the device listens", || {
            Ok(lab.on("north-1", &["ss", "-Htln", "sport", "=", "2404"]).run()?.stdout.contains("2404"))
        })?;
        Ok(Self { _running: running })
    }
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward").join(name).to_string_lossy().into_owned()
}
