//! Which request a lane is opened with: the one named, an approved one of one's own, or a new one.

use std::time::Duration;

use thinlane_model::{AssetName, RequestId, Span, TaskName};
use thinlane_wire::api::{NewRequest, RequestState, RequestView, WhoAmI};

use super::{LaneEvent, Reporter};
use crate::api::Client;
use crate::api::paths::{item, query};
use crate::cmd::request;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// What the person said.
#[derive(Debug, Clone)]
pub struct Wish {
    pub target: Target,
    pub task: Option<TaskName>,
    pub seconds: Option<u64>,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    /// How long to wait for a decision; `None`: without end.
    pub wait: Option<Duration>,
}

/// An asset, or a request that was made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Asset(AssetName),
    /// An id or the beginning of one.
    Request(String),
}

impl Target {
    /// `req_...` is a request, everything else an asset.
    pub fn parse(text: &str) -> std::result::Result<Target, String> {
        match text.strip_prefix(RequestId::PREFIX) {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(Target::Request(text.to_owned()))
            }
            _ => text.parse().map(Target::Asset).map_err(|error: thinlane_model::NameError| error.to_string()),
        }
    }
}

/// What is known before anything is asked for: a request that exists, or the asset it would be for.
#[derive(Debug)]
pub enum Found {
    Request(Box<RequestView>),
    None(AssetName),
}

impl Found {
    pub fn asset(&self) -> &AssetName {
        match self {
            Found::Request(request) => &request.asset,
            Found::None(asset) => asset,
        }
    }

    /// The task of a request that exists.
    pub fn task(&self) -> Option<&TaskName> {
        match self {
            Found::Request(request) => Some(&request.task),
            Found::None(_) => None,
        }
    }
}

/// Looks for a request that fits the wish; creates nothing.
pub async fn find(client: &Client, wish: &Wish) -> Result<Found> {
    let asset = match &wish.target {
        Target::Request(id) => {
            let request: RequestView = client.get(&item("requests", id)).await?;
            request::outcome(&request)?;
            if request.state == RequestState::Used {
                let session = request.session.map_or("a session".to_owned(), |session| session.to_string());
                return Err(Failure::failed(format!("{} has been used for {session}", request.id)).next(format!(
                    "thinlane connect {} --task {} --reason ..   # asks again",
                    request.asset, request.task
                )));
            }
            return Ok(Found::Request(Box::new(request)));
        }
        Target::Asset(asset) => asset,
    };
    let me: WhoAmI = client.get("/whoami").await?;
    let path = query("/requests", &[("asset", Some(asset.to_string()))]);
    let requests: Vec<RequestView> = client.list(&path, 1000).await?;
    let own = requests.into_iter().filter(|request| request.user == me.user && request.asset == *asset);
    match choose(own.collect(), wish)? {
        Some(request) => Ok(Found::Request(Box::new(request))),
        None => Ok(Found::None(asset.clone())),
    }
}

/// The newest approved one that fits, else the newest pending one.
fn choose(requests: Vec<RequestView>, wish: &Wish) -> Result<Option<RequestView>> {
    let mut fitting: Vec<RequestView> = requests
        .into_iter()
        .filter(|request| matches!(request.state, RequestState::Approved | RequestState::Pending))
        .filter(|request| wish.task.as_ref().is_none_or(|task| *task == request.task))
        .filter(|request| fits_length(request, wish))
        .collect();
    fitting.sort_by_key(|request| (request.state != RequestState::Approved, std::cmp::Reverse(request.created_at)));
    if wish.task.is_none()
        && let Some(first) = fitting.first()
        && let Some(other) = fitting.iter().find(|request| request.state == first.state && request.task != first.task)
    {
        return Err(Failure::usage(format!(
            "you have requests for {} and for {} on {}",
            first.task, other.task, first.asset
        ))
        .next(format!("thinlane connect {}   # or name the task with --task", first.id)));
    }
    Ok(fitting.into_iter().next())
}

/// Who gives a length and a reason asks anew, unless a request of exactly that length waits already.
fn fits_length(request: &RequestView, wish: &Wish) -> bool {
    match wish.seconds {
        Some(seconds) if wish.reason.is_some() => request.seconds == seconds,
        _ => true,
    }
}

/// Says what is missing for a new request, before anything is done.
pub fn check_new(found: &Found, wish: &Wish) -> Result<()> {
    let Found::None(asset) = found else { return Ok(()) };
    let missing = match (&wish.task, &wish.reason) {
        (None, _) => "--task",
        (_, None) => "--reason",
        _ => return Ok(()),
    };
    Err(Failure::usage(format!("you have no open request for {asset}, and {missing} is needed for a new one")).next(
        format!("thinlane connect {asset} --task TASK --for 30m --reason ..   # thinlane task ls shows the tasks"),
    ))
}

