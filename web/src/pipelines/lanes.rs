//! Stages over time: when each could have begun, when it did, and for how long it went.

use maud::{Markup, html};

use crate::design::chart::{WIDTH, num};
use crate::design::text::visible;
use crate::json::{PipelineShown, PipelineStage};

/// Rows drawn; of more, those of the critical path and the longest.
const MAX_ROWS: usize = 80;
const MAX_NAME: usize = 60;

pub fn seconds(seconds: f64) -> String {
    crate::format::duration((seconds.max(0.0) * 1e9) as u64)
}

pub fn picture(it: &PipelineShown) -> Markup {
    let started = |(_, stage): &(usize, &PipelineStage)| stage.started.is_some();
    let mut rows: Vec<_> = it.stages.iter().enumerate().filter(started).collect();
    let left_out = rows.len().saturating_sub(MAX_ROWS);
    if left_out > 0 {
        rows.sort_by(|(_, a), (_, b)| {
            b.critical.cmp(&a.critical).then(b.took_s.total_cmp(&a.took_s))
        });
        rows.truncate(MAX_ROWS);
    }
    rows.sort_by(|(_, a), (_, b)| a.after_s.total_cmp(&b.after_s));
    let span = it.took_s.max(0.001);
    html! {
        @if rows.is_empty() { p.dim { "No stage has begun yet." } }
        @else {
            p.legend {
                span.hit { "passed" } span.executed { "running" } span.failed { "failed" }
                span.other { "could have begun, or waits" } span.line { "critical path: ★" }
            }
            div.waterfall {
                @for (_, stage) in &rows { (lane(it, stage, span)) }
                div.lane.scale aria-hidden="true" {
                    span.name {}
                    div.axis { span { "0" } span { (seconds(span / 2.0)) } span { (seconds(span)) } }
                }
            }
            @if left_out > 0 { p.dim { "Left out: " (left_out) " short stages." } }
        }
    }
}

/// Seconds after the beginning of the run at which all that the stage needs had ended.
fn ready(it: &PipelineShown, stage: &PipelineStage) -> f64 {
    let need = |need: &u32| usize::try_from(*need).ok().and_then(|at| it.stages.get(at));
    let ends = stage.needs.iter().filter_map(need).filter(|it| it.started.is_some());
    ends.map(|it| it.after_s + it.took_s).fold(0.0, f64::max)
}

fn lane(it: &PipelineShown, stage: &PipelineStage, span: f64) -> Markup {
    let x = |at: f64| (at / span * WIDTH).clamp(0.0, WIDTH);
    let (ready, from) = (ready(it, stage).min(stage.after_s), stage.after_s);
    let (left, right) = (x(from), x(from + stage.took_s));
    let class = match stage.stands.as_str() {
        "passed" => "hit",
        "failed" => "failed",
        "asking" | "pausing" => "queue",
        "cancelled" => "cancelled",
        _ => "executed",
    };
    let waited = (from - ready).max(0.0);
    let words = format!(
        "{}: {}, waited {}, went for {}{}",
        stage.name,
        stage.stands.replace('_', " "),
        seconds(waited),
        seconds(stage.took_s),
        if stage.critical { ", on the critical path" } else { "" }
    );
    html! {
        div.lane {
            span.name title=(visible(&stage.name, 200)) { @if stage.critical { "★ " } (visible(&stage.name, MAX_NAME)) }
            svg viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=(visible(&words, 300)) {
                rect.ground x="0" y="0" width="1000" height="16" {}
                @if waited > 0.0 { rect.queue x=(num(x(ready))) y="6" width=(num(left - x(ready))) height="4" {} }
                rect class={ "bar " (class) } x=(num(left)) y="1" height="14" width=(num((right - left).max(2.0))) {}
            }
        }
    }
}
