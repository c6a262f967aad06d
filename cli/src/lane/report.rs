//! What a lane says on its way: JSON events for programs, sentences for people.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use thinlane_model::{self as model, SessionId, Span, Wall};
use thinlane_wire::api::{RequestView, SessionView};

use super::ways::Way;
use crate::cmd::request::missing;
use crate::failure::{Failure, Result};
use crate::out::{Out, clean, failure_json, text, time, with_schema};
use crate::system::process::let_go_of_stdout;

/// One step of a lane's life.
pub enum LaneEvent<'a> {
    /// A request was made for this lane.
    Requested(&'a RequestView),
    /// It waits for approvers.
    Pending(&'a RequestView),
    /// It may be used.
    Approved(&'a RequestView),
    /// The first packet of the engineer's tool passes (or, exported, the gateway is ready for a handshake).
    Up {
        session: &'a SessionView,
        iface: Option<&'a str>,
        address: Ipv4Addr,
        forward: Option<SocketAddr>,
        config: Option<&'a Path>,
        left: Span,
    },
    /// The end is near.
    Warning { session: SessionId, left: Span, ends_at: Option<Wall> },
    /// The end has moved.
    Extended { session: SessionId, left: Span, ends_at: Option<Wall> },
    /// It goes another way: `left` stopped answering, or (`None`) the gateway answers there.
    Moved { session: SessionId, to: &'a Way, left: Option<&'a Way> },
    /// The lane is gone; `reason` as `end_reason`.
    Down { session: SessionId, reason: &'a str, detail: Option<&'a str> },
}

/// Tells events to whoever started the lane.
#[derive(Clone)]
pub struct Reporter {
    out: Out,
    /// Sentences go to stderr: stdout belongs to a command inside the lane.
    aside: bool,
    /// A background lane: its parent reads stdout until the lane is up, after that there is only the log.
    background: Option<Arc<AtomicBool>>,
    live: bool,
}

impl Reporter {
    /// For a lane in the foreground.
    pub fn foreground(out: Out, command: bool) -> Self {
        let live = !out.json && out.hints && !command && std::io::stderr().is_terminal();
        Self { out, aside: command, background: None, live }
    }

    /// For a lane that a background process holds.
    pub fn background(out: Out) -> Self {
        let out = Out { json: true, hints: true, ..out };
        Self { out, aside: false, background: Some(Arc::new(AtomicBool::new(false))), live: false }
    }

    pub fn out(&self) -> Out {
        self.out
    }

    /// Tells one event.
    pub fn tell(&self, event: &LaneEvent<'_>) -> Result<()> {
        if self.live {
            // Away with the live line.
            eprint!("\r\u{1b}[K");
        }
        let value = with_schema(to_json(event));
        match &self.background {
            Some(detached) if detached.load(Ordering::Relaxed) => {
                eprintln!("{} {value}", time::now());
                Ok(())
            }
            Some(detached) => {
                eprintln!("{} {value}", time::now());
                // The parent may have been interrupted; then it has sent SIGTERM as well.
                let _ = self.out.line(&value.to_string());
                if matches!(event, LaneEvent::Up { .. }) {
                    detached.store(true, Ordering::Relaxed);
                    let_go_of_stdout();
                }
                Ok(())
            }
            None if self.out.json => self.out.line(&value.to_string()),
            None => {
                let Some(sentence) = sentence(event) else { return Ok(()) };
                let result = matches!(event, LaneEvent::Up { .. } | LaneEvent::Down { .. });
                if result && !self.aside { self.out.line(&clean(&sentence)) } else { self.aside_line(&sentence) }
            }
        }
    }

    /// Tells why a background lane did not come up.
    pub fn failed(&self, failure: &Failure) {
        if let Some(detached) = &self.background
            && !detached.load(Ordering::Relaxed)
        {
            let _ = self.out.line(&failure_json(failure).to_string());
        }
    }

    /// Rewrites the line that counts down, where somebody watches.
    pub fn live(&self, line: impl FnOnce() -> String) {
        if self.live {
            eprint!("\r\u{1b}[K{}", clean(&line()));
            let _ = std::io::stderr().flush();
        }
    }

    fn aside_line(&self, sentence: &str) -> Result<()> {
        self.out.hint(sentence);
        Ok(())
    }
}

fn to_json(event: &LaneEvent<'_>) -> Value {
    let request = |kind: &str, request: &RequestView| {
        json!({
            "event": kind, "request": request.id, "asset": request.asset, "task": request.task,
            "state": crate::cmd::request::word(request.state), "seconds": request.seconds,
        })
    };
    match event {
        LaneEvent::Requested(view) => request("requested", view),
        LaneEvent::Approved(view) => request("approved", view),
        LaneEvent::Pending(view) => {
            let mut value = request("pending", view);
            value["approvers"] = json!(view.decision.obligations.approvers);
            value
        }
        LaneEvent::Up { session, iface, address, forward, config, left } => {
            let mut value = json!({
                "event": "up", "session": session.id, "request": session.request, "asset": session.asset,
                "task": session.task, "iface": iface, "asset_address": address, "asset_port": session.port,
                "protocol": session.protocol, "ends_at": session.ends_at, "remaining_seconds": left.as_secs(),
            });
            if let Some(forward) = forward {
                value["forward"] = json!(forward);
            }
            if let Some(config) = config {
                value["config"] = json!(config);
            }
            value
        }
        LaneEvent::Warning { session, left, ends_at } => {
            json!({ "event": "warning", "session": session, "remaining_seconds": left.as_secs(), "ends_at": ends_at })
        }
        LaneEvent::Extended { session, left, ends_at } => {
            json!({ "event": "extended", "session": session, "remaining_seconds": left.as_secs(), "ends_at": ends_at })
        }
        LaneEvent::Moved { session, to, .. } => {
            let (path, endpoint) = (to.path, to.endpoint.to_string());
            json!({ "event": "moved", "session": session, "path": path, "endpoint": endpoint, "reason": sentence(event) })
        }
        LaneEvent::Down { session, reason, detail } => {
            json!({ "event": "down", "session": session, "reason": reason, "detail": detail })
        }
    }
}

fn sentence(event: &LaneEvent<'_>) -> Option<String> {
    Some(match event {
        LaneEvent::Requested(view) => format!("asked for {} on {}: {}", view.task, view.asset, view.id),
        LaneEvent::Pending(view) => {
            let missing = missing(view).unwrap_or_else(|| "a decision".to_owned());
            format!("waiting for {missing}: thinlane request approve {}", view.id)
        }
        LaneEvent::Approved(view) => {
            let by = view.approvals.iter().map(|approval| &approval.by);
            let by = if view.approvals.is_empty() { String::new() } else { format!(" by {}", text::joined(by)) };
            format!("{} is approved{by} for {}", view.id, time::duration(view.seconds))
        }
        LaneEvent::Up { session, iface, address, forward, config, left } => {
            let way = match (iface, forward, config) {
                (Some(iface), ..) => format!("interface {iface}"),
                (None, Some(forward), _) => format!("connect your tool to {forward}"),
                (None, None, Some(config)) => format!("in {}", config.display()),
                (None, None, None) => "armed".to_owned(),
            };
            format!(
                "lane to {} is up: {address} {}/{}, {way}, {} left ({})",
                session.asset,
                session.protocol,
                session.port,
                time::countdown(*left),
                session.id
            )
        }
        LaneEvent::Warning { session, left, .. } => {
            format!(
                "the lane ends in {}; more time: thinlane extend {session} --for 15m --reason ..",
                time::countdown(*left)
            )
        }
        LaneEvent::Extended { left, .. } => format!("extended: {} left", time::countdown(*left)),
        LaneEvent::Moved { to, left, .. } => {
            let here = match to.path {
                model::Path::Direct => to.endpoint.to_string(),
                model::Path::Relay => "the relay".to_owned(),
            };
            match left.map(|left| (left.path, &left.endpoint)) {
                Some((model::Path::Direct, own)) => {
                    format!("the gateway's own address {own} stopped answering; going through {here}")
                }
                Some((model::Path::Relay, _)) => format!("the relay stopped answering; trying {here}"),
                None => format!("the gateway answers again, through {here}"),
            }
        }
        LaneEvent::Down { session, reason, detail } => {
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("lane {session} is down, {reason}{detail}")
        }
    })
}
