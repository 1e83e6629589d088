//! Two builds side by side: how they were called, what became of their targets, and what was not cached any more.

mod actions;
pub mod api;
mod graph;
pub mod page;
mod previous;

use axum::extract::Query as Arguments;
use axum::extract::rejection::QueryRejection;
use kiln_ci::events::BuildDifference;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::BuildSummary;
use serde::Deserialize;

pub use self::actions::{Cause, Miss, Misses};
pub use self::previous::previous;
use super::told::{self, Told};
use super::unknown::no_build;
use crate::api::arguments;
use crate::error::WebError;
use crate::find;
use crate::state::WebState;

/// Which two builds are compared: ids of invocations, or beginnings that no other id has.
#[derive(Deserialize, Default, schemars::JsonSchema)]
pub struct Which {
    #[serde(default)]
    pub before: String,
    #[serde(default)]
    pub after: String,
}

/// One of two builds that are compared: what the server knows itself, and what the build told.
pub struct Side {
    pub invocation: String,
    pub build: Option<BuildSummary>,
    pub told: Option<Told>,
}

pub struct Compared {
    pub before: Side,
    pub after: Side,
    /// What differs in what the builds told; `None` where one of them told nothing.
    pub told: Option<BuildDifference>,
    pub misses: Misses,
}

fn which(asked: Result<Arguments<Which>, QueryRejection>) -> Result<Which, WebError> {
    let which = arguments(asked)?;
    if which.before.is_empty() || which.after.is_empty() {
        let hint = "Name two builds: ?before=ID&after=ID.";
        return Err(WebError::invalid("before and after are to be ids of invocations", hint));
    }
    Ok(which)
}

async fn compare(state: &WebState, which: &Which) -> Result<Compared, WebError> {
    let (before, after) = sides(state, which).await?;
    let told = before.told.as_ref().zip(after.told.as_ref());
    let told =
        told.map(|(one, two)| BuildDifference::of(one.view.build.known(), two.view.build.known()));
    let names = (before.invocation.clone(), after.invocation.clone());
    let own = state.clone();
    // It reads many actions and their inputs.
    let read = async move { actions::misses(&own, &names.0, &names.1).await };
    let misses = state.kept.beside(read).await??;
    Ok(Compared { before, after, told, misses })
}

async fn sides(state: &WebState, which: &Which) -> Result<(Side, Side), WebError> {
    let queue = state.queue.snapshot().await?;
    let before = side(state, &queue, &which.before).await?;
    Ok((before, side(state, &queue, &which.after).await?))
}

async fn side(state: &WebState, queue: &Snapshot, name: &str) -> Result<Side, WebError> {
    let invocation = find::invocation(state, queue, name).await?;
    let told = told::load(state, &invocation).await?;
    let build = state.journal.build(&invocation).await?;
    match told.is_some() || build.is_some() {
        true => Ok(Side { invocation, build, told }),
        false => Err(no_build(&invocation)),
    }
}
