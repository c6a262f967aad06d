//! `connect`, `up`, and the process that holds what `up` opened.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueHint};
use serde_json::Value;
use thinlane_model::{RequestId, Span, TaskName};
use thinlane_wire::api::{AssetView, RequestView};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::{parse_span, parse_words};
use crate::api::Client;
use crate::api::paths::item;
use crate::context::Context;
use crate::failure::{Exit, Failure, Result, io};
use crate::lane::conf::Conf;
use crate::lane::forward::{self, LocalPort};
use crate::lane::plan::{self, Target, Wish};
use crate::lane::run::{self, Plan};
use crate::lane::state::{CONFIG_TITLE, Holder, LaneFile};
use crate::lane::{LaneEvent, Reporter, Signals, activate, child, leftovers, preflight};
use crate::system::process;

/// How long the background process may take until its lane is up: more than the way up takes at most.
const UP: Duration = Duration::from_secs(45);
/// Logs of background lanes that are kept.
const LOGS: usize = 20;

#[derive(Args)]
pub struct Connect {
    #[command(flatten)]
    wish: WishArgs,
    #[command(flatten)]
    way: WayArgs,
    /// Lead a port of 127.0.0.1 into the lane instead of making an interface; needs no rights
    ///
    /// Without LOCALPORT it is the asset's own port number where that is above 1023 and free here, else any free one.
    /// Your tool connects to 127.0.0.1 and that port. Every program on this machine can use it while the lane is open.
    #[arg(long, value_name = "LOCALPORT", value_parser = LocalPort::parse, num_args = 0..=1, default_missing_value = LocalPort::ANY, conflicts_with = "iface")]
    forward: Option<LocalPort>,
    /// Run this inside the lane, and close the lane when it ends
    ///
    /// It finds THINLANE_ASSET_ADDRESS, THINLANE_ASSET_PORT, THINLANE_SESSION and THINLANE_IFACE in its environment.
    /// With --forward address and port are the local ones, and THINLANE_IFACE is empty.
    #[arg(last = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    wish: WishArgs,
    #[command(flatten)]
    way: WayArgs,
    /// Write a configuration for a stock WireGuard client here (0600) instead of making an interface
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "iface")]
    config_out: Option<PathBuf>,
}

#[derive(Args)]
struct WishArgs {
    /// An asset, or a request that was made before (req_...)
    #[arg(value_name = "ASSET|REQ", value_parser = Target::parse)]
    target: Target,
    /// What is to be done, if there is no request yet; `thinlane task ls` shows what there is
    #[arg(long, env = "THINLANE_TASK")]
    task: Option<TaskName>,
    /// For how long; the task's default if left out
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span, env = "THINLANE_FOR")]
    duration: Option<Span>,
    /// Why; the approver reads it
    #[arg(long, value_parser = parse_words, env = "THINLANE_REASON")]
    reason: Option<String>,
    /// The work order behind it
    #[arg(long, value_name = "ID", env = "THINLANE_TICKET")]
    ticket: Option<String>,
    /// Wait at most this long for the decision (then exit code 4); without end if left out
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    wait: Option<Span>,
}

#[derive(Args)]
struct WayArgs {
    /// Reach the device under its real address, for tools that have it baked in
    #[arg(long)]
    native: bool,
    /// The interface's name instead of tl-ID
    #[arg(long, value_name = "NAME", value_parser = parse_iface)]
    iface: Option<String>,
}

#[derive(Args)]
pub struct Hold {
    request: RequestId,
    #[command(flatten)]
    way: WayArgs,
}

impl WishArgs {
    fn wish(self) -> Wish {
        Wish {
            target: self.target,
            task: self.task,
            seconds: self.duration.map(Span::as_secs),
            reason: self.reason,
            ticket: self.ticket,
            wait: self.wait.map(Span::to_std),
        }
    }
}

fn parse_iface(text: &str) -> std::result::Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match (1..=15).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("an interface name has 1 to 15 letters, digits, dashes or underscores".to_owned()),
    }
}

