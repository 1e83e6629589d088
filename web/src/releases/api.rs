//! Answers of the API about releases.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use kiln_deploy::catalog::CatalogEntry;
use kiln_deploy::releases::ReleaseName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::json::{
    Explained, Maker, Release, ReleaseChanges, ReleaseDifference, ReleaseProvenance, Releases,
};
use crate::state::WebState;
use crate::verdicts::Caller;

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Page {
    #[serde(default)]
    instance: String,
    limit: Option<usize>,
    /// The name of a release: those behind it.
    after: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Named {
    #[serde(default)]
    pub instance: String,
    /// The name of the release, such as `team/app:1.4.2`.
    pub name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Lines {
    #[serde(default)]
    instance: String,
    /// The name of the release, such as `team/app:1.4.2`.
    name: String,
    /// Lines of the closure's list that are left out.
    #[serde(default)]
    skip: usize,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Two {
    #[serde(default)]
    instance: String,
    old: String,
    new: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Content {
    #[serde(default)]
    instance: String,
    /// The hash of the content, in 64 hexadecimal digits; `sha256:` may stand before it.
    digest: String,
}

/// The name of a release as a request gives it; the error says how to write one.
pub fn name(text: &str) -> Result<ReleaseName, WebError> {
    text.parse::<ReleaseName>().map_err(|error| {
        WebError::invalid(error.to_string(), "Name a repository and a version: team/app:1.4.2.")
    })
}

/// A release that the caller may see.
pub async fn seen(
    state: &WebState,
    caller: &Caller,
    instance: &str,
    name: &str,
) -> Result<CatalogEntry, WebError> {
    caller.may_read(&*state.access, instance)?;
    Ok(state.releases.get(instance, &self::name(name)?).await?)
}

pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Json<Releases>, ApiError> {
    let Page { instance, limit: wanted, after } = arguments(page)?;
    caller.may_read(&*state.access, &instance)?;
    let limit = limit(wanted)?;
    let after = after.map(|it| name(&it)).transpose()?;
    let found = state.releases.list(&instance, after.as_ref(), limit).await?;
    let last = found.last().filter(|_| found.len() == limit);
    let next_after = last.map(|it| it.release.name.to_string());
    // What each is made of is said of one alone.
    let brief = |it: &CatalogEntry| Release { content: Vec::new(), ..Release::from(it) };
    Ok(Json(Releases { releases: found.iter().map(brief).collect(), next_after }))
}

pub async fn show(
    State(state): State<WebState>,
    caller: Caller,
    named: Result<Arguments<Named>, QueryRejection>,
) -> Result<Json<Release>, ApiError> {
    let Named { instance, name } = arguments(named)?;
    Ok(Json(Release::from(&seen(&state, &caller, &instance, &name).await?)))
}

pub async fn provenance(
    State(state): State<WebState>,
    caller: Caller,
    lines: Result<Arguments<Lines>, QueryRejection>,
) -> Result<Json<ReleaseProvenance>, ApiError> {
    let Lines { instance, name, skip, limit: wanted } = arguments(lines)?;
    let entry = seen(&state, &caller, &instance, &name).await?;
    let limit = limit(wanted)?;
    let (lines, more) = state.releases.closure(&entry, skip, limit).await?;
    let provenance = state.releases.provenance(&entry).await?;
    let object = |it: serde_json::Value| match it {
        serde_json::Value::Object(object) => object,
        _ => serde_json::Map::new(),
    };
    let line = |it| serde_json::to_value(it).map(object).unwrap_or_default();
    Ok(Json(ReleaseProvenance {
        name: entry.release.name.to_string(),
        digest: entry.release.subject.digest.to_string(),
        provenance: provenance.map(object).unwrap_or_default(),
        closure: lines.iter().map(line).collect(),
        next_skip: more.then_some(skip + limit),
    }))
}

pub async fn diff(
    State(state): State<WebState>,
    caller: Caller,
    two: Result<Arguments<Two>, QueryRejection>,
) -> Result<Json<ReleaseDifference>, ApiError> {
    let Two { instance, old, new } = arguments(two)?;
    let old = seen(&state, &caller, &instance, &old).await?;
    let new = seen(&state, &caller, &instance, &new).await?;
    let (releases, sides) = (state.releases.clone(), (old.clone(), new.clone()));
    let compare = async move { releases.difference(&sides.0, &sides.1).await };
    let found = state.kept.beside(compare).await??;
    Ok(Json(ReleaseDifference {
        old: old.release.name.to_string(),
        new: new.release.name.to_string(),
        same_content: old.release.subject.digest == new.release.subject.digest,
        old_source: old.source.clone(),
        new_source: new.source.clone(),
        sources: ReleaseChanges::of(&found.sources),
        actions: ReleaseChanges::of(&found.actions),
        images: ReleaseChanges::of(&found.images),
        packages: ReleaseChanges::of(&found.packages),
    }))
}

pub async fn explain(
    State(state): State<WebState>,
    caller: Caller,
    content: Result<Arguments<Content>, QueryRejection>,
) -> Result<Json<Explained>, ApiError> {
    let Content { instance, digest } = arguments(content)?;
    caller.may_read(&*state.access, &instance)?;
    let hash = digest.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
    if hash.len() != 64 || !hash.bytes().all(|it| it.is_ascii_hexdigit()) {
        let hint = "Give the hash of a file: sha256sum prints it.";
        return Err(WebError::invalid("digest is not 64 hexadecimal digits", hint).into());
    }
    let origins = state.releases.origins(&instance, &hash).await?;
    Ok(Json(Explained {
        made: origins.made.iter().map(|it| Maker::of(it, &hash)).collect(),
        releases: origins.releases.iter().map(ToString::to_string).collect(),
        rejected: origins.rejected.iter().map(ToString::to_string).collect(),
        hash,
    }))
}
