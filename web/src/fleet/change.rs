//! People tell an agent what to run, or have it forgotten.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::services::account_of;
use kiln_cas::stores::audit::AuditEvent;
use kiln_deploy::fleet::FleetError;
use kiln_deploy::rollouts::parts::Place;
use serde_json::{Value, json};

use super::versions::instance;
use crate::error::{ApiError, WebError};
use crate::json::{AgentOrder, FleetRemoval, FleetTelling};
use crate::releases::api::name;
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Bytes of a reason.
const MAX_REASON: usize = 2_000;

pub async fn tell(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<FleetTelling>, JsonRejection>,
) -> Result<Json<AgentOrder>, ApiError> {
    let FleetTelling { service, environment, name: host, release, reason } = body(asked)?;
    let instance = instance(&state);
    caller.may_release(&*state.access, &instance)?;
    if reason.is_empty() || reason.len() > MAX_REASON {
        return Err(WebError::invalid("reason is missing, or too long", "Say why.").into());
    }
    let entry = state.releases.get(&instance, &name(&release)?).await?;
    if let Some(rejected) = entry.rejected {
        let message = format!("{release} was rejected: {}", rejected.reason);
        return Err(WebError::invalid(message, "Tell it another one.").into());
    }
    let (place, who) = (Place { service, environment }, who(&state, &caller));
    state.fleet.show_agent(&place, &host).await.map_err(WebError::from)?;
    let version = entry.release.subject.digest;
    // It is noted first: nobody is told in secret.
    let details = json!({ "release": release, "digest": version, "reason": reason });
    note(&state, &who, "fleet.tell", &subject(&place, &host), &details).await?;
    let told = state.fleet.tell_by_hand(&place, &host, &version, &who).await;
    let generation = told.map_err(WebError::from)?.into();
    Ok(Json(AgentOrder { version: version.to_string(), generation }))
}

pub async fn remove(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<FleetRemoval>, JsonRejection>,
) -> Result<Json<FleetRemoval>, ApiError> {
    let asked = body(asked)?;
    let place = Place { service: asked.service.clone(), environment: asked.environment.clone() };
    let who = who(&state, &caller);
    match state.fleet.show_agent(&place, &asked.name).await {
        // What cannot be read can be removed all the same.
        Ok(_) | Err(FleetError::Damaged { .. }) => {}
        Err(error) => return Err(WebError::from(error).into()),
    }
    // It is noted first, as above: a crash in between leaves no removal that nobody knows of.
    note(&state, &who, "fleet.remove", &subject(&place, &asked.name), &json!({})).await?;
    state.fleet.remove(&place, &asked.name).await.map_err(WebError::from)?;
    Ok(Json(asked))
}

fn who(state: &WebState, caller: &Caller) -> String {
    account_of(&*state.access, &caller.0).to_string()
}

fn subject(place: &Place, name: &str) -> String {
    format!("{}/{}/{name}", place.service, place.environment)
}

async fn note(
    state: &WebState,
    who: &str,
    action: &str,
    subject: &str,
    details: &Value,
) -> Result<(), WebError> {
    let event = AuditEvent {
        time: state.fleet.time() / 1_000,
        actor: who.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        details: details.to_string(),
    };
    state.audit.append(event).await?;
    Ok(())
}
