//! Environments for a while, for programs.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use kiln_cas::services::account_of;
use kiln_cas::stores::audit::AuditEvent;
use kiln_ci::ephemeral::{Phase, Preview};
use serde_json::json;

use crate::error::{ApiError, WebError};
use crate::json::{PreviewDifference, PreviewParity, PreviewRemoval, PreviewShown, Previews};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Characters of a reason.
const MAX_REASON: usize = 400;

/// Lists the environments that the caller may see: those of instances that he may read in. Whoever may see none gets an
/// empty list, and no error.
pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
) -> Result<Json<Previews>, ApiError> {
    let all = state.previews.list().await.map_err(unavailable)?;
    let may = |it: &&Preview| caller.may_read(&*state.access, &it.instance).is_ok();
    Ok(Json(Previews { previews: all.iter().filter(may).map(PreviewShown::from).collect() }))
}

fn unavailable(error: kiln_ci::storage::StorageError) -> WebError {
    kiln_ci::ephemeral::PreviewError::from(error).into()
}

/// An environment by its name. Errors: the caller may not see it, which looks as if it were not there.
async fn known(state: &WebState, caller: &Caller, name: &str) -> Result<Preview, WebError> {
    let found = state.previews.get(name).await.map_err(unavailable)?;
    let seen = found.filter(|it| caller.may_read(&*state.access, &it.instance).is_ok());
    seen.ok_or_else(|| WebError {
        status: StatusCode::NOT_FOUND,
        message: format!("there is no environment {:?}", name.chars().take(80).collect::<String>()),
        hint: "`kiln preview list` says which there are.".to_owned(),
    })
}

/// Programs of the operator are run for it: who may have nothing run may not have that run either.
pub async fn parity(
    State(state): State<WebState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<PreviewParity>, ApiError> {
    let preview = known(&state, &caller, &name).await?;
    caller.may_execute(&*state.access, &preview.instance)?;
    if preview.phase != Phase::Up {
        let message = format!("{} is not up", preview.name);
        return Err(WebError::invalid(message, "Look at one that is.").into());
    }
    let found = state.previews.asked_parity(&preview).await.map_err(WebError::from)?;
    let differences = found.map(|all| all.iter().map(PreviewDifference::from).collect());
    Ok(Json(PreviewParity { differences }))
}

/// Has an environment taken down, which goes on by itself where the caller goes away meanwhile.
pub async fn down(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<PreviewRemoval>, JsonRejection>,
) -> Result<Json<PreviewShown>, ApiError> {
    let PreviewRemoval { name, reason } = body(asked)?;
    let preview = known(&state, &caller, &name).await?;
    caller.may_release(&*state.access, &preview.instance)?;
    let by = account_of(&*state.access, &caller.0).to_string();
    let reason: String = reason.chars().take(MAX_REASON).collect();
    let event = AuditEvent {
        time: state.tests.clock.now().0 / 1_000,
        actor: by.clone(),
        action: "preview.down".to_owned(),
        subject: preview.name.clone(),
        details: json!({ "reason": reason, "run": preview.run }).to_string(),
    };
    // What cannot be noted is not done.
    state.audit.append(event).await.map_err(WebError::from)?;
    let why = format!("{by} takes it down: {reason}");
    let gone = state.previews.let_one_go(&preview.name, &why).await.map_err(unavailable)?;
    Ok(Json(PreviewShown::from(&gone.unwrap_or(preview))))
}