/// An approved request: the one found, or a new one, once the approvers have said yes.
pub async fn approved(
    context: &Context,
    client: &Client,
    reporter: &Reporter,
    found: Found,
    wish: &Wish,
) -> Result<RequestView> {
    let made = matches!(found, Found::None(_));
    let request = match found {
        Found::Request(request) => *request,
        Found::None(asset) => {
            let (Some(task), Some(reason)) = (wish.task.clone(), wish.reason.clone()) else {
                return Err(Failure::usage("--task and --reason are needed for a new request"));
            };
            let body = NewRequest { asset, task, seconds: wish.seconds, reason, ticket: wish.ticket.clone() };
            let request: RequestView = client.post("/requests", &body).await?;
            reporter.tell(&LaneEvent::Requested(&request))?;
            if let Some(asked) = wish.seconds.filter(|asked| *asked > request.seconds) {
                reporter.out().hint(&format!(
                    "you asked for {}, the policy allows {}",
                    Span::from_secs(asked),
                    Span::from_secs(request.seconds)
                ));
            }
            request
        }
    };
    let pending = request.state == RequestState::Pending;
    if pending {
        reporter.tell(&LaneEvent::Pending(&request))?;
    }
    let request = request::decision(context, client, request, wish.wait).await?;
    request::outcome(&request)?;
    // A request that was approved before is no news.
    if request.state == RequestState::Approved && (made || pending) {
        reporter.tell(&LaneEvent::Approved(&request))?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wish(task: Option<&str>, seconds: Option<u64>, reason: Option<&str>) -> Wish {
        Wish {
            target: Target::Asset("rtu-7".parse().expect("a name")),
            task: task.map(|task| task.parse().expect("a name")),
            seconds,
            reason: reason.map(str::to_owned),
            ticket: None,
            wait: None,
        }
    }

    fn request(id: &str, state: &str, task: &str, seconds: u64, minute: u32) -> RequestView {
        serde_json::from_value(json!({
            "schema": 1, "id": id, "state": state, "user": "alice", "asset": "rtu-7", "site": "north", "task": task,
            "seconds": seconds, "reason": "x", "created_at": format!("2026-11-22T03:{minute:02}:00Z"), "approvals": [],
            "decision": {"verdict": "permit", "rules": ["any"], "policy_hash": "00", "obligations": {"approvals": 1, "seconds": 1800}},
        }))
        .expect("a request")
    }

    fn chosen(requests: Vec<RequestView>, wish: &Wish) -> Option<String> {
        choose(requests, wish).expect("no clash").map(|request| request.id.to_string())
    }

    #[test]
    fn an_approved_request_comes_before_a_newer_pending_one_and_used_ones_never() {
        let requests = vec![
            request("req_00000001", "used", "iec104", 1800, 59),
            request("req_00000002", "approved", "iec104", 1800, 1),
            request("req_00000003", "approved", "iec104", 1800, 2),
            request("req_00000004", "pending", "iec104", 1800, 3),
        ];
        assert_eq!(chosen(requests, &wish(None, None, None)).as_deref(), Some("req_00000003"));
    }

    #[test]
    fn a_request_for_another_task_or_another_length_is_not_taken() {
        let requests = || vec![request("req_00000001", "approved", "iec104", 1800, 1)];
        assert_eq!(chosen(requests(), &wish(Some("modbus"), None, None)), None);
        assert_eq!(chosen(requests(), &wish(Some("iec104"), Some(5), Some("x"))), None);
        assert!(chosen(requests(), &wish(Some("iec104"), Some(1800), Some("x"))).is_some());
        assert!(chosen(requests(), &wish(Some("iec104"), Some(3600), None)).is_some());
    }

    #[test]
    fn two_approved_tasks_are_not_guessed_between() {
        let requests = vec![
            request("req_00000001", "approved", "iec104", 1800, 1),
            request("req_00000002", "approved", "modbus", 1800, 2),
        ];
        let failure = choose(requests, &wish(None, None, None)).expect_err("a choice");
        assert!(failure.message.contains("iec104") && failure.message.contains("modbus"), "{}", failure.message);
    }

    #[test]
    fn a_new_request_needs_a_task_and_a_reason() {
        let none = || Found::None("rtu-7".parse().expect("a name"));
        assert_eq!(check_new(&none(), &wish(None, None, Some("x"))).expect_err("no task").exit.code(), 2);
        assert!(
            check_new(&none(), &wish(Some("iec104"), None, None)).expect_err("no reason").message.contains("--reason")
        );
        assert!(check_new(&none(), &wish(Some("iec104"), None, Some("x"))).is_ok());
    }

    #[test]
    fn a_target_is_a_request_by_its_prefix_and_an_asset_otherwise() {
        assert_eq!(Target::parse("req_7k2"), Ok(Target::Request("req_7k2".into())));
        assert!(matches!(Target::parse("rtu-7"), Ok(Target::Asset(_))));
        assert!(matches!(Target::parse("req_x-y"), Ok(Target::Asset(_))));
        assert!(Target::parse("../x").is_err());
    }
}
