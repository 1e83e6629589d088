//! All builds, page by page.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use futures_util::future::try_join_all;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{BuildSummary, Page};
use maud::{Markup, html};
use serde::Deserialize;

use super::rows::{self, Row};
use super::search::Search;
use super::told_list;
use crate::design::layout::{self, Live, Place};
use crate::design::parts;
use crate::error::WebError;
use crate::format::now;
use crate::json::{cursor, parse_cursor};
use crate::progress::Progress;
use crate::state::{LinksFrom, WebState};

const PAGE: usize = 50;

#[derive(Deserialize)]
pub struct Paging {
    before: Option<String>,
    hold: Option<String>,
}

/// What stands above the list, where any build told of itself.
async fn search(state: &WebState) -> Result<Markup, WebError> {
    let is_any = !state.tests.streams.builds(None, 1).await?.is_empty();
    Ok(html! { @if is_any { section.panel.slim { (told_list::form(&Search::default())) } } })
}

pub async fn page(
    State(state): State<WebState>,
    LinksFrom(base_url): LinksFrom,
    Arguments(paging): Arguments<Paging>,
    Arguments(wanted): Arguments<Search>,
) -> Result<Html<String>, WebError> {
    if wanted.is_used() {
        return told_list::page(&state, &wanted).await;
    }
    let before = paging.before.as_deref().and_then(parse_cursor);
    let builds = state.journal.builds(Page { before, limit: PAGE }).await?;
    let next = builds.last().filter(|_| builds.len() == PAGE).map(|last| cursor(last.first_seq));
    let builds = with_progress(&state, builds, &state.queue.snapshot().await?).await?;
    let is_lively = before.is_none() && builds.iter().any(|it| it.progress.is_lively);
    let live = Live::of(is_lively, paging.hold.is_some());
    let search = search(&state).await?;
    let body = html! {
        div.title { h1 { "Builds" } p { (layout::hold(live, "/builds")) } }
        (search)
        @if builds.is_empty() && before.is_none() {
            section.panel.empty {
                h2 { "No builds yet" }
                p { "A build appears here with its first request." }
                (parts::how_to_build(&base_url))
            }
        } @else {
            section.panel {
                @if builds.is_empty() { p.quiet { "There are no older builds." } }
                @else { (rows::builds(&builds)) }
            }
            p.pager {
                @if before.is_some() { a.button href="/builds" { "Newest" } }
                @if let Some(next) = next {
                    a.button href={ "/builds?before=" (next) } { "Older" }
                }
            }
        }
    };
    Ok(layout::live(Place::Builds, "Builds", state.version, live, &body))
}

/// Each build with how it goes and what it told of its end.
pub async fn with_progress(
    state: &WebState,
    builds: Vec<BuildSummary>,
    queue: &Snapshot,
) -> Result<Vec<Row>, WebError> {
    let now = now();
    let rows = builds.into_iter().map(async |build| {
        let progress = Progress::of(&state.journal, &build, queue, now);
        let told = state.tests.streams.build(&build.invocation_id).await?;
        Ok::<_, WebError>(Row { build, progress, told: told.map(|it| it.summary) })
    });
    try_join_all(rows).await
}
