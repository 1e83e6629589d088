//! The page of a profile.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Html;
use kiln_cas::StoreError;
use maud::{Markup, html};

use super::read::{Profile, Span, read};
use crate::content::parse_digest;
use crate::design::chart::{WIDTH, num};
use crate::design::layout::{self, Place};
use crate::design::text::visible;
use crate::error::WebError;
use crate::format::{counted, duration, path_of};
use crate::state::WebState;

/// Largest profile that is read, compressed.
const MAX_PROFILE: u64 = 64 << 20;
/// Lanes drawn, those with the most in them.
const MAX_LANES: usize = 60;

const KINDS: [(&str, &str); 5] = [
    ("critical", "critical path"),
    ("remote", "remote"),
    ("action", "actions"),
    ("gc", "garbage collection"),
    ("other", "other"),
];

pub async fn page(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
) -> Result<Html<String>, WebError> {
    let digest = parse_digest(&function, &hash, &size)?;
    let blobs = state.blobs.clone();
    let work = async move {
        if digest.size > MAX_PROFILE {
            return Err(StoreError::TooLarge { size: digest.size, limit: MAX_PROFILE });
        }
        let data = blobs.read(&digest, 0, None).await?.collect(MAX_PROFILE).await?;
        Ok(read(&data))
    };
    let profile = state.kept.beside(work).await??;
    let profile = profile.map_err(|error| {
        let hint = "Bazel writes one with --profile, and by itself for each build.";
        WebError::invalid(format!("this is no profile of Bazel: {error}"), hint)
    })?;
    let body = html! {
        div.title { h1 { "Profile" }
            p.dim { (counted(profile.spans.len() as u64, "span"))
                @if profile.left_out > 0 { ", left out: " (counted(profile.left_out, "shorter one")) } }
            p { a.button href={ "/blobs/" (path_of(&digest)) "?name=command.profile.gz&download=1" } { "Download" } } }
        section.panel {
            header { p.legend.profile { @for (kind, words) in KINDS { span.(kind) { (words) } } } }
            (lanes(&profile))
        }
    };
    Ok(layout::page(Place::Builds, "Profile", state.version, &body))
}

fn kind(span: &Span) -> &'static str {
    let category = span.category.to_lowercase();
    match () {
        () if category.contains("critical path") => "critical",
        () if category.contains("remote") => "remote",
        () if category.contains("gc") || category.contains("garbage") => "gc",
        () if category.contains("action") => "action",
        () => "other",
    }
}

fn lanes(profile: &Profile) -> Markup {
    let mut lanes: BTreeMap<i64, Vec<&Span>> = BTreeMap::new();
    for span in &profile.spans {
        lanes.entry(span.thread).or_default().push(span);
    }
    let mut lanes: Vec<_> = lanes.into_iter().collect();
    lanes.sort_by_key(|(_, spans)| std::cmp::Reverse(spans.len()));
    let more = lanes.len().saturating_sub(MAX_LANES);
    lanes.truncate(MAX_LANES);
    lanes.sort_by_key(|(thread, _)| *thread);
    let start = profile.spans.iter().map(|it| it.start).fold(f64::INFINITY, f64::min);
    let end = profile.spans.iter().map(|it| it.start + it.took).fold(start, f64::max);
    let whole = (end - start).max(1.0);
    html! {
        @if lanes.is_empty() { p.quiet { "There is nothing in it." } }
        @else {
            div.waterfall {
                @for (thread, spans) in &lanes { (lane(profile, *thread, spans, start, whole)) }
                div.lane.scale aria-hidden="true" {
                    span.name {}
                    div.axis { span { "0" } span { (micros(whole / 2.0)) } span { (micros(whole)) } }
                }
                @if more > 0 { p.note { "and " (more) " more threads" } }
            }
        }
    }
}

fn lane(profile: &Profile, thread: i64, spans: &[&Span], start: f64, whole: f64) -> Markup {
    let name = profile.threads.get(&thread).map_or("", String::as_str);
    let name = if name.is_empty() { format!("thread {thread}") } else { visible(name, 60) };
    let x = |at: f64| (at - start) / whole * WIDTH;
    html! {
        div.lane {
            span.name title=(name) { bdi { (name) } }
            svg viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=(counted(spans.len() as u64, "span")) {
                rect.ground x="0" y="0" width="1000" height="16" {}
                @for span in spans {
                    rect class={ "bar " (kind(span)) } x=(num(x(span.start))) y="1" height="14"
                        width=(num((span.took / whole * WIDTH).max(0.6))) {
                        title { (span.name) ": " (micros(span.took)) }
                    }
                }
            }
        }
    }
}

fn micros(micros: f64) -> String {
    // What is no time at all is drawn at the edge.
    duration((micros.max(0.0) * 1000.0) as u64)
}
