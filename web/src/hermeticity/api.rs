//! What hermeticity checks found.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use serde::Deserialize;

use crate::api::{arguments, page};
use crate::error::ApiError;
use crate::json::{Checked, Checks};
use crate::state::WebState;

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Filter {
    limit: Option<usize>,
}

pub async fn checks(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<Checks>, ApiError> {
    let limit = page(arguments(filter)?.limit, None)?.limit;
    let checks = state.hermeticity.newest(limit).await?;
    Ok(Json(Checks { checks: checks.iter().map(Checked::from).collect() }))
}
