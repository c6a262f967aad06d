//! The one shape of every error, also of those that the HTTP library finds.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use thinlane_session::Refusal;
use thinlane_wire::api::{ErrorBody, ErrorCode};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

/// An error on its way out.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    body: ErrorBody,
}

/// What every handler returns.
pub type Answer<T> = Result<T, Problem>;

impl From<ErrorBody> for Problem {
    fn from(body: ErrorBody) -> Self {
        let status = StatusCode::from_u16(body.error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        refused(&refusal).into()
    }
}

impl Problem {
    /// A malformed request, with a status of its own where HTTP has one.
    pub fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody::new(ErrorCode::Invalid, message) }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        ErrorBody::new(ErrorCode::NotFound, message).into()
    }
}

/// What helps with a request that HTTP itself or its form makes unacceptable.
fn correction(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::BAD_REQUEST => "/openapi.json describes what this path takes",
        StatusCode::METHOD_NOT_ALLOWED => "/openapi.json names the methods of each path",
        StatusCode::REQUEST_TIMEOUT => "send the body without pauses",
        StatusCode::PAYLOAD_TOO_LARGE => "send it in several parts",
        _ => return None,
    })
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let next = &mut self.body.error.next;
        *next = next.take().or_else(|| correction(self.status).map(str::to_owned));
        let retry = self.body.error.retry_after;
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(retry) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The world's refusal in the API's words.
pub fn refused(refusal: &Refusal) -> ErrorBody {
    let body = ErrorBody::new(refusal.code(), refusal.to_string());
    match refusal.next() {
        Some(next) => body.next(next),
        None => body,
    }
}

/// All errors, for the OpenAPI document: any of these statuses carries an [`ErrorBody`].
pub struct Problems;

impl utoipa::IntoResponses for Problems {
    fn responses() -> std::collections::BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let kinds = [
            (400, "The request is malformed"),
            (401, "No valid token, or a wrong login, password or code"),
            (403, "Roles, policy, an approver, a lock or the site's own switch forbid it"),
            (404, "There is no such thing"),
            (405, "Not with this method"),
            (408, "The body took too long"),
            (409, "It exists already, or its state does not allow this"),
            (410, "The request has lapsed, or the session has ended"),
            (413, "The body is too large"),
            (429, "A limit is reached"),
            (500, "The controller failed"),
            (502, "The gateway refused"),
            (503, "The log cannot be written"),
            (504, "The gateway is out of reach"),
        ];
        kinds
            .into_iter()
            .map(|(status, description)| {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
                let response =
                    ResponseBuilder::new().description(description).content("application/json", content).build();
                (status.to_string(), RefOr::T(response))
            })
            .collect()
    }
}
