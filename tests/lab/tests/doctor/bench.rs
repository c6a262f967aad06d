//! Asks `check` or `doctor` while something is wrong, and puts it right again.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use thinlane_lab::{Lab, Output, Shell, wait_until};

/// What is found on every gateway or laptop of the lab, and is no fault of the case's.
const USUAL: [&str; 3] = ["no-wireguard-module", "run-dir-on-disk", "legacy-firewall"];

/// The machine that is looked at.
pub struct Bench<'a> {
    lab: &'a Lab,
    /// `None`: the laptop.
    site: Option<String>,
}

/// What was named.
#[derive(Debug, Clone)]
pub struct Named {
    pub report: Value,
    code: i32,
}

/// Directories of an agent that no agent runs on.
pub struct Apart<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    run: PathBuf,
}

impl<'a> Bench<'a> {
    /// The gateway of the site north, which must be well.
    pub fn gateway(lab: &'a Lab) -> Result<Self> {
        let bench = Self { lab, site: Some("north".into()) };
        lab.wait_ready("north")?;
        bench.is_well()?;
        Ok(bench)
    }

    /// Erik's laptop, which must be well.
    pub fn laptop(lab: &'a Lab) -> Result<Self> {
        let bench = Self { lab, site: None };
        bench.is_well()?;
        Ok(bench)
    }

    /// The gateway of another site, as it is.
    pub fn of(&self, site: &str) -> Self {
        Self { lab: self.lab, site: Some(site.into()) }
    }

    fn is_well(&self) -> Result<()> {
        self.check()?.are(&[])?.exits(0).map(drop)
    }

    pub fn check(&self) -> Result<Named> {
        self.check_within(&[])
    }

    /// The same, begun by another program: `faketime`, `unshare`.
    pub fn check_within(&self, before: &[&str]) -> Result<Named> {
        let (who, words): (&str, Vec<String>) = match &self.site {
            Some(site) => {
                let dir = self.lab.root().join(format!("agent-{site}")).display().to_string();
                let run = self.lab.root().join(format!("run-{site}")).display().to_string();
                (
                    site,
                    ["thinlane-agent", "check", "--json", "--dir", &dir, "--run-dir", &run].map(str::to_owned).into(),
                )
            }
            None => ("erik", ["thinlane", "doctor", "--json"].map(str::to_owned).into()),
        };
        let words: Vec<&str> = before.iter().copied().chain(words.iter().map(String::as_str)).collect();
        Named::of(&self.lab.on(who, &words).run()?)
    }

    /// Does something on a host, looks at what is named then, and undoes it whatever came of that; afterwards all is
    /// well again.
    pub fn while_so<S: AsRef<str>>(
        &self,
        host: &str,
        act: &[S],
        undo: &[S],
        judge: impl FnOnce(&Named) -> Result<()>,
    ) -> Result<()> {
        let words = |words: &[S]| -> Vec<String> { words.iter().map(|word| word.as_ref().to_owned()).collect() };
        let (act, undo) = (words(act), words(undo));
        let run = |words: &[String]| -> Result<Output> {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.lab.on(host, &words).run()?.good()
        };
        let outcome = run(&act).and_then(|_| judge(&self.check()?)).with_context(|| format!("on {host} after {act:?}"));
        run(&undo)?;
        outcome?;
        let mut last = None;
        let again = wait_until(15_000, "all is well again", || {
            let named = self.check()?;
            let well = named.codes().is_empty();
            last = Some(named);
            Ok(well)
        });
        again.with_context(|| format!("after {undo:?} on {host}: {last:?}"))
    }

    /// A copy of the gateway's directory.
    pub fn copy(&self, name: &str) -> Result<Apart<'a>> {
        let apart = self.empty(name)?;
        let from = self.lab.root().join("agent-north");
        for file in ["identity.json", "clock.json"] {
            if from.join(file).exists() {
                std::fs::copy(from.join(file), apart.dir.join(file))?;
            }
        }
        Ok(apart)
    }

    /// Directories with nothing in them.
    pub fn empty(&self, name: &str) -> Result<Apart<'a>> {
        let (dir, run) =
            (self.lab.root().join(format!("apart-{name}")), self.lab.root().join(format!("apart-run-{name}")));
        for dir in [&dir, &run] {
            let _ = std::fs::remove_dir_all(dir);
            std::fs::create_dir_all(dir)?;
        }
        Ok(Apart { lab: self.lab, dir, run })
    }

    /// A directory that was enrolled for a site, which is made if it is not there.
    pub fn enrolled(&self, site: &str, name: &str) -> Result<Apart<'a>> {
        let apart = self.empty(name)?;
        self.lab.thinlane("ada", &["site", "add", site]).run()?;
        let code = apart.dir.join("code").display().to_string();
        self.lab.thinlane("ada", &["site", "token", site, "--out", &code]).run()?.good()?;
        let fingerprint = std::fs::read_to_string(self.lab.root().join("fingerprint"))?;
        let (dir, run) = (apart.dir.display().to_string(), apart.run.display().to_string());
        let words = [
            "thinlane-agent",
            "enroll",
            "--dir",
            &dir,
            "--run-dir",
            &run,
            "--controller",
            "198.51.100.2:7443",
            "--ca-fingerprint",
            fingerprint.trim(),
            "--token-file",
            &code,
        ];
        self.lab.on("north", &words).run()?.good()?;
        Ok(apart)
    }
}

