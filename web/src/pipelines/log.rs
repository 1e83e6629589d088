//! What one stage printed.

use axum::extract::{Path, Query, State};
use axum::response::Html;
use maud::html;
use serde::Deserialize;

use super::api::readable;
use super::list::chip;
use crate::ansi;
use crate::design::layout::{self, Live, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::state::WebState;
use crate::verdicts::Caller;

/// Answers that are read, of 500 parts each: a command that prints all the time for a day has no more.
const MAX_PARTS: usize = 400;

#[derive(Debug, Default, Deserialize)]
pub struct Wanted {
    /// The last one, if nobody says.
    attempt: Option<u32>,
    hold: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    caller: Caller,
    Path((id, at)): Path<(String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, WebError> {
    let shown = readable(&state, &caller, &id).await?;
    let stage = usize::try_from(at).ok().and_then(|at| shown.stages.get(at));
    let stage = stage.ok_or_else(|| {
        WebError::not_found("there is no such stage", "The page of the run lists them.")
    })?;
    let attempt = wanted.attempt.unwrap_or(stage.attempts).max(1);
    let mut text = Vec::new();
    let mut offset = 0;
    for _ in 0..MAX_PARTS {
        let part = state.pipelines.log((&id, at, attempt), offset).await?;
        if part.bytes.is_empty() {
            break;
        }
        text.extend(part.bytes);
        offset = part.next;
    }
    let text = String::from_utf8_lossy(&text);
    let runs = stage.ended.is_none() && attempt == stage.attempts;
    let live = Live::of(runs, wanted.hold.is_some());
    let address = format!("/pipelines/{id}/log/{at}?attempt={attempt}");
    let body = html! {
        div.title {
            h1 { (visible(&stage.name, 120)) }
            (chip(&stage.stands))
            a href={ "/pipelines/" (shown.run.id) } { "run " (shown.run.id) }
            p { (layout::hold(live, &address)) }
        }
        section.panel {
            @if stage.attempts > 1 {
                p {
                    "Attempt "
                    @for number in 1..=stage.attempts.min(40) {
                        @if number == attempt { strong { (number) } " " }
                        @else { a href={ "/pipelines/" (shown.run.id) "/log/" (at) "?attempt=" (number) } { (number) } " " }
                    }
                }
            }
            @if let Some(reason) = &stage.reason { p { (visible(reason, 600)) } }
            @if text.is_empty() { p.dim { "It has printed nothing." } }
            @else { pre.log tabindex="0" { (ansi::markup(&text)) } }
        }
    };
    Ok(layout::live(Place::Pipelines, "Log of a stage", state.version, live, &body))
}
