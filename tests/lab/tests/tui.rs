//! The operator's screen as an operator uses it: in a terminal of 80 by 24, against a live lab, judged at the
//! controller and at the device.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Background, Case, Lab, main as run, now_ms, wait_until};

const CASES: &[Case] = &[
    ("the_right_peer_of_two_is_stopped_at_80_by_24", the_right_peer_is_stopped),
    ("a_request_is_approved_and_a_site_locked_in_place", a_request_is_approved_and_a_site_locked),
    ("a_controller_that_comes_back_is_followed_again", a_controller_that_comes_back_is_followed_again),
    ("a_clock_that_jumps_at_a_gateway_is_in_the_banner", a_clock_that_jumps_is_in_the_banner),
    ("a_log_in_that_has_ended_is_made_again_without_leaving", a_log_in_is_made_again),
    ("scripts_get_one_picture", scripts_get_one_picture),
];

fn main() -> ExitCode {
    run("ttui", CASES)
}

/// A terminal with `thinlane tui` in it; ended when dropped.
struct Terminal<'a> {
    lab: &'a Lab,
    socket: String,
}

impl<'a> Terminal<'a> {
    fn open(lab: &'a Lab, locale: &str) -> Result<Self> {
        let terminal = Self { lab, socket: format!("{}-{}", lab.name(), std::process::id()) };
        let pid = terminal.pid_file().display().to_string();
        let run = format!("echo $$ >{pid}; exec env LC_ALL={locale} thinlane tui");
        let inside = format!("sh -c '{run}'; stty -a; echo THE-END; sleep 60");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &inside])?;
        terminal.wait("live ")?;
        Ok(terminal)
    }

    /// Where the screen's process id stands.
    fn pid_file(&self) -> PathBuf {
        self.lab.root().join("tui.pid")
    }

    fn tmux(&self, words: &[&str]) -> Result<String> {
        let all = [&["tmux", "-u", "-L", &self.socket], words].concat();
        Ok(self.lab.on("olga", &all).run()?.good()?.stdout)
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(|_| ())
    }

    /// Sends the screen a signal, and looks at the terminal that it leaves behind.
    fn is_given_back_after(&self, signal: &str) -> Result<()> {
        let pid = std::fs::read_to_string(self.pid_file())?;
        self.lab.on("olga", &["kill", &format!("-{signal}"), pid.trim()]).run()?.good()?;
        let left = self.wait("THE-END")?;
        ensure!(left.contains(" icanon") && left.contains(" echo"), "{signal}: the terminal is still raw: {left}");
        // An answer of the terminal that came too late would stand here, and at a shell's prompt.
        ensure!(!left.contains("[0n"), "{signal}: {left}");
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        ensure!(state.trim() == "0 1", "{signal}: the other screen, or a hidden cursor: {state}");
        Ok(())
    }

    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows this.
    fn wait(&self, text: &str) -> Result<String> {
        let mut seen = String::new();
        let shown = wait_until(15_000, text, || {
            seen = self.screen()?;
            Ok(seen.contains(text))
        });
        shown.map(|()| seen.clone()).with_context(|| format!("the screen never showed {text:?}:\n{seen}"))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.lab.on("olga", &["tmux", "-L", &self.socket, "kill-server"]).run();
    }
}

