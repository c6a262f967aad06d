//! `backup` and `restore`.

use std::path::Path;

use anyhow::{Context, Result};
use thinlane_store::Bundled;

use crate::config::Config;
use crate::dir::Dir;

/// Files beside the database without which a restored controller would be another one.
const FILES: [&str; 8] = [
    "controller.toml",
    "ca.pem",
    "ca-key.pem",
    "server.pem",
    "server-key.pem",
    "grant.key",
    "log.key",
    thinlane_store::LOG_KEY,
];

pub fn backup(dir: &Path, to: &Path, json: bool) -> Result<()> {
    let config = Config::load(&Dir::new(dir))?;
    let mut bundle: Vec<Bundled> =
        FILES.into_iter().filter(|name| dir.join(name).is_file()).filter_map(Bundled::new).collect();
    // Policies elsewhere are kept elsewhere.
    let policies = &config.policies;
    if policies.is_relative() {
        for below in ["", "cases"] {
            let place = dir.join(policies).join(below);
            let Ok(files) = std::fs::read_dir(&place) else { continue };
            for file in files {
                let path = file.with_context(|| format!("cannot read {}", place.display()))?.path();
                let relative = path.strip_prefix(dir).ok().filter(|_| path.is_file());
                bundle.extend(relative.and_then(Bundled::new));
            }
        }
    }
    thinlane_store::backup(dir, &bundle, to)?;
    if json {
        println!("{}", serde_json::json!({"schema": 1, "backup": to}));
    } else {
        println!("backup written to {}", to.display());
        eprintln!("it holds the controller's private keys: keep it as you keep {}", dir.display());
    }
    Ok(())
}

pub fn restore(from: &Path, dir: &Path, json: bool) -> Result<()> {
    thinlane_store::restore(from, dir)?;
    if json {
        println!("{}", serde_json::json!({"schema": 1, "dir": dir}));
    } else {
        println!("restored into {}", dir.display());
        eprintln!(
            "what happened after the backup is gone, and gateways that remember it will raise an alarm\n\
             next: thinlane-controller run --dir {}",
            dir.display()
        );
    }
    Ok(())
}
