//! `scripts/flash` against real SSH servers: a router with a procd-like init, one with bare init scripts, a Debian.
//! Each ends with a lane, or with a page that says what to do; the plug is pulled on the way; nothing is left behind.

#[path = "flash/emulated.rs"]
mod emulated;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Case, Lab, Lane, Output, Shell, main_abreast as run, now_ms, wait_until};

/// The longest first: they run side by side, each at places of its own.
const CASES: &[Case] = &[
    ("flash_killed_and_power_lost_at_every_step_ends_green_when_run_again", power_lost_at_every_step),
    (
        "an_emulated_router_is_flashed_and_its_own_kernel_carries_a_lane",
        emulated::an_emulated_router_is_flashed_and_its_own_kernel_carries_a_lane,
    ),
    (
        "a_bare_router_is_flashed_carries_a_lane_keeps_it_over_an_upgrade_and_is_clean_again",
        a_router_from_bare_to_clean,
    ),
    ("what_is_wrong_is_said_in_red_with_the_next_step", what_is_wrong_is_said_in_red),
    ("a_debian_gets_its_package_with_a_user_of_its_own_and_purges_it_whole", a_debian_gets_its_package),
    ("settings_that_could_be_misread_start_no_agent", settings_that_could_be_misread),
    ("a_stick_works_once_without_ssh", a_stick_works_once),
];
/// Most of their time is waiting: for SSH, for a certificate, for an agent to be ready.
const ABREAST: usize = 3;

fn main() -> ExitCode {
    run("tflash", CASES, ABREAST)
}

/// One more site with a gateway that knows nothing of Thinlane yet; gone when dropped.
struct Place<'a> {
    lab: &'a Lab,
    name: &'static str,
    artefacts: PathBuf,
}

impl<'a> Place<'a> {
    /// Names have their own network behind the carrier: one number each.
    fn up(lab: &'a Lab, kind: &str, name: &'static str, number: u8) -> Result<Self> {
        let place = Self { lab, name, artefacts: artefacts(lab)? };
        place.script(&["up", kind, name, &number.to_string()]).run()?.good()?;
        lab.thinlane("ada", &["site", "add", name]).run()?.good()?;
        let asset = format!("{name}-plc1");
        lab.thinlane("ada", &["asset", "add", &asset, "--site", name, "--address", "192.168.1.10", "--type", "plc"])
            .run()?
            .good()?;
        Ok(place)
    }

    fn script(&self, words: &[&str]) -> Shell {
        Shell::new(checkout().join("tests/flash/place"))
            .args(words)
            .env("THINLANE_LAB", self.lab.name())
            .env("THINLANE_BIN", &self.lab.bin().to_string_lossy())
            .env("THINLANE_ARTEFACTS", &self.artefacts.to_string_lossy())
            .env("THINLANE_ROUTER", &self.lab.root().join("router").to_string_lossy())
            .env("NO_COLOR", "1")
    }

    /// What the technician types after the host: a code of this site, and where the controller is.
    fn enrolment(&self) -> Result<Vec<String>> {
        let file = self.lab.root().join(format!("{}.code", self.name));
        let _ = std::fs::remove_file(&file);
        let path = file.to_string_lossy().into_owned();
        self.lab.thinlane("ada", &["site", "token", self.name, "--out", &path]).run()?.good()?;
        let print = std::fs::read_to_string(self.lab.root().join("fingerprint"))?.trim().to_owned();
        let words = ["--code-file", &path, "--controller", "198.51.100.2:7443", "--ca-fingerprint", &print];
        Ok(words.map(str::to_owned).to_vec())
    }

