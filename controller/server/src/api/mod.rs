//! The HTTPS API under `/api/v1`, and its OpenAPI document, made from the same list of routes.

pub mod error;
pub mod extract;

mod account;
mod audit;
mod door;
mod inventory;
mod live;
mod locks;
mod policy;
pub(crate) mod probe;
mod requests;
mod sessions;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use thinlane_wire::api::ErrorBody;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use error::Problem;

/// Where the API's paths begin.
pub const PREFIX: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Thinlane controller",
        description = "One lane for one person to one device: requests, decisions, sessions, and the log of all of it. \
                       Every object carries `schema: 1`; times are RFC 3339 UTC, durations whole seconds. Lists are \
                       `{schema, items, next}`. Ids may be shortened to any unique beginning.",
    ),
    components(schemas(ErrorBody)),
    security(("token" = [])),
)]
struct Document;

/// Every route, and the document that names every route.
pub fn router(app: App) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(door::status))
        .routes(routes!(door::set_up))
        .routes(routes!(door::log_in))
        .routes(routes!(door::log_out))
        .routes(routes!(door::who_am_i))
        .routes(routes!(door::enrol))
        .routes(routes!(probe::ticket))
        .routes(routes!(account::list, account::add))
        .routes(routes!(account::show))
        .routes(routes!(account::lock))
        .routes(routes!(account::unlock))
        .routes(routes!(account::reset))
        .routes(routes!(inventory::list_sites, inventory::add_site))
        .routes(routes!(inventory::show_site))
        .routes(routes!(inventory::site_token))
        .routes(routes!(inventory::unfreeze_site))
        .routes(routes!(inventory::renew_site))
        .routes(routes!(inventory::list_assets, inventory::add_asset))
        .routes(routes!(inventory::import_assets))
        .routes(routes!(inventory::show_asset, inventory::remove_asset))
        .routes(routes!(policy::list_tasks))
        .routes(routes!(policy::show_task))
        .routes(routes!(policy::show))
        .routes(routes!(policy::explain))
        .routes(routes!(requests::list, requests::create))
        .routes(routes!(requests::show))
        .routes(routes!(requests::approve))
        .routes(routes!(requests::deny))
        .routes(routes!(requests::withdraw))
        .routes(routes!(sessions::activate))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::kill))
        .routes(routes!(sessions::release))
        .routes(routes!(sessions::extend))
        .routes(routes!(live::session_events))
        .routes(routes!(live::history))
        .routes(routes!(live::events))
        .routes(routes!(live::overview))
        .routes(routes!(locks::list, locks::set))
        .routes(routes!(locks::clear))
        .routes(routes!(locks::clear_named))
        .routes(routes!(audit::entries))
        .routes(routes!(audit::checkpoint))
        .routes(routes!(audit::verify));
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi()).nest(PREFIX, v1).split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    if let Some(components) = &mut document.components {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.security_schemes.insert("token".to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
    }
    let json: std::sync::Arc<str> = document.to_json().unwrap_or_default().into();
    let here = json.clone();
    let serve = move |json: std::sync::Arc<str>| async move {
        ([(header::CONTENT_TYPE, "application/json")], json.to_string())
    };
    router
        .route("/openapi.json", get(move || serve(here)))
        .route(&format!("{PREFIX}/openapi.json"), get(move || serve(json)))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn no_such_path(uri: axum::http::Uri) -> impl IntoResponse {
    let shown: String = uri.path().chars().take(100).collect();
    let mut body = ErrorBody::new(thinlane_wire::api::ErrorCode::NotFound, format!("no path {shown}"));
    body.error.next = Some("/openapi.json lists all paths".to_owned());
    Problem::from(body)
}

async fn no_such_method(method: axum::http::Method) -> impl IntoResponse {
    let shown: String = method.as_str().chars().take(20).collect();
    Problem::invalid(StatusCode::METHOD_NOT_ALLOWED, format!("this path does not take {shown}"))
}

/// A list as every list route answers it.
pub(crate) fn list<T>(items: Vec<T>) -> axum::Json<thinlane_wire::api::List<T>> {
    axum::Json(thinlane_wire::api::List { schema: thinlane_wire::api::Schema, items, next: None })
}
