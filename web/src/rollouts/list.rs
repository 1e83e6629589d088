//! All rollouts, newest first, and who has which deploy lock.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::api::{self, Page};
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::json::{DeployLock, DrillShown, DrillState, RolloutSummary};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Characters of a name and of a reason.
const MAX_NAME: usize = 100;
const MAX_REASON: usize = 400;

pub async fn page(State(state): State<WebState>, caller: Caller) -> Result<Html<String>, WebError> {
    api::may_read(&state, &caller)?;
    let listed = api::listed(&state, Page::default()).await?;
    let (all, drills) = (listed.rollouts, listed.drills);
    let locks = state.rollouts.locks().await?;
    let locks: Vec<DeployLock> = locks.iter().map(DeployLock::from).collect();
    let body = html! {
        div.title { h1 { "Rollouts" } }
        @if all.is_empty() { (none()) } @else { (table(&all)) }
        @if !locks.is_empty() { (locked(&locks)) }
        @if !drills.is_empty() { (drilled(&drills)) }
    };
    Ok(layout::page(Place::Rollouts, "Rollouts", state.version, &body))
}

fn none() -> Markup {
    html! {
        section.panel.empty {
            h2 { "Nothing was rolled out yet" }
            p { "A declaration says to which targets a release comes in which steps, and what reverts it." }
            pre { code { "kiln rollout start rollout.toml --release team/app:1.4.2 --env prod --reason 'June'" } }
        }
    }
}

fn table(all: &[RolloutSummary]) -> Markup {
    html! {
        section.panel {
            div.scroll tabindex="0" role="region" aria-label="Rollouts" {
                table.rows {
                    thead { tr { th { "Rollout" } th { "Release" } th { "Where" } th { "Phase" } th { "Targets" } th { "Began" } th { "By" } } }
                    tbody { @for one in all { (row(one)) } }
                }
            }
        }
    }
}

/// A phase as a word with a colour.
pub fn chip(phase: &str, paused: bool) -> Markup {
    let class = match phase {
        _ if paused => "merged",
        "succeeded" => "hit",
        "rolling_back" | "rolled_back" | "rollback_failed" | "rejected" | "overtaken" => "failed",
        "gate" => "merged",
        _ => "executed",
    };
    html! {
        span class={ "chip " (class) } { (phase.replace('_', " ")) }
        @if paused { " " span.chip.merged { "paused" } }
    }
}

fn row(it: &RolloutSummary) -> Markup {
    html! {
        tr {
            td { a href={ "/rollouts/" (it.id) } { code { (it.id) } } }
            td.wide { a href={ "/releases/" (it.release) } { (visible(&it.release, MAX_NAME)) } }
            td { (visible(&it.service, MAX_NAME)) " in " (visible(&it.environment, MAX_NAME)) }
            td { (chip(&it.phase, it.paused)) @if it.drill_s.is_some() { " " span.chip.merged { "drill" } } }
            td { (it.changed) " of " (it.targets) }
            td { (it.started) }
            td.many { (visible(&it.by, MAX_NAME)) p.dim { (visible(&it.reason, MAX_REASON)) } }
        }
    }
}

fn locked(locks: &[DeployLock]) -> Markup {
    html! {
        section.panel {
            h2 { "Deploy locks" }
            div.scroll tabindex="0" role="region" aria-label="Deploy locks" {
                table.rows {
                    thead { tr { th { "Where" } th { "Owner" } th { "Until" } th { "Why" } } }
                    tbody {
                        @for it in locks {
                            tr {
                                td { (visible(&it.service, MAX_NAME)) " in " (visible(&it.environment, MAX_NAME)) }
                                td { (visible(&it.owner, MAX_NAME)) }
                                td { (it.until) }
                                td.many { (visible(&it.reason, MAX_REASON)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn drilled(all: &[DrillState]) -> Markup {
    html! {
        section.panel {
            h2 { "Drills" }
            div.scroll tabindex="0" role="region" aria-label="Drills" {
                table.rows {
                    thead { tr { th { "Where" } th { "Last" } th { "Next" } } }
                    tbody {
                        @for it in all {
                            tr {
                                td { (visible(&it.service, MAX_NAME)) " in " (visible(&it.environment, MAX_NAME)) }
                                td { @match &it.last { Some(last) => (drill(last)), None => "none yet" } }
                                td {
                                    @if let Some(due) = &it.due { "until " (due) " " }
                                    @if it.overdue { span.chip.failed { "overdue" } }
                                    @if let Some(next) = &it.next { p { "begins by itself " (next) } }
                                    @if let Some(why) = &it.hindered { p { strong { "does not begin: " } (visible(why, MAX_REASON)) } }
                                    @if let Some(missed) = &it.missed { p.dim { (missed.count) " missed, the last of " (missed.at) ": " (visible(&missed.why, MAX_REASON)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn drill(it: &DrillShown) -> Markup {
    let (class, word) = if it.passed { ("hit", "passed") } else { ("failed", "failed") };
    html! {
        span class={ "chip " (class) } { (word) } " "
        a href={ "/rollouts/" (it.rollout) } { (it.at) }
        p.dim {
            "found after " (time(it.fired_s)) ", restored after " (time(it.restored_s)) " more; "
            (it.budget_s) " s were allowed"
        }
    }
}

fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |it| format!("{it:.1} s"))
}