    fn flash(&self, words: &[impl AsRef<str>]) -> Result<Output> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        self.script(&[&["flash", self.name], &words[..]].concat()).run()
    }

    /// A command on the gateway, over SSH.
    fn on(&self, command: &str) -> Result<Output> {
        self.script(&["exec", self.name, command]).run()
    }

    /// Upgrades the gateway while somebody works: the device sees one connection, that goes on.
    fn upgrade_under(&self, lane: &Lane<'_>) -> Result<()> {
        let device = self.lab.device(&format!("{}-1", self.name));
        let before = now_ms();
        let _talk = lane.patient_echo("tcp", "50ms", "2m")?;
        device.wait_for(5, before).context("before the upgrade")?;
        let connected = now_ms();
        let page = self.flash(&["--upgrade"])?.good()?.says("open lanes before: 1")?.says("[7/7] check")?;
        self.is_green(&page)?;
        device.wait_for(5, now_ms()).context("after the upgrade")?;
        ensure!(device.count_since("connected", connected)? == 0, "the connection did not outlive the upgrade");
        Ok(())
    }

    /// The whole line of the green page, with the version of the agent that runs.
    fn is_green(&self, page: &Output) -> Result<()> {
        let system = match self.on("cat /etc/openwrt_release /etc/os-release 2>/dev/null")?.stdout {
            text if text.contains("OpenWrt") => "OpenWrt 23.05 (a stand-in)".to_owned(),
            text => {
                text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).context("its name")?.replace('"', "")
            }
        };
        let version = env!("CARGO_PKG_VERSION");
        let line = format!("\n  192.168.1.1 is ready as site {}: agent {version}, {system}.\n", self.name);
        ensure!(page.stdout.contains("==== GREEN") && page.stdout.contains(&line), "{line:?} in {}", page.stdout);
        ensure!(!format!("{page:?}").contains("thinlane-agent run"), "what is done already is asked for: {page:?}");
        Ok(())
    }

    /// The gateway's kernel and flash hold what they held before the first step.
    fn is_as_before(&self) -> Result<()> {
        let changes = self.script(&["changes", self.name]).run()?;
        ensure!(changes.code == 0, "left on the gateway:\n{}", changes.stdout);
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ = self.script(&["down", self.name]).run();
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `scripts/package` makes of the agent that was built beside this test, made once; or of `THINLANE_ARTEFACTS`.
fn artefacts(lab: &Lab) -> Result<PathBuf> {
    match std::env::var_os("THINLANE_ARTEFACTS") {
        Some(given) => Ok(given.into()),
        None => package(lab, "package", &[]),
    }
}

fn package(lab: &Lab, name: &str, more: &[&str]) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let out = lab.root().join(name);
    if !out.join("SHA256SUMS").exists() {
        let only = lab.root().join("only-the-agent");
        std::fs::create_dir_all(&only)?;
        std::fs::copy(lab.bin().join("thinlane-agent"), only.join("thinlane-agent"))?;
        let words = ["--no-sbom", "--bin", &only.to_string_lossy(), "--out", &out.to_string_lossy()].map(str::to_owned);
        Shell::new(checkout().join("scripts/package")).args(&words).args(more).run()?.good()?;
    }
    Ok(out)
}

fn a_router_from_bare_to_clean(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "opkg", "west", 11)?;
    let look = place.flash(&["--dry-run"])?.good()?;
    for word in ["OpenWrt 23.05", "procd", "x86_64", "Nothing was changed"] {
        ensure!(look.stdout.contains(word), "{word} is missing: {}", look.stdout);
    }
    ensure!(!look.stdout.contains("unknown"), "what this kernel can: {}", look.stdout);
    place.flash(&["--upgrade", "--dry-run"])?.exits(1)?.says("no agent on this gateway to upgrade")?;
    place.is_as_before()?;
    let enrolment = place.enrolment()?;
    stopped_on_the_way(&place, &enrolment)?;
    let page = place.flash(&enrolment)?.good()?.says("[9/9] tidy up")?;
    place.is_green(&page)?;
    // Only looked at, in either order of the words.
    for words in [["--dry-run", "--uninstall"], ["--uninstall", "--dry-run"]] {
        place.flash(&words)?.good()?.says("close every lane, stop the agent")?.says("Nothing was changed")?;
    }
    for words in [["--dry-run", "--upgrade"], ["--upgrade", "--dry-run"]] {
        place.flash(&words)?.good()?.says("keep the identity it has")?.says("Nothing was changed")?;
    }
    place.on("thinlane-agent status --check ready")?.good()?;
    let zone =
        place.on("uci get firewall.thinlane_lan.dest; cat /lib/upgrade/keep.d/thinlane; ls /tmp/thinlane-flash")?;
    ensure!(zone.stdout.starts_with("lan\n") && zone.stdout.contains("/etc/thinlane/"), "{zone:?}");
    ensure!(zone.stderr.contains("/tmp/thinlane-flash"), "the staging directory is still there");
    // A second time is no second enrolment: the code is used, and that does no harm.
    place.flash(&enrolment)?.good()?.says("enrolled already")?;

    let lane = lab.lane("west-plc1", "echo-tcp", "2m")?;
    lane.exchange("tcp")?.good()?;
    // A newer package, and settings that somebody changed meanwhile: both stay.
    place.on("uci set thinlane.ceiling.longest=3h")?.good()?;
    let newer = package(lab, "package-newer", &["--version", "9.0.0"])?;
    let newer = Place { artefacts: newer, ..place };
    newer.upgrade_under(&lane)?;
    drop(lane);
    newer.on("opkg list-installed; uci get thinlane.ceiling.longest")?.says("thinlane-agent - 9.0.0")?.says("3h")?;
    let place = newer;

    // A reboot: boot, not start.
    place.script(&["power", "west"]).run()?.good()?;
    wait_until(20_000, "the rebooted gateway is ready", || {
        Ok(place.on("thinlane-agent status --check ready")?.code == 0)
    })?;
    let gone = place.flash(&["--uninstall"])?.good()?;
    ensure!(gone.stdout.contains("GREEN"), "{}", gone.stdout);
    place.is_as_before()
}

