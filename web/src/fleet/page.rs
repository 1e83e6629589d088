//! The fleet as a page: which host runs what, what it was told, and who drifts.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use maud::{Markup, html};

use super::api::{Page, found};
use crate::api::arguments;
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::format::{abbreviated, bytes, counted, encode};
use crate::json::{FleetAgent, FleetAgents};
use crate::state::WebState;

/// Agents of a page.
const PAGE: usize = 200;
/// Characters of a name and of a text.
const MAX_NAME: usize = 100;
const MAX_TEXT: usize = 300;

pub async fn page(
    State(state): State<WebState>,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Html<String>, WebError> {
    let page = arguments(page)?;
    let all = found(&state, &page, PAGE).await?;
    let body = match all.agents.is_empty() {
        true => none(&page),
        false => shown(&all, &page),
    };
    Ok(layout::page(Place::Fleet, "Fleet", state.version, &body))
}

fn none(page: &Page) -> Markup {
    let chosen = [&page.service, &page.environment, &page.condition, &page.after];
    let is_chosen = chosen.into_iter().any(Option::is_some);
    html! {
        div.title { h1 { "Fleet" } }
        section.panel.empty {
            @if is_chosen {
                h2 { "There is no such agent" }
                p { a href="/fleet" { "All agents" } }
            } @else {
                h2 { "There is no agent" }
                p { "An agent runs the releases of a service on its host, once it has verified who signed them:" }
                pre { code { "kiln agent --server URL --service api --dir /var/lib/kiln-agent --key release.pub --run './bin/app'" } }
            }
        }
    }
}

fn shown(all: &FleetAgents, page: &Page) -> Markup {
    let mut versions: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for it in &all.agents {
        let what = it.running.as_ref().map_or("nothing".to_owned(), |it| version(it));
        let counts =
            versions.entry((format!("{}/{}", it.service, it.environment), what)).or_default();
        counts.0 += 1;
        counts.1 += u64::from(it.condition != "well");
    }
    html! {
        div.title { h1 { "Fleet" } span.dim { (counted(all.agents.len() as u64, "agent")) " on this page" } }
        section.panel {
            h2 { "Versions" }
            table.rows {
                thead { tr { th { "Service" } th { "Version" } th.num { "Hosts" } th.num { "Not well" } } }
                tbody { @for ((place, version), (hosts, unwell)) in &versions {
                    tr { td { (visible(place, MAX_NAME)) } td { code { (version) } } td.num { (hosts) } td.num { (unwell) } }
                } }
            }
        }
        section.panel {
            div.scroll tabindex="0" role="region" aria-label="Agents" {
                table.rows {
                    thead { tr { th { "Host" } th { "Is" } th { "Runs" } th { "Was told" } th { "Heard" } th.num { "Free" } } }
                    tbody { @for agent in &all.agents { (row(agent)) } }
                }
            }
        }
        @if let Some(after) = &all.next_after { p { a href=(more(page, after)) { "More" } } }
    }
}

fn more(page: &Page, after: &str) -> String {
    let mut address = format!("/fleet?after={}", encode(after, false));
    for (name, value) in [
        ("service", &page.service),
        ("environment", &page.environment),
        ("condition", &page.condition),
    ] {
        if let Some(value) = value {
            address += &format!("&{name}={}", encode(value, false));
        }
    }
    address
}

fn version(digest: &str) -> String {
    abbreviated(digest.trim_start_matches("sha256:"))
}

fn class(condition: &str) -> &'static str {
    match condition {
        "well" => "passed",
        "behind" | "unassigned" => "merged",
        _ => "failed",
    }
}

fn releases(names: &[String], digest: &str) -> Markup {
    html! {
        @match names.first() {
            Some(name) => { a href={ "/releases/" (encode(name, true)) } { (visible(name, MAX_NAME)) } }
            None => { code { (version(digest)) } }
        }
    }
}

fn row(it: &FleetAgent) -> Markup {
    let labels: Vec<_> = it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let why = it.failed.as_ref().or(it.health.why.as_ref());
    html! {
        tr {
            td.wide { strong { (visible(&it.name, MAX_NAME)) }
                p.dim { (visible(&it.service, MAX_NAME)) "/" (visible(&it.environment, MAX_NAME))
                    @if let Some(address) = &it.address { " · " (visible(address, MAX_NAME)) } }
                @if !labels.is_empty() { p.dim { (visible(&labels.join(" "), MAX_TEXT)) } } }
            td.many { span class={ "chip " (class(&it.condition)) } { (it.condition) }
                @if it.crashes > 0 { p.dim { "ended by itself " (counted(it.crashes, "time")) } }
                @if let Some(why) = why { p { (visible(why, MAX_TEXT)) } } }
            td.wide { @match &it.running {
                Some(running) => { (releases(&it.releases, running))
                    p.dim { "since " (it.since.as_deref().unwrap_or("-")) } }
                None => { span.dim { "nothing" } }
            } }
            td.wide { @match &it.told {
                Some(told) => { (releases(&told.releases, &told.version))
                    p.dim { "by " (visible(&told.by, MAX_NAME)) ", generation "
                        (told.generation.fence) "." (told.generation.change) } }
                None => { span.dim { "nothing yet" } }
            } }
            td { (it.heard.as_deref().unwrap_or("-")) }
            td.num { (bytes(it.free_bytes)) }
        }
    }
}
