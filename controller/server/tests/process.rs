//! The program as people start it: refusals in words, backup and restore, floods at its door.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use common::{Controller, program};
use serde_json::{Value, json};

fn init(dir: &Path, more: &[&str]) -> Output {
    program()
        .args(["init", "--admin", "ada", "--listen", "127.0.0.1:1", "--json", "--dir"])
        .arg(dir)
        .args(more)
        .output()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn whoever_stops_reading_gets_no_panic() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for words in [&["completions", "bash"][..], &["run", "--dir", "none"]] {
        let [(unread, out), (unread_too, errors)] = [(); 2].map(|()| std::io::pipe().expect("a pipe"));
        drop((unread, unread_too));
        let end = program().args(words).current_dir(&place).stdout(out).stderr(errors).status().expect("it runs");
        assert_eq!(end.code(), Some(141), "{words:?}");
    }
}

#[test]
fn init_makes_everything_private_once() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("new");
    let done = init(&dir, &["--public", "ctl.example:7443"]);
    assert!(done.status.success(), "{}", said(&done));
    let told: Value = serde_json::from_slice(&done.stdout).expect("one JSON object");
    let der = std::fs::read(dir.join("ca.pem")).expect("the CA");
    assert!(
        told["ca_fingerprint"].as_str().is_some_and(|text| text.starts_with("sha256:") && text.len() == 71),
        "{told}"
    );
    assert!(der.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in
        ["ca-key.pem", "server-key.pem", "grant.key", "log.key", "admin-setup", "thinlane.db", "controller.toml"]
    {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let code = std::fs::read_to_string(dir.join("admin-setup")).expect("the code");
    let printed = format!("{}{}", String::from_utf8_lossy(&done.stdout), said(&done));
    assert!(code.trim().len() > 15 && !printed.contains(code.trim()), "the code stands in its file alone");
    let again = init(&dir, &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("not empty"), "{}", said(&again));
}

#[test]
fn a_hand_edited_database_is_not_served() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("new");
    let done = init(&dir, &["--relay", "127.0.0.1:1"]);
    assert!(done.status.success(), "{}", said(&done));
    let edit = r#"UPDATE rows SET doc = replace(doc, '"admin"', '"admin","ops"') WHERE kind LIKE 'user%'"#;
    let edited =
        std::process::Command::new("sqlite3").arg(dir.join("thinlane.db")).arg(edit).output().expect("sqlite3");
    assert!(edited.status.success(), "{}", said(&edited));
    let refused = program().args(["run", "--dir"]).arg(&dir).output().expect("it runs");
    let told = said(&refused);
    assert_eq!(refused.status.code(), Some(7), "{told}");
    assert!(told.contains("changed from outside") && told.contains("next:"), "{told}");
}

#[test]
fn what_stops_it_is_said_in_one_sentence_with_the_next_step() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let run = |dir: &Path| {
        let output = program().args(["run", "--dir"]).arg(dir).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let text = run(&place.path().join("nothing"));
    assert!(text.contains("there is no") && text.contains("init --dir"), "{text}");

    let dir = place.path().join("made");
    assert!(init(&dir, &[]).status.success());
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let text = run(&dir);
    assert!(text.contains("chmod 700"), "{text}");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("a mode");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = dir.join("controller.toml");
    let good = std::fs::read_to_string(&config).expect("the settings");
    let port = taken.local_addr().expect("an address").to_string();
    std::fs::write(&config, good.replace("listen = \"127.0.0.1:1\"", &format!("listen = \"{port}\"")))
        .expect("written");
    let text = run(&dir);
    assert!(text.contains("cannot bind TCP") && text.contains("ss -lnp"), "{text}");

    std::fs::write(&config, format!("colour = 1\n{good}")).expect("written");
    let text = run(&dir);
    assert!(text.contains("controller.toml: line 1") && text.contains("colour"), "{text}");
    assert!(!text.contains("panicked") && !text.contains("Error {"), "{text}");
}

