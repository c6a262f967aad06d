//! Completions, manual pages, version.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;

use crate::failure::Failure;

/// Prints a completion script for `shell`.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command_line(), "thinlane-agent", &mut script);
    std::io::stdout().write_all(&script).context("cannot print")?;
    Ok(())
}

/// Writes `thinlane-agent.8` and a page per command.
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
    Ok(())
}

/// Prints name and version.
pub fn version() -> Result<(), Failure> {
    println!("thinlane-agent {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
