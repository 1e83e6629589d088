//! Answers of the API about tests.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_ci::attempts::Attempt;
use kiln_ci::history::Across;
use serde::Deserialize;

use super::filter::{Filter, Row, instances};
use super::grid::{Wanted, shown};
use super::id::{Which, id_of};
use super::{grid_table, page};
use crate::api::{arguments, limit};
use crate::error::ApiError;
use crate::json;
use crate::state::WebState;

pub async fn tests(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<json::Tests>, ApiError> {
    let filter = arguments(filter)?;
    filter.check()?;
    let limit = limit(filter.limit)?;
    let tests = state.kept.tested(&state.tests.history, filter.days()).await?;
    let rows = filter.rows(&tests);
    let test = |row: &Row<'_>| json::Test::new(&id_of(&row.tested.test), row.tested, &row.sum);
    let shown = rows.iter().skip(filter.page.saturating_mul(limit)).take(limit);
    Ok(Json(json::Tests {
        tests: shown.map(test).collect(),
        total: rows.len(),
        days: filter.days(),
        instances: instances(&tests).into_iter().map(str::to_owned).collect(),
        next_page: next_page(filter.page, limit, rows.len()),
    }))
}

fn next_page(page: usize, limit: usize, total: usize) -> Option<usize> {
    let next = page.saturating_add(1);
    (next.saturating_mul(limit) < total).then_some(next)
}

pub async fn grid(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
    wanted: Result<Arguments<Wanted>, QueryRejection>,
) -> Result<Json<json::Grid>, ApiError> {
    let (filter, wanted) = (arguments(filter)?, arguments(wanted)?);
    filter.check()?;
    wanted.check()?;
    let limit = limit(filter.limit)?;
    let tests = state.kept.tested(&state.tests.history, filter.days()).await?;
    let shown = shown(&state, &tests, &filter, &wanted, limit).await?;
    let across = if shown.across == Across::Commits { "commits" } else { "invocations" };
    let cell = |cell: &kiln_ci::history::Cell| json::GridCell {
        state: grid_table::words(cell.state).2.replace(' ', "_").into(),
        duration_ms: cell.took.map(json::millis),
        attempts: cell.attempts,
    };
    let row = |(test, cells): &(kiln_ci::model::TestKey, Vec<Option<kiln_ci::history::Cell>>)| {
        let cells = cells.iter().map(|it| it.as_ref().map(cell)).collect();
        json::GridRow { test: json::TestName::new(&id_of(test), test), cells }
    };
    Ok(Json(json::Grid {
        across: across.into(),
        columns: shown.grid.columns.iter().map(json::GridColumn::from).collect(),
        rows: shown.grid.rows.iter().map(row).collect(),
        total_rows: shown.tests,
        next_page: (shown.at + 1 < shown.pages).then_some(shown.at + 1),
    }))
}

pub async fn kpi(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<json::TestFigures>, ApiError> {
    let filter = arguments(filter)?;
    filter.check()?;
    let tests = state.kept.tested(&state.tests.history, filter.days()).await?;
    let (figures, teams) = super::figures::read(&state, &tests).await?;
    let day = |(number, day): (&u64, &kiln_ci::history::Day)| json::TestDay {
        date: crate::format::date(*number),
        counts: day.into(),
    };
    let suites = figures.suites;
    let effects = super::lost::read(&state, &figures.runs).await?;
    Ok(Json(json::TestFigures {
        tests: figures.tests,
        days: filter.days(),
        flake_rate: figures.sum.flake_rate(),
        counts: (&figures.sum).into(),
        by_day: figures.days.iter().map(day).collect(),
        invocations: suites.invocations,
        well_invocations: suites.well,
        false_red_observed: suites.observed(),
        false_red_predicted: suites.predicted,
        sharded_runs: suites.sharded,
        shard_balance: suites.balance,
        red_by_flaky_tests: effects.false_red.false_red,
        lost_to_retries_ms: json::millis(effects.lost.retries),
        lost_to_rebuilds_ms: json::millis(effects.lost.rebuilds),
        cached: effects.cached(),
        waited_ms: effects.waited().map(json::millis),
        by_owner: teams.iter().map(team).collect(),
    }))
}

fn team(it: &super::teams::Team) -> json::TestOwner {
    json::TestOwner {
        owner: it.owner.clone(),
        tests: it.tests,
        flaky_tests: it.flaky_tests,
        flake_rate: it.sum.flake_rate(),
        counts: (&it.sum).into(),
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Attempts {
    limit: Option<usize>,
}

pub async fn test(
    State(state): State<WebState>,
    Path(id): Path<String>,
    attempts: Result<Arguments<Attempts>, QueryRejection>,
    which: Result<Arguments<Which>, QueryRejection>,
) -> Result<Json<json::TestShown>, ApiError> {
    let limit = limit(arguments(attempts)?.limit)?;
    let known = page::load(&state, &id, &arguments(which)?).await?;
    let tested = kiln_ci::history::Tested { test: known.test, days: known.days };
    let sum = Row::of(&tested).sum;
    let oldest = known.newest.iter().take(limit).next_back().map(|it| it.started);
    let is_listed = |it: &&Attempt| oldest.is_some_and(|oldest| oldest <= it.started);
    Ok(Json(json::TestShown {
        test: json::Test::new(&id_of(&tested.test), &tested, &sum),
        others: known.others.iter().map(|it| json::TestName::new(&id_of(it), it)).collect(),
        attempts: known.newest.iter().take(limit).map(json::TestAttempt::from).collect(),
        parts: known.parts.iter().filter(is_listed).map(json::TestAttempt::from).collect(),
        failures: super::signatures::groups(&known.newest).iter().map(failure).collect(),
    }))
}

fn failure(group: &super::signatures::Group<'_>) -> json::TestFailure {
    json::TestFailure {
        signature: group.signature.clone(),
        excerpt: group.excerpt.to_owned(),
        attempts: group.attempts,
        cases: group.cases.clone(),
        first_at: json::nanos(group.oldest.started),
        last_at: json::nanos(group.newest.started),
    }
}
