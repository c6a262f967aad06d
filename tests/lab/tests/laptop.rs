//! `scripts/flash` on the technician's laptop, without a gateway: what it says of what `ssh` says, of what was typed, and
//! when it is stopped. An `ssh` of ours stands in for the real one and its gateway.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Says what it is told to say, and ends as `ssh` does; or is a gateway that takes everything it is sent.
const SSH: &str = r#"#!/bin/sh
for command in "$@"; do :; done
case " $* " in
    *' -O exit '*) exit 0 ;;
    *' ControlMaster=yes '*)
        [ -n "$SAYS" ] || exit 0
        printf '%s\n' "$SAYS" >&2
        exit 255 ;;
esac
echo "$command" >>"$HOME/asked"
case $command in *'install.sh enrol '*) cat >"$HOME/enrolled-with" ;; *) cat >/dev/null ;; esac
# Ctrl-C reaches everybody at the terminal.
case $STOP in '') ;; *) case $command in *"$STOP"*) [ -e "$HOME/stopped" ] || { : >"$HOME/stopped"; kill -INT 0; } ;; esac ;; esac
installed=none
grep -q 'install.sh put' "$HOME/asked" && installed=0.1.0
case $command in
    *'sh -s look'*) printf '%s\n' arch=x86_64 machine=x86_64 packager=none "installed=$installed" enrolled=no running=no system=Box uid=0 ;;
    *'sh -s plan'*) echo 'This gateway'; printf '%s\n' "$HURDLE" ;;
esac
"#;
const ARCHIVE: &str = "thinlane-agent-0.1.0-x86_64.tar.gz";

/// A home, artefacts, a code, and our `ssh` in front of the real one.
struct Laptop(TempDir);

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Laptop {
    fn new() -> Self {
        let laptop = Self(tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(laptop.at("bin")).expect("made");
        laptop.program("ssh", SSH);
        std::fs::create_dir(laptop.at("package")).expect("made");
        std::fs::write(laptop.at("package/install.sh"), "exit 0\n").expect("written");
        std::fs::write(laptop.at("package").join(ARCHIVE), "an archive").expect("written");
        std::fs::write(laptop.at("code"), "abcde-fghij-kmnpq-rstvw\n").expect("written");
        let sums = format!("cd package && sha256sum install.sh {ARCHIVE} >SHA256SUMS");
        let done = Command::new("sh").args(["-c", &sums]).current_dir(laptop.0.path()).status().expect("sh runs");
        assert!(done.success());
        laptop
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.at("asked")).unwrap_or_default()
    }

    fn flash(&self, words: &[&str], env: &[(&str, &str)]) -> Said {
        use std::os::unix::process::CommandExt;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/flash");
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").expect("a path"));
        // Where the tests were started in the background Ctrl-C would be ignored.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(script).args(words).current_dir(self.0.path());
        command.env_clear().env("PATH", path).env("HOME", self.0.path()).env("NO_COLOR", "1").env("STOP", "");
        command.env("SAYS", "").env("HURDLE", "").envs(env.iter().copied()).process_group(0);
        let output = command.output().expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The whole way, with everything that it needs.
    fn enrol(&self, more: &[&str], env: &[(&str, &str)]) -> Said {
        let print = format!("sha256:{}", "0".repeat(64));
        let words =
            ["192.168.1.1", "--artefacts", "package", "--code-file", "code", "--controller", "c.example:7443", "--yes"];
        self.flash(&[&words[..], &["--ca-fingerprint", &print], more].concat(), env)
    }
}

impl Said {
    #[track_caller]
    fn is(&self, code: i32, parts: &[&str]) {
        let all = format!("exit {:?}\n{}\n{}", self.code, self.out, self.err);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(self.out.contains(part), "{part:?} is not said: {all}");
        }
    }
}

/// As OpenSSH 9 says it.
const CHANGED: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:XMq0/8duAtaGfsy6TVL2b0+E5Hc0ibfVHBQCX42Xjbs.
Host key for [192.168.1.1]:2222 has changed and you have requested strict checking.
Host key verification failed.";