impl Apart<'_> {
    /// `check` on the gateway north with these directories.
    pub fn check(&self, before: &[&str]) -> Result<Named> {
        let (dir, run) = (self.dir.display().to_string(), self.run.display().to_string());
        let words = ["thinlane-agent", "check", "--json", "--dir", &dir, "--run-dir", &run];
        let words: Vec<&str> = before.iter().copied().chain(words).collect();
        Named::of(&self.lab.on("north", &words).run()?)
    }

    pub fn rewrite(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{} does not hold {from:?}", path.display());
        Ok(std::fs::write(&path, text.replace(from, to))?)
    }

    /// Believes the gateway's own certificate to be the authority's: nobody descends from it.
    pub fn trust_another_authority(&self) -> Result<()> {
        let path = self.dir.join("identity.json");
        let mut identity: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        identity["ca"] = identity["certificate"].clone();
        Ok(std::fs::write(&path, identity.to_string())?)
    }

    /// As if the controller had once vouched for a time so many days from now.
    pub fn vouch_for_days_ahead(&self, days: u64) -> Result<()> {
        let at =
            Shell::new("date").args(&["-u", "-d", &format!("{days} days"), "+%Y-%m-%dT%H:%M:%S.000Z"]).run()?.good()?;
        let zero = "0".repeat(32);
        let kept = format!("{{\"vouched\":\"{}\",\"at\":0,\"boot\":\"{zero}\"}}", at.stdout.trim());
        Ok(std::fs::write(self.dir.join("clock.json"), kept)?)
    }
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        for dir in [&self.dir, &self.run] {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

impl Named {
    pub fn of(output: &Output) -> Result<Self> {
        let report = output.lines_json().into_iter().next().with_context(|| format!("no JSON: {output:?}"))?;
        ensure!(report["schema"] == 1 && report["findings"].is_array(), "{report}");
        Ok(Self { report, code: output.code })
    }

    /// `SEVERITY code` of what is not usual, the worst first.
    pub fn codes(&self) -> Vec<String> {
        let findings = self.report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let unusual = |finding: &&Value| !USUAL.iter().any(|usual| finding["code"] == *usual);
        let named = |finding: &Value| {
            let severity = finding["severity"].as_str().unwrap_or_default();
            let word = if severity == "problem" { "PROBLEM" } else { severity };
            format!("{word} {}", finding["code"].as_str().unwrap_or_default())
        };
        findings.iter().filter(unusual).map(named).collect()
    }

    /// These and no others.
    pub fn are(&self, expected: &[&str]) -> Result<&Self> {
        ensure!(self.codes() == expected, "expected {expected:?}, found {:?}: {}", self.codes(), self.report);
        self.speaks()
    }

    pub fn has(&self, expected: &str) -> Result<&Self> {
        ensure!(
            self.codes().iter().any(|code| code == expected),
            "no {expected} in {:?}: {}",
            self.codes(),
            self.report
        );
        self.speaks()
    }

    pub fn lacks(&self, code: &str) -> Result<&Self> {
        let findings = self.report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(findings.iter().all(|finding| finding["code"] != code), "{code} is named: {}", self.report);
        Ok(self)
    }

    pub fn says(&self, text: &str) -> Result<&Self> {
        ensure!(self.report["findings"].to_string().contains(text), "{text:?} is not said: {}", self.report);
        Ok(self)
    }

    pub fn exits(&self, code: i32) -> Result<&Self> {
        ensure!(self.code == code, "exit code {}, not {code}: {}", self.code, self.report);
        Ok(self)
    }

    /// Each finding has its sentence, its reason and its next step, and the exit code follows from them.
    fn speaks(&self) -> Result<&Self> {
        for finding in self.report["findings"].as_array().map(Vec::as_slice).unwrap_or_default() {
            for part in ["message", "why", "next"] {
                if finding[part].as_str().is_none_or(str::is_empty) {
                    bail!("{finding} has no {part}");
                }
            }
        }
        let problem = self.codes().iter().any(|code| code.starts_with("PROBLEM"));
        self.exits(i32::from(problem))
    }
}