fn the_right_peer_is_stopped(lab: &Lab) -> Result<()> {
    let north = lab.lane("north-plc1", "echo-tcp", "5m")?;
    let south = lab.lane("south-plc1", "echo-tcp", "8m")?;
    let echo = south.echo("tcp", "20ms", "60s")?;
    let terminal = Terminal::open(lab, "C.UTF-8")?;
    let seen = terminal.wait("south-plc1")?;
    ensure!(seen.contains("north-plc1") && seen.lines().count() <= 24, "{seen}");
    // The second row is south's: it has more time left.
    terminal.press(&["Down", "Down", "x"])?;
    let asked = terminal.wait("Enter does this")?;
    ensure!(asked.contains(&format!("Kill {}: erik (acme) on south-plc1 at south", south.session)), "{asked}");
    // The other one now has more time: the rows change places while the question stands.
    lab.thinlane("erik", &["extend", &north.session, "--for", "10m", "--reason", "test"]).run()?.good()?;
    wait_until(10_000, "the rows have changed places", || {
        let seen = terminal.screen()?;
        let place = |name: &str| {
            seen.lines().position(|line| line.contains("erik") && line.contains(name) && line.contains("echo"))
        };
        Ok(place("south-plc1") < place("north-plc1"))
    })?;
    terminal.press(&["wrong device"])?;
    terminal.press(&["Enter"])?;
    terminal.wait("is closed (killed)")?;
    let killed = south.show()?;
    ensure!(killed["state"] == "ended" && killed["end_reason"] == "killed", "{killed}");
    ensure!(
        killed["end_detail"].as_str().is_some_and(|why| why.contains("wrong device") && why.contains("olga")),
        "{killed}"
    );
    ensure!(north.show()?["state"] == "active", "the other one goes on");
    drop(echo);
    lab.device("south-1").quiet_after(now_ms())?;
    // Leaving gives the terminal back as it was.
    terminal.press(&["q"])?;
    let left = terminal.wait("THE-END")?;
    ensure!(left.contains(" icanon") && left.contains(" echo"), "the terminal is still raw: {left}");
    Ok(())
}

fn a_request_is_approved_and_a_site_locked(lab: &Lab) -> Result<()> {
    let terminal = Terminal::open(lab, "C")?;
    let asked = lab.json(
        "erik",
        &[
            "request",
            "create",
            "north-plc2",
            "--task",
            "echo-tcp",
            "--for",
            "2m",
            "--reason",
            "read the log",
            "--nowait",
        ],
    )?;
    let request = asked["id"].as_str().context("an id")?;
    terminal.wait("Requests 1!")?;
    terminal.press(&["2", "Down", "a"])?;
    let seen = terminal.wait("Enter does this")?;
    ensure!(
        seen.contains(&format!("Approve {request}: erik (acme) wants echo-tcp")) && seen.contains("read the log"),
        "{seen}"
    );
    ensure!(seen.is_ascii(), "this locale has no other letters: {seen}");
    terminal.press(&["called him", "Enter"])?;
    terminal.wait("is approved")?;
    let shown = lab.json("olga", &["request", "show", request])?;
    ensure!(shown["state"] == "approved" && shown["approvals"][0]["note"] == "called him", "{shown}");

    terminal.press(&["3", "Down", "l"])?;
    ensure!(terminal.wait("Enter does this")?.contains("Lock site north"), "another site");
    terminal.press(&["Enter"])?;
    terminal.wait("site north is locked")?;
    let locked = lab.json("olga", &["site", "show", "north"])?;
    ensure!(locked["locked"] == true, "{locked}");
    terminal.press(&["u"])?;
    terminal.wait("Unlock site north")?;
    terminal.press(&["Enter"])?;
    terminal.wait("site north is unlocked")?;
    ensure!(lab.json("olga", &["site", "show", "north"])?["locked"] == false, "still locked");
    Ok(())
}

fn a_controller_that_comes_back_is_followed_again(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "3m")?;
    let terminal = Terminal::open(lab, "C.UTF-8")?;
    terminal.wait("north-plc1")?;
    lab.script(&["controller", "kill"]).run()?.good()?;
    let seen = terminal.wait("NOT LIVE")?;
    ensure!(seen.contains("STALE") && seen.contains("north-plc1"), "{seen}");
    lab.script(&["controller", "start"]).run()?.good()?;
    wait_until(30_000, "the screen is live again", || {
        let seen = terminal.screen()?;
        Ok(!seen.contains("NOT LIVE") && seen.contains("live ") && seen.contains("north-plc1"))
    })?;
    lab.wait_ready("north")?;
    // What is done now is done by the controller that came back.
    terminal.press(&["Down", "x"])?;
    terminal.wait("Enter does this")?;
    terminal.press(&["Enter"])?;
    terminal.wait("is closed (killed)")?;
    ensure!(lane.show()?["end_reason"] == "killed");
    // Ended by a signal, it gives the terminal back as well.
    terminal.is_given_back_after("TERM")?;
    drop(terminal);
    Terminal::open(lab, "C")?.is_given_back_after("HUP")
}