/// `thinlane connect`
pub async fn connect(context: &Context, args: Connect) -> Result<()> {
    let mut signals = Signals::catch()?;
    let client = context.client()?;
    let reporter = Reporter::foreground(context.out, !args.command.is_empty());
    if args.forward.is_none() {
        preflight::privileges()?;
    }
    child::check(&args.command)?;
    leftovers::sweep(context).await?;
    let wish = args.wish.wish();
    let ends = args.forward.map_or(Ends::Interface(&args.way), Ends::Forward);
    let asked = ask(context, &client, &reporter, &wish, ends, &mut signals).await?;
    let door = match args.forward {
        Some(port) => Some(forward::door(&client, &asked.request.task, port).await?),
        None => None,
    };
    let plan = Plan {
        request: asked.request.id,
        asset: asked.asset,
        native: args.way.native,
        iface: args.way.iface,
        door,
        command: args.command,
    };
    ended(run::run(Arc::new(context.clone()), client, reporter, plan, signals).await?)
}

/// `thinlane up`
pub async fn up(context: &Context, args: Up) -> Result<()> {
    let mut signals = Signals::catch()?;
    let client = context.client()?;
    let reporter = Reporter::foreground(context.out, false);
    if args.config_out.is_none() {
        preflight::privileges()?;
    }
    leftovers::sweep(context).await?;
    let wish = args.wish.wish();
    let ends = if args.config_out.is_none() { Ends::Interface(&args.way) } else { Ends::Elsewhere };
    if let Some(file) = &args.config_out {
        check_writable(context, file)?;
    }
    let asked = ask(context, &client, &reporter, &wish, ends, &mut signals).await?;
    match &args.config_out {
        Some(file) => export(context, &client, &reporter, &asked, args.way.native, file).await,
        None => start_holder(context, &asked.request, &args.way, &mut signals).await,
    }
}

/// The background half of `up`: as `connect`, in a session of its own, telling its parent by JSON.
pub async fn hold(context: &Context, args: Hold) -> Result<()> {
    process::leave_terminal();
    let signals = Signals::catch()?;
    let reporter = Reporter::background(context.out);
    match hold_lane(context, args, &reporter, signals).await {
        Ok(exit) => ended(exit),
        Err(failure) => {
            reporter.failed(&failure);
            Err(failure)
        }
    }
}

async fn hold_lane(context: &Context, args: Hold, reporter: &Reporter, signals: Signals) -> Result<Exit> {
    let client = context.client()?;
    let request: RequestView = client.get(&item("requests", args.request)).await?;
    let asset: AssetView = client.get(&item("assets", &request.asset)).await?;
    preflight::clashes(&context.home, &asset, args.way.native, args.way.iface.as_deref())?;
    let plan = Plan {
        request: args.request,
        asset,
        native: args.way.native,
        iface: args.way.iface,
        door: None,
        command: Vec::new(),
    };
    run::run(Arc::new(context.clone()), client, reporter.clone(), plan, signals).await
}

/// A request that may be used, and the asset it is for.
struct Asked {
    request: RequestView,
    asset: AssetView,
}

/// Where a lane will end.
#[derive(Clone, Copy)]
enum Ends<'a> {
    Interface(&'a WayArgs),
    Forward(LocalPort),
    /// In another program, which reads a configuration.
    Elsewhere,
}

