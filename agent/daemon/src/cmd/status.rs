//! `status`: what the running agent says of itself.

use std::time::Duration;

use clap::{Args, ValueEnum};
use thinlane_model::Span;

use crate::control::{self, Ask, AskError, Reply, Status};
use crate::failure::{Failure, exit};
use crate::files::Dirs;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Say nothing, tell by the exit code: `live`: the agent answers; `ready`: enrolled, channel up, ruleset as
    /// intended, not isolated.
    #[arg(long, value_enum, env = "THINLANE_CHECK")]
    check: Option<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    Live,
    Ready,
}

pub fn status(args: &StatusArgs, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    let status = asked(dirs)?;
    if json {
        println!("{}", serde_json::to_string(&status).map_err(|error| Failure::new(error.to_string()))?);
    }
    match args.check {
        Some(Check::Live) => Ok(()),
        Some(Check::Ready) => match status.not_ready() {
            None => Ok(()),
            Some(why) => Err(Failure::new(format_args!("not ready: {why}"))),
        },
        None if json => Ok(()),
        None => {
            print(&status);
            Ok(())
        }
    }
}

fn asked(dirs: &Dirs) -> Result<Status, Failure> {
    match control::ask(dirs, Ask::Status, PATIENCE) {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(other) => Err(Failure::new(format_args!("the running agent answered {other:?}"))),
        Err(AskError::NotRunning) => {
            let failure = Failure::coded(exit::UNREACHABLE, "no agent is running");
            Err(if dirs.identity().exists() {
                failure.next("thinlane-agent run")
            } else {
                failure.next("enrol this gateway first: thinlane-agent enroll --help")
            })
        }
        Err(error) => Err(Failure::coded(exit::UNREACHABLE, error)),
    }
}

impl Status {
    /// What keeps this gateway from being ready; the first thing to mend.
    pub fn not_ready(&self) -> Option<String> {
        if self.isolated {
            return Some("the site is isolated: thinlane-agent isolate off".into());
        }
        if let Some(why) = &self.why_not_ready {
            return Some(why.clone());
        }
        if !self.ruleset {
            return Some("the ruleset in the kernel is not as intended: thinlane-agent check".into());
        }
        if self.channel != "up" {
            let problem = self.channel_problem.as_deref().unwrap_or("not connected yet");
            return Some(format!("the channel to {} is {}: {problem}", self.controller, self.channel));
        }
        (!self.ready).then(|| "it does not say why".into())
    }
}

fn print(status: &Status) {
    let ready = status.not_ready().map_or("yes".into(), |why| format!("no: {why}"));
    println!("version      {}", status.version);
    println!("site         {}", status.site);
    println!("ready        {ready}");
    println!("channel      {} ({})", status.channel, status.controller);
    println!("isolated     {}", if status.isolated { "yes" } else { "no" });
    let reason = status.backend_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    println!("backend      {}{reason}", status.backend);
    if let Some(offload) = &status.offload {
        println!("offload      {offload}");
    }
    println!("certificate  until {}", status.certificate_expires_at);
    if let Some(offset) = status.clock_offset_ms {
        let way = if offset < 0 { "behind" } else { "ahead of" };
        println!("clock        {:.1} s {way} the controller's", offset.unsigned_abs() as f64 / 1000.0);
    }
    for lan in &status.lan {
        let addresses = if lan.addresses.is_empty() { "no address".to_owned() } else { lan.addresses.join(" ") };
        println!("LAN          {} {addresses}", lan.interface);
    }
    if status.spooled > 0 {
        println!("spooled      {} reports wait for the controller", status.spooled);
    }
    if let Some(problem) = &status.log_problem {
        println!("log          {problem}");
    }
    if status.lanes.is_empty() {
        println!("lanes        none");
        return;
    }
    println!(
        "\n{:<14}{:<18}{:<18}{:<10}{:<22}{:>10}{:>12}{:>12}{:>8}",
        "SESSION", "ASSET", "TASK", "STATE", "TO", "LEFT", "UP", "DOWN", "DENIED"
    );
    for lane in &status.lanes {
        println!(
            "{:<14}{:<18}{:<18}{:<10}{:<22}{:>10}{:>12}{:>12}{:>8}",
            lane.session,
            lane.asset,
            lane.task,
            lane.state,
            format!("{}:{}/{}", lane.address, lane.port, lane.protocol),
            Span::from_secs(lane.seconds_left),
            lane.counters.up_packets,
            lane.counters.down_packets,
            lane.counters.denied_packets + lane.counters.spoofed_packets,
        );
    }
}
