//! Why an action was not cached, as a section of its page.

use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{Entry, action_of};
use maud::{Markup, html};

use super::action::Loaded;
use super::parts::{action_link, when};
use crate::web::WebState;
use crate::web::compare::{Comparison, Difference, compare};
use crate::web::format::short;

/// Longest name or value shown, in characters.
const MAX_VALUE: usize = 300;

/// Nothing for an action that was answered from the cache.
pub async fn section(state: &WebState, loaded: &Loaded) -> Markup {
    let Some(entry) = &loaded.run else { return html! {} };
    let run = &entry.execution;
    if run.origin() != Origin::Executed {
        return html! {};
    }
    let compared = match &loaded.compared {
        Some(earlier) => differences(state, loaded, earlier).await,
        None => first_run(run),
    };
    html! {
        section.panel {
            header { h2 { "Why it was not cached" } }
            @if run.skip_cache_lookup {
                p { "The client asked not to look into the cache (" code { "skip_cache_lookup" } ")." }
            }
            @if run.do_not_cache {
                p { "The action says that its result must not be kept (" code { "do_not_cache" } ")." }
            }
            (compared)
        }
    }
}

fn first_run(run: &Execution) -> Markup {
    html! {
        p.quiet {
            @if run.target_id.is_empty() {
                "The client named no target, so there is no earlier run to compare with."
            } @else {
                "No other action of this target and mnemonic has run here before: it was new, \
                 or its result had been removed."
            }
        }
    }
}

async fn differences(state: &WebState, loaded: &Loaded, earlier: &Entry) -> Markup {
    let Some(before) = action_of(&earlier.execution) else { return html! {} };
    let compared = compare(state, &before, &loaded.digest).await;
    let finished = earlier.execution.timeline.unwrap_or_default().finished;
    html! {
        @match compared {
            Ok(comparison) => (list(&comparison)),
            Err(error) => p.quiet { "They cannot be compared: " (error) },
        }
        @if let Some(link) = action_link(&earlier.execution) {
            p.note { "Compared with " a href=(link) { "the last run" } " of this target and mnemonic, " (when(finished)) "." }
        }
    }
}

fn list(comparison: &Comparison) -> Markup {
    html! {
        @if comparison.differences.is_empty() {
            p.quiet { "Command, inputs and settings are the same." }
        }
        ul.changes { @for difference in &comparison.differences { li { (words(difference)) } } }
        @if comparison.is_cut { p.note { "There are more differences than are listed." } }
    }
}

fn words(difference: &Difference) -> Markup {
    let kind = difference.kind;
    let named = !difference.name.is_empty();
    let text = |text: &String| short(text, MAX_VALUE);
    html! {
        @match (&difference.before, &difference.after) {
            (Some(before), Some(after)) => {
                b { (kind) " changed" } " "
                @if named { code { (text(&difference.name)) } }
                div.dim { (text(before)) " → " (text(after)) }
            }
            (None, Some(after)) => {
                b { (kind) " added" } " "
                @if named { code { (text(&difference.name)) } div.dim { (text(after)) } }
                @else { code { (text(after)) } }
            }
            (Some(before), None) => {
                b { (kind) " removed" } " "
                @if named { code { (text(&difference.name)) } div.dim { (text(before)) } }
                @else { code { (text(before)) } }
            }
            (None, None) => {}
        }
    }
}