/// Ctrl-C, while a step is under way: the page says how the gateway is then, and nothing lies there half copied.
fn stopped_on_the_way(place: &Place<'_>, enrolment: &[String]) -> Result<()> {
    let words: Vec<&str> = enrolment.iter().map(String::as_str).collect();
    for step in ["2", "3", "5"] {
        let page = place.script(&[&["stop-at", step, place.name], &words[..]].concat()).run()?.exits(130)?;
        let page = page.says("==== STOPPED")?.says("next: run the same command again")?.stdout;
        let is = "command -v thinlane-agent >/dev/null && echo agent; [ -s /etc/thinlane/state/identity.json ] && echo enrolled; ls -A /tmp/thinlane-flash";
        let is = place.on(is)?;
        let installed = page.contains(&format!("On 192.168.1.1 now: agent {}", env!("CARGO_PKG_VERSION")));
        let enrolled = page.contains(", enrolled,");
        ensure!(is.stdout.contains("agent") == installed, "{is:?} after {page}");
        ensure!(is.stdout.contains("enrolled") == enrolled, "{is:?} after {page}");
        ensure!(is.stderr.contains("No such file"), "half a copy lies there: {is:?}");
    }
    Ok(())
}

fn power_lost_at_every_step(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "openwrt", "cut", 13)?;
    let mut enrolment = place.enrolment()?;
    let cut_at = |step: u32, words: &[String]| -> Result<Output> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.script(&[&["cut-at", &step.to_string(), "cut"], &words[..]].concat()).run()
    };
    for step in 1..=9 {
        let mut cut = cut_at(step, &enrolment)?;
        if cut.code != 0 && cut.stdout.contains("the controller refused the code") {
            enrolment = a_new_code(&place, cut)?;
            cut = cut_at(step, &enrolment)?;
        }
        cut.good()?;
        // No half-written program or identity is ever taken for a whole one.
        let halves = place.on("find / -xdev -name '*.new[0-9]*' -path '*thinlane*'; cat /etc/thinlane/state/identity.json 2>/dev/null | tail -c 2")?;
        ensure!(
            halves.stdout.is_empty() || halves.stdout.contains('}') || halves.stdout.contains(".new"),
            "{halves:?}"
        );
    }
    let mut page = place.flash(&enrolment)?;
    if page.code == 3 {
        enrolment = a_new_code(&place, page)?;
        page = place.flash(&enrolment)?;
    }
    page.good()?.says("GREEN")?;
    let rest =
        place.on("find / -xdev -name '*.new[0-9]*' -path '*thinlane*'; find / -xdev -name '.identity.json.*'")?;
    ensure!(rest.stdout.is_empty(), "left from the cuts: {}", rest.stdout);
    let lane = lab.lane("cut-plc1", "echo-tcp", "1m")?;
    lane.exchange("tcp")?.good()?;
    drop(lane);
    place.flash(&["--uninstall"])?.good()?;
    place.is_as_before()
}

/// The plug was pulled between the controller's answer and the flash: the one moment that costs a code, and the page says so.
fn a_new_code(place: &Place<'_>, page: Output) -> Result<Vec<String>> {
    page.says("==== RED")?.says("thinlane site token")?;
    place.enrolment()
}

