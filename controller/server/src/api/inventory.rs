//! Sites and assets.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use thinlane_model::{AssetName, AssetType, Role, SiteId, SiteName};
use thinlane_session::{Answer as Told, AssetSpec, Command, LockTarget, World};
use thinlane_wire::api::{
    AssetView, Code, Criticality, Done, ErrorBody, ErrorCode, ImportAssets, List, NewAsset, NewSite, Reason, Schema,
    SiteView,
};

use super::error::{Answer, Problem, Problems};
use super::extract::{Body, Caller, Name, Params, Viewer};
use crate::app::App;
use crate::auth::code;
use crate::core::Step;
use crate::views;

/// Letters of an enrolment code: 100 bits.
const CODE_LETTERS: usize = 20;

/// All sites.
#[utoipa::path(get, path = "/sites", tag = "inventory", responses((status = 200, body = List<SiteView>), Problems))]
pub async fn list_sites(State(app): State<App>, caller: Caller) -> Answer<Json<List<SiteView>>> {
    let channels = app.channels.clone();
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            let world = state.world();
            let mut views: Vec<_> = world.sites().filter_map(|site| views::site(world, &channels, &site.id)).collect();
            views.sort_by(|a, b| a.site.cmp(&b.site));
            Ok(views)
        })
        .await?;
    Ok(super::list(found?))
}

/// Adds a site.
#[utoipa::path(post, path = "/sites", tag = "inventory", request_body = NewSite,
    responses((status = 201, body = SiteView), Problems))]
pub async fn add_site(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewSite>,
) -> Answer<(StatusCode, Json<SiteView>)> {
    let channels = app.channels.clone();
    let view = app.core.write(move |step| {
        let told =
            step.command(&caller.actor(), Command::AddSite { name: new.site.clone(), endpoint: new.endpoint })?;
        let Told::Site(site) = told else { return Err(gone("site", &new.site)) };
        views::site(step.world(), &channels, &site).ok_or_else(|| gone("site", &new.site))
    });
    Ok((StatusCode::CREATED, Json(view.await.map_err(Problem::from)?)))
}

/// One site, by name or id.
#[utoipa::path(get, path = "/sites/{site}", tag = "inventory", params(("site" = String, Path)),
    responses((status = 200, body = SiteView), Problems))]
pub async fn show_site(State(app): State<App>, caller: Caller, Name(name): Name) -> Answer<Json<SiteView>> {
    let channels = app.channels.clone();
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            let (site, _) = find_site(state.world(), &name)?;
            views::site(state.world(), &channels, &site).ok_or_else(|| gone("site", &name))
        })
        .await?;
    Ok(Json(found?))
}

/// A one-time code with which a gateway enrols; the site's earlier unused code is void.
#[utoipa::path(post, path = "/sites/{site}/token", tag = "inventory", params(("site" = String, Path)),
    responses((status = 201, body = Code), Problems))]
pub async fn site_token(State(app): State<App>, caller: Caller, Name(name): Name) -> Answer<(StatusCode, Json<Code>)> {
    let code = code::make(CODE_LETTERS).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
    let code_hash = code::hash(&code).as_str().to_owned();
    let told = app.core.write(move |step| {
        let (_, site) = find_site(step.world(), &name)?;
        step.command(&caller.actor(), Command::IssueCode { site, code_hash })
    });
    match told.await.map_err(Problem::from)? {
        Told::Code { expires_at, .. } => {
            Ok((StatusCode::CREATED, Json(Code { schema: Schema, code: code.to_string(), expires_at })))
        }
        _ => Err(ErrorBody::new(ErrorCode::Internal, "no code was made").into()),
    }
}

/// Lets a frozen site's gateway in again, once the second one is found.
#[utoipa::path(post, path = "/sites/{site}/unfreeze", tag = "inventory", params(("site" = String, Path)), request_body = Reason,
    responses((status = 200, body = SiteView), Problems))]
pub async fn unfreeze_site(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Body(_): Body<Reason>,
) -> Answer<Json<SiteView>> {
    let channels = app.channels.clone();
    let view = app.core.write(move |step| {
        let (id, site) = find_site(step.world(), &name)?;
        if step.world().site(&id).is_some_and(|site| site.frozen.is_none()) {
            return Err(ErrorBody::new(ErrorCode::Conflict, format!("site {site} is not frozen")));
        }
        step.command(&caller.actor(), Command::Unlock { target: LockTarget::Site(site) })?;
        views::site(step.world(), &channels, &id).ok_or_else(|| gone("site", &name))
    });
    Ok(Json(view.await.map_err(Problem::from)?))
}

/// Allows the site's gateway to renew its expired, unrevoked certificate within the next hour.
#[utoipa::path(post, path = "/sites/{site}/renew", tag = "inventory", params(("site" = String, Path)),
    responses((status = 200, body = Done), Problems))]
pub async fn renew_site(State(app): State<App>, caller: Caller, Name(name): Name) -> Answer<Json<Done>> {
    let allowed: Result<SiteId, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            viewer.need("approving a gateway's certificate", &[Role::Ops, Role::Admin])?;
            find_site(state.world(), &name).map(|(id, _)| id)
        })
        .await?;
    app.channels.allow_renewal(allowed?, crate::clock::mono());
    Ok(Json(Done::default()))
}

/// Which assets.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OfSite {
    /// Of this site only.
    site: Option<String>,
}

/// All assets, or those of one site.
#[utoipa::path(get, path = "/assets", tag = "inventory", params(OfSite),
    responses((status = 200, body = List<AssetView>), Problems))]
