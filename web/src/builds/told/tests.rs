//! The tests of a build, those that failed first, each with its attempts and what they left.

use std::collections::HashMap;

use kiln_ci::events::{Facts, Results, TargetKey, TestRun, TestTotals};
use kiln_ci::model::TestKey;
use maud::{Markup, html};

use super::files;
use crate::blobs::present::Present;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{nanos, visible};
use crate::format::counted;
use crate::suite::{Names, millis};

/// Tests and runs of one test that are shown.
pub const MAX_TESTS: usize = 300;
const MAX_RUNS: usize = 60;
/// Files of all runs that are shown.
const MAX_FILES: usize = 4_000;

pub struct Tested<'a> {
    /// The test's key in the history of tests.
    pub test: TestKey,
    pub totals: Option<&'a TestTotals>,
    pub runs: Vec<&'a TestRun>,
    /// How many runs there are beyond those that are shown.
    pub more: usize,
}

/// Failed ones, then flaky ones, then the others, in the order of their names.
pub fn by_target<'a>(instance: &str, facts: &'a Facts, results: &'a Results) -> Vec<Tested<'a>> {
    let mut runs: HashMap<&TargetKey, Vec<&TestRun>> = HashMap::new();
    for (key, run) in &results.runs {
        runs.entry(key).or_default().push(run);
    }
    let tested = facts.targets.iter().filter(|(_, target)| target.test.is_some());
    let mut keys: Vec<(&TargetKey, Option<&TestTotals>)> =
        tested.map(|(key, target)| (key, target.test.as_ref())).collect();
    let known: std::collections::HashSet<&TargetKey> = keys.iter().map(|(key, _)| *key).collect();
    // A test that has no summary yet is still running.
    let open: Vec<_> =
        runs.keys().filter(|key| !known.contains(*key)).map(|key| (*key, None)).collect();
    keys.extend(open);
    let rank = |totals: Option<&TestTotals>| match totals.map(|it| it.status.as_str()) {
        Some("passed" | "no_status") => 3,
        Some("flaky") => 1,
        None => 2,
        Some(_) => 0,
    };
    keys.sort_by(|a, b| rank(a.1).cmp(&rank(b.1)).then_with(|| a.0.cmp(b.0)));
    let test = |key: &TargetKey| TestKey {
        instance: instance.to_owned(),
        label: key.label.clone(),
        configuration: key.configuration.clone(),
    };
    let mut files = MAX_FILES;
    let of =
        |(key, totals)| of(test(key), totals, runs.remove(key).unwrap_or_default(), &mut files);
    keys.into_iter().map(of).collect()
}

/// Makes the view of one test. `files` is how many more files may be shown, and is reduced by those of this
/// test.
fn of<'a>(
    test: TestKey,
    totals: Option<&'a TestTotals>,
    mut runs: Vec<&'a TestRun>,
    files: &mut usize,
) -> Tested<'a> {
    runs.sort_by_key(|run| (run.slot.run, run.slot.shard, run.slot.attempt));
    let fits = |run: &&&TestRun| {
        let left = files.checked_sub(run.files.len());
        left.inspect(|left| *files = *left).is_some()
    };
    let shown = runs.iter().take(MAX_RUNS).take_while(fits).count();
    let more = runs.len().saturating_sub(shown);
    runs.truncate(shown);
    Tested { test, totals, runs, more }
}

const COLUMNS: [Column; 6] = [
    Column("Test", "wide"),
    Column("Outcome", ""),
    Column("Shards", "num"),
    Column("Attempts", "num"),
    Column("Took", "num"),
    Column("What it left", "many"),
];

pub fn section(tests: &[Tested<'_>], left_out: u64, present: &Present) -> Markup {
    let names = Names::of(tests.iter().map(|it| &it.test));
    html! {
        @if !tests.is_empty() {
            section.panel {
                header { h2 { "Tests" } span.dim { (counted(tests.len() as u64, "test")) } }
                (rows::table("Tests", &COLUMNS, tests.iter().take(MAX_TESTS).map(|it| row(it, &names, present))))
                @if tests.len() > MAX_TESTS { p.note { "The first " (MAX_TESTS) " are listed." } }
                @if left_out > 0 { p.note { "Left out of the tests, because there are too many: " (counted(left_out, "run")) "." } }
            }
        }
    }
}

fn row(it: &Tested<'_>, names: &Names<'_>, present: &Present) -> Line {
    let took = it.totals.and_then(|it| it.duration).map_or(0, |took| millis(took.as_millis()));
    let cells = vec![
        names.link(&it.test),
        status(it.totals.map_or("going on", |it| &it.status)),
        html! { @if let Some(totals) = it.totals { (totals.shards.max(1)) } },
        html! { @match it.totals { Some(totals) => (totals.attempts), None => (it.runs.len()) } },
        nanos(took),
        runs(it, present),
    ];
    cells.into()
}

fn runs(it: &Tested<'_>, present: &Present) -> Markup {
    html! {
        @match it.runs.as_slice() {
            [] if it.more > 0 => span.dim { (counted(it.more as u64, "run")) },
            [] => span.dim { "–" },
            [only] if it.more == 0 => (left(only, present)),
            several => details {
                summary { (several.len() + it.more) " runs" }
                ul.plain { @for run in several {
                    li { (status(&run.status)) span.dim { "shard " (run.slot.shard) ", attempt " (run.slot.attempt)
                        @if run.slot.run > 1 { ", run " (run.slot.run) } } (left(run, present)) }
                } }
                @if it.more > 0 { p.note { "and " (it.more) " more" } }
            },
        }
    }
}

fn left(run: &TestRun, present: &Present) -> Markup {
    html! {
        @if run.is_cached { span.chip.hit { "cached" } " " }
        @for file in &run.files { (files::link(file, present)) " " }
        @if !run.details.is_empty() { span.dim { bdi { (visible(&run.details, 200)) } } }
    }
}

pub fn status(status: &str) -> Markup {
    let class = match status {
        "passed" => "hit",
        "flaky" => "executed",
        "going on" => "running",
        "no_status" => "cancelled",
        _ => "failed",
    };
    html! { span class={ "chip " (class) } { (status.replace('_', " ")) } }
}
