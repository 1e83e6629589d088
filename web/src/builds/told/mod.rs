//! What a build told of itself by build events: shown above and below of what it asked of this server.

mod failures;
mod files;
mod head;
mod targets;
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use failures::Failure;
use kiln_ci::attempts::BlobName;
use kiln_ci::events::{Facts, Noted, View};
use maud::{Markup, html};
use targets::Shown;
use tests::Tested;

use crate::ansi;
use crate::blobs::present::Present;
use crate::error::WebError;
use crate::format::{bytes, now};
use crate::json::nanos;
use crate::state::WebState;

/// A build that says nothing any more so long after it began has no end. In nanoseconds.
const LIVELY: i64 = 3_600_000_000_000;
/// Bytes of the end of what was printed that are shown.
const MAX_PRINTED: usize = 64 << 10;

pub struct Told {
    pub noted: Noted,
    pub view: Arc<View>,
}

impl Told {
    /// Whether the build may look otherwise in a moment, so that its page is loaded again.
    pub fn is_lively(&self) -> bool {
        let facts = self.view.build.known();
        let began = facts.started.map_or(0, nanos);
        !facts.is_complete && now().saturating_sub(began) < LIVELY
    }
}

/// Loads what a build told; `None` for one without a stream.
pub async fn load(state: &WebState, invocation: &str) -> Result<Option<Told>, WebError> {
    let Some(noted) = state.tests.streams.build(invocation).await? else { return Ok(None) };
    let view = state.kept.view(&state.tests.streams, &noted.summary.stream).await?;
    Ok(Some(Told { noted, view }))
}

/// What comes before, and what comes behind what the server knows itself.
pub async fn sections(state: &WebState, told: Option<&Told>) -> Result<(Markup, Markup), WebError> {
    let Some(told) = told else { return Ok((html! {}, html! {})) };
    let (facts, results) = (told.view.build.known(), &told.view.results);
    let failures = failures::of(facts, results);
    let tests = tests::by_target(&told.noted.summary.stream.instance, facts, results);
    let shown = targets::shown(&told.view);
    let present = Present::of(state, blobs(facts, &failures, &tests, &shown)).await?;
    let above = html! {
        (head::section(facts))
        (failures::section(state, &failures, &present).await)
        (tests::section(&tests, results.left_out, &present))
    };
    let below = html! {
        (targets::section(facts, &shown, &present))
        (printed(&told.view))
        (files::logs(&facts.logs, &present))
    };
    Ok((above, below))
}

/// Blobs that the page leads to: each is asked for at the store, as whatever it may be.
fn blobs(
    facts: &Facts,
    failures: &[Failure],
    tests: &[Tested<'_>],
    shown: &[Shown<'_>],
) -> HashSet<BlobName> {
    let runs = tests.iter().take(tests::MAX_TESTS).flat_map(|it| &it.runs);
    let failures = failures.iter().take(failures::MAX_FAILURES);
    let files = (failures.flat_map(|it| &it.logs))
        .chain(runs.flat_map(|run| &run.files))
        .chain(shown.iter().flat_map(|it| &it.files))
        .chain(&facts.logs);
    files.filter_map(|file| file.blob.clone()).collect()
}

fn printed(view: &View) -> Markup {
    let facts = view.build.facts();
    let text = &facts.progress;
    let from = text.len().saturating_sub(MAX_PRINTED);
    let shown = &text[text.ceil_char_boundary(from)..];
    html! {
        @if !shown.trim().is_empty() {
            section.panel {
                header { h2 { "Output" }
                    @if facts.progress_bytes as usize > shown.len() {
                        span.dim { "the last " (bytes(shown.len() as u64)) " of " (bytes(facts.progress_bytes)) }
                    }
                }
                pre.log { (ansi::markup(shown)) }
            }
        }
    }
}
