//! Tests that are flaky or may be: which, on what evidence, and what is done about it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use kiln_ci::attempts::{Attempt, Known};
use kiln_ci::history::HistoryError;
use kiln_ci::model::TestKey;
use kiln_ci::verdicts::{CaseRecord, Surveyed, Suspect};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::format::{encode, short};
use crate::json::{self, Flake, Flakes, Judged, ShadowRun};
use crate::state::WebState;
use crate::suite::{link, unknown};

/// The newest attempts of a test among which its shadow runs are looked for.
const LOOKED_AT: usize = 60;
/// Tests of which shadow runs are looked up for one answer, the first ones.
const WITH_SHADOW: usize = 100;
/// Failures that are listed.
pub const JUDGED: usize = 50;
/// Longest text that is looked for, in characters.
const MAX_QUERY: usize = 200;

pub const STANDINGS: [(&str, &str); 3] =
    [("", "flaky and suspected"), ("flaky", "flaky"), ("suspected", "suspected")];

/// What stands in the address.
#[derive(Deserialize, Default, Clone, JsonSchema)]
pub struct Filter {
    /// Part of the label of tests that are listed.
    #[serde(default)]
    pub q: String,
    /// `flaky`, `suspected`; empty: both.
    #[serde(default)]
    pub standing: String,
    /// Part of the name of their owner.
    #[serde(default)]
    pub owner: String,
    /// The number of the page, counted from 0.
    #[serde(default)]
    pub page: usize,
    pub limit: Option<usize>,
}

/// One page of the list of flaky tests.
pub struct Shown {
    pub all: Arc<Surveyed>,
    pub flakes: Vec<(Suspect, Flake)>,
    pub judged: Vec<(CaseRecord, Judged)>,
    /// How many flaky or suspected tests there are on all pages.
    pub total: usize,
    pub at: usize,
    pub pages: usize,
}

impl Filter {
    fn check(&self) -> Result<(), WebError> {
        match STANDINGS.iter().any(|(name, _)| *name == self.standing) {
            true => Ok(()),
            false => Err(unknown("standing", &self.standing, "flaky, suspected")),
        }
    }

    fn is_shown(&self, it: &Suspect, owner: Option<&str>) -> bool {
        let is_part = |part: &str, of: &str| {
            of.to_lowercase().contains(&short(part, MAX_QUERY).trim().to_lowercase())
        };
        let stands = match &*self.standing {
            "flaky" => it.is_flaky,
            "suspected" => !it.is_flaky,
            _ => true,
        };
        stands
            && is_part(&self.q, &it.subject.test.label)
            && is_part(&self.owner, owner.unwrap_or_default())
    }

    pub fn link(&self, page: usize) -> String {
        let fields = [("q", &self.q), ("standing", &self.standing), ("owner", &self.owner)];
        let mut link = format!("/tests/flakes?page={page}");
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            link.push_str(&format!("&{name}={}", encode(&short(value, MAX_QUERY), false)));
        }
        link
    }
}

/// The page that a filter asks for, with what is known of each beside its evidence.
pub async fn shown(state: &WebState, filter: &Filter, limit: usize) -> Result<Shown, WebError> {
    let now = state.tests.clock.now();
    let all = state.kept.surveyed(&state.verdicts.survey, now).await?;
    let owner = |label: &str| state.verdicts.owners.owner(label);
    let found: Vec<_> = all
        .suspects
        .iter()
        .map(|it| (it, owner(&it.subject.test.label)))
        .filter(|(it, owner)| filter.is_shown(it, owner.as_deref()))
        .collect();
    let total = found.len();
    let pages = total.div_ceil(limit);
    let at = filter.page.min(pages.saturating_sub(1));
    let page: Vec<_> = found.into_iter().skip(at * limit).take(limit).collect();
    let quarantine = state.verdicts.book.open().await?.quarantine;
    let tests = page.iter().take(WITH_SHADOW).map(|(it, _)| it.subject.test.clone()).collect();
    let shadows = shadows(state, tests).await?;
    let flake = |(it, owner): (&Suspect, Option<String>)| {
        let known = Flake::new(it, link(&it.subject.test));
        let is_quarantined = quarantine.find(&it.subject, now).is_some();
        let shadow = shadows.get(&it.subject.test).map(ShadowRun::from);
        (it.clone(), Flake { owner, is_quarantined, shadow, ..known })
    };
    let flakes = page.into_iter().map(flake).collect();
    let judged = all.judged.iter().take(JUDGED).map(|it| {
        let test = &it.case.fresh.subject.test;
        (it.clone(), Judged { owner: owner(&test.label), ..Judged::new(it, link(test)) })
    });
    let judged = judged.collect();
    Ok(Shown { flakes, judged, total, at, pages, all })
}

/// The newest shadow run of each test, where it is among its newest attempts.
async fn shadows(
    state: &WebState,
    mut tests: Vec<TestKey>,
) -> Result<HashMap<TestKey, Attempt>, WebError> {
    tests.sort_unstable();
    tests.dedup();
    let history = state.tests.history.clone();
    let read = async move {
        let mut shadows = HashMap::new();
        for test in tests {
            let newest = history.newest(&test, LOOKED_AT, false).await?;
            let shadow = newest.into_iter().find(|it| it.known.has(Known::SHADOW));
            shadows.extend(shadow.map(|it| (test, it)));
        }
        Ok::<_, HistoryError>(shadows)
    };
    Ok(state.kept.beside(read).await??)
}

pub async fn flakes(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<Flakes>, ApiError> {
    let filter = arguments(filter)?;
    filter.check()?;
    let shown = shown(&state, &filter, limit(filter.limit)?).await?;
    Ok(Json(Flakes {
        tests: shown.all.tests,
        is_cut: shown.all.is_cut,
        flakes: shown.flakes.into_iter().map(|(_, it)| it).collect(),
        total: shown.total,
        next_page: (shown.at + 1 < shown.pages).then_some(shown.at + 1),
        judged: shown.judged.into_iter().map(|(_, it)| it).collect(),
        shadow_ms_today: json::millis(shown.all.spent),
    }))
}
