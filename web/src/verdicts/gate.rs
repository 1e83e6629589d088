//! Whether a change may go on in spite of failures.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_ci::attempts::IMPORT;
use kiln_ci::verdicts::{Question, Told};
use kiln_scheduler::snapshot::OperationView;

use super::caller::{Caller, body};
use crate::error::{ApiError, WebError};
use crate::find;
use crate::json::{Gate, GateQuestion};
use crate::state::WebState;

/// Labels that one question names at most.
const MAX_LABELS: usize = 10_000;
/// Bytes of the name of an invocation.
const MAX_INVOCATION: usize = 1_024;

pub async fn ask(
    State(state): State<WebState>,
    caller: Caller,
    question: Result<Json<GateQuestion>, JsonRejection>,
) -> Result<Json<Gate>, ApiError> {
    let asked = check(body(question)?)?;
    caller.may_read(&*state.access, &asked.instance)?;
    let (invocation, told) = match asked.account {
        Some(account) => (asked.invocation, Told::Ended(Arc::new(account))),
        None => heard(&state, &asked.instance, asked.invocation).await?,
    };
    let question = Question { instance: asked.instance, invocation, edited: asked.edited, told };
    let now = state.tests.clock.now();
    let answered = state.verdicts.answers.gate(&question, now).await?;
    if !answered.known && !has_asked(&state, &question).await? {
        return Err(unknown(&question).into());
    }
    // The answer is not worth less for it.
    if let Err(error) = state.verdicts.survey.note(&question, &answered, now).await {
        tracing::warn!(error = %kiln_net::causes::chain(&error), "it is not noted what a gate masked");
    }
    Ok(Json(Gate::new(&question, &answered)))
}

/// The whole id of an invocation in this instance, and what its build events say.
async fn heard(state: &WebState, instance: &str, name: String) -> Result<(String, Told), WebError> {
    if name.starts_with(IMPORT) {
        let imported = state.verdicts.answers.imported(instance, &name).await?;
        let told = imported.map_or(Told::Nothing, |account| Told::Ended(Arc::new(account)));
        return Ok((name, told));
    }
    let streams = &state.tests.streams;
    let mut noted = streams.build(&name).await?;
    let mut invocation = name;
    if noted.is_none() {
        let queue = state.queue.snapshot().await?;
        invocation = find::invocation(state, &queue, &invocation).await?;
        noted = streams.build(&invocation).await?;
    }
    let told = state.kept.told(streams, noted, instance).await?;
    Ok((invocation, told))
}

/// Whether the invocation has asked this server for anything, in the instance.
async fn has_asked(state: &WebState, question: &Question) -> Result<bool, WebError> {
    let known = state.journal.build(&question.invocation).await?;
    if let Some(build) = known {
        return Ok(build.instance_name == question.instance);
    }
    let queue = state.queue.snapshot().await?;
    let mut open = queue.running.iter().chain(&queue.queued);
    let is_it = |it: &OperationView| {
        it.invocation == question.invocation && it.instance == question.instance
    };
    Ok(open.any(is_it))
}

fn unknown(question: &Question) -> WebError {
    let Question { instance, invocation, .. } = question;
    let place =
        if instance.is_empty() { String::new() } else { format!(" in instance {instance}") };
    WebError::not_found(
        format!("no invocation {invocation} is known{place}"),
        "Give the id that Bazel prints at the start (--invocation_id), or a beginning that no other has, and the \
         instance (--instance) of its --bes_instance_name; its build events come here by --bes_backend.",
    )
}

fn check(question: GateQuestion) -> Result<GateQuestion, WebError> {
    let labels = question.account.as_ref().map_or(0, |it| it.failed.len());
    let hint = "docs/tests-gate.md says what a gate is asked.";
    if question.edited.len().max(labels) > MAX_LABELS {
        return Err(WebError::invalid(format!("more than {MAX_LABELS} labels"), hint));
    }
    let length = question.invocation.len();
    if length == 0 || length > MAX_INVOCATION {
        return Err(WebError::invalid("invocation is to be the id of one", hint));
    }
    Ok(question)
}
