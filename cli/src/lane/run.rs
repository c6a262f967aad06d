//! A lane's whole life after its approval, with one way out whatever happens.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thinlane_forward::Door;
use thinlane_model::{EndReason, RequestId, SessionId, Span};
use thinlane_wire::api::{AssetView, SessionState, SessionView};

use super::activate::{self, Armed, Lane, boot_clock};
use super::child::{self, Running, Surroundings};
use super::hold::{self, Ending};
use super::state::{Holder, LaneFile};
use super::watch;
use super::{LaneEvent, Reporter, Signal, Signals, leftovers, preflight};
use crate::api::Client;
use crate::cmd::session;
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};

/// How long a panic's clean-up may take.
const LAST_RESORT: Duration = Duration::from_secs(15);

/// A lane to be opened.
pub struct Plan {
    pub request: RequestId,
    pub asset: AssetView,
    pub native: bool,
    pub iface: Option<String>,
    /// The local port that leads into it instead of an interface.
    pub door: Option<Door>,
    /// What runs inside; empty: the lane stays until it is ended.
    pub command: Vec<OsString>,
}

/// Opens a lane, holds it, and takes it away again; also after a panic.
///
/// `Ok`: the command's own exit, or that of whoever asked it to end.
pub async fn run(
    context: Arc<Context>,
    client: Client,
    reporter: Reporter,
    plan: Plan,
    mut signals: Signals,
) -> Result<Exit> {
    let holder = Holder::this()?;
    let _mark = holder.mark(&context.home)?;
    let file = LaneFile {
        request: plan.request,
        asset: plan.asset.asset.clone(),
        session: None,
        iface: None,
        asset_address: None,
        forward: None,
        ends_at: None,
        config: None,
        holder,
    };
    file.write(&context.home)?;
    // Two that began at the same moment see each other's files now.
    if let Err(failure) = preflight::only_one(&context.home, &file) {
        file.remove(&context.home);
        return Err(failure);
    }
    let life = {
        let (context, client, file) = (context.clone(), client.clone(), file.clone());
        tokio::spawn(Box::pin(async move { live(&context, &client, &reporter, plan, file, &mut signals).await }))
    };
    match life.await {
        Ok(done) => done,
        Err(_) => {
            // The device went with its task; session and file are left.
            let lanes = super::state::all(&context.home).unwrap_or_default();
            let lane = lanes.into_iter().find(|lane| lane.request == file.request).unwrap_or(file);
            let _ = tokio::time::timeout(LAST_RESORT, leftovers::end(&context, Some(&client), &lane)).await;
            Err(Failure::failed("the lane was closed because thinlane itself failed"))
        }
    }
}

async fn live(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    mut plan: Plan,
    mut file: LaneFile,
    signals: &mut Signals,
) -> Result<Exit> {
    let armed = match signals.or(activate::activate(client, plan.request, plan.native)).await {
        Ok(Ok(armed)) => armed,
        Ok(Err(failure)) => {
            if failure.code.is_none() {
                // No answer: the gateway may have armed it all the same.
                release_unanswered(context, client, &file).await;
            }
            file.remove(&context.home);
            return Err(failure);
        }
        Err(signal) => {
            release_unanswered(context, client, &file).await;
            file.remove(&context.home);
            return Ok(signal.exit());
        }
    };
    file.session = Some(armed.told.session.id);
    file.asset_address = Some(armed.told.asset_address);
    file.ends_at = armed.told.session.ends_at;
    file.forward = plan.door.as_ref().map(Door::address);
    if plan.door.is_none() {
        file.iface = Some(plan.iface.clone().unwrap_or_else(|| format!("tl-{}", armed.told.session.id.short())));
    }
    let written = file.write(&context.home);

    let opened = match written {
        Ok(()) => signals.or(open(&armed, &mut plan, reporter)).await,
        Err(failure) => Ok(Err(failure)),
    };
    let lane = match opened {
        Ok(Ok(lane)) => lane,
        Ok(Err(failure)) => {
            let _ = close(context, client, reporter, &file, armed.told.session.id, EndReason::Released, signals).await;
            return Err(failure);
        }
        Err(signal) => {
            let _ = close(context, client, reporter, &file, armed.told.session.id, EndReason::Released, signals).await;
            return Ok(signal.exit());
        }
    };
    up(context, client, reporter, &plan, file, armed, lane, signals).await
}

/// Interface or local port, and first handshake.
async fn open(armed: &Armed, plan: &mut Plan, reporter: &Reporter) -> Result<Lane> {
    let mut lane = match plan.door.take() {
        Some(door) => activate::forward(armed, door).await?,
        None => activate::bring_up(armed, &plan.asset.asset, plan.iface.as_deref()).await?,
    };
    activate::handshake(&mut lane, armed, reporter.out()).await?;
    Ok(lane)
}