#[test]
fn flash_tells_the_failures_of_ssh_apart_and_says_what_to_do() {
    let offer = "Unable to negotiate with 192.168.1.1 port 22: no matching";
    let host_key = format!("{offer} host key type found. Their offer: ssh-rsa");
    let kex = format!("{offer} key exchange method found. Their offer: diffie-hellman-group1-sha1");
    let cipher = format!("{offer} cipher found. Their offer: aes128-cbc,3des-cbc\r\n");
    let open = "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\nPermissions 0644 for 'k' are too open.\nroot@192.168.1.1: Permission denied (publickey,password).";
    let table: &[(&str, i32, &[&str])] = &[
        (
            "ssh: connect to host 192.168.1.1 port 22: Connection timed out",
            6,
            &["nothing answers at 192.168.1.1", "LAN port"],
        ),
        ("ssh: connect to host 192.168.1.1 port 22: No route to host", 6, &["nothing answers at 192.168.1.1"]),
        (
            "Connection timed out during banner exchange\nConnection to 192.168.1.1 port 22 timed out",
            6,
            &["nothing answers"],
        ),
        (
            "ssh: connect to host 192.168.1.1 port 22: Connection refused",
            6,
            &["takes no SSH on port 22", "--port P", "--bundle"],
        ),
        ("ssh: Could not resolve hostname box: Name or service not known", 6, &["there is no host named", "ip route"]),
        (
            "root@192.168.1.1: Permission denied (publickey,password).",
            6,
            &["does not let root in: wrong user, password or key", "--user U"],
        ),
        (
            "root@192.168.1.1: Permission denied (publickey).",
            6,
            &["it takes keys, and not this one", "--identity FILE"],
        ),
        (open, 6, &["a key that others can read", "chmod 600"]),
        (
            "Received disconnect from 192.168.1.1 port 22:2: Too many authentication failures",
            6,
            &["does not let root in"],
        ),
        ("Host key verification failed.", 6, &["has never seen 192.168.1.1", "then add --accept-new-host-key"]),
        (
            "No ED25519 host key is known for 192.168.1.1 and you have requested strict checking.\nHost key verification failed.",
            6,
            &["has never seen"],
        ),
        (
            CHANGED,
            7,
            &["another SSH key than the last time", "next: stop, and tell operations", "ssh-keygen -R '192.168.1.1'"],
        ),
        (
            &host_key,
            6,
            &["too old", "--ssh-option HostKeyAlgorithms=+ssh-rsa\n", "KexAlgorithms=+diffie-hellman-group14-sha1\n"],
        ),
        (&kex, 6, &["too old", "HostKeyAlgorithms=+ssh-rsa", "KexAlgorithms=+diffie-hellman-group1-sha1\n"]),
        (&cipher, 6, &["too old", "--ssh-option Ciphers=+aes128-cbc\n"]),
        (
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.168.1.1 port 22",
            6,
            &["hung up before the log-in", "wait a minute"],
        ),
        ("something that nobody has seen yet", 6, &["cannot log in to root@192.168.1.1 over SSH", "try: ssh"]),
    ];
    let laptop = Laptop::new();
    for (says, code, parts) in table {
        let said = laptop.enrol(&[], &[("SAYS", says)]);
        said.is(*code, parts);
        said.is(*code, &["==== RED", "  next: ", "Nothing was changed on the gateway."]);
        let wide: Vec<&str> = said.out.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "wider than a terminal: {wide:?}");
    }
    laptop
        .enrol(&["--port", "2222"], &[("SAYS", CHANGED)])
        .is(7, &["only if it was reset or exchanged: ssh-keygen -R '[192.168.1.1]:2222'"]);
}

#[test]
fn flash_says_a_wrong_word_in_two_lines_and_help_where_it_was_asked_for() {
    let laptop = Laptop::new();
    let table: &[(&[&str], &str)] = &[
        (&[], "which gateway?"),
        (&["--nonsense"], "unknown option --nonsense"),
        (&["a", "b"], "one gateway at a time: a or b?"),
        (&["a", "--port"], "--port needs a value"),
        (&["a", "--port", "x"], "--port and --patience are numbers"),
        (&["a", "--identity", "none"], "there is no key file none"),
        (&["a", "--upgrade", "--uninstall"], "--upgrade or --uninstall, not both"),
        (&["a", "--uninstall", "--dry-run", "--upgrade"], "--upgrade or --uninstall, not both"),
        (&["a", "--bundle", "x.tar"], "a bundle is for a gateway without SSH"),
        (&["--bundle", "x.tar", "--uninstall"], "a bundle installs: leave --uninstall out"),
        (&["--bundle", "x.tar", "--artefacts", "package"], "a bundle carries a code"),
        (&["a", "--artefacts", "bin"], "there is nothing to install in bin"),
        (&["a", "--artefacts", "package", "--code-file", "none"], "there is no code file none"),
        (&["a", "--artefacts", "package", "--code-file", "code"], "which controller?"),
    ];
    for (words, what) in table {
        let said = laptop.flash(words, &[]);
        let lines: Vec<&str> = said.err.lines().collect();
        assert_eq!((said.code, said.out.as_str(), lines.len()), (Some(2), "", 2), "{words:?}: {}", said.err);
        assert!(lines[0].starts_with(&format!("error: {what}")) && lines[1].starts_with("next:  "), "{}", said.err);
    }
    assert_eq!(laptop.asked(), "", "a gateway was asked all the same");
    let help = laptop.flash(&["--help"], &[]);
    help.is(0, &["--bundle site.tar", "--dry-run", "Exit codes: 0 green"]);
    assert_eq!(help.err, "");
}

