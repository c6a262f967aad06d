//! `isolate`: the switch that the site itself holds.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use thinlane_nft::Nft;

use crate::clock;
use crate::control::{self, Ask, AskError, Reply};
use crate::failure::Failure;
use crate::files::{self, Dirs};

/// How long a daemon that is well may take to answer at all.
const ALIVE: Duration = Duration::from_secs(2);
/// How long the daemon may take to close every lane.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct IsolateArgs {
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Closes every lane, and lets none be opened until it is switched off. Returns after the close.
    On,
    /// Lets lanes be opened again.
    Off,
    /// Tells whether the site is isolated.
    Status,
}

pub fn isolate(args: &IsolateArgs, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    let closed = match args.what {
        What::Status => {
            tell(is_isolated(dirs), json);
            return Ok(());
        }
        What::On => {
            files::private_dir(&dirs.dir).with_context(|| format!("cannot use {}", dirs.dir.display()))?;
            // The flag first: whatever happens to the daemon now, the site stays closed.
            switch(dirs, true)?;
            asked(dirs, true)?
        }
        What::Off => {
            switch(dirs, false)?;
            asked(dirs, false)?
        }
    };
    let on = args.what == What::On;
    if json {
        println!("{{\"schema\":1,\"isolated\":{on},\"closed\":{closed}}}");
    } else if on {
        println!("isolated; {}", lanes_closed(closed));
    } else {
        println!("not isolated");
    }
    Ok(())
}

/// Whether the site's own switch is on.
pub fn is_isolated(dirs: &Dirs) -> bool {
    // A directory that cannot be read must not look like a switch that is off.
    !matches!(dirs.isolated().try_exists(), Ok(false))
}

/// Turns the switch in the state directory, where it outlives restarts and reboots.
pub fn switch(dirs: &Dirs, on: bool) -> Result<(), Failure> {
    let path = dirs.isolated();
    if on {
        let since = format!("{}\n", clock::wall());
        files::write_atomic(&path, since.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    } else {
        files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn tell(isolated: bool, json: bool) {
    if json {
        println!("{{\"schema\":1,\"isolated\":{isolated}}}");
    } else {
        println!("{}", if isolated { "isolated" } else { "not isolated" });
    }
}

/// Tells the running daemon; without one, closes what its table still holds.
fn asked(dirs: &Dirs, on: bool) -> Result<usize, Failure> {
    let alive = control::ask(dirs, Ask::Status, ALIVE);
    match alive.and_then(|_| control::ask(dirs, Ask::Isolate { on }, PATIENCE)) {
        Ok(Reply::Done { closed, .. }) => Ok(closed),
        Ok(Reply::Failed { message, .. }) => Err(Failure::new(message).next("thinlane-agent check")),
        Ok(Reply::Status(_) | Reply::Ticket(_)) => Err(Failure::new("the running agent answered something else")),
        // Hung or gone: its lanes are closed in the kernel all the same.
        Err(error) if on => {
            let closed = close_lanes()?;
            match error {
                AskError::NotRunning => Ok(closed),
                error => Err(Failure::new(format_args!("{} in the kernel, but {error}", lanes_closed(closed)))
                    .next("restart the agent, then thinlane-agent check")),
            }
        }
        Err(AskError::NotRunning) => Ok(0),
        Err(error) => Err(Failure::new(error).next("restart the agent")),
    }
}

fn lanes_closed(count: usize) -> String {
    match count {
        0 => "no lane was open".to_owned(),
        1 => "1 lane was closed".to_owned(),
        more => format!("{more} lanes were closed"),
    }
}

/// Closes every lane in the table without the daemon.
fn close_lanes() -> Result<usize, Failure> {
    let mut nft = Nft::open().context("cannot talk to nf_tables")?;
    let lanes = nft.lanes().context("cannot read the table")?;
    let mut closed = 0;
    for lane in lanes {
        closed += usize::from(lane.is_open());
        nft.close_lane(lane.session).with_context(|| format!("cannot close {}", lane.session))?;
    }
    Ok(closed)
}
