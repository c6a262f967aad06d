//! Coming and going: status, set-up, log-in, log-out, and a gateway's enrolment.

use axum::Json;
use axum::extract::State;
use data_encoding::BASE64;
use thinlane_session::{Actor, Certificate, Command, Note};
use thinlane_wire::api::{
    Done, Enrol, Enrolled, ErrorBody, ErrorCode, LogIn, Schema, Setup, SetupStarted, StatusView, Token, WhoAmI,
};

use super::error::{Answer, Problem, Problems};
use super::extract::{Body, Caller, Source, Viewer};
use crate::app::App;
use crate::auth::{SetupAnswer, code};
use crate::core::Why;

/// Whether it is up, which version, and its clock.
#[utoipa::path(get, path = "/status", tag = "door", security(()), responses((status = 200, body = StatusView), Problems))]
pub async fn status() -> Json<StatusView> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(StatusView { schema: Schema, version, time: crate::clock::wall() })
}

/// The answer of either call of a set-up.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum SetupReply {
    Started(SetupStarted),
    Finished(Token),
}

/// The first log-in, in two calls: without `totp` it shows the second factor, with a code of it it finishes.
#[utoipa::path(post, path = "/setup", tag = "door", security(()), request_body = Setup,
    responses((status = 200, body = SetupReply), Problems))]
pub async fn set_up(
    State(app): State<App>,
    Source(source): Source,
    Body(body): Body<Setup>,
) -> Answer<Json<SetupReply>> {
    Ok(Json(match app.auth.set_up(body, source).await? {
        SetupAnswer::Started(started) => SetupReply::Started(started),
        SetupAnswer::Finished(token) => SetupReply::Finished(token),
    }))
}

/// Password and second factor for a token of twelve hours.
#[utoipa::path(post, path = "/login", tag = "door", security(()), request_body = LogIn,
    responses((status = 200, body = Token), Problems))]
pub async fn log_in(State(app): State<App>, Source(source): Source, Body(body): Body<LogIn>) -> Answer<Json<Token>> {
    Ok(Json(app.auth.log_in(body, source).await?))
}

/// Ends the token that comes with the request.
#[utoipa::path(post, path = "/logout", tag = "door", responses((status = 200, body = Done), Problems))]
pub async fn log_out(State(app): State<App>, caller: Caller) -> Answer<Json<Done>> {
    app.core
        .write(move |step| {
            step.end_token(caller.token.clone(), Why::LoggedOut);
            step.note(&caller.actor(), Note::LoggedOut { login: caller.login.clone() })
        })
        .await?;
    Ok(Json(Done::default()))
}

/// Whose token this is, and which roles they hold.
#[utoipa::path(get, path = "/whoami", tag = "door", responses((status = 200, body = WhoAmI), Problems))]
pub async fn who_am_i(State(app): State<App>, caller: Caller) -> Answer<Json<WhoAmI>> {
    let found = app.core.read(move |state| {
        Viewer::of(state, &caller.login)?;
        let person = state.world().person(&caller.login);
        Ok(person.map(|person| WhoAmI {
            schema: Schema,
            user: person.login.clone(),
            name: person.name.clone(),
            org: person.org.clone(),
            roles: person.roles.clone(),
            token_expires_at: caller.expires,
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    });
    let found: Result<_, ErrorBody> = found.await?;
    found?.map(Json).ok_or_else(|| Problem::not_found("this person is gone"))
}

/// A gateway's enrolment with its one-time code.
#[utoipa::path(post, path = "/enrol", tag = "door", security(()), request_body = Enrol,
    responses((status = 200, body = Enrolled), Problems))]
pub async fn enrol(State(app): State<App>, Source(source): Source, Body(body): Body<Enrol>) -> Answer<Json<Enrolled>> {
    app.auth.begin_enrolment(source)?;
    let hash = code::hash(&body.code);
    let wanted = hash.clone();
    let site = app.core.read(move |state| state.world().site_of_code(wanted.as_str(), crate::clock::wall())).await?;
    let Some(site) = site else {
        let kept = app.auth.enrolment_failed(source);
        let address = source.to_string();
        app.core
            .write(move |step| {
                step.keep_tries(&kept);
                let failed =
                    Note::LogInFailed { login: "gateway".to_owned(), address, why: "enrolment code".to_owned() };
                step.note(&Actor::System, failed)
            })
            .await?;
        return Err(ErrorBody::new(ErrorCode::AuthenticationFailed, "the code is unknown, used or expired")
            .next("`thinlane site token SITE` makes a new one")
            .into());
    };
    let issued = app
        .ca
        .agent_from_base64(&body.csr, site, crate::clock::wall())
        .map_err(|error| ErrorBody::new(ErrorCode::Invalid, error.to_string()))?;
    let certificate = Certificate { serial: issued.serial.clone(), not_after: issued.not_after };
    let name = app
        .core
        .write(move |step| {
            let enrol =
                Command::Enrol { code_hash: hash.as_str().to_owned(), certificate, version: body.agent_version };
            step.command(&Actor::System, enrol)?;
            Ok(step.world().site(&site).map(|site| site.name.clone()))
        })
        .await?;
    Ok(Json(Enrolled {
        schema: Schema,
        site,
        site_name: name.ok_or_else(|| Problem::not_found("this site is gone"))?,
        chain: issued.chain.iter().map(|der| BASE64.encode(der)).collect(),
        grant_keys: app.grant_keys.clone(),
        log_key: app.log_key.clone(),
    }))
}