/// Everything before the activation: what cannot work here is refused before anything is asked for.
async fn ask(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    wish: &Wish,
    ends: Ends<'_>,
    signals: &mut Signals,
) -> Result<Asked> {
    let work = async {
        let check = |asset: &AssetView| match ends {
            Ends::Interface(way) => preflight::clashes(&context.home, asset, way.native, way.iface.as_deref()),
            Ends::Forward(_) => preflight::second(&context.home, &asset.asset),
            Ends::Elsewhere => Ok(()),
        };
        // A lane that is open already is told before everything else: its request is used, so none would be found.
        if let Target::Asset(asset) = &wish.target {
            check(&client.get(&item("assets", asset)).await?)?;
        }
        let found = plan::find(client, wish).await?;
        plan::check_new(&found, wish)?;
        let asset: AssetView = client.get(&item("assets", found.asset())).await?;
        check(&asset)?;
        if let (Ends::Forward(port), Some(task)) = (ends, found.task().or(wish.task.as_ref())) {
            // A port that is taken now is said now; it is taken for good when it is needed.
            forward::door(client, task, port).await?;
        }
        let request = plan::approved(context, client, reporter, found, wish).await?;
        // The decision may have taken hours.
        check(&asset)?;
        Ok(Asked { request, asset })
    };
    match signals.or(Box::pin(work)).await {
        Ok(asked) => asked,
        Err(signal) => {
            context.out.hint(
                "stopped; a request that waits stays open (thinlane request ls); thinlane connect REQ goes on with it",
            );
            Err(Failure::silent(signal.exit()))
        }
    }
}

fn ended(exit: Exit) -> Result<()> {
    match exit {
        Exit::Other(0) => Ok(()),
        exit => Err(Failure::silent(exit)),
    }
}

/// Finds out before a request is used whether its configuration could be written.
fn check_writable(context: &Context, file: &Path) -> Result<()> {
    crate::home::check_output("--config-out", file, |text| text.starts_with(CONFIG_TITLE))?;
    // Its only private key would be lost.
    let path = std::path::absolute(file).map_err(io(file.display()))?;
    let lanes = crate::lane::state::all(&context.home)?;
    match lanes.iter().find(|lane| lane.config.as_ref() == Some(&path)) {
        Some(lane) => {
            Err(Failure::usage(format!("--config-out: {} belongs to {}, which is open", file.display(), lane.name()))
                .next(format!("name another file, or thinlane down {}", lane.name())))
        }
        None => Ok(()),
    }
}

async fn export(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    asked: &Asked,
    native: bool,
    file: &Path,
) -> Result<()> {
    let path = std::path::absolute(file).map_err(io(file.display()))?;
    let armed = activate::activate(client, asked.request.id, native).await?;
    let told = &armed.told;
    let session = &told.session;
    let title = format!(
        "Thinlane {} to {} ({}), until {}",
        session.id,
        session.asset,
        session.task,
        crate::out::time::local_or_dash(session.ends_at)
    );
    let text = Conf {
        title: &title,
        private: &armed.keys.private,
        address: told.address,
        mtu: told.mtu,
        peer: told.gateway_key,
        preshared: &armed.keys.preshared,
        allowed: told.asset_address,
        endpoint: &told.endpoint,
    }
    .render();
    let lane = LaneFile {
        request: asked.request.id,
        asset: session.asset.clone(),
        session: Some(session.id),
        iface: None,
        asset_address: Some(told.asset_address),
        forward: None,
        ends_at: session.ends_at,
        config: Some(path.clone()),
        holder: Holder::this()?,
    };
    let written = crate::home::write_private(&path, text.as_bytes(), context.home.owner())
        .and_then(|()| lane.write(&context.home));
    if let Err(failure) = written {
        let _ = super::session::end(client, &session.id.to_string(), "release", "").await;
        return Err(failure);
    }
    let left = run::left(&armed);
    reporter.tell(&LaneEvent::Up {
        session,
        iface: None,
        address: told.asset_address,
        forward: None,
        config: Some(&path),
        way: None,
        left,
    })?;
    context.out.hint(&format!("when done: thinlane down {}", session.id));
    Ok(())
}

