//! Two builds side by side, for programs.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use kiln_ci::events::Changed;
use kiln_scheduler::journal::{action_of, run_ns};

use super::{Cause, Compared, Miss, Misses, Side, Which};
use crate::actions::answer;
use crate::error::ApiError;
use crate::json::{
    BuildCounts, BuildSide, ChangeCause, ChangedOption, ChangedText, ChangedTime, Comparison,
    Digest, Invocation, MissedAction, millis,
};
use crate::state::WebState;

pub async fn comparison(
    State(state): State<WebState>,
    asked: Result<Arguments<Which>, QueryRejection>,
) -> Result<Json<Comparison>, ApiError> {
    let which = super::which(asked)?;
    let found = super::compare(&state, &which).await?;
    Ok(Json(answer(found)))
}

fn answer(found: Compared) -> Comparison {
    let Compared { before, after, told, misses } = found;
    let is_told = told.is_some();
    let told = told.unwrap_or_default();
    Comparison {
        before: side(&before),
        after: side(&after),
        is_told,
        facts: told.facts.into_iter().map(text).collect(),
        options: told.options.into_iter().map(option).collect(),
        outcomes: told.outcomes.into_iter().map(text).collect(),
        durations: told.durations.iter().map(time).collect(),
        left_out: told.left_out,
        executed: misses.executed,
        known_before: misses.known,
        compared: misses.compared,
        causes: misses.causes.iter().map(cause).collect(),
        actions: misses
            .listed
            .iter()
            .enumerate()
            .filter_map(|(at, it)| missed(it, &because(&misses, at)))
            .collect(),
        is_cut: misses.is_cut,
    }
}

fn side(side: &Side) -> BuildSide {
    let summary = side.told.as_ref().map(|it| &it.noted.summary);
    let facts = side.told.as_ref().map(|it| it.view.build.known());
    BuildSide {
        invocation_id: side.invocation.clone(),
        told: summary.map(Invocation::from),
        took_ms: facts.and_then(|it| it.took()).map(millis),
        counts: side.build.as_ref().map(|it| BuildCounts::from(&it.counts)),
    }
}

fn text(it: Changed<String>) -> ChangedText {
    ChangedText { name: it.name, before: it.before, after: it.after }
}

fn option(it: Changed<Vec<String>>) -> ChangedOption {
    let (before, after) = (it.before.unwrap_or_default(), it.after.unwrap_or_default());
    ChangedOption { name: it.name, before, after }
}

fn time(it: &Changed<Duration>) -> ChangedTime {
    let [before_ms, after_ms] = [it.before, it.after].map(|it| it.map(millis).unwrap_or(0));
    ChangedTime { name: it.name.clone(), before_ms, after_ms }
}

fn cause(it: &Cause) -> ChangeCause {
    ChangeCause {
        kind: it.kind.into(),
        change: it.change.into(),
        name: it.name.clone(),
        actions: it.actions,
    }
}

/// What made inputs of it that differ.
fn because(misses: &Misses, at: usize) -> Vec<String> {
    let makers = misses.edges.iter().filter(|(_, to)| *to == at);
    let ids = makers.filter_map(|(from, _)| misses.listed.get(*from));
    ids.map(|it| it.entry.execution.id.clone()).collect()
}

fn missed(it: &Miss, because: &[String]) -> Option<MissedAction> {
    let run = &it.entry.execution;
    let action = action_of(run)?;
    let before = it.earlier.as_ref().and_then(|it| action_of(&it.execution));
    let explained = |it| answer::explanation(it, before.as_ref(), &action);
    let explanation = it.explanation.as_ref().map(explained);
    Some(MissedAction {
        execution: run.id.clone(),
        target_id: run.target_id.clone(),
        mnemonic: run.mnemonic.clone(),
        digest_function: action.function.to_string(),
        action: Digest::from(&action),
        run_ns: run_ns(&run.timeline.unwrap_or_default()),
        before_execution: it.earlier.as_ref().map(|it| it.execution.id.clone()),
        before_invocation: it.earlier.as_ref().map(|it| it.execution.invocation_id.clone()),
        before: before.as_ref().map(Digest::from),
        reasons: explanation.as_ref().map(|it| it.reasons.clone()).unwrap_or_default(),
        because: because.to_vec(),
        is_compared: explanation.is_some(),
        differences: explanation.map(|it| it.differences).unwrap_or_default(),
    })
}
