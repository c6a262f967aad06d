//! The policy in force: its tasks, its state, and what it would say.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use thinlane_model::{AssetName, Login, Role, Span, TaskName};
use thinlane_policy::{Decision, PolicyState, TaskProfile};
use thinlane_session::World;
use thinlane_wire::api::{ApproverDemand, DecisionView, ErrorBody, ErrorCode, List, ObligationsView, Schema, TaskView};

use super::error::{Answer, Problem, Problems};
use super::extract::{Caller, Name, Params, Viewer};
use crate::app::App;

/// The policy in force.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PolicyView {
    #[schema(value_type = u32)]
    schema: Schema,
    /// `valid` | `invalid`: an invalid one denies everything.
    state: &'static str,
    /// SHA-256 over the whole policy, in hexadecimal.
    hash: Option<String>,
    tasks: usize,
    permits: usize,
    requires: usize,
    forbids: usize,
    /// File, line and key of each, where it is invalid.
    errors: Vec<String>,
}

/// All tasks.
#[utoipa::path(get, path = "/tasks", tag = "policy", responses((status = 200, body = List<TaskView>), Problems))]
pub async fn list_tasks(State(app): State<App>, caller: Caller) -> Answer<Json<List<TaskView>>> {
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            let policy = valid(state.policy())?;
            Ok(policy.tasks().map(|(name, task)| view(name, task)).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// One task.
#[utoipa::path(get, path = "/tasks/{task}", tag = "policy", params(("task" = String, Path)),
    responses((status = 200, body = TaskView), Problems))]
pub async fn show_task(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<TaskView>> {
    let name: TaskName = name.parse()?;
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            let task = valid(state.policy())?.task(&name);
            task.map(|task| view(&name, task)).ok_or_else(|| unknown("task", &name))
        })
        .await?;
    Ok(Json(found?))
}

/// Whether the policy is valid, and what is in it.
#[utoipa::path(get, path = "/policy", tag = "policy", responses((status = 200, body = PolicyView), Problems))]
pub async fn show(State(app): State<App>, caller: Caller) -> Answer<Json<PolicyView>> {
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            Ok(match state.policy() {
                PolicyState::Valid(policy) => PolicyView {
                    schema: Schema,
                    state: "valid",
                    hash: Some(policy.hash().to_owned()),
                    tasks: policy.tasks().count(),
                    permits: policy.permits().len(),
                    requires: policy.requires().len(),
                    forbids: policy.forbids().len(),
                    errors: Vec::new(),
                },
                PolicyState::Invalid(errors) => PolicyView {
                    schema: Schema,
                    state: "invalid",
                    hash: None,
                    tasks: 0,
                    permits: 0,
                    requires: 0,
                    forbids: 0,
                    errors: errors.iter().take(100).map(ToString::to_string).collect(),
                },
            })
        })
        .await?;
    Ok(Json(found?))
}

/// What to ask the policy.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// A login; absent: oneself.
    who: Option<String>,
    asset: String,
    task: String,
    /// Absent: the task's default.
    seconds: Option<u64>,
}

/// What the policy would decide now, with the rules that determine it; nothing is requested.
#[utoipa::path(get, path = "/policy/explain", tag = "policy", params(Question),
    responses((status = 200, body = DecisionView), Problems))]
pub async fn explain(
    State(app): State<App>,
    caller: Caller,
    Params(question): Params<Question>,
) -> Answer<Json<DecisionView>> {
    let wrong = |what: &'static str| {
        move |error: thinlane_model::NameError| Problem::invalid(StatusCode::BAD_REQUEST, format!("{what}: {error}"))
    };
    let who: Login = match question.who {
        Some(who) => who.parse().map_err(wrong("who"))?,
        None => caller.login.clone(),
    };
    let asset: AssetName = question.asset.parse().map_err(wrong("asset"))?;
    let task: TaskName = question.task.parse().map_err(wrong("task"))?;
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            if who != viewer.login {
                let roles = [Role::Admin, Role::Auditor, Role::Approver, Role::Ops];
                viewer.need("asking the policy about other people", &roles)?;
            }
            let policy = valid(state.policy())?;
            let world = state.world();
            let person = world.person(&who).ok_or_else(|| unknown("user", &who))?;
            let asset = world.asset(&asset).ok_or_else(|| unknown("asset", &asset))?;
            let time = question.seconds.map(Span::from_secs);
            let decision = policy.decide(&World::ask(person, asset, &task, time, crate::clock::wall()));
            Ok(decision_view(&decision, policy.hash()))
        })
        .await?;
    Ok(Json(found?))
}

fn decision_view(decision: &Decision, hash: &str) -> DecisionView {
    let obligations = &decision.obligations;
    DecisionView {
        verdict: if decision.is_permit() { "permit" } else { "deny" }.to_owned(),
        rules: decision.rules.iter().map(ToString::to_string).collect(),
        obligations: ObligationsView {
            approvals: obligations.approvals,
            approvers: obligations
                .needs
                .iter()
                .map(|need| ApproverDemand {
                    rule: need.rule.to_string(),
                    approvals: need.approvals,
                    roles: need.roles.iter().map(|role| role.as_str().to_owned()).collect(),
                    missing: need.approvals,
                })
                .collect(),
            seconds: obligations.seconds,
            extend_seconds: obligations.extend,
        },
        reasons: decision.reasons.clone(),
        policy_hash: hash.to_owned(),
    }
}

fn valid(state: &PolicyState) -> Result<&thinlane_policy::Policy, ErrorBody> {
    state.valid().ok_or_else(|| {
        ErrorBody::new(ErrorCode::PolicyInvalid, "the policy in force is invalid, so everything is denied")
            .next("`thinlane-controller policy check` says what is wrong")
    })
}

fn view(name: &TaskName, task: &TaskProfile) -> TaskView {
    TaskView {
        schema: Schema,
        task: name.clone(),
        title: task.title.clone(),
        protocol: task.protocol,
        port: task.port,
        default_seconds: task.default.as_secs(),
        max_seconds: task.max.as_secs(),
        extend_seconds: task.extend.map(Span::as_secs),
        offline_seconds: task.offline.as_secs(),
        idle_seconds: task.idle.map(Span::as_secs),
        limits: task.limits,
    }
}

fn unknown(kind: &str, name: &impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no {kind} {name}")).next(format!("`thinlane {kind} ls`"))
}