/// Starts the process that will hold the lane, and waits until it is up.
async fn start_holder(context: &Context, request: &RequestView, way: &WayArgs, signals: &mut Signals) -> Result<()> {
    let program = std::env::current_exe().map_err(io("find this program"))?;
    let log_file = context.home.log_dir().join(format!("{}.log", request.id));
    prune_logs(&context.home.log_dir());
    let log = crate::home::open_private_log(&log_file, context.home.owner())?;
    let mut command = tokio::process::Command::new(program);
    command.args(context.as_flags()).arg("hold").arg(request.id.to_string());
    if way.native {
        command.arg("--native");
    }
    if let Some(iface) = &way.iface {
        command.args(["--iface", iface]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
    let mut holder = command.spawn().map_err(io("start the background process"))?;
    let pipe = holder.stdout.take().expect("stdout was asked for");
    let outcome = tokio::time::timeout(UP, signals.or(until_up(context, pipe))).await;
    let failure = match outcome {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(Some(failure)))) => failure,
        Ok(Ok(Err(None))) => {
            Failure::failed(format!("the background process ended early; {} says more", log_file.display()))
        }
        Ok(Err(signal)) => Failure::silent(signal.exit()),
        Err(_) => Failure::new(Exit::Unreachable, "the lane did not come up in time").next("thinlane doctor"),
    };
    if let Some(pid) = holder.id() {
        let _ = process::ask_to_end(pid);
    }
    let _ = tokio::time::timeout(Duration::from_secs(20), holder.wait()).await;
    Err(failure)
}

/// Reads the holder's events until the lane is up. `Err(None)`: it ended and said nothing.
async fn until_up(context: &Context, pipe: tokio::process::ChildStdout) -> std::result::Result<(), Option<Failure>> {
    const LARGEST_LINE: u64 = 64 * 1024;
    let mut lines = BufReader::new(pipe.take(LARGEST_LINE)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(failure) = told_failure(&value) {
            return Err(Some(failure));
        }
        if value["event"] == "up" {
            return tell_up(context, &value).map_err(Some);
        }
    }
    Err(None)
}

fn tell_up(context: &Context, value: &Value) -> Result<()> {
    let text = |name: &str| value[name].as_str().unwrap_or("-").to_owned();
    let session = text("session");
    context.out.show(value, |value| {
        format!(
            "lane to {} is up: {} {}/{}, interface {}, {} left ({session})",
            text("asset"),
            text("asset_address"),
            text("protocol"),
            value["asset_port"],
            text("iface"),
            crate::out::time::countdown(Span::from_secs(value["remaining_seconds"].as_u64().unwrap_or(0))),
        )
    })?;
    context.out.hint(&format!("when done: thinlane down {session}"));
    Ok(())
}

/// A failure as the holder wrote it.
fn told_failure(value: &Value) -> Option<Failure> {
    let error = value.get("error")?;
    let exit = error["exit"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let mut failure = Failure::new(Exit::from_code(exit), error["message"].as_str().unwrap_or("it did not say why"));
    failure.next = error["next"].as_str().map(str::to_owned);
    failure.code = serde_json::from_value(error["code"].clone()).ok();
    Some(failure)
}

/// Keeps the newest logs only.
fn prune_logs(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut logs: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    logs.sort();
    let old = logs.len().saturating_sub(LOGS);
    for (_, path) in logs.into_iter().take(old) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_background_process_keeps_its_exit_code_and_next_step() {
        let before = Failure::new(Exit::Unreachable, "site north is away").next("wait");
        let after = told_failure(&crate::out::failure_json(&before)).expect("a failure");
        assert_eq!((after.exit, after.message, after.next), (before.exit, before.message, before.next));
        assert!(told_failure(&serde_json::json!({"event": "up"})).is_none());
    }

    #[test]
    fn an_interface_name_that_the_kernel_would_refuse_is_refused_here() {
        for name in ["tl0", "a-b_c", "123456789012345"] {
            assert!(parse_iface(name).is_ok(), "{name}");
        }
        for name in ["", "1234567890123456", "a b", "a/b", "é"] {
            assert!(parse_iface(name).is_err(), "{name}");
        }
    }

    #[test]
    fn only_the_newest_logs_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for at in 0..LOGS + 5 {
            std::fs::write(dir.path().join(format!("{at}.log")), "").expect("written");
        }
        prune_logs(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), LOGS);
    }
}
