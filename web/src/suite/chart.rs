//! Charts of tests as SVG.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kiln_ci::attempts::{Attempt, Known};
use kiln_ci::history::Day;
use kiln_ci::model::Outcome;
use maud::{Markup, html};

use crate::design::chart::{WIDTH, grid, num, round_up, scaled};
use crate::format::{count, counted, date, duration};

const HEIGHT: f64 = 160.0;
/// The least share that is drawn of what is there: a line is for a glance, a chart is to scale.
const IN_LINE: f64 = 0.15;
const IN_CHART: f64 = 0.01;
/// A dot in units of the chart, which is stretched to its place.
const DOT: (f64, f64) = (6.0, 7.0);

/// A small chart of one test: a narrow column for each day, the last one at the right, of what failed, was flaky and
/// passed.
pub fn sparkline(days: &BTreeMap<u64, Day>, span: &RangeInclusive<u64>) -> Markup {
    const TALL: f64 = 20.0;
    let columns = span.end().saturating_sub(*span.start()) + 1;
    let width = 100.0 / columns as f64;
    let days: Vec<_> = days.range(span.clone()).collect();
    let failed: u64 = days.iter().map(|(_, day)| day.failed + day.timed_out).sum();
    let failed = counted(failed, "failure");
    let words = format!("{} of {columns} days with runs, {failed}", days.len());
    html! {
        svg.spark viewBox={ "0 0 100 " (TALL) } preserveAspectRatio="none" role="img" aria-label=(words) {
            title { (words) }
            @for (number, day) in &days {
                @let x = (*number - span.start()) as f64 * width;
                @let mut bottom = TALL;
                @for (class, part) in parts(day, IN_LINE) {
                    @let height = part * TALL;
                    @if height > 0.0 {
                        rect class=(class) x=(num(x + width * 0.1)) y=(num({ bottom -= height; bottom }))
                            width=(num(width * 0.8)) height=(num(height)) {}
                    }
                }
            }
        }
    }
}

/// Shares of a day's attempts, none of which that is there is less than `least`.
fn parts(day: &Day, least: f64) -> [(&'static str, f64); 4] {
    let total = day.attempts().max(1) as f64;
    let share = |part: u64| if part == 0 { 0.0 } else { (part as f64 / total).max(least) };
    let failures = day.failed + day.timed_out;
    let flaky = share(day.flaky.min(failures));
    let failed = share(failures.saturating_sub(day.flaky));
    let other = share(day.skipped + day.infrastructure);
    let passed = if day.passed > 0 { (1.0 - flaky - failed - other).max(least) } else { 0.0 };
    let scale = (flaky + failed + other + passed).max(1.0);
    [
        ("failed", failed / scale),
        ("flaky", flaky / scale),
        ("other", other / scale),
        ("passed", passed / scale),
    ]
}

/// How many attempts ended how on each day.
pub fn outcomes(days: &BTreeMap<u64, Day>, span: &RangeInclusive<u64>) -> Markup {
    let columns = span.end().saturating_sub(*span.start()) + 1;
    let slot = WIDTH / columns as f64;
    let days: Vec<_> = days.range(span.clone()).collect();
    let top = round_up(days.iter().map(|(_, day)| day.attempts()).max().unwrap_or(0));
    let chart = html! {
        svg.chart.tests viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label="Outcomes by day" {
            (grid(HEIGHT))
            @for (number, day) in &days {
                @let x = (*number - span.start()) as f64 * slot;
                @let tall = day.attempts() as f64 / top as f64 * HEIGHT;
                g {
                    title { (words(**number, day)) }
                    @let mut bottom = HEIGHT;
                    @for (class, part) in parts(day, IN_CHART) {
                        @let height = part * tall;
                        @if height > 0.0 {
                            rect class=(class) x=(num(x + slot * 0.14)) y=(num({ bottom -= height; bottom }))
                                width=(num(slot * 0.72)) height=(num(height)) {}
                        }
                    }
                }
            }
        }
    };
    let scale = [top, top / 2, 0].map(count);
    scaled(&chart, &scale, None, &[date(*span.start()), date(*span.end())])
}

fn words(number: u64, day: &Day) -> String {
    format!(
        "{}: {} passed, {} failed, {} timed out, {} flaky first attempts",
        date(number),
        day.passed,
        day.failed,
        day.timed_out,
        day.flaky
    )
}

/// What attempts took, the oldest at the left. Failures are higher marks in another colour.
pub fn durations(newest_first: &[Attempt]) -> Markup {
    // A shadow run is in no figures.
    let is_shown = |it: &&Attempt| it.duration.is_some() && !it.known.has(Known::SHADOW);
    let timed: Vec<_> = newest_first.iter().filter(is_shown).rev().collect();
    let nanos = |it: &Attempt| {
        u64::try_from(it.duration.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    };
    let longest = timed.iter().map(|it| nanos(it)).max().unwrap_or(0).max(1);
    let slot = WIDTH / timed.len().max(20) as f64;
    let left = WIDTH - timed.len() as f64 * slot;
    let y =
        |it: &Attempt| HEIGHT - nanos(it) as f64 / longest as f64 * (HEIGHT - DOT.1 * 2.0) - DOT.1;
    let passed = timed.iter().enumerate().filter(|(_, it)| it.outcome == Outcome::Passed);
    let line: Vec<String> = passed
        .map(|(at, it)| format!("{},{}", num(left + (at as f64 + 0.5) * slot), num(y(it))))
        .collect();
    let chart = html! {
        svg.chart.tests viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label="Durations of attempts" {
            (grid(HEIGHT))
            @if line.len() > 1 { polyline.took points=(line.join(" ")) {} }
            @for (at, it) in timed.iter().enumerate() {
                @let x = left + (at as f64 + 0.5) * slot;
                @let is_passed = it.outcome == Outcome::Passed;
                @let high = if is_passed { DOT.1 } else { DOT.1 * 2.0 };
                rect class=(class_of(it.outcome)) x=(num(x - DOT.0 / 2.0)) y=(num(y(it) - high / 2.0))
                    width=(num(DOT.0)) height=(num(high)) {
                    title { (word_of(it.outcome)) ", " (duration(nanos(it))) }
                }
            }
        }
    };
    let scale = [longest, longest / 2, 0].map(duration);
    scaled(&chart, &scale, None, &["older".to_owned(), "newer".to_owned()])
}

pub fn class_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed | Outcome::TimedOut => "failed",
        Outcome::Skipped | Outcome::Infrastructure => "other",
    }
}

pub fn word_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Skipped => "skipped",
        Outcome::Infrastructure => "infrastructure failed",
    }
}
