//! Why an action was not cached, as a section of its page.

use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{JournalEntry, action_of};
use maud::{Markup, html};

use super::compare::{Comparison, Difference};
use super::explain::explain;
use super::load::Loaded;
use crate::design::text::{action_link, when};
use crate::format::{abbreviated, ago, now, short};
use crate::state::WebState;

/// Longest name or value shown, in characters.
const MAX_VALUE: usize = 300;

/// Nothing for an action that was answered from the cache, or has not ended.
pub async fn section(state: &WebState, loaded: &Loaded) -> Markup {
    let executed = loaded.run.as_ref().map(|entry| entry.execution.origin());
    if executed != Some(Origin::Executed) {
        return html! {};
    }
    let explanation = explain(state, loaded).await;
    html! {
        section.panel {
            header { h2 { "Why it was not cached" } }
            @for reason in &explanation.reasons { p.quiet { (reason) } }
            @match &explanation.comparison {
                Some(Ok(comparison)) => (list(comparison)),
                Some(Err(error)) => p.quiet { "They cannot be compared: " (error) },
                None => {}
            }
            @if let Some(earlier) = &explanation.earlier {
                (compared_with(earlier))
                (choice(loaded, earlier))
            }
        }
    }
}

fn compared_with(earlier: &JournalEntry) -> Markup {
    let run = &earlier.execution;
    let finished = run.timeline.unwrap_or_default().finished;
    html! {
        @if let Some(link) = action_link(run) {
            p.note { "Compared with " a href=(link) { "a run" } " of this target and mnemonic, " (when(finished)) "." }
        }
    }
}

/// Other runs to compare with.
fn choice(loaded: &Loaded, chosen: &JournalEntry) -> Markup {
    let is_other = |entry: &&JournalEntry| {
        let action = action_of(&entry.execution);
        action.is_some() && action != Some(loaded.digest)
    };
    let others: Vec<_> = loaded.target_runs.iter().filter(is_other).collect();
    let operation = loaded.run.as_ref().map_or("", |entry| entry.execution.id.as_str());
    let now = now();
    html! {
        @if others.len() > 1 {
            form.filter method="get" {
                input type="hidden" name="instance" value=(loaded.instance);
                input type="hidden" name="operation" value=(operation);
                label { span.sr { "Compare with" }
                    select name="compare" {
                        @for entry in others {
                            @let run = &entry.execution;
                            option value=(run.id) selected[entry.seq == chosen.seq] {
                                (ago(run.timeline.unwrap_or_default().finished, now))
                                ", build " (abbreviated(&run.invocation_id))
                                @if run.exit_code != 0 { ", exit " (run.exit_code) }
                            }
                        }
                    }
                }
                button type="submit" { "Compare" }
            }
        }
    }
}

pub fn list(comparison: &Comparison) -> Markup {
    html! {
        ul.changes { @for difference in &comparison.differences { li { (words(difference)) } } }
        @if comparison.is_cut { p.note { "There are more differences than are listed." } }
    }
}

fn words(difference: &Difference) -> Markup {
    let text = |text: &String| short(text, MAX_VALUE);
    let values: Vec<_> = difference.before.iter().chain(&difference.after).map(text).collect();
    html! {
        b { (difference.kind) " " (difference.change()) } " "
        @if difference.name.is_empty() { code { (values.join(" → ")) } }
        @else { code { (text(&difference.name)) } div.dim { (values.join(" → ")) } }
        @if let Some(lines) = &difference.text { (diff(lines)) }
    }
}

/// Lines as `diff -u` shows them.
fn diff(text: &str) -> Markup {
    let class = |line: &str| match line.chars().next() {
        Some('+') => "added",
        Some('-') => "removed",
        Some('@') => "dim",
        _ => "",
    };
    html! {
        details open[text.lines().count() <= 30] {
            summary { "Lines that differ" }
            pre.diff { @for line in text.lines() { span class=(class(line)) { (line) "\n" } } }
        }
    }
}
