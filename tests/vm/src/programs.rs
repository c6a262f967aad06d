//! Test programs of this workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The directory of its crate below the checkout.
    pub folder: String,
    /// `life` for `tests/life.rs`.
    pub name: String,
    pub path: PathBuf,
}

/// Builds the test programs of these names in the whole workspace, which after `cargo test --workspace` is no work.
pub fn build(names: &[&str]) -> Result<Vec<Built>> {
    let root = crate::root().canonicalize().context("the checkout")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&root).args([
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--quiet",
        "--message-format=json",
    ]);
    for name in names {
        command.args(["--test", name]);
    }
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).context("cargo's answer")?;
    let values = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(values.filter_map(|value| built(&root, &value)).collect())
}

fn built(root: &Path, value: &Value) -> Option<Built> {
    let path = PathBuf::from(value["executable"].as_str()?);
    let manifest = Path::new(value["manifest_path"].as_str()?);
    let folder = manifest.parent()?.strip_prefix(root).ok()?.to_string_lossy().into_owned();
    Some(Built { folder, name: value["target"]["name"].as_str()?.to_owned(), path })
}
