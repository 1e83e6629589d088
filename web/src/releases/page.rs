//! Pages of releases.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_deploy::catalog::CatalogEntry;
use kiln_deploy::provenance::ClosureEntry;
use maud::{Markup, html};
use serde::Deserialize;

use super::api::name;
use crate::api::arguments;
use crate::design::layout::{self, Place};
use crate::design::parts::tile;
use crate::design::text::{build_link, label, visible};
use crate::error::WebError;
use crate::format::{abbreviated, bytes, count, counted, encode, short};
use crate::state::WebState;

/// Releases of a page, and lines of a closure.
const PAGE: usize = 100;
/// Longest name shown, in characters.
const MAX_NAME: usize = 120;

#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    instance: String,
    after: Option<String>,
    #[serde(default)]
    skip: usize,
}

pub async fn list(
    State(state): State<WebState>,
    wanted: Result<Arguments<Wanted>, QueryRejection>,
) -> Result<Html<String>, WebError> {
    let Wanted { instance, after, .. } = arguments(wanted)?;
    let after = after.map(|it| name(&it)).transpose()?;
    let found = state.releases.list(&instance, after.as_ref(), PAGE).await?;
    let next = found.last().filter(|_| found.len() == PAGE).map(|it| it.release.name.to_string());
    let body = html! {
        div.title { h1 { "Releases" } }
        @if found.is_empty() { (none()) } @else {
            section.panel {
                div.scroll tabindex="0" role="region" aria-label="Releases" {
                    table.rows {
                        thead { tr { th { "Release" } th { "Target" } th { "Source" } th.num { "SLSA level" }
                            th { "Manifest" } th { "Made" } th { "By" } } }
                        tbody { @for entry in &found { (row(entry)) } }
                    }
                }
            }
            @if let Some(next) = next {
                p { a href={ "/releases?instance=" (encode(&instance, false)) "&after=" (encode(&next, false)) } { "More" } }
            }
        }
    };
    Ok(layout::page(Place::Releases, "Releases", state.version, &body))
}

fn none() -> Markup {
    html! {
        section.panel.empty {
            h2 { "Nothing is released yet" }
            p { "A release is what a build left, under a name that never changes, with signed provenance:" }
            pre { code { "kiln release create team/app:1.0 --invocation INVOCATION --target //app:image" } }
        }
    }
}

fn address(entry: &CatalogEntry) -> String {
    let name = encode(&entry.release.name.to_string(), true);
    match entry.instance.as_str() {
        "" => format!("/releases/{name}"),
        instance => format!("/releases/{name}?instance={}", encode(instance, false)),
    }
}

fn row(entry: &CatalogEntry) -> Markup {
    let release = &entry.release;
    html! {
        tr {
            td.wide { a href=(address(entry)) { (visible(&release.name.to_string(), MAX_NAME)) }
                @if entry.rejected.is_some() { " " span.chip.failed { "rejected" } } }
            td.wide { (label(&release.target)) }
            td { (visible(entry.source.as_deref().unwrap_or("not said"), MAX_NAME)) }
            td.num { (entry.level.build_level) }
            td { code { (abbreviated(release.subject.digest.hex())) } }
            td { (release.created) }
            td { (visible(&entry.made_by, MAX_NAME)) }
        }
    }
}

pub async fn page(
    State(state): State<WebState>,
    Path(path): Path<String>,
    wanted: Result<Arguments<Wanted>, QueryRejection>,
) -> Result<Html<String>, WebError> {
    let Wanted { instance, skip, .. } = arguments(wanted)?;
    let entry = state.releases.get(&instance, &name(&path)?).await?;
    let (lines, more) = state.releases.closure(&entry, skip, PAGE).await?;
    let title = visible(&entry.release.name.to_string(), MAX_NAME);
    let body = html! {
        div.title { h1 { (title) } @if entry.rejected.is_some() { span.chip.failed { "rejected" } } }
        @if let Some(rejected) = &entry.rejected {
            p.note { (visible(&rejected.by, MAX_NAME)) " rejected it on " (rejected.at) ": " (visible(&rejected.reason, 2_000)) }
        }
        (tiles(&entry))
        (facts(&entry))
        (level(&entry))
        (closure(&entry, &lines, skip, more))
        (content(&entry))
    };
    Ok(layout::page(Place::Releases, &title, state.version, &body))
}

