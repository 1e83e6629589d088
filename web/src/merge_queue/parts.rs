//! What pages of merge queues have in common.

use maud::{Markup, html};

use crate::design::text::visible;
use crate::format::encode;
use crate::json::{MergeQueueSummary, MergeRunner};

/// Characters of a name, of a reason and of a commit.
pub const MAX_NAME: usize = 100;
pub const MAX_REASON: usize = 400;
pub const COMMIT: usize = 12;
/// Branches of one run or batch that are named.
const MAX_BRANCHES: usize = 12;

pub fn commit(name: &str) -> Markup {
    html! { code title=(visible(name, 64)) { (name.get(..COMMIT).unwrap_or(name)) } }
}

/// The standing of a change or a run, as a word with a colour.
pub fn chip(word: &str) -> Markup {
    let class = match word {
        "passed" | "landing" | "landed" | "done" | "screened" => "hit",
        "failed" | "held" | "rejected" | "refused" | "paused" | "unable" => "failed",
        "checking" => "executed",
        _ => "merged",
    };
    html! { span class={ "chip " (class) } { (word) } }
}

pub fn branches(all: &[String]) -> Markup {
    html! {
        @if all.is_empty() { span.dim { "the target by itself" } }
        @for branch in all.iter().take(MAX_BRANCHES) { (visible(branch, MAX_NAME)) br; }
        @if all.len() > MAX_BRANCHES { span.dim { "and " (all.len() - MAX_BRANCHES) " more" } }
    }
}

pub fn address(queue: &str) -> String {
    format!("/merge-queues/{}", encode(queue, false))
}

pub fn run_link(queue: &str, run: u64) -> Markup {
    html! { a href={ (address(queue)) "/runs/" (run) } { "run " (run) } }
}

pub fn runner(it: &MergeRunner) -> Markup {
    html! {
        @if it.connected {
            (visible(&it.name, MAX_NAME)) ", since " (it.since)
        } @else {
            span.chip.failed { "no runner" } " since " (it.seen) ": the last one was " (visible(&it.name, MAX_NAME))
        }
    }
}

/// What of a queue needs somebody.
pub fn state(it: &MergeQueueSummary) -> Markup {
    html! {
        @if !it.runner.connected { span.chip.failed { "no runner" } }
        @else if it.paused.is_some() { (chip("paused")) }
        @else if it.running > 0 { (chip("checking")) }
        @else { span.chip.merged { "idle" } }
    }
}

/// Time in words, as people say it.
pub fn about(seconds: f64) -> String {
    match seconds {
        it if it < 10.0 => format!("{it:.1} s"),
        it if it < 90.0 => format!("{it:.0} s"),
        it if it < 5_400.0 => format!("{:.0} min", it / 60.0),
        it => format!("{:.1} h", it / 3_600.0),
    }
}
