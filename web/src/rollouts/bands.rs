//! Metrics of both versions as pictures: the band that the old version kept, and the new one's line over it.

use kiln_deploy::rollouts::control::Series;
use maud::{Markup, html};
use serde_json::Value;

use crate::design::chart::{WIDTH, num, scaled};
use crate::design::text::visible;
use crate::format::counted;
use crate::json::RolloutLook;

const HEIGHT: f64 = 90.0;
/// Characters of a name and of a reason.
const MAX_NAME: usize = 100;
const MAX_REASON: usize = 400;

pub fn shown(look: &RolloutLook, series: &[Series]) -> Markup {
    let metrics = look.judgement["metrics"].as_array().cloned().unwrap_or_default();
    html! {
        p.dim { "from " (look.from) " to " (look.at) ": " (counted(look.canary as u64, "target")) " of the new version, " (look.baseline) " of the old one" }
        @if !series.is_empty() { p.dim { "The band is what the old version kept to, with its line; the dark line is the new one." } }
        @if metrics.is_empty() { @for reason in &look.reasons { p { (visible(reason, MAX_REASON)) } } }
        @for metric in &metrics { (one(metric, series)) }
    }
}

fn one(metric: &Value, series: &[Series]) -> Markup {
    let name = metric["name"].as_str().unwrap_or_default();
    let class = match metric["classification"].as_str().unwrap_or_default() {
        "Pass" => "hit",
        "High" | "Low" => "failed",
        _ => "merged",
    };
    let drawn = series.iter().find(|it| it.metric == name);
    html! {
        h3 {
            (visible(name, MAX_NAME)) " "
            span class={ "chip " (class) } { (metric["classification"].as_str().unwrap_or_default()) }
        }
        p { (visible(metric["reason"].as_str().unwrap_or_default(), MAX_REASON)) }
        @if let Some(drawn) = drawn { (picture(drawn)) }
    }
}

/// The lowest and the highest of all values, with some room.
fn range(series: &Series) -> Option<(f64, f64)> {
    let all = series.canary.iter().chain(&series.baseline).flatten().copied();
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let room = ((high - low) * 0.1).max(high.abs() * 0.01).max(1e-9);
    low.is_finite().then_some((low - room, high + room))
}

fn line(points: &[Option<f64>], (low, high): (f64, f64)) -> String {
    let slot = WIDTH / points.len().max(2).saturating_sub(1) as f64;
    let point = |(at, value): (usize, &Option<f64>)| {
        let y = HEIGHT - ((*value)? - low) / (high - low) * HEIGHT;
        Some(format!("{},{}", num(at as f64 * slot), num(y)))
    };
    let points: Vec<String> = points.iter().enumerate().filter_map(point).collect();
    points.join(" ")
}

/// The top and the height in the picture of the range that the old version's values had; `None`: it had none.
fn band(points: &[Option<f64>], (low, high): (f64, f64)) -> Option<(f64, f64)> {
    let values = || points.iter().flatten().copied();
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(f64::NEG_INFINITY, f64::max);
    let y = |value: f64| HEIGHT - (value - low) / (high - low) * HEIGHT;
    least.is_finite().then(|| (y(most), (y(least) - y(most)).max(1.0)))
}

fn picture(series: &Series) -> Markup {
    let Some(range) = range(series) else { return html! { p.dim { "no value yet" } } };
    let words = format!(
        "{}: the new version's line over the band of the old one, from {:.4} to {:.4}",
        series.metric, range.0, range.1
    );
    let chart = html! {
        svg.chart viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
            title { (words) }
            @if let Some((y, height)) = band(&series.baseline, range) {
                rect.band x="0" y=(num(y)) width="1000" height=(num(height)) {}
            }
            polyline.old points=(line(&series.baseline, range)) {}
            polyline.rate points=(line(&series.canary, range)) {}
        }
    };
    let (low, high) = range;
    let left = [high, (low + high) / 2.0, low].map(|value| format!("{value:.4}"));
    scaled(&chart, &left, None, &["older".to_owned(), "newest".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_left_out_of_the_line() {
        let series = Series {
            metric: "<p99>".to_owned(),
            canary: vec![Some(2.0), None, Some(2.0)],
            baseline: vec![Some(1.0), Some(3.0)],
        };
        let shown = picture(&series).into_string();
        assert!(shown.contains("points=\"0.00,45.00 1000.00,45.00\""), "{shown}");
        assert!(shown.contains("rect class=\"band\"") && !shown.contains("<p99>"), "{shown}");
        let none = Series { canary: vec![None], baseline: Vec::new(), ..series };
        assert!(picture(&none).into_string().contains("no value yet"));
    }
}