#[test]
fn flash_takes_the_line_of_a_qr_code_for_the_code_the_controller_and_its_fingerprint() {
    let laptop = Laptop::new();
    let line = format!("THINLANE://ENROL/HQ.EXAMPLE:7443/{}/ABCDE-FGHJK\r\n", "A7".repeat(32));
    for text in [line.to_lowercase(), line] {
        std::fs::write(laptop.at("scanned"), text).expect("written");
        let words = ["192.168.1.1", "--artefacts", "package", "--code-file", "scanned", "--yes"];
        laptop.flash(&words, &[]).is(0, &["==== GREEN"]);
        let asked = laptop.asked();
        let told = format!("enrol controller=hq.example:7443 fingerprint=sha256:{} ", "a7".repeat(32));
        assert!(asked.contains(&told), "{asked}");
        assert_eq!(std::fs::read_to_string(laptop.at("enrolled-with")).expect("sent"), "abcde-fghjk\n");
    }
    // Cut while it was copied: found here, and not on the roof.
    std::fs::write(laptop.at("cut"), format!("THINLANE://ENROL/HQ.EXAMPLE:7443/{}\n", "A7".repeat(32)))
        .expect("written");
    for words in [&["192.168.1.1", "--yes"][..], &["--bundle", "cut.tar"]] {
        let words = [words, &["--artefacts", "package", "--code-file", "cut"]].concat();
        let said = laptop.flash(&words, &[]);
        said.is(2, &[]);
        assert!(said.err.starts_with("error: the line of the QR code in cut is not whole\nnext:"), "{}", said.err);
    }
    assert!(!laptop.at("cut.tar").exists());
}

#[test]
fn flash_shows_what_stands_in_the_way_before_it_asks_or_changes_anything() {
    let laptop = Laptop::new();
    let hurdle = [("HURDLE", "  ! /etc/thinlane is read-only\n  ! there is no tun")];
    let red = laptop.enrol(&[], &hurdle);
    red.is(1, &["==== RED", "\n  /etc/thinlane is read-only\n  there is no tun\n", "Nothing was changed"]);
    let look = laptop.enrol(&["--dry-run"], &hurdle);
    look.is(1, &["Nothing was changed.", "It would not work yet"]);
    assert!(!laptop.asked().contains("cat >"), "something was copied: {}", laptop.asked());
    laptop.enrol(&["--dry-run"], &[]).is(0, &["Nothing was changed."]);
}

#[test]
fn flash_never_writes_over_a_bundle_because_its_code_may_still_be_good() {
    let laptop = Laptop::new();
    let print = format!("sha256:{}", "0".repeat(64));
    let words = ["--bundle", "north.tar", "--artefacts", "package", "--code-file", "code"];
    let words = [&words[..], &["--controller", "c.example:7443", "--ca-fingerprint", &print]].concat();
    std::fs::write(laptop.at("north.tar"), "an older one").expect("written");
    let said = laptop.flash(&words, &[]);
    assert!(said.code == Some(2) && said.err.starts_with("error: north.tar is there already\nnext:  "), "{}", said.err);
    assert_eq!(std::fs::read_to_string(laptop.at("north.tar")).expect("there"), "an older one");
    std::fs::remove_file(laptop.at("north.tar")).expect("removed");
    laptop.flash(&words, &[]).is(0, &["north.tar is for one gateway"]);

    // Stopped while it is written: neither a bundle nor half of one.
    std::fs::remove_file(laptop.at("north.tar")).expect("removed");
    laptop.program("tar", "#!/bin/sh\necho half >\"$2\"\nkill -INT 0\n");
    laptop.flash(&words, &[]).is(130, &["Stopped. No bundle was made"]);
    let left: Vec<_> =
        std::fs::read_dir(laptop.0.path()).expect("listed").flatten().map(|one| one.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("north")), "{left:?}");
}

#[test]
fn flash_stopped_with_ctrl_c_says_how_the_gateway_is_and_that_it_goes_on() {
    let laptop = Laptop::new();
    let early = laptop.enrol(&[], &[("STOP", "sh -s plan")]);
    early.is(130, &["==== STOPPED", "Nothing was changed on 192.168.1.1.", "next: run the same command again"]);
    assert!(!laptop.asked().contains("rm -rf"), "{}", laptop.asked());

    let laptop = Laptop::new();
    let late = laptop.enrol(&[], &[("STOP", "install.sh put")]);
    late.is(130, &["[3/9] install\n", "==== STOPPED", "On 192.168.1.1 now: agent 0.1.0, not enrolled, not running."]);
    late.is(130, &["next: run the same command again: it goes on from here", "192.168.1.1 --uninstall"]);
    let asked = laptop.asked();
    let after = asked.split("install.sh put").nth(1).expect("it was put");
    assert!(after.contains("sh -s look") && after.contains("rm -rf /tmp/thinlane-flash"), "{asked}");
    assert!(!after.contains("install.sh"), "it went on: {asked}");
}
