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
use crate::format::{abbreviated, count, counted, encode, path_of};

/// Failed cases named of one attempt.
const MAX_CASES: usize = 5;

/// Blobs that rows of these lead to.
pub fn blobs<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> HashSet<BlobName> {
    attempts.into_iter().flat_map(|it| [it.log.clone(), it.action.clone()]).flatten().collect()
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

const PARTS: [Column; 6] = [
    Column("Shard", ""),
    Column("Outcome", ""),
    Column("Took", "num"),
    Column("Cases", "num"),
    Column("Where", ""),
    Column("More", ""),
];

/// `parts`: those in which the server ran some of the attempts.
pub fn table(attempts: &[Attempt], parts: &[Attempt], present: &Present) -> Markup {
    rows::table("Attempts", &COLUMNS, attempts.iter().map(|it| row(it, parts, present)))
}

/// The parts of an attempt: what began in the same run while the attempt ran, by number.
pub fn parts_of<'a>(it: &Attempt, parts: &'a [Attempt]) -> Vec<&'a Attempt> {
    let end = it.duration.map_or(it.started, |took| it.started.plus(took));
    let is_own = |part: &&Attempt| {
        let is_of_run = part.invocation == it.invocation && part.slot.run == it.slot.run;
        is_of_run && it.started <= part.started && part.started <= end
    };
    let mut own: Vec<_> = parts.iter().filter(is_own).collect();
    own.sort_by_key(|part| part.slot.shard);
    own
}

fn part_row(it: &Attempt, present: &Present) -> Line {
    let cells = vec![
        html! { (it.slot.shard) "/" (it.shards) },
        outcome(it),
        took(it),
        html! { (count(it.cases.len() as u64)) },
        place(it),
        more(it, present),
    ];
    Line { cells, below: failure(it).map(|words| html! { pre.log.tail { (words) } }) }
}

fn outcome(it: &Attempt) -> Markup {
    html! { span class={ "chip " (chip(it)) } { (word_of(it.outcome)) } }
}

fn took(it: &Attempt) -> Markup {
    nanos(it.duration.map_or(0, |took| millis(took.as_millis())))
}

/// The worker, or how it ran where no worker is known.
fn place(it: &Attempt) -> Markup {
    let place = if it.worker.is_empty() { &it.strategy } else { &it.worker };
    html! { bdi { (visible(place, 40)) } }
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

fn row(it: &Attempt, parts: &[Attempt], present: &Present) -> Line {
    let began = i64::try_from(millis(it.started.0.into())).unwrap_or(i64::MAX);
    let cells = vec![
        outcome(it),
        which(it),
        took(it),
        build(it),
        commit(it),
        place(it),
        more(it, present),
        html! { span.dim { (when(began)) } },
    ];
    let (words, own) = (failure(it), parts_of(it, parts));
    let below = html! {
        @if let Some(words) = &words { pre.log.tail { (words) } }
        @if !own.is_empty() {
            details {
                summary { (counted(own.len() as u64, "part")) ", each run by itself" }
                (rows::table("Parts of the attempt", &PARTS, own.iter().map(|it| part_row(it, present))))
            }
        }
    };
    Line { cells, below: (words.is_some() || !own.is_empty()).then_some(below) }
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
