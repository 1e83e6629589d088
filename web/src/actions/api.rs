//! Answers of the API about one action, and about what differs between two.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_protos::reapi;
use kiln_scheduler::journal::action_of;
use serde::Deserialize;

use super::answer;
use super::explain::{self, explain};
use super::load::{Loaded, Options, load, log};
use crate::api::{arguments, parse_action};
use crate::content::{digest, parse_digest};
use crate::error::ApiError;
use crate::json::{Action, Digest, Explanation, Log};
use crate::state::{LinksFrom, WebState};

type Address = Path<(String, String, String)>;

pub async fn action(
    State(state): State<WebState>,
    LinksFrom(base_url): LinksFrom,
    Path((function, hash, size)): Address,
    options: Result<Arguments<Options>, QueryRejection>,
) -> Result<Json<Action>, ApiError> {
    let loaded = load(&state, parse_digest(&function, &hash, &size)?, arguments(options)?).await?;
    let why = own_explanation(&state, &loaded).await;
    let logs = logs(&state, &loaded).await;
    let mut loaded = loaded;
    let running = loaded.running.take();
    Ok(Json(answer::action(&loaded, &base_url, logs, running, why)))
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Compared {
    /// `HASH/SIZE` of the earlier action; without, the last run of the same target and mnemonic.
    before: Option<String>,
    #[serde(flatten)]
    options: Options,
}

pub async fn difference(
    State(state): State<WebState>,
    Path((function, hash, size)): Address,
    compared: Result<Arguments<Compared>, QueryRejection>,
) -> Result<Json<Explanation>, ApiError> {
    let after = parse_digest(&function, &hash, &size)?;
    let Compared { before, options } = arguments(compared)?;
    let Some(before) = before else {
        let loaded = load(&state, after, options).await?;
        return Ok(Json(own_explanation(&state, &loaded).await));
    };
    let before = parse_action(&before)?;
    let mut found = explain::two(&state, &before, &after).await;
    // The user named both: that one is gone is the answer, not a remark.
    if let Some(Err(error)) = found.comparison.take_if(|comparison| comparison.is_err()) {
        return Err(error.into());
    }
    Ok(Json(answer::explanation(&found, Some(&before), &after)))
}

/// Compared with the run before.
async fn own_explanation(state: &WebState, loaded: &Loaded) -> Explanation {
    let found = explain(state, loaded).await;
    let before = found.earlier.as_ref().and_then(|earlier| action_of(&earlier.execution));
    answer::explanation(&found, before.as_ref(), &loaded.digest)
}

async fn logs(state: &WebState, loaded: &Loaded) -> [Option<Log>; 2] {
    let Some(result) = &loaded.result else { return [None, None] };
    [
        one_log(state, loaded, &result.stdout_raw, result.stdout_digest.as_ref()).await,
        one_log(state, loaded, &result.stderr_raw, result.stderr_digest.as_ref()).await,
    ]
}

/// `None`: it was removed, or cannot be read.
async fn one_log(
    state: &WebState,
    loaded: &Loaded,
    raw: &[u8],
    wire: Option<&reapi::Digest>,
) -> Option<Log> {
    let text = log(state, raw, wire, loaded.digest.function).await.ok()?;
    let stored = digest(wire, loaded.digest.function);
    let size_bytes = stored.map_or(0, |digest| digest.size).max(raw.len() as u64);
    let is_cut = size_bytes > crate::content::MAX_TEXT;
    let digest = stored.filter(|_| size_bytes > 0).as_ref().map(Digest::from);
    Some(Log { is_cut, size_bytes, digest, text })
}