fn tiles(entry: &CatalogEntry) -> Markup {
    let counts = &entry.closure;
    let size: u64 = entry.content.iter().map(|(_, size)| size).sum();
    html! {
        dl.tiles {
            (tile("SLSA build level", &html! { (entry.level.build_level) }, &html! { "of 3" }))
            (tile("Actions", &html! { (count(counts.actions as u64)) }, &html! { (count(counts.written as u64)) " written by clients" }))
            (tile("Sources", &html! { (count(counts.sources as u64)) }, &html! { "uploaded" }))
            (tile("Size", &html! { (bytes(size)) }, &html! { (counted(entry.content.len() as u64, "blob")) }))
        }
    }
}

fn facts(entry: &CatalogEntry) -> Markup {
    let release = &entry.release;
    html! {
        section.panel { dl.pairs.facts {
            dt { "Manifest" } dd { code { (release.subject.digest) } }
            dt { "Target" } dd { (label(&release.target)) }
            dt { "Source" } dd { (visible(entry.source.as_deref().unwrap_or("nobody said which commit"), 400)) }
            dt { "Branch" } dd { (visible(entry.branch.as_deref().unwrap_or("nobody said which"), 300)) }
            dt { "Invocation" } dd { a href=(build_link(&release.invocation)) { (visible(&release.invocation, MAX_NAME)) } }
            dt { "Made" } dd { (release.created) " by " (visible(&entry.made_by, MAX_NAME)) }
            dt { "Key" } dd { pre { code { (entry.public_key) } } }
        } }
    }
}

fn level(entry: &CatalogEntry) -> Markup {
    html! {
        section.panel {
            header { h2 { "Why level " (entry.level.build_level) } }
            ul.plain {
                @for text in &entry.level.because { li { (short(text, 400)) } }
                @for text in &entry.level.but { li.dim { "but " (short(text, 400)) } }
            }
        }
    }
}

fn closure(entry: &CatalogEntry, lines: &[ClosureEntry], skip: usize, more: bool) -> Markup {
    let at = address(entry);
    let join = if at.contains('?') { '&' } else { '?' };
    html! {
        section.panel {
            header { h2 { "Provenance" } span.dim { "from what is released back to its sources" } }
            div.scroll tabindex="0" role="region" aria-label="Provenance" {
                table.rows {
                    thead { tr { th { "What" } th { "Of" } th { "Where" } th { "Content" } } }
                    tbody { @for line in lines { (closure_row(line)) } }
                }
            }
            p {
                @if skip > 0 { a href={ (at) (join) "skip=" (skip.saturating_sub(PAGE)) } { "Back" } " " }
                @if more { a href={ (at) (join) "skip=" (skip + PAGE) } { "More" } }
            }
        }
    }
}

/// The beginning of a hash, whatever function it is of.
fn hash(digest: &str) -> String {
    abbreviated(digest.rsplit(':').next().unwrap_or_default())
}

fn closure_row(line: &ClosureEntry) -> Markup {
    match line {
        ClosureEntry::Executed(it) => {
            let outputs = it.outputs.keys().take(3).map(String::as_str).collect::<Vec<_>>();
            html! { tr {
                td { span.chip.hit { (short(&it.mnemonic, 40)) } }
                td.wide { (label(&it.target)) }
                td { (short(&it.worker, 60)) " (" (it.root_file_system) "; " (it.enforced.join(", ")) ")" }
                td.wide { (visible(&outputs.join(", "), 200)) " " code { (hash(&it.action)) } }
            } }
        }
        ClosureEntry::Written { action, by, outputs, .. } => html! { tr {
            td { span.chip.failed { "written" } }
            td.wide { (visible(by, 200)) }
            td { "not built here" }
            td.wide { (visible(&outputs.keys().take(3).cloned().collect::<Vec<_>>().join(", "), 200)) " " code { (hash(action)) } }
        } },
        ClosureEntry::Source { path, digest } => html! { tr {
            td { span.chip.merged { "source" } } td.wide { (visible(path, 200)) } td { "uploaded" } td { code { (hash(digest)) } }
        } },
        ClosureEntry::Missing { path, directory } => html! { tr {
            td { span.chip.failed { "missing" } } td.wide { (visible(path, 200)) } td { "not in the store any more" } td { code { (hash(directory)) } }
        } },
    }
}

fn content(entry: &CatalogEntry) -> Markup {
    html! {
        section.panel { details {
            summary { h2 { "Content" } span.dim { (counted(entry.content.len() as u64, "blob")) } }
            table.rows { tbody { @for (digest, size) in entry.content.iter().take(1_000) {
                tr { td { code { (digest) } } td.num { (bytes(*size)) } }
            } } }
        } }
    }
}
