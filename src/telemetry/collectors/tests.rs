//! Tests: their history, and what cache and queue do for them.

use std::fmt::Error;
use std::time::Duration;

use kiln_ci::history::Figures;

use super::families::Families;
use crate::telemetry::observed::InQuarantine;
use crate::telemetry::test_actions::TestActions;

pub fn encode(
    families: &mut Families<'_>,
    figures: &Figures,
    quarantine: InQuarantine,
) -> Result<(), Error> {
    let (sum, suites) = (&figures.sum, &figures.suites);
    families.gauge("kiln_tests", "Tests that ran in the last 14 days.", figures.tests)?;
    families.gauges(
        "kiln_test_attempts",
        "Attempts at tests in the last 14 days, by how they ended.",
        [
            ([("outcome", "passed")], sum.passed),
            ([("outcome", "failed")], sum.failed),
            ([("outcome", "timed_out")], sum.timed_out),
            ([("outcome", "skipped")], sum.skipped),
            ([("outcome", "infrastructure")], sum.infrastructure),
        ],
    )?;
    families.gauge(
        "kiln_test_first_attempts",
        "First attempts at tests in the last 14 days, retries left out.",
        sum.first,
    )?;
    families.gauge(
        "kiln_test_flaky_attempts",
        "Of these: failed although equal inputs passed in the same invocation.",
        sum.flaky,
    )?;
    families.gauges(
        "kiln_test_false_red_ratio",
        "Share of the newest 100 invocations that would have been red without retries.",
        [("observed", suites.observed()), ("predicted", suites.predicted)]
            .into_iter()
            .filter_map(|(kind, share)| Some(([("kind", kind)], share?))),
    )?;
    families.gauge(
        "kiln_test_retry_seconds",
        "What retries of tests took that passed in the end, in the newest 100 invocations.",
        figures.runs.iter().map(|it| it.retries.as_secs_f64()).sum::<f64>(),
    )?;
    families.gauge(
        "kiln_test_passed_seconds",
        "What attempts at tests that passed took together in the last 14 days.",
        Duration::from_millis(sum.took).as_secs_f64(),
    )?;
    families.gauge(
        "kiln_test_longest_seconds",
        "What the longest of these attempts took.",
        Duration::from_millis(sum.longest).as_secs_f64(),
    )?;
    families.gauge("kiln_tests_quarantined", "Tests in quarantine.", quarantine.tests)?;
    families.gauge(
        "kiln_test_quarantines_over_cap",
        "Instances in which more tests are in quarantine than may be, so that gates mask nothing.",
        quarantine.over_cap,
    )?;
    families.gauges(
        "kiln_test_shard_balance_ratio",
        "What a shard took on average, as a share of the longest one, in the newest 100 invocations.",
        suites.balance.map(|balance| ([("of", "shards")], balance)),
    )
}

/// Writes the metrics of the actions that run tests.
pub fn encode_actions(families: &mut Families<'_>, actions: &TestActions) -> Result<(), Error> {
    families.counters(
        "kiln_test_actions",
        "Requests for actions that run tests, by where the result came from.",
        actions.by_origin().map(|(origin, count)| ([("origin", origin)], count)),
    )?;
    families.counter(
        "kiln_test_queue_seconds",
        "What actions that ran tests waited for a worker, in sum.",
        actions.queue_seconds(),
    )
}