fn what_is_wrong_is_said_in_red(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "openwrt", "red", 14)?;
    let right = place.enrolment()?;
    let with = |flag: &str, value: &str| -> Vec<String> {
        let mut words = right.clone();
        let at = words.iter().position(|word| word == flag).expect("a flag of the enrolment");
        words[at + 1] = value.to_owned();
        words
    };
    let red = |words: &[String], code: i32, says: &str| -> Result<()> {
        place.flash(words)?.exits(code)?.says("==== RED")?.says(says)?.says("next:").map(|_| ())
    };
    let nowhere = [&right[..], &["--lan".to_owned(), "nope0".to_owned()]].concat();
    red(&nowhere, 1, "there is no interface nope0 here")?;
    the_way_in(lab, &place, &right)?;
    // Where the identity could not be kept no code is spent: the same one is good for all that follows.
    for (mount, says) in [
        ("ro", "/etc/thinlane is read-only: the identity cannot be kept there"),
        ("size=32k", "64 KB are needed in /etc/thinlane for the identity"),
    ] {
        place.on(&format!("mkdir /etc/thinlane && mount -t tmpfs -o {mount} none /etc/thinlane"))?.good()?;
        let refused = red(&right, 1, says);
        place.on("umount /etc/thinlane && rmdir /etc/thinlane")?.good()?;
        refused?;
    }
    place.is_as_before()?;
    red(&with("--controller", "198.51.100.2:9"), 6, "cannot reach the controller")?;
    let other = format!("sha256:{}", "0".repeat(64));
    red(&with("--ca-fingerprint", &other), 7, "the fingerprint is not the expected one")?;
    let wrong = lab.root().join("wrong.code");
    std::fs::write(&wrong, "aaaa-bbbb-cccc\n")?;
    let refused = with("--code-file", &wrong.to_string_lossy());
    red(&refused, 3, "the controller refused the code")?;
    place.flash(&refused)?.exits(3)?.says("To take program and firewall zone away:\n")?.says(" --uninstall\n")?;
    let page = place.flash(&["--code-file", &wrong.to_string_lossy()])?.exits(2)?;
    ensure!(page.stderr.contains("which controller?") && !page.stdout.contains("[1/"), "{page:?}");
    // An artefact that was changed on the laptop never reaches the gateway.
    let spoiled = lab.root().join("spoiled");
    Shell::new("cp").args(&["-r", &place.artefacts.to_string_lossy(), &spoiled.to_string_lossy()]).run()?.good()?;
    let archive = std::fs::read_dir(&spoiled)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("-x86_64.tar.gz"))
        .context("an archive")?;
    let mut bytes = std::fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes)?;
    let mut words = right.clone();
    words.extend(["--artefacts".into(), spoiled.to_string_lossy().into_owned()]);
    red(&words, 7, "checksum")?;
    // The clocks are days apart: certificates could not be judged, so the plan says that it will be set from the laptop.
    // This gateway may not set its clock (it is this machine's); that is said, and the rest goes on.
    let tools = lab.root().join("tools");
    std::fs::create_dir_all(&tools)?;
    std::fs::write(tools.join("date"), "#!/bin/sh\necho $(($(/usr/bin/date +%s) + 200000))\n")?;
    Shell::new("chmod").args(&["755", &tools.join("date").to_string_lossy()]).run()?.good()?;
    let path = format!("{}:{}", tools.display(), std::env::var("PATH")?);
    let words: Vec<&str> = right.iter().map(String::as_str).collect();
    let page =
        place.script(&[&["flash", "red"], &words[..]].concat()).env("PATH", &path).run()?.good()?.says("GREEN")?;
    for said in ["set the clock from the laptop", "s off and cannot be set"] {
        ensure!(page.stdout.contains(said), "{said}: {}", page.stdout);
    }
    // No signal any more: the agent runs and is not ready, and the page says why.
    let gateway = format!("{}-red", lab.name());
    Shell::new("ip").args(&["-n", &gateway, "route", "del", "default"]).run()?.good()?;
    let page = place.flash(&["--upgrade", "--patience", "6"])?.exits(1)?.says("==== RED")?;
    page.says("the channel to 198.51.100.2:7443")?.says("there is no default route")?;
    Ok(())
}

