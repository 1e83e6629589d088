//! All builds, page by page.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_scheduler::journal::Page;
use maud::html;
use serde::Deserialize;

use super::layout::{self, Place};
use super::parts;
use crate::web::WebState;
use crate::web::error::WebError;
use crate::web::json::{cursor, parse_cursor};

const PAGE: usize = 50;

#[derive(Deserialize)]
pub struct Paging {
    before: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    Arguments(paging): Arguments<Paging>,
) -> Result<Html<String>, WebError> {
    let before = paging.before.as_deref().and_then(parse_cursor);
    let builds = state.journal.builds(Page { before, limit: PAGE }).await?;
    let next = builds.last().filter(|_| builds.len() == PAGE).map(|last| cursor(last.first_seq));
    let body = html! {
        div.title { h1 { "Builds" } }
        @if builds.is_empty() && before.is_none() {
            section.panel.empty {
                h2 { "No builds yet" }
                p { "A build appears here as soon as its first action is looked up or run." }
                (parts::how_to_build(&state.base_url))
            }
        } @else {
            section.panel {
                @if builds.is_empty() { p.quiet { "There are no older builds." } }
                @else { (parts::builds(&builds)) }
            }
            p.pager {
                @if before.is_some() { a.button href="/builds" { "Newest" } }
                @if let Some(next) = next {
                    a.button href={ "/builds?before=" (next) } { "Older" }
                }
            }
        }
    };
    Ok(layout::page(Place::Builds, "Builds", state.version, &body))
}
