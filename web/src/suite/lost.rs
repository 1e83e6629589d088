//! What flaky tests cost people, and what queue and cache do for tests.

use std::collections::HashSet;
use std::time::Duration;

use kiln_ci::gate::{Build, FalseRed, Lost};
use kiln_ci::history::SuiteRun;
use kiln_ci::model::{TestKey, Time};
use kiln_scheduler::journal::Page;
use maud::{Markup, html};

use super::list::millis;
use crate::design::parts::tile;
use crate::error::WebError;
use crate::format::{count, counted, duration, percent};
use crate::state::WebState;

/// What Bazel calls the action of a test.
const TEST_RUNNER: &str = "TestRunner";
/// Builds whose test actions are looked at, the newest ones.
const BUILDS: usize = 100;

/// What flaky tests cost, and how often the cache answered, in the newest invocations and builds.
#[derive(Debug, Default)]
pub struct Effects {
    pub lost: Lost,
    /// Red, although every test that failed in all its attempts is known to be flaky.
    pub false_red: FalseRed,
    /// Test actions that were asked for here, those that needed no run of their own, and those that ran.
    pub actions: u64,
    pub answered: u64,
    pub ran: u64,
    queue_ns: u64,
}

impl Effects {
    /// The share of test actions that the cache answered.
    pub fn cached(&self) -> Option<f64> {
        (self.actions > 0).then(|| self.answered as f64 / self.actions as f64)
    }

    /// What a test that ran waited for a worker, on average.
    pub fn waited(&self) -> Option<Duration> {
        self.queue_ns.checked_div(self.ran).map(Duration::from_nanos)
    }
}

pub async fn read(state: &WebState, runs: &[SuiteRun]) -> Result<Effects, WebError> {
    let surveyed = state.kept.surveyed(&state.verdicts.survey, state.tests.clock.now()).await?;
    let flaky = surveyed.suspects.iter().filter(|it| it.is_flaky);
    let flaky: HashSet<&TestKey> = flaky.map(|it| &it.subject.test).collect();
    let mut builds = Vec::new();
    for run in runs {
        let flaky_only = run.is_whole && run.failed.iter().all(|test| flaky.contains(test));
        let red = !run.failed.is_empty();
        // What was built has to be built again.
        let took = match red && flaky_only {
            true => took(state, &run.invocation).await?,
            false => Duration::ZERO,
        };
        let (started, retries) = (Time::default(), run.retries);
        builds.push(Build { started, took, red, flaky_only, retries, waited_for: true });
    }
    let mut effects = Effects {
        lost: Lost::over(&builds, Duration::ZERO),
        false_red: FalseRed::observed(&builds),
        ..Effects::default()
    };
    for build in state.journal.builds(Page::first(BUILDS)).await? {
        for it in build.mnemonics.iter().filter(|it| it.mnemonic == TEST_RUNNER) {
            effects.actions += it.counts.hits + it.counts.merged + it.counts.executed;
            effects.answered += it.counts.hits + it.counts.merged;
            effects.ran += it.counts.executed;
            effects.queue_ns = effects.queue_ns.saturating_add(it.counts.queue_ns);
        }
    }
    Ok(effects)
}

/// The time that an invocation took from its beginning to its end, as its build events say.
async fn took(state: &WebState, invocation: &str) -> Result<Duration, WebError> {
    let noted = state.tests.streams.build(invocation).await?;
    let times = noted.and_then(|it| it.summary.finished.zip(it.summary.started));
    Ok(times.map_or(Duration::ZERO, |(finished, started)| finished.since(started)))
}

pub fn tiles(it: &Effects) -> Markup {
    let words = |time: Duration| duration(millis(time.as_millis()));
    let cached = it.cached().map_or_else(|| "–".to_owned(), percent);
    html! {
        (tile("Time lost to flakes", &html! { (words(it.lost.total())) }, &html! {
            "retries " (words(it.lost.retries)) "; " (counted(it.false_red.false_red, "build"))
            " red by known flaky tests alone, " (words(it.lost.rebuilds)) " to be built again"
        }))
        (tile("Tests from the cache", &html! { (cached) }, &html! {
            "of " (counted(it.actions, "test action")) " in the newest " (BUILDS) " builds"
        }))
        (tile("Tests waited", &html! { @match it.waited() { Some(time) => (words(time)), None => "–" } }, &html! {
            "for a worker, on average of " (count(it.ran)) " that ran"
        }))
    }
}