pub async fn list_assets(
    State(app): State<App>,
    caller: Caller,
    Params(of): Params<OfSite>,
) -> Answer<Json<List<AssetView>>> {
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            let world = state.world();
            let site = of.site.map(|name| find_site(world, &name)).transpose()?;
            let assets = world.assets().filter(|asset| site.as_ref().is_none_or(|(id, _)| asset.site == *id));
            Ok(assets.filter_map(|asset| world.asset_view(&asset.asset)).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// Adds an asset.
#[utoipa::path(post, path = "/assets", tag = "inventory", request_body = NewAsset,
    responses((status = 201, body = AssetView), Problems))]
pub async fn add_asset(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewAsset>,
) -> Answer<(StatusCode, Json<AssetView>)> {
    let spec = spec(new)?;
    let name = spec.asset.clone();
    let view = app.core.write(move |step| {
        step.command(&caller.actor(), Command::AddAsset(spec))?;
        step.world().asset_view(&name).ok_or_else(|| gone("asset", &name))
    });
    Ok((StatusCode::CREATED, Json(view.await.map_err(Problem::from)?)))
}

/// Adds many assets, all or none; an error names each asset that is in the way, on a line of its own. With `check`
/// nothing is added, and the answer is empty where nothing is wrong.
#[utoipa::path(post, path = "/assets/import", tag = "inventory", request_body = ImportAssets,
    responses((status = 201, body = List<AssetView>), (status = 200, description = "Nothing is wrong with them", body = List<AssetView>), Problems))]
pub async fn import_assets(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ImportAssets>,
) -> Answer<(StatusCode, Json<List<AssetView>>)> {
    let (mut specs, mut wrong) = (Vec::new(), Vec::new());
    for new in body.assets {
        let asset = new.asset.clone();
        match spec(new) {
            Ok(spec) => specs.push(spec),
            Err(error) => wrong.push(format!("{asset}: {}", error.error.message)),
        }
    }
    if body.check || !wrong.is_empty() {
        app.core.write(move |step| check_import(step, &caller, specs, wrong)).await?;
        return Ok((StatusCode::OK, super::list(Vec::new())));
    }
    let views = app.core.write(move |step| {
        let Told::Assets(added) = step.command(&caller.actor(), Command::ImportAssets(specs))? else {
            return Err(ErrorBody::new(ErrorCode::Internal, "nothing was added"));
        };
        Ok(added.iter().filter_map(|(name, _)| step.world().asset_view(name)).collect::<Vec<_>>())
    });
    Ok((StatusCode::CREATED, super::list(views.await.map_err(Problem::from)?)))
}

/// Everything that is wrong with an import, `wrong` and what is in the way of the others, in one answer.
fn check_import(
    step: &mut Step<'_>,
    caller: &Caller,
    specs: Vec<AssetSpec>,
    mut wrong: Vec<String>,
) -> Result<(), ErrorBody> {
    let none = specs.is_empty();
    match step.consider(&caller.actor(), Command::ImportAssets(specs)) {
        // That there is none is no fault of those that were left out.
        Err(body) if body.error.code == ErrorCode::Invalid && none => {}
        Err(body) if body.error.code == ErrorCode::Invalid => wrong.push(body.error.message),
        done => done?,
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let body = ErrorBody::new(ErrorCode::Invalid, wrong.join("\n"));
    Err(body.next("correct these and import the whole file again; nothing was taken"))
}

/// One asset.
#[utoipa::path(get, path = "/assets/{asset}", tag = "inventory", params(("asset" = String, Path)),
    responses((status = 200, body = AssetView), Problems))]
pub async fn show_asset(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<AssetView>> {
    let asset: AssetName = name.parse()?;
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            Viewer::of(state, &caller.login)?;
            state.world().asset_view(&asset).ok_or_else(|| gone("asset", &asset))
        })
        .await?;
    Ok(Json(found?))
}

/// Removes an asset without live sessions.
#[utoipa::path(delete, path = "/assets/{asset}", tag = "inventory", params(("asset" = String, Path)),
    responses((status = 200, body = Done), Problems))]
pub async fn remove_asset(State(app): State<App>, caller: Caller, name: Name) -> Answer<Json<Done>> {
    let asset: AssetName = name.parse()?;
    app.core.write(move |step| step.command(&caller.actor(), Command::RemoveAsset { asset })).await?;
    Ok(Json(Done::default()))
}

fn spec(new: NewAsset) -> Result<AssetSpec, ErrorBody> {
    let kind: AssetType = parsed(&new.kind, "type")?;
    Ok(AssetSpec {
        asset: new.asset,
        site: new.site,
        address: new.address,
        kind,
        criticality: match new.criticality {
            Criticality::Low => thinlane_model::Criticality::Low,
            Criticality::Medium => thinlane_model::Criticality::Medium,
            Criticality::High => thinlane_model::Criticality::High,
        },
        labels: new.labels,
        keep_source: false,
    })
}

fn parsed<T: FromStr>(text: &str, field: &str) -> Result<T, ErrorBody>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| ErrorBody::new(ErrorCode::Invalid, format!("{field}: {error}")))
}

/// A site by its name, or by its id.
pub(super) fn find_site(world: &World, text: &str) -> Result<(SiteId, SiteName), ErrorBody> {
    let named = text.parse::<SiteName>().ok().and_then(|name| world.site_named(&name));
    let found = named.or_else(|| text.parse::<SiteId>().ok().and_then(|id| world.site(&id)));
    found
        .map(|site| (site.id, site.name.clone()))
        .ok_or_else(|| gone("site", &text.chars().take(64).collect::<String>()))
}

fn gone(kind: &str, name: &impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no {kind} {name}")).next(format!("`thinlane {kind} ls`"))
}
