//! T19, T23, T24, T25, T26: the log, secrets, exhaustion, guessing, garbage.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Background, Lab, Shell, now_ms};

const PUBLIC: &str = "198.51.100.2:7443";

pub fn t19_an_edited_log_is_found(lab: &Lab) -> Result<()> {
    lab.thinlane("ada", &["audit", "verify"]).run()?.good()?;
    let dir = lab.root().join("controller").to_string_lossy().into_owned();
    let edits = [
        "UPDATE entries SET json = CAST(replace(CAST(json AS TEXT), 'e', 'E') AS BLOB) WHERE idx = (SELECT max(idx) - 1 FROM entries)",
        "DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)",
        "DELETE FROM entries WHERE idx = (SELECT max(idx) / 2 FROM entries)",
    ];
    for (number, edit) in edits.iter().enumerate() {
        let file = lab.root().join(format!("verify{number}"));
        let copy = lab.root().join(format!("copy{number}"));
        let (file_text, copy_text) = (file.to_string_lossy().into_owned(), copy.to_string_lossy().into_owned());
        lab.on("hq", &["thinlane-controller", "backup", "--dir", &dir, "--to", &file_text]).run()?.good()?;
        lab.on("hq", &["thinlane-controller", "restore", "--from", &file_text, "--dir", &copy_text]).run()?.good()?;
        lab.thinlane("ada", &["audit", "verify", "--dir", &copy_text]).run()?.good()?;
        Shell::new("sqlite3").args(&[&copy.join("thinlane.db").to_string_lossy(), *edit]).run()?.good()?;
        lab.thinlane("ada", &["audit", "verify", "--dir", &copy_text])
            .run()?
            .exits(7)
            .with_context(|| edit.to_string())?;
        std::fs::remove_dir_all(&copy)?;
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

pub fn t23_no_secret_is_on_disk_in_a_log_or_in_argv(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "1m")?;
    lane.exchange("tcp")?.good()?;
    let conf = lab.root().join("secret.conf");
    let request = lab.approved("south-plc1", "echo-tcp", "1m")?;
    lab.thinlane("erik", &["up", &request, "--config-out", &conf.to_string_lossy()]).run()?.good()?;
    let text = std::fs::read_to_string(&conf)?;
    std::fs::remove_file(&conf)?;
    let token = lab.thinlane("erik", &["whoami", "--token"]).run()?.good()?.stdout.trim().to_owned();
    let mut secrets: Vec<String> = ["PrivateKey", "PresharedKey"]
        .iter()
        .filter_map(|key| {
            text.lines().find(|line| line.starts_with(key))?.split_once('=').map(|(_, value)| value.trim().to_owned())
        })
        .collect();
    ensure!(secrets.len() == 2, "the .conf has no two secrets");
    secrets.push("erik-has-a-long-password".to_owned());
    secrets.push(std::fs::read_to_string(lab.root().join("erik.totp"))?.trim().to_owned());
    for secret in &secrets {
        let hits = Shell::new("grep")
            .args(&[
                "-rlaF",
                "--exclude=*.password",
                "--exclude=*.totp",
                "--exclude=*.setup.json",
                "--",
                secret.as_str(),
                &lab.root().to_string_lossy(),
            ])
            .run()?;
        let outside: Vec<&str> = hits.stdout.lines().filter(|path| !path.contains("/run-")).collect();
        // The TOTP secret is needed to check codes: it may stand in the controller's own database, which is 0600.
        let outside: Vec<&&str> =
            outside.iter().filter(|path| !(secret.len() == 32 && path.contains("controller/thinlane.db"))).collect();
        ensure!(outside.is_empty(), "a secret stands in {outside:?}");
    }
    let in_homes = Shell::new("grep").args(&["-rlaF", "--", token.as_str(), &lab.root().to_string_lossy()]).run()?;
    ensure!(in_homes.stdout.lines().all(|path| path.contains("home-erik")), "the token stands in {}", in_homes.stdout);
    for entry in std::fs::read_dir("/proc")? {
        let Ok(words) = std::fs::read(entry?.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words);
        // The searching itself names them; it has ended by now.
        ensure!(
            !secrets.iter().chain([&token]).any(|secret| words.contains(secret.as_str())),
            "a secret in argv: {words}"
        );
    }
    Ok(())
}

pub fn t24_a_thousand_half_open_connections_hurt_nobody(lab: &Lab) -> Result<()> {
    let script = "import socket,sys,time\nheld=[]\nfor i in range(1000):\n  s=socket.socket(); s.settimeout(2)\n  try:\n    s.connect(('198.51.100.2',7443)); held.append(s)\n  except OSError: pass\nprint(len(held),flush=True)\ntime.sleep(15)";
    let flood = Background::start(lab.on("home", &["/usr/bin/python3", "-c", script]))?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    let start = now_ms();
    let lane = lab.lane("north-plc1", "echo-tcp", "1m").context("a lane beside 1 000 half-open connections")?;
    ensure!(now_ms() - start < 15_000.0);
    lane.exchange("tcp")?.good()?;
    drop(flood);
    Ok(())
}

pub fn t25_guessing_locks_out_and_a_code_works_once(lab: &Lab) -> Result<()> {
    let home = lab.root().join("home-guess").to_string_lossy().into_owned();
    let print = std::fs::read_to_string(lab.root().join("fingerprint"))?;
    let add = lab.json("ada", &["user", "add", "gina", "--name", "Gina Guess", "--role", "requester"])?;
    let code = lab.root().join("gina.code");
    std::fs::File::create(&code)?.write_all(add["code"].as_str().context("a code")?.as_bytes())?;
    let url = format!("https://{PUBLIC}");
    let as_gina = |args: &[&str], input: &str| {
        lab.on("hq", &[&["env", &format!("THINLANE_HOME={home}"), "thinlane"], args].concat()).input(input).run()
    };
    let setup = [
        "setup",
        &url,
        "--ca-fingerprint",
        print.trim(),
        "--user",
        "gina",
        "--code-file",
        &code.to_string_lossy(),
        "--password-stdin",
        "--json",
    ]
    .map(str::to_owned);
    let setup: Vec<&str> = setup.iter().map(String::as_str).collect();
    let made = as_gina(&setup, "a-long-password-of-gina\n")?.good()?;
    ensure!(as_gina(&setup, "a-long-password-of-gina\n")?.code == 3, "a set-up code worked twice");
    let secret = made
        .lines_json()
        .iter()
        .find_map(|line| line["totp_secret"].as_str().map(str::to_owned))
        .context("a TOTP secret")?;
    let file = lab.root().join("gina.totp");
    std::fs::write(&file, &secret)?;
    let token = as_gina(&["whoami", "--token"], "")?.good()?.stdout;
    as_gina(&["logout"], "")?.good()?;
    let used = Shell::new("curl").args(&[
        "-sk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        &format!("Authorization: Bearer {}", token.trim()),
        &format!("{url}/api/v1/whoami"),
    ]);
    ensure!(used.run()?.stdout != "200");
    let in_hq = lab.on(
        "hq",
        &[
            "curl",
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &format!("Authorization: Bearer {}", token.trim()),
            &format!("{url}/api/v1/whoami"),
        ],
    );
    ensure!(in_hq.run()?.stdout == "401", "a token worked after log-out");
    let login = |totp: &str, password: &str| {
        as_gina(&["login", &url, "--user", "gina", "--password-stdin", "--totp", totp], password)
    };
    for _ in 0..8 {
        login("123456", "wrong-password\n")?.exits(3)?;
    }
    let locked = as_gina(
        &["login", &url, "--user", "gina", "--password-stdin", "--totp", "000000"],
        "a-long-password-of-gina\n",
    )?
    .exits(3)?;
    ensure!(!locked.stderr.is_empty());
    std::fs::remove_file(code)?;
    std::fs::remove_file(file)?;
    Ok(())
}

pub fn t26_garbage_gets_a_clear_answer(lab: &Lab) -> Result<()> {
    let root = lab.root();
    let csv = root.join("bad.csv");
    for (text, what) in [
        ("asset,site\n\u{0}\u{1},x\n", "columns"),
        ("asset,site,address,type\nplc9,north,not-an-address,plc\n", "address"),
    ] {
        std::fs::write(&csv, text)?;
        let out = lab.thinlane("ada", &["asset", "import", &csv.to_string_lossy()]).run()?;
        ensure!(
            out.code != 0 && !out.stderr.contains("panicked") && out.stderr.contains("error:"),
            "{what}: {} {}",
            out.code,
            out.stderr
        );
    }
    std::fs::remove_file(&csv)?;
    let policies = root.join("bad-policies");
    std::fs::create_dir_all(&policies)?;
    std::fs::write(policies.join("typo.toml"), "[[permit]]\nid = \"a\"\nrole = [\"requester\"]\napprovels = 1\n")?;
    lab.on("hq", &["thinlane-controller", "policy", "check", &policies.to_string_lossy()])
        .run()?
        .exits(1)?
        .says("typo.toml")?
        .says("approvels")?;
    std::fs::remove_dir_all(&policies)?;
    for length in [1usize, 60, 4_096, 200_000] {
        let script = format!(
            "head -c {length} /dev/urandom | timeout 3 nc -N 198.51.100.2 7443 >/dev/null; head -c {length} /dev/urandom | head -c 1400 | nc -u -w 1 198.51.100.2 7443 >/dev/null; true"
        );
        lab.on("home", &["sh", "-c", &script]).run()?.good()?;
    }
    let body = "{\"user\":".repeat(10_000);
    let file = root.join("body.json");
    std::fs::write(&file, body)?;
    for path in ["login", "setup", "enrol", "requests"] {
        let out = lab
            .on(
                "hq",
                &[
                    "curl",
                    "-sk",
                    "-X",
                    "POST",
                    "-H",
                    "content-type: application/json",
                    "--data-binary",
                    &format!("@{}", file.display()),
                    &format!("https://{PUBLIC}/api/v1/{path}"),
                ],
            )
            .run()?
            .good()?;
        ensure!(out.stdout.contains("\"error\""), "{path}: {}", out.stdout);
    }
    std::fs::remove_file(&file)?;
    lab.lane("north-plc1", "echo-tcp", "1m")?.exchange("tcp")?.good()?;
    Ok(())
}