/// What keeps a technician from the router itself.
fn the_way_in(lab: &Lab, place: &Place<'_>, right: &[String]) -> Result<()> {
    let page = |more: &[&str], code: i32, says: &str| -> Result<Output> {
        let more = more.iter().map(ToString::to_string);
        let page = place.flash(&right.iter().cloned().chain(more).collect::<Vec<_>>())?.exits(code)?;
        page.says("==== RED")?.says("Nothing was changed on the gateway.")?.says(says)
    };
    page(&["--port", "9"], 6, "192.168.1.1 is there, but takes no SSH on port 9")?;
    page(&["--user", "nobody"], 6, "192.168.1.1 does not let nobody in")?;
    let old = "KexAlgorithms=diffie-hellman-group1-sha1";
    page(&["--ssh-option", old], 6, "the SSH of 192.168.1.1 is too old")?;
    let known = PathBuf::from(format!("/var/tmp/thinlane-box-{}-{}/known", lab.name(), place.name));
    let seen = std::fs::read(&known)?;
    let key = lab.root().join("another-key");
    Shell::new("ssh-keygen").args(&["-q", "-t", "ed25519", "-N", "", "-f", &key.to_string_lossy()]).run()?.good()?;
    std::fs::write(&known, format!("192.168.1.1 {}", std::fs::read_to_string(key.with_extension("pub"))?))?;
    let other = page(&[], 7, "192.168.1.1 shows another SSH key than the last time");
    std::fs::write(&known, seen)?;
    other?.says("ssh-keygen -R '192.168.1.1'").map(|_| ())
}

fn a_debian_gets_its_package(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "debian", "deb", 15)?;
    place.flash(&place.enrolment()?)?.good()?.says("GREEN")?.says("amd64.deb")?;
    let owner = place.on("stat -c '%U %a' /var/lib/thinlane; dpkg-query -W thinlane-agent; for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in /usr/sbin/thinlane-agent*) grep -E '^(Uid|CapEff)' $p/status; esac; done")?.good()?;
    ensure!(owner.stdout.contains("thinlane-agent 700"), "{}", owner.stdout);
    ensure!(
        !owner.stdout.contains("Uid:\t0\t") && owner.stdout.contains("CapEff:\t0000000000001000"),
        "{}",
        owner.stdout
    );
    let lane = lab.lane("deb-plc1", "echo-tcp", "2m")?;
    place.upgrade_under(&lane)?;
    drop(lane);
    place.flash(&["--uninstall"])?.good()?;
    let left = place.on("getent passwd thinlane-agent; dpkg-query -W thinlane-agent; find /etc /usr /lib /var /run -xdev -name '*thinlane*' -newer /opt/ssh/host -not -path '/var/tmp/*'")?;
    ensure!(left.stdout.is_empty(), "left behind: {}", left.stdout);
    Ok(())
}