#[allow(clippy::too_many_arguments, reason = "the parts of one lane, taken over by its last stage")]
async fn up(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    plan: &Plan,
    file: LaneFile,
    armed: Armed,
    mut lane: Lane,
    signals: &mut Signals,
) -> Result<Exit> {
    let told = armed.told;
    let session = told.session.id;
    let left = boot_clock().until(armed.deadline);
    let said = reporter.tell(&LaneEvent::Up {
        session: &told.session,
        iface: lane.iface(),
        address: told.asset_address,
        forward: lane.forward(),
        config: None,
        way: lane.way(),
        left,
    });
    // The keys live on in the device only.
    drop(armed.keys);
    let (address, port) = match lane.forward() {
        Some(SocketAddr::V4(local)) => (*local.ip(), local.port()),
        Some(SocketAddr::V6(local)) => (Ipv4Addr::LOCALHOST, local.port()),
        None => (told.asset_address, told.session.port),
    };
    let around = Surroundings { address, port, session, iface: lane.iface().unwrap_or_default() };
    let mut command = match said
        .and_then(|()| (!plan.command.is_empty()).then(|| child::start(&plan.command, &around)).transpose())
    {
        Ok(command) => command,
        Err(failure) => {
            lane.close(true).await;
            let _ = close(context, client, reporter, &file, session, EndReason::Released, signals).await;
            return Err(failure);
        }
    };
    let seen = watch::follow(client.clone(), session);
    let ending = hold::hold(&mut lane, told.session, armed.deadline, seen, command.as_mut(), signals, reporter).await;
    finish(context, client, reporter, &file, session, ending, lane, command, signals).await
}

#[allow(clippy::too_many_arguments, reason = "the parts of one lane, given back at its end")]
async fn finish(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    file: &LaneFile,
    session: SessionId,
    ending: Result<Ending>,
    lane: Lane,
    mut command: Option<Running>,
    signals: &mut Signals,
) -> Result<Exit> {
    let ending = match ending {
        Ok(ending) => ending,
        Err(failure) => {
            stop(&mut command).await;
            lane.close(true).await;
            let _ = close(context, client, reporter, file, session, EndReason::Released, signals).await;
            return Err(failure);
        }
    };
    match ending {
        Ending::Signal(signal) => {
            // A command at the same terminal got the Ctrl-C as well, and may end in its own way.
            if signal == Signal::Interrupt
                && let Some(running) = &mut command
            {
                running.wait_a_little().await;
            }
            stop(&mut command).await;
            lane.close(true).await;
            close(context, client, reporter, file, session, EndReason::Released, signals).await?;
            Ok(signal.exit())
        }
        Ending::Command(status) => {
            lane.close(true).await;
            close(context, client, reporter, file, session, EndReason::Released, signals).await?;
            match child::exit_code(status) {
                0 => Ok(Exit::Other(0)),
                code => Ok(Exit::Other(code)),
            }
        }
        Ending::Remote { reason, detail } => {
            lane.close(false).await;
            file.remove(&context.home);
            reporter.tell(&LaneEvent::Down { session, reason: reason.as_str(), detail: detail.as_deref() })?;
            stop(&mut command).await;
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            Err(over(session, &format!("{reason}{detail}")))
        }
        Ending::Expired => {
            lane.close(false).await;
            file.remove(&context.home);
            reporter.tell(&LaneEvent::Down { session, reason: EndReason::Expired.as_str(), detail: None })?;
            stop(&mut command).await;
            Err(over(session, EndReason::Expired.as_str()))
        }
        Ending::Gone => {
            let gone = lane.gone();
            lane.close(false).await;
            stop(&mut command).await;
            let _ = close(context, client, reporter, file, session, EndReason::Failed, signals).await;
            Err(gone)
        }
    }
}

fn over(session: SessionId, why: &str) -> Failure {
    Failure::new(Exit::Ended, format!("session {session} is over, {why}"))
        .next(format!("thinlane session show {session}"))
}

async fn stop(command: &mut Option<Running>) {
    if let Some(running) = command {
        running.stop().await;
    }
}

/// Releases the session and forgets the lane. The interface is gone by now; a second signal stops the waiting. Where the
/// controller may not have heard of it, the lane's file stays, for the next call to tell it.
async fn close(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    file: &LaneFile,
    session: SessionId,
    reason: EndReason,
    signals: &mut Signals,
) -> Result<()> {
    let name = session.to_string();
    let released = signals.or(session::end(client, &name, "release", "")).await;
    let (told, reason, detail, hint) = match released {
        Ok(Ok((_, view))) => (true, final_reason(&view).unwrap_or(reason), None, ending_hint(&view)),
        Ok(Err(failure)) if failure.exit == Exit::Ended => (true, reason, None, None),
        Ok(Err(failure)) => {
            let told = failure.exit != Exit::Unreachable;
            let later = if told { "" } else { "the next connect, up or down tells it; else " };
            let hint = format!("{failure}: {later}the session closes at its deadline; next: thinlane down {session}");
            (told, reason, Some("the controller was not told"), Some(hint))
        }
        Err(_) => {
            let hint = format!("not waiting for the gateway; thinlane session show {session}");
            (false, reason, None, Some(hint))
        }
    };
    if told {
        file.remove(&context.home);
    }
    reporter.tell(&LaneEvent::Down { session, reason: reason.as_str(), detail })?;
    if let Some(hint) = hint {
        reporter.out().hint(&hint);
    }
    Ok(())
}

fn final_reason(view: &SessionView) -> Option<EndReason> {
    view.end_reason
}

fn ending_hint(view: &SessionView) -> Option<String> {
    (view.state == SessionState::Ending)
        .then(|| format!("the gateway of {} is out of reach; the relay has stopped forwarding {}", view.site, view.id))
}

/// Releases a session that may have come to be without our hearing of it.
async fn release_unanswered(context: &Context, client: &Client, file: &LaneFile) {
    let _ = tokio::time::timeout(Duration::from_secs(4), leftovers::end(context, Some(client), file)).await;
}

/// What is left of a session, for events.
pub fn left(armed: &Armed) -> Span {
    boot_clock().until(armed.deadline)
}
