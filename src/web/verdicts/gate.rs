//! Whether a change may go on in spite of failures.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_ci::verdicts::{Account, Question};

use super::caller::{Caller, body};
use crate::web::error::{ApiError, WebError};
use crate::web::json::{Gate, GateQuestion};
use crate::web::state::WebState;

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
    let account = match asked.account {
        Some(account) => Some(account),
        None => told(&state, &asked.instance, &asked.invocation).await?,
    };
    let question = Question {
        instance: asked.instance,
        invocation: asked.invocation,
        edited: asked.edited,
        account,
    };
    let now = state.tests.clock.now();
    let answered = state.verdicts.answers.gate(&question, now).await?;
    // The answer is not worth less for it.
    if let Err(error) = state.verdicts.survey.note(&question, &answered, now).await {
        tracing::warn!(error = %kiln_net::causes::chain(&error), "it is not noted what a gate masked");
    }
    Ok(Json(Gate::new(&question.invocation, &answered)))
}

/// What the build events of the invocation say, where there are any.
async fn told(
    state: &WebState,
    instance: &str,
    invocation: &str,
) -> Result<Option<Account>, WebError> {
    let account = state.tests.account(instance, invocation).await;
    account.map_err(|error| {
        let message = kiln_net::causes::chain(&error).to_string();
        WebError {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            message,
            hint: "The build events cannot be read; try again.".to_owned(),
        }
    })
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
