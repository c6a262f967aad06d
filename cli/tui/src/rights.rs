//! Who may do what, known before anything is asked. The controller decides; this says the same sooner, so that nobody
//! writes a reason for what will be refused.

use thinlane_model::{RequestId, SessionId};
use thinlane_wire::api::RequestState;

use crate::columns::request_word;
use crate::keys::Action;
use crate::model::Model;

const OPS: &[&str] = &["ops", "admin"];
const CODES: &[&str] = &["site-tech", "ops", "admin"];
/// Ops, or engineers for a session of their own.
const EXTEND: &[&str] = &["ops", "admin", "requester"];

/// The roles of which one is needed; `None`: everybody may, or it depends on what is selected.
fn needed(action: Action) -> Option<&'static [&'static str]> {
    match action {
        Action::Kill | Action::Lock | Action::Unlock => Some(OPS),
        Action::Code => Some(CODES),
        Action::Extend => Some(EXTEND),
        _ => None,
    }
}

/// Who may, where this person may not, whatever is selected.
pub fn others(action: Action, model: &Model) -> Option<String> {
    let needed = needed(action)?;
    // Nothing is known of the roles before the controller was heard.
    (!model.roles.is_empty() && !holds(model, needed)).then(|| needed.join(" or "))
}

/// Why an action would be refused by this person's roles.
pub fn refusal(action: Action, model: &Model) -> Option<String> {
    let who = others(action, model)?;
    let what = match action {
        Action::Kill => "killing a session",
        Action::Lock => "locking",
        Action::Unlock => "unlocking",
        Action::Code => "an enrolment code",
        Action::Extend => "giving more time",
        _ => "this",
    };
    Some(format!("not done: {what} is for {who}, and you are {}", model.roles.join(", ")))
}

/// Why this person cannot give this session more time.
pub fn of_extension(id: &SessionId, model: &Model) -> Option<String> {
    let theirs = model.sessions.get(id)?.view.user.clone();
    let own = model.login.as_ref() == Some(&theirs);
    let may = model.roles.is_empty() || own || holds(model, OPS);
    (!may).then(|| format!("not done: {id} is {theirs}'s; ops or admin may give it more time"))
}

/// Why this person cannot decide this request.
pub fn of_decision(id: &RequestId, approve: bool, model: &Model) -> Option<String> {
    let view = &model.requests.get(id)?.view;
    if view.state != RequestState::Pending {
        return Some(format!("{id} is {} already", request_word(view.state)));
    }
    let login = model.login.as_ref()?;
    if view.user == *login {
        return Some(format!("not done: {id} is your own request; somebody else decides it"));
    }
    if approve && view.approvals.iter().any(|approval| approval.by == *login) {
        return Some(format!("your approval of {id} is in already; somebody else's is missing"));
    }
    let demands = &view.decision.obligations.approvers;
    let named: Vec<&str> = demands.iter().flat_map(|demand| demand.roles.iter().map(String::as_str)).collect();
    let may =
        model.roles.is_empty() || named.is_empty() || holds(model, &named) || (!approve && holds(model, &["approver"]));
    (!may).then(|| {
        let mut who = named;
        who.sort_unstable();
        who.dedup();
        format!("not done: {id} is decided by {}, and you are {}", who.join(" or "), model.roles.join(", "))
    })
}

fn holds(model: &Model, any: &[&str]) -> bool {
    model.roles.iter().any(|role| any.contains(&role.as_str()))
}