#[test]
fn offline_commands_say_what_is_wrong_and_the_next_step_in_words_and_in_json() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (none, empty, dir) = (place.path().join("none"), place.path().join("empty"), place.path().join("made"));
    std::fs::create_dir(&empty).expect("made");
    assert!(init(&dir, &["--relay", "127.0.0.1:1"]).status.success());
    let ruined = place.path().join("ruined");
    assert!(init(&ruined, &[]).status.success());
    std::fs::write(ruined.join("thinlane.db"), vec![7u8; 5000]).expect("written");
    let (none, empty, dir, ruined) = (path(&none), path(&empty), path(&dir), path(&ruined));
    let fresh = path(&place.path().join("fresh"));
    let cases: [(&[&str], &str); 8] = [
        (&["policy", "check", &none], "none"),
        (&["policy", "test", &none], "none"),
        (&["policy", "check", &empty], "no policy file"),
        (&["policy", "test", &empty], "no policy file"),
        (&["init", "--admin", "ada", "--dir", &fresh, "--policies", &none], "none"),
        (
            &["policy", "explain", "--dir", &dir, "--who", "ada", "--asset", "plc-9", "--task", "modbus"],
            "no asset plc-9",
        ),
        (&["policy", "explain", "--dir", &dir, "--who", "eve", "--asset", "plc-9", "--task", "modbus"], "there is ada"),
        (&["run", "--dir", &ruined], "no database"),
    ];
    for (words, expected) in cases {
        let output = program().args(words).output().expect("it runs");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(
            text.contains(expected) && text.contains("\nnext: ") && !text.contains("os error"),
            "{words:?}: {text}"
        );
        let output = program().arg("--json").args(words).output().expect("it runs");
        let text = said(&output);
        let told: Value = serde_json::from_str(text.lines().last().expect("a line")).expect(&text);
        assert!(told["error"]["next"].is_string() && told["error"]["exit"] == 1, "{words:?}: {told}");
    }
    assert!(!Path::new(&fresh).exists(), "nothing was made");
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn the_shipped_policies_are_valid_and_their_cases_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let check = program().args(["policy", "check", "--json"]).arg(&dir).output().expect("it runs");
    assert!(check.status.success(), "{}", said(&check));
    let told: Value = serde_json::from_slice(&check.stdout).expect("JSON");
    assert_eq!(told["valid"], true, "{told}");
    let test = program().args(["policy", "test"]).arg(&dir).output().expect("it runs");
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
    assert!(String::from_utf8_lossy(&test.stdout).contains("0 failed"));

    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("rules.toml"), "[[permit]]\nid = \"x\"\ntask = [\"none\"]\n").expect("written");
    let check = program().args(["policy", "check"]).arg(place.path()).output().expect("it runs");
    assert_eq!(check.status.code(), Some(1));
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("rules.toml") && text.contains("none"), "{text}");
}

#[tokio::test]
async fn a_backup_of_a_running_controller_makes_the_same_controller_elsewhere() {
    let (mut controller, ada) = Controller::start().await;
    controller.inventory(&ada).await;
    let place = tempfile::tempdir().expect("a temporary directory");
    let (file, dir) = (place.path().join("backup"), place.path().join("restored"));
    let done =
        program().args(["backup", "--dir"]).arg(controller.dir()).arg("--to").arg(&file).output().expect("it runs");
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let (status, _) = controller.post(&ada, "/sites", json!({"site": "later"})).await;
    assert_eq!(status, 201);
    let second = program().args(["run", "--dir"]).arg(controller.dir()).output().expect("it runs");
    assert!(said(&second).contains("uses"), "two controllers on one directory: {}", said(&second));
    controller.kill();

    let done = program().args(["restore", "--from"]).arg(&file).arg("--dir").arg(&dir).output().expect("it runs");
    assert!(done.status.success(), "{}", said(&done));
    // In the place of the old one: the same address, the same CA, the same people and tokens.
    std::fs::rename(controller.dir(), place.path().join("old")).expect("moved");
    std::fs::rename(&dir, controller.dir()).expect("moved");
    controller.run().await;
    let (status, sites) = controller.get(&ada, "/sites").await;
    assert_eq!(status, 200, "{sites}");
    let names: Vec<_> = sites["items"].as_array().expect("sites").iter().map(|site| site["site"].clone()).collect();
    assert_eq!(names, [json!("north")]);
    let (_, report) = controller.get(&ada, "/audit/verify").await;
    assert_eq!(report["ok"], json!(true), "{report}");
    let explain = program()
        .args(["policy", "explain", "--who", "ada", "--asset", "plc-1", "--task", "modbus", "--json", "--dir"])
        .arg(controller.dir())
        .output()
        .expect("it runs");
    assert_eq!(explain.status.code(), Some(3), "an admin is no requester: {}", said(&explain));
}

