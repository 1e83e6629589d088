//! Why an action was not cached, as a section of its page.

use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::Entry;
use maud::{Markup, html};

use super::parts::{action_link, when};
use crate::web::WebState;
use crate::web::action::Loaded;
use crate::web::compare::{Comparison, Difference};
use crate::web::explain::explain;
use crate::web::format::short;

/// Longest name or value shown, in characters.
const MAX_VALUE: usize = 300;

/// Nothing for an action that was answered from the cache.
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
            @if let Some(earlier) = &explanation.earlier { (compared_with(earlier)) }
        }
    }
}

fn compared_with(earlier: &Entry) -> Markup {
    let finished = earlier.execution.timeline.unwrap_or_default().finished;
    html! {
        @if let Some(link) = action_link(&earlier.execution) {
            p.note { "Compared with " a href=(link) { "the last run" } " of this target and mnemonic, " (when(finished)) "." }
        }
    }
}

fn list(comparison: &Comparison) -> Markup {
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
    }
}