fn a_clock_that_jumps_is_in_the_banner(lab: &Lab) -> Result<()> {
    let terminal = Terminal::open(lab, "C.UTF-8")?;
    let clock = lab.root().join("clock-of-south");
    std::fs::write(&clock, "+0\n")?;
    let (dir, run) = (lab.root().join("agent-south"), lab.root().join("run-south"));
    lab.agent_process("south", "stop")?;
    // The clock is what the file says, from one moment to the next.
    let script = format!(
        "exec env LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1) FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1 {} run --dir {} --run-dir {} --lan lan",
        clock.display(),
        lab.bin().join("thinlane-agent").display(),
        dir.display(),
        run.display()
    );
    let agent = Background::start(lab.on("south", &["sh", "-c", &script]))?;
    let seen = lab.wait_ready("south").and_then(|()| {
        // What came before is not what is looked for.
        terminal.press(&["m"])?;
        // A jump is one against an earlier look.
        std::thread::sleep(std::time::Duration::from_secs(3));
        std::fs::write(&clock, "+2h\n")?;
        // An idle agent looks at its clock when something else is due.
        wait_until(60_000, "the jump is in the banner", || {
            let seen = terminal.screen()?;
            Ok(seen.contains(" NOW") && seen.contains("south: the gateway's clock jumped"))
        })?;
        terminal.press(&["4", "End"])?;
        terminal.wait("the wall clock moved 2h ahead")?;
        terminal.press(&["m"])?;
        wait_until(15_000, "the banner is gone", || Ok(!terminal.screen()?.contains(" NOW")))
    });
    agent.signal("TERM")?;
    agent.finish(10_000)?;
    lab.agent_process("south", "start")?;
    seen
}

fn a_log_in_is_made_again(lab: &Lab) -> Result<()> {
    let lane = lab.lane("south-plc1", "echo-tcp", "3m")?;
    let terminal = Terminal::open(lab, "C.UTF-8")?;
    terminal.wait("south-plc1")?;
    terminal.press(&["Down", "/", "south", "Enter"])?;
    terminal.wait("filter \"south\"")?;
    // As after twelve hours: the controller knows the token no more.
    lab.thinlane("olga", &["logout"]).run()?.good()?;
    lab.script(&["controller", "stop"]).run()?.good()?;
    lab.script(&["controller", "start"]).run()?.good()?;
    terminal.wait("L logs in again")?;
    let setup: serde_json::Value = serde_json::from_slice(&std::fs::read(lab.root().join("olga.setup.json"))?)?;
    let code = setup["recovery_codes"][0].as_str().context("a recovery code")?;
    terminal.press(&["L", "olga-has-a-long-password", "Tab", code])?;
    let asked = terminal.wait("Log in again as olga")?;
    ensure!(!asked.contains("olga-has-a"), "a password is on the screen: {asked}");
    terminal.press(&["Enter"])?;
    terminal.wait("logged in as olga")?;
    let seen = terminal.wait("live ")?;
    ensure!(seen.contains("south-plc1") && seen.contains("filter \"south\""), "another view: {seen}");
    lab.wait_ready("south")?;
    // With the new log-in, on the row that was selected.
    terminal.press(&["x"])?;
    terminal.wait("Enter does this")?;
    terminal.press(&["Enter"])?;
    terminal.wait("is closed (killed)")?;
    ensure!(lane.show()?["end_reason"] == "killed");
    Ok(())
}

fn scripts_get_one_picture(lab: &Lab) -> Result<()> {
    let lane = lab.lane("south-plc2", "echo-udp", "1m")?;
    let whole = lab.json("olga", &["tui", "--once"])?;
    ensure!(whole["schema"] == 1 && whole["sessions"][0]["id"] == lane.session.as_str(), "{whole}");
    ensure!(whole["sites"].as_array().is_some_and(|sites| sites.len() == 2), "{whole}");
    let text = lab.thinlane("olga", &["tui", "--once", "--view", "sessions"]).run()?.good()?.stdout;
    ensure!(text.contains("south-plc2") && !text.contains('\u{1b}'), "{text}");
    lab.thinlane("olga", &["tui"]).run()?.exits(2)?;
    Ok(())
}
