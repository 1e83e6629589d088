//! Charts as SVG. They are stretched to their place, so that no text is inside them.

use kiln_scheduler::journal::{BuildSummary, Counts};
use maud::{Markup, html};

use super::text::build_link;
use crate::format::{abbreviated, count, counted, percent};

/// Width of a chart in its own units.
pub const WIDTH: f64 = 1000.0;
/// Columns for which there is room even when there are fewer builds.
const MIN_COLUMNS: usize = 12;

/// A number for an attribute: two decimals are finer than a pixel.
pub fn num(value: f64) -> String {
    format!("{value:.2}")
}

fn parts(counts: &Counts) -> [(&'static str, u64); 6] {
    // What was refused has failed.
    let ended = counts.executed + counts.refused;
    let failed = counts.failed.min(ended);
    [
        ("hit", counts.hits),
        ("merged", counts.merged),
        ("executed", ended - failed),
        ("client", counts.ran_at_client()),
        ("cancelled", counts.cancelled),
        ("failed", failed),
    ]
}

/// Hits, merged, executed, run by clients and failed as parts of one bar.
pub fn share_bar(counts: &Counts) -> Markup {
    let total = counts.actions().max(1) as f64;
    let parts = parts(counts);
    let mut x = 0.0;
    let rects = parts.map(|(class, part)| {
        let (start, width) = (x, part as f64 / total * 100.0);
        x += width;
        (class, start, width)
    });
    let words = format!(
        "{}, {} merged, {} executed, {} run by clients, {} failed",
        counted(counts.hits, "cache hit"),
        counts.merged,
        counts.executed,
        counts.ran_at_client(),
        counts.failed
    );
    html! {
        svg.share viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=(words) {
            title { (words) }
            rect.ground x="0" y="0" width="100" height="8" {}
            @for (class, x, width) in rects {
                @if width > 0.0 {
                    rect class=(class) x=(num(x)) y="0" width=(num(width)) height="8" {}
                }
            }
        }
    }
}

/// A chart with one column for each build, the oldest on the left: its actions by how they were answered, and the share
/// of cache hits as a line. The scale of the actions is at the left, that of the line at the right.
pub fn builds(newest_first: &[BuildSummary], columns: usize) -> Markup {
    const HEIGHT: f64 = 160.0;
    let builds: Vec<_> = newest_first.iter().take(columns).rev().collect();
    let slot = WIDTH / columns.min(builds.len()).max(MIN_COLUMNS) as f64;
    // The newest is always at the right edge.
    let left = WIDTH - builds.len() as f64 * slot;
    let top = round_up(builds.iter().map(|build| build.counts.actions()).max().unwrap_or(0));
    // The smallest builds stay visible beside large ones.
    let scale = |n: u64| (n as f64 / top as f64 * HEIGHT).max(if n > 0 { 2.0 } else { 0.0 });
    let points: Vec<String> = builds
        .iter()
        .enumerate()
        .filter_map(|(i, build)| {
            let rate = build.counts.hit_rate()?;
            let x = left + (i as f64 + 0.5) * slot;
            Some(format!("{},{}", num(x), num(HEIGHT - rate * HEIGHT)))
        })
        .collect();
    let chart = html! {
        svg.chart.builds viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label="Actions of recent builds, and their cache hit rates" {
            (grid(HEIGHT))
            @for (i, build) in builds.iter().enumerate() {
                (column(build, left + i as f64 * slot, slot, scale(build.counts.actions()), HEIGHT))
            }
            @if points.len() > 1 { polyline.rate points=(points.join(" ")) {} }
        }
    };
    let actions = [top, top / 2, 0].map(count);
    let rates = ["100 %", "50 %", "0 %"].map(str::to_owned);
    scaled(&chart, &actions, Some(&rates), &["older".into(), "newest".into()])
}

/// A chart with its scales: values from top to bottom at the left (and the right), and what is
/// below from left to right.
pub fn scaled(
    chart: &Markup,
    left: &[String],
    right: Option<&[String]>,
    below: &[String],
) -> Markup {
    let side = |values: &[String]| html! { @for value in values { span { (value) } } };
    html! {
        div.plot {
            div.scale aria-hidden="true" { (side(left)) }
            (chart)
            @if let Some(right) = right { div.scale.right aria-hidden="true" { (side(right)) } }
            div.axis aria-hidden="true" { (side(below)) }
        }
    }
}

/// The next even number that begins with 1, 2, 3, 4, 5, 6, 8 and ends with zeros.
pub fn round_up(value: u64) -> u64 {
    let mut unit = 1;
    while value > 10 * unit {
        unit *= 10;
    }
    let steps = [1, 2, 3, 4, 5, 6, 8, 10];
    let top = steps.into_iter().map(|step| step * unit).find(|top| *top >= value);
    top.unwrap_or(10 * unit).next_multiple_of(2).max(2)
}

fn column(build: &BuildSummary, x: f64, slot: f64, tall: f64, height: f64) -> Markup {
    let counts = &build.counts;
    let total = counts.actions().max(1) as f64;
    let parts = parts(counts);
    let mut bottom = height;
    let rects = parts.map(|(class, part)| {
        let part = part as f64 / total * tall;
        bottom -= part;
        (class, bottom, part)
    });
    let words = format!(
        "{}: {}, {}, {} failed",
        abbreviated(&build.invocation_id),
        counted(counts.actions(), "action"),
        percent(counts.hit_rate().unwrap_or(0.0)),
        counts.failed
    );
    html! {
        a href=(build_link(&build.invocation_id)) aria-label=(words) {
            title { (words) }
            rect.target-area x=(num(x)) y="0" width=(num(slot)) height=(height) {}
            @for (class, y, part) in rects {
                @if part > 0.0 {
                    rect class=(class) x=(num(x + slot * 0.14)) y=(num(y))
                        width=(num(slot * 0.72)) height=(num(part)) {}
                }
            }
        }
    }
}

/// Three lines across a chart of this height, at its quarters.
pub fn grid(height: f64) -> Markup {
    html! {
        @for i in 1..4 {
            @let y = num(height * f64::from(i) / 4.0);
            line.grid x1="0" x2="1000" y1=(y) y2=(y) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_with_round_numbers() {
        for (value, top) in [(0, 2), (1, 2), (3, 4), (7, 8), (11, 20), (45, 50), (260, 300)] {
            assert_eq!(round_up(value), top, "{value}");
        }
    }
}
