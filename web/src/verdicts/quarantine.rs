//! Answers of the API about the quarantine: tests whose failures nobody has to wait for.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query as Arguments, State};
use kiln_cas::access::Right;
use kiln_cas::services::account_of;
use kiln_ci::model::{CaseName, Subject, TestKey};
use kiln_ci::quarantine::{
    Left, Request, bazel_attempts, bazel_patterns, nextest_filter, pytest_arguments,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::caller::{Caller, body};
use super::caps::Caps;
use crate::api::arguments;
use crate::error::{ApiError, WebError};
use crate::format::short;
use crate::json::{
    Exported, Quarantine, QuarantineChange, QuarantineEntry, QuarantineRequest, Quarantined,
    SubjectName,
};
use crate::state::WebState;

/// Attempts of a test whose cases are what a runner may be told to leave out.
const LOOKED_AT: usize = 10;
/// Tests whose cases are looked up for one export.
const MAX_TESTS: usize = 500;
/// How often a test is tried that is exported for Bazel, where nobody says it.
const ATTEMPTS: u32 = 3;
/// Why a test runs although it is in quarantine.
const TOO_MANY: &str = "more tests are in quarantine than may be, so it runs";

/// Names of the fields of a [`QuarantineRequest`].
const FIELDS: [&str; 7] =
    ["instance", "label", "configuration", "case", "reason", "owner", "stay_s"];

/// Which entries of the quarantine are asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Of {
    /// The instance whose entries are asked for; absent: those of all instances.
    instance: Option<String>,
}

pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
    of: Result<Arguments<Of>, QueryRejection>,
) -> Result<Json<Quarantine>, ApiError> {
    let wanted = arguments(of)?.instance;
    if let Some(wanted) = &wanted {
        caller.may_read(&*state.access, wanted)?;
    }
    let now = state.tests.clock.now();
    let quarantine = state.verdicts.book.open().await?.quarantine;
    let census = state.verdicts.answers.census().await?;
    let may_see = |subject: &Subject| {
        let instance = &subject.test.instance;
        wanted.as_ref().is_none_or(|it| it == instance)
            && state.access.allows(&caller.0, Right::Read, instance)
    };
    let seen: Vec<_> = quarantine.entries(now).filter(|(it, _)| may_see(it)).collect();
    let instances = seen.iter().map(|(it, _)| it.test.instance.as_str()).chain(wanted.as_deref());
    let caps = Caps::of(instances, &quarantine, &census, now);
    let entries = seen.into_iter().map(|(subject, entry)| Quarantined {
        test: SubjectName::from(subject),
        entry: QuarantineEntry::from(entry),
    });
    Ok(Json(Quarantine {
        tests: caps.tests as u64,
        allowed: caps.allowed,
        over_cap: caps.is_over,
        entries: entries.collect(),
    }))
}

pub async fn enter(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<Value>, JsonRejection>,
) -> Result<Json<QuarantineChange>, ApiError> {
    let (subject, mut request) = request(&state, &caller, read(body(asked)?)?)?;
    let now = state.tests.clock.now();
    if request.owner.is_none() {
        request.owner = usual_owner(&state, &subject).await?;
    }
    let change = state.verdicts.book.enter(&subject, &request, now).await?;
    Ok(Json(QuarantineChange::from(&change)))
}

/// Who looks after a test that is to enter, where nobody is named; `None` also where it is there already, with the owner
/// that it has.
async fn usual_owner(state: &WebState, subject: &Subject) -> Result<Option<String>, ApiError> {
    let quarantine = state.verdicts.book.open().await?.quarantine;
    let now = state.tests.clock.now();
    let is_there = quarantine.entries(now).any(|(it, _)| it == subject);
    Ok(state.verdicts.owners.owner(&subject.test.label).filter(|_| !is_there))
}

pub async fn leave(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<Value>, JsonRejection>,
) -> Result<Json<QuarantineChange>, ApiError> {
    let (subject, request) = request(&state, &caller, read(body(asked)?)?)?;
    let now = state.tests.clock.now();
    let change = state.verdicts.book.leave(&subject, &request, now).await?;
    Ok(Json(QuarantineChange::from(&change)))
}

