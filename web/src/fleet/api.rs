//! Answers of the API about agents.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use kiln_deploy::fleet::{Condition, Filter};
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::rollouts::parts::Place;
use schemars::JsonSchema;
use serde::Deserialize;

use super::versions::names;
use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::json::{FleetAgent, FleetAgents};
use crate::state::WebState;

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Page {
    pub service: Option<String>,
    pub environment: Option<String>,
    /// `silent`, `untruthful`, `drifted`, `failed`, `behind`, `flapping`, `unwell`, `unassigned` or `well`.
    pub condition: Option<String>,
    pub limit: Option<usize>,
    /// Where the page before ended, as its `next_after` says; absent for the first one.
    pub after: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Named {
    service: String,
    environment: String,
    name: String,
}

impl Page {
    pub fn filter(&self) -> Result<Filter, WebError> {
        let condition = self.condition.as_ref().map(|it| condition(it)).transpose()?;
        let (service, environment) = (self.service.clone(), self.environment.clone());
        for name in service.iter().chain(&environment) {
            kiln_deploy::fleet::check_name(name)
                .map_err(|error| WebError::invalid(error.to_string(), "Correct the name."))?;
        }
        Ok(Filter { service, environment, condition })
    }
}

fn condition(text: &str) -> Result<Condition, WebError> {
    let found = Condition::ALL.into_iter().find(|(_, name)| *name == text);
    found.map(|(it, _)| it).ok_or_else(|| {
        let all = Condition::ALL.map(|(_, name)| name).join(", ");
        WebError::invalid("there is no such condition", format!("There are {all}."))
    })
}

pub async fn list(
    State(state): State<WebState>,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Json<FleetAgents>, ApiError> {
    let page = arguments(page)?;
    Ok(Json(found(&state, &page, limit(page.limit)?).await?))
}

/// Agents of a page.
pub async fn found(state: &WebState, page: &Page, limit: usize) -> Result<FleetAgents, WebError> {
    let agents = state.fleet.list_agents(&page.filter()?, page.after.as_deref(), limit).await?;
    let names = names(state, &agents).await?;
    let called = |it: &ContentDigest| names.get(it).cloned().unwrap_or_default();
    let next_after = agents.last().filter(|_| agents.len() == limit).map(|it| it.cursor());
    let agents = agents.iter().map(|it| FleetAgent::new(it, &called)).collect();
    Ok(FleetAgents { agents, next_after })
}

pub async fn show(
    State(state): State<WebState>,
    named: Result<Arguments<Named>, QueryRejection>,
) -> Result<Json<FleetAgent>, ApiError> {
    let Named { service, environment, name } = arguments(named)?;
    let place = Place { service, environment };
    let found = state.fleet.show_agent(&place, &name).await.map_err(WebError::from)?;
    let names = names(&state, std::slice::from_ref(&found)).await?;
    let called = |it: &ContentDigest| names.get(it).cloned().unwrap_or_default();
    Ok(Json(FleetAgent::new(&found, &called)))
}
