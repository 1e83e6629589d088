//! Attempts at a test as rows of a table.

use std::collections::HashSet;

use kiln_ci::attempts::{Attempt, BlobName, Known};
use maud::{Markup, html};

use super::chart::{class_of, word_of};
use super::list::millis;
use super::signatures::name;
use crate::blobs::present::Present;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{build_link, nanos, visible, when};
use crate::format::{abbreviated, encode, path_of};

/// Failed cases named of one attempt.
const MAX_CASES: usize = 5;

/// Blobs that rows of these lead to.
pub fn blobs(attempts: &[Attempt]) -> HashSet<BlobName> {
    attempts.iter().flat_map(|it| [it.log.clone(), it.action.clone()]).flatten().collect()
}

const COLUMNS: [Column; 8] = [
    Column("Outcome", ""),
    Column("Which", ""),
    Column("Took", "num"),
    Column("Build", ""),
    Column("Commit", ""),
    Column("Where", ""),
    Column("More", ""),
    Column("When", "num"),
];

pub fn table(attempts: &[Attempt], present: &Present) -> Markup {
    rows::table("Attempts", &COLUMNS, attempts.iter().map(|it| row(it, present)))
}

/// The build that it was of. Reports that were brought in and shadow runs are of none.
fn build(it: &Attempt) -> Markup {
    html! {
        @if it.known.has(Known::SHADOW) { span.dim { "shadow run" } }
        @else if it.known.has(Known::IMPORTED) { span.dim { "import" } }
        @else {
            a.mono href=(build_link(&it.invocation)) { bdi { (visible(&abbreviated(&it.invocation), 12)) } }
        }
    }
}

fn row(it: &Attempt, present: &Present) -> Line {
    let took = it.duration.map_or(0, |took| millis(took.as_millis()));
    let began = i64::try_from(millis(it.started.0.into())).unwrap_or(i64::MAX);
    let place = if it.worker.is_empty() { &it.strategy } else { &it.worker };
    let cells = vec![
        html! { span class={ "chip " (chip(it)) } { (word_of(it.outcome)) } },
        which(it),
        nanos(took),
        build(it),
        commit(it),
        html! { bdi { (visible(place, 40)) } },
        more(it, present),
        html! { span.dim { (when(began)) } },
    ];
    Line { cells, below: failure(it).map(|words| html! { pre.log.tail { (words) } }) }
}

fn chip(it: &Attempt) -> &'static str {
    match class_of(it.outcome) {
        "passed" => "hit",
        "failed" => "failed",
        _ => "cancelled",
    }
}

/// `attempt 2 · shard 3/8 · run 2`
fn which(it: &Attempt) -> Markup {
    html! {
        @if it.slot.attempt > 0 { "attempt " (it.slot.attempt) } @else { span.dim { "–" } }
        @if it.shards > 1 || it.slot.shard > 1 {
            " · shard " (it.slot.shard) @if it.shards > 0 { "/" (it.shards) }
        }
        @if it.slot.run > 1 { " · run " (it.slot.run) }
    }
}

fn commit(it: &Attempt) -> Markup {
    html! {
        @match &it.commit {
            Some(commit) => span.mono title=(visible(commit, 80)) { bdi { (visible(&abbreviated(commit), 12)) } },
            None => span.dim { "–" },
        }
        @if let Some(branch) = &it.branch { " " span.dim { bdi { (visible(branch, 40)) } } }
    }
}

fn more(it: &Attempt, present: &Present) -> Markup {
    html! {
        @if let Some(log) = &it.log { (present.link(log, "log", "test.log")) " " }
        @if let Some(digest) = it.action.as_ref().and_then(|action| present.digest(action)) {
            a href={ "/actions/" (path_of(digest)) "?instance=" (encode(&it.test.instance, false)) } { "action" }
        }
    }
}

/// The cases that failed, else the failure itself.
fn failure(it: &Attempt) -> Option<String> {
    use kiln_ci::model::Outcome::{Failed, TimedOut};
    let mut failed = it.cases.iter().filter(|case| matches!(case.outcome, Failed | TimedOut));
    let lines: Vec<String> = failed
        .by_ref()
        .take(MAX_CASES)
        .map(|case| {
            let words = case.failure.as_ref().map_or("", |it| it.excerpt.as_str());
            let words = crate::ansi::plain(words);
            format!("{}: {}", visible(&name(&case.case), 200), visible(words.trim(), 240))
        })
        .collect();
    let more = failed.count();
    match (lines.is_empty(), &it.failure) {
        (true, Some(failure)) => Some(crate::ansi::plain(&failure.excerpt)),
        (true, None) => None,
        (false, _) if more > 0 => Some(format!("{}\nand {more} more", lines.join("\n"))),
        (false, _) => Some(lines.join("\n")),
    }
}
