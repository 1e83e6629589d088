//! Environments side by side, with what waits for what and why.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::api;
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::json::{EnvironmentState, Environments, Frozen, GateReason, PlacedRelease};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Characters of a name and of a reason.
const MAX_NAME: usize = 100;
const MAX_REASON: usize = 400;

pub async fn page(State(state): State<WebState>, caller: Caller) -> Result<Html<String>, WebError> {
    let body = match state.promotion.is_some() {
        true => shown(&api::all(&*api::read(&state, &caller)?).await?),
        false => html! {
            div.title { h1 { "Environments" } }
            section.panel.empty {
                h2 { "There are none" }
                p { "A policy says which environments there are, and what a release has to show before it stands in one." }
                pre { code { "[environments.dev]\n\n[environments.prod]\nafter = [\"dev\"]\nsoak = \"24h\"" } }
                p { "Name its file in " code { "promotion.policy" } "." }
            }
        },
    };
    Ok(layout::page(Place::Environments, "Environments", state.version, &body))
}

fn shown(all: &Environments) -> Markup {
    html! {
        div.title { h1 { "Environments" } span.dim { "policy " code { (all.policy) } } }
        section.panel {
            div.scroll tabindex="0" role="region" aria-label="Environments" {
                table.rows {
                    thead { tr { th { "Environment" } th { "Release" } th { "Since" } th { "Waits" } th { "For" } } }
                    tbody { @for environment in &all.environments { (row(environment)) } }
                }
            }
        }
    }
}

fn row(it: &EnvironmentState) -> Markup {
    html! {
        tr {
            td {
                strong { (it.name) }
                @if !it.after.is_empty() { p.dim { "after " (it.after.join(", ")) @if it.automatic { ", by itself" } } }
                @for frozen in &it.frozen { (self::frozen(frozen)) }
            }
            td.wide { @match &it.current { Some(current) => (placed(current)), None => span.dim { "nothing yet" } } }
            td { @if let Some(current) = &it.current { (current.since) p.dim { "generation " (current.generation) } } }
            td.wide {
                @if let Some(waiting) = &it.waiting {
                    (visible(&waiting.release, MAX_NAME))
                    p.dim { "asked by " (visible(&waiting.by, MAX_NAME)) ", until " (waiting.until) }
                }
            }
            td.many {
                @if let Some(waiting) = &it.waiting { @for reason in &waiting.reasons { (self::reason(reason)) } }
                @for broken in &it.overrides {
                    p { span.chip.failed { "override" } " " (visible(&broken.by, MAX_NAME))
                        @match &broken.confirmed_by {
                            Some(second) => { " and " (visible(second, MAX_NAME)) }
                            None => { " (to be confirmed)" }
                        }
                        ": " (visible(&broken.reason, MAX_REASON)) }
                }
            }
        }
    }
}

fn placed(it: &PlacedRelease) -> Markup {
    html! {
        a href={ "/releases/" (it.release) } { (visible(&it.release, MAX_NAME)) }
        @if it.rolled_back { " " span.chip.failed { "rolled back" } }
        p.dim { code { (crate::format::abbreviated(it.digest.trim_start_matches("sha256:"))) } " by " (visible(&it.by, MAX_NAME)) }
    }
}

fn frozen(it: &Frozen) -> Markup {
    let by = it.window.as_ref().or(it.by.as_ref()).cloned().unwrap_or_default();
    html! {
        p { span.chip.merged { "frozen" } " " (visible(&by, MAX_NAME))
            @if let Some(until) = &it.until { " until " (until) }
            ": " (visible(&it.reason, MAX_REASON)) }
    }
}

fn reason(it: &GateReason) -> Markup {
    let class = if it.standing == "refused" { "failed" } else { "merged" };
    html! {
        p { span class={ "chip " (class) } { (it.gate.replace('_', " ")) } " " (visible(&it.text, MAX_REASON))
            @if let Some(until) = &it.until { span.dim { " until " (until) } } }
    }
}
