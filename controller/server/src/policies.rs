//! Policy files: reading a directory, and the shipped ones.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thinlane_policy::{PolicyError, PolicyState, Problem};

use crate::dir::write_public;

/// Bytes of one policy file, and files in a directory.
const MOST_BYTES: u64 = 1 << 20;
const MOST_FILES: usize = 256;

/// The policies that every new controller begins with: name below the directory, content.
const SHIPPED: [(&str, &str); 3] = [
    ("tasks.toml", include_str!("../../../policies/tasks.toml")),
    ("rules.toml", include_str!("../../../policies/rules.toml")),
    ("cases/shipped.toml", include_str!("../../../policies/cases/shipped.toml")),
];

/// Writes the shipped policies into a new directory.
pub fn ship(dir: &Path) -> Result<()> {
    for (name, text) in SHIPPED {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        write_public(&path, text.as_bytes())?;
    }
    Ok(())
}

/// The policy files of a directory, by name: every `*.toml` that lies directly in it.
pub fn read(dir: &Path) -> Result<Vec<(String, String)>> {
    read_files(dir).with_context(|| format!("cannot read the policies in {}", dir.display()))
}

/// As [`read`], for a person who named the directory: there must be a policy in it.
pub fn read_some(dir: &Path) -> Result<Vec<(String, String)>> {
    const NEXT: &str = "(next: name the directory that holds your policy's *.toml; \
                        `thinlane-controller init` puts the shipped ones into DIR/policies)";
    match read(dir) {
        Ok(files) if files.is_empty() => bail!("there is no policy file (*.toml) in {} {NEXT}", dir.display()),
        Ok(files) => Ok(files),
        Err(error) => bail!("{error:#} {NEXT}"),
    }
}

/// The cases of a directory: every `*.toml` in its `cases` directory.
pub fn read_cases(dir: &Path) -> Result<Vec<(String, String)>> {
    let cases = dir.join("cases");
    if cases.is_dir() { read(&cases) } else { Ok(Vec::new()) }
}

/// Loads the policy of a directory; what cannot be read is an invalid policy, too.
pub fn load(dir: &Path) -> PolicyState {
    match read(dir) {
        Ok(files) if files.is_empty() => invalid(dir, Problem::Missing { what: "a policy file (*.toml)" }),
        Ok(files) => PolicyState::load(&files),
        Err(error) => invalid(dir, Problem::Toml(format!("{error:#}"))),
    }
}

fn invalid(dir: &Path, problem: Problem) -> PolicyState {
    let file = dir.display().to_string();
    PolicyState::Invalid(vec![PolicyError { file, line: 0, key: String::new(), problem }])
}

fn read_files(dir: &Path) -> Result<Vec<(String, String)>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml") && path.is_file());
    paths.sort();
    if paths.len() > MOST_FILES {
        bail!("more than {MOST_FILES} files");
    }
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Editors leave hidden files behind.
        if name.starts_with('.') {
            continue;
        }
        if fs::metadata(&path)?.len() > MOST_BYTES {
            bail!("{name} is larger than {MOST_BYTES} bytes");
        }
        let text = fs::read_to_string(&path).with_context(|| name.clone())?;
        files.push((name, text));
    }
    Ok(files)
}
