//! The page of a merge queue's run that has ended, with the end of what its check printed.

use axum::extract::{Path, State};
use axum::response::Html;
use maud::{Markup, html};

use super::api;
use super::parts::{MAX_REASON, about, address, branches, chip, commit};
use crate::ansi;
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::json::MergeRan;
use crate::state::WebState;

pub async fn page(
    State(state): State<WebState>,
    Path((queue, run)): Path<(String, u64)>,
) -> Result<Html<String>, WebError> {
    let it = api::ran(&state, &queue, run).await?;
    let body = html! {
        div.title {
            h1 { "Run " (it.run) }
            span.dim { "of " a href=(address(&queue)) { (visible(&queue, MAX_REASON)) } }
            (chip(&it.verdict))
        }
        (facts(&it))
        section.panel {
            h2 { "The end of what the check printed" }
            @match &it.log {
                Some(log) => pre.log tabindex="0" { (ansi::markup(log)) },
                None => p.dim { "Nothing." },
            }
        }
    };
    Ok(layout::page(Place::MergeQueues, "Run of a merge queue", state.version, &body))
}

fn facts(it: &MergeRan) -> Markup {
    html! {
        section.panel {
            dl.pairs.facts {
                dt { "Branches" } dd { (branches(&it.branches)) }
                dt { "On top of" } dd { (commit(&it.base)) }
                @if let Some(tested) = &it.commit { dt { "Tested" } dd { (commit(tested)) } }
                dt { "Began" } dd { (it.began) ", and took " (about(it.took_s)) }
                @if !it.targets.is_empty() { dt { "Failed" } dd { (visible(&it.targets.join(", "), MAX_REASON)) } }
                @if let Some(why) = &it.why { dt { "Could not be run" } dd { (visible(why, MAX_REASON)) } }
            }
        }
    }
}
