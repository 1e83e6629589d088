//! The page that lists all merge queues.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::api;
use super::parts::{MAX_NAME, MAX_REASON, address, commit, runner, state as chip};
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::json::MergeQueueSummary;
use crate::state::WebState;

pub async fn page(State(state): State<WebState>) -> Result<Html<String>, WebError> {
    let all = api::listed(&state).await?.queues;
    let body = html! {
        div.title { h1 { "Merge queues" } }
        @if all.is_empty() { (none(&state.base_url)) } @else { (table(&all)) }
    };
    Ok(layout::page(Place::MergeQueues, "Merge queues", state.version, &body))
}

fn none(base_url: &str) -> Markup {
    html! {
        section.panel.empty {
            h2 { "There is no merge queue yet" }
            p { "Its runner merges, checks and pushes on a machine of yours; this server shows it and takes requests." }
            pre { code { "kiln queue run --server " (base_url) " --queue app --state queue --repo git@git.example:app.git --check 'bazel test //...'" } }
        }
    }
}

fn table(all: &[MergeQueueSummary]) -> Markup {
    html! {
        section.panel {
            div.scroll tabindex="0" role="region" aria-label="Merge queues" {
                table.rows {
                    thead { tr { th { "Queue" } th { "Lands on" } th { "" } th { "Waiting" } th { "Checks" } th { "Landed" } th { "Rejected" } th { "Runner" } } }
                    tbody { @for one in all { (row(one)) } }
                }
            }
        }
    }
}

fn row(it: &MergeQueueSummary) -> Markup {
    html! {
        tr {
            td { a href=(address(&it.name)) { (it.name) } }
            td { (visible(&it.target, MAX_NAME)) @if let Some(base) = &it.base { " at " (commit(base)) } }
            td { (chip(it)) @if let Some(why) = &it.paused { p.dim { (visible(why, MAX_REASON)) } } }
            td { (it.waiting) @if it.held > 0 { ", " (it.held) " held" } }
            td { (it.running) }
            td { (it.totals.landed) }
            td { (it.totals.rejected) }
            td.many { (runner(&it.runner)) }
        }
    }
}
