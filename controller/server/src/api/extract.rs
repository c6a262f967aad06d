//! What handlers take: who asks, bodies, parameters; each refuses in the API's words.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use thinlane_model::{Login, Role, Roles, Wall};
use thinlane_session::Actor;
use thinlane_wire::api::{ErrorBody, ErrorCode};

use super::error::{Answer, Problem, refused};
use crate::app::App;
use crate::core::{Ended, State, Token, Why};

/// Bytes of a body at most.
pub const MOST_BODY: usize = 1 << 20;
/// Bytes of a larger one that are still read.
const MOST_THROWN_AWAY: usize = 16 << 20;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The address that a request comes from; put there by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Source(pub IpAddr);

/// Somebody with a valid token.
#[derive(Debug, Clone)]
pub struct Caller {
    pub login: Login,
    /// The token's id, not its text.
    pub token: String,
    pub expires: Wall,
}

impl Caller {
    pub fn actor(&self) -> Actor {
        Actor::Person(self.login.clone())
    }
}

/// A caller's roles at one moment, and that they may act at all.
#[derive(Debug, Clone)]
pub struct Viewer {
    pub login: Login,
    pub roles: Roles,
}

impl Viewer {
    pub fn of(state: &State, login: &Login) -> Result<Self, ErrorBody> {
        let world = state.world();
        let person = world.person(login).ok_or_else(unauthenticated)?;
        world.standing(person, crate::clock::wall()).map_err(|refusal| refused(&refusal))?;
        Ok(Self { login: login.clone(), roles: person.roles.clone() })
    }

    pub fn has(&self, any: &[Role]) -> bool {
        any.iter().any(|role| self.roles.contains(role))
    }

    /// Whether other people's requests and sessions are shown.
    pub fn sees_all(&self) -> bool {
        self.has(&[Role::Approver, Role::Ops, Role::Auditor, Role::Admin])
    }

    pub fn need(&self, what: &str, any: &[Role]) -> Result<(), ErrorBody> {
        if self.has(any) {
            return Ok(());
        }
        let roles: Vec<_> = any.iter().map(|role| role.as_str()).collect();
        Err(ErrorBody::new(ErrorCode::Forbidden, format!("{what} needs one of the roles {}", roles.join(", ")))
            .next("ask an admin for the role"))
    }
}

fn unauthenticated() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unauthenticated, "no valid token came with the request").next("`thinlane login`")
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let text = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let text = text.filter(|text| !text.is_empty()).ok_or_else(unauthenticated)?;
        match app.core.tokens().check(text, crate::clock::wall()) {
            Some((login, token, expires)) => Ok(Caller { login, token, expires }),
            None => Err(over(app, text).await?.into()),
        }
    }
}

/// Why a token opens nothing. Only whoever holds one that was good once learns more than a stranger: that the
/// account is locked, by whom, until when and who can unlock it; or what ended the log-in.
async fn over(app: &App, text: &str) -> Result<ErrorBody, ErrorBody> {
    let Some(token) = app.core.tokens().former(text) else {
        return Ok(ErrorBody::new(ErrorCode::Unauthenticated, "the token is not one of this controller's")
            .next("`thinlane login`"));
    };
    let login = token.login.clone();
    let standing = app.core.read(move |state| Viewer::of(state, &login).map(drop)).await?;
    if let Err(locked) = standing {
        return Ok(locked);
    }
    let Token { login, expires, ended, .. } = token;
    let why = match ended {
        None => format!("the log-in of {login} ended at {expires}, twelve hours after it began"),
        Some(Ended { at, why: Why::LoggedOut }) => format!("{login} logged out at {at}"),
        Some(Ended { at, why: Why::Locked }) => {
            format!("a lock on {login} ended this log-in at {at}; it is locked no longer")
        }
        Some(Ended { at, why: Why::Reset }) => {
            return Ok(ErrorBody::new(
                ErrorCode::Unauthenticated,
                format!("an admin reset the account of {login} at {at}: password and second factor are void"),
            )
            .next("ask that admin for the new set-up code, then `thinlane setup`"));
        }
    };
    Ok(ErrorBody::new(ErrorCode::Unauthenticated, why).next("`thinlane login`"))
}

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        parts
            .extensions
            .get::<Source>()
            .copied()
            .ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "the connection's address is not known").into())
    }
}

/// A JSON body. An empty one stands for `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &App) -> Answer<Self> {
        let bytes = match tokio::time::timeout(BODY_TIME, read_body(request.into_body())).await {
            Err(_) => return Err(Problem::invalid(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
            Ok(Err(())) => return Err(Problem::invalid(StatusCode::BAD_REQUEST, "the body was cut off")),
            Ok(Ok(None)) => {
                let message = format!("a body has at most {MOST_BODY} bytes");
                return Err(Problem::invalid(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            Ok(Ok(Some(bytes))) => bytes,
        };
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text).map_err(|error| {
            // Told to the sender alone, and logged nowhere: it may quote what was sent.
            let detail = error.to_string();
            let shown: String = detail.chars().take(300).collect();
            let message = match error.classify() {
                serde_json::error::Category::Data => format!("the body does not fit: {shown}"),
                _ => format!("the body is no JSON: line {} column {}", error.line(), error.column()),
            };
            Problem::invalid(StatusCode::BAD_REQUEST, message)
        })?;
        Ok(Self(value))
    }
}

/// Reads a body; `None`: it is too large. Some of what is too much is read and thrown away, or the sender, still
/// busy sending, would never see the answer.
async fn read_body(body: axum::body::Body) -> Result<Option<Vec<u8>>, ()> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(drop)?;
        total = total.saturating_add(chunk.len());
        match total {
            small if small <= MOST_BODY => bytes.extend_from_slice(&chunk),
            large if large <= MOST_THROWN_AWAY => bytes.clear(),
            _ => return Ok(None),
        }
    }
    Ok((total <= MOST_BODY).then_some(bytes))
}

/// Parameters after the `?`.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let shown: String = rejection.body_text().chars().take(300).collect();
                Err(Problem::invalid(StatusCode::BAD_REQUEST, shown))
            }
        }
    }
}

/// The one named part of a path.
pub struct Name(pub String);

impl FromRequestParts<App> for Name {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        match axum::extract::Path::<String>::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::invalid(StatusCode::BAD_REQUEST, "the path is no UTF-8")),
        }
    }
}

impl Name {
    /// Reads it as a checked type.
    pub fn parse<T: std::str::FromStr>(&self) -> Answer<T>
    where
        T::Err: std::fmt::Display,
    {
        self.0.parse().map_err(|error: T::Err| Problem::invalid(StatusCode::BAD_REQUEST, error.to_string()))
    }
}