/// A field that is not known may be one that was mistyped: what it was to say would not be so.
fn read(asked: Value) -> Result<QuarantineRequest, WebError> {
    let hint = "docs/tests-gate.md says what is asked; /api/v1/openapi.json describes it.";
    let mut fields = asked.as_object().into_iter().flat_map(|it| it.keys());
    if let Some(unknown) = fields.find(|it| !FIELDS.contains(&it.as_str())) {
        return Err(WebError::invalid(format!("there is no field {:?}", short(unknown, 60)), hint));
    }
    serde_json::from_value(asked).map_err(|error| WebError::invalid(error.to_string(), hint))
}

/// What is asked, by somebody who may.
fn request(
    state: &WebState,
    caller: &Caller,
    asked: QuarantineRequest,
) -> Result<(Subject, Request), WebError> {
    caller.may_change(&*state.access, &asked.test.instance)?;
    check(&asked.test)?;
    let request = Request {
        who: account_of(&*state.access, &caller.0).to_string(),
        reason: asked.reason,
        owner: asked.owner,
        stay: asked.stay_s.map(Duration::from_secs),
    };
    Ok((Subject::from(asked.test), request))
}

fn check(test: &SubjectName) -> Result<(), WebError> {
    if test.label.is_empty() {
        let hint = "Name a test as `kiln tests quarantine list` or a gate does.";
        return Err(WebError::invalid("a label is needed", hint));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    Bazel,
    BazelAttempts,
    Pytest,
    Nextest,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Wanted {
    format: Format,
    #[serde(default)]
    instance: String,
    attempts: Option<u32>,
}

pub async fn export(
    State(state): State<WebState>,
    caller: Caller,
    wanted: Result<Arguments<Wanted>, QueryRejection>,
) -> Result<Json<Exported>, ApiError> {
    let wanted = arguments(wanted)?;
    caller.may_read(&*state.access, &wanted.instance)?;
    let quarantine = state.verdicts.book.open().await?.quarantine;
    let now = state.tests.clock.now();
    let entries = quarantine.entries(now).map(|(subject, _)| subject);
    let mut subjects: Vec<_> = entries.filter(|it| it.test.instance == wanted.instance).collect();
    let tests = state.verdicts.answers.census().await?.of(&wanted.instance);
    // What does not run cannot fail: it is not to hide more than a gate would mask.
    let hides = wanted.format != Format::BazelAttempts;
    let too_many = match hides && quarantine.over_cap(&wanted.instance, tests, now) {
        true => std::mem::take(&mut subjects),
        false => Vec::new(),
    };
    let cases = match wanted.format {
        Format::Bazel | Format::BazelAttempts => Vec::new(),
        Format::Pytest | Format::Nextest => known(&state, &subjects).await?,
    };
    let mut export = match wanted.format {
        Format::Bazel => bazel_patterns(&subjects),
        Format::BazelAttempts => bazel_attempts(&subjects, wanted.attempts.unwrap_or(ATTEMPTS)),
        Format::Pytest => pytest_arguments(&subjects, cases.iter()),
        Format::Nextest => nextest_filter(&subjects, cases.iter()),
    };
    let left = |it: &Subject| Left { subject: it.clone(), reason: TOO_MANY };
    export.left.extend(too_many.into_iter().map(left));
    Ok(Json(Exported::from(&export)))
}

/// The cases that the tests of these had when they ran last.
async fn known(state: &WebState, subjects: &[&Subject]) -> Result<Vec<CaseName>, WebError> {
    let tests: BTreeSet<&TestKey> = subjects.iter().map(|it| &it.test).collect();
    let mut cases = BTreeSet::new();
    for test in tests.into_iter().take(MAX_TESTS) {
        let newest = state.tests.history.newest(test, LOOKED_AT, true).await;
        let newest = newest.map_err(|error| WebError {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            message: kiln_net::causes::chain(&error).to_string(),
            hint: "The history of tests cannot be read; try again.".to_owned(),
        })?;
        cases.extend(newest.into_iter().flat_map(|it| it.cases).map(|it| it.case));
    }
    Ok(cases.into_iter().collect())
}
