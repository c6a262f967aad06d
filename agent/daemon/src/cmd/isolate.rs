//! `isolate`: the switch that the site itself holds.

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::files::Dirs;

#[derive(Debug, Args)]
pub struct IsolateArgs {
    #[arg(value_enum)]
    what: What,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    On,
    Off,
    Status,
}

pub fn isolate(_args: &IsolateArgs, _dirs: &Dirs) -> Result<(), Failure> {
    Ok(())
}
