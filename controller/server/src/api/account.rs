//! People.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use thinlane_model::{Login, Role};
use thinlane_session::{Command, LockTarget, NewPerson};
use thinlane_wire::api::{Code, Done, ErrorBody, ErrorCode, List, LockView, NewUser, Reason, Schema, UserView};

use super::error::{Answer, Problem, Problems};
use super::extract::{Body, Caller, Name, Viewer};
use super::locks::{self, Locked};
use crate::app::App;
use crate::auth::new_setup_code;

/// Everybody, for those who keep the accounts or watch over them; oneself for everybody else.
#[utoipa::path(get, path = "/users", tag = "people", responses((status = 200, body = List<UserView>), Problems))]
pub async fn list(State(app): State<App>, caller: Caller) -> Answer<Json<List<UserView>>> {
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            let (world, now) = (state.world(), crate::clock::wall());
            let all = sees_people(&viewer);
            let people = world.people().filter(|person| all || person.login == viewer.login);
            Ok(people.filter_map(|person| world.user_view(&person.login, now)).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// Adds a person; the answer is their set-up code, shown this once.
#[utoipa::path(post, path = "/users", tag = "people", request_body = NewUser,
    responses((status = 201, body = Code), Problems))]
pub async fn add(State(app): State<App>, caller: Caller, Body(new): Body<NewUser>) -> Answer<(StatusCode, Json<Code>)> {
    let code = app
        .core
        .write(move |step| {
            let login = new.user.clone();
            let person = NewPerson {
                login: new.user,
                name: new.name,
                org: new.org,
                sponsor: new.sponsor,
                roles: new.roles,
                until: new.until,
            };
            step.command(&caller.actor(), Command::AddPerson(person))?;
            let (code, expires_at) = new_setup_code(step, &login)?;
            Ok(Code { schema: Schema, code: code.to_string(), expires_at })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(code)))
}

/// One person; everybody sees themselves.
#[utoipa::path(get, path = "/users/{login}", tag = "people", params(("login" = String, Path)),
    responses((status = 200, body = UserView), Problems))]
pub async fn show(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<UserView>> {
    let login: Login = name.parse()?;
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            if viewer.login != login && !sees_people(&viewer) {
                return Err(ErrorBody::new(ErrorCode::Forbidden, "other people's accounts are not shown to you")
                    .next("ask an admin"));
            }
            state.world().user_view(&login, crate::clock::wall()).ok_or_else(|| {
                ErrorBody::new(ErrorCode::NotFound, format!("no user {login}")).next("`thinlane user ls`")
            })
        })
        .await?;
    Ok(Json(found?))
}

/// Locks a person: tokens and sessions end now.
#[utoipa::path(post, path = "/users/{login}/lock", tag = "people", params(("login" = String, Path)), request_body = Reason,
    responses((status = 201, body = LockView), (status = 202, description = "Some sessions are still ending", body = LockView), Problems))]
pub async fn lock(State(app): State<App>, caller: Caller, name: Name, Body(body): Body<Reason>) -> Answer<Locked> {
    let target = LockTarget::User(name.parse()?);
    locks::lock(&app, &caller, target, None, body.reason).await
}

/// Unlocks a person.
#[utoipa::path(post, path = "/users/{login}/unlock", tag = "people", params(("login" = String, Path)),
    responses((status = 200, body = Done), Problems))]
pub async fn unlock(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<Done>> {
    let target = LockTarget::User(name.parse()?);
    locks::unlock(&app, &caller, target).await
}

/// Voids password, second factor and tokens; the answer is a new set-up code.
#[utoipa::path(post, path = "/users/{login}/reset", tag = "people", params(("login" = String, Path)),
    responses((status = 200, body = Code), Problems))]
pub async fn reset(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<Code>> {
    let login: Login = name.parse()?;
    let code = app.core.write(move |step| {
        step.command(&caller.actor(), Command::ResetPerson { login: login.clone() })?;
        let (code, expires_at) = new_setup_code(step, &login)?;
        Ok(Code { schema: Schema, code: code.to_string(), expires_at })
    });
    Ok(Json(code.await.map_err(Problem::from)?))
}

fn sees_people(viewer: &Viewer) -> bool {
    viewer.has(&[Role::Admin, Role::Auditor, Role::Ops, Role::Approver])
}
