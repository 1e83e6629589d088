//! Shows the newest measurements: each metric's class, its newest value, the band that the old
//! version kept to, and the lines of both versions.

use kiln_web::json::{RolloutLook, RolloutSeries};
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::looks::{Looks, Tone};
use super::words::{clean, figure, width, wrapped};

/// The label in front of the new version's line of values.
const LABEL: &str = "  new ";
const OTHER_LABEL: &str = "  old ";

/// Lines of all metrics, those first that are not as they should be.
pub fn lines(look: &RolloutLook, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let mut metrics: Vec<&Value> =
        look.judgement["metrics"].as_array().into_iter().flatten().collect();
    metrics.sort_by_key(|metric| class(metric) == "Pass");
    let mut lines: Vec<_> =
        metrics.iter().flat_map(|metric| judged(metric, look, columns, looks)).collect();
    let named =
        |it: &&RolloutSeries| metrics.iter().any(|metric| metric["name"] == it.metric.as_str());
    for series in look.series.iter().filter(|it| !named(it)) {
        lines.push(Line::styled(clean(&series.metric), looks.style(Tone::Strong)));
        lines.extend(pictures(series, columns, looks));
    }
    lines
}

fn class(metric: &Value) -> &str {
    metric["classification"].as_str().unwrap_or_default()
}

fn judged(metric: &Value, look: &RolloutLook, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let name = metric["name"].as_str().unwrap_or_default();
    let tone = match class(metric) {
        "Pass" => Tone::Good,
        "High" | "Low" => Tone::Bad,
        _ => Tone::Busy,
    };
    let mut lines = vec![Line::from(vec![
        Span::styled(clean(name), looks.style(Tone::Strong)),
        Span::raw(" "),
        Span::styled(clean(class(metric)), looks.style(tone)),
    ])];
    let reason = metric["reason"].as_str().unwrap_or_default();
    // What the verdict has said is not said twice.
    if !look.reasons.iter().any(|said| said.contains(reason)) {
        lines.extend(indented(&clean(reason), columns));
    }
    if let Some(series) = look.series.iter().find(|it| it.metric == name) {
        lines.extend(pictures(series, columns, looks));
    }
    lines
}

fn indented(text: &str, columns: usize) -> Vec<Line<'static>> {
    let lines = wrapped(text, columns.saturating_sub(2), 0);
    lines.into_iter().map(|line| Line::from(format!("  {line}"))).collect()
}

/// The least and the most of some values.
fn range<'a>(values: impl Iterator<Item = &'a Option<f64>>) -> Option<(f64, f64)> {
    let values = values.flatten().copied().filter(|it| it.is_finite());
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn pictures(series: &RolloutSeries, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let Some(all) = range(series.canary.iter().chain(&series.baseline)) else {
        return vec![Line::styled("  no value yet", looks.style(Tone::Dim))];
    };
    let band = range(series.baseline.iter());
    let newest = series.canary.iter().rev().flatten().next();
    let now = newest.map_or_else(|| "no value".to_owned(), |it| format!("now {}", figure(*it)));
    let kept = band.map_or_else(String::new, |(low, high)| {
        format!(", the old version {} to {}", figure(low), figure(high))
    });
    let room = columns.saturating_sub(width(LABEL)).max(1);
    let mut lines = indented(&format!("{now}{kept}"), columns);
    let mut spans = vec![Span::styled(LABEL, looks.style(Tone::Dim))];
    for value in thinned(&series.canary, room) {
        let outside = |(low, high): (f64, f64)| value.is_some_and(|it| it < low || it > high);
        let tone = if band.is_some_and(outside) { Tone::Bad } else { Tone::Good };
        spans.push(Span::styled(drawn(value, all, looks), looks.style(tone)));
    }
    lines.push(Line::from(spans));
    if band.is_some() {
        let old: String = thinned(&series.baseline, room).map(|it| drawn(it, all, looks)).collect();
        lines.push(Line::styled(format!("{OTHER_LABEL}{old}"), looks.style(Tone::Dim)));
    }
    lines
}

/// Thins values out to at most `columns`, each the mean of its neighbours; `None`: none of them is
/// known.
fn thinned(values: &[Option<f64>], columns: usize) -> impl Iterator<Item = Option<f64>> + '_ {
    let size = values.len().div_ceil(columns.max(1)).max(1);
    values.chunks(size).map(|chunk| {
        let known: Vec<f64> = chunk.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    })
}

fn drawn(value: Option<f64>, (low, high): (f64, f64), looks: Looks) -> String {
    let Some(value) = value else { return " ".to_owned() };
    let share = if high > low { (value - low) / (high - low) } else { 0.5 };
    looks.level(share).to_string()
}
