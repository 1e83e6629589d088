//! Runs are begun, cancelled, resumed, approved, refused and given up.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use http::StatusCode;
use kiln_cas::services::account_of;
use kiln_ci::pipelines::Source;
use kiln_ci::pipelines::control::{Control, ControlError, Said, Start};
use kiln_ci::pipelines::file::Declared;

use super::api::readable;
use crate::error::{ApiError, WebError};
use crate::json::{PipelineAbandon, PipelineRequest, PipelineSaid, PipelineSay, PipelineShown};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Characters of what a caller says of the sources.
const MAX_NAME: usize = 1_000;

/// Whether they may do what a run does: to release takes another right than to run commands.
fn may(
    state: &WebState,
    caller: &Caller,
    instance: &str,
    releases: bool,
) -> Result<String, WebError> {
    match releases {
        true => caller.may_release(&*state.access, instance)?,
        false => caller.may_execute(&*state.access, instance)?,
    }
    Ok(account_of(&*state.access, &caller.0).to_string())
}

/// What the operator lists for a pipeline of this name, programs with secrets, is for the one that is declared.
fn not_for_another(control: &Control, read: &Declared) -> Result<(), WebError> {
    if !read.releases() || control.declared(&read.name).is_err() {
        return Ok(());
    }
    let name = &read.name;
    Err(WebError {
        status: StatusCode::CONFLICT,
        message: format!("the server's operator declares a pipeline {name:?}, and this is not it"),
        hint: format!("Begin that one (`--name {name}`), or give the file another name."),
    })
}

pub async fn start(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<PipelineRequest>, JsonRejection>,
) -> Result<Json<PipelineShown>, ApiError> {
    let asked = body(asked)?;
    let long = |text: &String| text.chars().count() > MAX_NAME;
    if [&asked.branch, &asked.commit]
        .into_iter()
        .chain(&asked.repository)
        .chain(&asked.root)
        .any(long)
    {
        let message =
            format!("branches, commits, repositories and roots have at most {MAX_NAME} characters");
        return Err(WebError::invalid(message, "Correct the request.").into());
    }
    let control = state.pipelines.clone();
    let (declared, instance) = match (asked.text, asked.name) {
        (Some(text), None) if asked.trigger.is_none() => {
            // Before anything is read: nobody has a server read a file who may not have it run something.
            may(&state, &caller, &asked.instance, false)?;
            let read = Control::read(text).await.map_err(WebError::from)?;
            not_for_another(&control, &read)?;
            (read, asked.instance)
        }
        (None, Some(name)) => {
            let found = control.declared(&name).map_err(WebError::from)?;
            let waits = |it: &String| found.is_triggered(it, &asked.branch);
            if let Some(trigger) = asked.trigger.as_ref().filter(|it| !waits(it)) {
                let message = format!("{name:?} waits for no {trigger:?} to {:?}", asked.branch);
                let hint = "Its file says what begins it: [[trigger]].";
                return Err(WebError {
                    status: StatusCode::CONFLICT,
                    message,
                    hint: hint.to_owned(),
                }
                .into());
            }
            (found.declared, found.instance)
        }
        _ => {
            let message = "either a text or a name says which pipeline is to run; a trigger is of one with a name";
            return Err(WebError::invalid(message, "Correct the request.").into());
        }
    };
    let by = may(&state, &caller, &instance, declared.releases())?;
    let trigger = asked.trigger.unwrap_or_else(|| "manual".to_owned());
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let source = Source {
        root: asked.root,
        repository: asked.repository,
        commit: known(&asked.commit),
        branch: known(&asked.branch),
    };
    let ask = Start {
        instance,
        trigger,
        branch: asked.branch,
        commit: asked.commit,
        by,
        inputs: asked.inputs,
        source,
    };
    // Whoever asked may go away: what was begun is ended all the same.
    let starting = tokio::spawn(async move { control.start(&declared, &ask).await });
    let stopped = |_| WebError::failed("the start was stopped");
    let run = starting.await.map_err(stopped)?.map_err(WebError::from)?;
    Ok(Json(readable(&state, &caller, &run.id).await?))
}

pub async fn say(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<PipelineSay>, JsonRejection>,
) -> Result<Json<PipelineShown>, ApiError> {
    let PipelineSay { id, what, stage, reason } = body(asked)?;
    let run = state.pipelines.of(&id).await.map_err(WebError::from)?;
    caller.may_read(&*state.access, &run.instance)?;
    let (said, releases) = match what {
        // What is cancelled in the middle of a rollout reverts it.
        PipelineSaid::Cancel => (Said::Cancel, run.releases),
        PipelineSaid::Resume => (Said::Resume, run.releases),
        PipelineSaid::Approve => (Said::Approve(stage), true),
        PipelineSaid::Refuse => (Said::Refuse(stage), true),
    };
    let by = may(&state, &caller, &run.instance, releases)?;
    state.pipelines.say(&id, &said, (&by, &reason)).await.map_err(WebError::from)?;
    Ok(Json(readable(&state, &caller, &id).await?))
}

/// Gives up a run whose records cannot be read. It cannot be shown, so the answer is what was asked.
pub async fn abandon(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<PipelineAbandon>, JsonRejection>,
) -> Result<Json<PipelineAbandon>, ApiError> {
    let asked = body(asked)?;
    let by = may_abandon(&state, &caller, &asked.id).await?;
    let abandoned = state.pipelines.abandon(&asked.id, (&by, &asked.reason)).await;
    abandoned.map_err(WebError::from)?;
    Ok(Json(asked))
}

/// The name of the caller. Errors: they may not end the run.
async fn may_abandon(state: &WebState, caller: &Caller, id: &str) -> Result<String, WebError> {
    let error = match state.pipelines.of(id).await {
        Ok(run) => {
            caller.may_read(&*state.access, &run.instance)?;
            return may(state, caller, &run.instance, run.releases);
        }
        Err(error @ (ControlError::Damaged { .. } | ControlError::NoRun(_))) => error,
        Err(error) => return Err(error.into()),
    };
    // It cannot be read whose it is.
    match (caller.may_administer(&*state.access), error) {
        (Ok(()), _) => Ok(account_of(&*state.access, &caller.0).to_string()),
        (Err(_), none @ ControlError::NoRun(_)) => Err(none.into()),
        (Err(refused), _) => Err(refused),
    }
}
