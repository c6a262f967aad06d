//! What a lane says on its way: JSON events for programs, sentences for people.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use thinlane_model::{self as model, SessionId, Span, Wall};
use thinlane_wire::api::{RequestView, SessionView};

use super::ways::{Moved, Way, Why};
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
        /// The way that it takes, where there is more than one and a handshake has shown it.
        way: Option<&'a Way>,
        left: Span,
    },
    /// The end is near.
    Warning { session: SessionId, left: Span, ends_at: Option<Wall> },
    /// The end has moved.
    Extended { session: SessionId, left: Span, ends_at: Option<Wall> },
    /// It goes another way.
    Moved { session: SessionId, moved: &'a Moved },
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
        LaneEvent::Up { session, iface, address, forward, config, way, left } => {
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
            if let Some(way) = way {
                (value["path"], value["endpoint"]) = (json!(way.path), json!(way.endpoint.to_string()));
            }
            value
        }
        LaneEvent::Warning { session, left, ends_at } => {
            json!({ "event": "warning", "session": session, "remaining_seconds": left.as_secs(), "ends_at": ends_at })
        }
        LaneEvent::Extended { session, left, ends_at } => {
            json!({ "event": "extended", "session": session, "remaining_seconds": left.as_secs(), "ends_at": ends_at })
        }
        LaneEvent::Moved { session, moved } => {
            let (path, endpoint) = (moved.to.path, moved.to.endpoint.to_string());
            json!({
                "event": "moved", "session": session, "path": path, "endpoint": endpoint, "answers": moved.answers(),
                "reason": sentence(event),
            })
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
        LaneEvent::Up { session, iface, address, forward, config, way, left } => {
            let end = match (iface, forward, config) {
                (Some(iface), ..) => format!("interface {iface}"),
                (None, Some(forward), _) => format!("connect your tool to {forward}"),
                (None, None, Some(config)) => format!("in {}", config.display()),
                (None, None, None) => "armed".to_owned(),
            };
            let by = match way.map(|way| (way.path, &way.endpoint)) {
                Some((model::Path::Direct, own)) => format!(", directly to {own}"),
                Some((model::Path::Relay, _)) => ", through the relay".to_owned(),
                None => String::new(),
            };
            format!(
                "lane to {} is up: {address} {}/{}, {end}{by}, {} left ({})",
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
        LaneEvent::Moved { moved, .. } => moved_sentence(moved),
        LaneEvent::Down { session, reason, detail } => {
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("lane {session} is down, {reason}{detail}")
        }
    })
}

/// What happened to the way, in the words of whoever watches a lane.
fn moved_sentence(moved: &Moved) -> String {
    fn own(way: &Way) -> Option<&model::Endpoint> {
        (way.path == model::Path::Direct).then_some(&way.endpoint)
    }
    let here = own(&moved.to).map_or_else(|| "the relay".to_owned(), ToString::to_string);
    match &moved.why {
        Why::Left(left) => {
            let there =
                own(left).map_or_else(|| "the relay".to_owned(), |own| format!("the gateway's own address {own}"));
            format!("{there} stopped answering; trying {here}")
        }
        Why::Reached => match own(&moved.to) {
            Some(own) => format!("the gateway answers at {own}"),
            None => "the gateway answers through the relay".to_owned(),
        },
        Why::Again => format!("the gateway answers again, through {here}"),
        Why::Found(from) => match own(from) {
            Some(own) => format!("the gateway has changed its way from its own address {own} to {here}"),
            None => format!("the gateway has changed its way from the relay to its own address {here}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_way_is_told_as_it_happened() {
        let own = Way { path: model::Path::Direct, endpoint: "gw.example:51820".parse().expect("an endpoint") };
        let relay = Way { path: model::Path::Relay, endpoint: "hq.example:7443".parse().expect("an endpoint") };
        let session = SessionId::from_random([1; 5]);
        let told = |to: &Way, why: Why| {
            let looked_for = matches!(why, Why::Left(_));
            let value = to_json(&LaneEvent::Moved { session, moved: &Moved { to: to.clone(), why } });
            assert_eq!(value["answers"], !looked_for, "{value}");
            assert_eq!((&value["path"], &value["endpoint"]), (&json!(to.path), &json!(to.endpoint.to_string())));
            value["reason"].as_str().unwrap_or_default().to_owned()
        };
        let left = "the gateway's own address gw.example:51820 stopped answering; trying the relay";
        assert_eq!(told(&relay, Why::Left(own.clone())), left);
        assert_eq!(told(&own, Why::Left(relay.clone())), "the relay stopped answering; trying gw.example:51820");
        assert_eq!(told(&relay, Why::Reached), "the gateway answers through the relay");
        assert_eq!(told(&own, Why::Reached), "the gateway answers at gw.example:51820");
        assert_eq!(told(&own, Why::Again), "the gateway answers again, through gw.example:51820");
        // Nobody had missed it: nothing stopped, and nothing answers again.
        for (to, from) in [(&relay, &own), (&own, &relay)] {
            let sentence = told(to, Why::Found(from.clone()));
            assert!(sentence.starts_with("the gateway has changed its way from"), "{sentence}");
            assert!(!sentence.contains("again") && !sentence.contains("stopped"), "{sentence}");
        }
    }
}