#[tokio::test]
async fn a_thousand_half_open_connections_hurt_nobody_else() {
    let (controller, ada) = Controller::start().await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(controller.address).expect("it accepts");
        if number % 2 == 0 {
            // Half of a TLS handshake.
            let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
        }
        flood.push(stream);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(common::trusting(&controller.dir()).with_no_client_auth())
            .no_proxy()
            .build()
            .expect("a client");
        let answer =
            client.get(controller.url("/api/v1/whoami")).bearer_auth(&ada.token).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(flood);
}

#[tokio::test]
async fn a_full_disk_opens_nothing_new_and_the_log_goes_on_when_there_is_room_again() {
    // A file system of its own, in a mount namespace of its own, that is full on demand.
    let place = tempfile::tempdir().expect("a temporary directory");
    let port = common::free_port();
    let script = r#"
        set -e
        mount -t tmpfs -o size=3m,mode=700 none "$1"
        "$2" init --admin ada --dir "$1/c" --listen 127.0.0.1:$3 --public 127.0.0.1:$3 >/dev/null 2>&1
        cp "$1/c/ca.pem" "$1/c/admin-setup" "$4"
        "$2" run --dir "$1/c" 2>"$4/log" &
        controller=$!
        trap 'kill $controller; wait $controller' EXIT
        while read -r word; do
            case $word in
                fill) dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null || true ;;
                free) rm -f "$1/filler" ;;
                stop) exit 0 ;;
            esac
            echo done
        done
    "#;
    let shared = tempfile::tempdir().expect("a temporary directory");
    let mut shell = std::process::Command::new("unshare")
        .args(["-m", "bash", "-c", script, "bash"])
        .arg(place.path())
        .arg(env!("CARGO_BIN_EXE_thinlane-controller"))
        .arg(port.to_string())
        .arg(shared.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare, as root");
    let mut orders = shell.stdin.take().expect("a pipe");
    let mut done = std::io::BufReader::new(shell.stdout.take().expect("a pipe"));
    let mut order = move |word: &str| {
        use std::io::BufRead;
        writeln!(orders, "{word}").expect("the shell lives");
        let mut line = String::new();
        if word != "stop" {
            done.read_line(&mut line).expect("it answers");
        }
    };
    let began = Instant::now();
    while !shared.path().join("admin-setup").exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let (controller, ada) = Controller::attach(shared.path(), port).await;
    order("fill");
    let mut refused = 0;
    for number in 0..40 {
        let (status, body) = controller.post(&ada, "/sites", json!({"site": format!("s{number}")})).await;
        if status == 503 {
            assert_eq!(body["error"]["code"], "log-unavailable", "{body}");
            refused += 1;
        }
    }
    assert!(refused > 0, "the disk was never full");
    let (status, sites) = controller.get(&ada, "/sites").await;
    assert_eq!(status, 200, "reading goes on: {sites}");
    let before = sites["items"].as_array().expect("sites").len();
    assert_eq!(before, 40 - refused, "what was refused is not there, what was taken is");
    order("free");
    let (status, body) = controller.post(&ada, "/sites", json!({"site": "after"})).await;
    assert_eq!(status, 201, "{body}");
    let kinds = controller.kinds(&ada).await;
    assert!(kinds.iter().any(|kind| kind == "alarm.raised"), "the alarm is in the log: {kinds:?}");
    let (_, report) = controller.get(&ada, "/audit/verify").await;
    assert_eq!(report["ok"], json!(true), "{report}");
    order("stop");
    shell.wait().expect("it ends");
}
