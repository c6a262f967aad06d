//! Tickets with which gateways and people try whether UDP reaches the relay.

use axum::Json;
use axum::extract::State;
use thinlane_wire::api::{ErrorBody, ErrorCode, ProbeView};
use thinlane_wire::{ProbeKey, ProbeTicket};

use super::error::{Answer, Problems};
use super::extract::{Caller, Viewer};
use crate::app::App;

/// A ticket for probes of the relay: `doctor` finds out with it whether UDP gets there, and how large it may be.
#[utoipa::path(post, path = "/probe", tag = "door", responses((status = 200, body = ProbeView), Problems))]
pub async fn ticket(State(app): State<App>, caller: Caller) -> Answer<Json<ProbeView>> {
    let known: Result<Viewer, ErrorBody> = app.core.read(move |state| Viewer::of(state, &caller.login)).await?;
    known?;
    Ok(Json(ProbeView::from(&issue(&app).await?)))
}

/// Makes a ticket; the relay keeps nothing for it.
pub async fn issue(app: &App) -> Result<ProbeTicket, ErrorBody> {
    let (ticket, secret) = app
        .relay
        .probe_ticket()
        .map_err(|error| ErrorBody::new(ErrorCode::Internal, format!("no ticket can be made: {error}")))?;
    let (relay, pools) = app.core.read(|state| (state.relay().clone(), *state.pools())).await?;
    let pools = vec![pools.assets.to_string(), pools.engineers.to_string()];
    Ok(ProbeTicket { ticket, secret, relay, life: ProbeKey::LIFE, pools })
}
