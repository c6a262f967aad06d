//! Manual pages: section 8 from the command line itself, section 5 written by hand.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::Cli;

/// The page of `controller.toml`.
const SETTINGS: &str = include_str!("man/controller.toml.5");

/// Writes `thinlane-controller.8`, a page per command, however deep, and `controller.toml.5`.
pub fn write(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    commands(&command, "thinlane-controller", dir)?;
    fs::write(dir.join("controller.toml.5"), SETTINGS)
}

fn commands(command: &Command, name: &str, dir: &Path) -> std::io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).section("8").render(&mut page)?;
    fs::write(dir.join(format!("{name}.8")), page)?;
    command.get_subcommands().try_for_each(|below| commands(below, &format!("{name}-{}", below.get_name()), dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_settings_have_a_page() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path()).expect("pages");
        let of_commands = ["", "-run", "-policy", "-policy-check", "-policy-test", "-policy-explain"];
        for page in of_commands.map(|name| format!("thinlane-controller{name}.8")) {
            let text = fs::read_to_string(dir.path().join(&page)).expect(&page);
            assert!(text.contains(".TH "), "{page}");
        }
        assert!(dir.path().join("controller.toml.5").exists());
    }

    #[test]
    fn the_page_of_the_settings_names_every_key_and_its_example_is_taken() {
        for key in ["listen", "relay", "public", "relay_public", "log", "policies", "[pools]", "assets", "engineers"] {
            assert!(SETTINGS.contains(&format!(".B {key}")), "{key}");
        }
        let example = SETTINGS.split(".nf\n").nth(1).and_then(|text| text.split(".fi").next()).expect("an example");
        crate::config::Config::parse(example).expect("settings");
    }
}