fn a_stick_works_once(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "buildroot", "stick", 16)?;
    let tar = lab.root().join("site.tar");
    let bundle = tar.to_string_lossy().into_owned();
    let mut words = vec!["--bundle".to_owned(), bundle.clone(), "--artefacts".to_owned()];
    words.push(place.artefacts.to_string_lossy().into_owned());
    words.extend(place.enrolment()?);
    let flash = |words: &[String]| Shell::new(checkout().join("scripts/flash")).args(words).run();
    flash(&[&words[..], &["--dry-run".to_owned()]].concat())?.good()?.says("Nothing was written")?;
    ensure!(!tar.exists(), "a bundle was made although only the plan was asked for");
    flash(&words)?.good()?;
    let holds = Shell::new("tar").args(&["-tf", &bundle]).run()?.good()?.stdout;
    ensure!(holds.contains("-x86_64.tar.gz") && !holds.contains("sdk"), "{holds}");
    use std::os::unix::fs::PermissionsExt;
    ensure!(std::fs::metadata(&tar)?.permissions().mode() & 0o777 == 0o600, "a code is in it");
    // The stick: it lies in the gateway's own file system, and nothing of ours is asked from outside.
    let place_files = format!("/var/tmp/thinlane-box-{}-stick/root/mnt", lab.name());
    std::fs::create_dir_all(&place_files)?;
    std::fs::copy(&tar, format!("{place_files}/site.tar"))?;
    // Settings that the agent cannot read: it does not stay up, and the page says so, and what it said last.
    let stick = "tar -xf /mnt/site.tar -C /tmp && sh /tmp/thinlane-site/install.sh all patience=5; echo code $?";
    let broken = format!("mkdir -p /etc/thinlane && echo 'lane = 1' >/etc/thinlane/agent.toml; {stick}");
    let red = place.on(&broken)?.says("==== RED")?.says("code 4")?.says("the agent is started and does not stay up")?;
    red.says("agent.toml")?.says("To go on: mend it, then sh /tmp/thinlane-site/install.sh")?;
    let done =
        place.on("rm -r /etc/thinlane; sh /tmp/thinlane-site/install.sh; echo code $?; ls /tmp/thinlane-site")?;
    ensure!(done.stdout.contains("==== GREEN") && done.stdout.contains("code 0"), "{done:?}");
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("\n  This gateway is ready as site stick: agent {version}, Buildroot 2023.02 (a stand-in).\n");
    ensure!(done.stdout.contains(&line), "{line:?} in {done:?}");
    ensure!(done.stderr.contains("/tmp/thinlane-site: No such file"), "the used bundle lies there still: {done:?}");
    let lane = lab.lane("stick-plc1", "echo-udp", "1m")?;
    lane.exchange("udp")?.good()?;
    drop(lane);
    // The same stick on a gateway without an identity: the code has been used.
    place.on("thinlane-agent cleanup --forget")?.good()?;
    let again = place.on(stick)?.says("==== RED")?.says("the controller refused the code")?.says("code 3")?;
    again.says("thinlane site token")?.says("To take it away: sh /tmp/thinlane-site/install.sh uninstall")?;
    place.on("sh /tmp/thinlane-site/install.sh uninstall; rm -rf /mnt/site.tar")?.good()?;
    place.is_as_before()
}

fn settings_that_could_be_misread(lab: &Lab) -> Result<()> {
    let place = Place::up(lab, "openwrt", "uci", 17)?;
    // From a laptop without a log-in: where the controller is stands in the file.
    let told = lab.thinlane("ada", &["site", "token", "uci", "--json"]).run()?.good()?.stdout;
    let file = lab.root().join("uci.json");
    std::fs::write(&file, told)?;
    place.flash(&["--code-file", &file.to_string_lossy()])?.good()?.says("==== GREEN")?;
    let toml = |change: &str| -> Result<Output> { place.on(&format!("{change}; /usr/lib/thinlane/uci-to-toml")) };
    let fine = toml("uci add_list thinlane.ceiling.asset=192.168.1.0/28; uci add_list thinlane.ceiling.asset=192.168.1.64/28; uci add_list thinlane.ceiling.port=7; uci set thinlane.ceiling.longest=1h")?.good()?;
    fine.says("assets = [\"192.168.1.0/28\", \"192.168.1.64/28\"]")?.says("ports = [7]")?.says("longest = \"1h\"")?;
    place.on("/etc/init.d/thinlane restart")?.good()?;
    wait_until(20_000, "the gateway is ready with its ceiling", || {
        Ok(place.on("thinlane-agent status --check ready")?.code == 0)
    })?;
    lab.lane("uci-plc1", "echo-tcp", "1m")?.exchange("tcp")?.good()?;
    ensure!(lab.lane("uci-plc1", "modbus", "1m").is_err(), "a port beyond the ceiling was opened");
    for hostile in ["thinlane.ceiling.port=7]#", "thinlane.ceiling.longest=1h\"", "thinlane.ceiling.ports=7"] {
        let (key, _) = hostile.split_once('=').context("key=value")?;
        let before = place.on(&format!("uci -q get {key}"))?.stdout.trim().to_owned();
        let refused = toml(&format!("uci set '{hostile}'"))?.exits(1)?;
        ensure!(refused.stdout.is_empty() || !refused.stdout.contains("[ceiling]"), "{refused:?}");
        let restart = place.on("/etc/init.d/thinlane restart; sleep 1; thinlane-agent status --check live")?;
        ensure!(restart.code != 0, "the agent runs with settings that it cannot have read");
        let back = if before.is_empty() { format!("uci delete {key}") } else { format!("uci set {key}={before}") };
        place.on(&back)?.good()?;
    }
    Ok(())
}
