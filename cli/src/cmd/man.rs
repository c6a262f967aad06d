//! Manual pages: section 1 from the command line itself, 5 and 8 written by hand.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::Cli;
use crate::failure::{Result, io};

/// Pages that no command line can be made into: name, section, text.
const WRITTEN: [(&str, u8, &str); 3] = [
    ("thinlane-config", 5, include_str!("man/thinlane-config.5")),
    ("thinlane-assets", 5, include_str!("man/thinlane-assets.5")),
    ("thinlane-lanes", 8, include_str!("man/thinlane-lanes.8")),
];

/// Writes all pages into `dir`, which is made if it is missing.
pub fn write(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(io(dir.display()))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    commands(&command, "thinlane", dir)?;
    for (name, section, text) in WRITTEN {
        let file = dir.join(format!("{name}.{section}"));
        fs::write(&file, text).map_err(io(file.display()))?;
    }
    Ok(())
}

fn commands(command: &Command, name: &str, dir: &Path) -> Result<()> {
    let file = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(io(file.display()))?;
    fs::write(&file, page).map_err(io(file.display()))?;
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| commands(below, &format!("{name}-{}", below.get_name()), dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_all_three_sections_are_written_and_hidden_commands_have_none() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path()).expect("pages");
        for page in
            ["thinlane.1", "thinlane-connect.1", "thinlane-request-create.1", "thinlane-config.5", "thinlane-lanes.8"]
        {
            let text = fs::read_to_string(dir.path().join(page)).expect(page);
            assert!(text.contains(".TH "), "{page}");
        }
        assert!(!dir.path().join("thinlane-hold.1").exists());
    }
}
