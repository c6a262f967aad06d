//! Completions, manual pages, version.

use std::path::Path;

use anyhow::Context as _;

use crate::failure::Failure;

/// Prints a completion script for `shell`.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command_line(), "thinlane-agent", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(())
}

/// The page of `agent.toml`, written by hand.
const SETTINGS: &str = include_str!("manual/agent.toml.5");

/// Writes `thinlane-agent.8`, a page per command, and `agent.toml.5`.
pub fn man(out: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut command = crate::command_line();
    command.build();
    let mut pages = vec![("thinlane-agent".to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("thinlane-agent-{}", sub.get_name());
        pages.push((name, sub.clone()));
    }
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).section("8").render(&mut page).context("a manual page")?;
        let path = out.join(format!("{name}.8"));
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = out.join("agent.toml.5");
    std::fs::write(&path, SETTINGS).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Prints name and version.
pub fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        println!("{}", serde_json::json!({ "schema": 1, "name": "thinlane-agent", "version": version }));
    } else {
        println!("thinlane-agent {version}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_settings_have_a_page() {
        let dir = tempfile::tempdir().expect("a directory");
        man(dir.path()).expect("pages");
        for page in ["thinlane-agent.8", "thinlane-agent-enroll.8", "agent.toml.5"] {
            assert!(std::fs::read_to_string(dir.path().join(page)).expect(page).contains(".TH "), "{page}");
        }
    }

    #[test]
    fn the_page_of_the_settings_names_every_key_and_its_example_is_taken() {
        for key in ["lan", "isolate_input", "[ceiling]", "assets", "ports", "tasks", "longest", "[wireguard]", "port"] {
            assert!(SETTINGS.contains(&format!(".B {key}\n")), "{key}");
        }
        let example = SETTINGS.split(".nf\n").nth(1).and_then(|text| text.split(".fi").next()).expect("an example");
        crate::config::Config::parse(example).expect("settings");
    }
}
